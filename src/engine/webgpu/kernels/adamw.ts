/**
 * One AdamW step in place, in one pass: m ← β1·m + (1−β1)·g; v ← β2·v + (1−β2)·g²; w ← w − rate·m/(sqrt(v) + eps); then w ← w − decay·w. The update magnitude comes out of the same pass: each workgroup
 * writes two partial sums of its own elements, and a second kernel adds them up.
 */
import type { UpdateMagnitude } from '../../engine';
import type { Kernel } from '../kernel';
import { MAX_ALL, SUM_ALL } from './mathFunctions';

/** Elements of a workgroup: 16 for each thread. */
export const ADAMW_CHUNK = 4096;

/**
 * What a workgroup adds up: of `relative-l2` Σw² and Σ(Δw)²; of `loss-change` Σg·Δw; of `mean-relative` Σ|Δw/w| over weights other than 0, and the worst that the others do: 0 nothing, 1 infinite (one moved), 2 NaN (one stayed).
 * WGSL lets a device take NaN and infinity for impossible, so they are carried as numbers and put in at the end.
 */
const PARTIAL: Readonly<Record<UpdateMagnitude, string>> = {
  'relative-l2': 'first += before * before; let moved = step + p.decay * stepped; second += moved * moved;',
  'loss-change': 'first += g[i] * (before - after);',
  'mean-relative': `let moved = abs(before - after);
      if (before != 0.0) { first += moved / abs(before); } else { second = max(second, select(1.0, 2.0, moved == 0.0)); }`,
};

/** The magnitude from `a` and `b`, sums over all of the weight divided by n (but for the worst of `mean-relative`, which is no sum). */
const RESULT: Readonly<Record<UpdateMagnitude, string>> = {
  'relative-l2': 'y[0] = bitcast<u32>(sqrt(b / max(max(a, b), 1.17549435e-38)));',
  'loss-change': 'y[0] = bitcast<u32>(abs(a) * f32(p.n));',
  'mean-relative': 'y[0] = select(select(bitcast<u32>(a), p.infinite, b == 1.0), p.nan, b == 2.0);',
};

/**
 * params n, rate, beta1, rest1 (1 − β1), beta2, rest2, eps, decay, begun (batches begun: unless as many are done, the gradient may be of lost work, and nothing is updated).
 * @param whole whether one workgroup has all of the weight, and gives the magnitude itself: params infinite, nan
 */
export function adamwKernel(magnitude: UpdateMagnitude | undefined, whole = false): Kernel {
  const b = magnitude === 'relative-l2' ? 'sumAll(second, lid)' : 'maxAll(second, lid)';
  const result = !magnitude
    ? ''
    : whole
      ? `let a = sumAll(first, lid) / f32(p.n); let b = ${b}${magnitude === 'relative-l2' ? ' / f32(p.n)' : ''}; if (lid == 0u) { ${RESULT[magnitude]} }`
      : `let a = sumAll(first, lid); let b = ${b}; if (lid == 0u) { parts[2u * part] = a; parts[2u * part + 1u] = b; }`;
  return {
    params: ['n: u32', 'rate: f32', 'beta1: f32', 'rest1: f32', 'beta2: f32', 'rest2: f32', 'eps: f32', 'decay: f32', 'begun: u32', ...(magnitude && whole ? ['infinite: u32', 'nan: u32'] : [])],
    reads: ['g: f32', 'done: u32'],
    writes: ['w: f32', 'm: f32', 'v: f32', ...(magnitude ? [whole ? 'y: u32' : 'parts: f32'] : [])],
    workgroup: 256,
    functions: magnitude ? SUM_ALL + MAX_ALL : '',
    body: `
  if (done[0] != p.begun) { return; }
  let part = wg.y * grid.x + wg.x;
  if (part * ${ADAMW_CHUNK}u >= p.n) { return; }
  var first = 0.0;
  var second = 0.0;
  for (var k = 0u; k < ${ADAMW_CHUNK / 256}u; k++) {
    let i = part * ${ADAMW_CHUNK}u + k * W + lid;
    if (i < p.n) {
      let before = w[i];
      let m1 = p.beta1 * m[i] + p.rest1 * g[i];
      let v1 = p.beta2 * v[i] + p.rest2 * (g[i] * g[i]);
      let step = p.rate * (m1 / (sqrt(v1) + p.eps));
      let stepped = before - step;
      let after = stepped - p.decay * stepped;
      w[i] = after;
      m[i] = m1;
      v[i] = v1;
      ${magnitude ? PARTIAL[magnitude] : ''}
    }
  }
  ${result}`,
  };
}

/** The magnitude from the partial sums: params count, n, infinite, nan (the bits of these two values). */
export function magnitudeKernel(magnitude: UpdateMagnitude): Kernel {
  const l2 = magnitude === 'relative-l2';
  return {
    params: ['count: u32', 'n: f32', 'infinite: u32', 'nan: u32'],
    reads: ['parts: f32'],
    writes: ['y: u32'],
    workgroup: 256,
    functions: SUM_ALL + MAX_ALL,
    body: `
  var first = 0.0;
  var second = 0.0;
  for (var k = lid; k < p.count; k += W) { first += parts[2u * k]; second = ${l2 ? 'second + parts[2u * k + 1u]' : 'max(second, parts[2u * k + 1u])'}; }
  let a = sumAll(first, lid) / p.n;
  let b = ${l2 ? 'sumAll(second, lid) / p.n' : 'maxAll(second, lid)'};
  if (lid == 0u) { ${RESULT[magnitude]} }`,
  };
}
