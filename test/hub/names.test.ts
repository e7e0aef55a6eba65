import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { InvalidArgumentError, UnsafeFileNameError } from '../../src/errors';
import { checkFileName, checkPlainName, checkRepoName, checkRevision } from '../../src/hub/names';

/** Strings that are made of what attacks are made of, and any others. */
const name = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.array(fc.constantFrom('..', '.', '/', '\\', 'C:', 'a', ' ', 'con', 'NUL', '\0', '\n', '~', '...', 'x.json'), { maxLength: 8 }).map((p) => p.join('')),
);

/** Whether a check lets a name pass; it fails in its own way alone. */
function passes(check: () => void, error: abstract new (...args: never[]) => Error): boolean {
  try {
    check();
    return true;
  } catch (e) {
    assert.ok(e instanceof error, String(e));
    return false;
  }
}

test('a file name that passes stays strictly inside its folder, by the rules of POSIX and of Windows', () => {
  let passed = 0;
  fc.assert(
    fc.property(name, (n) => {
      if (!passes(() => checkFileName(n, 'a listing'), UnsafeFileNameError)) return;
      passed++;
      for (const { join, dirname, sep, isAbsolute } of [path.posix, path.win32]) {
        const root = join('r', 'snapshots');
        assert.ok(!isAbsolute(n) && join(root, n).startsWith(root + sep) && join(root, n).length > root.length + 1, n);
        // Every folder on the way is the one that is written, none is skipped or left.
        assert.equal(join(root, n).split(sep).length, 2 + n.split('/').length);
        assert.ok(dirname(join(root, n)).startsWith(root));
      }
    }),
    { numRuns: 3000, seed: 43 },
  );
  assert.ok(passed > 100);
});

test('a plain name has no folder, a repository at most one slash, a revision no way up', () => {
  fc.assert(
    fc.property(name, (n) => {
      if (passes(() => checkPlainName(n, 'an index'), UnsafeFileNameError)) assert.ok(!n.includes('/'));
      if (passes(() => checkRepoName(n), InvalidArgumentError)) assert.ok(/^[\w.-]+(\/[\w.-]+)?$/.test(n) && !n.split('/').includes('..'));
      if (passes(() => checkRevision(n), InvalidArgumentError)) assert.ok(path.posix.join('refs', n).startsWith('refs/') && !/[\\:\0\s]/.test(n));
    }),
    { numRuns: 3000, seed: 43 },
  );
});

test('the names of real repositories, files and revisions pass', () => {
  for (const n of ['bert-base-cased', 'google/vit-base-patch16-224-in21k', 'nyu-mll/glue', 'HuggingFaceH4/zephyr-7b-beta', 'a.b_c/d.e']) checkRepoName(n);
  for (const n of ['config.json', 'onnx/model.onnx', 'data/train-00000-of-00001-0123456789abcdef.parquet', '.gitattributes', 'plain text/trainé.parquet', 'constant.py', 'a..b']) checkFileName(n, 'a listing');
  for (const n of ['main', 'refs/convert/parquet', 'refs/pr/1', 'v1.0', 'feature/x_y', 'a'.repeat(40)]) checkRevision(n);
});
