/** The conformance suite of the Jupyter project against the installed kernel. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { missing, runPython } from './python';

test('the kernel passes all of jupyter_kernel_test, and no test is skipped', { skip: missing }, async (t) => {
  const { code, output, summary } = await runPython('conformance.py');
  const { ran, passed, skipped, failed } = summary;
  t.diagnostic(`jupyter_kernel_test: ${ran} ran, ${passed} passed, ${skipped} skipped, ${failed} failed`);
  assert.equal(code, 0, output);
  assert.deepEqual([passed, skipped, failed], [ran, 0, 0], output);
  assert.ok(Number(ran) >= 13, output);
});
