/**
 * The elements of largest absolute value, exactly: without their sign bit floats are ordered as the integers of the same bits, so four counting passes of a radix selection, upper bits first, find the
 * smallest magnitude that is kept; then each block of 1024 elements counts what it keeps, one workgroup turns counts into positions, and each block writes its own. Counts are of whole numbers: the
 * result does not depend on the order of the threads.
 *
 * `state` holds the magnitude found so far, and how many elements of it are kept (ties go to lower positions).
 */
import type { Kernel } from '../kernel';

/** Bits that each counting pass looks at: how many, and how many are below them. */
export const TOPK_PASSES = [
  { shift: 23, bits: 8 },
  { shift: 15, bits: 8 },
  { shift: 7, bits: 8 },
  { shift: 0, bits: 7 },
] as const;

/** Elements of a block. */
export const TOPK_BLOCK = 1024;

/** Empties the counts: params count. */
export function topKStart(): Kernel {
  return { params: ['count: u32'], reads: [], writes: ['bins: u32', 'state: u32'], workgroup: 256, body: '  bins[lid] = 0u; if (lid == 0u) { state[0] = 0u; state[1] = p.count; }' };
}

/** Counts the elements whose upper bits are those of the state: params n, shift, bits. */
export function topKCount(): Kernel {
  return {
    params: ['n: u32', 'shift: u32', 'bits: u32'],
    reads: ['x: u32', 'state: u32'],
    writes: ['bins: atomic<u32>'],
    workgroup: 256,
    functions: 'var<workgroup> own: array<atomic<u32>, 256>;',
    body: `
  let first = (wg.y * grid.x + wg.x) * ${16 * 256}u;
  let above = p.shift + p.bits;
  let mask = (1u << p.bits) - 1u;
  for (var k = 0u; k < 16u; k++) {
    let i = first + k * W + lid;
    if (i < p.n) {
      let magnitude = x[i] & 0x7fffffffu;
      if ((magnitude >> above) == (state[0] >> above)) { atomicAdd(&own[(magnitude >> p.shift) & mask], 1u); }
    }
  }
  workgroupBarrier();
  let mine = atomicLoad(&own[lid]);
  if (mine > 0u) { atomicAdd(&bins[lid], mine); }`,
  };
}

/** Finds the bin of the element of that rank, from the last bin down, and empties the bins: params shift. */
export function topKPick(): Kernel {
  return {
    params: ['shift: u32'],
    reads: [],
    writes: ['bins: u32', 'state: u32'],
    workgroup: 256,
    functions: 'var<workgroup> counts: array<u32, 256>;',
    body: `
  counts[lid] = bins[lid];
  bins[lid] = 0u;
  workgroupBarrier();
  if (lid == 0u) {
    var rank = state[1];
    var bin = 255u;
    loop { if (bin == 0u || counts[bin] >= rank) { break; } rank -= counts[bin]; bin--; }
    state[0] = state[0] | (bin << p.shift);
    state[1] = rank;
  }`,
  };
}

/** Larger and equal elements of each block: params n → counts [blocks, 2]. */
export function topKBlocks(): Kernel {
  return {
    params: ['n: u32'],
    reads: ['x: u32', 'state: u32'],
    writes: ['counts: u32'],
    workgroup: 256,
    functions: 'var<workgroup> larger: atomic<u32>; var<workgroup> equal: atomic<u32>;',
    body: `
  let block = wg.y * grid.x + wg.x;
  for (var k = 0u; k < 4u; k++) {
    let i = block * ${TOPK_BLOCK}u + k * W + lid;
    if (i < p.n) {
      let magnitude = x[i] & 0x7fffffffu;
      if (magnitude > state[0]) { atomicAdd(&larger, 1u); } else if (magnitude == state[0]) { atomicAdd(&equal, 1u); }
    }
  }
  workgroupBarrier();
  if (lid == 0u && block * ${TOPK_BLOCK}u < p.n) { counts[2u * block] = atomicLoad(&larger); counts[2u * block + 1u] = atomicLoad(&equal); }`,
  };
}

/** Counts of the blocks before each: params blocks. In place, one workgroup. */
export function topKScan(): Kernel {
  return {
    params: ['blocks: u32'],
    reads: [],
    writes: ['counts: u32'],
    workgroup: 256,
    functions: 'var<workgroup> sums: array<vec2u, 256>;',
    body: `
  let each = (p.blocks + W - 1u) / W;
  let first = min(lid * each, p.blocks);
  let end = min(first + each, p.blocks);
  var own = vec2u();
  for (var b = first; b < end; b++) { own += vec2u(counts[2u * b], counts[2u * b + 1u]); }
  sums[lid] = own;
  workgroupBarrier();
  if (lid == 0u) { var before = vec2u(); for (var t = 0u; t < W; t++) { let s = sums[t]; sums[t] = before; before += s; } }
  workgroupBarrier();
  var before = sums[lid];
  for (var b = first; b < end; b++) {
    let s = vec2u(counts[2u * b], counts[2u * b + 1u]);
    counts[2u * b] = before.x;
    counts[2u * b + 1u] = before.y;
    before += s;
  }`,
  };
}

/** Writes what is kept, in order of position: params n. */
export function topKWrite(): Kernel {
  return {
    params: ['n: u32'],
    reads: ['x: u32', 'state: u32', 'counts: u32'],
    writes: ['values: u32', 'indices: u32'],
    workgroup: 256,
    functions: 'var<workgroup> sums: array<vec2u, 256>;',
    body: `
  let block = wg.y * grid.x + wg.x;
  let threshold = state[0];
  let ties = state[1];
  let first = block * ${TOPK_BLOCK}u + lid * 4u;
  var own = vec2u();
  for (var k = 0u; k < 4u; k++) {
    if (first + k < p.n) { let m = x[first + k] & 0x7fffffffu; own += vec2u(select(0u, 1u, m > threshold), select(0u, 1u, m == threshold)); }
  }
  sums[lid] = own;
  workgroupBarrier();
  for (var s = 1u; s < W; s = s << 1u) {
    var add = vec2u();
    if (lid >= s) { add = sums[lid - s]; }
    workgroupBarrier();
    sums[lid] += add;
    workgroupBarrier();
  }
  if (first < p.n) {
    var before = sums[lid] - own + vec2u(counts[2u * block], counts[2u * block + 1u]);
    for (var k = 0u; k < 4u; k++) {
      let i = first + k;
      if (i < p.n) {
        let m = x[i] & 0x7fffffffu;
        let at = before.x + min(before.y, ties);
        if (m > threshold || (m == threshold && before.y < ties)) { values[at] = x[i]; indices[at] = i; }
        before += vec2u(select(0u, 1u, m > threshold), select(0u, 1u, m == threshold));
      }
    }
  }`,
  };
}
