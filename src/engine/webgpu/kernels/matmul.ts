/**
 * Matrix products by tiles: a workgroup computes T×T elements of the product; 16 columns of A and 16 rows of B at a time are brought into workgroup memory, as vec4 along the tile, and each thread adds up
 * R×R products in registers. Both operands may be transposed; where their rows are a multiple of 4 long they are loaded as vec4.
 */
import type { Kernel } from '../kernel';

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

/** The tile for a product of M×N, `batches` times: the largest that gives a large GPU enough workgroups. */
export function tileFor(M: number, N: number, batches: number): MatmulKind['tile'] {
  const tiles = (t: number) => Math.ceil(M / t) * Math.ceil(N / t) * batches;
  if (Math.min(M, N) > 64 && tiles(128) >= 128) return 128;
  return Math.min(M, N) > 32 && tiles(64) >= 32 ? 64 : 32;
}

export const matmulKey = (k: MatmulKind): string =>
  `matmul ${k.tile}${k.transposeA ? ' At' : ''}${k.transposeB ? ' Bt' : ''}${k.vectorA ? ' a4' : ''}${k.vectorB ? ' b4' : ''}${k.vectorOut ? ' y4' : ''}${k.bias ? ' bias' : ''}`;

/**
 * A function that loads a block of 4 (along the tile, from r0) by 4 (along K, from k0) as columns of a matrix: column j holds K index k0 + j.
 * @param alongK whether neighbours in memory are neighbours along K
 * @param rows length of the operand's other side
 */
function loader(name: string, rows: string, alongK: boolean, vector: boolean): string {
  const element = (r: string, k: string) => (alongK ? `base + (${r}) * p.K + ${k}` : `base + (${k}) * ${rows} + ${r}`);
  const four = [0, 1, 2, 3];
  if (vector) {
    const line = (j: number) => {
      const [r, k] = alongK ? [`r0 + ${j}u`, 'k0'] : ['r0', `k0 + ${j}u`];
      return `  var l${j} = vec4f(); if (${r} < ${rows} && ${k} < p.K) { l${j} = ${name}[(${element(r, k)}) / 4u]; }`;
    };
    const matrix = 'mat4x4f(l0, l1, l2, l3)';
    return `fn load_${name}(base: u32, r0: u32, k0: u32) -> mat4x4f {\n${four.map(line).join('\n')}\n  return ${alongK ? `transpose(${matrix})` : matrix};\n}`;
  }
  return `fn at_${name}(base: u32, r: u32, k: u32) -> f32 {
  if (r < ${rows} && k < p.K) { return ${name}[${element('r', 'k')}]; }
  return 0.0;
}
fn load_${name}(base: u32, r0: u32, k0: u32) -> mat4x4f {
  return mat4x4f(${four.map((j) => `vec4f(${four.map((i) => `at_${name}(base, r0 + ${i}u, k0 + ${j}u)`).join(', ')})`).join(',\n    ')});
}`;
}

/** [M, K]·[K, N], `batches` times, at workgroups (N/T, M/T, batch): params M, N, K, batches. */
export function matmulKernel({ tile: T, transposeA, transposeB, vectorA, vectorB, vectorOut, bias }: MatmulKind): Kernel {
  const R = T === 128 ? 8 : 4;
  const side = T / R;
  const G = T / 4;
  const halves = R / 4;
  const [alongKA, alongKB] = [!transposeA, transposeB];
  const h = Array.from({ length: halves }, (_, i) => i);
  const four = [0, 1, 2, 3];
  const block = (alongK: boolean) => (alongK ? '{ kq = b % 4u; rg = b / 4u; }' : `{ kq = b / ${G}u; rg = b % ${G}u; }`);
  const lanes = ['x', 'y', 'z', 'w'];
  // acc<row half><row><column half>: 4 columns each.
  const acc = h.flatMap((a) => four.flatMap((i) => h.map((b) => ({ a, i, b, name: `c${a}${i}${b}` }))));
  const store = ({ a, i, b, name }: (typeof acc)[number]) => {
    const head = `{ let m = m0 + ${a * (T / 2)}u + ty * 4u + ${i}u; let n = n0 + ${b * (T / 2)}u + tx * 4u; if (m < p.M) { let o = out + m * p.N + n;`;
    const value = (c: number) => `${name}.${lanes[c]}${bias ? ` + bias[n + ${c}u]` : ''}`;
    if (vectorOut) return `${head} if (n < p.N) { y[o / 4u] = vec4f(${four.map(value).join(', ')}); } } }`;
    return `${head} ${four.map((c) => `if (n + ${c}u < p.N) { y[o + ${c}u] = ${value(c)}; }`).join(' ')} } }`;
  };
  return {
    params: ['M: u32', 'N: u32', 'K: u32', 'batches: u32'],
    reads: [`a: ${vectorA ? 'vec4f' : 'f32'}`, `b: ${vectorB ? 'vec4f' : 'f32'}`, ...(bias ? ['bias: f32'] : [])],
    writes: [`y: ${vectorOut ? 'vec4f' : 'f32'}`],
    workgroup: side * side,
    functions: `
var<workgroup> tileA: array<vec4f, ${16 * G}>;
var<workgroup> tileB: array<vec4f, ${16 * G}>;
${loader('a', 'p.M', alongKA, vectorA)}
${loader('b', 'p.N', alongKB, vectorB)}`,
    body: `
  let tx = lid % ${side}u;
  let ty = lid / ${side}u;
  let m0 = wg.y * ${T}u;
  let n0 = wg.x * ${T}u;
  for (var z = wg.z; z < p.batches; z += grid.z) {
    let baseA = z * p.M * p.K;
    let baseB = z * p.K * p.N;
    let out = z * p.M * p.N;
    ${acc.map(({ name }) => `var ${name} = vec4f();`).join(' ')}
    for (var k0 = 0u; k0 < p.K; k0 += 16u) {
      for (var l = lid; l < ${2 * T}u; l += W) {
        var kq: u32; var rg: u32;
        if (l < ${T}u) {
          let b = l;
          ${block(alongKA)}
          let v = load_a(baseA, m0 + rg * 4u, k0 + kq * 4u);
          ${four.map((j) => `tileA[(kq * 4u + ${j}u) * ${G}u + rg] = v[${j}];`).join(' ')}
        } else {
          let b = l - ${T}u;
          ${block(alongKB)}
          let v = load_b(baseB, n0 + rg * 4u, k0 + kq * 4u);
          ${four.map((j) => `tileB[(kq * 4u + ${j}u) * ${G}u + rg] = v[${j}];`).join(' ')}
        }
      }
      workgroupBarrier();
      for (var k = 0u; k < 16u; k++) {
        ${h.map((i) => `let a${i} = tileA[k * ${G}u + ty + ${i * side}u]; let b${i} = tileB[k * ${G}u + tx + ${i * side}u];`).join(' ')}
        ${acc.map(({ a, i, b, name }) => `${name} += a${a}.${lanes[i]} * b${b};`).join(' ')}
      }
      workgroupBarrier();
    }
    ${acc.map(store).join('\n    ')}
  }`,
  };
}
