/**
 * Which engine this machine gets, and why. An explicit choice that is not available is an error; falling back to a slower engine is
 * said aloud, once.
 */
import { EngineUnavailableError, InvalidArgumentError } from '../errors';
import type { Engine, EngineName, Precision } from './engine';
import { ENGINE_NAMES, type EngineReason, firstOf, type Makers, startFirst, survey } from './order';
import type { AdapterSummary, EngineOptions } from './webgpu/adapters';

/** What `chooseEngine()` will pick. */
export interface EngineChoice {
  /** Undefined when the engine that SLIMFIT_ENGINE asks for does not start, or none does. */
  readonly chosen: EngineName | undefined;
  /** Why it is that one, or none. */
  readonly because: string;
  /** Every engine: tensorflow, webgpu, wasm, cpu. */
  readonly reasons: readonly EngineReason[];
  /** What WebGPU could compute on, GPUs first; empty where it does not load, which the reason of `webgpu` tells. */
  readonly adapters: readonly AdapterSummary[];
}

const MAKERS: Readonly<Record<EngineName, (options: EngineOptions) => Promise<Engine>>> = {
  tensorflow: async () => (await import('./tfjs/createTensorflowEngine')).createTensorflowEngine(),
  webgpu: async (options) => (await import('./webgpu/createWebgpuEngine')).createWebgpuEngine(options),
  wasm: async () => (await import('./tfjs/tfjsEngine')).createTfjsEngine('wasm'),
  cpu: async () => (await import('./tfjs/tfjsEngine')).createTfjsEngine('cpu'),
};

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

async function make(name: EngineName, options: EngineOptions): Promise<Engine> {
  try {
    return await MAKERS[name](options);
  } catch (cause) {
    if (cause instanceof EngineUnavailableError || cause instanceof InvalidArgumentError) throw cause;
    throw new EngineUnavailableError(`the ${name} engine does not start (${(cause as Error).message}): run \`npm ci\`, or choose another engine`, { cause });
  }
}

const makersWith = (options: EngineOptions): Makers => Object.fromEntries(ENGINE_NAMES.map((name) => [name, () => make(name, options)])) as unknown as Makers;

/** Starts each engine in turn to see what this machine has, and looks at WebGPU's adapters. */
export async function engineChoice(): Promise<EngineChoice> {
  const reasons = await survey(makersWith({ precision: askedPrecision(undefined) }));
  const adapters = await import('./webgpu/dawn').then(({ listAdapters }) => listAdapters()).catch(() => []);
  const wanted = asked();
  if (wanted === undefined) {
    const first = firstOf(reasons);
    return { chosen: first?.name, because: first?.because ?? 'no engine starts', reasons, adapters };
  }
  const chosen = reasons.find((r) => r.available && r.name === wanted)?.name;
  return { chosen, because: `SLIMFIT_ENGINE asks for ${chosen ? 'it' : `${wanted}, which is not available`}`, reasons, adapters };
}

let fallbackSaid = false;

/** Says once what a slow engine costs, and why it is used. */
function sayFallback({ name }: Engine, why: string): void {
  if (!COST[name] || fallbackSaid) return;
  fallbackSaid = true;
  process.stderr.write(`slimfit: falling back to the ${name} engine, ${COST[name]}, because ${why}\n`);
}

let precisionSaid = false;

/** Says once that an engine has no mixed precision. WebGPU says itself what a device lacks. */
function sayPrecision({ name }: Engine, wanted: Precision): void {
  if (wanted !== 'mixed' || name === 'webgpu' || precisionSaid) return;
  precisionSaid = true;
  process.stderr.write(`slimfit: the ${name} engine computes in float32: mixed precision is had with the webgpu engine, on a GPU with matrix units\n`);
}

/**
 * The engine of that name, else of the environment variable SLIMFIT_ENGINE, else the first of tensorflow and webgpu that computes on a GPU, else the first of tensorflow, wasm, cpu that starts.
 * @throws EngineUnavailableError when a named one does not run here (never another instead), InvalidArgumentError for an unknown name or precision, or an adapter for an engine that has none
 */
export async function chooseEngine(name?: EngineName, options: EngineOptions = {}): Promise<Engine> {
  const precision = askedPrecision(options.precision);
  const engine = await chosenEngine(name, { ...options, precision });
  sayPrecision(engine, precision);
  return engine;
}

async function chosenEngine(name: EngineName | undefined, options: EngineOptions): Promise<Engine> {
  const wanted = name ?? asked();
  const { adapter } = options;
  if (adapter !== undefined && adapter !== 'hardware' && adapter !== 'software') throw new InvalidArgumentError(`adapter is '${String(adapter)}': it must be hardware or software`);
  if (wanted !== undefined) {
    if (!ENGINE_NAMES.some((n) => n === wanted)) throw new InvalidArgumentError(`no engine is called '${wanted}'${name === undefined ? ' (SLIMFIT_ENGINE)' : ''}: choose one of ${ENGINE_NAMES.join(', ')}`);
    if (adapter !== undefined && wanted !== 'webgpu') throw new InvalidArgumentError(`the ${wanted} engine has no adapters ('${adapter}'): they are the webgpu engine's`);
    return make(wanted as EngineName, options);
  }
  const { engine, missing } = await startFirst(makersWith(options));
  sayFallback(engine, missing);
  return engine;
}
