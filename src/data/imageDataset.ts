/** Labelled images as batches for an image model: decoded, augmented in training, resized and normalised, in threads that run ahead of training. */
import { availableParallelism } from 'node:os';
import { InvalidArgumentError } from '../errors';
import type { BatchShape, BatchSource, ImageBatch } from '../models/model';
import { outputSize, type ImageTransform } from './imageProcessor';
import type { ImageSource } from './imageSource';
import { ImageWorkers } from './imageWorkers';
import { checkAugmentation, type Augmentation } from './pixels/augmentation';
import { render, type RenderSettings } from './pixels/render';

/** How images become batches. */
export interface ImageDatasetOptions {
  /** What training images go through. Default none. Evaluation (a batch without epoch) never has it. */
  readonly augmentation?: Augmentation;
  /** Of what augmentation draws: pixels depend on seed, epoch and example alone, not on the threads. Default 43. */
  readonly seed?: number;
  /** Threads. 0: the main thread, nothing runs ahead. Default: one less than there are cores, 1 to 4; 0 for small images that are in memory and keep their size. */
  readonly workers?: number;
}

/** A batch that is being made before it is asked for. */
interface Ahead {
  readonly batch: Promise<ImageBatch>;
  readonly giveUp: AbortController;
}

/** Batches that are kept ahead at most. */
const AHEAD = 2;

/** Ends the threads of a data set that nobody holds any more, such as that of a notebook cell that ran again. */
const forgotten = new FinalizationRegistry<ImageWorkers>((workers) => void workers.close());

/** Images of any source as batches. */
export class ImageDataset implements BatchSource<ImageBatch> {
  private readonly settings: RenderSettings;
  private readonly workers: ImageWorkers | undefined;
  private readonly ahead = new Map<string, Ahead>();

  /** @throws InvalidArgumentError when images would come out in different sizes, or for settings that can never work */
  constructor(
    readonly source: ImageSource,
    readonly transform: ImageTransform,
    options: ImageDatasetOptions = {},
  ) {
    const { augmentation, seed = 43 } = options;
    if (augmentation) checkAugmentation(augmentation);
    if (!(Number.isSafeInteger(seed) && seed >= 0)) throw new InvalidArgumentError(`seed ${seed} is no whole number from 0`);
    const output = outputSize(transform, source.imageSize);
    const cheap = source.imageSize !== undefined && source.imageSize.height * source.imageSize.width <= 64 * 64 && output.height * output.width <= 64 * 64;
    const count = options.workers ?? (cheap ? 0 : Math.min(4, Math.max(1, availableParallelism() - 1)));
    if (!(Number.isInteger(count) && count >= 0 && count <= 64)) throw new InvalidArgumentError(`workers: ${count} is no whole number from 0 to 64`);
    this.settings = { transform, augmentation, seed, output };
    if (count > 0) {
      this.workers = new ImageWorkers(this.settings, count);
      forgotten.register(this, this.workers);
    }
  }

  get size(): number {
    return this.source.size;
  }

  /** Names of the classes. */
  get labelNames(): readonly string[] {
    return this.source.labelNames;
  }

  /** Number of classes. */
  get numLabels(): number {
    return this.source.labelNames.length;
  }

  shape(indices: ArrayLike<number>): BatchShape<ImageBatch> {
    if (indices.length === 0) throw new InvalidArgumentError('a batch of no examples');
    for (let i = 0; i < indices.length; i++)
      if (!(Number.isInteger(indices[i]) && indices[i] >= 0 && indices[i] < this.size)) throw new InvalidArgumentError(`example ${indices[i]} of a data set of ${this.size}`);
    return { batchSize: indices.length, channels: 3, ...this.settings.output };
  }

  /** @throws ImageDecodeError naming the image; ImageWorkerError when a thread died; InvalidArgumentError for an example that is not there */
  async batch(indices: ArrayLike<number>, epoch?: number): Promise<ImageBatch> {
    const shape = this.shape(indices);
    const key = keyOf(indices, epoch);
    const ahead = this.ahead.get(key);
    this.ahead.delete(key);
    if (!this.workers) return this.batchOf(shape, indices, await render(Array.from(indices, (i) => this.source.image(i)), this.settings, indices, epoch));
    return this.workers.awaited(ahead?.batch ?? this.make(indices, epoch));
  }

  prefetch(indices: ArrayLike<number>, epoch?: number): void {
    const key = keyOf(indices, epoch);
    if (!this.workers || indices.length === 0 || this.ahead.has(key)) return;
    const giveUp = new AbortController();
    const batch = this.make(indices, epoch, giveUp.signal);
    // A failure is told to whom asks for the batch.
    batch.catch(() => {});
    this.ahead.set(key, { batch, giveUp });
    // What was announced and never fetched (training was rewound) makes room.
    for (const [old, { giveUp }] of this.ahead) {
      if (this.ahead.size <= AHEAD) break;
      this.ahead.delete(old);
      giveUp.abort();
    }
  }

  /** Ends the threads and drops what they made ahead. A later batch starts them anew. */
  async close(): Promise<void> {
    this.ahead.clear();
    await this.workers?.close();
  }

  /** Cuts a batch into jobs, a few for each thread, so that none waits long for another. @param signal set when the batch is made ahead */
  private async make(indices: ArrayLike<number>, epoch: number | undefined, signal?: AbortSignal): Promise<ImageBatch> {
    const shape = this.shape(indices);
    const workers = this.workers!;
    const all = Array.from(indices);
    const length = Math.ceil(all.length / (workers.count * 4));
    const size = 3 * shape.height * shape.width;
    const pixels = new Float32Array(all.length * size);
    const begins = Array.from({ length: Math.ceil(all.length / length) }, (_, i) => i * length);
    const failed = new AbortController();
    // Jobs that somebody waits for go before those made ahead; the first of them is put in last.
    const jobs = (signal ? begins : begins.reverse()).map(async (begin) => {
      const some = all.slice(begin, begin + length);
      const images = some.map((i) => this.source.image(i));
      const part = await workers.run({ images, indices: some, epoch }, { first: !signal, signal: signal ? AbortSignal.any([signal, failed.signal]) : failed.signal });
      pixels.set(part, begin * size);
    });
    try {
      await Promise.all(jobs);
    } catch (error) {
      failed.abort();
      await Promise.allSettled(jobs);
      throw error;
    }
    return this.batchOf(shape, indices, pixels);
  }

  private batchOf(shape: BatchShape<ImageBatch>, indices: ArrayLike<number>, pixelValues: Float32Array): ImageBatch {
    return { ...shape, pixelValues, labels: Int32Array.from(indices, (i) => this.source.labels[i]) };
  }
}

function keyOf(indices: ArrayLike<number>, epoch: number | undefined): string {
  return `${epoch ?? 'evaluation'}:${Array.from(indices).join()}`;
}
