/** Entry of a thread that makes parts of image batches: one job in, its pixels or its error out. */
import { parentPort, workerData } from 'node:worker_threads';
import { ImageDecodeError } from '../errors';
import type { RenderAnswer, RenderJob } from './imageWorkers';
import { render, type RenderSettings } from './pixels/render';

const port = parentPort;
if (!port) throw new Error('imageWorker runs in a worker thread');
const settings = workerData as RenderSettings;

port.on('message', (job: RenderJob) => {
  render(job.images, settings, job.indices, job.epoch).then(
    (pixels) => port.postMessage({ pixels } satisfies RenderAnswer, [pixels.buffer as ArrayBuffer]),
    // Classes do not survive the way between threads; what an error says does.
    (error: unknown) => port.postMessage({ error: error instanceof ImageDecodeError ? { file: error.file, reason: error.reason } : { message: (error as Error).stack ?? String(error) } } satisfies RenderAnswer),
  );
});
