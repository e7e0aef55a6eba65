/**
 * What a vision transformer does before its encoder (Dosovitskiy et al. 2021, §3.1): each P×P patch of the image through one linear map, learned tokens before them, a learned position added to
 * each. Patches [B, n, C·P·P] hold their pixels in the order of the projection's weight [H, C, P, P].
 */
import type { DeviceTensor } from '../engine/engine';
import { ShapeError } from '../errors';
import type { Parameter } from '../tape/parameter';
import type { Variable } from '../tape/tape';
import type { ForwardContext } from './context';

/**
 * Cuts images into patches, on the host: float32 [B, C, height, width] → [B, (height/P)·(width/P), C·P·P], patches row by row.
 * @throws ShapeError when P does not divide height and width
 */
export function cutPatches(pixels: Float32Array, [B, C, height, width]: readonly [number, number, number, number], P: number): Float32Array {
  if (height % P !== 0 || width % P !== 0) throw new ShapeError(`images of ${height}×${width} cannot be cut into patches of ${P}×${P}`);
  const out = new Float32Array(pixels.length);
  const across = width / P;
  let at = 0;
  for (let b = 0; b < B; b++)
    for (let p = 0; p < (height / P) * across; p++) {
      const corner = b * C * height * width + Math.floor(p / across) * P * width + (p % across) * P;
      for (let c = 0; c < C; c++)
        for (let y = 0; y < P; y++) {
          const row = corner + (c * height + y) * width;
          for (let x = 0; x < P; x++) out[at++] = pixels[row + x];
        }
    }
  return out;
}

/**
 * y = patches·Wᵀ + b, W the convolution's weight [H, C, P, P] seen as [H, C·P·P]: a convolution whose stride is its size.
 * dW = gᵀ·patches, db = Σg; no gradient flows into pixels, so they are kept only when W trains (a *dynamic* activation; the authors' code keeps them always).
 */
export class PatchProjection {
  constructor(
    /** Module name: the weight's name without `.weight`. */
    readonly name: string,
    readonly weight: Parameter,
    readonly bias: Parameter,
  ) {}

  /** patches [B, n, C·P·P] → [B, n, H]. */
  forward(ctx: ForwardContext, patches: DeviceTensor): Variable {
    const { engine, tape } = ctx;
    const { weight, bias } = this;
    const [H, ...rest] = weight.shape;
    const matrix = [H, rest.reduce((a, b) => a * b, 1)];
    const y = tape.variable(
      engine.scope(() => engine.linear(patches, engine.reshape(weight.data, matrix), bias.data)),
      [],
      [weight, bias],
    );
    if (!y.needsGrad) return y;
    const kept = weight.trains ? tape.keep(patches, { layer: this.name, what: 'pixels', role: 'dynamic' }) : undefined;
    tape.record(y, [], [weight, bias], (g) => {
      if (bias.trains) tape.accumulate(bias, engine.biasGrad(g));
      if (kept) tape.accumulate(weight, engine.reshape(engine.linearGradWeight(g, kept.load()), weight.shape));
      return [];
    });
    return y;
  }
}

/** Puts learned tokens, each [1, 1, H], before every sequence: x [B, n, H] → [B, tokens + n, H]. A token's gradient is the sum over the batch at its place. */
export function prependTokens(ctx: ForwardContext, tokens: readonly Parameter[], x: Variable): Variable {
  const { engine, tape } = ctx;
  const [B, n, H] = x.tensor.shape;
  const y = tape.variable(
    engine.scope(() => {
      const zeros = engine.full([B, 1, H], 0);
      return engine.concat([...tokens.map((t) => engine.add(zeros, t.data)), x.tensor], 1);
    }),
    [x],
    tokens,
  );
  if (y.needsGrad)
    tape.record(y, [x], tokens, (g) => {
      tokens.forEach((t, i) => t.trains && tape.accumulate(t, engine.sum(engine.slice(g, [0, i, 0], [B, 1, H]), 0, true)));
      return [x.needsGrad ? engine.slice(g, [0, tokens.length, 0], [B, n, H]) : undefined];
    });
  return y;
}

/** Adds a learned table [1, T, H] to every sequence of x [B, T, H]. dtable = Σ over the batch. */
export function addToEach(ctx: ForwardContext, x: Variable, table: Parameter): Variable {
  const { engine, tape } = ctx;
  const y = tape.variable(engine.add(x.tensor, table.data), [x], [table]);
  if (y.needsGrad)
    tape.record(y, [x], [table], (g) => {
      if (table.trains) tape.accumulate(table, engine.sum(g, 0, true));
      return [x.needsGrad ? engine.share(g) : undefined];
    });
  return y;
}
