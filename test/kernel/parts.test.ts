import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import ts from 'typescript';
import { toCodePoints, toUtf16 } from '../../kernel/codePoints';
import { bundleOf } from '../../kernel/display';
import { errorContent } from '../../kernel/errors';
import { SessionHistory } from '../../kernel/history';
import { findKernelspec, installKernelspec, uninstallKernelspec } from '../../kernel/install';
import { completeness, hasTopLevelAwait, mend } from '../../kernel/mend';

const ROOT = path.resolve(__dirname, '../..');

test('positions count code points, so that an emoji is one', () => {
  assert.equal(toUtf16('a😀b', 2), 3);
  assert.equal(toCodePoints('a😀b', 3), 2);
  assert.equal(toUtf16('abc', 99), 3);
});

test('shorthand and renamed bindings are mended, and every place is found again', () => {
  const source = 'const {a: b} = o; f({x, yy, z: 1});';
  const { code, original } = mend(ts, source);
  assert.equal(code, 'const {"a": b} = o; f({x: x, yy: yy, z: 1});');
  for (const word of ['b}', 'o;', 'f(', 'z:', '1}']) assert.equal(original(code.indexOf(word)), source.indexOf(word), word);
  assert.equal(original(code.lastIndexOf('yy')), source.indexOf('yy'), 'the added name stands for the written one');
  assert.equal(original(code.length), source.length);
});

test('a default in a destructuring assignment is left as it is', () => {
  assert.equal(mend(ts, '({x = 1} = o)').code, '({x = 1} = o)');
});

test('await is at top level in expressions and loops, not inside functions', () => {
  for (const s of ['await (x)', 'for await (const a of b) {}', 'if (x) { await [y] }']) assert.equal(hasTopLevelAwait(ts, s), true, s);
  for (const s of ['async () => { await x }', 'class A { async f() { await x } }', 'const awaited = 1']) assert.equal(hasTopLevelAwait(ts, s), false, s);
});

test('a cell is complete, goes on, or is invalid', () => {
  for (const s of ['1 + 1', '', 'const a = { b: 1 };', 'for await (const x of y) {}']) assert.equal(completeness(ts, s).status, 'complete', s);
  for (const s of ['for (;;) {', 'f(1,', 'const s = `a', '/* open', 'const x =', '[1, 2']) assert.equal(completeness(ts, s).status, 'incomplete', s);
  for (const s of ['a b c', ')', 'const const', 'f(1))']) assert.equal(completeness(ts, s).status, 'invalid', s);
  assert.deepEqual(completeness(ts, '  if (x) {'), { status: 'incomplete', indent: '    ' });
});

test('history answers the tail, a range and a pattern', () => {
  const history = new SessionHistory();
  ['let a', 'let b', 'a + b', 'let a'].forEach((s, i) => history.add(i + 1, s));
  assert.deepEqual(history.query({ hist_access_type: 'tail', n: 2 }).map((e) => e[1]), [3, 4]);
  assert.deepEqual(history.query({ hist_access_type: 'tail', n: 0 }), []);
  history.addResult(3, '5');
  assert.deepEqual(history.query({ hist_access_type: 'tail', n: 2, output: true }), [[1, 3, ['a + b', '5']], [1, 4, ['let a', null]]]);
  assert.deepEqual(history.query({ hist_access_type: 'range', session: 0, start: 2, stop: 4 }).map((e) => e[1]), [2, 3]);
  assert.deepEqual(history.query({ hist_access_type: 'range', session: 7, start: 1 }), []);
  assert.deepEqual(history.query({ hist_access_type: 'search', pattern: 'let ?', unique: true }).map((e) => e[2]), ['let a', 'let b']);
  assert.deepEqual(history.query({ hist_access_type: 'search', pattern: '*+*' }).map((e) => e[2]), ['a + b']);
});

test('a value says itself how it is shown; bytes travel as base64; a formatter is asked for classes that do not', async () => {
  const own = { [Symbol.for('Jupyter.display')]: async () => ({ 'image/png': new Uint8Array([1, 2, 3]), 'text/plain': 'p' }) };
  assert.deepEqual(await bundleOf(own, []), { 'image/png': 'AQID', 'text/plain': 'p' });
  const formatter = { test: (v: unknown) => v instanceof Map, format: (v: unknown) => ({ 'text/html': `<b>${(v as Map<1, 1>).size}</b>` }) };
  assert.deepEqual(await bundleOf(new Map([[1, 1]]), [formatter]), { 'text/html': '<b>1</b>' });
  assert.deepEqual(await bundleOf('text', [formatter]), { 'text/plain': 'text' });
});

test('a traceback holds the causes and no frame of the machinery', () => {
  const error = new RangeError('outer', { cause: new TypeError('inner') });
  error.stack = 'cell-1.ts:7\n  throw it\n  ^\n\nRangeError: outer\n    at f (cell-1.ts:3:9)\n    at x (/p/node_modules/tslab/dist/executor.js:1:1)\n    at new Script (node:vm:117:7)';
  const { ename, evalue, traceback } = errorContent({ kind: 'throw', error }, '');
  assert.equal(ename, 'RangeError');
  assert.equal(evalue, 'outer');
  assert.deepEqual(traceback.slice(0, 2), ['RangeError: outer', '    at f (cell-1.ts:3:9)']);
  assert.equal(traceback[2], 'Caused by: TypeError: inner');
  assert.deepEqual(errorContent(3, ''), { ename: 'Error', evalue: '3', traceback: ['Uncaught 3'] });
});

test('the kernelspec is written below a prefix with plotly beside it, found, and removed', () => {
  const prefix = mkdtempSync(path.join(tmpdir(), 'slimfit-prefix-'));
  try {
    assert.equal(findKernelspec({ prefix }), undefined);
    const folder = installKernelspec(ROOT, { prefix });
    assert.equal(folder, path.join(prefix, 'share', 'jupyter', 'kernels', 'slimfit'));
    const spec = JSON.parse(readFileSync(path.join(folder, 'kernel.json'), 'utf8'));
    assert.equal(spec.display_name, 'TypeScript (SlimFit)');
    assert.equal(spec.interrupt_mode, 'message');
    assert.deepEqual(spec.argv, [process.execPath, path.join(ROOT, 'dist', 'kernel', 'main.cjs'), '{connection_file}']);
    assert.match(readFileSync(path.join(folder, 'plotly.min.js'), 'utf8').slice(0, 500), /plotly\.js v3\.1\.0/);
    assert.ok(statSync(path.join(folder, 'logo-svg.svg')).size > 100);
    assert.deepEqual(findKernelspec({ prefix }), { folder, argv: spec.argv });
    assert.equal(uninstallKernelspec({ prefix }), true);
    assert.equal(uninstallKernelspec({ prefix }), false);
  } finally {
    rmSync(prefix, { recursive: true, force: true });
  }
});

test('an error is told as text alone, whatever its message holds: no part of it is HTML', () => {
  const message = '<script>alert(1)</script>"><img src=x onerror=alert(1)>';
  for (const failure of [{ kind: 'throw', error: new Error(message) }, message, { kind: 'throw', error: { toString: () => message } }]) {
    const content = errorContent(failure, message);
    assert.deepEqual(Object.keys(content).sort(), ['ename', 'evalue', 'traceback']);
    assert.ok(content.traceback.every((line) => typeof line === 'string'));
  }
});
