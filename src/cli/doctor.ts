/** `slimfit doctor`: what is installed, which engine trains here and why, and what would make it faster. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { engineChoice } from '../engine/choose';
import type { EngineName } from '../engine/engine';
import { onGpu } from '../engine/order';
import { addonPackage, fusedKernels } from '../engine/tfjs/tensorflowBinding';
import type { AdapterSummary } from '../engine/webgpu/adapters';
import { adapterFacts } from '../inspect/engineCard';
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

/** One adapter in one line. */
function describe(adapter: AdapterSummary): string {
  return `${adapter.kind} ${adapter.name}; ${adapterFacts(adapter).map(([name, value]) => `${name}: ${value}`).join('; ')}`;
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
  const { chosen, because, reasons, adapters } = await engineChoice();
  for (const r of reasons) line('engine', `${r.available ? '✓' : '✗'} ${r.name}: ${r.why}`);
  for (const adapter of adapters) line('adapter', describe(adapter));
  if (adapters.length === 0) line('adapter', 'none: the line of webgpu says why');
  line('trains on', `${chosen ?? 'nothing'}: ${because}`);
  if (!chosen) return 1;
  const faster = waysToBeFaster(chosen, reasons.some((r) => r.name === chosen && onGpu(r.why)), { asked: Boolean(asked), nvidia: gpu !== undefined, tensorflow: reasons.some((r) => r.name === 'tensorflow' && r.available) });
  if (faster) line('faster', faster);
  return 0;
}

/** What would make training faster, if anything within reach would. */
function waysToBeFaster(chosen: EngineName, fast: boolean, has: { readonly asked: boolean; readonly nvidia: boolean; readonly tensorflow: boolean }): string | undefined {
  if (has.nvidia && !fast && chosen !== 'webgpu') {
    const missing = missingLibraries(CUDA_LIBRARIES, libraryFolders());
    return missing.length > 0 ? `TensorFlow does not find ${missing.join(', ')}: run \`npx slimfit setup --gpu\`` : 'this TensorFlow was built without CUDA: run `npx slimfit setup --gpu`';
  }
  if (has.asked && chosen !== 'tensorflow' && has.tensorflow) return 'the tensorflow engine, which starts here: unset SLIMFIT_ENGINE';
  if (fast) return undefined;
  if (chosen !== 'tensorflow') return 'TensorFlow is about 6 times faster than wasm on a CPU: run `npx slimfit setup`';
  if (!fusedKernels().loaded) return `the fused CPU kernels are missing (${fusedKernels().why}): training is about 1.5 times slower without them`;
  return 'a machine with a GPU: of any maker by its Vulkan, Metal or D3D12 driver (webgpu), or of NVIDIA with `npx slimfit setup --gpu` (tensorflow)';
}
