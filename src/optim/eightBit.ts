/**
 * Moments in 8 bits, block by block, after Dettmers et al. 2022 (arXiv 2110.02861): a block of up to 2048 elements has one float32 scale, its largest magnitude; an element has one code. The codes here are
 * logarithmic, 8 to an octave, so that the error is relative wherever an element lies in its block, as 1/sqrt(v) needs; a = ln(2)/8, code k counts from 0:
 * - first moment, sign and 127 magnitudes (μ-law, ITU-T G.711): |m| = scale·(exp(a·k) − 1)/(exp(127·a) − 1); neighbours are 9.05 % apart, 10 % at scale·2⁻¹², in ever more even steps below; the smallest but 0 is scale·1.5e-6
 * - second moment, 256 values: v = scale·exp(a·(k − 255)); neighbours are 9.05 % apart; the smallest is scale·2⁻³¹·⁹ = scale·2.5e-10 (1.6e-5 in sqrt(v)), and takes everything below it, so that no v becomes 0
 *
 * Rounding is to one of the two neighbours, in such a share of the cases that the mean is the value itself. To the nearest would never do: with β2 = 0.999 a step changes v by about 0.1 %, far less than half
 * of 9 %, and v would stand still. Which one is told by a threshold for each place in the block and each step, a two-dimensional additive recurrence (R2 sequence, Roberts 2018) without any state: the same
 * step count gives the same codes. A gradient that is not finite spoils its block, not its element alone.
 */
import type { DeviceTensor, Engine } from '../engine/engine';

/** Elements of a block at most, as in bitsandbytes. */
export const BLOCK = 2048;
/** Parameters of fewer elements keep float32 moments, as in bitsandbytes: biases and layer norms, which are few bytes and sensitive. */
export const LEAST_CODED = 4096;
/** A block shorter than this (a parameter whose number of elements has no better divisor) is not worth its scale. */
const LEAST_BLOCK = 64;

/** Codes to an octave: neighbours are a factor 2^(1/8) apart. */
const A = Math.LN2 / 8;
const FIRST_TOP = 127;
const SECOND_TOP = 255;
const MU = Math.expm1(FIRST_TOP * A);
/** Below every code, and far from 0: what logarithms and signs of 0 are kept finite with. */
const TINY = 2 ** -126;
const BELOW_ALL = 2 ** -45;

/** One moment of one parameter: codes packed as in `EncodedTensor`, and the scale of each block, float32 [blocks, 1]. */
export interface CodedMoment {
  readonly words: DeviceTensor;
  readonly scales: DeviceTensor;
}

/** Both moments. */
export interface CodedMoments {
  readonly m: CodedMoment;
  readonly v: CodedMoment;
}

/** Elements of a block of a parameter: the largest divisor of its size up to 2048. Undefined where its moments stay float32. */
export function blockLength(size: number): number | undefined {
  return size < LEAST_CODED ? undefined : blockDivisor(size);
}

/** The largest divisor up to 2048 that is worth a scale; undefined where there is none. */
export function blockDivisor(size: number): number | undefined {
  for (let n = BLOCK; n >= LEAST_BLOCK; n--) if (size % n === 0) return n;
  return undefined;
}

/** Bytes of both moments of a parameter of so many elements. */
export function momentBytes(size: number, moments: 'float32' | '8-bit' = 'float32'): number {
  const block = moments === '8-bit' ? blockLength(size) : undefined;
  return block === undefined ? 8 * size : 8 * (Math.ceil(size / 4) + size / block);
}

/** Where in its block, and in which step, an element is rounded up: uniform in (0, 1). `turned` is for the second moment. */
function uniforms(block: number, step: number, turned: boolean): Float64Array {
  const [place, time] = turned ? [0.5698402909980532, 0.7548776662466927] : [0.7548776662466927, 0.5698402909980532];
  const offset = (step * time + 0.5) % 1;
  return Float64Array.from({ length: block }, (_, i) => Math.min(1 - 2 ** -12, Math.max(2 ** -12, (offset + i * place) % 1)));
}

/**
 * What is added to y before it is rounded to the nearest. Between two codes a value is exp(a·y), so that y = k + f is rounded up in the share (exp(a·f) − 1)/(exp(a) − 1) of the cases, if f must be above
 * ln(1 + u·(exp(a) − 1))/a for that, u uniform.
 */
function dither(engine: Engine, block: number, step: number, turned: boolean): DeviceTensor {
  return engine.upload(Float32Array.from(uniforms(block, step, turned), (u) => 0.5 - Math.log1p(u * Math.expm1(A)) / A), [1, block]);
}

/** A chain of operations on one value: each result takes the place of the one before, which is freed. */
function chain(engine: Engine, start: DeviceTensor, ...operations: readonly ((x: DeviceTensor) => DeviceTensor)[]): DeviceTensor {
  let value = start;
  for (const operation of operations) {
    const next = engine.scope(() => operation(value));
    engine.free(value);
    value = next;
  }
  return value;
}

/** sign(x)·y as x·y/|x|; both are freed. */
function withSign(engine: Engine, x: DeviceTensor, y: DeviceTensor): DeviceTensor {
  const product = chain(engine, y, (t) => engine.mul(t, x));
  const size = chain(engine, x, (t) => engine.abs(t), (t) => engine.affine(t, 1, TINY));
  const signed = engine.div(product, size);
  engine.free(product, size);
  return signed;
}

function decoded(engine: Engine, { words, scales }: CodedMoment, encoding: 'q7.0' | 'q8.0', size: number): DeviceTensor {
  return engine.decode({ encoding, shape: [scales.size, size / scales.size], words, payloadBytes: size });
}

/** A float32 tensor of the shape, workspace. */
export function decodeFirst(engine: Engine, moment: CodedMoment, shape: readonly number[]): DeviceTensor {
  return engine.scope(() => {
    const size = shape.reduce((a, b) => a * b, 1);
    const codes = decoded(engine, moment, 'q7.0', size);
    const magnitudes = chain(engine, engine.abs(codes), (x) => engine.affine(x, A), (x) => engine.exp(x), (x) => engine.affine(x, 1 / MU, -1 / MU), (x) => engine.mul(x, moment.scales));
    return engine.reshape(withSign(engine, codes, magnitudes), shape);
  });
}

/** A float32 tensor of the shape, workspace. */
export function decodeSecond(engine: Engine, moment: CodedMoment, shape: readonly number[]): DeviceTensor {
  return engine.scope(() => {
    const size = shape.reduce((a, b) => a * b, 1);
    const values = chain(engine, decoded(engine, moment, 'q8.0', size), (x) => engine.affine(x, A, -SECOND_TOP * A), (x) => engine.exp(x), (x) => engine.mul(x, moment.scales));
    return engine.reshape(values, shape);
  });
}

/** The codes of a moment, workspace. @param block divides the size @param step count of the update, which the rounding depends on @param m is freed */
export function encodeFirst(engine: Engine, m: DeviceTensor, block: number, step: number): CodedMoment {
  return engine.scope(() => {
    const rows = engine.reshape(m, [m.size / block, block]);
    engine.free(m);
    const scales = chain(engine, engine.abs(rows), (x) => engine.max(x, 1, true));
    const ratios = chain(engine, rows, (x) => engine.div(x, engine.affine(scales, 1, TINY)));
    const places = chain(engine, engine.abs(ratios), (x) => engine.affine(x, MU, 1), (x) => engine.log(x), (x) => engine.affine(x, 1 / A), (x) => engine.add(x, dither(engine, block, step, false)));
    const { words } = engine.encode(withSign(engine, ratios, places), 'q7.0');
    return { words, scales };
  });
}

/** The same of a second moment. */
export function encodeSecond(engine: Engine, v: DeviceTensor, block: number, step: number): CodedMoment {
  return engine.scope(() => {
    const rows = engine.reshape(v, [v.size / block, block]);
    engine.free(v);
    const scales = engine.max(rows, 1, true);
    const places = chain(
      engine,
      rows,
      (x) => engine.div(x, engine.affine(scales, 1, TINY)),
      (x) => engine.affine(x, 1, BELOW_ALL),
      (x) => engine.log(x),
      (x) => engine.affine(x, 1 / A, SECOND_TOP),
      (x) => engine.add(x, dither(engine, block, step, true)),
    );
    const { words } = engine.encode(places, 'q8.0');
    return { words, scales };
  });
}
