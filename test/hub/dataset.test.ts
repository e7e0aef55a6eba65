import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { DownloadError, HubNotFoundError, InvalidArgumentError, OfflineError, ParquetError } from '../../src/errors';
import { dataset, type HubDataset, layoutOf } from '../../src/hub/dataset';
import type { FakeFile } from './fakeHub';
import { below, put, withHub } from './helpers';

const fixture = (name: string) => path.join(__dirname, 'fixtures', `${name}.parquet`);
const parquet = (name: string): FakeFile => ({ data: readFileSync(fixture(name)), lfs: true });
const text = (t: string): FakeFile => ({ data: Buffer.from(t) });
const sorted = (names: readonly string[]) => Object.fromEntries([...layoutOf(names)].map(([c, s]) => [c, Object.fromEntries(s)]));

test('configurations and splits are read from the names of the three layouts', () => {
  assert.deepEqual(
    sorted(['README.md', 'cola/test-00000-of-00001.parquet', 'cola/train-00001-of-00002.parquet', 'cola/train-00000-of-00002.parquet', 'mnli/validation_matched-00000-of-00001.parquet', 'mnli/notes.csv']),
    { cola: { test: ['cola/test-00000-of-00001.parquet'], train: ['cola/train-00000-of-00002.parquet', 'cola/train-00001-of-00002.parquet'] }, mnli: { validation_matched: ['mnli/validation_matched-00000-of-00001.parquet'] } },
  );
  assert.deepEqual(sorted(['data/train-00000-of-00001-0123456789abcdef.parquet', 'data/test-set-00000-of-00001.parquet']), {
    default: { train: ['data/train-00000-of-00001-0123456789abcdef.parquet'], 'test-set': ['data/test-set-00000-of-00001.parquet'] },
  });
  assert.deepEqual(sorted(['plain_text/train/0001.parquet', 'plain_text/train/0000.parquet', 'plain_text/test/0000.parquet']), {
    plain_text: { train: ['plain_text/train/0000.parquet', 'plain_text/train/0001.parquet'], test: ['plain_text/test/0000.parquet'] },
  });
  assert.deepEqual(sorted(['train.parquet', 'dev.parquet', 'a/b/c/d.parquet']), { default: { train: ['train.parquet'], dev: ['dev.parquet'] } });
});

const GLUE = {
  'README.md': text('---\n---'),
  'cola/train-00000-of-00002.parquet': parquet('text-snappy'),
  'cola/train-00001-of-00002.parquet': parquet('text-zstd'),
  'cola/validation-00000-of-00001.parquet': parquet('text-zstd'),
  'sst2/train-00000-of-00001.parquet': parquet('plain'),
};

test("a configuration of a short name's repository is downloaded alone, and its rows read across its files", () =>
  withHub(async ({ fake, options, cache }) => {
    fake.commit('datasets/nyu-mll/glue', GLUE);
    const cola: HubDataset = await dataset('glue', 'cola', options);
    assert.deepEqual([cola.repo, cola.config, cola.splits], ['nyu-mll/glue', 'cola', ['train', 'validation']]);
    assert.deepEqual([cola.numRows('train'), cola.numRows('validation')], [20, 10]);
    assert.deepEqual(cola.classNames('label'), ['unacceptable', 'acceptable']);
    assert.equal(cola.classNames('idx'), undefined);
    assert.equal(cola.classNames('constructor'), undefined);
    assert.deepEqual(cola.columns.slice(0, 3), ['sentence', 'label', 'idx']);
    assert.deepEqual((await cola.rows('train', { columns: ['idx'] })).map((r) => r.idx), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.deepEqual((await cola.rows('train', { columns: ['idx'], from: 8, to: 12 })).map((r) => r.idx), [8, 9, 0, 1]);
    assert.deepEqual(await cola.rows('train', { from: 20, to: 20 }), []);
    await assert.rejects(cola.rows('train', { to: 21 }), InvalidArgumentError);
    await assert.rejects(cola.rows('test'), (e) => e instanceof HubNotFoundError && e.what === 'split');
    assert.deepEqual(cola.files('validation'), [path.join(cache, 'datasets--nyu-mll--glue', 'snapshots', cola.commit!, 'cola', 'validation-00000-of-00001.parquet')]);
    assert.ok(!below(cache).some((n) => n.includes('sst2')));
    // From the cache.
    assert.equal((await dataset('glue', 'cola', { ...options, offline: true })).numRows('train'), 20);
    const error = await dataset('glue', 'sst2', { ...options, offline: true }).catch((e: unknown) => e);
    assert.ok(error instanceof OfflineError);
  }));

test('splits can be chosen', () =>
  withHub(async ({ fake, options, fails }) => {
    fake.commit('datasets/nyu-mll/glue', GLUE);
    assert.deepEqual((await dataset('nyu-mll/glue', 'cola', { ...options, splits: ['validation'] })).splits, ['validation']);
    assert.equal(fake.count('storage'), 1);
    const error = await fails(() => dataset('glue', 'cola', { ...options, splits: ['dev'] }));
    assert.ok(error instanceof HubNotFoundError && error.what === 'split');
    assert.match(error.message, /choose of train, validation/);
    assert.ok((await fails(() => dataset('glue', 'cola', { ...options, splits: [] }))) instanceof InvalidArgumentError);
  }));

test('the configuration may be left out where there is one, and the choice is told where there are several', () =>
  withHub(async ({ fake, options, fails }) => {
    fake.commit('datasets/uoft-cs/cifar10', { 'plain_text/train-00000-of-00001.parquet': parquet('images') });
    const cifar = await dataset('cifar10', undefined, options);
    assert.equal(cifar.config, 'plain_text');
    assert.deepEqual(cifar.classNames('label'), ['cat', 'dog', 'owl']);
    assert.ok((((await cifar.rows('train'))[0].image as { bytes: Uint8Array }).bytes) instanceof Uint8Array);
    fake.commit('datasets/nyu-mll/glue', GLUE);
    for (const config of [undefined, 'absent']) {
      const error = await fails(() => dataset('glue', config, options));
      assert.ok(error instanceof HubNotFoundError && error.what === 'configuration');
      assert.match(error.message, /of cola, sst2$/);
    }
  }));

test("a data set without Parquet files on its main branch is read from the hub's conversion, offline as well", () =>
  withHub(async ({ fake, options, cache }) => {
    fake.commit('datasets/owner/scripted', { 'scripted.py': text('print()') });
    fake.commit('datasets/owner/scripted', { 'default/train/0000.parquet': parquet('plain'), 'default/train/0001.parquet': parquet('plain') }, 'refs/convert/parquet');
    const data = await dataset('owner/scripted', undefined, options);
    assert.deepEqual(await data.rows('train'), [{ a: 1 }, { a: 2 }, { a: 1 }, { a: 2 }]);
    assert.equal(readFileSync(path.join(cache, 'datasets--owner--scripted', 'refs', 'refs', 'convert', 'parquet'), 'utf8'), data.commit);
    assert.equal((await dataset('owner/scripted', undefined, { ...options, offline: true })).numRows('train'), 4);
    await fake.stop().catch(() => {});
    assert.equal((await dataset('owner/scripted', undefined, options)).numRows('train'), 4);
  }));

test('no Parquet files anywhere, no repository, files of several shapes: each is told', () =>
  withHub(async ({ fake, options, fails }) => {
    fake.commit('datasets/owner/csv', { 'data.csv': text('a,b') });
    assert.match((await fails(() => dataset('owner/csv', undefined, options))).message, /no Parquet files.*data\.csv/);
    const error = await fails(() => dataset('owner/absent', undefined, options));
    assert.ok(error instanceof HubNotFoundError && error.what === 'repository');
    fake.commit('datasets/owner/mixed', { 'data/train-00000-of-00002.parquet': parquet('plain'), 'data/train-00001-of-00002.parquet': parquet('images') });
    assert.ok((await fails(() => dataset('owner/mixed', undefined, options))) instanceof ParquetError);
    fake.commit('datasets/owner/lacks', { 'data/train-00000-of-00002.parquet': parquet('plain') });
    assert.match((await fails(() => dataset('owner/lacks', undefined, options))).message, /should have 2 files, 1 are there/);
    fake.commit('datasets/owner/damaged', { 'data/train-00000-of-00001.parquet': text('no parquet') });
    assert.ok((await fails(() => dataset('owner/damaged', undefined, options))) instanceof ParquetError);
    await fake.stop().catch(() => {});
    assert.ok((await fails(() => dataset('owner/never', undefined, options))) instanceof DownloadError);
  }));

test('offline with a cache of an older Python that holds half a split, what is missing is told', () =>
  withHub(async ({ options, cache, fails }) => {
    const storage = path.join(cache, 'datasets--owner--half');
    put(path.join(storage, 'refs', 'main'), 'c'.repeat(40));
    put(path.join(storage, 'snapshots', 'c'.repeat(40), 'data', 'train-00000-of-00002.parquet'), readFileSync(fixture('plain')));
    const error = await fails(() => dataset('owner/half', undefined, { ...options, offline: true }));
    assert.ok(error instanceof OfflineError);
    put(path.join(storage, 'snapshots', 'c'.repeat(40), 'data', 'train-00001-of-00002.parquet'), readFileSync(fixture('plain')));
    assert.equal((await dataset('owner/half', undefined, { ...options, offline: true })).numRows('train'), 4);
  }));

test('a folder of Parquet files on this machine is a data set', () =>
  withHub(async ({ cache, options }) => {
    const folder = path.join(cache, 'local');
    mkdirSync(path.join(folder, 'data'), { recursive: true });
    copyFileSync(fixture('plain'), path.join(folder, 'data', 'train-00000-of-00001.parquet'));
    const data = await dataset(folder, undefined, options);
    assert.deepEqual([data.splits, data.commit, await data.rows('train')], [['train'], undefined, [{ a: 1 }, { a: 2 }]]);
    rmSync(folder, { recursive: true });
  }));
