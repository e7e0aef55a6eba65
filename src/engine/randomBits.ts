/**
 * Counter-based random bits: a pure function of (seed, counter, position), so that a mask can be drawn again instead of kept.
 * The function is pcg3d (Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020).
 */

/** 32 random bits as an unsigned integer. */
export function randomBits(seed: number, counter: number, position: number): number {
  let x = (Math.imul(seed, 1664525) + 1013904223) | 0;
  let y = (Math.imul(counter, 1664525) + 1013904223) | 0;
  let z = (Math.imul(position, 1664525) + 1013904223) | 0;
  x = (x + Math.imul(y, z)) | 0;
  y = (y + Math.imul(z, x)) | 0;
  z = (z + Math.imul(x, y)) | 0;
  x ^= x >>> 16;
  y ^= y >>> 16;
  z ^= z >>> 16;
  // Of the three numbers that the second round gives, the first is enough.
  return (x + Math.imul(y, z)) >>> 0;
}

/** Dropout mask of the positions from `offset` on: 1/(1 − p) with probability 1 − p, else 0. The probability is exact to 2⁻³². */
export function dropoutMask(size: number, p: number, seed: number, counter: number, offset = 0): Float32Array {
  const mask = new Float32Array(size);
  const threshold = p * 2 ** 32;
  const keep = 1 / (1 - p);
  for (let i = 0; i < size; i++) if (randomBits(seed, counter, offset + i) >= threshold) mask[i] = keep;
  return mask;
}
