/**
 * Blocks: what is too large to be there at once is computed a part at a time, forward and backward. Attention's temporaries of B·A·T² elements go over blocks of examples, of heads where one example is too
 * large, of queries where one head is; the MLP's of N·F elements over blocks of tokens. Every element comes out of the same formula as without blocks, and dropout draws the same mask (RandomKey.offset);
 * only sums over tokens (gradients of weights, of keys and values across blocks of queries) are added up in another order, to the rounding of float32.
 */
import { type CodeEncoding, codesOf, type DeviceTensor, type Engine, FIXED_POINT } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import type { ActivationMode, ActivationScheme } from '../tape/scheme';

/**
 * Block size of mode `tuned`: 64 MiB. Small beside the tokens' own tensors wherever memory is short (4NH is 144 MiB for BERT-base at 128×384), and large enough that a block's products and passes cost what
 * they cost in the whole (bench/README.md).
 */
export const TUNED_BLOCK_BYTES = 64 * 2 ** 20;

/** The block size of a run: what was asked for, else that of its mode. */
export function blockBytesOf(asked: number | undefined, mode: ActivationMode | ActivationScheme | undefined): number {
  return asked ?? (mode === 'tuned' ? TUNED_BLOCK_BYTES : Infinity);
}

/** @throws InvalidArgumentError unless it is a positive number of bytes; Infinity means no limit */
export function checkBlockBytes(bytes: number): void {
  if (!(bytes > 0)) throw new InvalidArgumentError(`blockBytes is ${bytes}; it must be a positive number of bytes, or Infinity for whole tensors`);
}

/** Where a block begins, and how long it is. */
export type Range = readonly [begin: number, length: number];

/** [0, total) in steps; the last may be shorter. */
export function ranges(total: number, step: number): Range[] {
  return Array.from({ length: Math.ceil(total / step) }, (_, i) => [i * step, Math.min(step, total - i * step)] as const);
}

/** Part of a tensor along an axis: a copy, or the tensor itself under another name where it is all of it. */
export function part(engine: Engine, x: DeviceTensor, axis: number, [begin, length]: Range): DeviceTensor {
  if (length === x.shape[axis]) return engine.share(x);
  return engine.slice(
    x,
    x.shape.map((_, i) => (i === axis ? begin : 0)),
    x.shape.map((n, i) => (i === axis ? length : n)),
  );
}

/** Parts put together along an axis, which are freed: a single one is the result. */
export function joined(engine: Engine, parts: readonly DeviceTensor[], axis: number): DeviceTensor {
  if (parts.length === 1) return parts[0];
  const whole = engine.concat(parts, axis);
  engine.free(...parts);
  return whole;
}

/** sum + x, which are freed; either may be missing. */
export function plus(engine: Engine, sum: DeviceTensor | undefined, x: DeviceTensor | undefined): DeviceTensor | undefined {
  if (!sum || !x) return sum ?? x;
  const both = engine.add(sum, x);
  engine.free(sum, x);
  return both;
}

/** How activations are kept that come in blocks. */
export type BlockEncoding = CodeEncoding | 'float32' | undefined;

/**
 * Smallest number of units of `size` elements whose codes fill whole 32-bit words. Only blocks of so many keep, word for word, the bytes that the whole tensor would.
 */
function wordUnits(size: number, encoding: BlockEncoding): number {
  if (encoding === undefined || encoding === 'float32') return 1;
  const perWord = 32 / FIXED_POINT[codesOf(encoding)].bits;
  let units = 1;
  while ((units * size) % perWord !== 0) units++;
  return units;
}

/** Units of `bytes` bytes that fit in a block: a multiple of `multiple`, at least one of these, at most `total`. */
function fitting(total: number, bytes: number, multiple: number, blockBytes: number): number {
  return Math.min(total, Math.max(1, Math.floor(blockBytes / bytes / multiple)) * multiple);
}

/**
 * Rows of a block of the MLP.
 * @param width F, the width of a row
 * @param encodings how the block's tensors are kept
 */
export function rowsOfBlock(rows: number, width: number, encodings: readonly BlockEncoding[], blockBytes: number): number {
  return fitting(rows, 4 * width, Math.max(...encodings.map((e) => wordUnits(width, e))), blockBytes);
}

/** Examples, heads and queries of a block of attention: fewer than all heads only of one example, fewer than all queries only of one head. */
export interface AttentionBlock {
  readonly examples: number;
  readonly heads: number;
  readonly queries: number;
}

/** Sizes of attention, and how its operands and probabilities are kept. */
export interface AttentionSizes {
  readonly batchSize: number;
  readonly heads: number;
  readonly tokens: number;
  /** A·d. */
  readonly hidden: number;
  readonly operands: BlockEncoding;
  readonly probs: BlockEncoding;
}

/** The largest block of attention whose probabilities fit; where their codes must fill words, the smallest that does. */
export function attentionBlock({ batchSize, heads, tokens: T, hidden, operands, probs }: AttentionSizes, blockBytes: number): AttentionBlock {
  const multiple = Math.max(wordUnits(T * hidden, operands), wordUnits(heads * T * T, probs));
  const examples = fitting(batchSize, 4 * heads * T * T, multiple, blockBytes);
  // The last piece of all may end within a word.
  if (examples > 1 || (multiple > 1 && batchSize > 1) || 4 * heads * T * T <= blockBytes) return { examples, heads, queries: T };
  const headsMultiple = wordUnits(T * T, probs);
  const some = fitting(heads, 4 * T * T, headsMultiple, blockBytes);
  if (some > 1 || (headsMultiple > 1 && heads > 1) || 4 * T * T <= blockBytes) return { examples, heads: some, queries: T };
  return { examples, heads: 1, queries: fitting(T, 4 * T, wordUnits(T, probs), blockBytes) };
}
