import assert from 'node:assert/strict';
import { test } from 'node:test';
import { posterize } from '../../../src/data/pixels/imageOps';
import { AUGMENT_OPS, parseRandAugment, randAugment } from '../../../src/data/pixels/randAugment';
import { InvalidArgumentError } from '../../../src/errors';
import { Random } from '../../../src/random';
import { bytes, imageOf, pattern, reference } from './pillow';

test("all 15 operations have timm's arguments at every level, and give Pillow's bytes", () => {
  const { cases, images, fill } = reference.ops;
  assert.deepEqual([...new Set(cases.map((c) => c.op))], Object.keys(AUGMENT_OPS));
  let compared = 0;
  for (const { op, image, level, sign, argument, resampling, data } of cases) {
    const what = `${op}, level ${level}, sign ${sign}, ${resampling ?? ''}`;
    const ours = AUGMENT_OPS[op].argument?.(level ?? 0, sign) ?? null;
    if (argument === null) assert.equal(ours, null, what);
    else assert.ok(Math.abs(ours! - argument) < 1e-12, `${what}: ${ours} instead of ${argument}`);
    if (data === undefined) continue;
    compared++;
    assert.deepEqual(AUGMENT_OPS[op].apply(imageOf(images[image!]), argument ?? 0, { resampling: resampling ?? 'bilinear', fill }).data, bytes(data), what);
  }
  assert.ok(compared > 40);
});

test('no operation changes its input', () => {
  const image = pattern(12, 9);
  const before = Uint8Array.from(image.data);
  for (const { argument, apply } of Object.values(AUGMENT_OPS)) {
    apply(image, argument?.(9, 1) ?? 0, { resampling: 'bicubic', fill: [0, 0, 0] });
    assert.deepEqual(image.data, before);
  }
});

test('no bits left is black', () => {
  assert.ok(posterize(pattern(3, 3), 0).data.every((v) => v === 0));
});

test("timm's text is understood, and what it does not say has timm's defaults", () => {
  assert.deepEqual(parseRandAugment('rand-m9-mstd0.5-inc1'), { magnitude: 9, magnitudeStd: 0.5, operations: 2, probability: 0.5 });
  assert.deepEqual(parseRandAugment('rand-inc1-n3-p0.25'), { magnitude: 10, magnitudeStd: 0, operations: 3, probability: 0.25 });
  for (const wrong of ['rand-m9', 'augmix-m3-inc1', 'rand-m9-inc1-tweights', 'rand-m11-inc1', 'rand-p2-inc1', '']) assert.throws(() => parseRandAugment(wrong), InvalidArgumentError, wrong);
});

test('half of the operations drawn are applied, two an image, the same for the same stream', () => {
  const image = pattern(16, 16);
  const settings = parseRandAugment('rand-m9-mstd0.5-inc1');
  let same = 0;
  for (let seed = 0; seed < 400; seed++) {
    const out = randAugment(image, settings, new Random(seed), [124, 116, 104]);
    assert.deepEqual(out, randAugment(image, settings, new Random(seed), [124, 116, 104]));
    if (out === image) same++;
  }
  // Neither of two operations: a quarter; standard deviation 2.2 %.
  assert.ok(Math.abs(same / 400 - 0.25) < 0.09, `${same} of 400 unchanged`);
});
