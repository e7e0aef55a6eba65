/**
 * Which engine this machine gets, and why. An explicit choice that is not available is an error; falling back to a slower engine is
 * said aloud, once.
 */
import { EngineUnavailableError, InvalidArgumentError } from '../errors';
import type { Engine, EngineName, Precision } from './engine';

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
  /** Every engine: tensorflow, webgpu, wasm, cpu. */
  readonly reasons: readonly EngineReason[];
}

/** How an engine is chosen. */
export interface EngineOptions {
  /**
   * `mixed`: matrix products of float16 summed in float32, on a GPU's matrix units, which the `webgpu` engine alone has; another engine, or a device without such units, computes in float32, and that is said once on stderr. Default:
   * what the environment variable SLIMFIT_PRECISION says, else `float32`.
   */
  readonly precision?: Precision;
}

const MAKERS: Readonly<Record<EngineName, (precision: Precision) => Promise<Engine>>> = {
  tensorflow: async () => (await import('./tfjs/createTensorflowEngine')).createTensorflowEngine(),
  webgpu: async (precision) => (await import('./webgpu/createWebgpuEngine')).createWebgpuEngine({ precision }),
  wasm: async () => (await import('./tfjs/tfjsEngine')).createTfjsEngine('wasm'),
  cpu: async () => (await import('./tfjs/tfjsEngine')).createTfjsEngine('cpu'),
};

/** Every engine. The first that computes on a GPU is the best, else the first but webgpu, which is slow on a CPU. */
const NAMES = Object.keys(MAKERS) as EngineName[];

/** Whether an engine's device is a GPU, as it says itself. */
function onGpu(device: string): boolean {
  return device.startsWith('GPU');
}

/** What a fallback costs: speed of a matrix product on two cores, measured on each engine. */
const COST: Readonly<Partial<Record<EngineName, string>>> = {
  wasm: 'matrix products are about 6 times slower than with TensorFlow (17 instead of 105 GFLOP/s on two cores)',
  cpu: 'matrix products are about 200 times slower than with TensorFlow (0.5 instead of 105 GFLOP/s on two cores)',
};

/** The engine that SLIMFIT_ENGINE names; an empty value asks for nothing. */
function asked(): string | undefined {
  return process.env.SLIMFIT_ENGINE || undefined;
}

/** The precision that is asked for, by argument or by SLIMFIT_PRECISION. */
function askedPrecision(given: Precision | undefined): Precision {
  const asked = given ?? (process.env.SLIMFIT_PRECISION || 'float32');
  if (asked !== 'float32' && asked !== 'mixed') throw new InvalidArgumentError(`precision${given === undefined ? ' (SLIMFIT_PRECISION)' : ''} is '${asked}': it must be float32 or mixed`);
  return asked;
}

async function make(name: EngineName, precision: Precision): Promise<Engine> {
  try {
    return await MAKERS[name](precision);
  } catch (cause) {
    if (cause instanceof EngineUnavailableError || cause instanceof InvalidArgumentError) throw cause;
    throw new EngineUnavailableError(`the ${name} engine does not start (${(cause as Error).message}): run \`npm ci\`, or choose another engine`, { cause });
  }
}

/** Starts each engine in turn to see what this machine has. */
export async function engineChoice(): Promise<EngineChoice> {
  const reasons: EngineReason[] = [];
  const precision = askedPrecision(undefined);
  for (const name of NAMES) {
    try {
      const engine = await make(name, precision);
      reasons.push({ name, available: true, why: engine.device });
      engine.dispose();
    } catch (error) {
      reasons.push({ name, available: false, why: (error as Error).message });
    }
  }
  const wanted = asked();
  const starts = reasons.filter((r) => r.available && (wanted === undefined || r.name === wanted));
  const chosen = wanted === undefined ? (starts.find((r) => onGpu(r.why)) ?? starts.find((r) => r.name !== 'webgpu')) : starts[0];
  return { chosen: chosen?.name, reasons };
}

let fallbackSaid = false;

/** Says once what a slow engine costs, and why it is used. */
function fallenBack(engine: Engine, why: string): Engine {
  if (!fallbackSaid) process.stderr.write(`slimfit: falling back to the ${engine.name} engine, ${COST[engine.name]}, because ${why}\n`);
  fallbackSaid = true;
  return engine;
}

let precisionSaid = false;

/** Says once that an engine has no mixed precision. WebGPU says itself what a device lacks. */
function atPrecision(engine: Engine, wanted: Precision): Engine {
  if (wanted === 'mixed' && engine.name !== 'webgpu' && !precisionSaid) {
    precisionSaid = true;
    process.stderr.write(`slimfit: the ${engine.name} engine computes in float32: mixed precision is had with the webgpu engine, on a GPU with matrix units\n`);
  }
  return engine;
}

/**
 * The engine of that name, else of the environment variable SLIMFIT_ENGINE, else the first of tensorflow and webgpu that computes on a GPU, else the first of tensorflow, wasm, cpu that starts.
 * @throws EngineUnavailableError when a named one does not run here (never another instead), InvalidArgumentError for an unknown name or precision
 */
export async function chooseEngine(name?: EngineName, options: EngineOptions = {}): Promise<Engine> {
  const precision = askedPrecision(options.precision);
  return atPrecision(await chosenEngine(name, precision), precision);
}

async function chosenEngine(name: EngineName | undefined, precision: Precision): Promise<Engine> {
  const wanted = name ?? asked();
  if (wanted !== undefined) {
    if (!NAMES.some((n) => n === wanted)) throw new InvalidArgumentError(`no engine is called '${wanted}'${name === undefined ? ' (SLIMFIT_ENGINE)' : ''}: choose one of ${NAMES.join(', ')}`);
    return make(wanted as EngineName, precision);
  }
  let why = '';
  // TensorFlow on a CPU waits until it is known whether WebGPU has a GPU.
  let waiting: Engine | undefined;
  for (const candidate of NAMES) {
    try {
      const engine = await make(candidate, precision);
      if (onGpu(engine.device)) {
        waiting?.dispose();
        return engine;
      }
      if (candidate === 'tensorflow') waiting = engine;
      else if (candidate === 'webgpu') engine.dispose();
      else return fallenBack(engine, why);
    } catch (error) {
      why ||= (error as Error).message.replaceAll('\n', ' ');
    }
    if (candidate === 'webgpu' && waiting) return waiting;
  }
  throw new EngineUnavailableError(`no engine starts on this machine: ${why}`);
}
