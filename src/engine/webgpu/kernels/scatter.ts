/** Rows by id: replaced, or added up without a race and always in the same order: GPUs have no atomic addition of floats, and its order would differ from run to run. */
import { EACH, type Kernel } from '../kernel';

/** Workgroups along the second dimension: update i is that of workgroup (…, i mod 2¹⁵, i div 2¹⁵). */
export const SCATTER_GROUPS = 2 ** 15;

/**
 * y[ids[i]] = Σ x[j] over all j of that id: params rows (updates), width, padding (an id that gets nothing, or −1). `y` is 0 before. The workgroups of the first update of each id, one for 64 columns, add up
 * all of that id, in order: each looks through the others 64 at a time.
 */
export function scatterAddKernel(): Kernel {
  return {
    params: ['rows: u32', 'width: u32', 'padding: i32'],
    reads: ['x: f32', 'ids: i32'],
    writes: ['y: f32'],
    workgroup: 64,
    functions: 'var<workgroup> earlier: atomic<u32>; var<workgroup> found: array<atomic<u32>, 2>; var<workgroup> seen: vec3u;',
    body: `
  let i = wg.z * ${SCATTER_GROUPS}u + wg.y;
  if (i >= p.rows) { return; }
  let id = ids[i];
  if (id == p.padding) { return; }
  for (var j = lid; j < i; j += W) { if (ids[j] == id) { atomicStore(&earlier, 1u); } }
  workgroupBarrier();
  if (lid == 0u) { seen = vec3u(atomicLoad(&earlier), 0u, 0u); }
  if (workgroupUniformLoad(&seen).x != 0u) { return; }
  let column = wg.x * W + lid;
  var sum = 0.0;
  for (var base = i; base < p.rows; base += W) {
    if (base + lid < p.rows && ids[base + lid] == id) { atomicOr(&found[lid / 32u], 1u << (lid % 32u)); }
    workgroupBarrier();
    if (lid == 0u) { seen = vec3u(0u, atomicExchange(&found[0], 0u), atomicExchange(&found[1], 0u)); }
    let bits = workgroupUniformLoad(&seen);
    for (var half = 0u; half < 2u; half++) {
      var left = select(bits.z, bits.y, half == 0u);
      while (left != 0u) {
        let j = base + half * 32u + firstTrailingBit(left);
        left = left & (left - 1u);
        if (column < p.width) { sum += x[j * p.width + column]; }
      }
    }
  }
  if (column < p.width) { y[u32(id) * p.width + column] = sum; }`,
  };
}

/** y[ids[i]] = x[i] for whole rows: params n (elements), width, begun (as for adamwKernel: after lost work nothing is replaced). Bits are copied, of whatever type. */
export function writeRowsKernel(): Kernel {
  return {
    params: ['n: u32', 'width: u32', 'begun: u32'],
    reads: ['x: u32', 'ids: i32', 'done: u32'],
    writes: ['y: u32'],
    workgroup: 256,
    body: `  ${EACH}
  if (done[0] != p.begun) { return; }
  y[u32(ids[i / p.width]) * p.width + i % p.width] = x[i];`,
  };
}
