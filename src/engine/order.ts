/**
 * The order of the engines: the first of tensorflow, webgpu, wasm, cpu that computes on a GPU, else the first of tensorflow, wasm, cpu that starts. webgpu on a CPU is a software driver, slower than all of
 * them: it is taken when it is named, never by itself.
 */
import { EngineUnavailableError } from '../errors';
import type { Engine, EngineName } from './engine';

/** How each engine is made. */
export type Makers = Readonly<Record<EngineName, () => Promise<Engine>>>;

/** Every engine, in order. */
export const ENGINE_NAMES: readonly EngineName[] = ['tensorflow', 'webgpu', 'wasm', 'cpu'];

/** One engine's availability. */
export interface EngineReason {
  readonly name: EngineName;
  readonly available: boolean;
  /** What it computes on, or why it does not start and what to do. */
  readonly why: string;
}

/** Whether an engine's device is a GPU, as it says itself. */
export function onGpu(device: string): boolean {
  return device.startsWith('GPU');
}

/** Starts each engine in turn to see what this machine has. */
export async function survey(makers: Makers): Promise<EngineReason[]> {
  const reasons: EngineReason[] = [];
  for (const name of ENGINE_NAMES) {
    try {
      const engine = await makers[name]();
      reasons.push({ name, available: true, why: engine.device });
      engine.dispose();
    } catch (error) {
      reasons.push({ name, available: false, why: (error as Error).message });
    }
  }
  return reasons;
}

/** The first by the order, of what a survey found; undefined when none starts. @returns with why it is that one */
export function firstOf(reasons: readonly EngineReason[]): { readonly name: EngineName; readonly because: string } | undefined {
  const starts = reasons.filter((r) => r.available);
  const gpu = starts.find((r) => onGpu(r.why));
  if (gpu) return { name: gpu.name, because: gpu.name === 'tensorflow' ? 'it computes on a GPU' : 'it computes on a GPU, and tensorflow does not' };
  const cpu = starts.find((r) => r.name !== 'webgpu');
  return cpu && { name: cpu.name, because: `no engine finds a GPU here, and on a CPU it is the fastest${cpu.name === 'tensorflow' ? '' : ' that starts'}` };
}

/**
 * The same engine, started; the others are tried only as far as it needs, and given back.
 * @returns with why the first engine that does not start does not; '' where it was not tried
 * @throws EngineUnavailableError when none starts
 */
export async function startFirst(makers: Makers): Promise<{ readonly engine: Engine; readonly missing: string }> {
  let missing = '';
  // TensorFlow on a CPU waits until it is known whether WebGPU has a GPU.
  let waiting: Engine | undefined;
  for (const name of ENGINE_NAMES) {
    try {
      const engine = await makers[name]();
      if (onGpu(engine.device)) {
        waiting?.dispose();
        return { engine, missing };
      }
      if (name === 'tensorflow') waiting = engine;
      else if (name === 'webgpu') engine.dispose();
      else return { engine, missing };
    } catch (error) {
      missing ||= (error as Error).message.replaceAll('\n', ' ');
    }
    if (name === 'webgpu' && waiting) return { engine: waiting, missing };
  }
  throw new EngineUnavailableError(`no engine starts on this machine: ${missing}`);
}
