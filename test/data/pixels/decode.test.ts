import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import sharp from 'sharp';
import { decodeBytes, decodeImage } from '../../../src/data/pixels/decode';
import { ImageDecodeError } from '../../../src/errors';
import { bytes, pattern, reference } from './pillow';

const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-decode-'));
const raw = { width: 40, height: 30, channels: 3 as const };
const photo = sharp(pattern(40, 30).data, { raw }).blur(2);

test("JPEG, PNG, GIF, WebP and TIFF files of every kind decode to Pillow's RGB: gray, CMYK, palette, alpha dropped, orientation ignored", async () => {
  assert.ok(reference.files.length >= 13);
  for (const { name, file, width, height, data } of reference.files) {
    const out = await decodeBytes(bytes(file), name);
    assert.deepEqual([out.width, out.height], [width, height], name);
    assert.deepEqual(new Uint8Array(out.data), bytes(data), name);
  }
});

test('16-bit gray keeps its high byte', async () => {
  const { file, width, height, high } = reference.gray16;
  const out = await decodeBytes(bytes(file), 'gray16');
  assert.deepEqual([out.width, out.height], [width, height]);
  assert.deepEqual(Array.from(out.data).filter((_, i) => i % 3 === 1), [...bytes(high)]);
});

test('a colour profile is not applied', async () => {
  const plain = await photo.clone().png().toBuffer();
  const tagged = await photo.clone().withIccProfile('p3', { attach: true }).png().toBuffer();
  const inside = await sharp(tagged, { ignoreIcc: true }).raw().toBuffer();
  assert.ok((await sharp(tagged).metadata()).icc, 'the file has a profile');
  assert.notDeepEqual(inside, await sharp(plain).raw().toBuffer());
  assert.deepEqual(Buffer.from((await decodeBytes(tagged, 'tagged')).data), inside);
});

test('what is no image, empty or cut off is named, with the reason', async () => {
  const encoded = { jpeg: await photo.clone().jpeg().toBuffer(), png: await photo.clone().png().toBuffer(), webp: await photo.clone().webp().toBuffer(), gif: await photo.clone().gif().toBuffer(), tiff: await photo.clone().tiff().toBuffer() };
  const refused = (data: Uint8Array, reason: RegExp) =>
    assert.rejects(decodeBytes(data, 'cat.jpg'), (e: Error) => e instanceof ImageDecodeError && e.code === 'image-unreadable' && e.file === 'cat.jpg' && reason.test(e.message), reason.source);
  await refused(new Uint8Array(0), /empty/);
  await refused(Buffer.from('not an image at all'), /no JPEG, PNG/);
  await refused(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>'), /no JPEG, PNG/);
  for (const [format, data] of Object.entries(encoded)) {
    for (const part of [0.4, 0.9]) await refused(data.subarray(0, Math.floor(part * data.length)), new RegExp(`broken ${format}`, 'i'));
  }
  await refused(encoded.png.subarray(0, 8), /broken PNG/);
});

test('a file that is not there is named', async () => {
  const missing = path.join(folder, 'none.png');
  await assert.rejects(decodeImage({ kind: 'file', path: missing }), (e: Error) => e instanceof ImageDecodeError && e.file === missing && /cannot be read/.test(e.message));
  const there = path.join(folder, 'a.png');
  writeFileSync(there, await photo.clone().png().toBuffer());
  assert.equal((await decodeImage({ kind: 'file', path: there })).width, 40);
});

test('an image that claims more pixels than Pillow allows is refused before memory is taken', async () => {
  const png = await photo.clone().png().toBuffer();
  // Width, height and checksum of the first chunk.
  png.writeUInt32BE(60000, 16);
  png.writeUInt32BE(60000, 20);
  png.writeUInt32BE(crc32(png.subarray(12, 29)), 29);
  await assert.rejects(decodeBytes(png, 'bomb.png'), (e: Error) => e instanceof ImageDecodeError && /pixel limit/.test(e.message));
});
