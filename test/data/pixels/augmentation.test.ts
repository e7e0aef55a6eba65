import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseImageProcessor, VIT_TRANSFORM } from '../../../src/data/imageProcessor';
import { checkAugmentation, cifarAugmentation, colorJitter, erasedBox, imagenetAugmentation, randomPaddedCrop, randomResizedBox, randomResizedCrop, type Augmentation } from '../../../src/data/pixels/augmentation';
import { brightness, color, contrast } from '../../../src/data/pixels/imageOps';
import { exampleRandom, framed, render, type RenderSettings } from '../../../src/data/pixels/render';
import { crop, flipHorizontal, roundHalfEven } from '../../../src/data/pixels/rgbImage';
import { InvalidArgumentError } from '../../../src/errors';
import { Random } from '../../../src/random';
import { pattern } from './pillow';

const side = fc.integer({ min: 1, max: 600 });
const seed = fc.integer({ min: 0, max: 2 ** 31 });

test('a random resized crop lies inside the image, whatever its shape', () => {
  fc.assert(
    fc.property(side, side, seed, (width, height, s) => {
      const box = randomResizedBox({ width, height }, [0.08, 1], [3 / 4, 4 / 3], new Random(s));
      assert.ok(box.width >= 1 && box.height >= 1 && box.top >= 0 && box.left >= 0 && box.left + box.width <= width && box.top + box.height <= height, JSON.stringify(box));
    }),
  );
});

test('areas and ratios of random resized crops are spread over their ranges, ratios evenly in their logarithm', () => {
  const random = new Random(3);
  const boxes = Array.from({ length: 4000 }, () => randomResizedBox({ width: 1000, height: 1000 }, [0.1, 0.5], [0.5, 2], random));
  const areas = boxes.map((b) => (b.width * b.height) / 1e6);
  const logs = boxes.map((b) => Math.log2(b.width / b.height));
  const mean = (v: number[]) => v.reduce((a, b) => a + b, 0) / v.length;
  assert.ok(Math.min(...areas) > 0.0995 && Math.max(...areas) < 0.5005 && Math.abs(mean(areas) - 0.3) < 0.01, `${mean(areas)}`);
  assert.ok(Math.min(...logs) > -1.01 && Math.max(...logs) < 1.01 && Math.abs(mean(logs)) < 0.05, `${mean(logs)}`);
  assert.ok(boxes.some((b) => b.top === 0 || b.left === 0 || b.left + b.width === 1000) && Math.abs(mean(boxes.map((b) => b.left + b.width / 2)) - 500) < 15);
});

test('when no crop fits, the middle part of the nearest ratio is taken', () => {
  assert.deepEqual(randomResizedBox({ width: 10, height: 100 }, [1, 1], [3 / 4, 4 / 3], new Random(1)), { top: 43, left: 0, width: 10, height: 13 });
  assert.deepEqual(randomResizedBox({ width: 100, height: 10 }, [1, 1], [3 / 4, 4 / 3], new Random(1)), { top: 0, left: 43, width: 13, height: 10 });
});

test('a padded crop moves the image by the padding at most, in every direction, with black behind', () => {
  const image = { width: 8, height: 6, data: new Uint8Array(144).fill(200) };
  const moves = new Set<string>();
  const random = new Random(5);
  for (let i = 0; i < 500; i++) {
    const out = randomPaddedCrop(image, 2, random);
    assert.deepEqual([out.width, out.height], [8, 6]);
    const rows = Array.from({ length: 6 }, (_, y) => out.data[3 * (y * 8 + 4)] === 200);
    const columns = Array.from({ length: 8 }, (_, x) => out.data[3 * (3 * 8 + x)] === 200);
    moves.add(`${rows.indexOf(false) === -1 ? 0 : rows[0] ? rows.indexOf(false) - 6 : rows.indexOf(true)},${columns.indexOf(false) === -1 ? 0 : columns[0] ? columns.indexOf(false) - 8 : columns.indexOf(true)}`);
  }
  assert.equal(moves.size, 25);
});

test('a rectangle to be erased is smaller than the image, of 2 % to a third of it, and drawn as often as asked', () => {
  const random = new Random(9);
  const boxes = Array.from({ length: 2000 }, () => erasedBox({ width: 224, height: 224 }, 0.25, random));
  const there = boxes.filter((b) => b !== undefined);
  assert.ok(Math.abs(there.length / 2000 - 0.25) < 0.04, `${there.length}`);
  for (const b of there) {
    const part = (b!.width * b!.height) / 224 ** 2;
    assert.ok(part > 0.019 && part < 0.336 && b!.width < 224 && b!.height < 224 && b!.left + b!.width <= 224 && b!.top + b!.height <= 224);
    const ratio = b!.height / b!.width;
    assert.ok(ratio > 0.28 && ratio < 3.6, `${ratio}`);
  }
  // As in timm nothing is left to erase of a pixel.
  assert.equal(erasedBox({ width: 1, height: 1 }, 1, random)?.width ?? 0, 0);
});

test('colour jitter is brightness, contrast and colour in some order', () => {
  const image = pattern(6, 5);
  const orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
  const steps = [brightness, contrast, color];
  const seen = new Set<number>();
  for (let s = 0; s < 40; s++) {
    const random = new Random(s);
    const order = random.permutation(3);
    const factors = [0, 1, 2].map(() => 0.7 + 0.6 * random.uniform());
    const all = orders.map((o) => o.reduce((out, k) => steps[k](out, factors[k]), image));
    const ours = colorJitter(image, 0.3, new Random(s));
    const which = all.findIndex((o) => Buffer.compare(o.data, ours.data) === 0);
    assert.deepEqual(orders[which], [...order]);
    seen.add(which);
  }
  assert.equal(seen.size, 6);
});

const settings = (augmentation: Augmentation | undefined, transform = parseImageProcessor({ size: 16 }), s = 43): RenderSettings => ({ transform, augmentation, seed: s, output: { height: 16, width: 16 } });

test('pixels depend on seed, epoch and example alone; each of them changes them', async () => {
  const image = { kind: 'rgb' as const, image: pattern(40, 30) };
  const make = (s: number, epoch: number, index: number) => render([image], settings(imagenetAugmentation(), undefined, s), [index], epoch);
  await fc.assert(
    fc.asyncProperty(fc.nat(1000), fc.nat(50), fc.nat(10000), async (s, epoch, index) => {
      const once = await make(s, epoch, index);
      // Another stream in between changes nothing.
      await make(s + 1, epoch, index + 1);
      assert.deepEqual(await make(s, epoch, index), once);
      assert.notDeepEqual(await make(s + 1, epoch, index), once);
      assert.notDeepEqual(await make(s, epoch + 1, index), once);
      assert.notDeepEqual(await make(s, epoch, index + 1), once);
    }),
    { numRuns: 25 },
  );
});

test('streams of neighbouring examples and epochs have nothing in common', () => {
  const first = new Set<number>();
  for (let epoch = 0; epoch < 30; epoch++) for (let index = 0; index < 300; index++) first.add(exampleRandom(43, epoch, index).next());
  // 9000 of 2³²: about 0.01 collisions by chance.
  assert.ok(first.size >= 8999, `${first.size}`);
  assert.notEqual(exampleRandom(1, 0, 0).next(), exampleRandom(1 + 2 ** 40, 0, 0).next());
});

test('a batch without an epoch is not augmented', async () => {
  const image = { kind: 'rgb' as const, image: pattern(40, 30) };
  assert.deepEqual(await render([image], settings(imagenetAugmentation()), [5], undefined), await render([image], settings(undefined), [5], undefined));
});

test('half of the images are flipped, and flipping twice is nothing', () => {
  const image = pattern(16, 16);
  assert.deepEqual(flipHorizontal(flipHorizontal(image)), image);
  assert.notDeepEqual(flipHorizontal(image), image);
  const s = settings({ flip: 0.5 });
  let flipped = 0;
  for (let i = 0; i < 1000; i++) if (Buffer.compare(framed(image, s, exampleRandom(1, 0, i)).data, flipHorizontal(image).data) === 0) flipped++;
  assert.ok(Math.abs(flipped - 500) < 65, `${flipped}`);
});

test('colour jitter does nothing beside RandAugment, unless it is forced', () => {
  const image = pattern(16, 16);
  const make = (a: Augmentation) => Array.from({ length: 20 }, (_, i) => framed(image, settings(a), exampleRandom(1, 0, i)).data);
  const rand = { randAugment: 'rand-m9-mstd0.5-inc1' };
  assert.deepEqual(make({ ...rand, colorJitter: 0.3 }), make(rand));
  assert.notDeepEqual(make({ ...rand, colorJitter: 0.3, forceColorJitter: true }), make(rand));
  assert.notDeepEqual(make({ colorJitter: 0.3 }), make({}));
});

test('erased pixels are standard normal noise after normalisation; the others stay', async () => {
  const image = { kind: 'rgb' as const, image: { width: 16, height: 16, data: new Uint8Array(768).fill(255) } };
  const noise: number[] = [];
  for (let i = 0; i < 200; i++) {
    const pixels = await render([image], settings({ randomErasing: 1 }), [i], 0);
    const changed = Array.from(pixels).filter((v) => v !== 1);
    assert.ok(changed.length > 0 && changed.length < 768 / 2.5);
    assert.equal(changed.length % 3, 0);
    noise.push(...changed);
  }
  const mean = noise.reduce((a, b) => a + b, 0) / noise.length;
  const std = Math.sqrt(noise.reduce((a, b) => a + (b - mean) ** 2, 0) / noise.length);
  assert.ok(Math.abs(mean) < 0.03 && Math.abs(std - 1) < 0.03, `${mean} ${std}`);
});

test('what RandAugment brings in from outside has the colour of the mean', () => {
  const white = { width: 16, height: 16, data: new Uint8Array(768).fill(255) };
  const transform = { ...VIT_TRANSFORM, resize: { height: 16, width: 16 }, mean: [0.485, 0.456, 0.406] as const };
  const corners = new Set<string>();
  for (let i = 0; i < 400; i++) corners.add(framed(white, settings({ randAugment: 'rand-m9-p1-n1-inc1' }, transform), exampleRandom(2, 0, i)).data.subarray(0, 3).join());
  assert.ok(corners.has('124,116,104'), [...corners].join(' '));
});

test('a crop that reaches outside is black there', () => {
  const out = crop({ width: 1, height: 1, data: Uint8Array.of(9, 8, 7) }, { top: -1, left: -1, width: 3, height: 2 });
  assert.deepEqual([...out.data], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 8, 7, 0, 0, 0]);
});

test("halves are rounded to even, as Python's round does", () => {
  assert.deepEqual([0.5, 1.5, 2.5, 2.4, 2.6, -0.5, -1.5].map(roundHalfEven).map((v) => v + 0), [0, 2, 2, 2, 3, 0, -2]);
});

test('settings that can never work are refused, the recipes are not', () => {
  for (const a of [randomResizedCrop(), cifarAugmentation(), imagenetAugmentation(), {}]) checkAugmentation(a);
  const wrong: Augmentation[] = [{ flip: 1.5 }, { flip: NaN }, { randomErasing: -1 }, { colorJitter: -0.1 }, { randAugment: 'rand' }, cifarAugmentation({ padding: 1.5 }), randomResizedCrop({ scale: [0.5, 0.1] }), randomResizedCrop({ scale: [0, 1] }), randomResizedCrop({ ratio: [0, 1] })];
  for (const a of wrong) assert.throws(() => checkAugmentation(a), InvalidArgumentError, JSON.stringify(a));
});
