import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';

const ROOT = path.resolve(__dirname, '../..');
const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-cli-'));
after(() => rmSync(folder, { recursive: true, force: true }));

function slimfit(...args: string[]) {
  const r = spawnSync(process.execPath, ['--import', 'tsx', path.join(ROOT, 'src/cli/main.ts'), ...args], { cwd: ROOT, encoding: 'utf8', env: { ...process.env, JUPYTER_DATA_DIR: path.join(folder, 'user') } });
  return { code: r.status, out: r.stdout, err: r.stderr };
}

test('slimfit kernel installs below a prefix, lists what is there, and removes it', () => {
  const prefix = path.join(folder, 'prefix');
  const spec = path.join(prefix, 'share/jupyter/kernels/slimfit');
  const installed = slimfit('kernel', 'install', '--prefix', prefix);
  assert.equal(installed.code, 0, installed.err);
  assert.ok(installed.out.includes(spec));
  assert.ok(existsSync(path.join(spec, 'kernel.json')));
  assert.ok(slimfit('kernel', 'list', '--prefix', prefix).out.includes(path.join('dist', 'kernel', 'main.cjs')));
  assert.equal(slimfit('kernel', 'uninstall', '--prefix', prefix).code, 0);
  assert.ok(!existsSync(spec));
  assert.match(slimfit('kernel', 'list', '--prefix', prefix).out, /no SlimFit kernel/);
});

test('without a place it installs for the user, where Jupyter says that user data lie', () => {
  assert.equal(slimfit('kernel', 'install', '--user').code, 0);
  assert.ok(existsSync(path.join(folder, 'user/kernels/slimfit/kernel.json')));
});

test('two places, or a word that is no command, are refused and nothing is written', () => {
  const two = slimfit('kernel', 'install', '--user', '--prefix', path.join(folder, 'two'));
  assert.equal(two.code, 1);
  assert.match(two.err, /one of --user, --prefix DIR, --sys-prefix/);
  assert.ok(!existsSync(path.join(folder, 'two')));
  assert.match(slimfit('kernel', 'remove').err, /install, uninstall or list/);
});
