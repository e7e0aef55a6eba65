/** Marks, for one step, the rows that it looks up in the tables that train, so that their gradients and updates are of these rows alone. */
import { TouchedRows } from '../tape/touchedRows';
import type { LabelledBatch, Model } from './model';

/**
 * Marks the tables of a model that train and are nothing but looked up. Until the returned function is called, their gradients are [n, H], of the rows that any of the batches looks up.
 * @param batches all micro-batches of the step
 * @returns takes the marks away
 */
export function markTouchedRows<Batch extends LabelledBatch>(model: Model<Batch>, batches: readonly Batch[]): () => void {
  const tables = new Map<string, Int32Array[]>();
  for (const batch of batches) for (const [name, ids] of model.lookups(batch)) tables.set(name, [...(tables.get(name) ?? []), ids]);
  const marked = [...tables].map(([name, lists]) => ({ parameter: model.parameters.get(name)!, lists })).filter(({ parameter }) => parameter.trains);
  const unmark = () => {
    for (const { parameter } of marked) {
      parameter.touched?.dispose();
      parameter.touched = undefined;
    }
  };
  try {
    for (const { parameter, lists } of marked) parameter.touched = new TouchedRows(model.engine, lists);
  } catch (error) {
    unmark();
    throw error;
  }
  return unmark;
}
