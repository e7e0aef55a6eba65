/** One workgroup for each row: softmax, layer norm and their gradients. A row is read two or three times, all but the first from the cache. */
import type { FixedPoint } from '../../engine';
import { EACH_ROW, type Kernel } from '../kernel';
import { decodeFunction, rowCodeFunction } from './codes';
import { EXACT_DIVISION, EXP, MAX_ALL, SUM_ALL } from './mathFunctions';

/** Threads for a row of that length. */
export function rowWorkgroup(width: number): number {
  return width <= 256 ? 64 : width <= 1024 ? 128 : 256;
}

/** Walks over the row: `k` is the position within it, `o` that in the tensor. */
const over = (statement: string): string => `for (var k = lid; k < p.width; k += W) { let o = base + k; ${statement} }`;

const BASE = `${EACH_ROW}\n  let base = row * p.width;`;

/** softmax(x·scale + mask): params rows, width, scale, perMask (rows that share one row of the mask). */
export function softmaxKernel(mask: boolean, workgroup: number): Kernel {
  const x = `x[o] * p.scale${mask ? ' + mask[maskBase + k]' : ''}`;
  return {
    params: ['rows: u32', 'width: u32', 'scale: f32', 'perMask: u32'],
    reads: ['x: f32', ...(mask ? ['mask: f32'] : [])],
    writes: ['y: f32'],
    workgroup,
    functions: EXP + SUM_ALL + MAX_ALL,
    body: `${BASE}
  let maskBase = row / p.perMask * p.width;
  var top = x[base] * p.scale${mask ? ' + mask[maskBase]' : ''};
  ${over(`top = max(top, ${x});`)}
  top = maxAll(top, lid);
  var total = 0.0;
  ${over(`let e = expOf(${x} - top); y[o] = e; total += e;`)}
  total = sumAll(total, lid);
  ${over('y[o] = y[o] / total;')}`,
  };
}

/** p∘(g − rowsum(g∘p)): params rows, width. */
export function softmaxGradKernel(workgroup: number): Kernel {
  return {
    params: ['rows: u32', 'width: u32'],
    reads: ['g: f32', 'probs: f32'],
    writes: ['y: f32'],
    workgroup,
    functions: SUM_ALL,
    body: `${BASE}
  var dot = 0.0;
  ${over('dot += g[o] * probs[o];')}
  dot = sumAll(dot, lid);
  ${over('y[o] = probs[o] * (g[o] - dot);')}`,
  };
}

const STATISTICS = `
  var total = 0.0;
  ${over('total += x[o];')}
  let mean = sumAll(total, lid) / f32(p.width);
  var squares = 0.0;
  ${over('let c = x[o] - mean; squares += c * c;')}
  let rstd = 1.0 / sqrt(sumAll(squares, lid) / f32(p.width) + p.eps);`;

/** (x − mean)·rstd·weight + bias: params rows, width, eps. */
export function layerNormKernel(workgroup: number): Kernel {
  return {
    params: ['rows: u32', 'width: u32', 'eps: f32'],
    reads: ['x: f32', 'weight: f32', 'bias: f32'],
    writes: ['y: f32'],
    workgroup,
    functions: SUM_ALL,
    body: `${BASE}${STATISTICS}
  ${over('y[o] = (x[o] - mean) * rstd * weight[k] + bias[k];')}`,
  };
}

/** Mean and rstd of each row: params rows, width, eps. */
export function rowStatsKernel(workgroup: number): Kernel {
  return {
    params: ['rows: u32', 'width: u32', 'eps: f32'],
    reads: ['x: f32'],
    writes: ['means: f32', 'rstds: f32'],
    workgroup,
    functions: SUM_ALL,
    body: `${BASE}${STATISTICS}
  if (lid == 0u) { means[row] = mean; rstds[row] = rstd; }`,
  };
}

/** ŷ in 8-bit codes with a step for each row of whole words, the steps, and rstd: params rows, width, eps, hi. */
export function normalizeEncodeKernel(codes: FixedPoint, workgroup: number): Kernel {
  return {
    params: ['rows: u32', 'width: u32', 'eps: f32', 'hi: f32'],
    reads: ['x: f32'],
    writes: ['words: u32', 'steps: f32', 'rstds: f32'],
    workgroup,
    functions: SUM_ALL + MAX_ALL + EXACT_DIVISION + rowCodeFunction(codes),
    body: `${BASE}${STATISTICS}
  var top = 0.0;
  ${over('top = max(top, abs((x[o] - mean) * rstd));')}
  let step = exactDiv(maxAll(top, lid), p.hi);
  if (lid == 0u) { steps[row] = step; rstds[row] = rstd; }
  for (var k = lid; k < p.width / 4u; k += W) {
    var word = 0u;
    for (var j = 0u; j < 4u; j++) { word |= rowCode((x[base + 4u * k + j] - mean) * rstd, step) << (8u * j); }
    words[base / 4u + k] = word;
  }`,
  };
}

/** How a layer norm's ŷ lies in codes. */
export interface LayerNormCodes {
  readonly encoding: FixedPoint;
  /** Whether each row has a step of its own. */
  readonly steps: boolean;
}

/** With h = g·weight: rstd·(h − mean(h) − mean(h·ŷ)·ŷ): params rows, width, and, of codes, half (codes.ts). */
export function layerNormGradKernel(workgroup: number, codes?: LayerNormCodes): Kernel {
  const y = !codes ? 'normalized[o]' : codes.steps ? 'decoded(o) * step' : 'decoded(o)';
  return {
    params: ['rows: u32', 'width: u32', ...(codes ? ['half: u32'] : [])],
    reads: ['g: f32', ...(codes ? ['words: u32', ...(codes.steps ? ['steps: f32'] : [])] : ['normalized: f32']), 'rstd: f32', 'weight: f32'],
    writes: ['y: f32'],
    workgroup,
    functions: SUM_ALL + (codes ? decodeFunction(codes.encoding) : ''),
    body: `${BASE}${codes?.steps ? '\n  let step = steps[row];' : ''}
  var total = 0.0;
  var along = 0.0;
  ${over(`let h = g[o] * weight[k]; total += h; along += h * (${y});`)}
  let mean = sumAll(total, lid) / f32(p.width);
  let slope = sumAll(along, lid) / f32(p.width);
  let r = rstd[row];
  ${over(`y[o] = r * (g[o] * weight[k] - mean - slope * (${y}));`)}`,
  };
}
