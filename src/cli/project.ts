/** The project's own folder and programs: its set-up, its Python environment, its JupyterLab. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { FileMissingError } from '../errors';

/** The project's folder: this file is bundled to dist/cli.cjs. */
export const HOME = path.resolve(__dirname, existsSync(path.join(__dirname, '../package.json')) ? '..' : '../..');

/** A program of the project's Python environment. */
export function pythonProgram(name: string): string {
  return process.platform === 'win32' ? path.join(HOME, '.slimfit/python/Scripts', `${name}.exe`) : path.join(HOME, '.slimfit/python/bin', name);
}

function foreground(program: string, args: readonly string[], cwd: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, stdio: 'inherit' });
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
    // Ctrl-C goes to the child, which decides.
    process.on('SIGINT', () => {});
  });
}

/** `npm run setup` and the like, from any folder. */
export function bootstrap(command: string, args: readonly string[]): Promise<number> {
  return foreground(process.execPath, [path.join(HOME, 'src/cli/bootstrap.mjs'), command, ...args], HOME);
}

/** Opens JupyterLab in the present folder; further arguments go to it. */
export async function lab(args: readonly string[]): Promise<number> {
  const jupyter = pythonProgram('jupyter');
  if (!existsSync(jupyter)) throw new FileMissingError('JupyterLab is not installed in the project: run `npx slimfit setup` first');
  return foreground(jupyter, ['lab', ...args], process.cwd());
}
