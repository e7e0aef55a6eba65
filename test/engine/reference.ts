/** The plain float64 reference of the conformance suite: loops over arrays of numbers, sharing nothing with the engines but the table of encodings. */
import { FIXED_POINT, type FixedPoint } from '../../src/engine/engine';
import type { Random } from '../../src/random';

/** A float64 array with a shape: what the references compute with. */
export interface Ref {
  readonly shape: readonly number[];
  readonly data: number[];
}

export const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Float32 values, so that engine and reference start from the same numbers. */
export function random(r: Random, shape: readonly number[], scale = 1): Ref {
  return { shape, data: Array.from({ length: size(shape) }, () => Math.fround(scale * r.normal())) };
}
export const map = (a: Ref, fn: (x: number, i: number) => number): Ref => ({ shape: a.shape, data: a.data.map(fn) });
export const zip = (a: Ref, b: Ref, fn: (x: number, y: number) => number): Ref => map(a, (x, i) => fn(x, b.data[i]));

/** [N, K] seen through a leading shape. */
export const rowsOf = (a: Ref): number[][] => {
  const K = a.shape[a.shape.length - 1];
  return Array.from({ length: a.data.length / K }, (_, i) => a.data.slice(i * K, (i + 1) * K));
};
export const mapRows = (a: Ref, fn: (row: number[], i: number) => number[]): Ref => ({ shape: a.shape, data: rowsOf(a).flatMap(fn) });
export const sumOf = (x: readonly number[]): number => x.reduce((s, v) => s + v, 0);

/** a·b over batches, with transposes. */
export function matmul(a: Ref, b: Ref, ta = false, tb = false): Ref {
  const lead = a.shape.slice(0, -2);
  const [p, q] = a.shape.slice(-2);
  const [u, v] = b.shape.slice(-2);
  const [M, K] = ta ? [q, p] : [p, q];
  const N = tb ? u : v;
  const out = new Array<number>(size(lead) * M * N).fill(0);
  for (let l = 0; l < size(lead); l++)
    for (let m = 0; m < M; m++)
      for (let n = 0; n < N; n++)
        for (let k = 0; k < K; k++)
          out[(l * M + m) * N + n] += a.data[l * p * q + (ta ? k * q + m : m * q + k)] * b.data[l * u * v + (tb ? n * v + k : k * v + n)];
  return { shape: [...lead, M, N], data: out };
}
export const transposed = (a: Ref, perm: readonly number[]): Ref => {
  const shape = perm.map((p) => a.shape[p]);
  const strides = a.shape.map((_, i) => size(a.shape.slice(i + 1)));
  return {
    shape,
    data: Array.from({ length: a.data.length }, (_, flat) => {
      let rest = flat;
      let at = 0;
      for (let i = shape.length - 1; i >= 0; i--) {
        at += (rest % shape[i]) * strides[perm[i]];
        rest = Math.floor(rest / shape[i]);
      }
      return a.data[at];
    }),
  };
};
export const softmaxRow = (row: number[]): number[] => {
  const top = Math.max(...row);
  const e = row.map((x) => Math.exp(x - top));
  return e.map((x) => x / sumOf(e));
};
/** What the reference of attention is computed from: operands and the gradient of the context [B, T, A·d], a mask [B, 1, 1, T], what dropout multiplies the probabilities by, [B, A, T, T]. */
export interface AttentionCase {
  readonly q: Ref;
  readonly k: Ref;
  readonly v: Ref;
  readonly grad: Ref;
  readonly heads: number;
  readonly scale: number;
  readonly mask?: Ref;
  readonly drawn?: ArrayLike<number>;
}
/** Attention's context and its gradients. */
export function attention({ q, k, v, grad, heads, scale, mask, drawn }: AttentionCase): Readonly<Record<'context' | 'dq' | 'dk' | 'dv', Ref>> {
  const [B, T, H] = q.shape;
  const split = (x: Ref) => transposed({ shape: [B, T, heads, H / heads], data: x.data }, [0, 2, 1, 3]);
  const merge = (x: Ref): Ref => ({ shape: [B, T, H], data: transposed(x, [0, 2, 1, 3]).data });
  const [qh, kh, vh, g] = [q, k, v, grad].map(split);
  const probs = mapRows(matmul(qh, kh, false, true), (row, i) => softmaxRow(row.map((s, j) => s * scale + (mask ? mask.data[Math.floor(i / (heads * T)) * T + j] : 0))));
  const drop = (x: Ref) => (drawn ? map(x, (p, i) => p * drawn[i]) : x);
  const dp = drop(matmul(g, vh, false, true));
  const ds = mapRows(dp, (row, i) => {
    const p = probs.data.slice(i * T, (i + 1) * T);
    const dot = sumOf(row.map((x, j) => x * p[j]));
    return row.map((x, j) => scale * p[j] * (x - dot));
  });
  return { context: merge(matmul(drop(probs), vh)), dq: merge(matmul(ds, kh)), dk: merge(matmul(ds, qh, true)), dv: merge(matmul(drop(probs), g, true)) };
}
export const normRow = (row: number[], eps: number): { y: number[]; mean: number; rstd: number } => {
  const mean = sumOf(row) / row.length;
  const rstd = 1 / Math.sqrt(sumOf(row.map((x) => (x - mean) ** 2)) / row.length + eps);
  return { y: row.map((x) => (x - mean) * rstd), mean, rstd };
};
export const roundHalfEven = (x: number): number => {
  const f = Math.floor(x);
  return x - f === 0.5 ? (f % 2 === 0 ? f : f + 1) : Math.round(x);
};
export const codeOf = (x: number, encoding: FixedPoint): number => {
  const { scale, lo, hi } = FIXED_POINT[encoding];
  return Math.min(hi, Math.max(lo, roundHalfEven(x * scale)));
};
