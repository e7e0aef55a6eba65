/** Tables of the present state of a run. */
import { type ColumnTable, table } from 'arquero';
import type { FreezableLayer } from '../freezing/layer';
import type { History } from '../training/history';

/**
 * Every freezable layer, one row each: what it is, how far it last moved, how often it trained, how many steps ago, and whether it is frozen in the coming step.
 * `stepsSinceTrained` is null for a layer that has not trained yet.
 */
export function layersTable(layers: readonly FreezableLayer[], history: History, magnitudes: Float64Array, frozen: readonly number[]): ColumnTable {
  const isFrozen = new Set(frozen);
  const now = history.length > 0 ? history.column('step')[history.length - 1] : -1;
  const training = layers.map((l) => history.trainingOf(l.index));
  return table({
    layer: layers.map((l) => l.index),
    name: layers.map((l) => l.name),
    kind: layers.map((l) => l.kind as string),
    shape: layers.map((l) => l.shape.join('×')),
    parameters: layers.map((l) => l.parameters),
    updateMagnitude: Float64Array.from(magnitudes),
    timesTrained: training.map((t) => t.times),
    stepsSinceTrained: training.map((t) => (t.last < 0 ? null : now - t.last)),
    frozenNext: layers.map((l) => isFrozen.has(l.index)),
  } as never);
}
