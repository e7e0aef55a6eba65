/** What every classification or regression head does with labels: looks at them before anything is computed, and turns logits into a loss. */
import { LabelError } from '../errors';
import type { ForwardContext } from '../nn/context';
import { crossEntropy, meanSquaredError } from '../nn/losses';
import type { Variable } from '../tape/tape';
import type { LabelledBatch } from './model';

/** Checks the labels of a batch: class indices in [0, numLabels), or finite scores where numLabels is 1. @throws LabelError */
export function checkLabels({ labels, batchSize }: LabelledBatch, numLabels: number): void {
  if (labels.length !== batchSize) throw new LabelError(`${labels.length} labels for a batch of ${batchSize}`);
  const isRegression = numLabels === 1;
  const bad = labels.findIndex((l) => (isRegression ? !Number.isFinite(l) : !(Number.isInteger(l) && l >= 0 && l < numLabels)));
  if (bad < 0) return;
  throw new LabelError(
    isRegression
      ? `label ${labels[bad]} at ${bad} of the batch is no finite score`
      : `label ${labels[bad]} at ${bad} of the batch is outside [0, ${numLabels}): load the model with a larger numLabels, or mend the data`,
  );
}

/** Mean cross-entropy of logits [B, numLabels]; of one output, mean squared error. */
export function labelledLoss(ctx: ForwardContext, logits: Variable, { labels, batchSize }: LabelledBatch): Variable {
  const { engine } = ctx;
  return engine.scope(() =>
    logits.tensor.shape[1] === 1
      ? meanSquaredError(ctx, logits, engine.upload(Float32Array.from(labels), logits.tensor.shape))
      : crossEntropy(ctx, logits, engine.upload(Int32Array.from(labels), [batchSize])),
  );
}
