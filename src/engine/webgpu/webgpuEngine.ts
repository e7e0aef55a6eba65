/**
 * WebGPU as an engine: WGSL kernels of our own on float32 buffers. Every operation records a few dispatches and returns at once; `read` is the only one that waits. Operations are deterministic: no float is
 * added atomically, and every sum has one order.
 */
import { InvalidArgumentError, ShapeError } from '../../errors';
import { broadcast, sizeOf } from '../baseEngine';
import { payloadBytes } from '../codes';
import { ComposedEngine, type FixedPointTensor } from '../composedEngine';
import {
  type AdamWOptions,
  type AdamWState,
  type AttentionGradients,
  type AttentionOperand,
  type AttentionSettings,
  type Category,
  type CodeEncoding,
  codesOf,
  type DeviceTensor,
  type DType,
  type EncodedTensor,
  FIXED_POINT,
  type FixedPoint,
  type LossResult,
  type MatmulOptions,
  type MemoryReport,
  type NormalizedCodes,
  type Precision,
  type RandomKey,
  ROW_SCALED,
  type RowScaled,
  type RowStats,
  type SparseTensor,
} from '../engine';
import type { Slot } from './bufferPool';
import type { OpenedDevice } from './dawn';
import { Gpu, type GpuCounts, type GpuOptions } from './gpu';
import type { Kernel } from './kernel';
import type { MatrixUnit } from './matrixUnit';
import { ADAMW_CHUNK, adamwKernel, magnitudeKernel } from './kernels/adamw';
import { ATTENTION_BLOCK, attentionColumnsKernel, attentionGradKey, type AttentionGradKind, attentionKernel, attentionKey, attentionRowsKernel, type OperandForm, WIDEST_HEAD } from './kernels/attention';
import { mixedAttentionColumnsKernel, mixedAttentionFits, mixedAttentionKernel, mixedAttentionRowsKernel } from './kernels/attentionMixed';
import { decodeFunction, ENCODE_THREADS, encodeKernel, encodeLanes, encodeRowsKernel, stepsKernel } from './kernels/codes';
import { broadcastStrides, collapse, elementwise, rowMajor, strided, type Walk } from './kernels/elementwise';
import { countLabels, crossEntropyRows, meanLoss } from './kernels/loss';
import { ERF, EXP, GELU, LOG, RANDOM_BITS, TANH } from './kernels/mathFunctions';
import { matmulKernel, matmulKey, type MatmulKind, matmulPlan, sumSlices } from './kernels/matmul';
import { mixedMatmulKernel, mixedPlan } from './kernels/matmulMixed';
import { type Operand, reduceColumns, type ReduceOp, reduceRows, reduceThread } from './kernels/reduce';
import { type LayerNormCodes, layerNormGradKernel, layerNormKernel, normalizeEncodeKernel, rowStatsKernel, rowWorkgroup, softmaxGradKernel, softmaxKernel } from './kernels/rows';
import { SCATTER_GROUPS, scatterAddKernel, writeRowsKernel } from './kernels/scatter';
import { TOPK_BLOCK, TOPK_PASSES, topKBlocks, topKCount, topKPick, topKScan, topKStart, topKWrite } from './kernels/topK';

/** An axis that one thread walks over. */
const SHORT_AXIS = 64;

/** The most workgroups along y and z. */
const MOST_GROUPS = 65_535;

/** Scalars that one dispatch puts in a row: WebGPU promises 8 buffers for each kernel, and one is the row. */
const SCALARS = 7;

/** Bits of infinity and of a NaN. */
const [INFINITE, NAN] = [0x7f800000, 0x7fc00000];

/** Whether a row-scaled encoding of rows of that width has no word with codes of two rows: 4-bit codes have one of either half of the tensor in a byte. */
const wholeWords = (encoding: CodeEncoding, width: number): boolean => encoding in ROW_SCALED && FIXED_POINT[codesOf(encoding)].bits === 8 && width % 4 === 0;

/** Random bits below it drop an element. */
const dropThreshold = (p: number): number => Math.min(Math.ceil(p * 2 ** 32), 2 ** 32 - 1);

/** An engine on a WebGPU device. */
export class WebgpuEngine extends ComposedEngine<Slot> {
  readonly name = 'webgpu';
  readonly device: string;
  override readonly precision: Precision;
  private readonly gpu: Gpu;
  private disposed = false;
  private readonly matrix: MatrixUnit | undefined;
  /** How many buffers a kernel may have: 8 on every device, more on most. */
  private readonly mostBuffers: number;
  /** See `Engine.warm`: undefined where nothing is gained. */
  readonly warm?: (work: () => void) => Promise<void>;

  constructor(opened: OpenedDevice, options?: GpuOptions) {
    super();
    this.mostBuffers = opened.device.limits.maxStorageBuffersPerShaderStage;
    this.gpu = new Gpu(opened, options);
    if (options?.warms ?? opened.kind === 'hardware') this.warm = (work) => this.gpu.warm(() => this.attempt(work));
    this.matrix = opened.matrix;
    this.precision = opened.matrix ? 'mixed' : 'float32';
    this.device = `${opened.kind === 'hardware' ? 'GPU' : 'CPU'} (WebGPU, ${opened.name}${opened.matrix ? ', mixed precision' : ''})`;
  }

  /** Counts of the buffers, bind groups and pipelines behind the tensors. */
  counts(): GpuCounts {
    return this.gpu.counts();
  }

  override dispose(): void {
    super.dispose();
    this.gpu.close();
    this.disposed = true;
  }

  override memory(): MemoryReport {
    const { buffers, bytes, idleBytes } = this.disposed ? { buffers: 0, bytes: 0, idleBytes: 0 } : this.gpu.pool.counts();
    return { ...super.memory(), held: { buffers, bytes, idleBytes } };
  }

  // ---- memory -----------------------------------------------------------------------------------------------------------
  protected release(slot: Slot): void {
    this.gpu.pool.give(slot);
  }

  protected rawView(slot: Slot): Slot {
    slot.refs++;
    return slot;
  }

  private take(size: number): Slot {
    this.gpu.check();
    return this.gpu.pool.take(4 * size);
  }

  /** A tensor whose values `fill` records; none is left when it throws. */
  private make(shape: readonly number[], fill: (out: Slot) => void, dtype: DType = 'float32', category?: Category): DeviceTensor {
    const out = this.take(sizeOf(shape));
    try {
      fill(out);
    } catch (error) {
      this.release(out);
      throw error;
    }
    return this.own(out, shape, dtype, category);
  }

  /** Runs `fn` with a buffer that is given back afterwards. */
  private withScratch<R>(size: number, fn: (slot: Slot) => R): R {
    const slot = this.take(size);
    try {
      return fn(slot);
    } finally {
      this.release(slot);
    }
  }

  upload(data: Float32Array | Int32Array, shape: readonly number[], category?: Category): DeviceTensor {
    if (data.length !== sizeOf(shape)) throw new ShapeError(`${data.length} values for a tensor of shape [${shape}]`);
    return this.make(shape, (out) => this.gpu.upload(out, data), data instanceof Int32Array ? 'int32' : 'float32', category);
  }

  full(shape: readonly number[], value: number, category?: Category): DeviceTensor {
    return this.make(shape, (out) => this.fill(out, sizeOf(shape), value), 'float32', category);
  }

  private fill(out: Slot, size: number, value: number): void {
    // The bits are passed, so that infinities and NaN arrive too.
    const bits = new Uint32Array(Float32Array.of(value).buffer)[0];
    this.gpu.each('fill', () => elementwise('p.value', [], ['value: u32'], '', 'u32'), [], [out], [size, bits], size);
  }

  async read(tensor: DeviceTensor): Promise<Float32Array | Int32Array> {
    const data = await this.gpu.read(this.raw(tensor), 4 * tensor.size);
    return tensor.dtype === 'int32' ? new Int32Array(data) : new Float32Array(data);
  }

  override write(tensor: DeviceTensor, data: Float32Array): void {
    this.checkUpdatable(tensor);
    if (data.length !== tensor.size) throw new ShapeError(`${data.length} values for a tensor of shape [${tensor.shape}]`);
    this.gpu.upload(this.raw(tensor), data);
  }

  // ---- element-wise -------------------------------------------------------------------------------------------------------
  /** y[i] = expression. `reads` names the operands, all of `n` elements. */
  private chain(key: string, shape: readonly number[], expression: () => [string, string?], reads: Readonly<Record<string, DeviceTensor>>, params: Readonly<Record<string, number>> = {}): DeviceTensor {
    const make = (): Kernel => {
      const [text, functions] = expression();
      return elementwise(
        text,
        Object.entries(reads).map(([name, t]) => `${name}: ${t.dtype === 'int32' ? 'i32' : 'f32'}`),
        Object.keys(params).map((name) => `${name}: f32`),
        functions,
      );
    };
    const slots = Object.values(reads).map((t) => this.raw(t));
    return this.make(shape, (out) => this.gpu.each(key, make, slots, [out], [sizeOf(shape), ...Object.values(params)], sizeOf(shape)));
  }

  private walk(name: string, walk: Walk, reads: readonly Slot[], types: readonly string[], statement: string, out: Slot, offsets?: readonly number[], type?: string): void {
    const s = strided(name, collapse(walk), types, statement, offsets, type);
    this.gpu.each(s.key, s.make, reads, [out], s.params, s.n);
  }

  private binary(name: string, operator: string, a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    const shape = broadcast(a.shape, b.shape);
    // Most operands are of one shape, and need no steps.
    if (a.size === b.size && a.size === sizeOf(shape)) return this.chain(name, shape, () => [`a[i] ${operator} b[i]`], { a, b });
    const [x, y] = [this.raw(a), this.raw(b)];
    const walk = { dims: shape, strides: [broadcastStrides(a.shape, shape), broadcastStrides(b.shape, shape)] };
    return this.make(shape, (out) => this.walk(name, walk, [x, y], ['a: f32', 'b: f32'], `y[i] = a[o0] ${operator} b[o1];`, out));
  }
  add(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.binary('add', '+', a, b);
  }
  sub(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.binary('sub', '-', a, b);
  }
  mul(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.binary('mul', '*', a, b);
  }
  div(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.binary('div', '/', a, b);
  }
  affine(a: DeviceTensor, scale: number, shift = 0): DeviceTensor {
    return this.chain('affine', a.shape, () => ['x[i] * p.scale + p.shift'], { x: a }, { scale, shift });
  }
  abs(a: DeviceTensor): DeviceTensor {
    return this.chain('abs', a.shape, () => ['abs(x[i])'], { x: a });
  }
  sqrt(a: DeviceTensor): DeviceTensor {
    return this.chain('sqrt', a.shape, () => ['sqrt(x[i])'], { x: a });
  }
  exp(a: DeviceTensor): DeviceTensor {
    return this.chain('exp', a.shape, () => ['expOf(x[i])', EXP], { x: a });
  }
  log(a: DeviceTensor): DeviceTensor {
    return this.chain('log', a.shape, () => ['logOf(x[i])', LOG], { x: a });
  }
  tanh(a: DeviceTensor): DeviceTensor {
    return this.chain('tanh', a.shape, () => ['tanhOf(x[i])', TANH], { x: a });
  }
  erf(a: DeviceTensor): DeviceTensor {
    return this.chain('erf', a.shape, () => ['erfOf(x[i])', ERF], { x: a });
  }

  // ---- reductions -----------------------------------------------------------------------------------------------------------
  sum(a: DeviceTensor, axis: number, keepDims = false): DeviceTensor {
    return this.overAxis('sum', a, axis, keepDims, () => 1);
  }
  mean(a: DeviceTensor, axis: number, keepDims = false): DeviceTensor {
    return this.overAxis('sum', a, axis, keepDims, (n) => 1 / n);
  }
  max(a: DeviceTensor, axis: number, keepDims = false): DeviceTensor {
    return this.overAxis('max', a, axis, keepDims, () => 1);
  }

  private overAxis(op: ReduceOp, a: DeviceTensor, axis: number, keepDims: boolean, scale: (n: number) => number): DeviceTensor {
    const at = axis < 0 ? axis + a.shape.length : axis;
    if (!(at >= 0 && at < a.shape.length)) throw new ShapeError(`there is no axis ${axis} in a tensor of shape [${a.shape}]`);
    const shape = a.shape.flatMap((n, i) => (i !== at ? [n] : keepDims ? [1] : []));
    const n = a.shape[at];
    return this.make(shape, (out) => this.reduce(op, 'x', [this.raw(a)], sizeOf(a.shape.slice(0, at)), n, sizeOf(a.shape.slice(at + 1)), scale(n), out));
  }

  /** Reduces the middle axis of [outer, axis, inner]. Long axes of few results go in parts. */
  private reduce(op: ReduceOp, of: Operand, x: readonly Slot[], outer: number, axis: number, inner: number, scale: number, out: Slot): void {
    const results = outer * inner;
    if (axis <= SHORT_AXIS || outer > MOST_GROUPS) {
      if (axis <= 16 || inner > 1) return this.gpu.each(`${op} ${of} thread`, () => reduceThread(op, of), x, [out], [results, axis, inner, scale], results, 64);
      return this.gpu.each(`${op} ${of} rows 64`, () => reduceRows(op, of, 64), x, [out], [outer, axis, 1, axis, scale], outer, 1);
    }
    // Enough parts to fill a device, none shorter than what a workgroup walks over in eight rounds.
    const groups = inner === 1 ? outer : outer * Math.ceil(inner / 32);
    const parts = Math.max(1, Math.min(SHORT_AXIS, Math.ceil(512 / groups), Math.ceil(axis / (inner === 1 ? 2048 : 64))));
    const chunk = Math.ceil(axis / parts);
    const workgroup = rowWorkgroup(chunk);
    const pass = (to: Slot, factor: number): void => {
      if (inner === 1) this.gpu.each(`${op} ${of} rows ${workgroup}`, () => reduceRows(op, of, workgroup), x, [to], [outer * parts, axis, parts, chunk, factor], outer * parts, 1);
      else this.gpu.run(`${op} ${of} columns`, () => reduceColumns(op, of), x, [to], [axis, inner, parts, chunk, factor], Math.ceil(inner / 32), parts, outer);
    };
    if (parts === 1) pass(out, scale);
    else
      this.withScratch(results * parts, (scratch) => {
        pass(scratch, 1);
        this.reduce(op, 'x', [scratch], outer, parts, inner, scale, out);
      });
  }

  // ---- matrix products ------------------------------------------------------------------------------------------------------
  matmul(a: DeviceTensor, b: DeviceTensor, { transposeA = false, transposeB = false }: MatmulOptions = {}): DeviceTensor {
    const lead = a.shape.slice(0, -2);
    const [p, q] = a.shape.slice(-2);
    const [u, v] = b.shape.slice(-2);
    const [M, K] = transposeA ? [q, p] : [p, q];
    const [k, N] = transposeB ? [v, u] : [u, v];
    if (a.shape.length < 2 || K !== k || lead.length !== b.shape.length - 2 || lead.some((n, i) => n !== b.shape[i]))
      throw new ShapeError(`no product of [${a.shape}]${transposeA ? ' transposed' : ''} and [${b.shape}]${transposeB ? ' transposed' : ''}`);
    return this.product([...lead, M, N], a, b, M, N, K, sizeOf(lead), transposeA, transposeB);
  }

  private product(shape: readonly number[], a: DeviceTensor, b: DeviceTensor, M: number, N: number, K: number, batches: number, transposeA: boolean, transposeB: boolean, bias?: DeviceTensor): DeviceTensor {
    const { matrix } = this;
    const mixed = matrix && mixedPlan(M, N, K, batches);
    const { tile, slices, chunk } = mixed ?? matmulPlan(M, N, K, batches);
    const four = (n: number) => n % 4 === 0;
    // Biases are added once, when the slices are.
    const kind: MatmulKind = { tile, transposeA, transposeB, vectorA: four(transposeA ? M : K), vectorB: four(transposeB ? K : N), vectorOut: four(N), bias: bias !== undefined && slices === 1 };
    const operands = [this.raw(a), this.raw(b)];
    const biases = bias ? [this.raw(bias)] : [];
    const groups = [Math.ceil(N / tile), Math.ceil(M / tile), Math.min(batches * slices, MOST_GROUPS)] as const;
    const run = (out: Slot): void =>
      this.gpu.run(`${mixed ? 'mixed ' : ''}${matmulKey(kind)}`, () => (mixed && matrix ? mixedMatmulKernel(kind, matrix) : matmulKernel(kind)), [...operands, ...(kind.bias ? biases : [])], [out], [M, N, K, batches, slices, chunk], ...groups);
    return this.make(shape, (out) => {
      if (slices === 1) return run(out);
      const n = batches * M * N;
      this.withScratch(slices * n, (parts) => {
        run(parts);
        this.gpu.each(`sum slices${bias ? ' bias' : ''}`, () => sumSlices(bias !== undefined), [parts, ...biases], [out], [n, M * N, slices, N], n);
      });
    });
  }

  override linear(x: DeviceTensor, weight: DeviceTensor, bias?: DeviceTensor): DeviceTensor {
    const [O, K] = weight.shape;
    if (x.shape[x.shape.length - 1] !== K) throw new ShapeError(`linear: inputs of shape [${x.shape}] for a weight of shape [${weight.shape}]`);
    if (bias) this.checkSizes('bias', O, bias);
    return this.product([...x.shape.slice(0, -1), O], x, weight, x.size / K, O, K, 1, false, true, bias);
  }

  override linearGradInput(grad: DeviceTensor, weight: DeviceTensor): DeviceTensor {
    const [O, K] = weight.shape;
    if (grad.shape[grad.shape.length - 1] !== O) throw new ShapeError(`linear: gradients of shape [${grad.shape}] for a weight of shape [${weight.shape}]`);
    return this.product([...grad.shape.slice(0, -1), K], grad, weight, grad.size / O, K, O, 1, false, false);
  }

  override linearGradWeight(grad: DeviceTensor, x: DeviceTensor): DeviceTensor {
    const [O, K] = [grad, x].map((t) => t.shape[t.shape.length - 1]);
    if (grad.size / O !== x.size / K) throw new ShapeError(`linear: gradients of shape [${grad.shape}] for inputs of shape [${x.shape}]`);
    return this.product([O, K], grad, x, O, K, x.size / K, 1, true, false);
  }

  override biasGrad(grad: DeviceTensor): DeviceTensor {
    const O = grad.shape[grad.shape.length - 1];
    return this.make([O], (out) => this.reduce('sum', 'x', [this.raw(grad)], 1, grad.size / O, O, 1, out));
  }

  // ---- copies in another order ------------------------------------------------------------------------------------------------
  transpose(a: DeviceTensor, perm: readonly number[]): DeviceTensor {
    if (perm.length !== a.shape.length || [...perm].sort((x, y) => x - y).some((p, i) => p !== i)) throw new ShapeError(`[${perm}] is no order of the dimensions of [${a.shape}]`);
    const shape = perm.map((p) => a.shape[p]);
    const own = rowMajor(a.shape);
    return this.copy(shape, { dims: shape, strides: [perm.map((p) => own[p])] }, a);
  }

  slice(a: DeviceTensor, begin: readonly number[], size: readonly number[]): DeviceTensor {
    if (begin.length !== a.shape.length || size.length !== begin.length || a.shape.some((n, i) => begin[i] < 0 || size[i] < 0 || begin[i] + size[i] > n))
      throw new ShapeError(`no slice of [${size}] at [${begin}] in a tensor of shape [${a.shape}]`);
    const own = rowMajor(a.shape);
    return this.copy(size, { dims: size, strides: [own] }, a, begin.reduce((at, b, i) => at + b * own[i], 0));
  }

  private copy(shape: readonly number[], walk: Walk, a: DeviceTensor, offset = 0): DeviceTensor {
    return this.make(shape, (out) => this.walk('copy', walk, [this.raw(a)], ['a: u32'], 'y[i] = a[o0];', out, [offset], 'u32'), a.dtype);
  }

  concat(parts: readonly DeviceTensor[], axis: number): DeviceTensor {
    const [first] = parts;
    const at = axis < 0 ? axis + first.shape.length : axis;
    for (const p of parts)
      if (p.dtype !== first.dtype || p.shape.length !== first.shape.length || p.shape.some((n, i) => i !== at && n !== first.shape[i])) throw new ShapeError(`[${p.shape}] cannot follow [${first.shape}] along axis ${axis}`);
    const shape = first.shape.map((n, i) => (i === at ? parts.reduce((s, p) => s + p.shape[i], 0) : n));
    if (parts.every((p) => p.size === 1)) return this.make(shape, (out) => this.placeScalars(parts.map((p) => this.raw(p)), out), first.dtype);
    const steps = rowMajor(shape);
    return this.make(
      shape,
      (out) => {
        let offset = 0;
        for (const p of parts) {
          this.walk('place', { dims: p.shape, strides: [steps] }, [this.raw(p)], ['a: u32'], 'y[o0] = a[i];', out, [offset], 'u32');
          offset += p.shape[at] * steps[at];
        }
      },
      first.dtype,
    );
  }

  /** Puts scalars in a row, as many in one dispatch as every device can read: a step's magnitudes come that way. */
  private placeScalars(parts: readonly Slot[], out: Slot): void {
    for (let at = 0; at < parts.length; at += SCALARS) {
      const some = parts.slice(at, at + SCALARS);
      const make = (): Kernel => ({ params: ['at: u32'], reads: some.map((_, k) => `x${k}: u32`), writes: ['y: u32'], workgroup: 1, body: `  ${some.map((_, k) => `y[p.at + ${k}u] = x${k}[0];`).join(' ')}` });
      this.gpu.run(`scalars ${some.length}`, make, some, [out], [at], 1);
    }
  }

  // ---- rows by id -----------------------------------------------------------------------------------------------------------
  gather(table: DeviceTensor, ids: DeviceTensor): DeviceTensor {
    const shape = [...ids.shape, ...table.shape.slice(1)];
    const [n, width] = [sizeOf(shape), sizeOf(table.shape.slice(1))];
    const make = (): Kernel => elementwise('table[u32(ids[i / p.width]) * p.width + i % p.width]', ['table: u32', 'ids: i32'], ['width: u32'], '', 'u32');
    return this.make(shape, (out) => this.gpu.each('gather', make, [this.raw(table), this.raw(ids)], [out], [n, width], n), table.dtype);
  }

  scatterAdd(updates: DeviceTensor, ids: DeviceTensor, rows: number): DeviceTensor {
    return this.scatter(updates, ids, [rows, ...updates.shape.slice(1)], -1);
  }

  override embeddingGrad(grad: DeviceTensor, ids: DeviceTensor, rows: number, paddingIndex = -1): DeviceTensor {
    return this.scatter(grad, ids, [rows, grad.shape[grad.shape.length - 1]], paddingIndex);
  }

  writeRows(table: DeviceTensor, ids: DeviceTensor, rows: DeviceTensor): void {
    this.checkRows(table, ids, rows);
    const [to, at, from] = [table, ids, rows].map((t) => this.raw(t));
    this.gpu.check();
    const { done, begun } = this.gpu.nothingLost();
    this.gpu.each('writeRows', writeRowsKernel, [from, at, done], [to], [rows.size, sizeOf(table.shape.slice(1)), begun], rows.size);
  }

  private scatter(updates: DeviceTensor, ids: DeviceTensor, shape: readonly number[], padding: number): DeviceTensor {
    const width = sizeOf(shape.slice(1));
    if (updates.size !== ids.size * width) throw new ShapeError(`updates of shape [${updates.shape}] for ${ids.size} ids and rows of ${width}`);
    return this.make(shape, (out) => {
      this.fill(out, sizeOf(shape), 0);
      const groups = [Math.ceil(width / 64), Math.min(ids.size, SCATTER_GROUPS), Math.ceil(ids.size / SCATTER_GROUPS)] as const;
      this.gpu.run('scatterAdd', scatterAddKernel, [this.raw(updates), this.raw(ids)], [out], [ids.size, width, padding], ...groups);
    });
  }

  protected oneHot(ids: DeviceTensor, depth: number): DeviceTensor {
    const n = ids.size * depth;
    const make = (): Kernel => elementwise('select(0.0, 1.0, ids[i / p.depth] == i32(i % p.depth))', ['ids: i32'], ['depth: u32']);
    return this.make([ids.size, depth], (out) => this.gpu.each('oneHot', make, [this.raw(ids)], [out], [n, depth], n));
  }

  protected differs(ids: DeviceTensor, value: number): DeviceTensor {
    const make = (): Kernel => elementwise('select(1.0, 0.0, ids[i] == p.value)', ['ids: i32'], ['value: i32']);
    return this.make(ids.shape, (out) => this.gpu.each('differs', make, [this.raw(ids)], [out], [ids.size, value], ids.size));
  }

  // ---- activations ------------------------------------------------------------------------------------------------------------
  override gelu(x: DeviceTensor): DeviceTensor {
    return this.chain('gelu', x.shape, () => ['x[i] * phi(x[i])', GELU], { x });
  }
  override geluGrad(grad: DeviceTensor, x: DeviceTensor): DeviceTensor {
    this.checkSizes('gradient of GELU', grad.size, x);
    return this.chain('geluGrad', grad.shape, () => ['g[i] * geluSlope(x[i])', GELU], { g: grad, x });
  }
  override geluGradEncoded(grad: DeviceTensor, x: EncodedTensor): DeviceTensor {
    const { encoding, words, steps } = x;
    this.checkSizes('gradient of GELU', sizeOf(x.shape), grad);
    const make = (): Kernel =>
      elementwise(`g[i] * geluSlope(decoded(i)${steps ? ' * steps[i / p.width]' : ''})`, ['g: f32', 'words: u32', ...(steps ? ['steps: f32'] : [])], ['half: u32', 'width: u32'], GELU + decodeFunction(codesOf(encoding)));
    const reads = [grad, words, ...(steps ? [steps] : [])].map((t) => this.raw(t));
    return this.make(grad.shape, (out) => this.gpu.each(`geluGrad ${encoding}`, make, reads, [out], [grad.size, Math.ceil(grad.size / 2), steps ? grad.size / steps.size : 1], grad.size));
  }
  override tanhGrad(grad: DeviceTensor, y: DeviceTensor): DeviceTensor {
    this.checkSizes('gradient of tanh', grad.size, y);
    return this.chain('tanhGrad', grad.shape, () => ['g[i] * (1.0 - t[i] * t[i])'], { g: grad, t: y });
  }

  // ---- layer norm -------------------------------------------------------------------------------------------------------------
  /** One workgroup for each row of x [..., width]. */
  private rowwise(name: string, kernel: (workgroup: number) => Kernel, reads: readonly DeviceTensor[], outs: readonly Slot[], x: DeviceTensor, ...params: readonly number[]): void {
    const width = x.shape[x.shape.length - 1];
    const [rows, workgroup] = [x.size / width, rowWorkgroup(width)];
    this.gpu.each(`${name} ${workgroup}`, () => kernel(workgroup), reads.map((t) => this.raw(t)), outs, [rows, width, ...params], rows, 1);
  }

  override layerNorm(x: DeviceTensor, weight: DeviceTensor, bias: DeviceTensor, eps: number): DeviceTensor {
    this.checkSizes('layer norm', x.shape[x.shape.length - 1], weight, bias);
    return this.make(x.shape, (out) => this.rowwise('layerNorm', layerNormKernel, [x, weight, bias], [out], x, eps));
  }
  override rowStats(x: DeviceTensor, eps: number): RowStats {
    const shape = [x.size / x.shape[x.shape.length - 1], 1];
    return this.scope(() => {
      const [mean, rstd] = [0, 1].map(() => this.make(shape, () => {}));
      this.rowwise('rowStats', rowStatsKernel, [x], [this.raw(mean), this.raw(rstd)], x, eps);
      return { mean, rstd };
    });
  }
  override normalize(x: DeviceTensor, { mean, rstd }: RowStats): DeviceTensor {
    const width = x.shape[x.shape.length - 1];
    this.checkSizes('normalize', x.size / width, mean, rstd);
    const make = (): Kernel => elementwise('(x[i] - mean[i / p.width]) * rstd[i / p.width]', ['x: f32', 'mean: f32', 'rstd: f32'], ['width: u32']);
    return this.make(x.shape, (out) => this.gpu.each('normalize', make, [x, mean, rstd].map((t) => this.raw(t)), [out], [x.size, width], x.size));
  }
  override layerNormGradInput(grad: DeviceTensor, normalized: DeviceTensor, rstd: DeviceTensor, weight: DeviceTensor): DeviceTensor {
    const width = grad.shape[grad.shape.length - 1];
    this.checkSizes('gradient of a layer norm', grad.size, normalized);
    this.checkSizes('gradient of a layer norm', grad.size / width, rstd);
    this.checkSizes('gradient of a layer norm', width, weight);
    return this.make(grad.shape, (out) => this.rowwise('layerNormGrad', layerNormGradKernel, [grad, normalized, rstd, weight], [out], grad));
  }
  override layerNormGradWeight(grad: DeviceTensor, normalized: DeviceTensor): DeviceTensor {
    this.checkSizes('gradient of a layer norm', grad.size, normalized);
    const H = grad.shape[grad.shape.length - 1];
    return this.make([H], (out) => this.reduce('sum', 'x·y', [this.raw(grad), this.raw(normalized)], 1, grad.size / H, H, 1, out));
  }

  override layerNormGradInputEncoded(grad: DeviceTensor, normalized: EncodedTensor, rstd: DeviceTensor, weight: DeviceTensor): DeviceTensor {
    const { words, steps } = normalized;
    const width = grad.shape[grad.shape.length - 1];
    this.checkSizes('gradient of a layer norm', grad.size / width, rstd, ...(steps ? [steps] : []));
    this.checkSizes('gradient of a layer norm', width, weight);
    if (sizeOf(normalized.shape) !== grad.size) throw new ShapeError(`gradient of a layer norm: codes of shape [${normalized.shape}] for a gradient of [${grad.shape}]`);
    const codes: LayerNormCodes = { encoding: codesOf(normalized.encoding), steps: steps !== undefined };
    const reads = [grad, words, ...(steps ? [steps] : []), rstd, weight];
    return this.make(grad.shape, (out) => this.rowwise(`layerNormGrad ${codes.encoding}${codes.steps ? ' steps' : ''}`, (w) => layerNormGradKernel(w, codes), reads, [out], grad, Math.ceil(grad.size / 2)));
  }
  override normalizeEncoded(x: DeviceTensor, eps: number, encoding: CodeEncoding): NormalizedCodes {
    const width = x.shape[x.shape.length - 1];
    if (!wholeWords(encoding, width)) return super.normalizeEncoded(x, eps, encoding);
    const { codes, hi } = ROW_SCALED[encoding as RowScaled];
    return this.scope(() => {
      const words = this.make([x.size / 4], () => {}, 'int32');
      const [steps, rstd] = [0, 1].map(() => this.make([x.size / width, 1], () => {}));
      this.rowwise(`normalizeEncode ${codes}`, (w) => normalizeEncodeKernel(codes, w), [x], [words, steps, rstd].map((t) => this.raw(t)), x, eps, hi);
      return { encoded: { encoding, shape: x.shape, words, payloadBytes: x.size, steps }, rstd };
    });
  }

  // ---- attention --------------------------------------------------------------------------------------------------------------
  override attentionProbs(q: DeviceTensor, k: DeviceTensor, scale: number, mask?: DeviceTensor): DeviceTensor {
    // The kernel takes one mask row for each sequence.
    if (mask && mask.size !== q.shape[0] * k.shape[2]) return super.attentionProbs(q, k, scale, mask);
    return this.scope(() => this.maskedSoftmax(this.matmul(q, k, { transposeB: true }), scale, mask));
  }
  override softmax(x: DeviceTensor): DeviceTensor {
    return this.maskedSoftmax(x, 1);
  }
  private maskedSoftmax(x: DeviceTensor, scale: number, mask?: DeviceTensor): DeviceTensor {
    const width = x.shape[x.shape.length - 1];
    const perMask = mask ? x.size / mask.size : 1;
    return this.make(x.shape, (out) => this.rowwise(mask ? 'softmax mask' : 'softmax', (w) => softmaxKernel(mask !== undefined, w), mask ? [x, mask] : [x], [out], x, scale, mask ? perMask : Math.max(1, x.size / width)));
  }
  override softmaxGrad(grad: DeviceTensor, probs: DeviceTensor): DeviceTensor {
    this.checkSizes('gradient of softmax', grad.size, probs);
    return this.make(probs.shape, (out) => this.rowwise('softmaxGrad', softmaxGradKernel, [grad, probs], [out], probs));
  }

  override streamsAttention(headWidth: number): boolean {
    return headWidth % 4 === 0 && headWidth <= WIDEST_HEAD;
  }

  /** Whether the kernels of attention take these; what else they need of them. */
  private attentionCall([B, T, H]: readonly number[], { heads, scale, mask, dropout }: AttentionSettings) {
    if (H % heads !== 0) throw new ShapeError(`attention: ${heads} heads of ${H} values`);
    const d = H / heads;
    if (!this.streamsAttention(d) || (mask && mask.size !== B * T)) return undefined;
    const { seed, counter, offset = 0 } = dropout?.key ?? { seed: 0, counter: 0 };
    const drops = dropout ? [seed, counter, offset, dropThreshold(dropout.p), 1 / (1 - dropout.p)] : [];
    const groups = [Math.ceil(T / ATTENTION_BLOCK), Math.min(B * heads, MOST_GROUPS)] as const;
    // Blocks of either have as many rows.
    const unit = this.matrix && mixedAttentionFits(T, d, this.matrix) ? this.matrix : undefined;
    return { unit, name: unit ? 'mixed attention' : 'attention', kind: { d, mask: mask !== undefined, dropout: dropout !== undefined }, masks: mask ? [this.raw(mask)] : [], params: [T, heads, B * heads, scale, ...drops], groups };
  }

  override attention(q: DeviceTensor, k: DeviceTensor, v: DeviceTensor, settings: AttentionSettings): DeviceTensor {
    this.checkSizes('attention', q.size, k, v);
    const call = this.attentionCall(q.shape, settings);
    if (!call) return super.attention(q, k, v, settings);
    const { unit, name, kind, masks, params, groups } = call;
    const reads = [q, k, v].map((t) => this.raw(t));
    return this.make(q.shape, (out) => this.gpu.run(`${name} ${attentionKey(kind)}`, () => (unit ? mixedAttentionKernel(kind, unit) : attentionKernel(kind)), [...reads, ...masks], [out], params, ...groups));
  }

  override attentionGrad(...args: Parameters<ComposedEngine<Slot>['attentionGrad']>): AttentionGradients {
    const [grad, q, k, v, settings, wanted] = args;
    const call = this.attentionCall(grad.shape, settings);
    if (!call || ((wanted.dq || wanted.dk) && !v)) return super.attentionGrad(...args);
    const { unit, name, kind, masks, params, groups } = call;
    const { dq: wantsQ, dk, dv } = wanted;
    if (!(wantsQ || dk || dv)) return {};
    return this.scope(() => {
      // Beside the operands: the gradient, the rows, dk and dv, a mask.
      let room = this.mostBuffers - 7 - masks.length;
      const [ofQ, ofK, ofV] = [q, k, wantsQ || dk ? v : undefined].map((x) => {
        const of = x && this.attentionOperand(x, grad, room > 0);
        if (of) room -= of.slots.length - 1;
        return of;
      });
      const gradKind: AttentionGradKind = { ...kind, q: ofQ!.form, k: ofK!.form, v: ofV?.form };
      const key = attentionGradKey(gradKind);
      const g = this.raw(grad);
      const like = () => this.make(grad.shape, () => {});
      const rows = dk || dv ? this.make([params[2], params[0], 4], () => {}) : undefined;
      const dq = wantsQ ? like() : undefined;
      const made = (...tensors: readonly (DeviceTensor | undefined)[]) => tensors.flatMap((t) => (t ? [this.raw(t)] : []));
      const walk = { gradient: wantsQ, statistics: rows !== undefined };
      const fixed = [...ofQ!.slots, ...ofK!.slots];
      const makeRows = () => (unit ? mixedAttentionRowsKernel(gradKind, walk, unit) : attentionRowsKernel(gradKind, walk));
      this.gpu.run(`${name} rows ${wantsQ} ${walk.statistics} ${key}`, makeRows, [...fixed, ...(ofV ? [...ofV.slots, g] : []), ...masks], made(dq, rows), params, ...groups);
      if (!rows) return { dq };
      const of = { dk: dk ? like() : undefined, dv: dv ? like() : undefined };
      const makeColumns = () => (unit ? mixedAttentionColumnsKernel(gradKind, { dk, dv }, unit) : attentionColumnsKernel(gradKind, { dk, dv }));
      this.gpu.run(`${name} columns ${dk} ${dv} ${key}`, makeColumns, [...fixed, ...(dk ? ofV!.slots : []), g, ...made(rows), ...masks], made(of.dk, of.dv), params, ...groups);
      return { dq, ...of };
    });
  }

  /** An operand of attention's backward as its kernels read it: signed 8-bit codes as they are, others decoded, also those for whose steps a kernel has no buffer left. */
  private attentionOperand(x: AttentionOperand, like: DeviceTensor, takesSteps: boolean): { readonly form: OperandForm; readonly slots: readonly Slot[] } {
    if (!('encoding' in x)) {
      this.checkSizes('gradient of attention', like.size, x);
      return { form: 'f32', slots: [this.raw(x)] };
    }
    if (sizeOf(x.shape) !== like.size) throw new ShapeError(`gradient of attention: codes of shape [${x.shape}] for a gradient of [${like.shape}]`);
    const { bits, lo, scale } = FIXED_POINT[codesOf(x.encoding)];
    if (bits !== 8 || lo >= 0 || (x.steps && !takesSteps)) return { form: 'f32', slots: [this.raw(this.decode(x))] };
    return { form: { scale, steps: x.steps !== undefined }, slots: [x.words, ...(x.steps ? [x.steps] : [])].map((t) => this.raw(t)) };
  }

  // ---- dropout ----------------------------------------------------------------------------------------------------------------
  private masked(x: Slot | undefined, shape: readonly number[], p: number, { seed, counter, offset = 0 }: RandomKey): DeviceTensor {
    const n = sizeOf(shape);
    const kept = x ? 'x[i] * p.keep' : 'p.keep';
    const make = (): Kernel => elementwise(`select(0.0, ${kept}, randomBits(p.seed, p.counter, p.offset + i) >= p.threshold)`, x ? ['x: f32'] : [], ['seed: u32', 'counter: u32', 'offset: u32', 'threshold: u32', 'keep: f32'], RANDOM_BITS);
    return this.make(shape, (out) => this.gpu.each(x ? 'dropout' : 'dropoutMask', make, x ? [x] : [], [out], [n, seed, counter, offset, dropThreshold(p), 1 / (1 - p)], n));
  }
  override dropout(x: DeviceTensor, p: number, key: RandomKey): DeviceTensor {
    return this.masked(this.raw(x), x.shape, p, key);
  }
  protected dropoutMask(shape: readonly number[], p: number, key: RandomKey): DeviceTensor {
    return this.masked(undefined, shape, p, key);
  }

  // ---- losses -----------------------------------------------------------------------------------------------------------------
  override crossEntropy(logits: DeviceTensor, labels: DeviceTensor, ignoreIndex = -1): LossResult {
    const [rows, width] = logits.shape;
    this.checkSizes('labels', rows, labels);
    return this.scope(() => {
      const grad = this.make([rows, width], () => {});
      const loss = this.make([], () => {});
      this.withScratch(1, (count) =>
        this.withScratch(rows, (losses) => {
          const workgroup = rowWorkgroup(width);
          this.gpu.run('countLabels', countLabels, [this.raw(labels)], [count], [rows, width, ignoreIndex], 1);
          this.gpu.each(`crossEntropy ${workgroup}`, () => crossEntropyRows(workgroup), [this.raw(logits), this.raw(labels), count], [losses, this.raw(grad)], [rows, width, ignoreIndex], rows, 1);
          this.gpu.run('meanLoss', meanLoss, [losses, count], [this.raw(loss)], [rows], 1);
        }),
      );
      return { loss, grad };
    });
  }

  // ---- encodings --------------------------------------------------------------------------------------------------------------
  protected pack(x: DeviceTensor, encoding: FixedPoint): EncodedTensor {
    return this.packed(x, encoding);
  }

  private packed(x: DeviceTensor, encoding: FixedPoint, steps?: DeviceTensor): EncodedTensor {
    const bytes = payloadBytes(x.size, encoding);
    const n = Math.ceil(bytes / 4);
    const reads = steps ? [this.raw(x), this.raw(steps)] : [this.raw(x)];
    const params = [n, x.size, Math.ceil(x.size / 2), x.shape[x.shape.length - 1] ?? 1];
    const words = this.make([n], (out) => this.gpu.each(`encode ${encoding}${steps ? ' steps' : ''}`, () => encodeKernel(encoding, steps !== undefined), reads, [out], params, n), 'int32');
    return { encoding, shape: x.shape, words, payloadBytes: bytes };
  }

  override encode(x: DeviceTensor, encoding: CodeEncoding): EncodedTensor {
    if (!(encoding in ROW_SCALED)) return this.pack(x, encoding as FixedPoint);
    const { codes, hi } = ROW_SCALED[encoding as RowScaled];
    const width = x.shape[x.shape.length - 1];
    const shape = [x.size / width, 1];
    return this.scope(() => {
      if (!wholeWords(encoding, width)) {
        const steps = this.make(shape, (out) => this.rowwise('steps', stepsKernel, [x], [out], x, hi));
        return { ...this.packed(x, codes, steps), encoding, steps };
      }
      const [words, steps] = [this.make([x.size / 4], () => {}, 'int32'), this.make(shape, () => {})];
      const lanes = encodeLanes(width);
      this.gpu.each(`encode rows ${codes} ${lanes}`, () => encodeRowsKernel(codes, lanes), [this.raw(x)], [words, steps].map((t) => this.raw(t)), [shape[0], width / 4, hi], shape[0], ENCODE_THREADS / lanes);
      return { encoding, shape: x.shape, words, payloadBytes: x.size, steps };
    });
  }

  protected unpack(x: FixedPointTensor): DeviceTensor {
    return this.unpacked(x, x.encoding);
  }

  private unpacked(x: EncodedTensor, codes: FixedPoint, steps?: DeviceTensor): DeviceTensor {
    const n = sizeOf(x.shape);
    const make = (): Kernel => elementwise(steps ? 'decoded(i) * steps[i / p.width]' : 'decoded(i)', ['words: u32', ...(steps ? ['steps: f32'] : [])], ['half: u32', 'width: u32'], decodeFunction(codes));
    const reads = steps ? [this.raw(x.words), this.raw(steps)] : [this.raw(x.words)];
    return this.make(x.shape, (out) => this.gpu.each(`decode ${codes}${steps ? ' steps' : ''}`, make, reads, [out], [n, Math.ceil(n / 2), steps ? n / steps.size : 1], n));
  }

  override decode(x: EncodedTensor): DeviceTensor {
    return x.encoding in ROW_SCALED ? this.unpacked(x, ROW_SCALED[x.encoding as RowScaled].codes, x.steps) : this.unpacked(x, x.encoding as FixedPoint);
  }

  override decodeAffine(x: EncodedTensor, weight: DeviceTensor, bias: DeviceTensor): DeviceTensor {
    const { words, steps, shape } = x;
    const [n, width] = [sizeOf(shape), shape[shape.length - 1]];
    this.checkSizes('decodeAffine', width, weight, bias);
    const make = (): Kernel =>
      elementwise(`decoded(i)${steps ? ' * steps[i / p.width]' : ''} * weight[i % p.width] + bias[i % p.width]`, ['words: u32', ...(steps ? ['steps: f32'] : []), 'weight: f32', 'bias: f32'], ['half: u32', 'width: u32'], decodeFunction(codesOf(x.encoding)));
    const reads = [words, ...(steps ? [steps] : []), weight, bias].map((t) => this.raw(t));
    return this.make(shape, (out) => this.gpu.each(`decodeAffine ${x.encoding}`, make, reads, [out], [n, Math.ceil(n / 2), width], n));
  }

  topK(x: DeviceTensor, count: number): SparseTensor {
    if (!Number.isInteger(count) || count < 0 || count > x.size) throw new InvalidArgumentError(`topK of ${count} out of ${x.size} elements`);
    return this.scope(() => {
      const values = this.make([count], () => {});
      const indices = this.make([count], () => {}, 'int32');
      if (count > 0) this.select(this.raw(x), x.size, count, this.raw(values), this.raw(indices));
      return { shape: x.shape, values, indices };
    });
  }

  private select(x: Slot, n: number, count: number, values: Slot, indices: Slot): void {
    const blocks = Math.ceil(n / TOPK_BLOCK);
    this.withScratch(256, (bins) =>
      this.withScratch(2, (state) =>
        this.withScratch(2 * blocks, (counts) => {
          this.gpu.run('topK start', topKStart, [], [bins, state], [count], 1);
          for (const { shift, bits } of TOPK_PASSES) {
            this.gpu.each('topK count', topKCount, [x, state], [bins], [n, shift, bits], n, 16 * 256);
            this.gpu.run('topK pick', topKPick, [], [bins, state], [shift], 1);
          }
          this.gpu.each('topK blocks', topKBlocks, [x, state], [counts], [n], n, TOPK_BLOCK);
          this.gpu.run('topK scan', topKScan, [], [counts], [blocks], 1);
          this.gpu.each('topK write', topKWrite, [x, state, counts], [values, indices], [n], n, TOPK_BLOCK);
        }),
      ),
    );
  }

  /** Positions are unique, so that nothing adds up and nothing races. */
  override densify(x: SparseTensor): DeviceTensor {
    const [size, count] = [sizeOf(x.shape), x.values.size];
    const make = (): Kernel => ({ ...elementwise('', ['values: u32', 'indices: u32'], [], '', 'u32'), body: 'let i = (wg.y * grid.x + wg.x) * W + lid; if (i < p.n) { y[indices[i]] = values[i]; }' });
    return this.make(x.shape, (out) => {
      this.fill(out, size, 0);
      this.gpu.each('place', make, [this.raw(x.values), this.raw(x.indices)], [out], [count], count);
    });
  }

  // ---- optimizer --------------------------------------------------------------------------------------------------------------
  override adamwStep(state: AdamWState, grad: DeviceTensor, o: AdamWOptions): DeviceTensor | undefined {
    const { weight, m, v } = state;
    this.checkAdamW(state, grad);
    const rate = (o.lr * Math.sqrt(1 - o.beta2 ** o.step)) / (1 - o.beta1 ** o.step);
    const [g, w, m1, v1] = [grad, weight, m, v].map((t) => this.raw(t));
    const { magnitude } = o;
    const whole = weight.size <= ADAMW_CHUNK;
    const step = (out: readonly Slot[]): void => {
      const { done, begun } = this.gpu.nothingLost();
      const params = [weight.size, rate, o.beta1, 1 - o.beta1, o.beta2, 1 - o.beta2, o.eps, o.lr * o.weightDecay, begun, ...(magnitude && whole ? [INFINITE, NAN] : [])];
      this.gpu.each(`adamw ${magnitude}${magnitude && whole ? ' whole' : ''}`, () => adamwKernel(magnitude, whole), [g, done], [w, m1, v1, ...out], params, weight.size, ADAMW_CHUNK);
    };
    if (!magnitude) {
      this.gpu.check();
      step([]);
      return undefined;
    }
    if (whole) return this.make([], (out) => step([out]));
    const count = Math.ceil(weight.size / ADAMW_CHUNK);
    return this.make([], (out) =>
      this.withScratch(2 * count, (parts) => {
        step([parts]);
        this.gpu.run(`magnitude ${magnitude}`, () => magnitudeKernel(magnitude), [parts], [out], [count, weight.size, INFINITE, NAN], 1);
      }),
    );
  }
}
