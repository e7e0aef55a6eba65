/**
 * Images per second of ImageDataset: JPEG files decoded and resized to 224 (evaluation, and with augmentation), CIFAR as it is and enlarged to 224; on the main thread and in workers. CPU
 * time per image (all threads) is beside them, as it hardly depends on what else the machine does.
 * `npx tsx bench/images.ts [folder of JPEGs in class folders] [CIFAR-10 binary file]`, a Markdown table on standard output.
 */
import { cpus } from 'node:os';
import path from 'node:path';
import { readCifar10 } from '../src/data/cifar';
import { ImageDataset, type ImageDatasetOptions } from '../src/data/imageDataset';
import { ImageFolder } from '../src/data/imageFolder';
import { parseImageProcessor } from '../src/data/imageProcessor';
import type { ImageSource } from '../src/data/imageSource';
import { cifarAugmentation, imagenetAugmentation, randomResizedCrop } from '../src/data/pixels/augmentation';

const SHARED = path.resolve(__dirname, '../../shared/data');
const [folder = path.join(SHARED, 'imagenet-sample/train'), cifar = path.join(SHARED, 'cifar10/test.bin')] = process.argv.slice(2);
const SECONDS = 2;
const BATCH = 32;

/** Batches as training takes them: each asked for after the next was announced. */
async function measure(source: ImageSource, options: ImageDatasetOptions, size: number): Promise<{ rate: number; cpu: number }> {
  const data = new ImageDataset(source, parseImageProcessor({ size }), options);
  const indices = (step: number) => Array.from({ length: BATCH }, (_, i) => (step * BATCH + i) % source.size);
  const epoch = options.augmentation ? 0 : undefined;
  let step = 0;
  const next = async (): Promise<void> => {
    const batch = data.batch(indices(step), epoch);
    data.prefetch(indices(++step), epoch);
    await batch;
  };
  // Threads start and code is compiled.
  for (let i = 0; i < 4; i++) await next();
  const begin = performance.now();
  const cpuBegin = process.cpuUsage();
  const first = step;
  while (performance.now() - begin < SECONDS * 1000) await next();
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpuBegin);
  await data.close();
  const images = (step - first) * BATCH;
  return { rate: images / seconds, cpu: (user + system) / 1000 / images };
}

async function main(): Promise<void> {
  const jpegs = ImageFolder.open(folder);
  const small = readCifar10(cifar);
  process.stdout.write(`${cpus().length} cores, ${cpus()[0].model}; batches of ${BATCH}; images per second (CPU ms per image)\n\n| images | main thread | 1 worker | 2 workers |\n|---|---|---|---|\n`);
  const rows: [string, ImageSource, ImageDatasetOptions, number][] = [
    ['JPEG → 224, evaluation', jpegs, {}, 224],
    ['JPEG → 384, evaluation', jpegs, {}, 384],
    ['JPEG → 224, random resized crop and flip', jpegs, { augmentation: randomResizedCrop() }, 224],
    ['JPEG → 224, ImageNet recipe', jpegs, { augmentation: imagenetAugmentation() }, 224],
    ['CIFAR 32 → 32', small, {}, 32],
    ['CIFAR 32 → 32, padded crop and flip', small, { augmentation: cifarAugmentation() }, 32],
    ['CIFAR 32 → 224', small, {}, 224],
  ];
  for (const [name, source, options, size] of rows) {
    const cells: string[] = [];
    for (const workers of [0, 1, 2]) {
      const { rate, cpu } = await measure(source, { ...options, workers }, size);
      cells.push(`${rate.toFixed(0)} (${cpu.toFixed(2)})`);
    }
    process.stdout.write(`| ${name} | ${cells.join(' | ')} |\n`);
  }
}

void main();
