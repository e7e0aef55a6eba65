/** Learning-rate schedules: a function of the step k, counted from 0. The paper's own forms, and the usual warm-up. */
import { InvalidArgumentError } from '../errors';

/** Learning rate of step k (from 0). */
export type Schedule = (step: number) => number;

function checkTotal(total: number): void {
  if (!(Number.isInteger(total) && total >= 1)) throw new InvalidArgumentError(`a schedule over ${total} steps: it needs a whole number of at least 1`);
}

/** The same rate in every step. */
export function constantSchedule(lr: number): Schedule {
  return () => lr;
}

/** Linear from 0 up to `lr` over `warmup` steps, then linear down to 0 at `total` (Hugging Face's `linear`). */
export function linearSchedule(lr: number, total: number, warmup = 0): Schedule {
  checkTotal(total);
  if (!(warmup >= 0 && warmup < total)) throw new InvalidArgumentError(`warm-up of ${warmup} steps out of ${total}: it must lie in [0, ${total})`);
  return (k) => (k < warmup ? (lr * k) / warmup : lr * Math.max(0, (total - k) / (total - warmup)));
}

/**
 * The authors' forms, which differ by task (published code, `lr_scheduler` of each script), S = total steps:
 * - `glue` (MNLI, QQP, QNLI, SST-2, MRPC, RTE): lr·(S+1−k)/(S+1)
 * - `vit`: the same from k = 1: lr·(S−k)/(S+1) with k from 0
 * - `stsb`: lr·(S−k)/S
 * - `warm` (CoLA, SQuAD): 0 at k = 0, then lr·(S−k)/(S−0.1). Under inter-layer scheduling the layers that train in step 0 get distance 0 and stay frozen.
 */
export type PaperSchedule = 'glue' | 'vit' | 'stsb' | 'warm';

/** One of the authors' schedules. */
export function paperSchedule(kind: PaperSchedule, lr: number, total: number): Schedule {
  checkTotal(total);
  switch (kind) {
    case 'glue':
      return (k) => (lr * (total + 1 - k)) / (total + 1);
    case 'vit':
      return (k) => (lr * (total - k)) / (total + 1);
    case 'stsb':
      return (k) => (lr * (total - k)) / total;
    case 'warm':
      return (k) => (k === 0 ? 0 : (lr * (total - k)) / (total - 0.1));
  }
}
