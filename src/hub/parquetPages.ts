/**
 * What hyparquet 1.31 believes of a Parquet file without looking, looked at before it reads: a list in Thrift's compact protocol of more items than bytes, a number of any length, a page without a size (read again until
 * memory is gone), a run of 2^30 values in a page of ten (an array grows until the process dies, which nothing can catch). Formats: apache/parquet-format, README, Encodings.md; apache/thrift, thrift-compact-protocol.md.
 */
import type { ColumnMetaData, Compressors, SchemaElement } from 'hyparquet';

/** Structs in structs of any Parquet file there is. */
const MOST_DEPTH = 32;
/** Bytes of a page for one compressed byte: no codec's blocks pack more. */
const MOST_RATIO = 2 ** 17;

type Struct = Readonly<Record<number, unknown>>;

/** Reads Thrift structs, and of lists and texts only whether they are there. */
class Thrift {
  constructor(
    private readonly bytes: Uint8Array,
    public at: number,
  ) {}

  struct(depth = 0): Struct {
    if (depth > MOST_DEPTH) throw new Error('structs are nested too deep');
    const fields: Record<number, unknown> = {};
    for (let id = 0; ; ) {
      const head = this.byte();
      if ((head & 15) === 0) return fields;
      id = head >> 4 ? id + (head >> 4) : Number(this.zigzag());
      fields[id] = this.value(head & 15, depth, false);
    }
  }

  private byte(): number {
    if (this.at >= this.bytes.length) throw new Error('a struct has no end');
    return this.bytes[this.at++];
  }

  private varint(): bigint {
    let value = 0n;
    for (let i = 0; i < 10; i++) {
      const b = this.byte();
      value |= BigInt(b & 127) << BigInt(7 * i);
      if (b < 128) return value;
    }
    throw new Error('a number is longer than 64 bits');
  }

  private zigzag(): bigint {
    const n = this.varint();
    return (n >> 1n) ^ -(n & 1n);
  }

  private skip(bytes: bigint): void {
    if (bytes > BigInt(this.bytes.length - this.at)) throw new Error(`${bytes} bytes are claimed where ${this.bytes.length - this.at} are left`);
    this.at += Number(bytes);
  }

  private value(type: number, depth: number, inList: boolean): unknown {
    switch (type) {
      case 1:
      case 2:
        return inList ? this.byte() === 1 : type === 1;
      case 3:
        return this.byte();
      case 4:
      case 5:
      case 6:
        return Number(this.zigzag());
      case 7:
        return this.skip(8n);
      case 8:
        return this.skip(this.varint());
      case 9: {
        const head = this.byte();
        const size = head >> 4 === 15 ? this.varint() : BigInt(head >> 4);
        // Every item has at least a byte.
        if (size > BigInt(this.bytes.length - this.at)) throw new Error(`a list of ${size} items where ${this.bytes.length - this.at} bytes are left`);
        for (let i = 0n; i < size; i++) this.value(head & 15, depth + 1, true);
        return undefined;
      }
      case 12:
        return this.struct(depth + 1);
      default:
        throw new Error(`a field of type ${type}`);
    }
  }
}

/** Looks at the metadata at a file's end. @param tail the last bytes of the file @throws Error */
export function checkFooter(tail: Uint8Array, metadataBytes: number): void {
  new Thrift(tail.subarray(0, tail.length - 8), tail.length - 8 - metadataBytes).struct();
}

/** Runs of values packed in bits, or of one value. @param whole whether all `count` values must be there */
function checkRuns(bytes: Uint8Array, begin: number, end: number, width: number, count: number, whole: boolean): void {
  let seen = 0;
  for (let at = begin; seen < count; ) {
    let head = 0;
    for (let shift = 0; ; shift += 7) {
      if (at >= end || shift > 28) {
        if (whole || shift > 0) throw new Error(`runs end after ${seen} of ${count} values`);
        return;
      }
      const b = bytes[at++];
      head += (b & 127) * 2 ** shift;
      if (b < 128) break;
    }
    const run = Math.floor(head / 2) * (head % 2 ? 8 : 1);
    // Packed values are filled up to eights.
    if (run > count - seen + (head % 2 ? 512 : 0)) throw new Error(`a run of ${run} values where ${count - seen} are left`);
    seen += run;
    at += head % 2 ? (run / 8) * width : Math.ceil(width / 8);
  }
}

const bitsOf = (level: number): number => 32 - Math.clz32(level);
const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
const count = (of: Struct, id: number, what: string): number => {
  const n = of[id];
  if (!isCount(n) || n >= 2 ** 31) throw new Error(`a page whose ${what} is ${typeof n === 'number' ? n : 'missing'}`);
  return n;
};

/** Values of a page behind its levels: indices into a dictionary, booleans in runs, differences. */
function checkValues(bytes: Uint8Array, at: number, encoding: number, type: string, values: number): void {
  if (encoding === 2 || encoding === 8 || (encoding === 3 && type !== 'BOOLEAN')) {
    if (values === 0 || at >= bytes.length) return;
    if (bytes[at] > 32) throw new Error(`indices of ${bytes[at]} bits`);
    checkRuns(bytes, at + 1, bytes.length, bytes[at], values, false);
  } else if (encoding === 3) checkRuns(bytes, at + 4, bytes.length, 1, values, false);
  else if (encoding >= 5 && encoding <= 7) {
    const [blockSize, miniblocks] = varints(bytes, at, 2);
    if (!(miniblocks >= 1 && miniblocks <= bytes.length && blockSize % miniblocks === 0)) throw new Error(`blocks of ${blockSize} values in ${miniblocks} parts`);
  }
}

function varints(bytes: Uint8Array, at: number, n: number): number[] {
  return Array.from({ length: n }, () => {
    let value = 0;
    for (let shift = 0; shift <= 28 && at < bytes.length; shift += 7) {
      const b = bytes[at++];
      value += (b & 127) * 2 ** shift;
      if (b < 128) return value;
    }
    throw new Error('a block without its size');
  });
}

/** A page before and after its codec. */
export interface ReadyPage {
  readonly packed: Uint8Array;
  readonly page: Uint8Array;
}

/**
 * Looks at all pages of a column's part of a row group.
 * @param path elements of the schema from the root's child to the column
 * @param rows of the row group
 * @returns the pages that it has decompressed
 * @throws Error
 */
export function checkPages(bytes: Uint8Array, column: ColumnMetaData, path: readonly SchemaElement[], rows: number, compressors: Compressors): ReadyPage[] {
  const repeated = path.filter((e) => e.repetition_type === 'REPEATED').length;
  const defined = path.filter((e) => e.repetition_type !== 'REQUIRED').length;
  const due = Number(column.num_values);
  if (repeated === 0 && due !== rows) throw new Error(`a column of ${due} values for ${rows} rows`);
  const ready: ReadyPage[] = [];
  const decompressed = (from: number, to: number, size: number): Uint8Array => {
    const packed = bytes.subarray(from, to);
    if (size > MOST_RATIO * (packed.length + 1)) throw new Error(`a page of ${packed.length} bytes claims ${size}`);
    const codec = compressors[column.codec];
    if (column.codec === 'UNCOMPRESSED' || !codec) return packed;
    const page = codec(packed, size);
    ready.push({ packed, page });
    return page;
  };
  let seen = 0;
  for (let at = 0; at < bytes.length - 1; ) {
    const thrift = new Thrift(bytes, at);
    const head = thrift.struct();
    const [begin, size, packed] = [thrift.at, count(head, 2, 'size'), count(head, 3, 'compressed size')];
    const end = begin + packed;
    if (end > bytes.length) throw new Error(`a page ends at byte ${end} of ${bytes.length}`);
    at = end;
    const [v1, dictionary, v2] = [head[5], head[7], head[8]] as (Struct | undefined)[];
    if (head[1] === 2 && dictionary) {
      if (count(dictionary, 1, 'number of values') > decompressed(begin, end, size).length * 8) throw new Error('a dictionary of more values than bits');
    } else if (head[1] === 0 && v1) {
      const values = count(v1, 1, 'number of values');
      seen += values;
      const page = decompressed(begin, end, size);
      let from = 0;
      for (const most of [repeated, defined]) {
        if (most === 0) continue;
        const to = from + 4 + (from + 4 <= page.length ? new DataView(page.buffer, page.byteOffset).getUint32(from, true) : Infinity);
        if (to > page.length) throw new Error('levels that end behind their page');
        checkRuns(page, from + 4, to, bitsOf(most), values, true);
        from = to;
      }
      checkValues(page, from, Number(v1[2]), column.type, values);
    } else if (head[1] === 3 && v2) {
      const values = count(v2, 1, 'number of values');
      const nulls = count(v2, 2, 'number of missing values');
      count(v2, 3, 'number of rows');
      seen += values;
      const [definitionBytes, repetitionBytes] = [count(v2, 5, 'levels'), count(v2, 6, 'levels')];
      const levels = definitionBytes + repetitionBytes;
      if (nulls > values || levels > packed || levels > size) throw new Error(`a page of ${values} values, ${nulls} missing, ${levels} bytes of levels in ${packed}`);
      if (repeated > 0) checkRuns(bytes, begin, begin + repetitionBytes, bitsOf(repeated), values, true);
      if (defined > 0) checkRuns(bytes, begin + repetitionBytes, begin + levels, bitsOf(defined), values, true);
      const page = v2[7] === false ? bytes.subarray(begin + levels, end) : decompressed(begin + levels, end, size - levels);
      checkValues(page, 0, Number(v2[4]), column.type, values - nulls);
    } else if (head[1] !== 1) throw new Error('a page of no known kind');
    if (seen > due) throw new Error(`pages of ${seen} values for ${due}`);
  }
  if (seen !== due) throw new Error(`pages of ${seen} values for ${due}`);
  return ready;
}
