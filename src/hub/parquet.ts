/**
 * Parquet files into rows, by hyparquet (snappy, zstd, gzip, brotli, lz4). Text columns become strings, other byte columns (images) stay bytes, and 64-bit integers become numbers
 * where those are exact. Hugging Face's `datasets` writes its features, with the names of classes, as JSON under the key `huggingface` of the file's metadata.
 */
import { existsSync, statSync } from 'node:fs';
import { open as openFile } from 'node:fs/promises';
import type { AsyncBuffer, Compressors, FileMetaData, SchemaElement, SchemaTree } from 'hyparquet';
import { FileMissingError, InvalidArgumentError, ParquetError, SlimFitError } from '../errors';
import { cut } from '../shown';
import { checkFooter, checkPages, type ReadyPage } from './parquetPages';

/** A value of a Parquet column: lists become arrays, structs become objects. */
export type ParquetValue = string | number | bigint | boolean | null | Uint8Array | Date | readonly ParquetValue[] | { readonly [field: string]: ParquetValue };

/** A row by column name. */
export type ParquetRow = Readonly<Record<string, ParquetValue>>;

/** Which part of a file or split is read. */
export interface ParquetReadOptions {
  /** Columns to read. Default: all. */
  readonly columns?: readonly string[];
  /** First row, from 0. Default 0. */
  readonly from?: number;
  /** Row after the last. Default: the end. */
  readonly to?: number;
}

/** What a Parquet file says about itself. */
export interface ParquetInfo {
  readonly numRows: number;
  /** Names of the columns, in order. */
  readonly columns: readonly string[];
  /** Class names by column, where `datasets` has written a ClassLabel. */
  readonly classNames: Readonly<Record<string, readonly string[]>>;
}

/** Runs a reader of hyparquet; all that it throws means that the file is no good. */
async function reading<T>(file: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (cause instanceof SlimFitError) throw cause;
    throw new ParquetError(`${file}: ${cut((cause as Error).message)}: the file is damaged or no Parquet file; download or write it again`, { cause });
  }
}

/** Rows for each byte of a file at most: a column of one value packs well, but no more than that. */
const MOST_ROWS_A_BYTE = 2 ** 14;

const open = (file: string) => reading(file, () => opened(file));

async function opened(file: string) {
  if (!existsSync(file) || !statSync(file).isFile()) throw new FileMissingError(`no Parquet file ${file}`);
  const { parquetMetadataAsync, parquetSchema } = await import('hyparquet');
  const buffer = fileBuffer(file, statSync(file).size);
  const last = Buffer.from(await buffer.slice(Math.max(0, buffer.byteLength - 8)));
  const metadataBytes = last.length === 8 ? last.readUInt32LE(0) : Infinity;
  if (last.toString('latin1', 4) !== 'PAR1' || metadataBytes > buffer.byteLength - 8) throw new Error('it does not end as a Parquet file does');
  checkFooter(new Uint8Array(await buffer.slice(buffer.byteLength - 8 - metadataBytes)), metadataBytes);
  const metadata = await parquetMetadataAsync(buffer);
  const schema = parquetSchema(metadata);
  const columns = schema.children.map((c) => c.element.name);
  const twice = columns.find((c, i) => columns.indexOf(c) !== i || c === '__proto__');
  if (twice !== undefined) throw new ParquetError(`${file}: two columns are called '${cut(twice)}', or none can be: the file cannot be read as rows by column name`);
  const numRows = Number(metadata.num_rows);
  const inGroups = metadata.row_groups.reduce((n, g) => n + Number(g.num_rows), 0);
  // Otherwise rows would be made up from a number alone.
  if (!Number.isSafeInteger(numRows) || numRows < 0 || numRows !== inGroups || metadata.row_groups.some((g) => g.num_rows < 0)) throw new ParquetError(`${file}: says that it has ${numRows} rows, but its row groups have ${inGroups}: the file is damaged`);
  if (numRows > MOST_ROWS_A_BYTE * buffer.byteLength) throw new ParquetError(`${file}: says that it has ${numRows} rows in ${buffer.byteLength} bytes: the file is damaged`);
  // What is wrong here hyparquet would tell by a rejection that no one can catch, which ends the process.
  const leaves = leavesOf(schema).sort().join();
  for (const g of metadata.row_groups) {
    if (g.columns.map((c) => c.meta_data?.path_in_schema.join('.')).sort().join() !== leaves) throw new ParquetError(`${file}: the columns of a row group are not those of its schema: the file is damaged`);
    for (const { meta_data: c } of g.num_rows === 0n ? [] : g.columns) {
      const begin = Number(c!.dictionary_page_offset || c!.data_page_offset);
      const end = begin + Number(c!.total_compressed_size);
      if (!(begin >= 4 && begin <= Number(c!.data_page_offset) && Number(c!.data_page_offset) <= end && end <= buffer.byteLength - 8)) throw new ParquetError(`${file}: column ${c!.path_in_schema.join('.')} lies at bytes ${begin} to ${end} of ${buffer.byteLength}: the file is damaged`);
    }
  }
  return { buffer, metadata, columns, numRows };
}

/** A file as hyparquet reads it. Every part has an ArrayBuffer of its own. */
function fileBuffer(file: string, byteLength: number): AsyncBuffer {
  return {
    byteLength,
    async slice(start, end = byteLength) {
      const into = new Uint8Array(Math.max(0, Math.min(end, byteLength) - start));
      const handle = await openFile(file, 'r');
      try {
        for (let got = 0; got < into.length; ) {
          const { bytesRead } = await handle.read(into, got, into.length - got, start + got);
          if (bytesRead === 0) throw new Error('the file was cut while it was read');
          got += bytesRead;
        }
      } finally {
        await handle.close();
      }
      return into.buffer;
    },
  };
}

/** The same file, whose columns are looked at before hyparquet gets them, and the codecs, which decompress no page twice. */
function guarded(buffer: AsyncBuffer, { row_groups: groups, schema }: FileMetaData, codecs: Compressors): { readonly file: AsyncBuffer; readonly compressors: Compressors } {
  const parts = groups.flatMap((g) =>
    g.columns.flatMap(({ meta_data: column }) => {
      const begin = Number(column!.dictionary_page_offset || column!.data_page_offset);
      return g.num_rows === 0n ? [] : [{ begin, end: begin + Number(column!.total_compressed_size), column: column!, rows: Number(g.num_rows) }];
    }),
  );
  /** Decompressed pages, until hyparquet asks for them, by size. It hands on copies, so that they are known by their bytes. */
  const ready = new Map<string, ReadyPage[]>();
  const keyOf = (packed: Uint8Array, size: number): string => `${packed.length} ${size}`;
  const file: AsyncBuffer = {
    byteLength: buffer.byteLength,
    async slice(start, end = buffer.byteLength) {
      const bytes = await buffer.slice(start, end);
      for (const part of parts) {
        if (part.end <= start || part.begin >= end) continue;
        if (part.begin < start || part.end > end) throw new Error(`bytes ${start} to ${end} are no whole column`);
        for (const page of checkPages(new Uint8Array(bytes, part.begin - start, part.end - part.begin), part.column, pathOf(schema, part.column.path_in_schema), part.rows, codecs)) {
          const key = keyOf(page.packed, page.page.length);
          const same = ready.get(key);
          if (same) same.push(page);
          else ready.set(key, [page]);
        }
      }
      return bytes;
    },
  };
  const taken = (bytes: Uint8Array, size: number): Uint8Array | undefined => {
    const same = ready.get(keyOf(bytes, size));
    const i = same?.findIndex(({ packed }) => Buffer.compare(packed, bytes) === 0) ?? -1;
    return i < 0 ? undefined : same!.splice(i, 1)[0].page;
  };
  return { file, compressors: Object.fromEntries(Object.entries(codecs).map(([name, codec]) => [name, (bytes: Uint8Array, size: number) => taken(bytes, size) ?? codec(bytes, size)])) };
}

/** Elements of the schema on the way to a column, which stands as a tree in pre-order. */
function pathOf(schema: readonly SchemaElement[], names: readonly string[]): SchemaElement[] {
  const behind = (i: number): number => Array.from({ length: schema[i].num_children ?? 0 }).reduce<number>((next) => behind(next), i + 1);
  const path: SchemaElement[] = [];
  let parent = 0;
  for (const name of names) {
    let i = parent + 1;
    for (let k = 0; schema[i].name !== name; k++) {
      if (k >= (schema[parent].num_children ?? 0)) throw new Error(`the schema has no column ${names.join('.')}`);
      i = behind(i);
    }
    path.push(schema[i]);
    parent = i;
  }
  return path;
}

/** Paths of the columns that hold values. */
function leavesOf(tree: SchemaTree): string[] {
  return tree.children.length === 0 ? [tree.path.join('.')] : tree.children.flatMap(leavesOf);
}

/** Number of rows, columns and class names, without reading a row. @throws FileMissingError, ParquetError */
export async function readParquetInfo(file: string): Promise<ParquetInfo> {
  const { metadata, columns, numRows } = await open(file);
  return { numRows, columns, classNames: classNamesOf(metadata) };
}

/**
 * Rows of a Parquet file on this machine.
 * @throws FileMissingError, ParquetError (damaged), InvalidArgumentError (no such column or rows)
 */
export async function readParquetFile(file: string, options: ParquetReadOptions = {}): Promise<ParquetRow[]> {
  const { buffer, metadata, columns, numRows } = await open(file);
  const { from = 0, to = numRows } = options;
  for (const name of options.columns ?? []) if (!columns.includes(name)) throw new InvalidArgumentError(`${file} has no column '${name}': choose of ${columns.join(', ')}`);
  if (!(Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from <= to && to <= numRows)) throw new InvalidArgumentError(`rows ${from} to ${to} were asked for, but ${file} has ${numRows}`);
  if (from === to) return [];
  const [{ parquetReadObjects }, { compressors }] = await Promise.all([import('hyparquet'), import('hyparquet-compressors')]);
  const rows = await reading(file, () => parquetReadObjects({ ...guarded(buffer, metadata, compressors), metadata, columns: options.columns && [...options.columns], rowStart: from, rowEnd: to, utf8: false }));
  if (rows.length !== to - from) throw new ParquetError(`${file}: ${to - from} rows were due, ${rows.length} came: the file is damaged`);
  for (const row of rows) for (const name of Object.keys(row)) row[name] = plain(row[name]);
  return rows;
}

/** 64-bit integers as numbers where no digit is lost; nothing undefined. */
function plain(value: unknown): ParquetValue {
  if (typeof value === 'bigint') return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
  if (value === undefined || value === null) return null;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === 'object' && !ArrayBuffer.isView(value) && !(value instanceof Date)) return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)]));
  return value as ParquetValue;
}

/** Names of the ClassLabel columns; what cannot be read is as if it were not there: the rows are good without. */
function classNamesOf(metadata: FileMetaData): Record<string, readonly string[]> {
  const text = metadata.key_value_metadata?.find((m) => m.key === 'huggingface')?.value;
  if (!text) return {};
  try {
    const { info } = JSON.parse(text) as { info?: { features?: Record<string, { _type?: unknown; names?: unknown }> } };
    return Object.fromEntries(
      Object.entries(info?.features ?? {}).flatMap(([column, f]) => (f?._type === 'ClassLabel' && Array.isArray(f.names) && f.names.every((n) => typeof n === 'string') ? [[column, f.names as string[]]] : [])),
    );
  } catch {
    return {};
  }
}
