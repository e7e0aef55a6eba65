/**
 * TensorFlow's eager runtime as an engine, on CPU or GPU. Raw operations on raw handles: a small operation costs about 5 µs. Codes are packed by casting to
 * 8-bit tensors and bitcasting four of them to an int32 word.
 */
import { InvalidArgumentError, ShapeError } from '../../errors';
import { broadcast, sizeOf } from '../baseEngine';
import { payloadBytes } from '../codes';
import { ComposedEngine, type FixedPointTensor } from '../composedEngine';
import {
  type AdamWOptions,
  type AdamWState,
  type Category,
  type DeviceTensor,
  type DType,
  type EncodedTensor,
  FIXED_POINT,
  type FixedPoint,
  type MatmulOptions,
  type RandomKey,
  type RowStats,
  type SparseTensor,
} from '../engine';
import { type Attr, attr, TF_TYPE, type TensorflowBinding } from './tensorflowBinding';

/** A handle of TensorFlow's eager runtime. */
export type Id = number;

const FLOAT = attr.type('T', 'float');
/** TensorFlow's number of the algorithm. */
const PHILOX = 1;
const typeOf = (dtype: DType): 'float' | 'int32' => (dtype === 'int32' ? 'int32' : 'float');

/** Any device that TensorFlow has. */
export class TensorflowEngine extends ComposedEngine<Id> {
  readonly name = 'tensorflow';
  readonly device: string;
  /** Small host constants (scalars, axes, permutations), uploaded once. */
  private readonly constants = new Map<string, Id>();
  /** TensorFlow variables that hold the values of tensors which an optimizer updates in place. */
  private readonly variables = new Map<DeviceTensor, Id>();
  private variablesMade = 0;
  /** Temporaries of the operation under way. */
  private temporaries: Id[] = [];

  /** @param detail what else there is to say of the device */
  constructor(
    protected readonly tf: TensorflowBinding,
    detail = '',
  ) {
    super();
    this.device = `${tf.isUsingGpuDevice() ? 'GPU' : 'CPU'} (TensorFlow ${tf.TF_Version}${detail})`;
  }

  override dispose(): void {
    super.dispose();
    for (const id of this.constants.values()) this.tf.deleteTensor(id);
    this.constants.clear();
  }

  override free(...tensors: readonly DeviceTensor[]): void {
    super.free(...tensors);
    for (const t of tensors) this.dropVariable(t);
  }

  override write(tensor: DeviceTensor, data: Float32Array): void {
    super.write(tensor, data);
    this.dropVariable(tensor);
  }

  /** Forgets the variable of a tensor; the next update in place makes one from the tensor's values. */
  private dropVariable(t: DeviceTensor): void {
    const variable = this.variables.get(t);
    if (variable === undefined) return;
    this.variables.delete(t);
    this.tf.executeOp('DestroyResourceOp', [attr.bool('ignore_lookup_error', true)], [variable], 0);
    this.tf.deleteTensor(variable);
  }

  protected release(id: Id): void {
    this.tf.deleteTensor(id);
  }

  protected rawView(id: Id, shape: readonly number[], dtype: DType): Id {
    return this.op('Reshape', [attr.type('T', typeOf(dtype)), attr.type('Tshape', 'int32')], [id, this.ints(shape)]);
  }

  // ---- running operations ---------------------------------------------------------------------------------------------
  protected op(name: string, attrs: readonly Attr[], inputs: readonly Id[]): Id {
    return this.tf.executeOp(name, attrs, inputs, 1)[0].id;
  }

  /** An intermediate result, deleted when the operation under way has its result. */
  protected tmp(name: string, attrs: readonly Attr[], inputs: readonly Id[]): Id {
    const id = this.op(name, attrs, inputs);
    this.temporaries.push(id);
    return id;
  }

  /** Runs a chain of raw operations, deletes its intermediates, and enters its result into the books. */
  protected run(shape: readonly number[], fn: () => Id, dtype: DType = 'float32', category?: Category): DeviceTensor {
    const outer = this.temporaries;
    this.temporaries = [];
    try {
      return this.own(fn(), shape, dtype, category);
    } finally {
      for (const id of this.temporaries) this.tf.deleteTensor(id);
      this.temporaries = outer;
    }
  }

  protected constant(key: string, make: () => Id): Id {
    let id = this.constants.get(key);
    if (id === undefined) this.constants.set(key, (id = make()));
    return id;
  }
  protected float(value: number): Id {
    return this.constant(`f${Object.is(value, -0) ? '-0' : value}`, () => this.tf.createTensor([], TF_TYPE.float, Float32Array.of(value)));
  }
  protected int(value: number): Id {
    return this.constant(`i${value}`, () => this.tf.createTensor([], TF_TYPE.int32, Int32Array.of(value)));
  }
  protected ints(values: readonly number[]): Id {
    return this.constant(`v${values}`, () => this.tf.createTensor([values.length], TF_TYPE.int32, Int32Array.from(values)));
  }

  // ---- tensors ----------------------------------------------------------------------------------------------------------
  upload(data: Float32Array | Int32Array, shape: readonly number[], category?: Category): DeviceTensor {
    if (data.length !== sizeOf(shape)) throw new ShapeError(`${data.length} values for a tensor of shape [${shape}]`);
    const dtype = data instanceof Int32Array ? 'int32' : 'float32';
    // The addon lets TensorFlow look at the array's own memory: a copy, so that neither side's writes are seen by the other.
    return this.own(this.tf.createTensor(shape, TF_TYPE[typeOf(dtype)], data.slice()), shape, dtype, category);
  }

  full(shape: readonly number[], value: number, category?: Category): DeviceTensor {
    return this.run(shape, () => this.op('Fill', [FLOAT, attr.type('index_type', 'int32')], [this.ints(shape), this.float(value)]), 'float32', category);
  }

  async read(tensor: DeviceTensor): Promise<Float32Array | Int32Array> {
    // The addon hands out a view of TensorFlow's memory, which lives no longer than the handle.
    return (this.tf.tensorDataSync(this.raw(tensor)) as Float32Array | Int32Array).slice();
  }

  // ---- primitives ---------------------------------------------------------------------------------------------------------
  private unary(name: string, a: DeviceTensor): DeviceTensor {
    return this.run(a.shape, () => this.op(name, [FLOAT], [this.raw(a)]));
  }
  private binary(name: string, a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.run(broadcast(a.shape, b.shape), () => this.op(name, [FLOAT], [this.raw(a), this.raw(b)]));
  }
  private reduce(name: string, a: DeviceTensor, axis: number, keepDims: boolean): DeviceTensor {
    const at = axis < 0 ? axis + a.shape.length : axis;
    const shape = a.shape.flatMap((n, i) => (i !== at ? [n] : keepDims ? [1] : []));
    return this.run(shape, () => this.op(name, [FLOAT, attr.type('Tidx', 'int32'), attr.bool('keep_dims', keepDims)], [this.raw(a), this.int(at)]));
  }

  add(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.binary('AddV2', a, b);
  }
  sub(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.binary('Sub', a, b);
  }
  mul(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.binary('Mul', a, b);
  }
  div(a: DeviceTensor, b: DeviceTensor): DeviceTensor {
    return this.binary('RealDiv', a, b);
  }
  affine(a: DeviceTensor, scale: number, shift = 0): DeviceTensor {
    return this.run(a.shape, () => {
      const x = this.raw(a);
      if (shift === 0) return this.op('Mul', [FLOAT], [x, this.float(scale)]);
      return this.op('AddV2', [FLOAT], [scale === 1 ? x : this.tmp('Mul', [FLOAT], [x, this.float(scale)]), this.float(shift)]);
    });
  }
  abs(a: DeviceTensor): DeviceTensor {
    return this.unary('Abs', a);
  }
  sqrt(a: DeviceTensor): DeviceTensor {
    return this.unary('Sqrt', a);
  }
  exp(a: DeviceTensor): DeviceTensor {
    return this.unary('Exp', a);
  }
  log(a: DeviceTensor): DeviceTensor {
    return this.unary('Log', a);
  }
  tanh(a: DeviceTensor): DeviceTensor {
    return this.unary('Tanh', a);
  }
  erf(a: DeviceTensor): DeviceTensor {
    return this.unary('Erf', a);
  }
  sum(a: DeviceTensor, axis: number, keepDims = false): DeviceTensor {
    return this.reduce('Sum', a, axis, keepDims);
  }
  mean(a: DeviceTensor, axis: number, keepDims = false): DeviceTensor {
    return this.reduce('Mean', a, axis, keepDims);
  }
  max(a: DeviceTensor, axis: number, keepDims = false): DeviceTensor {
    return this.reduce('Max', a, axis, keepDims);
  }

  matmul(a: DeviceTensor, b: DeviceTensor, { transposeA = false, transposeB = false }: MatmulOptions = {}): DeviceTensor {
    const rank = a.shape.length;
    const shape = [...a.shape.slice(0, -2), a.shape[rank - (transposeA ? 1 : 2)], b.shape[rank - (transposeB ? 2 : 1)]];
    return this.run(shape, () =>
      rank === 2
        ? this.op('MatMul', [FLOAT, attr.bool('transpose_a', transposeA), attr.bool('transpose_b', transposeB)], [this.raw(a), this.raw(b)])
        : this.op('BatchMatMulV2', [FLOAT, attr.bool('adj_x', transposeA), attr.bool('adj_y', transposeB)], [this.raw(a), this.raw(b)]),
    );
  }
  transpose(a: DeviceTensor, perm: readonly number[]): DeviceTensor {
    return this.run(
      perm.map((p) => a.shape[p]),
      () => this.op('Transpose', [FLOAT, attr.type('Tperm', 'int32')], [this.raw(a), this.ints(perm)]),
    );
  }
  slice(a: DeviceTensor, begin: readonly number[], size: readonly number[]): DeviceTensor {
    const attrs = [attr.type('T', typeOf(a.dtype)), attr.type('Index', 'int32')];
    return this.run(size, () => this.op('Slice', attrs, [this.raw(a), this.ints(begin), this.ints(size)]), a.dtype);
  }
  concat(parts: readonly DeviceTensor[], axis: number): DeviceTensor {
    // ConcatV2 refuses a single part.
    if (parts.length === 1) return this.share(parts[0]);
    const shape = parts[0].shape.map((n, i) => (i === axis ? parts.reduce((s, p) => s + p.shape[i], 0) : n));
    const { dtype } = parts[0];
    const attrs = [attr.int('N', parts.length), attr.type('T', typeOf(dtype)), attr.type('Tidx', 'int32')];
    return this.run(shape, () => this.op('ConcatV2', attrs, [...parts.map((p) => this.raw(p)), this.int(axis)]), dtype);
  }
  gather(table: DeviceTensor, ids: DeviceTensor): DeviceTensor {
    const attrs = [attr.type('Tparams', typeOf(table.dtype)), attr.type('Tindices', 'int32'), attr.type('Taxis', 'int32'), attr.int('batch_dims', 0)];
    return this.run([...ids.shape, ...table.shape.slice(1)], () => this.op('GatherV2', attrs, [this.raw(table), this.raw(ids), this.int(0)]), table.dtype);
  }
  scatterAdd(updates: DeviceTensor, ids: DeviceTensor, rows: number): DeviceTensor {
    const attrs = [FLOAT, attr.type('Tindices', 'int32'), attr.type('Tnumsegments', 'int32')];
    return this.run([rows, ...updates.shape.slice(1)], () => this.op('UnsortedSegmentSum', attrs, [this.raw(updates), this.raw(ids), this.int(rows)]));
  }
  writeRows(table: DeviceTensor, ids: DeviceTensor, rows: DeviceTensor): void {
    this.checkRows(table, ids, rows);
    this.scope(() => {
      const places = this.reshape(ids, [ids.size, 1]);
      const attrs = [attr.type('T', typeOf(table.dtype)), attr.type('Tindices', 'int32')];
      this.moveInto(table, this.run(table.shape, () => this.op('TensorScatterUpdate', attrs, [table, places, rows].map((t) => this.raw(t))), table.dtype));
    });
    this.dropVariable(table);
  }

  protected oneHot(ids: DeviceTensor, depth: number): DeviceTensor {
    return this.run([ids.size, depth], () =>
      this.op('OneHot', [FLOAT, attr.type('TI', 'int32'), attr.int('axis', -1)], [this.raw(ids), this.int(depth), this.float(1), this.float(0)]),
    );
  }
  protected differs(ids: DeviceTensor, value: number): DeviceTensor {
    return this.run(ids.shape, () =>
      this.cast(this.tmp('NotEqual', [attr.type('T', 'int32'), attr.bool('incompatible_shape_error', true)], [this.raw(ids), this.int(value)]), 'bool', 'float'),
    );
  }
  /** TensorFlow's stateless stream (Philox), keyed by seed and counter: uniform in steps of 2⁻²³. */
  protected dropoutMask(shape: readonly number[], p: number, key: RandomKey): DeviceTensor {
    return this.run(shape, () => {
      const seed = this.tf.createTensor([2], TF_TYPE.int32, Int32Array.of(key.seed | 0, key.counter | 0));
      this.temporaries.push(seed);
      // One flat draw, so that the mask depends on the number of elements alone.
      const uniform = this.uniforms(sizeOf(shape), seed, key.offset ?? 0);
      const kept = this.tmp('GreaterEqual', [FLOAT], [uniform, this.float(p)]);
      this.temporaries.push(this.cast(kept, 'bool', 'float'));
      const scaled = this.tmp('Mul', [FLOAT], [this.temporaries[this.temporaries.length - 1], this.float(1 / (1 - p))]);
      return this.op('Reshape', [FLOAT, attr.type('Tshape', 'int32')], [scaled, this.ints(shape)]);
    });
  }

  /** Numbers of the stream from a position on (a temporary). Philox counts in fours: the counter is moved on, and what the first four have too many is cut off. */
  private uniforms(size: number, seed: Id, offset: number): Id {
    if (offset === 0) return this.tmp('StatelessRandomUniform', [attr.type('dtype', 'float'), attr.type('T', 'int32'), attr.type('Tseed', 'int32')], [this.ints([size]), seed]);
    const [key, start] = this.tf.executeOp('StatelessRandomGetKeyCounter', [attr.type('Tseed', 'int32')], [seed], 2).map(({ id }) => this.temporary(id));
    const fours = this.temporary(this.cast(this.temporary(this.tf.createTensor([2], TF_TYPE.int32, Int32Array.of(Math.floor(offset / 4), 0))), 'int32', 'int64'));
    const moved = this.tmp('AddV2', [attr.type('T', 'int64')], [this.tmp('Bitcast', [attr.type('T', 'uint64'), attr.type('type', 'int64')], [start]), fours]);
    const counter = this.tmp('Bitcast', [attr.type('T', 'int64'), attr.type('type', 'uint64')], [moved]);
    const extra = offset % 4;
    const drawn = this.tmp('StatelessRandomUniformV2', [attr.type('dtype', 'float'), attr.type('Tshape', 'int32')], [this.ints([size + extra]), key, counter, this.int(PHILOX)]);
    return extra === 0 ? drawn : this.tmp('Slice', [FLOAT, attr.type('Index', 'int32')], [drawn, this.ints([extra]), this.ints([size])]);
  }

  private cast(id: Id, from: keyof typeof TF_TYPE, to: keyof typeof TF_TYPE): Id {
    return this.op('Cast', [attr.type('SrcT', from), attr.type('DstT', to), attr.bool('Truncate', false)], [id]);
  }

  // ---- operations that TensorFlow does better in one piece --------------------------------------------------------------------
  protected override addBias(y: DeviceTensor, bias: DeviceTensor): DeviceTensor {
    return this.run(y.shape, () => this.op('BiasAdd', [FLOAT, attr.string('data_format', 'NHWC')], [this.raw(y), this.raw(bias)]));
  }
  override tanhGrad(grad: DeviceTensor, y: DeviceTensor): DeviceTensor {
    return this.run(y.shape, () => this.op('TanhGrad', [FLOAT], [this.raw(y), this.raw(grad)]));
  }
  override softmax(x: DeviceTensor): DeviceTensor {
    return this.run(x.shape, () => this.op('Softmax', [FLOAT], [this.raw(x)]));
  }
  override rowStats(x: DeviceTensor, eps: number): RowStats {
    return this.scope(() => {
      const rows = this.rows(x);
      const mean = this.mean(rows, 1, true);
      const variance = this.mean(this.binary('SquaredDifference', rows, mean), 1, true);
      return { mean, rstd: this.unary('Rsqrt', this.affine(variance, 1, eps)) };
    });
  }

  // ---- encodings ----------------------------------------------------------------------------------------------------------------
  protected pack(x: DeviceTensor, encoding: FixedPoint): EncodedTensor {
    const { bits, scale, lo, hi } = FIXED_POINT[encoding];
    const bytes = payloadBytes(x.size, encoding);
    const words = Math.ceil(bytes / 4);
    const packed = this.run(
      [words],
      () => {
        const scaled = this.tmp('Mul', [FLOAT], [this.raw(x), this.float(scale)]);
        const codes = this.tmp('ClipByValue', [FLOAT], [this.tmp('Round', [FLOAT], [scaled]), this.float(lo), this.float(hi)]);
        const flat = this.tmp('Reshape', [FLOAT, attr.type('Tshape', 'int32')], [codes, this.ints([x.size])]);
        const byteType = lo < 0 && bits === 8 ? 'int8' : 'uint8';
        const values = bits === 8 ? flat : this.nibbles(flat, x.size);
        let raw = this.cast(values, 'float', byteType);
        this.temporaries.push(raw);
        if (words * 4 > bytes) raw = this.tmp('Pad', [attr.type('T', byteType), attr.type('Tpaddings', 'int32')], [raw, this.paddings(words * 4 - bytes)]);
        const quads = this.tmp('Reshape', [attr.type('T', byteType), attr.type('Tshape', 'int32')], [raw, this.ints([words, 4])]);
        return this.op('Bitcast', [attr.type('T', byteType), attr.type('type', 'int32')], [quads]);
      },
      'int32',
    );
    return { encoding, shape: x.shape, words: packed, payloadBytes: bytes };
  }

  /** 4-bit codes (float, flat) → byte values: first half in the high nibble, second half in the low one. */
  private nibbles(codes: Id, size: number): Id {
    const half = Math.ceil(size / 2);
    const part = (begin: number, n: number) => this.tmp('Slice', [FLOAT, attr.type('Index', 'int32')], [codes, this.ints([begin]), this.ints([n])]);
    let low = part(half, size - half);
    // A missing last element counts as code −8, nibble 0.
    if (size % 2 === 1) low = this.tmp('ConcatV2', [attr.int('N', 2), FLOAT, attr.type('Tidx', 'int32')], [low, this.constant('lastCode', () => this.tf.createTensor([1], TF_TYPE.float, Float32Array.of(-8))), this.int(0)]);
    const high = this.tmp('Mul', [FLOAT], [part(0, half), this.float(16)]);
    return this.tmp('AddV2', [FLOAT], [this.tmp('AddV2', [FLOAT], [high, low]), this.float(8 * 16 + 8)]);
  }

  private paddings(after: number): Id {
    return this.constant(`pad${after}`, () => this.tf.createTensor([1, 2], TF_TYPE.int32, Int32Array.of(0, after)));
  }

  protected unpack(x: FixedPointTensor): DeviceTensor {
    const { bits, scale, lo } = FIXED_POINT[x.encoding];
    const size = sizeOf(x.shape);
    return this.run(x.shape, () => {
      const bytes = this.bytesOf(x, lo < 0 && bits === 8 ? 'int8' : 'uint8');
      let values = this.cast(bytes, lo < 0 && bits === 8 ? 'int8' : 'uint8', 'float');
      this.temporaries.push(values);
      if (bits === 4) {
        const high = this.tmp('Floor', [FLOAT], [this.tmp('Mul', [FLOAT], [values, this.float(1 / 16)])]);
        const low = this.tmp('Sub', [FLOAT], [values, this.tmp('Mul', [FLOAT], [high, this.float(16)])]);
        const all = this.tmp('ConcatV2', [attr.int('N', 2), FLOAT, attr.type('Tidx', 'int32')], [high, low, this.int(0)]);
        const exact = size % 2 === 0 ? all : this.tmp('Slice', [FLOAT, attr.type('Index', 'int32')], [all, this.ints([0]), this.ints([size])]);
        values = this.tmp('AddV2', [FLOAT], [exact, this.float(lo)]);
      }
      const scaled = this.tmp('Mul', [FLOAT], [values, this.float(1 / scale)]);
      return this.op('Reshape', [FLOAT, attr.type('Tshape', 'int32')], [scaled, this.ints(x.shape)]);
    });
  }

  /** The payload of packed words as a flat tensor of bytes (a temporary). */
  private bytesOf(x: EncodedTensor, type: 'int8' | 'uint8'): Id {
    const quads = this.tmp('Bitcast', [attr.type('T', 'int32'), attr.type('type', type)], [this.raw(x.words)]);
    const flat = this.tmp('Reshape', [attr.type('T', type), attr.type('Tshape', 'int32')], [quads, this.ints([x.words.bytes])]);
    if (x.payloadBytes === x.words.bytes) return flat;
    return this.tmp('Slice', [attr.type('T', type), attr.type('Index', 'int32')], [flat, this.ints([0]), this.ints([x.payloadBytes])]);
  }

  /**
   * Of 16 possible inputs the derivative has 16 possible values: a table of 256 bytes × 2 nibbles instead of erf and exp over all elements.
   */
  override geluGradEncoded(grad: DeviceTensor, x: EncodedTensor): DeviceTensor {
    if (x.encoding !== 'q2.1') return super.geluGradEncoded(grad, x);
    const size = sizeOf(x.shape);
    return this.scope(() => {
      const table = this.geluTable();
      const slope = this.run([size], () => {
        const codes = this.cast(this.bytesOf(x, 'uint8'), 'uint8', 'int32');
        this.temporaries.push(codes);
        const attrs = [attr.type('Tparams', 'float'), attr.type('Tindices', 'int32'), attr.type('Taxis', 'int32'), attr.int('batch_dims', 0)];
        const [high, low] = table.map((t) => this.tmp('GatherV2', attrs, [t, codes, this.int(0)]));
        const all = this.tmp('ConcatV2', [attr.int('N', 2), FLOAT, attr.type('Tidx', 'int32')], [high, low, this.int(0)]);
        return this.op('Slice', [FLOAT, attr.type('Index', 'int32')], [all, this.ints([0]), this.ints([size])]);
      });
      return this.mul(grad, this.reshape(slope, grad.shape));
    });
  }

  /** GELU's derivative by byte, for the high and for the low nibble. */
  private geluTable(): [Id, Id] {
    const of = (nibble: (byte: number) => number, key: string) =>
      this.constant(key, () => {
        const inputs = this.upload(Float32Array.from({ length: 256 }, (_, b) => (nibble(b) - 8) / 2), [256]);
        const ones = this.full([256], 1);
        const slopes = this.geluGrad(ones, inputs);
        const id = this.op('Identity', [FLOAT], [this.raw(slopes)]);
        this.free(inputs, ones, slopes);
        return id;
      });
    return [of((b) => b >> 4, 'geluHigh'), of((b) => b & 15, 'geluLow')];
  }

  /** The threshold by selection (NthElement), then the positions above it; positions at the threshold fill up from the front. */
  topK(x: DeviceTensor, count: number): SparseTensor {
    return this.scope(() => {
      if (count === 0) return { shape: x.shape, values: this.upload(new Float32Array(0), [0]), indices: this.upload(new Int32Array(0), [0]) };
      if (count > x.size) throw new InvalidArgumentError(`topK of ${count} out of ${x.size} elements`);
      const flat = this.reshape(x, [x.size]);
      const indices = this.run(
        [count],
        () => {
          const size = this.tmp('Abs', [FLOAT], [this.raw(flat)]);
          const threshold = this.tmp('NthElement', [FLOAT, attr.bool('reverse', true)], [size, this.int(count - 1)]);
          const atLeast = this.positions('GreaterEqual', size, threshold);
          if (atLeast.count === count) return this.squeezed(atLeast.id, count);
          const above = this.positions('Greater', size, threshold);
          const equal = this.positions('Equal', size, threshold);
          const ties = this.tmp('Slice', [attr.type('T', 'int64'), attr.type('Index', 'int32')], [equal.id, this.ints([0, 0]), this.ints([count - above.count, 1])]);
          const both = this.tmp('ConcatV2', [attr.int('N', 2), attr.type('T', 'int64'), attr.type('Tidx', 'int32')], [above.id, ties, this.int(0)]);
          const unsorted = Int32Array.from(this.tf.tensorDataSync(this.temporary(this.squeezed(both, count)))).sort();
          return this.tf.createTensor([count], TF_TYPE.int32, unsorted);
        },
        'int32',
      );
      return { shape: x.shape, values: this.gather(flat, indices), indices };
    });
  }

  protected temporary(id: Id): Id {
    this.temporaries.push(id);
    return id;
  }

  /** Positions [n, 1] (int64) at which a comparison holds. */
  private positions(comparison: string, a: Id, b: Id): { id: Id; count: number } {
    const attrs = comparison === 'Equal' ? [FLOAT, attr.bool('incompatible_shape_error', true)] : [FLOAT];
    const holds = this.tmp(comparison, attrs, [a, b]);
    const [{ id, shape }] = this.tf.executeOp('Where', [attr.type('T', 'bool')], [holds], 1);
    return { id: this.temporary(id), count: shape[0] };
  }

  private squeezed(positions: Id, count: number): Id {
    const flat = this.tmp('Reshape', [attr.type('T', 'int64'), attr.type('Tshape', 'int32')], [positions, this.ints([count])]);
    return this.cast(flat, 'int64', 'int32');
  }

  // ---- optimizer ------------------------------------------------------------------------------------------------------------
  /**
   * TensorFlow's own Adam kernel: one pass over weight, moments and gradient instead of fourteen, in place. Its form is the contract's (epsilon outside the
   * bias correction); the corrected rate is computed here from the betas as float32 has them, because 1 − 0.999 in float32 is off by 5e-5.
   */
  override adamwStep(state: AdamWState, grad: DeviceTensor, o: AdamWOptions): DeviceTensor | undefined {
    const { weight, m, v } = state;
    const beta1 = Math.fround(o.beta1);
    const beta2 = Math.fround(o.beta2);
    const rate = (o.lr * Math.sqrt(1 - beta2 ** o.step)) / (1 - beta1 ** o.step);
    return this.scope(() => {
      this.checkAdamW(state, grad);
      // A second handle makes TensorFlow keep the old values and write the new ones elsewhere.
      const before = o.magnitude ? this.share(weight) : undefined;
      const taken: [DeviceTensor, Id][] = [];
      const apply = [FLOAT, attr.bool('use_locking', false), attr.bool('use_nesterov', false)];
      const update = () => this.withTemporaries(() => {
        for (const t of [weight, m, v]) taken.push([t, this.variableOf(t)]);
        const [variable, first, second] = taken.map(([, id]) => id);
        const none = this.float(0);
        const lr = this.hostFloat(rate);
        this.tf.executeOp('ResourceApplyAdam', apply, [variable, first, second, none, none, lr, this.float(o.beta1), this.float(o.beta2), this.float(o.eps), this.raw(grad)], 0);
        if (o.weightDecay > 0) {
          const stepped = this.temporary(this.readVariable(variable));
          const decay = this.tmp('Mul', [FLOAT], [stepped, this.hostFloat(o.lr * o.weightDecay)]);
          const decayed = this.tmp('Sub', [FLOAT], [stepped, decay]);
          this.tf.executeOp('AssignVariableOp', [attr.type('dtype', 'float'), attr.bool('validate_shape', false)], [variable, decayed], 0);
        }
      });
      try {
        update();
      } finally {
        // Also when the device had no memory for the decay: a tensor that gave up its handle must get one.
        for (const [t, id] of taken) this.setRaw(t, this.readVariable(id));
      }
      return before && this.updateMagnitude(o.magnitude, before, weight, grad);
    });
  }

  /** The variable that holds a tensor's values. The tensor gives up its own handle, so that the update is in place; it gets a new one afterwards. */
  private variableOf(t: DeviceTensor): Id {
    let variable = this.variables.get(t);
    if (variable === undefined) {
      const attrs = [attr.type('dtype', 'float'), attr.shape('shape', t.shape), attr.string('container', ''), attr.string('shared_name', `slimfit${process.pid}-${t.id}-${this.variablesMade++}`)];
      variable = this.op('VarHandleOp', attrs, []);
      this.tf.executeOp('AssignVariableOp', [attr.type('dtype', 'float'), attr.bool('validate_shape', false)], [variable, this.raw(t)], 0);
      this.variables.set(t, variable);
    }
    this.release(this.raw(t));
    return variable;
  }

  private readVariable(variable: Id): Id {
    return this.op('ReadVariableOp', [attr.type('dtype', 'float')], [variable]);
  }

  /** A scalar that is not worth remembering (a learning rate): a temporary. */
  protected hostFloat(value: number): Id {
    return this.temporary(this.tf.createTensor([], TF_TYPE.float, Float32Array.of(value)));
  }

  /** Runs raw operations and deletes their temporaries. */
  protected withTemporaries(fn: () => void): void {
    const outer = this.temporaries;
    this.temporaries = [];
    try {
      fn();
    } finally {
      for (const id of this.temporaries) this.tf.deleteTensor(id);
      this.temporaries = outer;
    }
  }
}
