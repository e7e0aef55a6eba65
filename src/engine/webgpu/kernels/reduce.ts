/**
 * Reductions of the middle axis of [outer, n, inner], in an order that is always the same. Short axes are summed by one thread each; long rows by a workgroup each; long columns by workgroups of 32 columns
 * and 8 lanes; very long ones in parts, which the caller reduces once more.
 */
import { type Kernel, EACH } from '../kernel';
import { workgroupReduce } from './mathFunctions';

export type ReduceOp = 'sum' | 'max';

/** What is reduced: an element, or the product of two of equal position. */
export type Operand = 'x' | 'x·y';

const COMBINE: Readonly<Record<ReduceOp, string>> = { sum: 'a + b', max: 'max(a, b)' };
const reads = (of: Operand): string[] => (of === 'x' ? ['x: f32'] : ['x: f32', 'y: f32']);
const at = (of: Operand, index: string): string => (of === 'x' ? `x[${index}]` : `x[${index}] * y[${index}]`);

/** What a thread starts from: nothing, or an element of the same result. */
const start = (op: ReduceOp, element: string): string => (op === 'sum' ? '0.0' : element);

/** One thread for each result, which walks over the axis: params n (results), axis, inner, scale. */
export function reduceThread(op: ReduceOp, of: Operand): Kernel {
  return {
    params: ['n: u32', 'axis: u32', 'inner: u32', 'scale: f32'],
    reads: reads(of),
    writes: ['r: f32'],
    workgroup: 64,
    body: `${EACH}
  let base = (i / p.inner) * p.axis * p.inner + i % p.inner;
  var a = ${start(op, at(of, 'base'))};
  for (var k = 0u; k < p.axis; k++) { let b = ${at(of, 'base + k * p.inner')}; a = ${COMBINE[op]}; }
  r[i] = a * p.scale;`,
  };
}

/** One workgroup for each part of a row: params rows (rows·parts), axis, parts, chunk (elements of a part), scale. */
export function reduceRows(op: ReduceOp, of: Operand, workgroup: number): Kernel {
  return {
    params: ['rows: u32', 'axis: u32', 'parts: u32', 'chunk: u32', 'scale: f32'],
    reads: reads(of),
    writes: ['r: f32'],
    workgroup,
    functions: workgroupReduce('all', COMBINE[op]),
    body: `  let part = wg.y * grid.x + wg.x; if (part >= p.rows) { return; }
  let base = (part / p.parts) * p.axis;
  let first = (part % p.parts) * p.chunk;
  let end = min(first + p.chunk, p.axis);
  var a = ${start(op, at(of, 'base + min(first, p.axis - 1u)'))};
  for (var k = first + lid; k < end; k += W) { let b = ${at(of, 'base + k')}; a = ${COMBINE[op]}; }
  let total = all(a, lid);
  if (lid == 0u) { r[part] = total * p.scale; }`,
  };
}

/** Workgroups of 32 columns by 8 lanes, at (columns, part, outer): params axis, inner, parts, chunk, scale → [outer, parts, inner]. */
export function reduceColumns(op: ReduceOp, of: Operand): Kernel {
  return {
    params: ['axis: u32', 'inner: u32', 'parts: u32', 'chunk: u32', 'scale: f32'],
    reads: reads(of),
    writes: ['r: f32'],
    workgroup: 256,
    functions: 'var<workgroup> cells: array<f32, W>;',
    body: `  let column = wg.x * 32u + lid % 32u;
  let lane = lid / 32u;
  let first = wg.y * p.chunk;
  let end = min(first + p.chunk, p.axis);
  let base = wg.z * p.axis * p.inner + column;
  var a = ${start(op, at(of, 'base + min(first, p.axis - 1u) * p.inner'))};
  if (column < p.inner) { for (var k = first + lane; k < end; k += 8u) { let b = ${at(of, 'base + k * p.inner')}; a = ${COMBINE[op]}; } }
  cells[lid] = a;
  workgroupBarrier();
  for (var s = 4u; s > 0u; s = s >> 1u) {
    if (lane < s) { let a = cells[lid]; let b = cells[lid + s * 32u]; cells[lid] = ${COMBINE[op]}; }
    workgroupBarrier();
  }
  if (lane == 0u && column < p.inner) { r[(wg.z * p.parts + wg.y) * p.inner + column] = cells[lid] * p.scale; }`,
  };
}
