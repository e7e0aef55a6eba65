/**
 * A matrix unit in plain WGSL, for devices without one: a "subgroup" is so many neighbouring threads, each of which adds up its share of a matrix by reading the tiles in workgroup memory. It stands in for Dawn's builtins
 * (`subgroupMatrices`), so that all else of a mixed product, which is the same text, computes here; float16 is made of `pack2x16float`.
 */
import type { MatrixAccess, MatrixShape, MatrixUnit } from '../../../src/engine/webgpu/matrixUnit';

/** Units as the makers' drivers describe them. */
export const SHAPES = {
  nvidia: { M: 16, N: 16, K: 16, lanes: 32, mostLanes: 32 },
  amd: { M: 16, N: 16, K: 16, lanes: 64, mostLanes: 64 },
  intel: { M: 8, N: 16, K: 16, lanes: 16, mostLanes: 32 },
  apple: { M: 8, N: 8, K: 8, lanes: 32, mostLanes: 32 },
} satisfies Readonly<Record<string, MatrixShape>>;

export function emulatedUnit(shape: MatrixShape): MatrixUnit {
  const { M, N, K, lanes } = shape;
  // Several threads share a row of a sum: each holds the whole row of a left operand, and so many columns of the sum.
  const perRow = lanes / M;
  const share = N / perRow;
  const each = (body: string) => `for (var j = 0u; j < ${share}u; j++) { let n = lane % ${perRow}u * ${share}u + j; ${body} }`;
  const access = ({ name, of, array, vectors, step, rows }: MatrixAccess): string => {
    const by = typeof step === 'number' ? `${step}u` : `(${step})`;
    const [across, along] = rows ? [vectors ? `4u * ${by}` : by, '1u'] : ['1u', vectors ? `4u * ${by}` : by];
    const first = vectors ? '4u * at' : 'at';
    const element = vectors ? `${array}[i / 4u][i % 4u]` : `${array}[i]`;
    if (of === 'Right') return `fn ${name}(at: u32) -> Right { return vec3u(4u * at, ${across}, ${along}); }`;
    if (of === 'Left')
      return `fn ${name}(at: u32) -> Left { var l = Left(); for (var k = 0u; k < ${K}u; k++) { let i = 4u * at + lane / ${perRow}u * ${across} + k * ${along}; l[k] = half_of(${array}[i / 4u], i % 4u); } return l; }`;
    const body = (what: string) => each(`let i = ${first} + lane / ${perRow}u * ${across} + n * ${along}; ${what}`);
    return of === 'put' ? `fn ${name}(at: u32, sum: Sum) { var s = sum; ${body(`${element} = s[j];`)} }` : `fn ${name}(at: u32) -> Sum { var s = Sum(); ${body(`s[j] = ${element};`)} return s; }`;
  };
  return {
    ...shape,
    enables: [],
    attributes: '',
    builtins: [],
    prologue: `let sg = lid / ${lanes}u; lane = lid % ${lanes}u;`,
    functions: (accesses) => {
      const arrays = new Set(accesses.filter((a) => a.of === 'Right').map((a) => a.array));
      if (arrays.size !== 1) throw new Error(`right operands from ${[...arrays].join(' and ')}`);
      // A right operand is where it begins and its steps from row to row and from column to column: it is read when it is multiplied.
      return `
alias Halves = vec2u;
alias Left = array<f32, ${K}>;
alias Right = vec3u;
alias Sum = array<f32, ${share}>;
var<private> lane: u32;
fn halves(v: vec4f) -> Halves { return vec2u(pack2x16float(v.xy), pack2x16float(v.zw)); }
fn half_of(h: Halves, i: u32) -> f32 { return unpack2x16float(h[i / 2u])[i % 2u]; }
fn half_b(r: Right, k: u32, n: u32) -> f32 { let i = r.x + k * r.y + n * r.z; return half_of(${[...arrays][0]}[i / 4u], i % 4u); }
fn multiply(l: Left, r: Right, sum: Sum) -> Sum { var a = l; var s = sum; ${each(`for (var k = 0u; k < ${K}u; k++) { s[j] += a[k] * half_b(r, k, n); }`)} return s; }
${accesses.map(access).join('\n')}`;
    },
  };
}
