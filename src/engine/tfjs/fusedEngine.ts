/**
 * TensorFlow on a CPU with fused kernels of our own (native/kernels.cc) where a chain of TensorFlow operations would pass over memory several times: on two
 * cores these passes, not the matrix products, are most of a training step. Matrix products stay TensorFlow's.
 */
import { InvalidArgumentError } from '../../errors';
import { sizeOf } from '../baseEngine';
import { payloadBytes } from '../codes';
import type { FixedPointTensor } from '../composedEngine';
import { type AdamWOptions, type AdamWState, type DeviceTensor, type EncodedTensor, FIXED_POINT, type FixedPoint, type RandomKey, type RowStats, type SparseTensor, UPDATE_MAGNITUDES } from '../engine';
import { TF_TYPE, type TensorflowBinding } from './tensorflowBinding';
import { type Id, TensorflowEngine } from './tensorflowEngine';

const DECODE: Readonly<Record<FixedPoint, string>> = { 'q3.4': 'SlimfitDecodeInt8', 'q0.8': 'SlimfitDecodeUint8', 'q2.1': 'SlimfitDecode4', 'q7.0': 'SlimfitDecodeInt8', 'q8.0': 'SlimfitDecodeUint8', 'q3.0': 'SlimfitDecode4' };

/** TensorFlow on a CPU, with the library of fused kernels loaded. The kernels trust sizes, so they are looked at here. */
export class FusedEngine extends TensorflowEngine {
  constructor(binding: TensorflowBinding) {
    super(binding, ', fused kernels');
  }

  private fused(shape: readonly number[], name: string, ...inputs: readonly Id[]): DeviceTensor {
    return this.run(shape, () => this.op(name, [], inputs));
  }

  /** Runs a kernel of two outputs. */
  private fusedPair(name: string, inputs: readonly Id[]): [Id, Id] {
    const [a, b] = this.tf.executeOp(name, [], inputs, 2);
    return [a.id, b.id];
  }

  private floats(key: string, values: readonly number[]): Id {
    return this.constant(key, () => this.tf.createTensor([values.length], TF_TYPE.float, Float32Array.from(values)));
  }

  // ---- activations, dropout -------------------------------------------------------------------------------------------
  override gelu(x: DeviceTensor): DeviceTensor {
    return this.fused(x.shape, 'SlimfitGelu', this.raw(x));
  }
  override geluGrad(grad: DeviceTensor, x: DeviceTensor): DeviceTensor {
    this.checkSizes('gradient of GELU', grad.size, x);
    return this.fused(grad.shape, 'SlimfitGeluGrad', this.raw(grad), this.raw(x));
  }
  override geluGradEncoded(grad: DeviceTensor, x: EncodedTensor): DeviceTensor {
    if (x.encoding !== 'q2.1') return super.geluGradEncoded(grad, x);
    this.checkSizes('gradient of GELU', sizeOf(x.shape), grad);
    return this.fused(grad.shape, 'SlimfitGeluGradCoded', this.raw(grad), this.raw(x.words));
  }
  /** The random bits of `randomBits.ts`: the wasm and cpu engines draw the same mask. */
  override dropout(x: DeviceTensor, p: number, { seed, counter, offset = 0 }: RandomKey): DeviceTensor {
    const threshold = Math.min(Math.ceil(p * 2 ** 32), 2 ** 32 - 1);
    return this.run(x.shape, () => {
      const key = this.temporary(this.tf.createTensor([4], TF_TYPE.int32, Int32Array.of(seed, counter, threshold, offset)));
      return this.op('SlimfitDropout', [], [this.raw(x), key, this.float(1 / (1 - p))]);
    });
  }

  /** In place: `linear` calls it with the product that it has just made. */
  protected override addBias(y: DeviceTensor, bias: DeviceTensor): DeviceTensor {
    this.checkUpdatable(y);
    this.checkSizes('bias', y.shape[y.shape.length - 1], bias);
    this.tf.executeOp('SlimfitAddBias', [], [this.raw(y), this.raw(bias)], 0);
    return y;
  }

  // ---- rows ---------------------------------------------------------------------------------------------------------------
  override biasGrad(grad: DeviceTensor): DeviceTensor {
    return this.fused(grad.shape.slice(-1), 'SlimfitBiasGrad', this.raw(grad));
  }
  override layerNorm(x: DeviceTensor, weight: DeviceTensor, bias: DeviceTensor, eps: number): DeviceTensor {
    this.checkSizes('layer norm', x.shape[x.shape.length - 1], weight, bias);
    return this.fused(x.shape, 'SlimfitLayerNorm', this.raw(x), this.raw(weight), this.raw(bias), this.float(eps));
  }
  override rowStats(x: DeviceTensor, eps: number): RowStats {
    const shape = [x.size / x.shape[x.shape.length - 1], 1];
    const [mean, rstd] = this.fusedPair('SlimfitRowStats', [this.raw(x), this.float(eps)]);
    return { mean: this.own(mean, shape), rstd: this.own(rstd, shape) };
  }
  override normalize(x: DeviceTensor, { mean, rstd }: RowStats): DeviceTensor {
    this.checkSizes('normalize', x.size / x.shape[x.shape.length - 1], mean, rstd);
    return this.fused(x.shape, 'SlimfitNormalize', this.raw(x), this.raw(mean), this.raw(rstd));
  }
  override layerNormGradInput(grad: DeviceTensor, normalized: DeviceTensor, rstd: DeviceTensor, weight: DeviceTensor): DeviceTensor {
    const width = grad.shape[grad.shape.length - 1];
    this.checkSizes('gradient of a layer norm', grad.size, normalized);
    this.checkSizes('gradient of a layer norm', grad.size / width, rstd);
    this.checkSizes('gradient of a layer norm', width, weight);
    return this.fused(grad.shape, 'SlimfitLayerNormGrad', this.raw(grad), this.raw(normalized), this.raw(rstd), this.raw(weight));
  }
  override layerNormGradWeight(grad: DeviceTensor, normalized: DeviceTensor): DeviceTensor {
    this.checkSizes('gradient of a layer norm', grad.size, normalized);
    return this.fused(grad.shape.slice(-1), 'SlimfitLayerNormGradWeight', this.raw(grad), this.raw(normalized));
  }

  // ---- attention ----------------------------------------------------------------------------------------------------------
  override attentionProbs(q: DeviceTensor, k: DeviceTensor, scale: number, mask?: DeviceTensor): DeviceTensor {
    // The kernel takes one mask row for each sequence.
    if (mask && mask.size !== q.shape[0] * k.shape[2]) return super.attentionProbs(q, k, scale, mask);
    return this.scope(() => this.maskedSoftmax(this.matmul(q, k, { transposeB: true }), scale, mask));
  }
  override softmax(x: DeviceTensor): DeviceTensor {
    return this.maskedSoftmax(x, 1);
  }
  private maskedSoftmax(x: DeviceTensor, scale: number, mask?: DeviceTensor): DeviceTensor {
    return this.fused(x.shape, 'SlimfitSoftmax', this.raw(x), mask ? this.raw(mask) : this.floats('none', []), this.float(scale));
  }
  override softmaxGrad(grad: DeviceTensor, probs: DeviceTensor): DeviceTensor {
    this.checkSizes('gradient of softmax', grad.size, probs);
    return this.fused(grad.shape, 'SlimfitSoftmaxGrad', this.raw(grad), this.raw(probs));
  }

  // ---- encodings ------------------------------------------------------------------------------------------------------------
  protected override pack(x: DeviceTensor, encoding: FixedPoint): EncodedTensor {
    const { bits, scale, lo, hi } = FIXED_POINT[encoding];
    const bytes = payloadBytes(x.size, encoding);
    const code = this.floats(encoding, [scale, lo, hi]);
    const words = this.run([Math.ceil(bytes / 4)], () => this.op(`SlimfitEncode${bits}`, [], [this.raw(x), code]), 'int32');
    return { encoding, shape: x.shape, words, payloadBytes: bytes };
  }
  protected override unpack(x: FixedPointTensor): DeviceTensor {
    return this.fused(x.shape, DECODE[x.encoding], this.raw(x.words), this.ints(x.shape), this.float(1 / FIXED_POINT[x.encoding].scale));
  }
  override topK(x: DeviceTensor, count: number): SparseTensor {
    if (count > x.size) throw new InvalidArgumentError(`topK of ${count} out of ${x.size} elements`);
    const [values, indices] = this.fusedPair('SlimfitTopK', [this.raw(x), this.int(count)]);
    return { shape: x.shape, values: this.own(values, [count]), indices: this.own(indices, [count], 'int32') };
  }
  override densify(x: SparseTensor): DeviceTensor {
    return this.fused(x.shape, 'SlimfitDensify', this.raw(x.values), this.raw(x.indices), this.ints(x.shape));
  }

  /** In place. */
  override writeRows(table: DeviceTensor, ids: DeviceTensor, rows: DeviceTensor): void {
    this.checkRows(table, ids, rows);
    this.tf.executeOp(table.dtype === 'int32' ? 'SlimfitWriteRowsInt' : 'SlimfitWriteRows', [], [table, ids, rows].map((t) => this.raw(t)), 0);
  }

  // ---- optimizer --------------------------------------------------------------------------------------------------------------
  /** One pass over weight, moments and gradient, written in place; the update magnitude comes out of the same pass, without a copy of the weight. */
  override adamwStep(state: AdamWState, grad: DeviceTensor, o: AdamWOptions): DeviceTensor | undefined {
    const { weight, m, v } = state;
    this.checkAdamW(state, grad);
    const rate = (o.lr * Math.sqrt(1 - o.beta2 ** o.step)) / (1 - o.beta1 ** o.step);
    const magnitude = this.run([], () => {
      const numbers = Float32Array.of(rate, o.beta1, 1 - o.beta1, o.beta2, 1 - o.beta2, o.eps, o.lr * o.weightDecay, o.magnitude ? UPDATE_MAGNITUDES.indexOf(o.magnitude) : 0);
      const options = this.temporary(this.tf.createTensor([numbers.length], TF_TYPE.float, numbers));
      return this.op('SlimfitAdamW', [], [weight, m, v, grad].map((t) => this.raw(t)).concat(options));
    });
    if (o.magnitude) return magnitude;
    this.free(magnitude);
    return undefined;
  }
}
