import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { resize, type Resampling } from '../../../src/data/pixels/resample';
import { crop } from '../../../src/data/pixels/rgbImage';
import { InvalidArgumentError } from '../../../src/errors';
import { bytes, imageOf, pattern, reference } from './pillow';

test('resizing gives the bytes that Pillow gives, smaller and larger, with every filter', () => {
  assert.ok(reference.resize.cases.length >= 40);
  for (const { image, size, resampling, data } of reference.resize.cases) {
    const out = resize(imageOf(reference.resize.images[image]), { width: size[0], height: size[1] }, resampling);
    assert.deepEqual(out.data, bytes(data), `image ${image} to ${size.join('×')}, ${resampling}`);
  }
});

test('a window of the result is the same as a crop of the whole result', () => {
  const side = fc.integer({ min: 1, max: 30 });
  fc.assert(
    fc.property(side, side, side, side, fc.constantFrom<Resampling>('nearest', 'lanczos', 'bilinear', 'bicubic'), fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true }), (w, h, width, height, how, a, b) => {
      const image = pattern(w, h);
      const cut = (n: number, part: number) => Math.min(n - 1, Math.floor(part * n));
      const box = { left: cut(width, a), top: cut(height, b), width: 1 + cut(width - cut(width, a), b), height: 1 + cut(height - cut(height, b), a) };
      assert.deepEqual(resize(image, { width, height }, how, box), { ...crop(resize(image, { width, height }, how), box) });
    }),
  );
});

test('an image of one colour keeps it', () => {
  const gray = { width: 7, height: 5, data: new Uint8Array(105).fill(93) };
  for (const how of ['nearest', 'lanczos', 'bilinear', 'bicubic'] as const) assert.ok(resize(gray, { width: 11, height: 3 }, how).data.every((v) => v === 93), how);
});

test('a size or window that cannot be is refused', () => {
  const image = pattern(4, 4);
  assert.throws(() => resize(image, { width: 0, height: 3 }, 'bilinear'), InvalidArgumentError);
  assert.throws(() => resize(image, { width: 2.5, height: 3 }, 'bilinear'), InvalidArgumentError);
  assert.throws(() => resize(image, { width: 3, height: 3 }, 'bilinear', { left: 1, top: 0, width: 3, height: 3 }), InvalidArgumentError);
});
