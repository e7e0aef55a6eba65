import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cut, shown } from '../src/shown';
import { hostileValue, jsonOf } from './attacks/mutations';

test('small values are shown as JSON writes them, and what JSON lacks by its name', () => {
  for (const v of [null, true, 0.5, 'a"b', [1, [2, null]], { a: 1, 'b c': { d: [] } }, new Date(0)]) assert.equal(shown(v), JSON.stringify(v));
  assert.deepEqual([undefined, NaN, 3n, Uint8Array.of(1, 2), new Date(NaN), () => 1, Symbol('x')].map(shown), ['undefined', 'NaN', '3', '2 bytes', 'an invalid date', 'a function', 'a symbol']);
});

test('whatever a file holds is shown in less than 200 characters, and nothing throws', () => {
  const deep: unknown = JSON.parse(jsonOf('@lists'));
  for (const v of [deep, { a: deep }, 'x'.repeat(1e6), { toString: 1, valueOf: 2 }, Object.create(null), Array(1e6).fill(0), { ['k'.repeat(1e6)]: 1 }]) assert.ok(shown(v).length < 200);
  assert.equal(shown({ toString: 1 }), '{"toString":1}');
  fc.assert(fc.property(hostileValue, (v) => void assert.ok(shown(JSON.parse(jsonOf(v))).length < 200)), { numRuns: 200 });
});

test('a text is cut only when it is long', () => {
  assert.equal(cut('a\tb'), 'a\tb');
  assert.equal(cut('é'.repeat(500)), `${'é'.repeat(160)}…`);
});
