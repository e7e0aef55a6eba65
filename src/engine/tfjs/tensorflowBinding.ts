/**
 * TensorFlow's eager runtime through the native addon of `@tensorflow/tfjs-node-gpu`: raw operations on raw handles, without TensorFlow.js in between. The
 * same addon serves CPU and GPU; `slimfit setup` builds it against a TensorFlow wheel.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { EngineUnavailableError, OutOfMemoryError } from '../../errors';
import { formatBytes } from '../../units';
import { shieldFromSignals } from './signalShield';

/** Element types as TensorFlow numbers them (tensorflow/core/framework/types.proto). */
export const TF_TYPE = { float: 1, int32: 3, uint8: 4, int8: 6, int64: 9, bool: 10, resource: 20, uint64: 23 } as const;

/** Kinds of attributes as the addon numbers them (TF_AttrType). */
const ATTR = { string: 0, int: 1, float: 2, bool: 3, type: 4, shape: 5 } as const;

/** One attribute of an operation. */
export interface Attr {
  readonly name: string;
  readonly type: number;
  readonly value: unknown;
}

/** What the addon offers. Handles are numbers; each must be deleted. */
export interface TensorflowBinding {
  createTensor(shape: readonly number[], dtype: number, values: Float32Array | Int32Array | Uint8Array): number;
  deleteTensor(id: number): void;
  tensorDataSync(id: number): Float32Array | Int32Array | Uint8Array;
  executeOp(name: string, attrs: readonly Attr[], inputs: readonly number[], outputs: number): { id: number; shape: number[]; dtype: number }[];
  isUsingGpuDevice(): boolean;
  getNumOfTensors(): number;
  TF_Version: string;
}

export const attr = {
  type: (name: string, value: keyof typeof TF_TYPE): Attr => ({ name, type: ATTR.type, value: TF_TYPE[value] }),
  bool: (name: string, value: boolean): Attr => ({ name, type: ATTR.bool, value }),
  int: (name: string, value: number): Attr => ({ name, type: ATTR.int, value }),
  float: (name: string, value: number): Attr => ({ name, type: ATTR.float, value }),
  string: (name: string, value: string): Attr => ({ name, type: ATTR.string, value }),
  shape: (name: string, value: readonly number[]): Attr => ({ name, type: ATTR.shape, value }),
};

/** Folder of the tfjs-node-gpu package, or undefined when it is not installed. */
export function addonPackage(): string | undefined {
  try {
    return dirname(require.resolve('@tensorflow/tfjs-node-gpu/package.json'));
  } catch {
    return undefined;
  }
}

/** Where the addon lies once it is built. */
export function addonPath(packageFolder: string): string {
  return join(packageFolder, 'lib', 'napi-v8', 'tfjs_binding.node');
}

let loaded: TensorflowBinding | undefined;

/** Loads the addon once. @throws EngineUnavailableError with the reason and what to do */
export function loadTensorflow(): TensorflowBinding {
  if (loaded) return loaded;
  const folder = addonPackage();
  if (!folder) throw new EngineUnavailableError('the package @tensorflow/tfjs-node-gpu is not installed: run `npm ci`');
  const file = addonPath(folder);
  if (!existsSync(file)) throw new EngineUnavailableError("TensorFlow's native addon is not built: run `npx slimfit setup`");
  // TensorFlow greets on stderr; errors still come as exceptions.
  process.env.TF_CPP_MIN_LOG_LEVEL ??= '2';
  try {
    shieldFromSignals(dirname(file));
    loaded = withTypedErrors(require(file) as TensorflowBinding);
  } catch (cause) {
    throw new EngineUnavailableError(`TensorFlow's native addon does not load (${(cause as Error).message}): run \`npx slimfit setup\``, { cause });
  }
  return loaded;
}

/** The same binding, whose operations say in our words when the device has no memory (TensorFlow's status 8, RESOURCE_EXHAUSTED). The operation did nothing then. */
function withTypedErrors(binding: TensorflowBinding): TensorflowBinding {
  return {
    createTensor: binding.createTensor.bind(binding),
    deleteTensor: binding.deleteTensor.bind(binding),
    tensorDataSync: binding.tensorDataSync.bind(binding),
    isUsingGpuDevice: binding.isUsingGpuDevice.bind(binding),
    getNumOfTensors: binding.getNumOfTensors.bind(binding),
    TF_Version: binding.TF_Version,
    executeOp(name, attrs, inputs, outputs) {
      try {
        return binding.executeOp(name, attrs, inputs, outputs);
      } catch (cause) {
        const { message } = cause as Error;
        if (!/TF_Status: 8\b/.test(message)) throw cause;
        const shape = /with shape ?\[([\d,]*)\]/.exec(message)?.[1];
        const bytes = shape === undefined ? NaN : 4 * shape.split(',').reduce((n, d) => n * Number(d || 1), 1);
        const what = shape === undefined ? `what ${name} needs` : `a tensor of shape [${shape}], ${formatBytes(bytes)}`;
        throw new OutOfMemoryError(`TensorFlow's device has no memory for ${what}: free tensors, make the batch smaller, or ask \`slimfit plan --budget\` what fits`, bytes, { cause });
      }
    },
  };
}

/** What the fused kernels were compiled for: the features that Linux lists for the processor. Empty elsewhere. */
function processorFeatures(): string {
  return existsSync('/proc/cpuinfo') ? (/^(flags|Features)\s*:.*$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[0] ?? '') : '';
}

let fused: { readonly loaded: boolean; readonly why: string } | undefined;

/** Loads our fused CPU kernels into TensorFlow, once. They are left out on a GPU, where they were not built, and on a processor that they were not built for. */
export function fusedKernels(): { readonly loaded: boolean; readonly why: string } {
  return (fused ??= loadFusedKernels());
}

function loadFusedKernels(): { loaded: boolean; why: string } {
  if (loadTensorflow().isUsingGpuDevice()) return { loaded: false, why: 'a GPU computes' };
  const file = join(dirname(addonPath(addonPackage()!)), 'slimfit_kernels.node');
  if (!existsSync(file)) return { loaded: false, why: 'not built: run `npx slimfit setup`' };
  const builtFor = `${file}.processor`;
  if (!existsSync(builtFor) || readFileSync(builtFor, 'utf8') !== processorFeatures()) return { loaded: false, why: 'built for another processor: run `npx slimfit setup`' };
  try {
    require(file);
    return { loaded: true, why: 'built for this processor' };
  } catch (error) {
    return { loaded: false, why: (error as Error).message };
  }
}
