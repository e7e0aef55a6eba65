/**
 * BERT in plain float64 loops: the independent reference of the model's tests. Returns logits and the mean cross-entropy (or squared error when there is one label) of sequence
 * classification, or of question answering where the weights have a span head: of each sequence the start logits, then the end logits. No dropout.
 */
export interface ReferenceConfig {
  readonly H: number;
  readonly L: number;
  readonly A: number;
  readonly eps: number;
}

type Weights = ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>;

/** erf by its Maclaurin series (|x| < 3) or the continued fraction of erfc: about 1e-15. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a < 3) {
    let term = a;
    let sum = a;
    for (let n = 1; n < 200 && Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= (-a * a) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let f = 0;
  for (let k = 60; k > 0; k--) f = k / 2 / (a + f);
  return Math.sign(x) * (1 - Math.exp(-a * a) / ((a + f) * Math.sqrt(Math.PI)));
}

/** A linear map and a LayerNorm of one row, by the module's name. */
export function referenceParts(w: Weights, H: number, eps: number) {
  const at = (name: string) => w.get(name)!.data;
  const linear = (x: number[], name: string): number[] => {
    const W = at(`${name}.weight`);
    const b = at(`${name}.bias`);
    return Array.from({ length: b.length }, (_, o) => x.reduce((s, xi, i) => s + xi * W[o * x.length + i], b[o]));
  };
  const norm = (x: number[], name: string): number[] => {
    const mean = x.reduce((s, v) => s + v, 0) / H;
    const variance = x.reduce((s, v) => s + (v - mean) ** 2, 0) / H;
    return x.map((v, i) => ((v - mean) / Math.sqrt(variance + eps)) * at(`${name}.weight`)[i] + at(`${name}.bias`)[i]);
  };
  return { at, linear, norm };
}

export function referenceBert(
  w: Weights,
  c: ReferenceConfig,
  batch: { inputIds: ArrayLike<number>; tokenTypeIds: ArrayLike<number>; attentionMask: ArrayLike<number>; labels: ArrayLike<number>; batchSize: number; length: number },
): { logits: number[][]; loss: number } {
  const { H, L, A, eps } = c;
  const { batchSize: B, length: T } = batch;
  const d = H / A;
  const { at, linear, norm } = referenceParts(w, H, eps);
  const logits: number[][] = [];
  for (let b = 0; b < B; b++) {
    let x = Array.from({ length: T }, (_, t) => {
      const e = 'bert.embeddings.';
      const rows = [at(`${e}word_embeddings.weight`), at(`${e}position_embeddings.weight`), at(`${e}token_type_embeddings.weight`)];
      const ids = [batch.inputIds[b * T + t], t, batch.tokenTypeIds[b * T + t]];
      return norm(Array.from({ length: H }, (_, i) => rows.reduce((s, r, k) => s + r[ids[k] * H + i], 0)), `${e}LayerNorm`);
    });
    for (let l = 0; l < L; l++) {
      const p = `bert.encoder.layer.${l}.`;
      const [q, k, v] = ['query', 'key', 'value'].map((n) => x.map((r) => linear(r, `${p}attention.self.${n}`)));
      const context = x.map((_, t) => {
        const out = new Array<number>(H).fill(0);
        for (let a = 0; a < A; a++) {
          const scores = x.map((_, u) => {
            let s = 0;
            for (let i = a * d; i < (a + 1) * d; i++) s += q[t][i] * k[u][i];
            return s / Math.sqrt(d) + (1 - batch.attentionMask[b * T + u]) * -10000;
          });
          const top = Math.max(...scores);
          const e = scores.map((s) => Math.exp(s - top));
          const z = e.reduce((s, v) => s + v, 0);
          for (let u = 0; u < T; u++) for (let i = a * d; i < (a + 1) * d; i++) out[i] += (e[u] / z) * v[u][i];
        }
        return out;
      });
      const attended = context.map((r, t) => norm(linear(r, `${p}attention.output.dense`).map((v, i) => v + x[t][i]), `${p}attention.output.LayerNorm`));
      x = attended.map((r) => {
        const h = linear(r, `${p}intermediate.dense`).map((u) => u * 0.5 * (1 + erf(u / Math.SQRT2)));
        return norm(linear(h, `${p}output.dense`).map((v, i) => v + r[i]), `${p}output.LayerNorm`);
      });
    }
    if (w.has('qa_outputs.weight')) {
      const scores = x.map((r) => linear(r, 'qa_outputs'));
      logits.push([...scores.map((s) => s[0]), ...scores.map((s) => s[1])]);
    } else logits.push(linear(linear(x[0], 'bert.pooler.dense').map(Math.tanh), 'classifier'));
  }
  const crossEntropy = (z: number[], label: number): number => {
    const top = Math.max(...z);
    return top + Math.log(z.reduce((s, v) => s + Math.exp(v - top), 0)) - z[label];
  };
  let loss = 0;
  logits.forEach((z, b) => {
    if (z.length === 1) loss += (z[0] - batch.labels[b]) ** 2 / B;
    else if (w.has('qa_outputs.weight')) loss += (crossEntropy(z.slice(0, T), batch.labels[2 * b]) + crossEntropy(z.slice(T), batch.labels[2 * b + 1])) / (2 * B);
    else loss += crossEntropy(z, batch.labels[b]) / B;
  });
  return { logits, loss };
}
