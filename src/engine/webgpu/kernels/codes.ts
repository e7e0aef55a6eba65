/** Fixed-point and row-scaled codes, packed as `EncodedTensor` says: one thread writes one word. */
import { FIXED_POINT, type FixedPoint } from '../../engine';
import { EACH, EACH_ROW, type Kernel } from '../kernel';
import { EXACT_DIVISION, MAX_ALL } from './mathFunctions';

const number = (x: number): string => (Number.isInteger(x) ? `${x}.0` : `${x}`);

/**
 * Encodes [rows, width]: params n (words), size (elements), half (of 4-bit codes), width. @param steps whether each row has a step of its own; a row of zeros has step 0, and 2⁻¹²⁶ makes its codes 0 without
 * changing any step from 2⁻¹⁰¹ up
 */
export function encodeKernel(encoding: FixedPoint, steps: boolean): Kernel {
  const { bits, scale, lo, hi } = FIXED_POINT[encoding];
  const value = steps ? 'exactDiv(x[i], steps[i / p.width] + 1.17549435e-38)' : 'x[i]';
  const code = `fn code(i: u32) -> i32 { return i32(clamp(round(${value} * ${number(scale)}), ${number(lo)}, ${number(hi)})); }`;
  const byte = bits === 8 ? 'fn byte(i: u32) -> u32 { if (i >= p.size) { return 0u; } return u32(code(i)) & 255u; }' : `fn byte(i: u32) -> u32 {
  if (i >= p.half) { return 0u; }
  var low = 0u;
  if (p.half + i < p.size) { low = u32(code(p.half + i) + 8); }
  return u32(code(i) + 8) * 16u + low;
}`;
  return {
    params: ['n: u32', 'size: u32', 'half: u32', 'width: u32'],
    reads: ['x: f32', ...(steps ? ['steps: f32'] : [])],
    writes: ['words: u32'],
    workgroup: 256,
    functions: `${steps ? EXACT_DIVISION : ''}${code}\n${byte}`,
    body: `${EACH}\n  words[i] = byte(4u * i) | (byte(4u * i + 1u) << 8u) | (byte(4u * i + 2u) << 16u) | (byte(4u * i + 3u) << 24u);`,
  };
}

/** The step of each row, max(abs(row))/hi rounded as float32: params rows, width, hi. */
export function stepsKernel(workgroup: number): Kernel {
  return {
    params: ['rows: u32', 'width: u32', 'hi: f32'],
    reads: ['x: f32'],
    writes: ['steps: f32'],
    workgroup,
    functions: EXACT_DIVISION + MAX_ALL,
    body: `${EACH_ROW}
  var top = 0.0;
  for (var k = lid; k < p.width; k += W) { top = max(top, abs(x[row * p.width + k])); }
  top = maxAll(top, lid);
  if (lid == 0u) { steps[row] = exactDiv(top, p.hi); }`,
  };
}

/**
 * A function `rowCode(x, step)`: the 8-bit code of a value in a row of that step, as a byte. To be called in a loop over the four bytes of a word, since drivers take the division in wherever it is called.
 */
export function rowCodeFunction(codes: FixedPoint): string {
  const { lo, hi } = FIXED_POINT[codes];
  return `fn rowCode(x: f32, step: f32) -> u32 { return u32(i32(clamp(round(exactDiv(x, step + 1.17549435e-38)), ${number(lo)}, ${number(hi)}))) & 255u; }\n`;
}

/** Threads of `encodeRowsKernel`. */
export const ENCODE_THREADS = 256;

/** How many of them share a row: those of short rows (the d values of a head) are many, and several go to a workgroup. */
export function encodeLanes(width: number): number {
  let lanes = 8;
  while (lanes < ENCODE_THREADS && lanes * 8 < width) lanes *= 2;
  return lanes;
}

/** Steps and codes of rows of `width4` vec4 in one go: params rows, width4, hi. */
export function encodeRowsKernel(codes: FixedPoint, lanes: number): Kernel {
  return {
    params: ['rows: u32', 'width4: u32', 'hi: f32'],
    reads: ['x: vec4f'],
    writes: ['words: u32', 'steps: f32'],
    workgroup: ENCODE_THREADS,
    functions: `${EXACT_DIVISION}${rowCodeFunction(codes)}
var<workgroup> tops: array<f32, W>;`,
    body: `
  let row = (wg.y * grid.x + wg.x) * ${ENCODE_THREADS / lanes}u + lid / ${lanes}u;
  let lane = lid % ${lanes}u;
  let base = row * p.width4;
  var top = 0.0;
  if (row < p.rows) { for (var k = lane; k < p.width4; k += ${lanes}u) { let v = abs(x[base + k]); top = max(top, max(max(v.x, v.y), max(v.z, v.w))); } }
  tops[lid] = top;
  workgroupBarrier();
  for (var s = ${lanes / 2}u; s > 0u; s = s >> 1u) {
    if (lane < s) { tops[lid] = max(tops[lid], tops[lid + s]); }
    workgroupBarrier();
  }
  if (row >= p.rows) { return; }
  let step = exactDiv(tops[lid - lane], p.hi);
  if (lane == 0u) { steps[row] = step; }
  for (var k = lane; k < p.width4; k += ${lanes}u) {
    let v = x[base + k];
    var word = 0u;
    for (var j = 0u; j < 4u; j++) { word |= rowCode(v[j], step) << (8u * j); }
    words[base + k] = word;
  }`,
  };
}

/** A function `decoded(i)`: the value of element i from `words`; of 4-bit codes with the parameter `half`. */
export function decodeFunction(encoding: FixedPoint): string {
  const { bits, scale, lo } = FIXED_POINT[encoding];
  if (bits === 4)
    return `fn decoded(i: u32) -> f32 {
  let low = i >= p.half;
  let at = select(i, i - p.half, low);
  let byte = words[at / 4u] >> (8u * (at % 4u));
  return f32(i32(select((byte >> 4u) & 15u, byte & 15u, low)) + ${lo}) * ${number(1 / scale)};
}`;
  const code = lo < 0 ? '(bitcast<i32>(words[i / 4u]) << (24u - 8u * (i % 4u))) >> 24u' : 'i32((words[i / 4u] >> (8u * (i % 4u))) & 255u)';
  return `fn decoded(i: u32) -> f32 { return f32(${code}) * ${number(1 / scale)}; }`;
}
