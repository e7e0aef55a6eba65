import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import sharp from 'sharp';
import { ImageDataset } from '../../src/data/imageDataset';
import { ImageFolder } from '../../src/data/imageFolder';
import { parseImageProcessor, VIT_TRANSFORM } from '../../src/data/imageProcessor';
import { ImageRows, type ImageSource } from '../../src/data/imageSource';
import { ImageWorkers } from '../../src/data/imageWorkers';
import { cifarAugmentation, imagenetAugmentation } from '../../src/data/pixels/augmentation';
import { render, type RenderSettings } from '../../src/data/pixels/render';
import { ImageDecodeError, ImageWorkerError, InvalidArgumentError, ShapeError } from '../../src/errors';
import { pattern } from './pixels/pillow';

const ROOT = path.resolve(__dirname, '../..');
const transform = parseImageProcessor({ size: 24 });

/** Images in memory, all different, of two classes. */
class Memory implements ImageSource {
  readonly labelNames = ['even', 'odd'];
  readonly labels: Int32Array;
  readonly imageSize = { height: 20, width: 30 };
  constructor(
    readonly size: number,
    readonly onImage: (index: number) => void = () => {},
  ) {
    this.labels = Int32Array.from({ length: size }, (_, i) => i % 2);
  }
  image(index: number) {
    this.onImage(index);
    const { data, ...size } = pattern(30, 20);
    return { kind: 'rgb' as const, image: { ...size, data: data.map((v) => v + index * 13) } };
  }
}

/** What a data set hides: its threads. */
const workersOf = (data: ImageDataset): ImageWorkers => (data as unknown as { workers: ImageWorkers }).workers;

async function jpegFolder(count: number): Promise<string> {
  const root = mkdtempSync(path.join(tmpdir(), 'slimfit-images-'));
  for (let i = 0; i < count; i++) {
    const name = i % 2 ? 'odd' : 'even';
    mkdirSync(path.join(root, name), { recursive: true });
    const { data, width, height } = pattern(40 + i, 30 + 2 * i);
    writeFileSync(path.join(root, name, `${String(i).padStart(3, '0')}.jpg`), await sharp(data, { raw: { width, height, channels: 3 } }).blur(1.5).jpeg().toBuffer());
  }
  return root;
}

test('a batch is [images, 3, height, width] with the labels, and its shape is known without it', async () => {
  const data = new ImageDataset(new Memory(5), transform, { workers: 0 });
  const batch = await data.batch([3, 0, 4]);
  assert.deepEqual([batch.batchSize, batch.channels, batch.height, batch.width, batch.pixelValues.length], [3, 3, 24, 24, 3 * 3 * 24 * 24]);
  assert.deepEqual(batch.labels, Int32Array.of(1, 0, 0));
  assert.deepEqual(data.shape([3, 0, 4]), { batchSize: 3, channels: 3, height: 24, width: 24 });
  assert.deepEqual([data.size, data.numLabels, data.labelNames], [5, 2, ['even', 'odd']]);
  // Each example is what it is alone.
  const settings: RenderSettings = { transform, augmentation: undefined, seed: 43, output: { height: 24, width: 24 } };
  assert.deepEqual(batch.pixelValues.slice(3 * 576, 6 * 576), await render([new Memory(5).image(0)], settings, [0], undefined));
});

test('any number of threads gives the same pixels, ahead of time or not, in memory, from files and from rows', async () => {
  const root = await jpegFolder(7);
  const folder = ImageFolder.open(root);
  const png = await sharp(pattern(20, 20).data, { raw: { width: 20, height: 20, channels: 3 } }).png().toBuffer();
  const rows = new ImageRows(Array.from({ length: 7 }, (_, i) => ({ img: { bytes: png }, label: i % 2 })));
  for (const source of [new Memory(7), folder, rows]) {
    const make = (workers: number) => new ImageDataset(source, transform, { workers, augmentation: imagenetAugmentation(), seed: 7 });
    const indices = [6, 2, 2, 0, 5];
    const [none, one, two] = [make(0), make(1), make(2)];
    const wanted = await none.batch(indices, 3);
    assert.deepEqual(await one.batch(indices, 3), wanted);
    two.prefetch(indices, 3);
    two.prefetch([1], 3);
    assert.deepEqual(await two.batch(indices, 3), wanted);
    assert.deepEqual(await two.batch(Int32Array.from(indices), 3), wanted);
    assert.notDeepEqual((await one.batch(indices, 4)).pixelValues, wanted.pixelValues);
    assert.notDeepEqual((await one.batch(indices)).pixelValues, wanted.pixelValues);
    // The same image twice in a batch is the same example.
    assert.deepEqual(wanted.pixelValues.slice(1728, 2 * 1728), wanted.pixelValues.slice(2 * 1728, 3 * 1728));
    await Promise.all([one.close(), two.close()]);
  }
});

test('images do not change when the rows they came from share one large buffer', async () => {
  const png = await sharp(pattern(20, 20).data, { raw: { width: 20, height: 20, channels: 3 } }).png().toBuffer();
  const file = new Uint8Array(2 ** 20);
  file.set(png, 1000);
  const rows = new ImageRows([{ img: { bytes: file.subarray(1000, 1000 + png.length) }, label: 0 }]);
  const data = new ImageDataset(rows, transform, { workers: 1 });
  const first = await data.batch([0]);
  assert.equal(file.length, 2 ** 20, 'the buffer was given away');
  assert.deepEqual(await data.batch([0]), first);
  await data.close();
});

test('prefetch makes the next batch before it is asked for, and once', async () => {
  const asked: number[] = [];
  const data = new ImageDataset(new Memory(8, (i) => asked.push(i)), transform, { workers: 1 });
  data.prefetch([0, 1], 0);
  data.prefetch([0, 1], 0);
  assert.deepEqual(asked, [0, 1]);
  const batch = await data.batch([0, 1], 0);
  assert.deepEqual(asked, [0, 1]);
  // Another epoch is another batch, and what was fetched is not kept.
  await data.batch([0, 1], 1);
  await data.batch([0, 1], 0);
  assert.equal(asked.length, 6);
  assert.equal(batch.batchSize, 2);
  await data.close();
});

test('at most two batches are kept ahead: the oldest that nobody fetched is given up', async () => {
  const asked: number[] = [];
  const data = new ImageDataset(new Memory(8, (i) => asked.push(i)), transform, { workers: 1 });
  for (const i of [0, 1, 2, 3]) data.prefetch([i], 0);
  assert.deepEqual(asked, [0, 1, 2, 3]);
  await data.batch([3], 0);
  await data.batch([2], 0);
  assert.equal(asked.length, 4);
  await data.batch([0], 0);
  assert.deepEqual(asked.slice(4), [0]);
  await data.close();
});

test('a broken image rejects its batch with its name, and the next batch is made', async () => {
  const root = await jpegFolder(4);
  writeFileSync(path.join(root, 'odd/001.jpg'), 'no image');
  for (const workers of [0, 2]) {
    const data = new ImageDataset(ImageFolder.open(root), transform, { workers });
    const broken = (e: Error) => e instanceof ImageDecodeError && e.file.endsWith('odd/001.jpg') && /no JPEG/.test(e.reason);
    data.prefetch([2], 0);
    await assert.rejects(data.batch([2], 0), broken);
    await assert.rejects(data.batch([0, 1, 2, 3]), broken);
    assert.equal((await data.batch([0, 1, 3])).batchSize, 3);
    await data.close();
  }
});

test('a batch whose thread dies is rejected with the cause; the next gets a new thread', async () => {
  const data = new ImageDataset(new Memory(64), transform, { workers: 1 });
  await data.batch([0]);
  const [first] = workersOf(data).threads;
  const batch = data.batch(Array.from({ length: 64 }, (_, i) => i), 0);
  void first.worker.terminate();
  await assert.rejects(batch, (e: Error) => e instanceof ImageWorkerError && e.code === 'image-worker' && /died/.test(e.message));
  assert.equal((await data.batch([1])).batchSize, 1);
  assert.notEqual(workersOf(data).threads[0], first);
  // Dead while it had nothing to do, and while a batch is made ahead.
  await workersOf(data).threads[0].worker.terminate();
  assert.equal((await data.batch([2])).batchSize, 1);
  data.prefetch([3, 4, 5], 0);
  void workersOf(data).threads[0].worker.terminate();
  await assert.rejects(data.batch([3, 4, 5], 0), ImageWorkerError);
  assert.equal((await data.batch([3, 4, 5], 0)).batchSize, 3);
  await data.close();
});

test("a thread's own failure is the cause of the rejection", async () => {
  // A setting without its parts makes the thread throw where nothing in it expects that.
  const workers = new ImageWorkers({ output: { height: 4, width: 4 } } as unknown as RenderSettings, 1);
  await assert.rejects(workers.run({ images: [new Memory(1).image(0)], indices: [0], epoch: undefined }), (e: Error) => e instanceof ImageWorkerError && /TypeError/.test(e.message));
  await workers.close();
});

test('close ends the threads and what they were making; a later batch starts new ones', async () => {
  const data = new ImageDataset(new Memory(64), transform, { workers: 2 });
  const batch = data.batch(Array.from({ length: 64 }, (_, i) => i));
  const rejected = assert.rejects(batch, ImageWorkerError);
  await data.close();
  await rejected;
  assert.equal(workersOf(data).threads.length, 0);
  assert.equal((await data.batch([1])).batchSize, 1);
  await data.close();
  await new ImageDataset(new Memory(2), transform, { workers: 0 }).close();
});

test('examples that are not there, and settings that cannot work, are refused', async () => {
  const data = new ImageDataset(new Memory(3), transform, { workers: 0 });
  for (const indices of [[3], [-1], [0.5], []]) {
    assert.throws(() => data.shape(indices), InvalidArgumentError);
    await assert.rejects(data.batch(indices), InvalidArgumentError);
  }
  for (const options of [{ workers: -1 }, { workers: 1.5 }, { seed: -1 }, { seed: 0.5 }, { augmentation: { flip: 2 } }]) assert.throws(() => new ImageDataset(new Memory(3), transform, options), InvalidArgumentError, JSON.stringify(options));
  const loose = parseImageProcessor({ size: { shortest_edge: 10 } });
  assert.deepEqual(new ImageDataset(new Memory(3), loose).shape([0]), { batchSize: 1, channels: 3, height: 10, width: 15 });
  assert.throws(() => new ImageDataset(Object.assign(Object.create(Memory.prototype), { size: 3, labels: new Int32Array(3), labelNames: ['a'], imageSize: undefined }), loose), InvalidArgumentError);
});

test('an image that is not of the size that its source claims is refused', async () => {
  class Wrong extends Memory {
    override readonly imageSize = { height: 30, width: 20 };
  }
  await assert.rejects(new ImageDataset(new Wrong(2), parseImageProcessor({ do_resize: false }), { workers: 0 }).batch([1]), (e: Error) => e instanceof ShapeError && /image 1 comes out as 30×20 instead of 20×30/.test(e.message));
});

test('small images that keep their size are made without threads, others with some', () => {
  class Tiny extends Memory {
    override readonly imageSize = { height: 32, width: 32 };
  }
  assert.equal(workersOf(new ImageDataset(new Tiny(2), parseImageProcessor({ size: 32 }), { augmentation: cifarAugmentation() })), undefined);
  assert.ok(workersOf(new ImageDataset(new Tiny(2), parseImageProcessor({ size: 224 }))).count >= 1);
  assert.ok(workersOf(new ImageDataset(new Memory(2), parseImageProcessor({ size: 224 }))).count >= 1);
});

const bundles = ['index.cjs', 'index.mjs', 'imageWorker.cjs'].map((f) => path.join(ROOT, 'dist', f));
test('the built library makes batches in threads, as a CommonJS and as an ES module, and idle threads let the process end', { skip: bundles.every((f) => existsSync(f)) ? false : 'dist is not built' }, async () => {
  const root = await jpegFolder(4);
  const body = `
    const { ImageDataset, ImageFolder, parseImageProcessor } = slimfit;
    const data = new ImageDataset(ImageFolder.open(${JSON.stringify(root)}), parseImageProcessor({ size: 24 }), { workers: 2 });
    data.prefetch([3, 1], 0);
    data.batch([0, 1, 2, 3]).then((b) => { data.prefetch([0, 2], 0); process.stdout.write(JSON.stringify([b.batchSize, Array.from(b.pixelValues.slice(0, 5))])); });`;
  const here = new ImageDataset(ImageFolder.open(root), transform, { workers: 0 });
  const wanted = JSON.stringify([4, Array.from((await here.batch([0, 1, 2, 3])).pixelValues.slice(0, 5))]);
  // Without close: the process ends by itself, or this call fails after its time.
  const run = (...args: string[]) => execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 60000, cwd: tmpdir() });
  assert.equal(run('-e', `const slimfit = require(${JSON.stringify(bundles[0])});${body}`), wanted);
  assert.equal(run('--input-type=module', '-e', `import * as slimfit from ${JSON.stringify(`file://${bundles[1]}`)};${body}`), wanted);
});

test('the threads of a data set that nobody holds any more end', { skip: bundles.every((f) => existsSync(f)) ? false : 'dist is not built' }, async () => {
  const root = await jpegFolder(2);
  const script = `
    const { ImageDataset, ImageFolder, parseImageProcessor } = require(${JSON.stringify(bundles[0])});
    async function use() {
      const data = new ImageDataset(ImageFolder.open(${JSON.stringify(root)}), parseImageProcessor({ size: 24 }), { workers: 1 });
      await data.batch([0, 1]);
      return data.workers;
    }
    use().then(async (workers) => {
      const before = workers.threads.length;
      for (let i = 0; i < 200 && workers.threads.length > 0; i++) {
        gc();
        await new Promise((done) => setTimeout(done, 20));
      }
      process.stdout.write([before, workers.threads.length].join());
    });`;
  assert.equal(execFileSync(process.execPath, ['--expose-gc', '-e', script], { encoding: 'utf8', timeout: 60000, cwd: tmpdir() }), '1,0');
});

const SAMPLE = path.resolve(__dirname, '../../../shared/data/imagenet-sample/train');

test('every image of the ImageNet sample goes through the training recipe and through evaluation; training draws anew in every epoch, and the same again', { skip: existsSync(SAMPLE) ? false : 'no ../shared/data/imagenet-sample' }, async () => {
  const source = ImageFolder.open(SAMPLE);
  const all = Int32Array.from({ length: source.size }, (_, i) => i);
  const make = (workers: number) => new ImageDataset(source, VIT_TRANSFORM, { augmentation: imagenetAugmentation(), seed: 7, workers });
  const [one, other] = [make(1), make(0)];
  const first = await one.batch(all, 0);
  assert.equal(first.pixelValues.length, 100 * 3 * 224 * 224);
  assert.ok(first.pixelValues.every(Number.isFinite));
  const image = (b: { pixelValues: Float32Array }, i: number) => b.pixelValues.subarray(i * 3 * 224 * 224, (i + 1) * 3 * 224 * 224);
  const few = [0, 41, 99];
  const again = await other.batch(few, 0);
  few.forEach((n, i) => assert.deepEqual(image(again, i), image(first, n)));
  const second = await other.batch(few, 1);
  few.forEach((n, i) => assert.notDeepEqual(image(second, i), image(first, n)));
  const evaluation = await one.batch(all);
  assert.ok(evaluation.pixelValues.every((v) => v >= -1 && v <= 1), 'mean and deviation of ½: pixels within −1 and 1');
  assert.deepEqual(evaluation.labels, all);
  await Promise.all([one.close(), other.close()]);
});
