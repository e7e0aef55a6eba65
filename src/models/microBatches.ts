/**
 * A step's batch in parts that are run one after the other (gradient accumulation). The loss of a batch is a mean over terms (examples, or the labels that count), so that of the step is Σ wᵢ·lossᵢ with
 * wᵢ = terms of part i / terms of the batch: the mean over all, however unequal the parts.
 */
import { InvalidArgumentError } from '../errors';
import type { LabelledBatch } from './model';

/** Part of a batch, and its share of the batch's mean loss. */
export interface MicroBatch<Batch> {
  readonly batch: Batch;
  readonly weight: number;
}

/** @throws InvalidArgumentError unless a step of so many examples can be run in so many parts */
export function checkAccumulation(steps: number, batchSize: number): void {
  if (!(Number.isInteger(steps) && steps >= 1)) throw new InvalidArgumentError(`gradientAccumulationSteps is ${steps}; it must be a whole number of at least 1`);
  if (steps > batchSize)
    throw new InvalidArgumentError(`gradientAccumulationSteps is ${steps}, but a step has ${batchSize} examples: batchSize counts all examples of a step, not those of one micro-batch`);
}

/** Sizes of the parts of a batch: equal, or the first ones larger by one; a batch of fewer examples than parts has parts of one. */
export function microBatchSizes(batchSize: number, count: number): number[] {
  const parts = Math.min(count, batchSize);
  return Array.from({ length: parts }, (_, i) => Math.floor(batchSize / parts) + (i < batchSize % parts ? 1 : 0));
}

/**
 * Cuts a batch. Every array of it must be row-major with the examples first, as those of text and image batches are.
 * @param terms how many terms the mean loss of a batch has; a part that has none is left out, unless all have none
 * @throws InvalidArgumentError for an array that cannot be cut, by its name
 */
export function microBatches<Batch extends LabelledBatch>(batch: Batch, count: number, terms: (batch: Batch) => number): MicroBatch<Batch>[] {
  const sizes = microBatchSizes(batch.batchSize, count);
  if (sizes.length <= 1) return [{ batch, weight: 1 }];
  let begin = 0;
  const parts = sizes.map((size) => {
    const part = rows(batch, begin, size);
    begin += size;
    return { batch: part, terms: terms(part) };
  });
  const all = parts.reduce((n, p) => n + p.terms, 0);
  // A batch without any label is the model's to refuse.
  if (all === 0) return [{ batch, weight: 1 }];
  return parts.filter((p) => p.terms > 0).map((p) => ({ batch: p.batch, weight: p.terms / all }));
}

function rows<Batch extends LabelledBatch>(batch: Batch, begin: number, size: number): Batch {
  const cut = (name: string, value: unknown): unknown => {
    if (!Array.isArray(value) && !ArrayBuffer.isView(value)) return value;
    const { length } = value as ArrayLike<unknown>;
    if (length % batch.batchSize !== 0) throw new InvalidArgumentError(`${name} of the batch has ${length} values, no multiple of its ${batch.batchSize} examples: it cannot be run in micro-batches`);
    const row = length / batch.batchSize;
    return (value as Float32Array).slice(begin * row, (begin + size) * row);
  };
  return { ...batch, ...Object.fromEntries(Object.entries(batch).map(([name, value]) => [name, cut(name, value)])), batchSize: size };
}
