import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ShapeError } from '../../src/errors';
import { resizePositions } from '../../src/models/positions';

/** From torch 2.13, float64: interpolate(grid, size, mode='bicubic', align_corners=False) of sin(i + h/4), i = place in the grid, h = channel 0 or 1. */
const RECORDED: readonly (readonly [from: number, to: number, first: readonly number[], lastOfSecond: readonly number[]])[] = [
  [3, 5, [-0.110359, 0.370983, 0.994905, 1.124884, 1.097646, 0.08172, 0.103853, 0.119548, 0.07589, 0.036913, 0.227321, -0.192721, -0.756802, -0.945151, -0.978328, -0.115634, -0.075101, -0.006639, 0.065119, 0.109046, -0.426587, 0.084237, 0.79271, 1.107624, 1.213227], [1.12566, 1.103771]],
  [4, 3, [-0.041919, 0.763556, 0.318786, 0.101667, -0.650661, -0.337598, -0.188086, 0.708462, 0.444976], [0.772171, 0.286585]],
];

test('positions are interpolated as PyTorch’s bicubic does it, those of the learned tokens are kept', () => {
  for (const [from, to, first, last] of RECORDED) {
    const table = Float32Array.from({ length: 2 * (1 + from * from) }, (_, i) => (i < 2 ? 7 + i : Math.sin(Math.floor(i / 2) - 1 + 0.25 * (i % 2))));
    const out = resizePositions(table, 2, 1, to);
    assert.deepEqual([...out.subarray(0, 2)], [7, 8]);
    assert.equal(out.length, 2 * (1 + to * to));
    first.forEach((v, i) => assert.ok(Math.abs(out[2 + 2 * i] - v) < 2e-6, `${from} to ${to}: place ${i} is ${out[2 + 2 * i]}, not ${v}`));
    last.forEach((v, i) => assert.ok(Math.abs(out[out.length - 3 + 2 * i] - v) < 2e-6));
  }
});

test('positions of the same grid stay as they are, to the bit; what is no square is refused', () => {
  const table = Float32Array.from({ length: 3 * (2 + 16) }, (_, i) => Math.cos(i));
  assert.deepEqual(resizePositions(table, 3, 2, 4), table);
  assert.throws(() => resizePositions(new Float32Array(3 * 8), 3, 1, 4), ShapeError);
});
