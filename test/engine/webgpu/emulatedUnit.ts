/**
 * A matrix unit in plain WGSL, for devices without one: a "subgroup" is so many neighbouring threads, each of which adds up its share of a matrix by reading the tiles in workgroup memory. It stands in for Dawn's builtins
 * (`subgroupMatrices`), so that all else of a mixed product, which is the same text, computes here; float16 is made of `pack2x16float`.
 */
import type { MatrixShape, MatrixUnit } from '../../../src/engine/webgpu/matrixUnit';

/** Units as the makers' drivers describe them. */
export const SHAPES = {
  nvidia: { M: 16, N: 16, K: 16, lanes: 32, mostLanes: 32 },
  amd: { M: 16, N: 16, K: 16, lanes: 64, mostLanes: 64 },
  intel: { M: 8, N: 16, K: 16, lanes: 16, mostLanes: 32 },
  apple: { M: 8, N: 8, K: 8, lanes: 32, mostLanes: 32 },
} satisfies Readonly<Record<string, MatrixShape>>;

export function emulatedUnit(shape: MatrixShape): MatrixUnit {
  const { M, N, K, lanes } = shape;
  const share = (M * N) / lanes;
  const each = (body: string) => `for (var j = 0u; j < ${share}u; j++) { let e = lane + j * ${lanes}u; let m = e / ${N}u; let n = e % ${N}u; ${body} }`;
  return {
    ...shape,
    enables: [],
    attributes: '',
    builtins: [],
    prologue: `let sg = lid / ${lanes}u; lane = lid % ${lanes}u;`,
    functions: ({ stepA, alongA, stepB, alongB, stepBias, vectorOut }) => `
alias Halves = vec2u;
alias Left = u32;
alias Right = u32;
alias Sum = array<f32, ${share}>;
var<private> lane: u32;
fn halves(v: vec4f) -> Halves { return vec2u(pack2x16float(v.xy), pack2x16float(v.zw)); }
fn half_of(h: Halves, i: u32) -> f32 { return unpack2x16float(h[i / 2u])[i % 2u]; }
fn half_a(at: u32, m: u32, k: u32) -> f32 { let i = 4u * at + ${alongA ? `m * ${4 * stepA}u + k` : `k * ${4 * stepA}u + m`}; return half_of(tile_a[i / 4u], i % 4u); }
fn half_b(at: u32, k: u32, n: u32) -> f32 { let i = 4u * at + ${alongB ? `n * ${4 * stepB}u + k` : `k * ${4 * stepB}u + n`}; return half_of(tile_b[i / 4u], i % 4u); }
fn left(at: u32) -> Left { return at; }
fn right(at: u32) -> Right { return at; }
${stepBias ? `fn biases(at: u32) -> Sum { var s = Sum(); ${each(`s[j] = cells[at + m * ${stepBias}u + n];`)} return s; }` : ''}
fn multiply(l: Left, r: Right, sum: Sum) -> Sum { var s = sum; ${each(`for (var k = 0u; k < ${K}u; k++) { s[j] += half_a(l, m, k) * half_b(r, k, n); }`)} return s; }
fn store(at: u32, sum: Sum) { var s = sum; ${each('cells[at + e] = s[j];')} }
${vectorOut ? `fn put(at: u32, sum: Sum) { var s = sum; ${each('y[at + m * (p.N / 4u) + n / 4u][n % 4u] = s[j];')} }` : ''}`,
  };
}
