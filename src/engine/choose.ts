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
  /** Undefined when the engine that SLIMFIT_ENGINE asks for does not start, or none does. */
  readonly chosen: EngineName | undefined;
  /** Every engine, best first. */
  readonly reasons: readonly EngineReason[];
}

const MAKERS: Readonly<Record<Exclude<EngineName, 'webgpu'>, () => Promise<Engine>>> = {
  tensorflow: async () => (await import('./tfjs/createTensorflowEngine')).createTensorflowEngine(),
  wasm: async () => (await import('./tfjs/tfjsEngine')).createTfjsEngine('wasm'),
  cpu: async () => (await import('./tfjs/tfjsEngine')).createTfjsEngine('cpu'),
};

/** Engines that this version has, best first. */
const NAMES = Object.keys(MAKERS) as (keyof typeof MAKERS)[];

/** What a fallback costs: speed of a matrix product on two cores, measured on each engine. */
const COST: Readonly<Partial<Record<EngineName, string>>> = {
  wasm: 'matrix products are about 6 times slower than with TensorFlow (17 instead of 105 GFLOP/s on two cores)',
  cpu: 'matrix products are about 200 times slower than with TensorFlow (0.5 instead of 105 GFLOP/s on two cores)',
};

/** The engine that SLIMFIT_ENGINE names; an empty value asks for nothing. */
function asked(): string | undefined {
  return process.env.SLIMFIT_ENGINE || undefined;
}

async function make(name: EngineName): Promise<Engine> {
  if (name === 'webgpu') throw new EngineUnavailableError(`this version has no webgpu engine: choose one of ${NAMES.join(', ')}`);
  try {
    return await MAKERS[name]();
  } catch (cause) {
    if (cause instanceof EngineUnavailableError) throw cause;
    throw new EngineUnavailableError(`the ${name} engine does not start (${(cause as Error).message}): run \`npm ci\`, or choose another engine`, { cause });
  }
}

/** Starts each engine in turn, best first, to see what this machine has. */
export async function engineChoice(): Promise<EngineChoice> {
  const reasons: EngineReason[] = [];
  for (const name of NAMES) {
    try {
      const engine = await make(name);
      reasons.push({ name, available: true, why: engine.device });
      engine.dispose();
    } catch (error) {
      reasons.push({ name, available: false, why: (error as Error).message });
    }
  }
  const wanted = asked();
  return { chosen: reasons.find((r) => r.available && (wanted === undefined || r.name === wanted))?.name, reasons };
}

let fallbackSaid = false;

/**
 * The engine of that name, else of the environment variable SLIMFIT_ENGINE, else the best of tensorflow, wasm, cpu.
 * @throws EngineUnavailableError when a named one does not run here (never another instead), InvalidArgumentError for an unknown name
 */
export async function chooseEngine(name?: EngineName): Promise<Engine> {
  const wanted = name ?? asked();
  if (wanted !== undefined) {
    if (wanted !== 'webgpu' && !NAMES.some((n) => n === wanted))
      throw new InvalidArgumentError(`no engine is called '${wanted}'${name === undefined ? ' (SLIMFIT_ENGINE)' : ''}: choose one of ${NAMES.join(', ')}`);
    return make(wanted as EngineName);
  }
  let why = '';
  for (const candidate of NAMES) {
    try {
      const engine = await make(candidate);
      if (candidate !== 'tensorflow' && !fallbackSaid) {
        fallbackSaid = true;
        process.stderr.write(`slimfit: falling back to the ${candidate} engine, ${COST[candidate]}, because ${why}\n`);
      }
      return engine;
    } catch (error) {
      why ||= (error as Error).message.replaceAll('\n', ' ');
    }
  }
  throw new EngineUnavailableError(`no engine starts on this machine: ${why}`);
}
