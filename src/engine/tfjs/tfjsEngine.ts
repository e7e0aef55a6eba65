/**
 * TensorFlow.js as an engine, on its wasm and plain JavaScript backends: available everywhere, slow. Only tfjs's kernels are used, never its
 * tape. What the backends lack (byte tensors, fast selection) is done on the host, where their memory lives anyway.
 */
import '@tensorflow/tfjs-backend-cpu';
import { dirname, join } from 'node:path';
import * as wasm from '@tensorflow/tfjs-backend-wasm';
import * as tf from '@tensorflow/tfjs-core';
import { broadcast, sizeOf } from '../baseEngine';
import { largestPositions, packCodes, payloadBytes, unpackCodes } from '../codes';
import { ComposedEngine } from '../composedEngine';
import type { Category, DeviceTensor, DType, EncodedTensor, Engine, FixedPoint, MatmulOptions, RandomKey, SparseTensor } from '../engine';
import { EngineUnavailableError, ShapeError } from '../../errors';
import { dropoutMask } from '../randomBits';

type Backend = 'wasm' | 'cpu';

/** An engine on one of tfjs's portable backends. @throws EngineUnavailableError when the backend does not start */
export async function createTfjsEngine(backend: Backend): Promise<Engine> {
  if (backend === 'wasm') {
    wasm.setWasmPaths(`${join(dirname(require.resolve('@tensorflow/tfjs-backend-wasm/package.json')), 'dist')}/`);
    wasm.setThreadsCount(1);
  }
  // Silences tfjs's greeting and its advice to install another backend.
  tf.enableProdMode();
  const started = await tf.setBackend(backend).catch(() => false);
  if (!started) throw new EngineUnavailableError(`TensorFlow.js's ${backend} backend does not start on this machine`);
  return new TfjsEngine(backend);
}

class TfjsEngine extends ComposedEngine<tf.Tensor> {
  readonly device: string;

  constructor(readonly name: Backend) {
    super();
    this.device = name === 'wasm' ? 'CPU (WebAssembly, one thread)' : 'CPU (plain JavaScript)';
  }

  /** Runs tfjs operations on this engine's backend and enters the result into the books. */
  private run(shape: readonly number[], fn: () => tf.Tensor, dtype: DType = 'float32', category?: Category): DeviceTensor {
    // Several engines share tfjs's global state; switching to a started backend takes effect at once.
    if (tf.getBackend() !== this.name) void tf.setBackend(this.name);
    return this.own(tf.tidy(fn), shape, dtype, category);
  }

  protected release(raw: tf.Tensor): void {
    raw.dispose();
  }

  protected rawView(raw: tf.Tensor, shape: readonly number[]): tf.Tensor {
    return tf.reshape(raw, shape as number[]);
  }

  upload(data: Float32Array | Int32Array, shape: readonly number[], category?: Category): DeviceTensor {
    if (data.length !== sizeOf(shape)) throw new ShapeError(`${data.length} values for a tensor of shape [${shape}]`);
    const dtype = data instanceof Int32Array ? 'int32' : 'float32';
    return this.run(shape, () => tf.tensor(data.slice(), shape as number[], dtype), dtype, category);
  }

  full(shape: readonly number[], value: number, category?: Category): DeviceTensor {
    return this.upload(new Float32Array(sizeOf(shape)).fill(value), shape, category);
  }

  async read(tensor: DeviceTensor): Promise<Float32Array | Int32Array> {
    return this.values(tensor).slice();
  }

  private values(tensor: DeviceTensor): Float32Array | Int32Array {
    return this.raw(tensor).dataSync() as Float32Array | Int32Array;
  }

  private unary(a: DeviceTensor, fn: (x: tf.Tensor) => tf.Tensor): DeviceTensor {
    return this.run(a.shape, () => fn(this.raw(a)));
  }

  private binary(a: DeviceTensor, b: DeviceTensor, fn: (x: tf.Tensor, y: tf.Tensor) => tf.Tensor): DeviceTensor {
    return this.run(broadcast(a.shape, b.shape), () => fn(this.raw(a), this.raw(b)));
  }

  private reduce(a: DeviceTensor, axis: number, keepDims: boolean, fn: (x: tf.Tensor, axis: number, keep: boolean) => tf.Tensor): DeviceTensor {
    const at = axis < 0 ? axis + a.shape.length : axis;
    const shape = a.shape.flatMap((n, i) => (i !== at ? [n] : keepDims ? [1] : []));
    return this.run(shape, () => fn(this.raw(a), at, keepDims));
  }

  add(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.binary(a, b, tf.add);
  }
  sub(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.binary(a, b, tf.sub);
  }
  mul(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.binary(a, b, tf.mul);
  }
  div(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.binary(a, b, tf.div);
  }
  affine(a: DeviceTensor, scale: number, shift = 0): DeviceTensor {
    return this.unary(a, (x) => (shift === 0 ? tf.mul(x, tf.scalar(scale)) : tf.add(tf.mul(x, tf.scalar(scale)), tf.scalar(shift))));
  }
  abs(a: DeviceTensor): DeviceTensor {
    return this.unary(a, tf.abs);
  }
  sqrt(a: DeviceTensor): DeviceTensor {
    return this.unary(a, tf.sqrt);
  }
  exp(a: DeviceTensor): DeviceTensor {
    return this.unary(a, tf.exp);
  }
  log(a: DeviceTensor): DeviceTensor {
    return this.unary(a, tf.log);
  }
  tanh(a: DeviceTensor): DeviceTensor {
    return this.unary(a, tf.tanh);
  }
  /** tfjs approximates erf to 1.5e-7 absolutely, too coarse near 0: computed on the host. */
  erf(a: DeviceTensor): DeviceTensor {
    return this.upload(Float32Array.from(this.values(a), erf), a.shape);
  }
  sum(a: DeviceTensor, axis: number, keepDims = false): DeviceTensor {
    return this.reduce(a, axis, keepDims, tf.sum);
  }
  mean(a: DeviceTensor, axis: number, keepDims = false): DeviceTensor {
    return this.reduce(a, axis, keepDims, tf.mean);
  }
  max(a: DeviceTensor, axis: number, keepDims = false): DeviceTensor {
    return this.reduce(a, axis, keepDims, tf.max);
  }
  matmul(a: DeviceTensor, b: DeviceTensor, { transposeA = false, transposeB = false }: MatmulOptions = {}): DeviceTensor {
    const rows = a.shape[a.shape.length - (transposeA ? 1 : 2)];
    const cols = b.shape[b.shape.length - (transposeB ? 2 : 1)];
    return this.run([...a.shape.slice(0, -2), rows, cols], () => tf.matMul(this.raw(a), this.raw(b), transposeA, transposeB));
  }
  transpose(a: DeviceTensor, perm: readonly number[]): DeviceTensor {
    return this.run(
      perm.map((p) => a.shape[p]),
      () => tf.transpose(this.raw(a), perm as number[]),
    );
  }
  slice(a: DeviceTensor, begin: readonly number[], size: readonly number[]): DeviceTensor {
    return this.run(size, () => tf.slice(this.raw(a), begin as number[], size as number[]), a.dtype);
  }
  concat(parts: readonly DeviceTensor[], axis: number): DeviceTensor {
    const shape = parts[0].shape.map((n, i) => (i === axis ? parts.reduce((s, p) => s + p.shape[i], 0) : n));
    return this.run(
      shape,
      () =>
        tf.concat(
          parts.map((p) => this.raw(p)),
          axis,
        ),
      parts[0].dtype,
    );
  }
  gather(table: DeviceTensor, ids: DeviceTensor): DeviceTensor {
    return this.run([...ids.shape, ...table.shape.slice(1)], () => tf.gather(this.raw(table), this.raw(ids)));
  }
  scatterAdd(updates: DeviceTensor, ids: DeviceTensor, rows: number): DeviceTensor {
    const width = updates.size / ids.size;
    const out = new Float32Array(rows * width);
    const from = this.values(updates);
    this.values(ids).forEach((row, i) => {
      for (let j = 0; j < width; j++) out[row * width + j] += from[i * width + j];
    });
    return this.upload(out, [rows, ...updates.shape.slice(1)]);
  }

  protected oneHot(ids: DeviceTensor, depth: number): DeviceTensor {
    const out = new Float32Array(ids.size * depth);
    this.values(ids).forEach((id, i) => {
      if (id >= 0 && id < depth) out[i * depth + id] = 1;
    });
    return this.upload(out, [ids.size, depth]);
  }
  protected differs(ids: DeviceTensor, value: number): DeviceTensor {
    return this.upload(
      Float32Array.from(this.values(ids), (id) => (id === value ? 0 : 1)),
      ids.shape,
    );
  }
  protected dropoutMask(shape: readonly number[], p: number, key: RandomKey): DeviceTensor {
    return this.upload(dropoutMask(sizeOf(shape), p, key.seed, key.counter), shape);
  }

  encode(x: DeviceTensor, encoding: FixedPoint): EncodedTensor {
    const words = packCodes(this.values(x) as Float32Array, encoding);
    return { encoding, shape: x.shape, words: this.upload(words, [words.length]), payloadBytes: payloadBytes(x.size, encoding) };
  }
  decode(x: EncodedTensor): DeviceTensor {
    // A wasm tensor's bytes are a view into the heap, which the upload below may move: unpack first.
    return this.upload(unpackCodes((this.values(x.words) as Int32Array).slice(), sizeOf(x.shape), x.encoding), x.shape);
  }
  topK(x: DeviceTensor, count: number): SparseTensor {
    const data = this.values(x) as Float32Array;
    const positions = largestPositions(data, count);
    const values = Float32Array.from(positions, (i) => data[i]);
    return { shape: x.shape, values: this.upload(values, [count]), indices: this.upload(positions, [count]) };
  }
}

/**
 * The error function: its Taylor series below 2, the continued fraction of erfc (Abramowitz and Stegun 7.1.14, evaluated backwards) above; 1e-9 or better.
 */
function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 4) return Math.sign(x);
  let value: number;
  if (a < 2) {
    let term = a;
    value = a;
    for (let n = 1; n < 40; n++) {
      term *= (-a * a) / n;
      value += term / (2 * n + 1);
      if (Math.abs(term) < 1e-12) break;
    }
    value *= 2 / Math.sqrt(Math.PI);
  } else {
    let f = 0;
    for (let k = 30; k > 0; k--) f = k / 2 / (a + f);
    value = 1 - Math.exp(-a * a) / ((a + f) * Math.sqrt(Math.PI));
  }
  return Math.sign(x) * value;
}
