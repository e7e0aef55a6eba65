import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { CheckpointError, FileMissingError, InvalidArgumentError } from '../../src/errors';
import { type RawArray, readSafetensors, safetensorsContents, SafetensorsReader, tensorBytes, writeSafetensors, writeSafetensorsFrom } from '../../src/hub/safetensors';

const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-st-'));
let n = 0;
const at = () => path.join(folder, `${n++}.safetensors`);

/** A file from a header and data, as any program could write it. */
function craft(header: unknown, data: Uint8Array, claimed?: bigint): string {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(claimed ?? BigInt(json.length));
  const file = at();
  writeFileSync(file, Buffer.concat([prefix, json, data]));
  return file;
}
const f32 = (...v: number[]) => new Uint8Array(Float32Array.from(v).buffer);

test('what is written is read back to the bit, special values included', async () => {
  const file = at();
  const a = { shape: [2, 3], data: Float32Array.of(1, -0, NaN, Infinity, 1e-45, 3.4e38) };
  writeSafetensors(file, new Map([['a', a], ['empty', { shape: [0], data: new Float32Array(0) }], ['scalar', { shape: [], data: Float32Array.of(7) }]]));
  const back = await readSafetensors(file);
  assert.deepEqual([...back.keys()], ['a', 'empty', 'scalar']);
  assert.deepEqual(new Uint8Array(back.get('a')!.data.buffer), new Uint8Array(a.data.buffer));
  assert.deepEqual(back.get('scalar')!.shape, []);
  const header = readFileSync(file).readBigUInt64LE(0);
  assert.equal(header % 8n, 0n);
});

test('tensors written one at a time make the same file, each asked for when the one before was taken', async () => {
  const tensors = new Map(Array.from({ length: 3 }, (_, i) => [`t${i}`, { shape: [2, i + 1], data: Float32Array.from({ length: 2 * (i + 1) }, (_, k) => k - i / 3) }]));
  const [whole, parts] = [at(), at()];
  writeSafetensors(whole, tensors);
  await writeSafetensorsFrom(parts, [...tensors].map(([name, { shape }]) => ({ name, shape })), async (name) => tensors.get(name)!.data);
  assert.deepEqual(readFileSync(parts), readFileSync(whole));
  const log: string[] = [];
  const plans = [...tensors].map(([name, { shape }]) => ({ name, shape, dtype: 'F32' as const }));
  for await (const piece of safetensorsContents(plans, (name) => (log.push(name), tensors.get(name)!.data))) log.push(`${piece.length}`);
  assert.deepEqual(log.slice(1), ['t0', '8', 't1', '16', 't2', '24']);
  assert.deepEqual(plans.map(tensorBytes), [8, 16, 24]);
});

test('values of a file whose writing failed leave the file of before, and no other', async () => {
  const file = at();
  writeSafetensors(file, new Map([['a', { shape: [1], data: Float32Array.of(5) }]]));
  await assert.rejects(writeSafetensorsFrom(file, [{ name: 'a', shape: [2] }], async () => Float32Array.of(1)), (e: Error) => e instanceof InvalidArgumentError && /tensor a has 1 values/.test(e.message));
  assert.deepEqual((await readSafetensors(file)).get('a')!.data, Float32Array.of(5));
  assert.deepEqual(readdirSync(folder).filter((f) => f.endsWith('.tmp')), []);
});

test('every type of array comes back to the bit, one tensor at a time, whatever a NaN carries', async () => {
  const odd = new Float64Array(new BigUint64Array([0x7ff8dead_beef0001n, 0xfff00000_00000001n, 1n, 0x8000000000000000n]).buffer);
  const arrays: Readonly<Record<string, RawArray>> = { F64: odd, F32: new Float32Array(new Uint32Array([0x7fc01234, 0x80000000, 1]).buffer), I32: Int32Array.of(-1, 2 ** 31 - 1), U32: Uint32Array.of(2 ** 32 - 1), U16: Uint16Array.of(65535, 1), I8: Int8Array.of(-128, 127, 0), U8: Uint8Array.of(255, 0, 7, 9, 1) };
  const file = at();
  const pieces: Uint8Array[] = [];
  for await (const p of safetensorsContents(Object.entries(arrays).map(([dtype, a]) => ({ name: `x ${dtype}`, dtype: dtype as 'F64', shape: [a.length] })), (name) => arrays[name.slice(2)])) pieces.push(p);
  writeFileSync(file, Buffer.concat(pieces));
  const reader = SafetensorsReader.open(file);
  const bits = (a: RawArray) => Buffer.from(a.buffer, a.byteOffset, a.byteLength).toString('hex');
  for (const [dtype, a] of Object.entries(arrays).reverse()) {
    const back = reader.read(`x ${dtype}`);
    assert.equal(back.constructor, a.constructor);
    assert.equal(bits(back), bits(a));
    assert.deepEqual(reader.shapeOf(`x ${dtype}`), [a.length]);
  }
  assert.deepEqual([reader.names.length, reader.shapeOf('y')], [7, undefined]);
  assert.throws(() => reader.read('y'), (e: Error) => e instanceof CheckpointError && /holds no tensor y/.test(e.message));
  writeFileSync(file, readFileSync(file).subarray(0, -3));
  assert.throws(() => reader.read('x U8'), CheckpointError);
  reader.close();
  assert.throws(() => SafetensorsReader.open(file), CheckpointError);
  assert.throws(() => SafetensorsReader.open(`${file}.none`), FileMissingError);
});

test('half, brain and double precision become float32, 64-bit integers int32', async () => {
  const data = Buffer.alloc(2 * 3 + 2 * 2 + 8 + 8);
  [0x3c00, 0xc000, 0x0001].forEach((h, i) => data.writeUInt16LE(h, 2 * i));
  [0x3f80, 0xc040].forEach((h, i) => data.writeUInt16LE(h, 6 + 2 * i));
  data.writeDoubleLE(0.5, 10);
  data.writeBigInt64LE(-3n, 18);
  const t = await readSafetensors(
    craft({ h: { dtype: 'F16', shape: [3], data_offsets: [0, 6] }, b: { dtype: 'BF16', shape: [2], data_offsets: [6, 10] }, d: { dtype: 'F64', shape: [1], data_offsets: [10, 18] }, i: { dtype: 'I64', shape: [1], data_offsets: [18, 26] } }, data),
  );
  assert.deepEqual(t.get('h')!.data, Float32Array.of(1, -2, 2 ** -24));
  assert.deepEqual(t.get('b')!.data, Float32Array.of(1, -3));
  assert.deepEqual(t.get('d')!.data, Float32Array.of(0.5));
  assert.deepEqual(t.get('i')!.data, Int32Array.of(-3));
});

const one = (o: object) => ({ a: { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...o } });
const ATTACKS: readonly [string, () => string, RegExp][] = [
  ['a header of 2^60 bytes', () => craft(one({}), f32(1, 2), 2n ** 60n), /claims a header of 1152921504606846976 bytes/],
  ['a header longer than the file', () => craft(one({}), f32(1, 2), 5000n), /claims a header of 5000 bytes/],
  ['a file of three bytes', () => { const f = at(); writeFileSync(f, 'abc'); return f; }, /only 3 bytes/],
  ['a truncated file', () => { const f = craft(one({}), f32(1, 2)); writeFileSync(f, readFileSync(f).subarray(0, -3)); return f; }, /ends at byte 8 of the data, but there are 5/],
  ['bytes after the last tensor', () => craft(one({}), f32(1, 2, 3)), /12 bytes of data, but its tensors cover 8/],
  ['overlapping tensors', () => craft({ ...one({}), b: { dtype: 'F32', shape: [2], data_offsets: [4, 12] } }, f32(1, 2, 3)), /begins at byte 4/],
  ['a hole between tensors', () => craft({ ...one({}), b: { dtype: 'F32', shape: [1], data_offsets: [12, 16] } }, f32(1, 2, 3, 4)), /begins at byte 12/],
  ['a shape that does not fit its offsets', () => craft(one({ shape: [3] }), f32(1, 2)), /needs 12 bytes/],
  ['a shape that overflows', () => craft(one({ shape: [2 ** 40, 2 ** 40] }), f32(1, 2)), /bytes/],
  ['a negative size', () => craft(one({ shape: [-2] }), f32(1, 2)), /shape/],
  ['offsets that run backwards', () => craft(one({ data_offsets: [8, 0] }), f32(1, 2)), /bytes/],
  ['an unknown type of element', () => craft(one({ dtype: 'Q7' }), f32(1, 2)), /dtype Q7/],
  ['a type named like a method', () => craft(one({ dtype: 'constructor' }), f32(1, 2)), /dtype constructor/],
  ['a header that is no JSON', () => craft('{"a":', f32(1)), /no UTF-8 JSON/],
  ['a header that is a list', () => craft([], f32()), /no JSON object/],
  ['a tensor that is null', () => craft({ a: null }, f32()), /dtype undefined/],
  ['an empty file', () => { const f = at(); writeFileSync(f, ''); return f; }, /only 0 bytes/],
  ['a header of 2^64 − 1 bytes', () => craft(one({}), f32(1, 2), 2n ** 64n - 1n), /claims a header of 18446744073709551615 bytes/],
  ['a header above the limit, in a file that is as long', () => { const f = at(); const fd = openSync(f, 'w'); const prefix = Buffer.alloc(8); prefix.writeBigUInt64LE(100_000_001n); writeSync(fd, prefix); ftruncateSync(fd, 100_000_100); closeSync(fd); return f; }, /claims a header of 100000001 bytes/],
  ['a header of no bytes', () => craft('', f32()), /no UTF-8 JSON/],
  ['a header that is no UTF-8', () => { const f = craft(one({}), f32(1, 2)); const b = readFileSync(f); b[10] = 0xff; writeFileSync(f, b); return f; }, /no UTF-8 JSON/],
  ['a byte order mark before the header', () => craft(`\ufeff${JSON.stringify(one({}))}`, f32(1, 2)), /no UTF-8 JSON/],
  ['white space before the header', () => craft(` ${JSON.stringify(one({}))}`, f32(1, 2)), /no JSON object/],
  ['a header that is a number', () => craft('1', f32()), /no JSON object/],
  ['a header nested a hundred thousand deep', () => craft(`{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, f32()), /dtype undefined/],
  ['a shape nested a hundred thousand deep', () => craft(`{"a":{"dtype":"F32","shape":${'['.repeat(100_000)}${']'.repeat(100_000)},"data_offsets":[0,0]}}`, f32()), /tensor a has shape \[\[\[\[\[…\]\]\]\]\]/],
  ['a type that is an object with a toString of its own', () => craft(one({ dtype: { toString: 1, valueOf: 1 } }), f32(1, 2)), /dtype \{"toString":1,"valueOf":1\}/],
  ['two tensors of one name', () => craft('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', f32(1, 2)), /two entries "a"/],
  ['two shapes of one tensor', () => craft('{"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}', f32(1, 2)), /two entries "shape"/],
  ['metadata that are no texts', () => craft({ __metadata__: { format: 1 }, ...one({}) }, f32(1, 2)), /__metadata__ is \{"format":1\}/],
  ['metadata that are a list', () => craft({ __metadata__: ['pt'], ...one({}) }, f32(1, 2)), /__metadata__ is \["pt"\]/],
  ['a shape whose product is beyond 2^53', () => craft(one({ shape: [2 ** 30, 2 ** 30, 2 ** 30], data_offsets: [0, 2 ** 53 - 1] }), f32(1, 2)), /bytes/],
  ['a shape whose product is infinite, times nothing', () => craft(one({ shape: [...Array(30).fill(2 ** 52), 0], data_offsets: [0, 0] }), f32()), /needs NaN bytes/],
  ['a size that is no whole number', () => craft(one({ shape: [2.5] }), f32(1, 2)), /shape \[2.5\]/],
  ['a size that is a text', () => craft(one({ shape: ['2'] }), f32(1, 2)), /shape \["2"\]/],
  ['a size beyond what a number holds', () => craft('{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,8]}}', f32(1, 2)), /shape \[Infinity\]/],
  ['offsets behind the data', () => craft(one({ data_offsets: [100, 108] }), f32(1, 2)), /ends at byte 108/],
  ['offsets that are three', () => craft(one({ data_offsets: [0, 4, 8] }), f32(1, 2)), /offsets \[0,4,8\]/],
  ['no offsets', () => craft(one({ data_offsets: undefined }), f32(1, 2)), /offsets undefined/],
  ['offsets that do not fit the type', () => craft(one({ dtype: 'F16' }), f32(1, 2)), /needs 4 bytes/],
];
for (const [what, make, text] of ATTACKS)
  test(`refused by file and reason: ${what}`, async () => {
    const file = make();
    await assert.rejects(readSafetensors(file), (e: Error) => e instanceof CheckpointError && e.message.includes(file) && text.test(e.message));
  });

test('tensors may stand in another order than in the header, have no elements, and fill the header with blanks', async () => {
  const t = await readSafetensors(craft(`${JSON.stringify({ b: { dtype: 'F32', shape: [1], data_offsets: [4, 8] }, none: { dtype: 'F32', shape: [3, 0], data_offsets: [4, 4] }, a: { dtype: 'F32', shape: [], data_offsets: [0, 4] }, __metadata__: {} })}   `, f32(1, 2)));
  assert.deepEqual([...t].map(([name, { data }]) => [name, [...data]]), [['b', [2]], ['none', []], ['a', [1]]]);
});

test('a lying header allocates nothing of what it claims', async () => {
  const lies = [craft(one({}), f32(1, 2), 99_000_000n), craft(one({ shape: [2 ** 28], data_offsets: [0, 2 ** 30] }), f32(1, 2)), craft(one({ shape: [2 ** 51], data_offsets: [0, 2 ** 53 - 8] }), f32(1, 2))];
  for (const file of lies) {
    const before = process.memoryUsage().arrayBuffers;
    await assert.rejects(readSafetensors(file), CheckpointError);
    assert.throws(() => SafetensorsReader.open(file), CheckpointError);
    assert.ok(process.memoryUsage().arrayBuffers - before < 2 ** 20);
  }
});

test('a folder is no safetensors file', async () => {
  await assert.rejects(readSafetensors(folder), (e: Error) => e instanceof FileMissingError && /it is no file/.test(e.message));
  assert.throws(() => SafetensorsReader.open(folder), FileMissingError);
});

test('a file that is not there is named', async () => {
  await assert.rejects(readSafetensors(path.join(folder, 'none')), FileMissingError);
});

test('a write that fails leaves the old file, and no other', () => {
  const file = at();
  writeSafetensors(file, new Map([['a', { shape: [1], data: Float32Array.of(1) }]]));
  const before = readFileSync(file);
  const files = readdirSync(folder).length;
  assert.throws(() => writeSafetensors(file, new Map([['a', { shape: [3], data: Float32Array.of(1) }]])), InvalidArgumentError);
  assert.throws(() => writeSafetensors(path.join(folder, 'no/such/folder/x'), new Map()));
  assert.deepEqual(readFileSync(file), before);
  assert.equal(readdirSync(folder).length, files);
});
