import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { replayFolder } from './replay';

const GOLDEN = path.resolve(__dirname, '../../../shared/golden');

test('every golden case is reproduced on every engine', { skip: existsSync(GOLDEN) ? false : 'no ../shared/golden' }, async () => {
  const lines = [];
  for await (const line of replayFolder(GOLDEN, () => {})) lines.push(line);
  assert.ok(lines.length >= 2 * 17, `${lines.length} lines`);
  assert.deepEqual(lines.filter((l) => !l.ok), []);
});
