import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidArgumentError } from '../src/errors';
import { formatBytes, parseBytes } from '../src/units';

test('bytes are read in binary and decimal units, and what is no number of bytes is refused by its text', () => {
  for (const [text, bytes] of [['1048576', 1048576], ['8GiB', 8 * 2 ** 30], ['1.5 MiB', 1.5 * 2 ** 20], ['500MB', 5e8], ['2k', 2000], ['3 kib', 3072], ['7 B', 7], ['1TB', 1e12]] as const) assert.equal(parseBytes(text), bytes, text);
  for (const text of ['', 'GiB', '8iB', '-1GB', '8 GBB', '1e3', 'NaN', '8 EB']) assert.throws(() => parseBytes(text), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(`'${text}'`), text);
  assert.equal(parseBytes(formatBytes(96 * 2 ** 20)), 96 * 2 ** 20);
});
