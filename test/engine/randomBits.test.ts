import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dropoutMask, randomBits } from '../../src/engine/randomBits';

/** pcg3d as the paper prints it, on unsigned 32-bit integers, in BigInt: the first of its three numbers. */
function pcg3d(seed: number, counter: number, position: number): number {
  const u = (n: bigint) => BigInt.asUintN(32, n);
  let [x, y, z] = [seed, counter, position].map((n) => u(BigInt(n) * 1664525n + 1013904223n));
  const mix = () => {
    x = u(x + y * z);
    y = u(y + z * x);
    z = u(z + x * y);
  };
  mix();
  [x, y, z] = [x, y, z].map((n) => n ^ (n >> 16n));
  mix();
  return Number(x);
}

test('the bits are those of pcg3d, up to the largest keys', () => {
  const values = [0, 1, 2, 12345, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1];
  for (const seed of values) for (const counter of values) for (const position of values) assert.equal(randomBits(seed, counter, position), pcg3d(seed, counter, position));
});

test('the bits are spread evenly along positions, counters and seeds', () => {
  const n = 65_536;
  for (const draw of [(i: number) => randomBits(5, 6, i), (i: number) => randomBits(5, i, 6), (i: number) => randomBits(i, 5, 6)]) {
    const bins = new Array<number>(256).fill(0);
    for (let i = 0; i < n; i++) bins[draw(i) >>> 24]++;
    const chi2 = bins.reduce((s, b) => s + (b - n / 256) ** 2 / (n / 256), 0);
    // 255 degrees of freedom: mean 255, standard deviation 22.6.
    assert.ok(chi2 > 150 && chi2 < 360, `chi² = ${chi2}`);
  }
});

test('a dropout mask is 1/(1 − p) or 0, and a probability of 0 drops nothing', () => {
  assert.deepEqual(new Set(dropoutMask(1000, 0.25, 1, 2)), new Set([0, Math.fround(1 / 0.75)]));
  assert.ok(dropoutMask(1000, 0, 1, 2).every((v) => v === 1));
});
