/** The stop and restart buttons through jupyter_client, on a kernel that really trains. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { missing, runPython } from './python';

test('fifty interrupts stop training within one step each and lose nothing; a blocked kernel restarts and ends in under 3 s', { skip: missing }, async (t) => {
  const { code, output, summary } = await runPython('interrupts.py');
  t.diagnostic(JSON.stringify(summary));
  assert.equal(code, 0, output);
  assert.equal(summary.interrupts, 50, output);
});
