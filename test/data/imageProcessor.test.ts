import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { ImageFolder } from '../../src/data/imageFolder';
import { IMAGENET_MEAN, IMAGENET_STD, outputSize, parseImageProcessor, readImageProcessor, resizedSize, VIT_TRANSFORM } from '../../src/data/imageProcessor';
import { decodeImage } from '../../src/data/pixels/decode';
import { framed, render } from '../../src/data/pixels/render';
import { CheckpointError, FileMissingError, InvalidArgumentError, UnsupportedModelError, SlimFitError } from '../../src/errors';
import { imageOf, reference } from './pixels/pillow';

const SHARED = path.resolve(__dirname, '../../../shared/data');

test('an empty config is ViT: 224×224, bilinear, mean and std 0.5, no crop', () => {
  assert.deepEqual(parseImageProcessor({}), {
    resize: { height: 224, width: 224 },
    resampling: 'bilinear',
    centerCrop: undefined,
    rescaleFactor: 1 / 255,
    mean: [0.5, 0.5, 0.5],
    std: [0.5, 0.5, 0.5],
  });
  assert.deepEqual(parseImageProcessor({ image_processor_type: 'ViTImageProcessorFast', do_resize: null }), VIT_TRANSFORM);
});

test('DeiT resizes to 256×256, bicubic, and crops 224×224', () => {
  const deit = parseImageProcessor({ feature_extractor_type: 'DeiTFeatureExtractor', image_mean: IMAGENET_MEAN, image_std: IMAGENET_STD });
  assert.deepEqual([deit.resize, deit.resampling, deit.centerCrop, deit.mean], [{ height: 256, width: 256 }, 'bicubic', { height: 224, width: 224 }, IMAGENET_MEAN]);
});

test('every setting is read, in its old and new forms', () => {
  const t = parseImageProcessor({ size: { shortest_edge: 48 }, resample: 1, do_center_crop: true, crop_size: { height: 32, width: 40 }, do_rescale: true, rescale_factor: 0.5, image_mean: [1, 2, 3], image_std: [4, 5, 6] });
  assert.deepEqual(t, { resize: { shortestEdge: 48 }, resampling: 'lanczos', centerCrop: { height: 32, width: 40 }, rescaleFactor: 0.5, mean: [1, 2, 3], std: [4, 5, 6] });
  const off = parseImageProcessor({ do_resize: false, do_rescale: false, do_normalize: false, resample: 0 });
  assert.deepEqual(off, { resize: undefined, resampling: 'nearest', centerCrop: undefined, rescaleFactor: 1, mean: [0, 0, 0], std: [1, 1, 1] });
  assert.deepEqual(parseImageProcessor({ size: 384 }).resize, { height: 384, width: 384 });
  assert.deepEqual(parseImageProcessor({ size: [100, 120] }).resize, { height: 100, width: 120 });
});

test('what is not supported says so; what can never work is refused', () => {
  for (const config of [{ image_processor_type: 'CLIPImageProcessor' }, { image_processor_type: 7 }, { resample: 4 }, { resample: 5 }, { size: { longest_edge: 5 } }, { size: { shortest_edge: 5, longest_edge: 9 } }, { do_pad: true }, { do_flip_channel_order: true }])
    assert.throws(() => parseImageProcessor(config), UnsupportedModelError, JSON.stringify(config));
  for (const config of [{ size: 0 }, { size: 2.5 }, { size: '224' }, { size: { height: 3, width: -1 } }, { resample: 'bicubic' }, { do_resize: 1 }, { image_std: [1, 0, 1] }, { image_mean: [1] }, { image_mean: 0.5 }, { rescale_factor: 0 }, { crop_size: { shortest_edge: 4 } }])
    assert.throws(() => parseImageProcessor(config), InvalidArgumentError, JSON.stringify(config));
});

test('a folder without the file, or with a broken one, is named', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-processor-'));
  assert.throws(() => readImageProcessor(folder), (e: Error) => e instanceof FileMissingError && e.message.includes(folder));
  for (const text of ['{', '[1]', 'null']) {
    writeFileSync(path.join(folder, 'preprocessor_config.json'), text);
    assert.throws(() => readImageProcessor(folder), CheckpointError, text);
  }
  writeFileSync(path.join(folder, 'preprocessor_config.json'), '{"size": 32}');
  assert.deepEqual(readImageProcessor(folder).resize, { height: 32, width: 32 });
});

test('the shorter side is given, the other rounded down; images that would differ in size fit no batch', () => {
  const t = parseImageProcessor({ size: { shortest_edge: 100 } });
  assert.deepEqual(resizedSize(t, { width: 333, height: 500 }), { width: 100, height: 150 });
  assert.deepEqual(resizedSize(t, { width: 500, height: 333 }), { width: 150, height: 100 });
  assert.throws(() => outputSize(t), InvalidArgumentError);
  assert.deepEqual(outputSize(t, { width: 32, height: 64 }), { width: 100, height: 200 });
  assert.deepEqual(outputSize(parseImageProcessor({ size: { shortest_edge: 100 }, do_center_crop: true, crop_size: 80 })), { width: 80, height: 80 });
  assert.deepEqual(outputSize(parseImageProcessor({ do_resize: false }), { width: 32, height: 32 }), { width: 32, height: 32 });
});

test('resize, centre crop and normalisation give what Pillow and torchvision give, wide and high, also with odd margins', async () => {
  const transform = parseImageProcessor({ size: { shortest_edge: 12 }, resample: 3, do_center_crop: true, crop_size: 9, image_mean: IMAGENET_MEAN, image_std: IMAGENET_STD });
  for (const { values, ...stored } of reference.pipeline) {
    const ours = await render([{ kind: 'rgb', image: imageOf(stored) }], { transform, augmentation: undefined, seed: 0, output: { height: 9, width: 9 } }, [0], undefined);
    const worst = Math.max(...values.map((v, i) => Math.abs(v - ours[i])));
    assert.ok(ours.length === values.length && worst < 2e-6, `${worst}`);
  }
});

test('a crop larger than the image has black around', async () => {
  const transform = parseImageProcessor({ do_resize: false, do_center_crop: true, crop_size: { height: 3, width: 2 }, do_rescale: false, do_normalize: false });
  const image = { width: 1, height: 1, data: Uint8Array.of(7, 8, 9) };
  const ours = await render([{ kind: 'rgb', image }], { transform, augmentation: undefined, seed: 0, output: { height: 3, width: 2 } }, [0], undefined);
  assert.deepEqual([...ours], [0, 0, 7, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 9, 0, 0, 0]);
});

const sample = path.join(SHARED, 'imagenet-sample/train');
test("all 100 images of the ImageNet sample have Pillow's pixels at 224 and 384, bilinear and bicubic, as squares and cropped", { skip: existsSync(sample) ? false : 'no ../shared/data/imagenet-sample' }, async () => {
  const folder = ImageFolder.open(sample);
  const RESAMPLE: Record<string, number> = { bilinear: 2, bicubic: 3 };
  const ways = reference.sample.flatMap(({ side, resampling, square, cropped }) => {
    const output = { height: side, width: side };
    const settings = (config: Record<string, unknown>) => ({ transform: parseImageProcessor({ resample: RESAMPLE[resampling], ...config }), augmentation: undefined, seed: 0, output });
    return [
      { name: `${side}, ${resampling}, square`, wanted: square, hash: createHash('sha256'), settings: settings({ size: side }) },
      { name: `${side}, ${resampling}, cropped`, wanted: cropped, hash: createHash('sha256'), settings: settings({ size: { shortest_edge: Math.trunc(side / 0.875) }, do_center_crop: true, crop_size: side }) },
    ];
  });
  assert.deepEqual([ways.length, folder.size], [8, reference.sample[0].images]);
  for (let i = 0; i < folder.size; i++) {
    const image = await decodeImage(folder.image(i));
    for (const { hash, settings } of ways) hash.update(framed(image, settings, undefined).data);
  }
  for (const { name, wanted, hash } of ways) assert.equal(hash.digest('hex'), wanted, name);
});

test('the shared checkpoints ask for 32×32', { skip: existsSync(path.join(SHARED, 'checkpoints')) ? false : 'no ../shared/data/checkpoints' }, () => {
  const large = readImageProcessor(path.join(SHARED, 'checkpoints/vit-cifar10-128x4'));
  assert.deepEqual([large.resize, large.mean, large.std], [{ height: 32, width: 32 }, [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]]);
  assert.deepEqual(readImageProcessor(path.join(SHARED, 'checkpoints/vit-cifar10-64x4')).std, [1, 1, 1]);
});

test('settings that are lists without end, or divide by all but nothing, are refused by their field', () => {
  const deep: unknown = JSON.parse(`${'['.repeat(100_000)}${']'.repeat(100_000)}`);
  for (const value of [deep, { toString: 1, valueOf: 1 }])
    for (const key of ['image_processor_type', 'do_resize', 'size', 'resample', 'image_mean', 'do_pad'])
      assert.throws(() => parseImageProcessor({ [key]: value }), (e: Error) => e instanceof SlimFitError && e.message.includes(key === 'image_processor_type' ? 'image processor' : key) && e.message.length < 500, key);
  assert.throws(() => parseImageProcessor({ image_std: [0.5, 1e-320, 0.5] }), /image_std/);
});
