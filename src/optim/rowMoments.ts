/**
 * AdamW for a table of which a step touches a few rows (`Parameter.touched`): only these move, and only rows that were ever touched have moments, which stand one after the other in the order of their first
 * touch. As PyTorch's SparseAdam and TensorFlow's LazyAdam do it, the moments of a row decay when it is touched, not in every step, and with them momentum and weight decay wait; the step count of the bias
 * correction is the table's. A row that every step touches is updated as by AdamW itself.
 *
 * An update runs over blocks of rows, so that its temporaries are bounded whatever the number of rows.
 */
import type { AdamWOptions, DeviceTensor, Engine } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import type { Parameter } from '../tape/parameter';
import { blockDivisor, decodeFirst, decodeSecond, encodeFirst, encodeSecond, LEAST_CODED } from './eightBit';

/** Elements of a block of rows that are updated at once. */
const ELEMENTS_AT_ONCE = 2 ** 20;

/** The rows of a table that have moments, by their place there. */
export class RowSlots {
  private readonly slots: Map<number, number>;

  constructor(rows: Int32Array = new Int32Array(0)) {
    this.slots = new Map(Array.from(rows, (row, slot) => [row, slot]));
  }

  get size(): number {
    return this.slots.size;
  }

  /** The rows, in the order of their places. */
  get rows(): Int32Array {
    return Int32Array.from(this.slots.keys());
  }

  /** Gives the rows among these that have no place the next ones. */
  add(rows: Int32Array): void {
    for (const row of rows) if (!this.slots.has(row)) this.slots.set(row, this.slots.size);
  }

  /** How many of these rows have no place yet. */
  missing(rows: Int32Array): number {
    return rows.reduce((n, row) => (this.slots.has(row) ? n : n + 1), 0);
  }

  placesOf(rows: Int32Array): Int32Array {
    return rows.map((row) => this.slots.get(row)!);
  }
}

/** What the moments of a table consist of: 4-byte elements of a row in each of their tensors, and which are codes. */
export interface RowLayout {
  /** Elements of a row of the table. */
  readonly width: number;
  /** Length of the blocks of 8-bit moments; undefined where they are float32. */
  readonly block: number | undefined;
  /** m and v; in 8 bits the codes and scales of m, then of v. */
  readonly columns: readonly { readonly width: number; readonly dtype: 'float32' | 'int32' }[];
}

/** How the moments of a table lie. Rows that do not fill whole words of codes keep float32 moments, as small tables do. */
export function rowLayout({ shape, size }: Pick<Parameter, 'shape' | 'size'>, moments: 'float32' | '8-bit'): RowLayout {
  const width = size / shape[0];
  // A block lies within a row.
  const block = moments === '8-bit' && size >= LEAST_CODED && width % 4 === 0 ? blockDivisor(width) : undefined;
  const values = { width, dtype: 'float32' } as const;
  if (block === undefined) return { width, block, columns: [values, values] };
  const coded = [{ width: width / 4, dtype: 'int32' }, { width: width / block, dtype: 'float32' }] as const;
  return { width, block, columns: [...coded, ...coded] };
}

/** Makes room for so many rows in each tensor of the moments; new rows are zeros. What fails leaves some grown and some not, which is as good. @param tensors is changed */
export function growMoments(engine: Engine, tensors: DeviceTensor[], rows: number, { columns }: RowLayout): void {
  columns.forEach(({ width, dtype }, i) => {
    const old = tensors.at(i);
    const more = rows - (old?.shape[0] ?? 0);
    if (more <= 0) return;
    tensors[i] = engine.scope(() => {
      const zeros = dtype === 'int32' ? engine.upload(new Int32Array(more * width), [more, width]) : engine.full([more, width], 0);
      return engine.share(old ? engine.concat([old, zeros], 0) : zeros, 'optimizer');
    });
    if (old) engine.free(old);
  });
}

/** Σ x·y of two matrices of one shape, block by block: a workspace scalar. */
function sumOfProducts(engine: Engine, x: DeviceTensor, y: DeviceTensor): DeviceTensor {
  const [rows, width] = x.shape;
  const atOnce = Math.max(1, Math.floor(ELEMENTS_AT_ONCE / width));
  let sum = engine.full([], 0);
  for (let at = 0; at < rows; at += atOnce) {
    const n = Math.min(atOnce, rows - at);
    const next = engine.scope(() => {
      const part = (t: DeviceTensor) => engine.reshape(engine.slice(t, [at, 0], [n, width]), [n * width]);
      const first = part(x);
      return engine.add(sum, engine.sum(engine.mul(first, x === y ? first : part(y)), 0));
    });
    engine.free(sum);
    sum = next;
  }
  return sum;
}

/** sqrt(s/max(w, s)), 0 where both are 0; max(a, b) = (a + b + |a − b|)/2. */
function relativeNorm(engine: Engine, s: DeviceTensor, w: DeviceTensor): DeviceTensor {
  const larger = engine.affine(engine.add(engine.add(s, w), engine.abs(engine.sub(s, w))), 0.5, 2 ** -126);
  return engine.sqrt(engine.div(s, larger));
}

/** Both moments in codes, in the order of `RowLayout.columns`. */
function encoded(engine: Engine, m: DeviceTensor, v: DeviceTensor, block: number, step: number): DeviceTensor[] {
  const second = encodeSecond(engine, v, block, step);
  const first = encodeFirst(engine, m, block, step);
  return [first.words, first.scales, second.words, second.scales];
}

/** What an update of rows works on. */
export interface RowUpdate {
  /** A table [V, H], marked with the rows that the step touches. */
  readonly parameter: Parameter;
  /** float32 [n, H], of the touched rows. */
  readonly grad: DeviceTensor;
  readonly moments: readonly DeviceTensor[];
  /** Place of each touched row in the moments. */
  readonly places: Int32Array;
  readonly layout: RowLayout;
  readonly options: AdamWOptions;
  /** Called before the first value changes. */
  readonly begin: () => void;
}

/**
 * One AdamW step of the touched rows.
 * @returns the update magnitude of the whole table, of which the other rows did not move, if one is wanted: a workspace scalar
 */
export function updateRows(engine: Engine, { parameter, grad, moments, places, layout: { width, block }, options, begin }: RowUpdate): DeviceTensor | undefined {
  const { data: table, shape, touched } = parameter;
  if (!touched || grad.size !== touched.rows.length * width) throw new InvalidArgumentError(`the gradient of ${parameter.name} [${grad.shape}] is not of the ${touched?.rows.length ?? 0} rows that this step touches`);
  const { magnitude, step } = options;
  const count = touched.rows.length;
  const atOnce = Math.max(1, Math.floor(ELEMENTS_AT_ONCE / width));
  return engine.scope(() => {
    const whole = magnitude === 'relative-l2' ? sumOfProducts(engine, table, table) : undefined;
    let moved = magnitude && engine.full([], 0);
    for (let at = 0; at < count; at += atOnce) {
      const n = Math.min(atOnce, count - at);
      const next = engine.scope(() => {
        const ids = engine.slice(touched.tensor, [at], [n]);
        const slots = engine.upload(places.slice(at, at + n), [n]);
        const found = moments.map((t) => engine.gather(t, slots));
        const coded = (i: number) => ({ words: engine.reshape(found[i], [found[i].size]), scales: engine.reshape(found[i + 1], [found[i + 1].size, 1]) });
        const m = block === undefined ? found[0] : decodeFirst(engine, coded(0), [n, width]);
        const v = block === undefined ? found[1] : decodeSecond(engine, coded(2), [n, width]);
        const weight = engine.gather(table, ids);
        const g = engine.slice(grad, [at, 0], [n, width]);
        const relative = engine.adamwStep({ weight, m, v }, g, { ...options, magnitude: magnitude === 'mean-relative' ? magnitude : undefined });
        const change =
          magnitude === 'relative-l2' || magnitude === 'loss-change'
            ? engine.scope(() => {
                const step = engine.sub(engine.gather(table, ids), weight);
                return sumOfProducts(engine, step, magnitude === 'relative-l2' ? step : g);
              })
            : relative && engine.affine(relative, n / shape[0]);
        const sum = change && moved && engine.add(moved, change);
        const fresh = block === undefined ? [m, v] : encoded(engine, m, v, block, step);
        if (at === 0) begin();
        engine.writeRows(table, ids, weight);
        fresh.forEach((t, i) => engine.writeRows(moments[i], slots, engine.reshape(t, [n, t.size / n])));
        return sum;
      });
      if (moved) engine.free(moved);
      moved = next;
    }
    return moved && (whole ? relativeNorm(engine, moved, whole) : magnitude === 'loss-change' ? engine.abs(moved) : moved);
  });
}
