/** A budget of activation bytes: what the policies that keep to one ask of the bytes of a step, and what they say when it cannot be met. */
import { InvalidArgumentError } from '../errors';
import type { FreezableLayer } from './layer';
import type { KeptBytes } from './policy';

/** @throws InvalidArgumentError unless it is a positive number of bytes */
export function checkBudget(budgetBytes: number): void {
  if (!(budgetBytes > 0 && Number.isFinite(budgetBytes))) throw new InvalidArgumentError(`budgetBytes is ${budgetBytes}; it must be a positive number of bytes`);
}

/**
 * Bytes of a step in which no layer trains, which the budget must cover.
 * @throws InvalidArgumentError where the budget is smaller, naming the smallest that can be met; or where bytes are not known beforehand
 */
export function leastBytes(keeps: KeptBytes | undefined, budgetBytes: number): asserts keeps is KeptBytes {
  if (!keeps)
    throw new InvalidArgumentError('a memory budget needs the bytes of a step beforehand: a model with `predictActivations`, and a data source with `shape`');
  const least = keeps(new Set());
  if (least > budgetBytes)
    throw new InvalidArgumentError(`budgetBytes is ${budgetBytes}, but a step on this batch keeps ${least} bytes even when no layer trains but what the user thawed: the smallest budget that it can meet is ${least}`);
}

/** Adds layers to those that train, in this order, as long as the budget holds. A layer that does not fit is passed over. */
export function addWhileFitting(trained: Set<number>, order: readonly number[], keeps: KeptBytes, budgetBytes: number): void {
  for (const layer of order) {
    if (trained.has(layer)) continue;
    trained.add(layer);
    if (keeps(trained) > budgetBytes) trained.delete(layer);
  }
}

/** Layers that train as those that are frozen, ascending. */
export function others(layers: readonly FreezableLayer[], trained: ReadonlySet<number>): number[] {
  return layers.filter((l) => !trained.has(l.index)).map((l) => l.index);
}
