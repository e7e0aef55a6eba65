/** Fixed-point codes and pruning on the host: what engines without byte tensors use. The layout is that of `EncodedTensor`. */
import { InvalidArgumentError } from '../errors';
import { FIXED_POINT, type FixedPoint } from './engine';

/** Rounds to the nearest integer, halves to the even one. */
export function roundHalfEven(x: number): number {
  const r = Math.round(x);
  return r - x === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

/** Bytes of the codes of `size` elements, without padding to the word. */
export function payloadBytes(size: number, encoding: FixedPoint): number {
  return FIXED_POINT[encoding].bits === 8 ? size : Math.ceil(size / 2);
}

/** Packs values into int32 words. */
export function packCodes(x: Float32Array, encoding: FixedPoint): Int32Array {
  const { bits, scale, lo, hi } = FIXED_POINT[encoding];
  const bytes = new Uint8Array(4 * Math.ceil(payloadBytes(x.length, encoding) / 4));
  const code = (v: number) => Math.min(hi, Math.max(lo, roundHalfEven(v * scale)));
  if (bits === 8) for (let i = 0; i < x.length; i++) bytes[i] = code(x[i]);
  else {
    const half = Math.ceil(x.length / 2);
    for (let i = 0; i < half; i++) bytes[i] = (code(x[i]) + 8) * 16 + (half + i < x.length ? code(x[half + i]) + 8 : 0);
  }
  return new Int32Array(bytes.buffer);
}

/** The values that the codes stand for. */
export function unpackCodes(words: Int32Array, size: number, encoding: FixedPoint): Float32Array {
  const { bits, scale, lo } = FIXED_POINT[encoding];
  const out = new Float32Array(size);
  if (bits === 8) {
    const codes = lo < 0 ? new Int8Array(words.buffer, words.byteOffset, size) : new Uint8Array(words.buffer, words.byteOffset, size);
    for (let i = 0; i < size; i++) out[i] = codes[i] / scale;
  } else {
    const bytes = new Uint8Array(words.buffer, words.byteOffset, Math.ceil(size / 2));
    bytes.forEach((b, i) => {
      out[i] = ((b >> 4) + lo) / scale;
      if (bytes.length + i < size) out[bytes.length + i] = ((b & 15) + lo) / scale;
    });
  }
  return out;
}

/**
 * Positions of the `count` elements of largest absolute value, ascending; of equal ones, those of lower index. A NaN counts as larger
 * than infinity. Without their sign bit, floats are ordered as the integers of the same bits: two counting passes of a radix selection, upper
 * 16 bits first, find the smallest magnitude that is kept.
 * @throws InvalidArgumentError when `count` is not a number of elements of `x`
 */
export function largestPositions(x: Float32Array, count: number): Int32Array {
  if (!Number.isInteger(count) || count < 0 || count > x.length) throw new InvalidArgumentError(`topK of ${count} out of ${x.length} elements`);
  const out = new Int32Array(count);
  if (count === 0) return out;
  const bits = new Int32Array(x.buffer, x.byteOffset, x.length);
  const magnitude = (i: number) => bits[i] & 0x7fffffff;

  const upper = new Int32Array(1 << 15);
  for (let i = 0; i < bits.length; i++) upper[magnitude(i) >>> 16]++;
  const high = binOfRank(upper, count);
  const lower = new Int32Array(1 << 16);
  for (let i = 0; i < bits.length; i++) if (magnitude(i) >>> 16 === high.bin) lower[bits[i] & 0xffff]++;
  const low = binOfRank(lower, high.rank);

  const threshold = high.bin * 65536 + low.bin;
  let ties = low.rank;
  let n = 0;
  for (let i = 0; n < count; i++) if (magnitude(i) > threshold || (magnitude(i) === threshold && ties-- > 0)) out[n++] = i;
  return out;
}

/** The bin that holds the element of that rank (from 1, counted from the last bin down), and the element's rank within it. */
function binOfRank(counts: Int32Array, rank: number): { bin: number; rank: number } {
  let bin = counts.length - 1;
  for (; counts[bin] < rank; bin--) rank -= counts[bin];
  return { bin, rank };
}
