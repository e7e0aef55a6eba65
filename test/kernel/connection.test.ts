import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { readConnection } from '../../kernel/connection';

const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-connection-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const KEY = 'a0436f6c-1916-498b-8eb9-e81ab9368e84';
const GOOD = { transport: 'tcp', ip: '127.0.0.1', key: KEY, signature_scheme: 'hmac-sha256', shell_port: 50001, control_port: 50002, iopub_port: 50003, stdin_port: 50004, hb_port: 50005 };
function fileOf(text: string, mode = 0o600): string {
  const file = path.join(folder, 'connection.json');
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
}

test('a connection file that its owner alone may read is read', () => assert.deepEqual(readConnection(fileOf(JSON.stringify(GOOD)), {}), GOOD));

test('one that others may read or write is refused, unless Jupyter was told to write it so', { skip: process.platform === 'win32' && 'files have no modes' }, () => {
  for (const mode of [0o644, 0o640, 0o604, 0o620, 0o602]) assert.throws(() => readConnection(fileOf(JSON.stringify(GOOD), mode), {}), /others may read .*mode 6/);
  assert.deepEqual(readConnection(fileOf(JSON.stringify(GOOD), 0o644), { JUPYTER_ALLOW_INSECURE_WRITES: '1' }), GOOD);
});

for (const [what, change, said] of [
  ['no key', { key: undefined }, /no key/],
  ['an empty key', { key: '' }, /no key/],
  ['a key that is no text', { key: 7 }, /no key/],
  ['another transport', { transport: 'ipc' }, /"ipc"; only tcp/],
  ['no address', { ip: '' }, /an address/],
  ['a port that is none', { iopub_port: 70_000 }, /iopub_port 70000/],
  ['a port that is missing', { hb_port: undefined }, /hb_port/],
] as const)
  test(`a connection file with ${what} is refused, and its key not told`, () => {
    assert.throws(() => readConnection(fileOf(JSON.stringify({ ...GOOD, ...change })), {}), (e: Error) => said.test(e.message) && !e.message.includes(KEY));
  });

test('what is no JSON is refused without a word of it', () => {
  for (const text of [`{"key":"${KEY}"`, 'null', KEY]) assert.throws(() => readConnection(fileOf(text), {}), (e: Error) => !e.message.includes(KEY));
});
