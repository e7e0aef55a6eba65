/** Runs a Python script of this folder with the project's own Python, in which the kernel is installed, from a folder outside the project. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const PYTHON = path.resolve(__dirname, '../../.slimfit/python', process.platform === 'win32' ? 'Scripts/python.exe' : 'bin/python');

/** Why these tests cannot run, if so. */
export const missing: string | false = existsSync(PYTHON) ? false : "the project's Python is not set up: `npm test` does it";

/** Runs a script. @returns its exit code, its output and what the JSON of its last line says */
export async function runPython(script: string): Promise<{ code: number | null; output: string; summary: Record<string, unknown> }> {
  const cwd = mkdtempSync(path.join(tmpdir(), 'slimfit-jupyter-'));
  // An activated environment finds its own kernels first.
  const env = { ...process.env, PYTHONUNBUFFERED: '1', JUPYTER_PREFER_ENV_PATH: '1', JUPYTER_CONFIG_DIR: path.join(cwd, 'config'), IPYTHONDIR: path.join(cwd, 'ipython') };
  try {
    const child = spawn(PYTHON, [path.join(__dirname, script)], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text));
    const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
    const last = output.trimEnd().split('\n').at(-1) ?? '';
    return { code, output, summary: last.startsWith('{') ? (JSON.parse(last) as Record<string, unknown>) : {} };
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
}
