/** An engine that fails when it is told to, as a device without memory does: at its n-th operation from now, before that operation did anything. Operations that others are made of count too. */
import type { Engine } from '../../src/engine/engine';

const OPERATIONS = [
  'upload', 'full', 'read', 'write', 'add', 'sub', 'mul', 'div', 'affine', 'abs', 'sqrt', 'exp', 'log', 'tanh', 'erf', 'sum', 'mean', 'max', 'matmul', 'transpose', 'slice', 'concat', 'gather', 'scatterAdd', 'linear', 'linearGradInput',
  'linearGradWeight', 'biasGrad', 'gelu', 'geluGrad', 'geluGradEncoded', 'tanhGrad', 'layerNorm', 'rowStats', 'normalize', 'layerNormGradInput', 'layerNormGradWeight', 'layerNormGradInputSparse', 'layerNormGradInputEncoded', 'normalizeEncoded', 'splitHeads', 'mergeHeads', 'attentionProbs',
  'softmax', 'softmaxGrad', 'attention', 'attentionGrad', 'embeddingGrad', 'dropout', 'crossEntropy', 'meanSquaredError', 'encode', 'decode', 'decodeAffine', 'topK', 'densify', 'adamwStep',
] as const satisfies readonly (keyof Engine)[];

/** What an engine's operations are watched with. */
export interface Faults {
  /** Operations since the last `arm` or `count`. */
  readonly done: number;
  /** The n-th operation from now on, from 0, throws this. */
  arm(n: number, error: Error): void;
  /** Counts from 0, and calls this before each operation. */
  count(before?: (operation: string) => void): void;
  /** Takes the watch off. */
  remove(): void;
}

/** Watches every operation of an engine. */
export function faultsOf(engine: Engine): Faults {
  let done = 0;
  let at = -1;
  let failure: Error | undefined;
  let before: ((operation: string) => void) | undefined;
  const own = engine as unknown as Record<string, (...args: never[]) => unknown>;
  for (const name of OPERATIONS) {
    const real = own[name];
    own[name] = function (this: unknown, ...args: never[]) {
      before?.(name);
      if (done++ === at) {
        if (name === 'read') return Promise.reject(failure);
        throw failure;
      }
      return real.apply(this, args);
    };
  }
  return {
    get done() {
      return done;
    },
    arm(n, error) {
      [done, at, failure, before] = [0, n, error, undefined];
    },
    count(hook) {
      [done, at, failure, before] = [0, -1, undefined, hook];
    },
    remove() {
      for (const name of OPERATIONS) delete (own as Partial<typeof own>)[name];
    },
  };
}
