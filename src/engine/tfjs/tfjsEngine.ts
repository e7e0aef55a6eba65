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
import { ComposedEngine, type FixedPointTensor } from '../composedEngine';
import type { Category, DeviceTensor, DType, EncodedTensor, Engine, FixedPoint, MatmulOptions, RandomKey, SparseTensor } from '../engine';
import { EngineUnavailableError, ShapeError } from '../../errors';
import { dropoutMask } from '../randomBits';

type Backend = 'wasm' | 'cpu';

/** Starts so far: tfjs's current backend is global, and two that start at once would get each other's. */
let starting: Promise<unknown> = Promise.resolve();

/** An engine on one of tfjs's portable backends. @throws EngineUnavailableError when the backend does not start */
export function createTfjsEngine(backend: Backend): Promise<Engine> {
  const started = starting.then(() => start(backend));
  starting = started.catch(() => undefined);
  return started;
}

async function start(backend: Backend): Promise<Engine> {
  // tfjs looks for its WebAssembly files beside the running script unless told.
  if (backend === 'wasm' && !tf.findBackend('wasm')) {
    wasm.setWasmPaths(`${join(dirname(require.resolve('@tensorflow/tfjs-backend-wasm/package.json')), 'dist')}/`);
    wasm.setThreadsCount(1);
  }
  // Silences tfjs's greeting and its advice to install another backend.
  tf.enableProdMode();
  if (!(await tf.setBackend(backend)))
    throw new EngineUnavailableError(`TensorFlow.js's ${backend} backend does not start: run \`npm ci\` to restore @tensorflow/tfjs-backend-${backend}, or choose another engine`);
  return new TfjsEngine(backend);
}

class TfjsEngine extends ComposedEngine<tf.Tensor> {
  readonly device: string;

  constructor(readonly name: Backend) {
    super();
    this.device = name === 'wasm' ? 'CPU (WebAssembly, one thread)' : 'CPU (plain JavaScript)';
  }

  /** Runs tfjs operations on this engine's backend. */
  private compute(fn: () => tf.Tensor): tf.Tensor {
    // Several engines share tfjs's global state; switching to a started backend takes effect at once. On another backend than its own, tfjs
    // would move a tensor's memory.
    if (tf.getBackend() !== this.name) void tf.setBackend(this.name);
    return tf.tidy(fn);
  }

  /** The same, and enters the result into the books. */
  private run(shape: readonly number[], fn: () => tf.Tensor, dtype: DType = 'float32', category?: Category): DeviceTensor {
    return this.own(this.compute(fn), shape, dtype, category);
  }

  /** Makes a tensor of values that nobody else writes to: the cpu backend keeps the array itself. */
  private place(data: Float32Array | Int32Array, shape: readonly number[], category?: Category): DeviceTensor {
    if (data.length !== sizeOf(shape)) throw new ShapeError(`${data.length} values for a tensor of shape [${shape}]`);
    const dtype = data instanceof Int32Array ? 'int32' : 'float32';
    return this.run(shape, () => tf.tensor(data, shape as number[], dtype), dtype, category);
  }

  protected release(raw: tf.Tensor): void {
    raw.dispose();
  }

  protected rawView(raw: tf.Tensor, shape: readonly number[]): tf.Tensor {
    return this.compute(() => tf.reshape(raw, shape as number[]));
  }

  upload(data: Float32Array | Int32Array, shape: readonly number[], category?: Category): DeviceTensor {
    return this.place(data.slice(), shape, category);
  }

  full(shape: readonly number[], value: number, category?: Category): DeviceTensor {
    return this.place(new Float32Array(sizeOf(shape)).fill(value), shape, category);
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
    const x = this.values(a);
    const out = new Float32Array(x.length);
    for (let i = 0; i < x.length; i++) out[i] = erf(x[i]);
    return this.place(out, a.shape);
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
    return this.run([...ids.shape, ...table.shape.slice(1)], () => tf.gather(this.raw(table), this.raw(ids)), table.dtype);
  }
  scatterAdd(updates: DeviceTensor, ids: DeviceTensor, rows: number): DeviceTensor {
    const width = updates.size / ids.size;
    const out = new Float32Array(rows * width);
    const from = this.values(updates);
    this.values(ids).forEach((row, i) => {
      for (let j = 0; j < width; j++) out[row * width + j] += from[i * width + j];
    });
    return this.place(out, [rows, ...updates.shape.slice(1)]);
  }
  writeRows(table: DeviceTensor, ids: DeviceTensor, rows: DeviceTensor): void {
    this.checkRows(table, ids, rows);
    const width = sizeOf(table.shape.slice(1));
    const data = this.values(table).slice();
    const from = this.values(rows);
    this.values(ids).forEach((row, i) => data.set(from.subarray(i * width, (i + 1) * width), row * width));
    this.scope(() => this.moveInto(table, this.place(data, table.shape)));
  }

  protected oneHot(ids: DeviceTensor, depth: number): DeviceTensor {
    const out = new Float32Array(ids.size * depth);
    this.values(ids).forEach((id, i) => {
      if (id >= 0 && id < depth) out[i * depth + id] = 1;
    });
    return this.place(out, [ids.size, depth]);
  }
  protected differs(ids: DeviceTensor, value: number): DeviceTensor {
    return this.place(
      Float32Array.from(this.values(ids), (id) => (id === value ? 0 : 1)),
      ids.shape,
    );
  }
  protected dropoutMask(shape: readonly number[], p: number, key: RandomKey): DeviceTensor {
    return this.place(dropoutMask(sizeOf(shape), p, key.seed, key.counter, key.offset), shape);
  }

  protected pack(x: DeviceTensor, encoding: FixedPoint): EncodedTensor {
    const words = packCodes(this.values(x) as Float32Array, encoding);
    return { encoding, shape: x.shape, words: this.place(words, [words.length]), payloadBytes: payloadBytes(x.size, encoding) };
  }
  protected unpack(x: FixedPointTensor): DeviceTensor {
    return this.place(unpackCodes(this.values(x.words) as Int32Array, sizeOf(x.shape), x.encoding), x.shape);
  }
  topK(x: DeviceTensor, count: number): SparseTensor {
    const data = this.values(x) as Float32Array;
    const positions = largestPositions(data, count);
    const values = Float32Array.from(positions, (i) => data[i]);
    return { shape: x.shape, values: this.place(values, [count]), indices: this.place(positions, [count]) };
  }
}

/**
 * The error function in float32 precision: x·P(x²)/Q(x²) on [−4, 4], beyond which it is ±1 to the last bit. The coefficients are those of
 * Eigen's float32 erf; the error is at most 1.3e-7 relative, measured against a series in float64.
 */
function erf(x: number): number {
  const c = Math.max(-4, Math.min(4, x));
  const s = c * c;
  let p = -2.72614225801306e-10;
  p = p * s + 2.77068142495902e-8;
  p = p * s - 2.10102402082508e-6;
  p = p * s - 5.69250639462346e-5;
  p = p * s - 7.34990630326855e-4;
  p = p * s - 2.95459980854025e-3;
  p = p * s - 1.60960333262415e-2;
  let q = -1.45660718464996e-5;
  q = q * s - 2.13374055278905e-4;
  q = q * s - 1.68282697438203e-3;
  q = q * s - 7.37332916720468e-3;
  q = q * s - 1.42647390514189e-2;
  return (c * p) / q;
}
