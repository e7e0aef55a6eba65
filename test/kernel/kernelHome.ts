/**
 * A kernel built from this tree into a folder of its own, with a small stand-in for the library, and a front end that speaks to it: for tests.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { build } from 'esbuild';
import { Dealer, Request as ZmqRequest, Subscriber } from 'zeromq';
import { type ConnectionInfo, type Header, type Message, Wire } from '../../kernel/wire';

const ROOT = path.resolve(__dirname, '../..');

/** The stand-in for the library, with what the tests look at. */
const STAND_IN = {
  'package.json': JSON.stringify({ name: 'slimfit', version: '0.0.0', main: 'index.js', types: 'index.d.ts' }),
  'index.js': 'exports.answer = 42; exports.double = (x) => 2 * x;',
  'index.d.ts': '/** The answer. */\nexport declare const answer: number;\n/** Twice a number. */\nexport declare function double(x: number): number;\n',
};

/** Builds the kernel into a temporary folder that has the project's packages. */
export async function makeKernelHome(): Promise<{ home: string; remove(): void }> {
  const home = realpathSync(mkdtempSync(path.join(tmpdir(), 'slimfit-kernel-')));
  const modules = path.join(home, 'node_modules');
  mkdirSync(path.join(modules, 'slimfit'), { recursive: true });
  for (const name of readdirSync(path.join(ROOT, 'node_modules'))) if (name !== 'slimfit' && !name.startsWith('.')) symlinkSync(path.join(ROOT, 'node_modules', name), path.join(modules, name), 'junction');
  for (const [file, text] of Object.entries(STAND_IN)) writeFileSync(path.join(modules, 'slimfit', file), text);
  await build({
    entryPoints: { main: path.join(ROOT, 'kernel/main.ts'), ioThread: path.join(ROOT, 'kernel/ioThread.ts') },
    bundle: true,
    platform: 'node',
    target: 'node20',
    packages: 'external',
    format: 'cjs',
    outdir: path.join(home, 'dist/kernel'),
    outExtension: { '.js': '.cjs' },
    logLevel: 'error',
  });
  return { home, remove: () => rmSync(home, { recursive: true, force: true }) };
}

/** A message that came back. */
export interface Received extends Message {
  readonly parent: Partial<Header>;
}

/** What one request brought: its reply and what was published for it up to idle. */
export interface Outcome {
  readonly reply: Received;
  readonly published: readonly Received[];
  /** Content of the only or last message of a type. */
  last(type: string): Record<string, unknown>;
  /** All that was printed to a stream. */
  text(name: 'stdout' | 'stderr'): string;
  /** MIME data of the result. */
  result(): Record<string, string> | undefined;
}

/** Ports that nobody listens on. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, () => new Promise<ReturnType<typeof createServer>>((resolve) => {
      const server = createServer().listen(0, '127.0.0.1', () => resolve(server));
    })),
  );
  const ports = servers.map((s) => (s.address() as { port: number }).port);
  await Promise.all(servers.map((s) => new Promise((resolve) => s.close(resolve))));
  return ports;
}

/** Writes a connection file for a kernel of its own. */
export async function writeConnection(folder: string): Promise<{ connection: ConnectionInfo; file: string }> {
  const [shell_port, control_port, iopub_port, stdin_port, hb_port] = await freePorts(5);
  const connection = { transport: 'tcp', ip: '127.0.0.1', key: randomUUID(), signature_scheme: 'hmac-sha256', shell_port, control_port, iopub_port, stdin_port, hb_port };
  const file = path.join(folder, `connection-${shell_port}.json`);
  writeFileSync(file, JSON.stringify(connection), { mode: 0o600 });
  return { connection, file };
}

/** A front end of a running kernel. */
export class KernelClient {
  readonly received: Received[] = [];
  readonly wire: Wire;
  private readonly shell = new Dealer({ linger: 0 });
  private readonly control = new Dealer({ linger: 0 });
  private readonly heartbeat = new ZmqRequest({ linger: 0 });
  private readonly iopub = new Subscriber({ linger: 0 });
  private readonly waiting = new Set<() => void>();
  readonly exited: Promise<number | null>;
  stderr = '';

  private constructor(
    readonly process: ChildProcess,
    readonly connection: ConnectionInfo,
  ) {
    this.wire = new Wire(connection);
    this.exited = new Promise((resolve) => process.on('exit', resolve));
    process.stderr!.on('data', (d) => (this.stderr += String(d)));
  }

  /** Starts a kernel in a working folder. */
  static async start(home: string, cwd: string): Promise<KernelClient> {
    const { connection, file } = await writeConnection(home);
    const child = spawn(process.execPath, [path.join(home, 'dist/kernel/main.cjs'), file], { cwd, stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, SLIMFIT_KERNEL_DEBUG: '1' } });
    return KernelClient.connect(child, connection);
  }

  /** A second front end of the same kernel. */
  beside(): Promise<KernelClient> {
    return KernelClient.connect(this.process, this.connection);
  }

  private static async connect(child: ChildProcess, connection: ConnectionInfo): Promise<KernelClient> {
    const { shell_port, control_port, iopub_port, hb_port } = connection;
    const client = new KernelClient(child, connection);
    const at = (p: number) => `tcp://127.0.0.1:${p}`;
    client.shell.connect(at(shell_port));
    client.control.connect(at(control_port));
    client.heartbeat.connect(at(hb_port));
    client.iopub.connect(at(iopub_port));
    client.iopub.subscribe();
    for (const socket of [client.shell, client.control, client.iopub]) void client.listen(socket);
    await client.connected();
    return client;
  }

  /** A subscription takes a moment; until then published messages are lost. */
  private async connected(): Promise<void> {
    for (let attempt = 0; attempt < 100; attempt++) {
      const { msg_id } = await this.send('shell', 'kernel_info_request', {});
      const seen = () => this.received.some((m) => m.parent.msg_id === msg_id && m.header.msg_type === 'status');
      if (await this.until(seen, 300).then(() => true, () => false)) return;
    }
    throw new Error(`the kernel did not start: ${this.stderr}`);
  }

  private async listen(socket: Dealer | Subscriber): Promise<void> {
    try {
      for await (const frames of socket) {
        const message = this.wire.decode(frames);
        const parent = JSON.parse(frames[frames.length - 3].toString()) as Partial<Header>;
        this.received.push({ ...message, parent });
        for (const check of [...this.waiting]) check();
      }
    } catch {
      // The socket was closed: the test is over.
    }
  }

  /** Resolves when a condition holds of what was received. */
  until(condition: () => boolean, ms = 60_000): Promise<void> {
    return new Promise((resolve, reject) => {
      const check = () => {
        if (!condition()) return;
        this.waiting.delete(check);
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(() => {
        this.waiting.delete(check);
        reject(new Error(`nothing came in ${ms} ms; the kernel said: ${this.stderr}`));
      }, ms);
      this.waiting.add(check);
      check();
    });
  }

  /** Sends a request. @returns its header */
  async send(channel: 'shell' | 'control', type: string, content: object): Promise<Header> {
    const frames = this.wire.encode(type, content, undefined);
    await this.sendFrames(channel, frames);
    return JSON.parse(frames[2].toString()) as Header;
  }

  sendFrames(channel: 'shell' | 'control', frames: readonly (Buffer | string)[]): Promise<void> {
    return this[channel].send([...frames]);
  }

  /** What a request brought, once the kernel is idle again for it. */
  async outcome({ msg_id, msg_type }: Header): Promise<Outcome> {
    const of = () => this.received.filter((m) => m.parent.msg_id === msg_id);
    const reply = () => of().find((m) => m.header.msg_type === msg_type.replace('_request', '_reply'));
    await this.until(() => reply() !== undefined && of().some((m) => m.header.msg_type === 'status' && m.content.execution_state === 'idle'));
    const published = of().filter((m) => m !== reply());
    const last = (type: string) => {
      const found = published.filter((m) => m.header.msg_type === type).at(-1);
      if (!found) throw new Error(`no ${type} came, but ${published.map((m) => `${m.header.msg_type} ${JSON.stringify(m.content).slice(0, 300)}`).join('; ')}`);
      return found.content;
    };
    return {
      reply: reply()!,
      published,
      last,
      text: (name) => published.filter((m) => m.header.msg_type === 'stream' && m.content.name === name).map((m) => m.content.text).join(''),
      result: () => published.find((m) => m.header.msg_type === 'execute_result')?.content.data as Record<string, string> | undefined,
    };
  }

  async ask(type: string, content: object, channel: 'shell' | 'control' = 'shell'): Promise<Outcome> {
    return this.outcome(await this.send(channel, type, content));
  }

  /** Runs a cell. */
  run(code: string, options: object = {}): Promise<Outcome> {
    return this.ask('execute_request', { code, silent: false, store_history: true, user_expressions: {}, allow_stdin: false, stop_on_error: true, ...options });
  }

  /** One heartbeat. */
  async beat(): Promise<string> {
    await this.heartbeat.send('are you there?');
    return (await this.heartbeat.receive())[0].toString();
  }

  /** Closes this front end; the kernel stays. */
  leave(): void {
    for (const s of [this.shell, this.control, this.heartbeat, this.iopub]) s.close();
  }

  /** Ends the kernel, by force if need be. */
  async stop(): Promise<void> {
    this.leave();
    if (this.process.exitCode === null && this.process.signalCode === null) {
      this.process.kill('SIGKILL');
      await this.exited;
    }
  }
}
