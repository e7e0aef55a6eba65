/** `slimfit doctor`: what is installed, which engine trains here and why, and what would make it faster. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { engineChoice } from '../engine/choose';
import { addonPackage, fusedKernels } from '../engine/tfjs/tensorflowBinding';
import { type AdapterSummary, listAdapters } from '../engine/webgpu/dawn';
import { findKernelspec } from '../../kernel/install';
import { HOME, pythonProgram } from './project';

/** CUDA libraries that TensorFlow loads at run time. */
const CUDA_LIBRARIES = ['libcudart', 'libcublas', 'libcudnn', 'libcufft', 'libcusolver', 'libcusparse'];

function versionOf(program: string, args: readonly string[] = ['--version']): string {
  const r = spawnSync(program, args, { encoding: 'utf8' });
  return r.status === 0 ? (r.stdout || r.stderr).trim().split('\n')[0] : 'not found';
}

/** Names of the NVIDIA GPUs that the driver sees, and the driver's version. */
function nvidia(): { gpus: string[]; driver: string } | undefined {
  const r = spawnSync('nvidia-smi', ['--query-gpu=name,driver_version', '--format=csv,noheader'], { encoding: 'utf8' });
  if (r.status !== 0) return undefined;
  const rows = r.stdout.trim().split('\n').map((l) => l.split(',').map((c) => c.trim()));
  return { gpus: rows.map((c) => c[0]), driver: rows[0]?.[1] ?? '' };
}

/** Which of the libraries are in none of the folders. */
export function missingLibraries(wanted: readonly string[], folders: readonly string[]): string[] {
  const there = folders.filter((f) => existsSync(f)).flatMap((f) => readdirSync(f));
  return wanted.filter((lib) => !there.some((f) => f.startsWith(`${lib}.so`)));
}

/** Where the loader looks for CUDA: the wheel's own nvidia packages, then the system. */
function libraryFolders(): string[] {
  const system = ['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/usr/local/cuda/lib64', ...(process.env.LD_LIBRARY_PATH ?? '').split(':').filter(Boolean)];
  const folder = addonPackage();
  const link = folder && path.join(folder, 'deps/lib/libtensorflow_framework.so');
  if (!link || !existsSync(link)) return system;
  const nvidiaFolder = path.join(path.dirname(path.dirname(realpathSync(link))), 'nvidia');
  const own = existsSync(nvidiaFolder) ? readdirSync(nvidiaFolder).map((d) => path.join(nvidiaFolder, d, 'lib')) : [];
  return [...own, ...system];
}

/** What WebGPU could compute on. */
function describe({ kind, name, maxBuffer, maxBinding, workgroupThreads, workgroupBytes, features, mixed }: AdapterSummary): string {
  const gib = Math.round((10 * Math.min(maxBuffer, maxBinding)) / 2 ** 30) / 10;
  return `${kind} ${name}: tensors up to ${gib} GiB, workgroups of ${workgroupThreads} threads and ${workgroupBytes / 1024} KiB; mixed precision: ${mixed}; ${features.join(', ')}`;
}

/** Prints the report. @returns 0, or 1 when no engine can train */
export async function doctor(): Promise<number> {
  const line = (name: string, value: string) => process.stdout.write(`${name.padEnd(10)} ${value}\n`);
  line('Node', `${process.version} (${process.execPath})`);
  line('npm', versionOf('npm'));
  line('Python', existsSync(pythonProgram('python')) ? `${versionOf(pythonProgram('python'))} (the project's own)` : `${versionOf('python3')} (the project's own is not set up: slimfit setup)`);
  line('Jupyter', existsSync(pythonProgram('jupyter-lab')) ? `JupyterLab ${versionOf(pythonProgram('jupyter-lab'))}` : 'not set up: slimfit setup');
  const spec = findKernelspec({ prefix: path.join(HOME, '.slimfit/python') });
  line('kernel', spec ? spec.folder : 'not installed: slimfit setup');
  const gpu = nvidia();
  line('GPU', gpu ? `${gpu.gpus.join(', ')} (driver ${gpu.driver})` : 'no NVIDIA driver found');

  const asked = process.env.SLIMFIT_ENGINE;
  const { chosen, reasons } = await engineChoice();
  for (const r of reasons) line('engine', `${r.available ? '✓' : '✗'} ${r.name}: ${r.why}`);
  // Where WebGPU does not load, its engine's line says why.
  for (const adapter of await listAdapters().catch(() => [])) line('adapter', describe(adapter));
  const picked = asked || chosen;
  if (!picked || (asked && !reasons.some((r) => r.name === asked && r.available))) {
    line('trains on', asked ? `nothing: SLIMFIT_ENGINE asks for ${asked}, which is not available` : 'nothing: no engine starts');
    return 1;
  }
  line('trains on', `${picked}: ${asked ? 'SLIMFIT_ENGINE asks for it' : 'the first that computes on a GPU here, else the first of tensorflow, wasm, cpu that starts'}`);
  const onGpu = reasons.some((r) => r.name === picked && r.why.startsWith('GPU'));
  if (gpu && !onGpu && picked !== 'webgpu') {
    const missing = missingLibraries(CUDA_LIBRARIES, libraryFolders());
    line('faster', missing.length > 0 ? `TensorFlow does not find ${missing.join(', ')}: run \`npx slimfit setup --gpu\`` : 'this TensorFlow was built without CUDA: run `npx slimfit setup --gpu`');
  } else if (asked && picked !== 'tensorflow' && reasons.some((r) => r.name === 'tensorflow' && r.available)) line('faster', `the tensorflow engine, which starts here: unset SLIMFIT_ENGINE`);
  else if (picked !== 'tensorflow' && !onGpu) line('faster', 'TensorFlow is about 6 times faster than wasm on a CPU: run `npx slimfit setup`');
  else if (!onGpu && !fusedKernels().loaded) line('faster', `the fused CPU kernels are missing (${fusedKernels().why}): training is about 1.5 times slower without them`);
  else if (!onGpu) line('faster', 'a machine with an NVIDIA GPU and `npx slimfit setup --gpu`');
  return 0;
}
