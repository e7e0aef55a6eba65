/** Writes the kernelspec to where `jupyter` looks for kernels. Needs no Python. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';

/** Name that notebooks ask for. */
export const KERNEL_NAME = 'slimfit';

/** Where to install: a prefix such as a Python environment's folder, or the user's own Jupyter folder. */
export interface KernelPlace {
  readonly prefix?: string;
}

/** Jupyter's data folder of a place (jupyter_core: jupyter_data_dir). */
function kernelsFolder({ prefix }: KernelPlace): string {
  if (prefix) return path.join(prefix, 'share', 'jupyter', 'kernels');
  const data = process.env.JUPYTER_DATA_DIR;
  if (data) return path.join(data, 'kernels');
  switch (process.platform) {
    case 'darwin':
      return path.join(homedir(), 'Library', 'Jupyter', 'kernels');
    case 'win32':
      return path.join(process.env.APPDATA ?? path.join(homedir(), 'AppData', 'Roaming'), 'jupyter', 'kernels');
    default:
      return path.join(process.env.XDG_DATA_HOME ?? path.join(homedir(), '.local', 'share'), 'jupyter', 'kernels');
  }
}

/** Installs the kernel of the project at `home`. Plotly lies beside the kernelspec, so that a notebook's figures load it from the same server. @returns the folder */
export function installKernelspec(home: string, place: KernelPlace): string {
  const folder = path.join(kernelsFolder(place), KERNEL_NAME);
  mkdirSync(folder, { recursive: true });
  const spec = {
    argv: [process.execPath, path.join(home, 'dist', 'kernel', 'main.cjs'), '{connection_file}'],
    display_name: 'TypeScript (SlimFit)',
    language: 'typescript',
    interrupt_mode: 'message',
    metadata: { debugger: false },
  };
  writeFileSync(path.join(folder, 'kernel.json'), `${JSON.stringify(spec, null, 2)}\n`);
  copyFileSync(require.resolve('plotly.js-dist', { paths: [home] }), path.join(folder, 'plotly.min.js'));
  const art = path.join(home, 'kernel', 'kernelspec');
  for (const f of readdirSync(art)) copyFileSync(path.join(art, f), path.join(folder, f));
  return folder;
}

/** Removes the kernelspec. @returns whether there was one */
export function uninstallKernelspec(place: KernelPlace): boolean {
  const folder = path.join(kernelsFolder(place), KERNEL_NAME);
  const there = existsSync(folder);
  rmSync(folder, { recursive: true, force: true });
  return there;
}

/** The installed kernelspec of a place, and the program that it starts. */
export function findKernelspec(place: KernelPlace): { folder: string; argv: readonly string[] } | undefined {
  const folder = path.join(kernelsFolder(place), KERNEL_NAME);
  const file = path.join(folder, 'kernel.json');
  if (!existsSync(file)) return undefined;
  return { folder, argv: (JSON.parse(readFileSync(file, 'utf8')) as { argv: string[] }).argv };
}
