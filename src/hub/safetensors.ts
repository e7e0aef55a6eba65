/**
 * Reading and writing safetensors files (huggingface/safetensors, format version 0.3): 8 bytes of header length, a JSON header of
 * {name: {dtype, shape, data_offsets}}, then the data without holes. A malformed file is refused before anything of its claimed size is allocated.
 */
import { closeSync, fstatSync, fsyncSync, openSync, readSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { CheckpointError, FileMissingError, InvalidArgumentError } from '../errors';
import { cut, shown } from '../shown';
import { repeatedKey } from './repeatedKey';

/** A tensor of a file, converted to 32-bit numbers: F16, BF16 and F64 to float32, I64 to int32 where it fits. */
export interface StoredTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array;
}

/** Bytes of one element. */
const ITEM_BYTES: Readonly<Record<string, number>> = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4 };
/** The reference implementation's own limit. */
const MAX_HEADER_BYTES = 100_000_000;

interface Entry {
  readonly dtype: string;
  readonly shape: number[];
  readonly begin: number;
  readonly end: number;
}

/** Arrays that are written and read back as they are, without conversion. */
export type RawArray = Float64Array | Float32Array | Int32Array | Uint32Array | Uint16Array | Int8Array | Uint8Array;
const RAW = { F64: Float64Array, F32: Float32Array, I32: Int32Array, U32: Uint32Array, U16: Uint16Array, I8: Int8Array, U8: Uint8Array } as const;
/** Types of `RawArray` as the format calls them. */
export type RawType = keyof typeof RAW;
const RAW_BYTES: Readonly<Record<string, number>> = Object.fromEntries(Object.entries(RAW).map(([dtype, { BYTES_PER_ELEMENT }]) => [dtype, BYTES_PER_ELEMENT]));

/** @throws InvalidArgumentError for an array that is none of `RawArray` */
export function rawTypeOf(name: string, data: RawArray): RawType {
  const found = (Object.keys(RAW) as RawType[]).find((t) => data instanceof RAW[t]);
  if (!found) throw new InvalidArgumentError(`tensor ${name} is a ${(data as object).constructor.name}; a safetensors file takes ${Object.values(RAW).map((c) => c.name).join(', ')}`);
  return found;
}

function openFile(file: string): number {
  try {
    // To open a pipe waits for a writer, and a folder opens, but cannot be read.
    if (statSync(file).isFile()) return openSync(file, 'r');
  } catch (cause) {
    throw new FileMissingError(`cannot open ${file}: ${(cause as Error).message}`, { cause });
  }
  throw new FileMissingError(`cannot open ${file}: it is no file`);
}

/** Reads all tensors. @throws CheckpointError naming file and reason, FileMissingError */
export async function readSafetensors(file: string): Promise<Map<string, StoredTensor>> {
  const fd = openFile(file);
  try {
    const { entries, dataBegin } = readHeader(file, fd, ITEM_BYTES);
    const out = new Map<string, StoredTensor>();
    for (const [name, e] of entries) {
      const bytes = new Uint8Array(e.end - e.begin);
      readFully(file, fd, bytes, dataBegin + e.begin);
      out.set(name, { dtype: e.dtype, shape: e.shape, data: convert(file, name, e.dtype, bytes) });
    }
    return out;
  } finally {
    closeSync(fd);
  }
}

/** A file of which one tensor at a time is read: the host holds no more than that. */
export class SafetensorsReader {
  private constructor(
    readonly file: string,
    private readonly fd: number,
    private readonly entries: ReadonlyMap<string, Entry>,
    private readonly dataBegin: number,
  ) {}

  /** Opens a file whose tensors are all of a `RawType` and checks its header. @throws CheckpointError, FileMissingError */
  static open(file: string): SafetensorsReader {
    const fd = openFile(file);
    try {
      const { entries, dataBegin } = readHeader(file, fd, RAW_BYTES);
      return new SafetensorsReader(file, fd, entries, dataBegin);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  get names(): readonly string[] {
    return [...this.entries.keys()];
  }

  /** Shape of a tensor; undefined when there is none of that name. */
  shapeOf(name: string): readonly number[] | undefined {
    return this.entries.get(name)?.shape;
  }

  /** Type of a tensor's elements; undefined when there is none of that name. */
  dtypeOf(name: string): RawType | undefined {
    return this.entries.get(name)?.dtype as RawType | undefined;
  }

  /** The values, to the bit. @throws CheckpointError when the file has no such tensor, or was cut meanwhile */
  read(name: string): RawArray {
    const e = this.entries.get(name);
    if (!e) throw new CheckpointError(`${this.file}: holds no tensor ${name}`);
    const bytes = new Uint8Array(e.end - e.begin);
    readFully(this.file, this.fd, bytes, this.dataBegin + e.begin);
    return new RAW[e.dtype as RawType](bytes.buffer);
  }

  close(): void {
    closeSync(this.fd);
  }
}

function readHeader(file: string, fd: number, itemBytes: Readonly<Record<string, number>>): { entries: Map<string, Entry>; dataBegin: number } {
  const bad = (reason: string): never => {
    throw new CheckpointError(`${file}: ${reason}: the file is damaged or no safetensors file; download or save it again`);
  };
  const fileBytes = fstatSync(fd).size;
  if (fileBytes < 8) bad(`only ${fileBytes} bytes long`);
  const prefix = new Uint8Array(8);
  readFully(file, fd, prefix, 0);
  const claimed = new DataView(prefix.buffer).getBigUint64(0, true);
  if (claimed > BigInt(MAX_HEADER_BYTES)) bad(`claims a header of ${claimed} bytes`);
  const headerBytes = Number(claimed);
  if (8 + headerBytes > fileBytes) bad(`claims a header of ${headerBytes} bytes, but the file has ${fileBytes}`);
  const raw = new Uint8Array(headerBytes);
  readFully(file, fd, raw, 8);
  let header: unknown;
  let text = '';
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(raw);
    header = JSON.parse(text);
  } catch {
    bad('its header is no UTF-8 JSON');
  }
  if (header === null || typeof header !== 'object' || Array.isArray(header) || !text.startsWith('{')) bad('its header is no JSON object');
  // Of two entries of a name JSON.parse takes the last, other programs the first.
  const twice = repeatedKey(text);
  if (twice !== undefined) bad(`its header has two entries ${shown(twice)}`);
  const { __metadata__: metadata = null } = header as Record<string, unknown>;
  if (metadata !== null && (typeof metadata !== 'object' || Array.isArray(metadata) || !Object.values(metadata).every((v) => typeof v === 'string'))) bad(`its __metadata__ is ${shown(metadata)}, not texts by name`);
  const dataBytes = fileBytes - 8 - headerBytes;
  const entries = new Map<string, Entry>();
  const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
  for (const [name, value] of Object.entries(header as Record<string, unknown>)) {
    if (name === '__metadata__') continue;
    const { dtype, shape, data_offsets } = (value ?? {}) as Record<string, unknown>;
    const tensor = `tensor ${cut(name)}`;
    if (typeof dtype !== 'string' || !Object.hasOwn(itemBytes, dtype)) bad(`${tensor} has dtype ${typeof dtype === 'string' ? cut(dtype) : shown(dtype)}, not one of ${Object.keys(itemBytes).join(', ')}`);
    if (!Array.isArray(shape) || !shape.every(isCount)) bad(`${tensor} has shape ${shown(shape)}`);
    if (!Array.isArray(data_offsets) || data_offsets.length !== 2 || !data_offsets.every(isCount)) bad(`${tensor} has offsets ${shown(data_offsets)}`);
    const [begin, end] = data_offsets as [number, number];
    const want = (shape as number[]).reduce((a, b) => a * b, 1) * itemBytes[dtype as string];
    if (end - begin !== want) bad(`${tensor} of shape ${shown(shape)} needs ${want} bytes, but its offsets span ${end - begin}`);
    if (end > dataBytes) bad(`${tensor} ends at byte ${end} of the data, but there are ${dataBytes}`);
    entries.set(name, { dtype: dtype as string, shape: shape as number[], begin, end });
  }
  let at = 0;
  for (const [name, e] of [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)) {
    if (e.begin !== at) bad(`tensor ${cut(name)} begins at byte ${e.begin}, but the one before ends at ${at}`);
    at = e.end;
  }
  if (at !== dataBytes) bad(`${dataBytes} bytes of data, but its tensors cover ${at}`);
  return { entries, dataBegin: 8 + headerBytes };
}

function readFully(file: string, fd: number, into: Uint8Array, position: number): void {
  let got = 0;
  while (got < into.length) {
    const n = readSync(fd, into, got, into.length - got, position + got);
    if (n === 0) throw new CheckpointError(`${file}: ends at byte ${position + got}, in the middle of a tensor: it was cut while it was read`);
    got += n;
  }
}

function convert(file: string, name: string, dtype: string, bytes: Uint8Array): Float32Array | Int32Array {
  const { buffer } = bytes;
  switch (dtype) {
    case 'F32':
      return new Float32Array(buffer);
    case 'I32':
      return new Int32Array(buffer);
    case 'F64':
      return Float32Array.from(new Float64Array(buffer));
    case 'I64':
      return Int32Array.from(new BigInt64Array(buffer), (v) => {
        const n = Number(v);
        if (n !== (n | 0)) throw new CheckpointError(`${file}: tensor ${cut(name)} holds ${v}, which does not fit 32 bits`);
        return n;
      });
    case 'BF16': {
      const out = new Uint32Array(bytes.length / 2);
      new Uint16Array(buffer).forEach((v, i) => (out[i] = v << 16));
      return new Float32Array(out.buffer);
    }
    default:
      return Float32Array.from(new Uint16Array(buffer), halfToFloat);
  }
}

/** IEEE half precision. */
function halfToFloat(h: number): number {
  const sign = h & 0x8000 ? -1 : 1;
  const exponent = (h >> 10) & 31;
  const fraction = h & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Header length and header, filled up with spaces so that the data begin at a multiple of 8 bytes, as the reference writer does. */
function headerBytes(header: Readonly<Record<string, unknown>>): Buffer {
  const json = Buffer.from(JSON.stringify(header));
  const padded = 8 * Math.ceil(json.length / 8);
  const out = Buffer.alloc(8 + padded, ' ');
  out.writeBigUInt64LE(BigInt(padded));
  json.copy(out, 8);
  return out;
}

/** The bytes of an array, a view. */
export function bytesOf(data: RawArray): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** A tensor before its values are there. */
export interface TensorPlan {
  readonly name: string;
  readonly dtype: RawType;
  readonly shape: readonly number[];
}

/** Bytes of a tensor's values. */
export function tensorBytes({ shape, dtype }: TensorPlan): number {
  return shape.reduce((a, b) => a * b, 1) * RAW_BYTES[dtype];
}

/** The header of a file of these tensors. */
function layOut(tensors: readonly TensorPlan[], metadata: Readonly<Record<string, string>>): Record<string, unknown> {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let at = 0;
  for (const tensor of tensors) {
    const end = at + tensorBytes(tensor);
    header[tensor.name] = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [at, end] };
    at = end;
  }
  return header;
}

/**
 * The contents of a safetensors file, piece by piece: the header, then each tensor's values, which are asked for one at a time.
 * @param read values of a tensor, when its turn has come
 * @throws InvalidArgumentError when they are not of the planned type and size
 */
export async function* safetensorsContents(tensors: readonly TensorPlan[], read: (name: string) => RawArray | Promise<RawArray>, metadata: Readonly<Record<string, string>> = { format: 'pt' }): AsyncGenerator<Uint8Array> {
  yield headerBytes(layOut(tensors, metadata));
  for (const { name, dtype, shape } of tensors) {
    const data = await read(name);
    if (rawTypeOf(name, data) !== dtype || shape.reduce((a, b) => a * b, 1) !== data.length) throw new InvalidArgumentError(`tensor ${name} has ${data.length} values of ${rawTypeOf(name, data)} for shape [${shape}] of ${dtype}`);
    yield bytesOf(data);
  }
}

/** Writes float32 tensors that are asked for one at a time, through a temporary file as `writeSafetensors` does. */
export async function writeSafetensorsFrom(file: string, tensors: readonly Omit<TensorPlan, 'dtype'>[], read: (name: string) => Promise<Float32Array>): Promise<void> {
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    const handle = await open(temporary, 'w');
    try {
      for await (const bytes of safetensorsContents(tensors.map((t) => ({ ...t, dtype: 'F32' })), read)) await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/**
 * Writes float32 tensors, in the order given, through a temporary file that is synced and renamed: whoever reads the name sees the old file or the whole new one.
 */
export function writeSafetensors(file: string, tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: Float32Array }>, metadata: Readonly<Record<string, string>> = { format: 'pt' }): void {
  for (const [name, { shape, data }] of tensors)
    if (shape.reduce((a, b) => a * b, 1) !== data.length) throw new InvalidArgumentError(`tensor ${name} has ${data.length} values for shape [${shape}]`);
  const header = layOut([...tensors].map(([name, { shape }]) => ({ name, shape, dtype: 'F32' })), metadata);
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    const fd = openSync(temporary, 'w');
    try {
      const write = (b: Uint8Array) => {
        for (let done = 0; done < b.length; ) done += writeSync(fd, b, done);
      };
      write(headerBytes(header));
      for (const { data } of tensors.values()) write(bytesOf(data));
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}
