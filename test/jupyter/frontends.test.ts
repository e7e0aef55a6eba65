/** Front ends other than JupyterLab. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { missing, runPython } from './python';

test('papermill passes parameters of every kind, jupyter console answers line by line, jupyter execute tells of a failing cell', { skip: missing }, async (t) => {
  const { code, output, summary } = await runPython('frontends.py');
  t.diagnostic(JSON.stringify(summary));
  assert.equal(code, 0, output);
  assert.deepEqual([summary['papermill parameters'], summary['console lines']], [4, 4], output);
});
