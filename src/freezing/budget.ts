/** A budget of activation bytes: what the policies that keep to one ask of the bytes of a step, and what they say when it cannot be met. */
import { InvalidArgumentError } from '../errors';
import { formatBytes } from '../units';
import { checkFreezeRate } from './ils';
import type { FreezableLayer } from './layer';
import type { KeptBytes } from './policy';

/** A budget in bytes, or as a freeze rate of bytes; one of the two. */
export interface BudgetOptions {
  /** Most bytes that a step may keep between forward and backward (the record's `activationBytes`). */
  readonly budgetBytes?: number;
  /**
   * Share F in [0, 1) of the bytes that training every layer adds to a step which is to be saved: the budget of a step is K(none) + (1 − F)·(K(all) − K(none)), K the bytes that it keeps when
   * these layers train. 0 trains all layers; any rate can be met, on batches of any shape.
   */
  readonly freezeRate?: number;
}

/** @throws InvalidArgumentError unless there is a positive number of bytes or a freeze rate in [0, 1), and not both */
export function checkBudget({ budgetBytes, freezeRate }: BudgetOptions): void {
  if ((budgetBytes === undefined) === (freezeRate === undefined)) throw new InvalidArgumentError('a memory budget is given by `budgetBytes` or by `freezeRate`, one of the two');
  if (freezeRate !== undefined) checkFreezeRate(freezeRate);
  else if (!(budgetBytes! > 0 && Number.isFinite(budgetBytes))) throw new InvalidArgumentError(`budgetBytes is ${budgetBytes}; it must be a positive number of bytes`);
}

/** A budget in words: '11.7 KiB', '25 % of training's bytes'. */
export function budgetText({ budgetBytes, freezeRate }: BudgetOptions): string {
  return budgetBytes !== undefined ? formatBytes(budgetBytes) : `${Number((100 * (1 - freezeRate!)).toPrecision(6))} % of training's bytes`;
}

/**
 * The budget of a step, which covers what it keeps when no layer trains.
 * @throws InvalidArgumentError where it cannot be met, naming the smallest that can; or where bytes are not known beforehand
 */
export function budgetOf({ budgetBytes, freezeRate }: BudgetOptions, layers: readonly FreezableLayer[], keeps: KeptBytes | undefined): { readonly keeps: KeptBytes; readonly budget: number } {
  if (!keeps)
    throw new InvalidArgumentError('a memory budget needs the bytes of a step beforehand: a model with `predictActivations`, and a data source with `shape`');
  const least = keeps(new Set());
  if (budgetBytes === undefined) return { keeps, budget: least + (1 - freezeRate!) * (keeps(new Set(layers.map((l) => l.index))) - least) };
  if (least > budgetBytes)
    throw new InvalidArgumentError(`budgetBytes is ${budgetBytes}, but a step on this batch keeps ${least} bytes even when no layer trains but what the user thawed: the smallest budget that it can meet is ${least}`);
  return { keeps, budget: budgetBytes };
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
