/** The connection file: the key whose owner may run code here, and the one address that the sockets bind to. It is read strictly, because whoever has the key, or needs none, has the user's account. */
import { readFileSync, statSync } from 'node:fs';
import type { ConnectionInfo } from './wire';

const PORTS = ['shell_port', 'control_port', 'iopub_port', 'stdin_port', 'hb_port'] as const;

/**
 * Reads a connection file.
 * @throws Error that says why the kernel does not start with it: others may read it (unless JUPYTER_ALLOW_INSECURE_WRITES is set, which lets Jupyter write it so), no key, another transport than TCP, a port that
 * is none
 */
export function readConnection(file: string, env: Readonly<Record<string, string | undefined>> = process.env): ConnectionInfo {
  const { mode } = statSync(file);
  const lax = ['1', 'true'].includes((env.JUPYTER_ALLOW_INSECURE_WRITES ?? '').toLowerCase());
  if (process.platform !== 'win32' && (mode & 0o077) !== 0 && !lax)
    throw new Error(`others may read ${file} (mode ${(mode & 0o777).toString(8)}), and with it the key that lets them run code here: chmod 600, or set JUPYTER_ALLOW_INSECURE_WRITES=1 where files have no owners`);
  let json: Partial<ConnectionInfo> | null;
  try {
    json = JSON.parse(readFileSync(file, 'utf8')) as Partial<ConnectionInfo> | null;
  } catch {
    // The parser's own words quote the file, key included.
    throw new Error(`${file} is no JSON`);
  }
  const { transport, ip, key } = json ?? {};
  if (typeof key !== 'string' || key === '') throw new Error(`${file} has no key: whoever reaches its ports could run code here. Start Jupyter with one (Session.key)`);
  if (transport !== 'tcp') throw new Error(`${file} has transport ${JSON.stringify(transport)}; only tcp is supported`);
  if (typeof ip !== 'string' || ip === '') throw new Error(`${file} has ip ${JSON.stringify(ip)}; it must be an address to bind to`);
  for (const name of PORTS) {
    const port = json![name];
    if (!(Number.isInteger(port) && port! >= 1 && port! <= 65_535)) throw new Error(`${file} has ${name} ${JSON.stringify(port)}; it must be a port`);
  }
  return json as ConnectionInfo;
}
