import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { Random } from '../../../src/random';
import { KillRounds } from './rounds';

const root = mkdtempSync(path.join(tmpdir(), 'slimfit-kill-'));
after(() => rmSync(root, { recursive: true, force: true }));

test('a training that is killed without warning, while a checkpoint is written or at any other moment, ends as if it never had been', async () => {
  const random = new Random(Date.now());
  const rounds = await KillRounds.begin(root, 1);
  const some = await rounds.round(0, [{ whileWriting: 3 }, { share: 0.4 + 0.6 * random.uniform() }, { whileWriting: 2 }]);
  assert.equal(some.length, 3);
  for (const r of some) {
    assert.ok(r.equal, JSON.stringify(some));
    if (r.resumedAt !== undefined) assert.equal(r.resumedAt, r.lastGood ?? 0, JSON.stringify(some));
  }
});
