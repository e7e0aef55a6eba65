/**
 * Parquet files into rows, by hyparquet (snappy, zstd, gzip, brotli, lz4). Text columns become strings, other byte columns (images) stay bytes, and 64-bit integers become numbers
 * where those are exact. Hugging Face's `datasets` writes its features, with the names of classes, as JSON under the key `huggingface` of the file's metadata.
 */
import { existsSync, statSync } from 'node:fs';
import type { FileMetaData, SchemaTree } from 'hyparquet';
import { FileMissingError, InvalidArgumentError, ParquetError } from '../errors';

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
    if (cause instanceof InvalidArgumentError) throw cause;
    throw new ParquetError(`${file}: ${(cause as Error).message}: the file is damaged or no Parquet file; download or write it again`, { cause });
  }
}

async function open(file: string) {
  if (!existsSync(file) || !statSync(file).isFile()) throw new FileMissingError(`no Parquet file ${file}`);
  const { asyncBufferFromFile, parquetMetadataAsync, parquetSchema } = await import('hyparquet');
  const buffer = await asyncBufferFromFile(file);
  const metadata = await reading(file, () => parquetMetadataAsync(buffer));
  const schema = await reading(file, async () => parquetSchema(metadata));
  const columns = schema.children.map((c) => c.element.name);
  const numRows = Number(metadata.num_rows);
  const inGroups = metadata.row_groups.reduce((n, g) => n + Number(g.num_rows), 0);
  // Otherwise rows would be made up from a number alone.
  if (!Number.isSafeInteger(numRows) || numRows < 0 || numRows !== inGroups || metadata.row_groups.some((g) => g.num_rows < 0)) throw new ParquetError(`${file}: says that it has ${numRows} rows, but its row groups have ${inGroups}: the file is damaged`);
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
  const rows = await reading(file, () => parquetReadObjects({ file: buffer, metadata, columns: options.columns && [...options.columns], rowStart: from, rowEnd: to, compressors, utf8: false }));
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
