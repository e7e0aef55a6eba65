/**
 * Matrix products by tiles: a workgroup computes T×T elements of the product; 16 columns of A and 16 rows of B at a time are brought into workgroup memory, as vec4 along the tile, and each thread adds up
 * R×R products in registers. Both operands may be transposed; where their rows are a multiple of 4 long they are loaded as vec4.
 *
 * A product of few tiles but a long K (a weight gradient: 768×768 over all tokens) is cut along K too, or most of a GPU would idle: each slice writes a product of its own, and `sumSlices` adds these up in
 * one order, so that equal work gives equal bits.
 */
import type { Kernel } from '../kernel';
import { elementwise } from './elementwise';

/** What a product is specialised for. */
export interface MatmulKind {
  readonly tile: 32 | 64 | 128;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  /** Whether an operand's rows in memory are a multiple of 4 elements long. */
  readonly vectorA: boolean;
  readonly vectorB: boolean;
  readonly vectorOut: boolean;
  readonly bias: boolean;
}

/** How a product is cut. */
export interface MatmulPlan {
  readonly tile: MatmulKind['tile'];
  /** Slices of K, and how long each of them is but the last. */
  readonly slices: number;
  readonly chunk: number;
}

/** Workgroups that fill a large GPU: two for each of about 130 cores. */
const ENOUGH = 256;

/** The shortest slice of K: what it costs to write a tile and read it again is a few percent of what it takes to compute one of this length. */
const SHORTEST_SLICE = 512;

/** Slices start at multiples of this: whole steps of either kernel, and whole vec4. */
const STEP = 32;

/** The largest tile that gives a large GPU enough workgroups, and as many slices of K as that takes. It depends on the shapes alone: every device cuts, and rounds, alike. */
export function matmulPlan(M: number, N: number, K: number, batches: number): MatmulPlan {
  const tiles = (t: number) => Math.ceil(M / t) * Math.ceil(N / t) * batches;
  const most = Math.max(1, Math.floor(K / SHORTEST_SLICE));
  const tile = Math.min(M, N) > 64 && tiles(128) * most >= 128 ? 128 : Math.min(M, N) > 32 && tiles(64) * most >= 32 ? 64 : 32;
  const wanted = Math.max(1, Math.min(most, Math.ceil(ENOUGH / Math.max(1, tiles(tile)))));
  const chunk = Math.max(STEP, Math.ceil(K / wanted / STEP) * STEP);
  return { tile, slices: Math.max(1, Math.ceil(K / chunk)), chunk };
}

export const matmulKey = (k: MatmulKind): string =>
  `matmul ${k.tile}${k.transposeA ? ' At' : ''}${k.transposeB ? ' Bt' : ''}${k.vectorA ? ' a4' : ''}${k.vectorB ? ' b4' : ''}${k.vectorOut ? ' y4' : ''}${k.bias ? ' bias' : ''}`;

/** How one operand is found in memory and brought into its tile. */
export interface Side {
  /** Name of the buffer. */
  readonly name: 'a' | 'b';
  /** Length of the operand's side along the tile, and where the tile starts in it. */
  readonly rows: string;
  readonly start: string;
  /** Whether neighbours in memory are neighbours along K. */
  readonly alongK: boolean;
  readonly vector: boolean;
}

/** The sides of a product. */
export function sidesOf({ transposeA, transposeB, vectorA, vectorB }: MatmulKind): { readonly a: Side; readonly b: Side } {
  return {
    a: { name: 'a', rows: 'p.M', start: 'm0', alongK: !transposeA, vector: vectorA },
    b: { name: 'b', rows: 'p.N', start: 'n0', alongK: transposeB, vector: vectorB },
  };
}

/** Position of row r and column k of an operand, from `base`. */
export const element = ({ rows, alongK }: Side, r: string, k: string): string => (alongK ? `base + (${r}) * p.K + ${k}` : `base + (${k}) * ${rows} + ${r}`);

/** One element of an operand, 0 beyond its ends. */
function elementFunction(side: Side): string {
  if (side.vector) return '';
  return `fn at_${side.name}(base: u32, r: u32, k: u32, end: u32) -> f32 { if (r < ${side.rows} && k < end) { return ${side.name}[${element(side, 'r', 'k')}]; } return 0.0; }`;
}

/** Brings block `l` of an operand into its tile: 4 along the tile by 4 along K. Neighbouring threads take what are neighbours in memory. */
function fillTile(side: Side, groups: number): string {
  const { name, rows, start, alongK, vector } = side;
  const to = (j: string) => `tile_${name}[(kq * 4u + ${j}) * ${groups}u + rg]`;
  const head = `let base = base_${name}; let kq = ${alongK ? 'l % 4u' : `l / ${groups}u`}; let rg = ${alongK ? 'l / 4u' : `l % ${groups}u`}; let r = ${start} + rg * 4u; let k = k0 + kq * 4u;`;
  if (vector && alongK) {
    const lines = [0, 1, 2, 3].map((i) => `var v${i} = vec4f(); if (r + ${i}u < ${rows} && k < end) { v${i} = ${name}[(${element(side, `r + ${i}u`, 'k')}) / 4u]; }`);
    return `${head} ${lines.join(' ')} let t = transpose(mat4x4f(v0, v1, v2, v3)); ${[0, 1, 2, 3].map((j) => `${to(`${j}u`)} = t[${j}];`).join(' ')}`;
  }
  const four = vector
    ? `var v = vec4f(); if (r < ${rows} && k + j < end) { v = ${name}[(${element(side, 'r', '(k + j)')}) / 4u]; }`
    : `let v = vec4f(${[0, 1, 2, 3].map((i) => `at_${name}(base, r + ${i}u, k + j, end)`).join(', ')});`;
  return `${head} for (var j = 0u; j < 4u; j++) { ${four} ${to('j')} = v; }`;
}

/** What is common to the kernels of a product: params and storage. */
export const matmulBindings = ({ vectorA, vectorB, vectorOut, bias }: MatmulKind): Pick<Kernel, 'params' | 'reads' | 'writes'> => ({
  params: ['M: u32', 'N: u32', 'K: u32', 'batches: u32', 'slices: u32', 'chunk: u32'],
  reads: [`a: ${vectorA ? 'vec4f' : 'f32'}`, `b: ${vectorB ? 'vec4f' : 'f32'}`, ...(bias ? ['bias: f32'] : [])],
  writes: [`y: ${vectorOut ? 'vec4f' : 'f32'}`],
});

/** Opens the walk over batches and slices: where the operands, the result and the slice of K lie. */
export const EACH_SLICE = `for (var z = wg.z; z < p.batches * p.slices; z += grid.z) {
    let base_a = z / p.slices * p.M * p.K;
    let base_b = z / p.slices * p.K * p.N;
    let out = z * p.M * p.N;
    let first = z % p.slices * p.chunk;
    let end = min(first + p.chunk, p.K);`;

/** y = Σ slices of x (+ bias), in the order of the slices: x [batches, slices, size], one thread for each element; params n, size (of one product), slices, width (of a row). */
export function sumSlices(bias: boolean): Kernel {
  const functions = `fn total(i: u32) -> f32 { let base = (i / p.size) * p.slices * p.size + i % p.size; var s = x[base]; for (var k = 1u; k < p.slices; k++) { s += x[base + k * p.size]; } return s; }`;
  return elementwise(`total(i)${bias ? ' + bias[i % p.width]' : ''}`, ['x: f32', ...(bias ? ['bias: f32'] : [])], ['size: u32', 'slices: u32', 'width: u32'], functions);
}

/** [M, K]·[K, N], `batches` times in `slices` of K, at workgroups (N/T, M/T, batch·slice). */
export function matmulKernel(kind: MatmulKind): Kernel {
  const { tile: T, vectorOut, bias } = kind;
  const R = T === 128 ? 8 : 4;
  const side = T / R;
  const G = T / 4;
  const halves = R / 4;
  const { a, b } = sidesOf(kind);
  const h = Array.from({ length: halves }, (_, i) => i);
  const lanes = ['x', 'y', 'z', 'w'];
  // c<row half><row><column half>: 4 columns each.
  const sums = h.flatMap((i) => lanes.flatMap((lane, row) => h.map((j) => ({ i, lane, row, j, name: `c${i}${row}${j}` }))));
  const put = vectorOut
    ? `if (n < p.N) { y[o / 4u] = v${bias ? ' + vec4f(bias[n], bias[n + 1u], bias[n + 2u], bias[n + 3u])' : ''}; }`
    : `for (var c = 0u; c < 4u; c++) { if (n + c < p.N) { y[o + c] = v[c]${bias ? ' + bias[n + c]' : ''}; } }`;
  return {
    ...matmulBindings(kind),
    workgroup: side * side,
    functions: `
var<workgroup> tile_a: array<vec4f, ${16 * G}>;
var<workgroup> tile_b: array<vec4f, ${16 * G}>;
${elementFunction(a)}
${elementFunction(b)}
fn put(out: u32, m: u32, n: u32, v: vec4f) { if (m < p.M) { let o = out + m * p.N + n; ${put} } }`,
    body: `
  let tx = lid % ${side}u;
  let ty = lid / ${side}u;
  let m0 = wg.y * ${T}u;
  let n0 = wg.x * ${T}u;
  ${EACH_SLICE}
    ${sums.map(({ name }) => `var ${name} = vec4f();`).join(' ')}
    for (var k0 = first; k0 < end; k0 += 16u) {
      for (var block = lid; block < ${2 * T}u; block += W) {
        if (block < ${T}u) { let l = block; ${fillTile(a, G)} } else { let l = block - ${T}u; ${fillTile(b, G)} }
      }
      workgroupBarrier();
      for (var k = 0u; k < 16u; k++) {
        ${h.map((i) => `let a${i} = tile_a[k * ${G}u + ty + ${i * side}u]; let b${i} = tile_b[k * ${G}u + tx + ${i * side}u];`).join(' ')}
        ${sums.map(({ i, lane, j, name }) => `${name} += a${i}.${lane} * b${j};`).join(' ')}
      }
      workgroupBarrier();
    }
    ${sums.map(({ i, row, j, name }) => `put(out, m0 + ${(i * T) / 2}u + ty * 4u + ${row}u, n0 + ${(j * T) / 2}u + tx * 4u, ${name});`).join('\n    ')}
  }`,
  };
}
