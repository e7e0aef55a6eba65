/**
 * Matrix products on matrix units: operands of float32 are rounded to float16 on their way into workgroup memory, products are summed in float32. A workgroup computes T×T elements, each of its subgroups a
 * rectangle of them in registers; 32 columns of A and 32 rows of B at a time lie in workgroup memory, in the order that they have in the buffers (a transposed operand is read along its columns), and the next
 * ones are fetched into registers meanwhile.
 *
 * A step of a tile of 128 multiplies 2·128·128·32 = 1.05 MFLOP for 32 KiB fetched: 32 FLOP a byte from memory or its caches, which is what bounds it.
 */
import type { Kernel } from '../kernel';
import type { MatrixAccess, MatrixShape, MatrixUnit } from '../matrixUnit';
import { EACH_SLICE, element, matmulBindings, type MatmulKind, matmulPlan, type MatmulPlan, type Side, sidesOf } from './matmul';

/** Columns of A that lie in workgroup memory. */
const STEP = 32;

/** Halves between the rows of a tile, so that eight rows lie in eight different banks of 16 bytes. */
const PAD = 8;

/** A tile of 128 takes 256 threads, one of 64 takes 128: each fetches four vec4f of either operand. */
export const mixedThreads = (tile: number): number => 2 * tile;

/** Rows and columns of a tile that one subgroup computes: as near to a square as can be, so that it loads least; undefined where the unit does not divide a tile. */
export function rectangleOf(tile: number, { M, N, lanes }: MatrixShape): { readonly rows: number; readonly columns: number } | undefined {
  const subgroups = mixedThreads(tile) / lanes;
  let best: { rows: number; columns: number } | undefined;
  for (let down = 1; down <= subgroups; down *= 2) {
    const [rows, columns] = [tile / down, (tile * down) / subgroups];
    if (rows % M !== 0 || columns % N !== 0 || columns > tile) continue;
    if (!best || rows + columns < best.rows + best.columns) best = { rows, columns };
  }
  return best;
}

/** How matrix units cut a product; undefined where it is too small for them, and float32 costs nothing. */
export function mixedPlan(M: number, N: number, K: number, batches: number): MatmulPlan | undefined {
  const plan = matmulPlan(M, N, K, batches);
  return plan.tile >= 64 && K >= STEP ? plan : undefined;
}

/** One operand: `fetch_a(base, start, k0, end, l)` gives the l-th four of a tile, neighbours in memory, 0 beyond the operand's ends; `place_a(l)` is where they lie in tile_a. */
function sideFunctions(side: Side, T: number): string {
  const { name, rows, alongK, vector } = side;
  const across = (alongK ? STEP : T) / 4;
  const [row, k] = alongK ? [`start + l / ${across}u`, `k0 + l % ${across}u * 4u`] : [`start + l % ${across}u * 4u`, `k0 + l / ${across}u`];
  // Without branches: a driver schedules the loads of a step all at once, and a software one compiles them in reasonable time.
  const one = (zero: string, r: string, k: string, four: string) => `select(${zero}, ${name}[select(0u, (${element(side, r, k)})${four}, (${r} < ${rows}) & (${k} < end))], (${r} < ${rows}) & (${k} < end))`;
  const value = vector ? one('vec4f()', 'r', 'k', ' / 4u') : `vec4f(${[0, 1, 2, 3].map((i) => (alongK ? one('0.0', 'r', `(k + ${i}u)`, '') : one('0.0', `(r + ${i}u)`, 'k', ''))).join(', ')})`;
  return `fn fetch_${name}(base: u32, start: u32, k0: u32, end: u32, l: u32) -> vec4f { let r = ${row}; let k = ${k}; return ${value}; }
fn place_${name}(l: u32) -> u32 { return l / ${across}u * ${stepOf(side, T)}u + l % ${across}u; }`;
}

/** From a row of a tile to the next, in fours. */
const stepOf = ({ alongK }: Side, T: number): number => ((alongK ? STEP : T) + PAD) / 4;

/** Where a unit's matrix begins in a tile. @param r its row, an expression that is a multiple of 8 @param k its column, likewise */
const cornerOf = (side: Side, T: number, r: string, k: number): string => (side.alongK ? `(${r}) * ${stepOf(side, T)}u + ${k / 4}u` : `${k * stepOf(side, T)}u + (${r}) / 4u`);

/** [M, K]·[K, N] as `matmulKernel`, for tiles of 64 and 128. */
export function mixedMatmulKernel(kind: MatmulKind, unit: MatrixUnit): Kernel {
  const { tile: T, vectorOut, bias } = kind;
  const { a, b } = sidesOf(kind);
  const { M, N, K } = unit;
  const W = mixedThreads(T);
  const rectangle = rectangleOf(T, unit);
  if (!rectangle) throw new Error(`no subgroup of ${unit.lanes} threads computes a whole number of ${M}×${N} of a tile of ${T}`);
  const { rows, columns } = rectangle;
  const across = T / columns;
  const subgroups = W / unit.lanes;
  const count = (n: number) => Array.from({ length: n }, (_, i) => i);
  const [down, right] = [count(rows / M), count(columns / N)];
  const sums = down.flatMap((i) => right.map((j) => ({ i, j, name: `c${i}_${j}` })));
  const fetches = count((T * STEP) / 4 / W);
  const length = (side: Side) => (side.alongK ? T : STEP) * stepOf(side, T);
  const cells = Math.max(subgroups * M * N, bias ? M * T : 0);
  const fetch = (side: Side, k0: string) => fetches.map((f) => `next_${side.name}${f} = fetch_${side.name}(base_${side.name}, ${side.start}, ${k0}, end, lid + ${f * W}u);`).join(' ');
  const accesses: MatrixAccess[] = [
    { name: 'left', of: 'Left', array: 'tile_a', vectors: true, step: stepOf(a, T), rows: a.alongK },
    { name: 'right', of: 'Right', array: 'tile_b', vectors: true, step: stepOf(b, T), rows: !b.alongK },
    { name: 'store', of: 'put', array: 'cells', vectors: false, step: N, rows: true },
    ...(bias ? [{ name: 'biases', of: 'Sum', array: 'cells', vectors: false, step: T, rows: true } as const] : []),
    ...(vectorOut ? [{ name: 'put', of: 'put', array: 'y', vectors: true, step: 'p.N / 4u', rows: true } as const] : []),
  ];
  const multiply = count(STEP / K)
    .map((s) => {
      const rights = right.map((j) => `let r${j} = right(${cornerOf(b, T, `column + ${j * N}u`, s * K)});`);
      return `{ ${rights.join(' ')}\n        ${down.map((i) => `{ let l = left(${cornerOf(a, T, `row + ${i * M}u`, s * K)}); ${right.map((j) => `c${i}_${j} = multiply(l, r${j}, c${i}_${j});`).join(' ')} }`).join('\n        ')} }`;
    })
    .join('\n      ');
  // Beyond the edges a subgroup's matrix goes through cells, from where each element is written that is inside.
  const edge = vectorOut
    ? `for (var i = lid; i < ${(subgroups * M * N) / 4}u; i += W) {
          let s = i / ${(M * N) / 4}u; let e = i % ${(M * N) / 4}u * 4u;
          let m = m0 + s / ${across}u * ${rows}u + at_m + e / ${N}u; let n = n0 + s % ${across}u * ${columns}u + at_n + e % ${N}u;
          if (m < p.M && n < p.N) { y[(out + m * p.N + n) / 4u] = vec4f(cells[4u * i], cells[4u * i + 1u], cells[4u * i + 2u], cells[4u * i + 3u]); }
        }`
    : `for (var i = lid; i < ${subgroups * M * N}u; i += W) {
          let s = i / ${M * N}u; let e = i % ${M * N}u;
          let m = m0 + s / ${across}u * ${rows}u + at_m + e / ${N}u; let n = n0 + s % ${across}u * ${columns}u + at_n + e % ${N}u;
          if (m < p.M && n < p.N) { y[out + m * p.N + n] = cells[i]; }
        }`;
  const throughCells = sums.map(({ i, j, name }) => `store(sg * ${M * N}u, ${name}); workgroupBarrier(); drain(m0, n0, ${i * M}u, ${j * N}u, out, lid); workgroupBarrier();`).join('\n      ');
  return {
    ...matmulBindings(kind),
    workgroup: W,
    enables: unit.enables,
    attributes: unit.attributes,
    builtins: unit.builtins,
    functions: `${unit.functions(accesses)}
var<workgroup> tile_a: array<Halves, ${length(a)}>;
var<workgroup> tile_b: array<Halves, ${length(b)}>;
var<workgroup> cells: array<f32, ${cells}>;
${sideFunctions(a, T)}
${sideFunctions(b, T)}
fn drain(m0: u32, n0: u32, at_m: u32, at_n: u32, out: u32, lid: u32) {
        ${edge}
}`,
    body: `
  ${unit.prologue}
  let m0 = wg.y * ${T}u;
  let n0 = wg.x * ${T}u;
  let row = sg / ${across}u * ${rows}u;
  let column = sg % ${across}u * ${columns}u;
  ${EACH_SLICE}
    ${
      bias
        ? `for (var i = lid; i < ${M * T}u; i += W) { let n = n0 + i % ${T}u; var v = 0.0; if (n < p.N) { v = bias[n]; } cells[i] = v; }
    workgroupBarrier();
    ${sums.map(({ j, name }) => `var ${name} = biases(column + ${j * N}u);`).join(' ')}`
        : sums.map(({ name }) => `var ${name} = Sum();`).join(' ')
    }
    ${[a, b].map((side) => fetches.map((f) => `var next_${side.name}${f} = vec4f();`).join(' ')).join(' ')}
    ${fetch(a, 'first')} ${fetch(b, 'first')}
    for (var k0 = first; k0 < end; k0 += ${STEP}u) {
      ${[a, b].map(({ name }) => fetches.map((f) => `tile_${name}[place_${name}(lid + ${f * W}u)] = halves(next_${name}${f});`).join(' ')).join('\n      ')}
      workgroupBarrier();
      ${fetch(a, `k0 + ${STEP}u`)}
      ${fetch(b, `k0 + ${STEP}u`)}
      ${multiply}
      workgroupBarrier();
    }
    ${
      vectorOut
        ? `if (m0 + ${T}u <= p.M && n0 + ${T}u <= p.N) {
      ${sums.map(({ i, j, name }) => `put((out + (m0 + row + ${i * M}u) * p.N + n0 + column + ${j * N}u) / 4u, ${name});`).join('\n      ')}
    } else {
      ${throughCells}
    }`
        : throughCells
    }
  }`,
  };
}
