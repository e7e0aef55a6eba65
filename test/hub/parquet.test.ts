/** Against rows that fixtures/parquet.py has made up and pyarrow has written. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { FileMissingError, InvalidArgumentError, ParquetError } from '../../src/errors';
import { type ParquetRow, readParquetFile, readParquetInfo } from '../../src/hub/parquet';

const fixture = (name: string) => path.join(__dirname, 'fixtures', `${name}.parquet`);

/** The row that the script makes. */
const textRow = (i: number): ParquetRow => ({
  sentence: i % 5 ? `Made-up sentence № ${i}.` : null,
  label: i % 2,
  idx: i,
  score: i / 4,
  big: 2n ** 53n + BigInt(i),
  answers: { text: ['a', 'é'].slice(0, i % 3), answer_start: [1, 2].slice(0, i % 3) },
  day: new Date(Date.UTC(2020, 0, 1 + i)),
  yes: i % 3 === 0,
});
const tenRows = Array.from({ length: 10 }, (_, i) => textRow(i));

for (const compression of ['snappy', 'zstd'])
  test(`rows of a ${compression} file come back as they were written: text, missing values, numbers, lists, dates`, async () => {
    assert.deepEqual(await readParquetFile(fixture(`text-${compression}`)), tenRows);
  });

test('columns and rows can be chosen, across row groups', async () => {
  assert.deepEqual(
    await readParquetFile(fixture('text-zstd'), { columns: ['label', 'sentence'], from: 3, to: 7 }),
    tenRows.slice(3, 7).map(({ label, sentence }) => ({ label, sentence })),
  );
  assert.deepEqual(await readParquetFile(fixture('text-zstd'), { from: 4, to: 4 }), []);
  for (const bad of [{ from: -1 }, { to: 11 }, { from: 5, to: 4 }, { from: 0.5 }]) await assert.rejects(readParquetFile(fixture('text-zstd'), bad), InvalidArgumentError);
  await assert.rejects(readParquetFile(fixture('text-zstd'), { columns: ['absent'] }), /no column 'absent': choose of sentence, label/);
});

test('bytes of images stay bytes, beside their path', async () => {
  const rows = await readParquetFile(fixture('images'));
  assert.equal(rows.length, 5);
  rows.forEach(({ image, label }, i) => {
    const { bytes, path: name } = image as { bytes: Uint8Array; path: string };
    assert.ok(bytes instanceof Uint8Array);
    assert.deepEqual([...bytes], [255, 216, i, 0, 195, 40, 255, 216, i, 0, 195, 40, 255, 216, i, 0, 195, 40]);
    assert.equal(name, `${i}.png`);
    assert.equal(label, [0, 1, 2, 1, 0][i]);
  });
});

test('number of rows, columns and class names are told without reading a row', async () => {
  assert.deepEqual(await readParquetInfo(fixture('images')), { numRows: 5, columns: ['image', 'label'], classNames: { label: ['cat', 'dog', 'owl'] } });
  assert.deepEqual(await readParquetInfo(fixture('plain')), { numRows: 2, columns: ['a'], classNames: {} });
  assert.deepEqual((await readParquetInfo(fixture('text-snappy'))).classNames, { label: ['unacceptable', 'acceptable'] });
});

test('a file without rows has none', async () => {
  assert.deepEqual(await readParquetFile(fixture('empty')), []);
  assert.equal((await readParquetInfo(fixture('empty'))).numRows, 0);
});

test('what is no Parquet file, or damaged, is a ParquetError that names the file, or reads as something; the process never ends', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-parquet-'));
  const file = path.join(folder, 'bad.parquet');
  const unhandled: unknown[] = [];
  const note = (e: unknown) => unhandled.push(e);
  process.on('unhandledRejection', note);
  const attempt = async (bytes: Uint8Array): Promise<boolean> => {
    writeFileSync(file, bytes);
    try {
      await readParquetFile(file);
      return true;
    } catch (error) {
      assert.ok(error instanceof ParquetError && error.message.includes(file), String(error));
      return false;
    }
  };
  for (const text of ['', 'PAR1', 'PAR1PAR1', '<html>', 'x'.repeat(100)]) assert.equal(await attempt(Buffer.from(text)), false, text);
  let refused = 0;
  for (const name of ['text-zstd', 'images']) {
    const good = readFileSync(fixture(name));
    for (let cut = 0; cut < good.length; cut += 101) assert.equal(await attempt(good.subarray(0, cut)), false, 'a file that was cut');
    for (let at = 0; at < good.length; at += 23) {
      const bad = Buffer.from(good);
      bad[at] ^= 1 << at % 8;
      if (!(await attempt(bad))) refused++;
    }
  }
  assert.ok(refused > 80, `${refused} damaged files were refused`);
  await new Promise((done) => setImmediate(done));
  process.off('unhandledRejection', note);
  assert.deepEqual(unhandled, []);
  await assert.rejects(readParquetFile(path.join(folder, 'absent.parquet')), FileMissingError);
  await assert.rejects(readParquetFile(folder), FileMissingError);
  rmSync(folder, { recursive: true });
});

test('a file of five changed bytes whose run claims 2^31 values, at which hyparquet ends the process, is a ParquetError', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-parquet-'));
  const file = path.join(folder, 'run.parquet');
  const values = Array.from({ length: 200 }, (_, i) => (i === 150 ? null : i));
  const bytes = Buffer.from(parquetWriteBuffer({ columnData: [{ name: 'a', data: values, type: 'INT32', nullable: true }], codec: 'UNCOMPRESSED' }));
  writeFileSync(file, bytes);
  assert.deepEqual((await readParquetFile(file)).map((r) => r.a), values);
  // Definition levels: 150 ones, a null, 49 ones.
  const run = bytes.indexOf(Buffer.from([0xac, 0x02, 0x01]));
  assert.ok(run > 0);
  Buffer.from([0xfe, 0xff, 0xff, 0xff, 0x0f]).copy(bytes, run);
  writeFileSync(file, bytes);
  await assert.rejects(readParquetFile(file), (e: Error) => e instanceof ParquetError && e.message.includes(file) && /a run of 2147483647 values where 200 are left/.test(e.message));
  rmSync(folder, { recursive: true });
});
