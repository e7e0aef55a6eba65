import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { readCifar10, readCifar100 } from '../../src/data/cifar';
import { DataRowError, FileMissingError, InvalidArgumentError } from '../../src/errors';

const SHARED = path.resolve(__dirname, '../../../shared/data');
const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-cifar-'));
let files = 0;
const file = (...records: Uint8Array[]): string => {
  const p = path.join(folder, `${files++}.bin`);
  writeFileSync(p, Buffer.concat(records));
  return p;
};
/** Red counts up along a row, green is the row, blue a constant. */
const record = (...labels: number[]): Uint8Array => {
  const r = new Uint8Array(labels.length + 3072);
  r.set(labels);
  for (let i = 0; i < 1024; i++) {
    r[labels.length + i] = i % 32;
    r[labels.length + 1024 + i] = Math.floor(i / 32);
    r[labels.length + 2048 + i] = 200;
  }
  return r;
};

test('a record is a label and three planes; several files follow each other', () => {
  const data = readCifar10([file(record(3), record(9)), file(record(0))]);
  assert.equal(data.size, 3);
  assert.deepEqual(data.labels, Int32Array.of(3, 9, 0));
  assert.deepEqual(data.imageSize, { height: 32, width: 32 });
  const stored = data.image(1);
  assert.ok(stored.kind === 'rgb');
  const at = 3 * (5 * 32 + 7);
  assert.deepEqual([...stored.image.data.subarray(at, at + 3)], [7, 5, 200]);
});

test('CIFAR-100 has a coarse label, then a fine one', () => {
  const f = file(record(19, 99), record(2, 31));
  assert.deepEqual(readCifar100(f).labels, Int32Array.of(99, 31));
  assert.deepEqual(readCifar100(f, { labels: 'coarse' }).labels, Int32Array.of(19, 2));
  assert.deepEqual([readCifar100(f).labelNames.length, readCifar100(f, { labels: 'coarse' }).labelNames.length], [100, 20]);
  const stored = readCifar100(f).image(0);
  assert.ok(stored.kind === 'rgb' && stored.image.data[2] === 200);
  assert.throws(() => readCifar100(f, { labels: 'both' as 'fine' }), InvalidArgumentError);
});

test('names come from the file beside the data; without it classes are numbered', () => {
  const f = file(record(1));
  assert.equal(readCifar10(f).labelNames[9], 'LABEL_9');
  writeFileSync(path.join(folder, 'batches.meta.txt'), 'a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n');
  assert.deepEqual(readCifar10(f).labelNames, [...'abcdefghij']);
  writeFileSync(path.join(folder, 'batches.meta.txt'), 'a\nb\n');
  assert.throws(() => readCifar10(f), (e: Error) => e instanceof DataRowError && /2 class names instead of 10/.test(e.message));
  writeFileSync(path.join(folder, 'batches.meta.txt'), 'a\nb\nc\nd\ne\nf\ng\nh\ni\nj');
});

test('a bad record is named by file, number and reason', () => {
  const bad = (read: () => unknown, line: number, reason: RegExp) => assert.throws(read, (e: Error) => e instanceof DataRowError && e.line === line && reason.test(e.message), reason.source);
  bad(() => readCifar10(file(record(0), record(10))), 2, /label 10 is no class from 0 to 9/);
  bad(() => readCifar100(file(record(20, 0))), 1, /coarse label 20/);
  bad(() => readCifar100(file(record(0, 0), record(0, 100))), 2, /fine label 100/);
  bad(() => readCifar10(file(record(0), record(0).subarray(0, 3000))), 2, /no whole number of records of 3073/);
  bad(() => readCifar10(file()), 1, /0 bytes/);
  // A CIFAR-100 file read as CIFAR-10.
  bad(() => readCifar10(file(record(0, 0))), 2, /of another kind/);
  assert.throws(() => readCifar10(path.join(folder, 'none.bin')), FileMissingError);
  assert.throws(() => readCifar10([]), InvalidArgumentError);
});

test('the shared samples are read whole, balanced, with the official names', { skip: existsSync(path.join(SHARED, 'cifar10')) ? false : 'no ../shared/data/cifar10' }, () => {
  const counts = (labels: Int32Array, n: number) => Array.from({ length: n }, (_, k) => labels.filter((l) => l === k).length);
  const ten = readCifar10(path.join(SHARED, 'cifar10/train.bin'));
  assert.deepEqual([ten.size, ten.labelNames[0], ten.labelNames[9]], [10000, 'airplane', 'truck']);
  assert.deepEqual(counts(ten.labels, 10), new Array(10).fill(1000));
  const fine = readCifar100(path.join(SHARED, 'cifar100/test.bin'));
  assert.deepEqual([fine.size, fine.labelNames[0], counts(fine.labels, 100)], [2000, 'apple', new Array(100).fill(20)]);
  const coarse = readCifar100(path.join(SHARED, 'cifar100/test.bin'), { labels: 'coarse' });
  assert.deepEqual([coarse.labelNames[0], counts(coarse.labels, 20)], ['aquatic_mammals', new Array(20).fill(100)]);
  // One image under two labels, as published.
  const train = readCifar100(path.join(SHARED, 'cifar100/train.bin'));
  assert.deepEqual(train.image(7595), train.image(8893));
  assert.notEqual(train.labels[7595], train.labels[8893]);
  // Reading interleaves what the file holds in planes.
  const raw = readFileSync(path.join(SHARED, 'cifar10/train.bin'));
  const stored = ten.image(4321);
  assert.ok(stored.kind === 'rgb');
  for (const [x, y, c] of [[0, 0, 0], [31, 0, 1], [5, 17, 2], [31, 31, 2]]) assert.equal(stored.image.data[3 * (32 * y + x) + c], raw[4321 * 3073 + 1 + 1024 * c + 32 * y + x]);
});

test('a folder is no CIFAR file', () => {
  assert.throws(() => readCifar10(__dirname), (e: Error) => e instanceof FileMissingError && /is no file/.test(e.message));
});
