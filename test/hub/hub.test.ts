import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { CheckpointError, FileMissingError, HubNotFoundError, InvalidArgumentError, OfflineError, UnsafeFileNameError, UnsupportedModelError } from '../../src/errors';
import { hub } from '../../src/hub/hub';
import { settingsOf } from '../../src/hub/settings';
import { gitSha1, sha256 } from './fakeHub';
import { below, MODEL, put, read, REPO, safetensors, TOKEN, WEIGHTS, withHub } from './helpers';

test('a folder on this machine is returned as it is, without a request', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-local-'));
  assert.equal(await hub(folder, { endpoint: 'http://127.0.0.1:9' }), folder);
  await assert.rejects(hub('./no/such/folder'), FileMissingError);
  await assert.rejects(hub('/no/such'), FileMissingError);
  rmSync(folder, { recursive: true });
});

for (const name of ['', '../x', 'a--b', '-a', 'a/', 'con/x', 'a b', 'a\0b', 'a.git', 'x'.repeat(97)])
  test(`${JSON.stringify(name).slice(0, 20)} is no repository`, () => assert.rejects(hub(name, { endpoint: 'http://127.0.0.1:9' }), (e) => e instanceof InvalidArgumentError || e instanceof FileMissingError));

test("a model is stored as Python's huggingface_hub stores it", () =>
  withHub(async ({ options, at, commit, storage, written }) => {
    const folder = await hub(REPO, options);
    assert.equal(folder, at('snapshots', commit));
    assert.deepEqual(read(folder, 'model.safetensors'), WEIGHTS);
    assert.deepEqual(readdirSync(folder).sort(), ['config.json', 'model.safetensors', 'vocab.txt'], 'the model alone, without README.md');
    assert.equal(readFileSync(at('refs', 'main'), 'utf8'), commit, 'no line break after the commit');
    assert.equal(readlinkSync(path.join(folder, 'model.safetensors')), path.join('..', '..', 'blobs', sha256(WEIGHTS)));
    assert.equal(readlinkSync(path.join(folder, 'config.json')), path.join('..', '..', 'blobs', gitSha1(MODEL['config.json'].data)));
    assert.equal(readdirSync(at('blobs')).length, 3);
    const tree = JSON.parse(readFileSync(at('trees', `${commit}.json`), 'utf8'));
    assert.deepEqual(tree.files['model.safetensors'], { size: WEIGHTS.length, blob_id: gitSha1(WEIGHTS), lfs_sha256: sha256(WEIGHTS), lfs_size: WEIGHTS.length });
    assert.ok(!below(storage).some((n) => n.endsWith('.tmp') || n.endsWith('.incomplete')));
    assert.match(written.at(-1)!, /^owner\/tiny-bert █{24} 195 KiB\/195 KiB .*\/s {2}in 0:0\d/);
  }));

test("RoBERTa's older tokenizer files come with the model", () =>
  withHub(async ({ fake, options }) => {
    const { 'vocab.txt': _, ...model } = MODEL;
    fake.commit(`models/${REPO}`, { ...model, 'vocab.json': { data: Buffer.from('{}') }, 'merges.txt': { data: Buffer.from('#version: 0.2') } });
    assert.deepEqual(readdirSync(await hub(REPO, options)).sort(), ['config.json', 'merges.txt', 'model.safetensors', 'vocab.json']);
  }));

test('what is in the cache costs one request, and none when the commit is named or offline', () =>
  withHub(async ({ fake, options, commit, written }) => {
    const folder = await hub(REPO, options);
    fake.asked.length = 0;
    written.length = 0;
    assert.equal(await hub(REPO, options), folder);
    assert.deepEqual(fake.asked.map((a) => a.kind), ['info']);
    assert.equal(await hub(REPO, { ...options, revision: commit }), folder);
    assert.equal(await hub(REPO, { ...options, offline: true }), folder);
    assert.equal(fake.asked.length, 1);
    assert.deepEqual(written, [], 'no progress is drawn where nothing is downloaded');
  }));

test('a cache as Python writes it, without a listing, is found online and offline, and its contents are not fetched again', () =>
  withHub(async ({ fake, options, at, commit }) => {
    for (const [name, { data, lfs }] of Object.entries(MODEL)) {
      put(at('blobs', lfs ? sha256(data) : gitSha1(data)), data);
      put(at('snapshots', commit, name), data);
    }
    put(at('refs', 'main'), commit);
    assert.equal(await hub(REPO, { ...options, offline: true }), at('snapshots', commit));
    assert.equal(fake.asked.length, 0);
    await hub(REPO, options);
    assert.deepEqual(fake.asked.map((a) => a.kind), ['info', 'tree']);
  }));

test('a branch that has moved is followed, and what has not changed is not fetched again', () =>
  withHub(async ({ fake, options, at }) => {
    await hub(REPO, options);
    const later = fake.commit(`models/${REPO}`, { ...MODEL, 'config.json': { data: Buffer.from('{"model_type":"bert","v":2}') } });
    fake.asked.length = 0;
    const folder = await hub(REPO, options);
    assert.equal(folder, at('snapshots', later));
    assert.match(read(folder, 'config.json').toString(), /"v":2/);
    assert.equal(fake.count('file'), 1);
    assert.equal(fake.count('storage'), 0);
    assert.equal(await hub(REPO, { ...options, offline: true }), folder);
  }));

test('until a moved branch is here whole, offline mode gives the older copy', () =>
  withHub(async ({ fake, options, fails }) => {
    const folder = await hub(REPO, options);
    fake.commit(`models/${REPO}`, { ...MODEL, 'config.json': { data: Buffer.from('{"v":2}') }, 'vocab.txt': { data: Buffer.from('new') } });
    fake.fault = (q, r, kind) => kind === 'file' && q.url!.endsWith('vocab.txt') && (r.destroy(), true);
    await fails(() => hub(REPO, options));
    assert.equal(await hub(REPO, { ...options, offline: true }), folder);
  }));

test('a cached file of another size is fetched again', () =>
  withHub(async ({ options, at, commit }) => {
    const folder = await hub(REPO, options);
    writeFileSync(at('blobs', sha256(WEIGHTS)), WEIGHTS.subarray(0, 1000));
    await hub(REPO, options);
    assert.deepEqual(read(folder, 'model.safetensors'), WEIGHTS);
    assert.ok(existsSync(at('snapshots', commit, 'vocab.txt')));
  }));

test('files can be chosen by name and pattern, in folders as well', () =>
  withHub(async ({ fake, options, fails }) => {
    fake.commit(`models/${REPO}`, { ...MODEL, 'onnx/model v1+x.onnx': { data: Buffer.from('o') } });
    const folder = await hub(REPO, { ...options, files: ['README.md', 'onnx/*'] });
    assert.deepEqual(below(folder), ['README.md', 'onnx', path.join('onnx', 'model v1+x.onnx')]);
    for (const file of ['absent.txt', 'absent*']) {
      const error = await fails(() => hub(REPO, { ...options, files: [file] }));
      assert.ok(error instanceof HubNotFoundError && error.what === 'file' && error.message.includes(file));
    }
  }));

test('weights in shards are fetched by their index', () =>
  withHub(async ({ fake, options }) => {
    const index = { weight_map: { a: 'one.safetensors', b: 'two.safetensors', c: 'one.safetensors' } };
    fake.commit('models/owner/shards', {
      'config.json': MODEL['config.json'],
      'model.safetensors.index.json': { data: Buffer.from(JSON.stringify(index)) },
      'one.safetensors': { data: safetensors({ a: [1], c: [2] }), lfs: true },
      'two.safetensors': { data: safetensors({ b: [3] }), lfs: true },
      'not-named.safetensors': { data: Buffer.from('x'), lfs: true },
    });
    const folder = await hub('owner/shards', options);
    assert.deepEqual(readdirSync(folder).sort(), ['config.json', 'model.safetensors.index.json', 'one.safetensors', 'two.safetensors']);
    assert.equal(await hub('owner/shards', { ...options, offline: true }), folder);
  }));

for (const shard of ['../../../../evil.safetensors', '/tmp/evil.safetensors', 'a\\b.safetensors', 'sub/x.safetensors', 'C:x.safetensors', 'nul.safetensors', 'a\0.safetensors'])
  test(`an index that names the shard ${JSON.stringify(shard)} is refused`, () =>
    withHub(async ({ fake, options, fails }) => {
      fake.commit('models/owner/evil', { 'config.json': MODEL['config.json'], 'model.safetensors.index.json': { data: Buffer.from(JSON.stringify({ weight_map: { a: shard } })) } });
      assert.ok((await fails(() => hub('owner/evil', options))) instanceof UnsafeFileNameError);
    }));

test('an index that is no index is told', () =>
  withHub(async ({ fake, options, fails }) => {
    for (const text of ['{', '[]', 'null', '{"weight_map":{"a":1}}', '{"weight_map":{}}', '{"weight_map":{"a":"pytorch_model.bin"}}']) {
      fake.commit('models/owner/bad', { 'config.json': MODEL['config.json'], 'model.safetensors.index.json': { data: Buffer.from(text) } });
      assert.ok((await fails(() => hub('owner/bad', options))) instanceof CheckpointError, text);
    }
  }));

test('pickled weights are not fetched: the error says that no code is run, and what to do', () =>
  withHub(async ({ fake, options, fails }) => {
    fake.commit('models/owner/pickled', { 'config.json': MODEL['config.json'], 'pytorch_model.bin': { data: Buffer.from('pickle'), lfs: true } });
    const error = await fails(() => hub('owner/pickled', options));
    assert.ok(error instanceof UnsupportedModelError);
    assert.match(error.message, /pytorch_model\.bin.*runs no code from checkpoints.*safe_serialization=True/);
    assert.equal(fake.count('file'), 0);
  }));

test('a renamed repository is found by the redirect to its new name, token included', () =>
  withHub(async ({ fake, options }) => {
    fake.fault = (q, r) => q.url!.includes('tiny-old') && (r.writeHead(307, { location: q.url!.replace('tiny-old', REPO) }).end(), true);
    const folder = await hub('tiny-old', options);
    assert.ok(folder.includes('models--tiny-old'), "the folder is named after what was asked for, as Python's");
    assert.ok(fake.asked.filter((a) => a.kind !== 'storage').every((a) => a.authorization === `Bearer ${TOKEN}`));
  }));

test('two downloads at once share no partial file, and both succeed', () =>
  withHub(async ({ fake, options, at }) => {
    const [a, b] = await Promise.all([hub(REPO, options), hub(REPO, options)]);
    assert.equal(a, b);
    assert.deepEqual(read(a, 'model.safetensors'), WEIGHTS);
    assert.equal(readdirSync(at('blobs')).length, 3);
    assert.ok(fake.count('storage') >= 1);
  }));

test("settings come from the environment variables of Python's huggingface_hub, options before them", () => {
  const home = mkdtempSync(path.join(tmpdir(), 'slimfit-hf-'));
  writeFileSync(path.join(home, 'token'), 'hf_from_file\n');
  const of = (env: Record<string, string>, options = {}) => settingsOf(options, env);
  assert.deepEqual([of({ HF_HOME: home }).cacheDir, of({ HF_HOME: home }).token], [path.join(home, 'hub'), 'hf_from_file']);
  assert.equal(of({ HF_HOME: home, HF_TOKEN: ' hf_env\n' }).token, 'hf_env');
  assert.equal(of({ HF_HOME: home, HF_TOKEN: 'hf_env' }, { token: 'hf_given' }).token, 'hf_given');
  assert.equal(of({ HF_HOME: home, HF_TOKEN: 'hf_env' }, { token: false }).token, undefined);
  assert.equal(of({ HF_TOKEN_PATH: path.join(home, 'token') }).token, 'hf_from_file');
  assert.equal(of({ HF_HOME: home, HF_HUB_CACHE: '/x' }).cacheDir, path.resolve('/x'));
  assert.equal(of({ HF_HOME: '$UP/hf', UP: '/y' }).cacheDir, path.resolve('/y/hf/hub'));
  assert.equal(of({ XDG_CACHE_HOME: '/z' }).cacheDir, path.resolve('/z/huggingface/hub'));
  assert.equal(of({}).endpoint, 'https://huggingface.co');
  assert.equal(of({ HF_ENDPOINT: 'http://mirror:80/hf/' }).endpoint, 'http://mirror/hf');
  assert.deepEqual(['1', 'true', 'ON', '0', ''].map((v) => of({ HF_HUB_OFFLINE: v }).offline), [true, true, true, false, false]);
  assert.equal(of({ HF_HUB_DISABLE_PROGRESS_BARS: '1' }).progress, undefined);
  for (const bad of ['nowhere', 'ftp://x', 'http://x?token=1']) assert.throws(() => of({ HF_ENDPOINT: bad }), InvalidArgumentError);
  assert.throws(() => of({ HF_ENDPOINT: 'https://me:secret@x' }), (e: Error) => e instanceof InvalidArgumentError && !e.message.includes('secret'));
  assert.throws(() => of({ HF_TOKEN: 'hf_a b' }), (e: Error) => e instanceof InvalidArgumentError && !e.message.includes('hf_a'));
  rmSync(home, { recursive: true });
});

test('offline without the model in the cache is told, and no request made', () =>
  withHub(async ({ fake, options, fails, at }) => {
    const error = await fails(() => hub(REPO, { ...options, offline: true }));
    assert.ok(error instanceof OfflineError);
    assert.match(error.message, /not in the cache.*HF_HUB_OFFLINE/);
    mkdirSync(at('refs'), { recursive: true });
    assert.equal(fake.asked.length, 0);
  }));

test('offline with half a model in the cache names what is missing', () =>
  withHub(async ({ options, fails, at, commit }) => {
    await hub(REPO, options);
    rmSync(at('snapshots', commit, 'model.safetensors'));
    const error = await fails(() => hub(REPO, { ...options, offline: true }));
    assert.ok(error instanceof OfflineError);
    assert.match(error.message, /without model\.safetensors/);
    // A cache of an older Python has no listing: then a model without weights is none.
    rmSync(at('trees'), { recursive: true });
    const again = await fails(() => hub(REPO, { ...options, offline: true }));
    assert.ok(again instanceof OfflineError);
    assert.match(again.message, /without model\.safetensors/);
  }));
