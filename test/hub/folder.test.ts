import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { CheckpointError, FileMissingError, UnsafeFileNameError } from '../../src/errors';
import { INDEX_FILE, readShardNames, readWeights } from '../../src/hub/folder';
import { safetensors } from './helpers';

const RULES = { isHead: () => false, isOtherHead: () => false, replaceHead: false };
const WANTED = ['a', 'b', 'c'].map((name) => ({ name, shape: [2] }));

/** Reads a folder made of these files. */
async function of(files: Readonly<Record<string, string | Buffer>>) {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-shards-'));
  try {
    for (const [name, data] of Object.entries(files)) writeFileSync(path.join(folder, name), data);
    return await readWeights(folder, WANTED, '', RULES);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
const index = (map: object) => JSON.stringify({ metadata: { total_size: 24 }, weight_map: map });
const ONE = safetensors({ a: [1, 2], c: [5, 6] });
const TWO = safetensors({ b: [3, 4] });

test('weights in several files are read as those in one', async () => {
  const { weights, fresh, ignored } = await of({ 'one.safetensors': ONE, 'two.safetensors': TWO, 'model.safetensors.index.json': index({ a: 'one.safetensors', b: 'two.safetensors', c: 'one.safetensors' }) });
  assert.deepEqual(Object.fromEntries([...weights].map(([n, w]) => [n, [...w.data]])), { a: [1, 2], b: [3, 4], c: [5, 6] });
  assert.deepEqual([fresh, ignored], [[], []]);
});

test('a whole file goes before an index', async () => {
  const { weights } = await of({ 'model.safetensors': safetensors({ a: [7, 7], b: [7, 7], c: [7, 7] }), 'model.safetensors.index.json': index({ a: 'absent.safetensors' }) });
  assert.deepEqual([...weights.get('a')!.data], [7, 7]);
});

test('index and shards that are not of one model are refused, whichever holds more', async () => {
  const both = { 'one.safetensors': ONE, 'two.safetensors': TWO };
  await assert.rejects(of({ ...both, 'model.safetensors.index.json': index({ a: 'one.safetensors', b: 'one.safetensors', c: 'one.safetensors' }) }), (e: Error) => e instanceof CheckpointError && /one\.safetensors: lacks b/.test(e.message));
  await assert.rejects(of({ ...both, 'model.safetensors.index.json': index({ a: 'one.safetensors', b: 'two.safetensors' }) }), (e: Error) => e instanceof CheckpointError && /holds c, which .* does not say/.test(e.message));
});

test('a shard that is not there is named before any is read', async () => {
  await assert.rejects(of({ 'one.safetensors': 'damaged', 'model.safetensors.index.json': index({ a: 'one.safetensors', b: 'two.safetensors' }) }), (e: Error) => e instanceof FileMissingError && /no two\.safetensors/.test(e.message));
});

test('an index leads to no file of another folder', async () => {
  for (const shard of ['../one.safetensors', '/x/one.safetensors', 'sub/one.safetensors', '..\\one.safetensors'])
    await assert.rejects(of({ 'model.safetensors.index.json': index({ a: shard }) }), UnsafeFileNameError);
});

test('pickled weights alone are not read, and the error says what to do', () =>
  assert.rejects(of({ 'pytorch_model.bin': 'x' }), (e: Error) => e instanceof FileMissingError && /runs no code.*safe_serialization=True/.test(e.message)));

test('an index of a hundred thousand weights in one file is read', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-index-'));
  writeFileSync(path.join(folder, INDEX_FILE), JSON.stringify({ weight_map: Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`w${i}`, 'a.safetensors'])) }));
  assert.deepEqual(readShardNames(folder), ['a.safetensors']);
  rmSync(folder, { recursive: true });
});
