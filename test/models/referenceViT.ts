/**
 * ViT image classification in plain float64 loops: the independent reference of the model's tests. Takes whole images and convolves, where the model multiplies patches. Returns logits and the mean
 * cross-entropy. No dropout.
 */
import { erf, referenceParts } from './referenceBert';

type Weights = ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>;

export interface ReferenceViTConfig {
  readonly base: string;
  readonly H: number;
  readonly L: number;
  readonly A: number;
  readonly P: number;
  readonly eps: number;
  /** Learned tokens before the patches. */
  readonly tokens: readonly string[];
}

export function referenceViT(
  w: Weights,
  { base, H, L, A, P, eps, tokens }: ReferenceViTConfig,
  batch: { pixelValues: ArrayLike<number>; labels: ArrayLike<number>; batchSize: number; channels: number; height: number; width: number },
): { logits: number[][]; loss: number } {
  const { batchSize: B, channels: C, height, width } = batch;
  const d = H / A;
  const { at, linear, norm } = referenceParts(w, H, eps);
  const logits: number[][] = [];
  for (let b = 0; b < B; b++) {
    const kernel = at(`${base}.embeddings.patch_embeddings.projection.weight`);
    const bias = at(`${base}.embeddings.patch_embeddings.projection.bias`);
    const patches: number[][] = [];
    for (let top = 0; top < height; top += P)
      for (let left = 0; left < width; left += P)
        patches.push(
          Array.from({ length: H }, (_, o) => {
            let s = bias[o];
            for (let c = 0; c < C; c++)
              for (let y = 0; y < P; y++) for (let x = 0; x < P; x++) s += kernel[((o * C + c) * P + y) * P + x] * batch.pixelValues[((b * C + c) * height + top + y) * width + left + x];
            return s;
          }),
        );
    let x = [...tokens.map((n) => Array.from(at(`${base}.embeddings.${n}`))), ...patches].map((row, t) => row.map((v, i) => v + at(`${base}.embeddings.position_embeddings`)[t * H + i]));
    for (let l = 0; l < L; l++) {
      const p = `${base}.encoder.layer.${l}.`;
      const h = x.map((r) => norm(r, `${p}layernorm_before`));
      const [q, k, v] = ['query', 'key', 'value'].map((n) => h.map((r) => linear(r, `${p}attention.attention.${n}`)));
      const context = x.map((_, t) => {
        const out = new Array<number>(H).fill(0);
        for (let a = 0; a < A; a++) {
          const e = x.map((_, u) => {
            let s = 0;
            for (let i = a * d; i < (a + 1) * d; i++) s += q[t][i] * k[u][i];
            return Math.exp(s / Math.sqrt(d));
          });
          const z = e.reduce((s, v) => s + v, 0);
          for (let u = 0; u < x.length; u++) for (let i = a * d; i < (a + 1) * d; i++) out[i] += (e[u] / z) * v[u][i];
        }
        return out;
      });
      const attended = context.map((r, t) => linear(r, `${p}attention.output.dense`).map((v, i) => v + x[t][i]));
      x = attended.map((r) => {
        const up = linear(norm(r, `${p}layernorm_after`), `${p}intermediate.dense`).map((u) => u * 0.5 * (1 + erf(u / Math.SQRT2)));
        return linear(up, `${p}output.dense`).map((v, i) => v + r[i]);
      });
    }
    logits.push(linear(norm(x[0], `${base}.layernorm`), 'classifier'));
  }
  const loss = logits.reduce((sum, z, b) => sum + (Math.log(z.reduce((s, v) => s + Math.exp(v), 0)) - z[batch.labels[b]]) / B, 0);
  return { logits, loss };
}
