/**
 * An engine that computes nothing and counts everything: tensors have shapes, owners, categories and bytes, but no values. A step run on it takes milliseconds and has the live and peak bytes of the same
 * step on the engine that it stands for, since the book-keeping is the same code; only which operations leave temporaries differs from engine to engine, and that is written here.
 */
import { InvalidArgumentError } from '../errors';
import { broadcast } from './baseEngine';
import { payloadBytes } from './codes';
import { ComposedEngine, type FixedPointTensor } from './composedEngine';
import { type AdamWOptions, type AdamWState, type AttentionGradients, type Category, type CodeEncoding, codesOf, type DeviceTensor, type DType, type EncodedTensor, type EngineName, FIXED_POINT, type FixedPoint, type LossResult, type MatmulOptions, type NormalizedCodes, ROW_SCALED, type RowScaled, type RowStats, type SparseTensor } from './engine';

/**
 * Whose temporaries: `fused` is TensorFlow on a CPU with our kernels, `tensorflow` TensorFlow's own operations (as on a GPU), `composed` the wasm and cpu engines, `webgpu` our kernels on a GPU, which
 * leave what `fused` leaves but for the operations under their own heading below.
 */
export type Kernels = 'fused' | 'tensorflow' | 'composed' | 'webgpu';

/** All of them. */
export const KERNELS: readonly Kernels[] = ['fused', 'tensorflow', 'composed', 'webgpu'];

/** Shapes only. `read` gives zeros. */
export class ShapeEngine extends ComposedEngine<undefined> {
  readonly name: EngineName;
  readonly device = 'nothing: shapes and bytes only';
  private readonly fused: boolean;
  private readonly tensorflow: boolean;
  private readonly webgpu: boolean;

  constructor(readonly kernels: Kernels = 'fused') {
    super();
    if (!KERNELS.includes(kernels)) throw new InvalidArgumentError(`kernels is '${kernels}'; it must be one of ${KERNELS.join(', ')}`);
    this.webgpu = kernels === 'webgpu';
    this.fused = kernels === 'fused' || this.webgpu;
    this.tensorflow = kernels !== 'composed';
    this.name = this.webgpu ? 'webgpu' : this.tensorflow ? 'tensorflow' : 'cpu';
  }

  private like(shape: readonly number[], dtype?: DType, category?: Category): DeviceTensor {
    return this.own(undefined, shape, dtype, category);
  }
  private reduce(a: DeviceTensor, axis: number, keepDims: boolean): DeviceTensor {
    const at = axis < 0 ? axis + a.shape.length : axis;
    return this.like(a.shape.flatMap((n, i) => (i !== at ? [n] : keepDims ? [1] : [])));
  }

  // ---- primitives: one tensor each -----------------------------------------------------------------------------------
  protected release(): void {}
  protected rawView(): undefined {
    return undefined;
  }
  /** The values are not looked at, nor their number. */
  upload(data: Float32Array | Int32Array, shape: readonly number[], category?: Category): DeviceTensor {
    return this.like(shape, data instanceof Int32Array ? 'int32' : 'float32', category);
  }
  full(shape: readonly number[], _value: number, category?: Category): DeviceTensor {
    return this.like(shape, 'float32', category);
  }
  async read(tensor: DeviceTensor): Promise<Float32Array | Int32Array> {
    return tensor.dtype === 'int32' ? new Int32Array(tensor.size) : new Float32Array(tensor.size);
  }
  add(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.like(broadcast(a.shape, b.shape));
  }
  sub(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.add(a, b);
  }
  mul(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.add(a, b);
  }
  div(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.add(a, b);
  }
  affine(a: DeviceTensor): DeviceTensor {
    return this.like(a.shape);
  }
  abs(a: DeviceTensor): DeviceTensor {
    return this.like(a.shape);
  }
  sqrt(a: DeviceTensor): DeviceTensor {
    return this.like(a.shape);
  }
  exp(a: DeviceTensor): DeviceTensor {
    return this.like(a.shape);
  }
  log(a: DeviceTensor): DeviceTensor {
    return this.like(a.shape);
  }
  tanh(a: DeviceTensor): DeviceTensor {
    return this.like(a.shape);
  }
  erf(a: DeviceTensor): DeviceTensor {
    return this.like(a.shape);
  }
  sum(a: DeviceTensor, axis: number, keepDims = false): DeviceTensor {
    return this.reduce(a, axis, keepDims);
  }
  mean(a: DeviceTensor, axis: number, keepDims = false): DeviceTensor {
    return this.reduce(a, axis, keepDims);
  }
  max(a: DeviceTensor, axis: number, keepDims = false): DeviceTensor {
    return this.reduce(a, axis, keepDims);
  }
  matmul(a: DeviceTensor, b: DeviceTensor, { transposeA = false, transposeB = false }: MatmulOptions = {}): DeviceTensor {
    const [p, q] = [a.shape, b.shape];
    return this.like([...p.slice(0, -2), p[p.length - (transposeA ? 1 : 2)], q[q.length - (transposeB ? 2 : 1)]]);
  }
  transpose(a: DeviceTensor, perm: readonly number[]): DeviceTensor {
    return this.like(perm.map((p) => a.shape[p]));
  }
  slice(a: DeviceTensor, _begin: readonly number[], size: readonly number[]): DeviceTensor {
    return this.like(size, a.dtype);
  }
  concat(parts: readonly DeviceTensor[], axis: number): DeviceTensor {
    return this.like(parts[0].shape.map((n, i) => (i === axis ? parts.reduce((s, p) => s + p.shape[i], 0) : n)), parts[0].dtype);
  }
  gather(table: DeviceTensor, ids: DeviceTensor): DeviceTensor {
    return this.like([...ids.shape, ...table.shape.slice(1)], table.dtype);
  }
  scatterAdd(updates: DeviceTensor, _ids: DeviceTensor, rows: number): DeviceTensor {
    return this.like([rows, ...updates.shape.slice(1)]);
  }
  writeRows(table: DeviceTensor, ids: DeviceTensor, rows: DeviceTensor): void {
    this.checkRows(table, ids, rows);
    // Without a kernel of our own the new values stand beside the old ones for a moment.
    if (!this.fused) this.free(this.like(table.shape, table.dtype));
  }
  protected oneHot(ids: DeviceTensor, depth: number): DeviceTensor {
    return this.like([ids.size, depth]);
  }
  protected differs(ids: DeviceTensor): DeviceTensor {
    return this.like(ids.shape);
  }
  protected dropoutMask(shape: readonly number[]): DeviceTensor {
    return this.like(shape);
  }
  protected pack(x: DeviceTensor, encoding: FixedPoint): EncodedTensor {
    const bytes = payloadBytes(x.size, encoding);
    return { encoding, shape: x.shape, words: this.like([Math.ceil(bytes / 4)], 'int32'), payloadBytes: bytes };
  }
  protected unpack(x: FixedPointTensor): DeviceTensor {
    return this.like(x.shape);
  }
  topK(x: DeviceTensor, count: number): SparseTensor {
    return { shape: x.shape, values: this.like([count]), indices: this.like([count], 'int32') };
  }

  // ---- what TensorFlow, or our kernels, do in one piece --------------------------------------------------------------
  override tanhGrad(grad: DeviceTensor, y: DeviceTensor): DeviceTensor {
    return this.tensorflow ? this.like(y.shape) : super.tanhGrad(grad, y);
  }
  override softmax(x: DeviceTensor): DeviceTensor {
    return this.tensorflow ? this.like(x.shape) : super.softmax(x);
  }
  override rowStats(x: DeviceTensor, eps: number): RowStats {
    const shape = [x.size / x.shape[x.shape.length - 1], 1];
    if (this.fused) return { mean: this.like(shape), rstd: this.like(shape) };
    if (!this.tensorflow) return super.rowStats(x, eps);
    return this.scope(() => {
      const rows = this.rows(x);
      const mean = this.mean(rows, 1, true);
      return { mean, rstd: this.sqrt(this.affine(this.mean(this.sub(rows, mean), 1, true))) };
    });
  }
  override gelu(x: DeviceTensor): DeviceTensor {
    return this.fused ? this.like(x.shape) : super.gelu(x);
  }
  override geluGrad(grad: DeviceTensor, x: DeviceTensor): DeviceTensor {
    return this.fused ? this.like(grad.shape) : super.geluGrad(grad, x);
  }
  override geluGradEncoded(grad: DeviceTensor, x: EncodedTensor): DeviceTensor {
    if (this.webgpu) return this.like(grad.shape);
    if (x.encoding !== 'q2.1' || !this.tensorflow) return super.geluGradEncoded(grad, x);
    return this.fused ? this.like(grad.shape) : this.scope(() => this.mul(grad, this.like(grad.shape)));
  }
  override dropout(...args: Parameters<ComposedEngine<undefined>['dropout']>): DeviceTensor {
    return this.fused ? this.like(args[0].shape) : super.dropout(...args);
  }
  protected override addBias(y: DeviceTensor, bias: DeviceTensor): DeviceTensor {
    return this.fused ? y : super.addBias(y, bias);
  }
  override biasGrad(grad: DeviceTensor): DeviceTensor {
    return this.fused ? this.like(grad.shape.slice(-1)) : super.biasGrad(grad);
  }
  override layerNorm(...args: Parameters<ComposedEngine<undefined>['layerNorm']>): DeviceTensor {
    return this.fused ? this.like(args[0].shape) : super.layerNorm(...args);
  }
  override normalize(x: DeviceTensor, stats: RowStats): DeviceTensor {
    return this.fused ? this.like(x.shape) : super.normalize(x, stats);
  }
  override layerNormGradInput(...args: Parameters<ComposedEngine<undefined>['layerNormGradInput']>): DeviceTensor {
    return this.fused ? this.like(args[0].shape) : super.layerNormGradInput(...args);
  }
  override layerNormGradWeight(grad: DeviceTensor, normalized: DeviceTensor): DeviceTensor {
    return this.fused ? this.like(grad.shape.slice(-1)) : super.layerNormGradWeight(grad, normalized);
  }
  override attentionProbs(...args: Parameters<ComposedEngine<undefined>['attentionProbs']>): DeviceTensor {
    const [q, k, , mask] = args;
    if (!this.fused || (mask && mask.size !== q.shape[0] * k.shape[2])) return super.attentionProbs(...args);
    return this.scope(() => this.softmax(this.matmul(q, k, { transposeB: true })));
  }
  override softmaxGrad(grad: DeviceTensor, probs: DeviceTensor): DeviceTensor {
    return this.fused ? this.like(probs.shape) : super.softmaxGrad(grad, probs);
  }
  override densify(x: SparseTensor): DeviceTensor {
    return this.fused ? this.like(x.shape) : super.densify(x);
  }
  override adamwStep(state: AdamWState, grad: DeviceTensor, o: AdamWOptions): DeviceTensor | undefined {
    if (!this.tensorflow) return super.adamwStep(state, grad, o);
    this.checkAdamW(state, grad);
    const { weight } = state;
    if (!this.fused) return this.scope(() => this.updateMagnitude(o.magnitude, weight, weight, grad));
    const magnitude = this.like([]);
    if (o.magnitude) return magnitude;
    this.free(magnitude);
    return undefined;
  }

  // ---- what WebGPU does in one piece, and no other ------------------------------------------------------------------
  override streamsAttention(headWidth: number): boolean {
    return this.webgpu && headWidth % 4 === 0 && headWidth <= 128;
  }
  override attention(...args: Parameters<ComposedEngine<undefined>['attention']>): DeviceTensor {
    const [q, , , { heads }] = args;
    return this.streamsAttention(q.shape[2] / heads) ? this.like(q.shape) : super.attention(...args);
  }
  override attentionGrad(...args: Parameters<ComposedEngine<undefined>['attentionGrad']>): AttentionGradients {
    const [grad, q, k, v, { heads }, { dq, dk, dv }] = args;
    const [B, T, H] = grad.shape;
    if (!this.streamsAttention(H / heads)) return super.attentionGrad(...args);
    return this.scope(() => {
      // Signed codes of 8 bits are read as they are. A device of less than 11 buffers a kernel has some of those with steps decoded too, which is not counted here.
      for (const x of [q, k, dq || dk ? v : undefined]) if (x && 'encoding' in x && !['q3.4', 'q7.0', 'q8-row'].includes(x.encoding)) this.decode(x);
      if (dk || dv) this.like([B * heads, T, 4]);
      const like = (wanted: boolean) => (wanted ? this.like(grad.shape) : undefined);
      return { dq: like(dq), dk: like(dk), dv: like(dv) };
    });
  }
  override layerNormGradInputEncoded(...args: Parameters<ComposedEngine<undefined>['layerNormGradInputEncoded']>): DeviceTensor {
    return this.webgpu ? this.like(args[0].shape) : super.layerNormGradInputEncoded(...args);
  }
  override normalizeEncoded(x: DeviceTensor, eps: number, encoding: CodeEncoding): NormalizedCodes {
    const width = x.shape[x.shape.length - 1];
    if (!this.webgpu || !(encoding in ROW_SCALED) || FIXED_POINT[codesOf(encoding)].bits === 4 || width % 4 !== 0) return super.normalizeEncoded(x, eps, encoding);
    return { encoded: this.encode(x, encoding), rstd: this.like([x.size / width, 1]) };
  }
  override decodeAffine(...args: Parameters<ComposedEngine<undefined>['decodeAffine']>): DeviceTensor {
    return this.webgpu ? this.like(args[0].shape) : super.decodeAffine(...args);
  }
  override encode(x: DeviceTensor, encoding: CodeEncoding): EncodedTensor {
    if (!this.webgpu || !(encoding in ROW_SCALED)) return super.encode(x, encoding);
    return { ...this.pack(x, ROW_SCALED[encoding as RowScaled].codes), encoding, steps: this.like([x.size / x.shape[x.shape.length - 1], 1]) };
  }
  override decode(x: EncodedTensor): DeviceTensor {
    return this.webgpu ? this.like(x.shape) : super.decode(x);
  }
  override crossEntropy(...args: Parameters<ComposedEngine<undefined>['crossEntropy']>): LossResult {
    return this.webgpu ? { grad: this.like(args[0].shape), loss: this.like([]) } : super.crossEntropy(...args);
  }
  override embeddingGrad(...args: Parameters<ComposedEngine<undefined>['embeddingGrad']>): DeviceTensor {
    const [grad, , rows] = args;
    return this.webgpu ? this.like([rows, grad.shape[grad.shape.length - 1]]) : super.embeddingGrad(...args);
  }
}
