/**
 * What an encoding does to the values that it keeps (SLIMFIT-SPEC §6: values beyond the range clip silently, small probabilities become 0). Counted on the device with the
 * primitives of the engine contract, so that it is the same on every engine; it costs a few passes over the values, so only chosen steps are measured.
 */
import { type DeviceTensor, type Engine, FIXED_POINT, type FixedPoint } from '../engine/engine';

/** How far the kept form of one activation is from the activation. */
export interface EncodingError {
  /** Hugging Face module name that keeps it. */
  readonly layer: string;
  readonly what: string;
  readonly encoding: string;
  /** Share of the values outside the range of the codes, in [0, 1]. 0 for pruning. */
  readonly clipped: number;
  /** Share of the values that are not 0 and are kept as 0, in [0, 1]. */
  readonly zeroed: number;
  /** ‖x − x'‖ / ‖x‖ over the whole tensor, x' what backward reads. */
  readonly relativeError: number;
}

/** Added to a number that is 0 or at least 1e-20, it makes y/(y + this) 0 or 1. */
const TINY = 1e-30;

/**
 * Four sums over a tensor and its kept form.
 * @param encoding undefined for a pruned tensor
 * @returns float32 [4]: values beyond the range, values lost to 0, Σ(x − x')², Σx². The caller's
 */
export function encodingErrorSums(engine: Engine, x: DeviceTensor, kept: DeviceTensor, encoding: FixedPoint | undefined): DeviceTensor {
  return engine.scope(() => {
    const flat = engine.reshape(x, [x.size]);
    const flatKept = engine.reshape(kept, [x.size]);
    /** 1 where a tensor of non-negative numbers is above 0. */
    const positive = (t: DeviceTensor) => engine.div(t, engine.affine(t, 1, TINY));
    /** max(t, 0). */
    const above = (t: DeviceTensor) => engine.affine(engine.add(t, engine.abs(t)), 0.5);
    const total = (t: DeviceTensor) => engine.sum(t, 0, true);
    const square = (t: DeviceTensor) => total(engine.mul(t, t));
    const nonZero = total(positive(engine.abs(flat)));
    const keptNonZero = total(positive(engine.abs(flatKept)));
    const parts = [engine.sub(nonZero, keptNonZero), square(engine.sub(flat, flatKept)), square(flat)];
    if (!encoding) return engine.concat([engine.full([1], 0), ...parts], 0);
    const { scale, lo, hi } = FIXED_POINT[encoding];
    // Codes round half to even and `hi` is odd, so a value half a step above it is already beyond; float32 tells 2^-12 apart there.
    const over = total(positive(above(engine.affine(flat, scale, -(hi + 0.5 - 2 ** -12)))));
    const under = total(positive(above(engine.affine(flat, -scale, lo - 0.5))));
    return engine.concat([engine.add(over, under), ...parts], 0);
  });
}

/** The error from its four sums over `size` values. */
export function encodingError(of: Pick<EncodingError, 'layer' | 'what' | 'encoding'>, size: number, sums: ArrayLike<number>): EncodingError {
  const [clipped, zeroed, difference, norm] = Array.from(sums);
  return { ...of, clipped: clipped / size, zeroed: zeroed / size, relativeError: norm > 0 ? Math.sqrt(difference / norm) : 0 };
}
