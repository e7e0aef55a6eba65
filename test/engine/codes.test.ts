import assert from 'node:assert/strict';
import { test } from 'node:test';
import { largestPositions, packCodes, payloadBytes, roundHalfEven, unpackCodes } from '../../src/engine/codes';
import { InvalidArgumentError } from '../../src/errors';
import { Random } from '../../src/random';

test('halves round to the even neighbour', () => {
  assert.deepEqual([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49, 2.51].map((x) => roundHalfEven(x) + 0), [0, 2, 2, 0, -2, -2, 0, 3]);
});

test('bytes are packed by hand-worked examples', () => {
  assert.equal(packCodes(Float32Array.of(1, -1, 0.0625, 100), 'q3.4')[0], 0x7f01f010);
  assert.equal(packCodes(Float32Array.of(0.5, 2), 'q0.8')[0], 0x0000ff80);
  // Codes 1, −8, 7 with half = 2: bytes (1+8)·16 + (7+8) and (−8+8)·16 + 0.
  assert.equal(packCodes(Float32Array.of(0.5, -9, 3.5), 'q2.1')[0], 0x0000009f);
  assert.deepEqual([...unpackCodes(Int32Array.of(0x9f), 3, 'q2.1')], [0.5, -4, 3.5]);
  assert.deepEqual([payloadBytes(5, 'q3.4'), payloadBytes(5, 'q2.1')], [5, 3]);
});

test('selection agrees with a full sort, with many ties and with differences in the last bit', () => {
  const r = new Random(3);
  const base = new Int32Array(Float32Array.of(1).buffer)[0];
  const draws = [() => r.normal(), () => Math.round(2 * r.normal()), () => new Float32Array(Int32Array.of(base + (r.next() % 5)).buffer)[0], () => 0];
  for (const draw of draws) {
    const x = Float32Array.from({ length: 500 }, draw);
    const order = Array.from(x.keys()).sort((p, q) => Math.abs(x[q]) - Math.abs(x[p]) || p - q);
    for (const count of [0, 1, 37, 499, 500]) assert.deepEqual([...largestPositions(x, count)], order.slice(0, count).sort((p, q) => p - q));
  }
});

test('selection keeps NaN and infinity first, and refuses counts that there are not', () => {
  const x = Float32Array.of(1, NaN, -Infinity, 2);
  assert.deepEqual([...largestPositions(x, 1)], [1]);
  assert.deepEqual([...largestPositions(x, 2)], [1, 2]);
  for (const count of [-1, 5, 1.5]) assert.throws(() => largestPositions(x, count), InvalidArgumentError);
});
