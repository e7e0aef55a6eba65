/** Threads that make image batches: jobs wait in one queue, each thread works on one. Threads start with the first job; idle ones do not keep the process alive. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { ImageDecodeError, ImageWorkerError } from '../errors';
import { loadSharp, type StoredImage } from './pixels/decode';
import type { RenderSettings } from './pixels/render';

/** Part of a batch. */
export interface RenderJob {
  readonly images: readonly StoredImage[];
  readonly indices: readonly number[];
  readonly epoch: number | undefined;
}

/** What a thread answers: float32 pixels, an image that cannot be decoded, or another failure. */
export type RenderAnswer = { readonly pixels: Float32Array } | { readonly error: { readonly file: string; readonly reason: string } | { readonly message: string } };

interface QueuedJob {
  readonly job: RenderJob;
  readonly resolve: (pixels: Float32Array) => void;
  readonly reject: (error: Error) => void;
  readonly signal: AbortSignal | undefined;
}

interface Thread {
  readonly worker: Worker;
  current: QueuedJob | undefined;
  /** What it threw outside a job's own errors. */
  failure: Error | undefined;
}

/** A number of threads with the same settings. */
export class ImageWorkers {
  /** Those that run now. */
  readonly threads: Thread[] = [];
  private readonly queue: QueuedJob[] = [];
  private waiting = 0;

  constructor(
    private readonly settings: RenderSettings,
    readonly count: number,
  ) {}

  /**
   * Makes the pixels of a job.
   * @param options `first`: before the jobs that wait; `signal`: drops the job while it still waits
   * @throws ImageDecodeError; ImageWorkerError when the thread dies or `close` comes first
   */
  run(job: RenderJob, options: { readonly first?: boolean; readonly signal?: AbortSignal } = {}): Promise<Float32Array> {
    return new Promise((resolve, reject) => {
      const queued = { job, resolve, reject, signal: options.signal };
      if (options.first) this.queue.unshift(queued);
      else this.queue.push(queued);
      this.dispatch();
    });
  }

  /** The same promise; until it settles, the threads keep the process alive. */
  async awaited<T>(result: Promise<T>): Promise<T> {
    this.waiting++;
    for (const { worker } of this.threads) worker.ref();
    try {
      return await result;
    } finally {
      this.waiting--;
      if (this.waiting === 0) for (const { worker } of this.threads) worker.unref();
    }
  }

  /** Ends the threads. Jobs that are not done fail; later ones start new threads. */
  async close(): Promise<void> {
    for (const { reject } of this.queue.splice(0)) reject(new ImageWorkerError('the image threads were closed before the batch was made'));
    await Promise.all([...this.threads].map((t) => t.worker.terminate()));
  }

  private dispatch(): void {
    while (this.queue.length > 0) {
      const { signal, reject } = this.queue[0];
      if (signal?.aborted) {
        this.queue.shift();
        reject(new ImageWorkerError('the batch was given up'));
        continue;
      }
      let thread = this.threads.find((t) => !t.current);
      if (!thread) {
        if (this.threads.length >= this.count) return;
        try {
          thread = this.start();
        } catch (error) {
          this.queue.shift()!.reject(error as Error);
          continue;
        }
      }
      const queued = this.queue.shift()!;
      thread.current = queued;
      // A view travels with the whole buffer that it looks into: encoded images get one of their own, and give it away.
      const images = queued.job.images.map((image) => (image.kind === 'encoded' ? { ...image, bytes: new Uint8Array(image.bytes) } : image));
      try {
        thread.worker.postMessage({ ...queued.job, images } satisfies RenderJob, images.flatMap((image) => (image.kind === 'encoded' ? [image.bytes.buffer as ArrayBuffer] : [])));
      } catch (error) {
        thread.current = undefined;
        queued.reject(error as Error);
      }
    }
  }

  private start(): Thread {
    // sharp asks to be loaded here first: a native library that only a thread holds is unloaded with it.
    loadSharp();
    const worker = startThread(this.settings);
    const thread: Thread = { worker, current: undefined, failure: undefined };
    if (this.waiting === 0) worker.unref();
    worker.on('message', (answer: RenderAnswer) => {
      const queued = thread.current!;
      thread.current = undefined;
      if ('pixels' in answer) queued.resolve(answer.pixels);
      else if ('file' in answer.error) queued.reject(new ImageDecodeError(answer.error.file, answer.error.reason));
      else queued.reject(new ImageWorkerError(`an image thread failed: ${answer.error.message}`));
      this.dispatch();
    });
    worker.on('error', (error) => (thread.failure = error));
    // Comes last in every case: an error, `terminate`, out of memory, process.exit.
    worker.on('exit', (code) => {
      this.threads.splice(this.threads.indexOf(thread), 1);
      const { current, failure } = thread;
      thread.current = undefined;
      current?.reject(new ImageWorkerError(`an image thread died${failure ? `: ${failure.message}` : ` (exit code ${code})`}; the batch was not made, the next one gets a new thread`, { cause: failure }));
      this.dispatch();
    });
    this.threads.push(thread);
    return thread;
  }
}

/** The bundle of imageWorker.ts beside that of the library in dist; among the sources tsx compiles it, which does not reach into threads by itself. */
function startThread(workerData: RenderSettings): Worker {
  const bundle = path.join(__dirname, 'imageWorker.cjs');
  if (existsSync(bundle)) return new Worker(bundle, { workerData });
  const source = path.join(__dirname, 'imageWorker.ts');
  if (!existsSync(source)) throw new ImageWorkerError(`no imageWorker.cjs in ${__dirname}: run \`npm run build\`, or use workers: 0`);
  const code = `const load = require('node:module').createRequire(${JSON.stringify(source)}); load('tsx/cjs'); load(${JSON.stringify(source)});`;
  return new Worker(code, { eval: true, workerData });
}
