/** What every notebook has without an import: `slimfit`, `tf` (TensorFlow.js) and `aq` (arquero). */
import { createRequire } from 'node:module';
import path from 'node:path';
import util from 'node:util';
import { shieldFromSignals } from '../src/engine/tfjs/signalShield';

/** Run before the first cell. TensorFlow.js takes a second to load, so it is loaded when it is first used. */
export const PRELUDE = `
import * as slimfit from 'slimfit';
import * as aq from 'arquero';
const tf = (globalThis as any)[Symbol.for('slimfit.kernel')].lazyModule(['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs']) as typeof import('@tensorflow/tfjs');
`;

/** A module that is loaded when it is first touched; of several names the first that loads. */
export function lazyModule(names: readonly string[], home: string): object {
  let loaded: object | undefined;
  const load = (): object => {
    if (loaded) return loaded;
    // Node 23 dropped this, and tfjs-node still calls it.
    (util as { isNullOrUndefined?: (v: unknown) => boolean }).isNullOrUndefined ??= (v) => v === null || v === undefined;
    process.env.TF_CPP_MIN_LOG_LEVEL ??= '2';
    const require = createRequire(path.join(home, 'package.json'));
    shieldFromSignals(path.join(home, 'node_modules/@tensorflow/tfjs-node-gpu/lib/napi-v8'));
    let failure: unknown;
    for (const name of names) {
      try {
        return (loaded = require(name) as object);
      } catch (error) {
        failure ??= error;
      }
    }
    throw failure;
  };
  return new Proxy(
    {},
    {
      get: (_, key) => Reflect.get(load(), key),
      has: (_, key) => Reflect.has(load(), key),
      ownKeys: () => Reflect.ownKeys(load()),
      getOwnPropertyDescriptor: (_, key) => {
        const d = Reflect.getOwnPropertyDescriptor(load(), key);
        return d && { ...d, configurable: true };
      },
    },
  );
}
