import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const ROOT = path.resolve(__dirname, '../..');

test('every door of kernel/SECURITY.md names a test that there is', () => {
  const rows = [...readFileSync(path.join(ROOT, 'kernel/SECURITY.md'), 'utf8').matchAll(/^\| .* \| `([\w/]+)`: (.+) \|$/gm)];
  assert.ok(rows.length >= 20);
  assert.equal(rows.length, [...readFileSync(path.join(ROOT, 'kernel/SECURITY.md'), 'utf8').matchAll(/^\| /gm)].length - 1, 'every row but the head names one');
  for (const [, file, name] of rows) {
    const source = readFileSync(path.join(ROOT, 'test', `${file}.test.ts`), 'utf8').replaceAll("\\'", "'");
    // As a test's name, the beginning of one that is made of several, or the fault of a row that becomes one.
    assert.ok(["test('", 'test("', 'test(`', "['"].some((before) => source.includes(before + name)), `${file}: ${name}`);
  }
});
