/**
 * Which engine this machine gets, and why. An explicit choice that is not available is an error; falling back to a slower engine is
 * said aloud, once.
 */
import { EngineUnavailableError, InvalidArgumentError } from '../errors';
import type { Engine, EngineName } from './engine';

/** One engine's availability. */
export interface EngineReason {
  readonly name: EngineName;
  readonly available: boolean;
  /** What it computes on, or why it does not start and what to do. */
  readonly why: string;
}

/** What `chooseEngine()` will pick. */
export interface EngineChoice {
  readonly chosen: EngineName | undefined;
  /** Every engine, best first. */
  readonly reasons: readonly EngineReason[];
}

const MAKERS: Readonly<Record<Exclude<EngineName, 'webgpu'>, () => Promise<Engine>>> = {
  tensorflow: async () => (await import('./tfjs/tensorflowEngine')).createTensorflowEngine(),
  wasm: async () => (await import('./tfjs/tfjsEngine')).createTfjsEngine('wasm'),
  cpu: async () => (await import('./tfjs/tfjsEngine')).createTfjsEngine('cpu'),
};

async function make(name: EngineName): Promise<Engine> {
  if (name === 'webgpu') throw new EngineUnavailableError('this version has no webgpu engine: choose tensorflow, wasm or cpu');
  return MAKERS[name]();
}

/** Starts each engine in turn, best first, to see what this machine has. */
export async function engineChoice(): Promise<EngineChoice> {
  const reasons: EngineReason[] = [];
  for (const name of Object.keys(MAKERS) as EngineName[]) {
    try {
      const engine = await make(name);
      reasons.push({ name, available: true, why: engine.device });
      engine.dispose();
    } catch (error) {
      reasons.push({ name, available: false, why: (error as Error).message });
    }
  }
  return { chosen: reasons.find((r) => r.available)?.name, reasons };
}

let fallbackSaid = false;

/**
 * The engine of that name, else of the environment variable SLIMFIT_ENGINE, else the best of tensorflow, wasm, cpu.
 * @throws EngineUnavailableError when a named one does not run here (never another instead), InvalidArgumentError for an unknown name
 */
export async function chooseEngine(name: string | undefined = process.env.SLIMFIT_ENGINE || undefined): Promise<Engine> {
  if (name !== undefined) {
    if (name !== 'webgpu' && !(name in MAKERS)) throw new InvalidArgumentError(`no engine is called '${name}': choose one of ${Object.keys(MAKERS).join(', ')}`);
    return make(name as EngineName);
  }
  let why = '';
  for (const candidate of Object.keys(MAKERS) as EngineName[]) {
    try {
      const engine = await make(candidate);
      if (candidate !== 'tensorflow' && !fallbackSaid) {
        fallbackSaid = true;
        process.stderr.write(`slimfit: training on the ${candidate} engine, ${candidate === 'wasm' ? 'about 6' : 'about 200'} times slower than TensorFlow: ${why}\n`);
      }
      return engine;
    } catch (error) {
      why ||= (error as Error).message;
    }
  }
  throw new EngineUnavailableError(`no engine starts on this machine: ${why}`);
}
