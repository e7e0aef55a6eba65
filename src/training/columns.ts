/** Typed arrays that grow, and how they are stored: what a history is made of. */
import { InvalidArgumentError } from '../errors';

type Numbers = Float64Array | Int32Array | Uint8Array;

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
export class Column<A extends Numbers> {
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
  store(): StoredColumn {
    const { buffer, byteOffset, byteLength } = this.values;
    return { type: this.type, base64: Buffer.from(buffer, byteOffset, byteLength).toString('base64') };
  }
  /** Takes the values that were stored. @throws InvalidArgumentError when they are of another type or cut off */
  restore({ type, base64 }: StoredColumn): void {
    const raw = Buffer.from(String(base64), 'base64');
    if (type !== this.type || raw.length % this.data.BYTES_PER_ELEMENT !== 0) throw new InvalidArgumentError(`this history is damaged: a column of ${String(type)} with ${raw.length} bytes where ${this.type} belongs`);
    const copy = new Uint8Array(Math.max(raw.length, this.data.byteLength));
    copy.set(raw);
    this.data = MAKE[this.type](copy.buffer) as A;
    this.length = raw.length / this.data.BYTES_PER_ELEMENT;
  }
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
