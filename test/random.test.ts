import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '../src/random';

test('equal seeds give equal streams, neighbouring seeds unrelated ones', () => {
  const stream = (seed: number) => Array.from({ length: 5 }, ((r) => () => r.next())(new Random(seed)));
  assert.deepEqual(stream(43), stream(43));
  assert.notDeepEqual(stream(43), stream(44));
  assert.notDeepEqual(stream(43), stream(43 + 2 ** 32));
});

test('uniform numbers are flat, normal ones have mean 0 and variance 1', () => {
  const r = new Random(1);
  const n = 20000;
  const bins = new Array<number>(10).fill(0);
  for (let i = 0; i < n; i++) bins[Math.floor(r.uniform() * 10)]++;
  for (const b of bins) assert.ok(Math.abs(b - n / 10) < 5 * Math.sqrt(n / 10), `${bins}`);
  let sum = 0;
  let squares = 0;
  for (let i = 0; i < n; i++) {
    const x = r.normal();
    sum += x;
    squares += x * x;
  }
  assert.ok(Math.abs(sum / n) < 0.03 && Math.abs(squares / n - 1) < 0.05);
});

test('a permutation holds every number once and reaches every order', () => {
  assert.deepEqual([...new Random(3).permutation(100)].sort((a, b) => a - b), Array.from({ length: 100 }, (_, i) => i));
  const seen = new Set(Array.from({ length: 200 }, (_, s) => new Random(s).permutation(3).join()));
  assert.equal(seen.size, 6);
});

test('int stays below its bound', () => {
  const r = new Random(5);
  const drawn = new Set(Array.from({ length: 300 }, () => r.int(7)));
  assert.deepEqual([...drawn].sort(), [0, 1, 2, 3, 4, 5, 6]);
});
