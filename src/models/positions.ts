/**
 * Position embeddings of a vision transformer for another image size than the checkpoint's: the grid of patch positions is resized by bicubic interpolation (Dosovitskiy et al. 2021, §3.2), as
 * `torch.nn.functional.interpolate(mode='bicubic', align_corners=False)` does it: cubic convolution with a = −0.75, the border repeated, no antialiasing.
 */
import { ShapeError } from '../errors';

/** Weights of the four neighbours of a point at distance t ∈ [0, 1) behind the second of them (Keys 1981). */
function cubicWeights(t: number): readonly [number, number, number, number] {
  const a = -0.75;
  const near = (x: number) => ((a + 2) * x - (a + 3)) * x * x + 1;
  const far = (x: number) => ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return [far(t + 1), near(t), near(1 - t), far(2 - t)];
}

/**
 * Resizes position embeddings [1, tokens + from², H] to [1, tokens + to², H]; those of the `tokens` learned tokens in front stay as they are.
 * @throws ShapeError when the table holds no square of patches
 */
export function resizePositions(table: Float32Array, hiddenSize: number, tokens: number, to: number): Float32Array {
  const H = hiddenSize;
  const patches = table.length / H - tokens;
  const from = Math.round(Math.sqrt(patches));
  if (from < 1 || from * from !== patches) throw new ShapeError(`position embeddings of ${patches} patches are no square grid`);
  const out = new Float32Array((tokens + to * to) * H);
  out.set(table.subarray(0, tokens * H));
  const clamp = (i: number) => Math.min(Math.max(i, 0), from - 1);
  const axis = Array.from({ length: to }, (_, i) => {
    const x = ((i + 0.5) * from) / to - 0.5;
    const at = Math.floor(x);
    return { places: [clamp(at - 1), clamp(at), clamp(at + 1), clamp(at + 2)], weights: cubicWeights(x - at) };
  });
  axis.forEach((row, y) =>
    axis.forEach((column, x) => {
      const target = (tokens + y * to + x) * H;
      for (let r = 0; r < 4; r++)
        for (let c = 0; c < 4; c++) {
          const weight = row.weights[r] * column.weights[c];
          const source = (tokens + row.places[r] * from + column.places[c]) * H;
          for (let h = 0; h < H; h++) out[target + h] += weight * table[source + h];
        }
    }),
  );
  return out;
}
