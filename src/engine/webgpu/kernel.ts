/** A kernel: WGSL of one operation, with what it reads and writes. The declarations around its body are written here, so that a body holds nothing but the mathematics. */

/** A compute kernel, specialised. */
export interface Kernel {
  /** At most 16 words, passed as immediate data: `n: u32`, `scale: f32`, … seen by the body as `p.n`. */
  readonly params: readonly string[];
  /** Storage that is read: `x: f32` is seen as `x: array<f32>`. */
  readonly reads: readonly string[];
  /** Storage that is written, and may be read. */
  readonly writes: readonly string[];
  /** Threads of a workgroup, seen as `W`. */
  readonly workgroup: number;
  /** WGSL extensions that it needs: `f16`, … The device must have been opened with them. */
  readonly enables?: readonly string[];
  /** More attributes of `main`, such as `@subgroup_size(32)`. */
  readonly attributes?: string;
  /** More arguments of `main`, such as `@builtin(subgroup_id) sg: u32`. */
  readonly builtins?: readonly string[];
  /** Functions and workgroup variables. */
  readonly functions?: string;
  /** Body of `main`: `wg` (workgroup id), `grid` (number of workgroups), `lid` (thread within the workgroup). */
  readonly body: string;
}

/** The largest number of parameters: immediate data has 64 bytes on every device. */
export const MAX_PARAMS = 16;

/** One thread for each of `p.n` elements: `i`. */
export const EACH = 'let i = (wg.y * grid.x + wg.x) * W + lid; if (i >= p.n) { return; }';

/** One workgroup for each of `p.rows` rows: `row`. */
export const EACH_ROW = 'let row = wg.y * grid.x + wg.x; if (row >= p.rows) { return; }';

/** The whole text of a kernel. */
export function wgsl({ params, reads, writes, workgroup, enables = [], attributes = '', builtins = [], functions = '', body }: Kernel): string {
  const bindings = [...reads.map((r) => ['read', r]), ...writes.map((w) => ['read_write', w])].map(([access, declaration], i) => {
    const [name, type] = declaration.split(': ');
    return `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<${type}>;`;
  });
  const given = ['@builtin(workgroup_id) wg: vec3u', '@builtin(num_workgroups) grid: vec3u', '@builtin(local_invocation_index) lid: u32', ...builtins];
  return `${enables.map((e) => `enable ${e};\n`).join('')}requires immediate_address_space;
struct Params { ${params.join(', ')} }
var<immediate> p: Params;
${bindings.join('\n')}
const W = ${workgroup}u;
${functions}
@compute @workgroup_size(W) ${attributes} fn main(${given.join(', ')}) {
${body}
}
`;
}
