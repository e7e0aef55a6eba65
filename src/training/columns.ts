/** Typed arrays that grow, and how they are stored: what a history is made of. */
import { InvalidArgumentError } from '../errors';
import { shown } from '../shown';

/** What a column holds. */
export type ColumnValues = Float64Array | Int32Array | Uint8Array;

/** Values of a column as they stand in a file: little-endian, in base64. */
export interface StoredColumn {
  readonly type: 'float64' | 'int32' | 'uint8';
  readonly base64: string;
}

const MAKE = {
  float64: (n: number | ArrayBuffer) => new Float64Array(n as number),
  int32: (n: number | ArrayBuffer) => new Int32Array(n as number),
  uint8: (n: number | ArrayBuffer) => new Uint8Array(n as number),
};

/** A typed array that grows. */
export class Column<A extends ColumnValues> {
  length = 0;
  private data: A;
  constructor(private readonly type: StoredColumn['type']) {
    this.data = MAKE[type](64) as A;
  }
  push(value: number): void {
    if (this.length === this.data.length) {
      const bigger = MAKE[this.type](2 * this.length) as A;
      bigger.set(this.data);
      this.data = bigger;
    }
    this.data[this.length++] = value;
  }
  get(i: number): number {
    return this.data[i];
  }
  /** Forgets all values from the n-th on. */
  truncate(n: number): void {
    this.length = Math.min(this.length, n);
  }
  /** The values so far, a view. */
  get values(): A {
    return this.data.subarray(0, this.length) as A;
  }
  /** Takes values in place of its own. @throws InvalidArgumentError when they are of another type */
  fill(values: ColumnValues): void {
    if (values.constructor !== this.data.constructor) throw new InvalidArgumentError(`this history is damaged: a column of ${values.constructor.name} where ${this.type} belongs`);
    this.data = MAKE[this.type](Math.max(64, values.length)) as A;
    // Bytes, so that a NaN keeps its bits.
    new Uint8Array(this.data.buffer).set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    this.length = values.length;
  }
}

/** A column as text. */
export function storeColumn(values: ColumnValues): StoredColumn {
  const type = (Object.keys(MAKE) as StoredColumn['type'][]).find((t) => MAKE[t](0).constructor === values.constructor)!;
  return { type, base64: Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('base64') };
}

/** The values of a stored column. @throws InvalidArgumentError when they are of no known type or cut off */
export function storedValues(stored: StoredColumn): ColumnValues {
  const { type, base64 } = (stored ?? {}) as Partial<StoredColumn>;
  if (typeof type !== 'string' || !Object.hasOwn(MAKE, type) || typeof base64 !== 'string') throw new InvalidArgumentError(`this history is damaged: a column is ${shown(stored)}`);
  const raw = Uint8Array.from(Buffer.from(base64, 'base64'));
  if (raw.length % MAKE[type](0).BYTES_PER_ELEMENT !== 0) throw new InvalidArgumentError(`this history is damaged: a column of ${type} with ${raw.length} bytes`);
  return MAKE[type](raw.buffer);
}

export const floats = (): Column<Float64Array> => new Column('float64');
export const ints = (): Column<Int32Array> => new Column('int32');
export const bytes = (): Column<Uint8Array> => new Column('uint8');

/** Strings stored once, as numbers. */
export class Dictionary {
  readonly words: string[] = [];
  private readonly index = new Map<string, number>();
  code(word: string): number {
    let i = this.index.get(word);
    if (i === undefined) {
      i = this.words.push(word) - 1;
      this.index.set(word, i);
    }
    return i;
  }
}
