/** Pages that hyparquet would read for ever, or die of; each by hand, in Thrift's compact protocol. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ColumnMetaData, SchemaElement } from 'hyparquet';
import { checkFooter, checkPages } from '../../src/hub/parquetPages';

/** A varint of a number, and of a signed one. */
const varint = (n: number): number[] => (n < 128 ? [n] : [(n % 128) + 128, ...varint(Math.floor(n / 128))]);
const i32 = (n: number): number[] => varint(2 * n);
/** A data page, version 1: kind, size, compressed size, { values, encoding }; a size that is undefined is left out. */
function page({ size, packed, values, encoding = 0 }: { size?: number; packed?: number; values: number; encoding?: number }, body: readonly number[]): Uint8Array {
  const compressed = packed ?? size;
  const sizes = [...(size === undefined ? [] : [0x15, ...i32(size)]), ...(compressed === undefined ? [] : [0x15, ...i32(compressed)])];
  // The next field is the fifth.
  return Uint8Array.from([0x15, 0, ...sizes, compressed === undefined ? 0x4c : 0x2c, 0x15, ...i32(values), 0x15, ...i32(encoding), 0, 0, ...body]);
}
const column = (num_values: number): ColumnMetaData => ({ type: 'INT32', codec: 'UNCOMPRESSED', num_values: BigInt(num_values), path_in_schema: ['a'] }) as unknown as ColumnMetaData;
const optional = [{ name: 'a', repetition_type: 'OPTIONAL' }] as SchemaElement[];
const required = [{ name: 'a', repetition_type: 'REQUIRED' }] as SchemaElement[];
const look = (bytes: Uint8Array, path: SchemaElement[], values = 4) => checkPages(bytes, column(values), path, values, {});
/** Definition levels: their length, one run of four. */
const LEVELS = [2, 0, 0, 0, 8, 1];
const INTS = Array.from({ length: 16 }, (_, i) => i);

test('good pages are let through: plain, with levels, of a dictionary', () => {
  look(page({ size: 16, values: 4 }, INTS), required);
  look(page({ size: 22, values: 4 }, [...LEVELS, ...INTS]), optional);
  look(page({ size: 3, values: 4, encoding: 8 }, [1, 8, 1]), required);
  look(page({ size: 3, values: 4, encoding: 8 }, [1, 3, 0b1010]), required);
});

test('a run of more values than its page has is refused, in levels and among indices', () => {
  const run = varint(2 * 2 ** 30);
  assert.throws(() => look(page({ size: 6 + run.length, values: 4 }, [run.length + 1, 0, 0, 0, ...run, 1, 0]), optional), /a run of 1073741824 values where 4 are left/);
  assert.throws(() => look(page({ size: 2 + run.length, values: 4, encoding: 8 }, [1, ...run, 1]), required), /a run of 1073741824 values where 4 are left/);
  assert.throws(() => look(page({ size: 1 + 5, values: 4, encoding: 8 }, [0, ...varint(2 ** 31 + 1)]), required), /a run of/);
});

test('levels that end before their values are refused, as hyparquet would go on in what is behind', () => {
  assert.throws(() => look(page({ size: 22, values: 4 }, [2, 0, 0, 0, 4, 1, ...INTS]), optional), /runs end after 2 of 4 values/);
  assert.throws(() => look(page({ size: 22, values: 4 }, [200, 0, 0, 0, 8, 1, ...INTS]), optional), /levels that end behind their page/);
});

test('a page without a size, or with one that leads behind the column, is refused', () => {
  assert.throws(() => look(page({ values: 4 }, INTS), required), /whose size is missing/);
  assert.throws(() => look(page({ size: 16, packed: 1000, values: 4 }, INTS), required), /a page ends at byte/);
});

test('pages of more or fewer values than the column are refused', () => {
  assert.throws(() => look(page({ size: 16, values: 4 }, INTS), required, 5), /pages of 4 values for 5/);
  assert.throws(() => look(page({ size: 16, values: 2 ** 30 }, INTS), required, 4), /pages of 1073741824 values for 4/);
  assert.throws(() => checkPages(page({ size: 16, values: 4 }, INTS), column(4), required, 3, {}), /4 values for 3 rows/);
});

test('a page that claims far more than its bytes can hold is not decompressed', () => {
  let asked = 0;
  const codecs = { SNAPPY: (_: Uint8Array, size: number) => (asked++, new Uint8Array(size)) };
  const lie = { ...column(4), codec: 'SNAPPY' } as unknown as ColumnMetaData;
  assert.throws(() => checkPages(page({ size: 2 ** 30, packed: 16, values: 4 }, INTS), lie, required, 4, codecs), /claims 1073741824/);
  assert.equal(asked, 0);
});

test('a footer whose lists, texts, numbers or depth are more than its bytes is refused', () => {
  const footer = (bytes: readonly number[]) => checkFooter(Uint8Array.from([...bytes, 0, 0, 0, 0, 0x50, 0x41, 0x52, 0x31]), bytes.length);
  footer([0x15, 2, 0x19, 0x2c, 0, 0, 0]);
  assert.throws(() => footer([0x19, 0xfc, ...varint(2 ** 25 - 1), 0]), /a list of 33554431 items where 1 bytes are left/);
  assert.throws(() => footer([0x18, ...varint(2 ** 31 - 1), 0]), /2147483647 bytes are claimed/);
  assert.throws(() => footer([0x16, ...Array(5000).fill(0xff), 0]), /longer than 64 bits/);
  assert.throws(() => footer(Array(5000).fill(0x1c)), /nested too deep/);
  assert.throws(() => footer([0x15, 2]), /has no end/);
});
