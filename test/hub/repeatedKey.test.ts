import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { repeatedKey } from '../../src/hub/repeatedKey';

test('a name that an object holds twice is found, however it is written and however deep', () => {
  assert.equal(repeatedKey('{"a":1,"b":{"a":2},"c":[{"a":1},{"a":1}]}'), undefined);
  assert.equal(repeatedKey('{"a":1,"b":2,"a":3}'), 'a');
  assert.equal(repeatedKey(String.raw`{"a" : 1, "\u0061"
:2}`), 'a');
  assert.equal(repeatedKey(String.raw`[{"x":{"q\"":1,"z":"q\":","q\"":2}}]`), 'q"');
  assert.equal(repeatedKey(String.raw`{"a":"a","b":"a","c\\":"c\\"}`), undefined);
  assert.equal(repeatedKey('{"__proto__":1,"__proto__":2}'), '__proto__');
});

test('what JSON.stringify writes never has one', () => {
  fc.assert(fc.property(fc.jsonValue(), (v) => assert.equal(repeatedKey(JSON.stringify(v)), undefined)), { numRuns: 200 });
});
