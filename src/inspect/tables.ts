/** Tables of a run: its layers, what it keeps, the device's memory, its health. All read from the history. */
import { type ColumnTable, table } from 'arquero';
import { CATEGORIES } from '../engine/engine';
import type { FreezableLayer, LayerKind } from '../freezing/layer';
import type { History } from '../training/history';
import { historyOf, type Run } from './axes';
import { measuredErrors } from './healthFigures';
import { modelPart, shortLayerName } from './layerNames';
import { recordedStep } from './memoryFigures';

/** Why the activation behind a layer is kept (paper §3): what freezing the layer can save. */
const ROLE: Readonly<Record<LayerKind, string>> = { linear: 'dynamic', 'patch-projection': 'dynamic', 'layer-norm': 'quasi-static', embedding: 'none (ids only)' };

/**
 * Every freezable layer, one row each: what it is, the role of its activation, how far it moved last and in the middle of its training steps, how often it trained, how many steps ago, and
 * whether it is frozen in the coming step. `stepsSinceTrained` and `medianMagnitude` are null for a layer that has not trained yet.
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
    activationRole: layers.map((l) => ROLE[l.kind]),
    updateMagnitude: Float64Array.from(magnitudes),
    medianMagnitude: medianMagnitudes(layers, history),
    timesTrained: training.map((t) => t.times),
    stepsSinceTrained: training.map((t) => (t.last < 0 ? null : now - t.last)),
    frozenNext: layers.map((l) => isFrozen.has(l.index)),
  } as never);
}

/** Median over the steps in which each layer trained. */
function medianMagnitudes(layers: readonly FreezableLayer[], history: History): (number | null)[] {
  const seen: number[][] = layers.map(() => []);
  for (let i = 0; i < history.length; i++) {
    const d = history.magnitudesAfter(i);
    history.trainedIn(i).forEach((trained, l) => trained && seen[l].push(d[l]));
  }
  return seen.map((values) => (values.length === 0 ? null : values.sort((a, b) => a - b)[Math.floor(values.length / 2)]));
}

/**
 * What a step kept for backward, one row per module, role and encoding, with its share of the whole.
 * @param options `step`: number of a recorded step; default the last
 */
export function activationsTable(run: Run, options: { readonly step?: number } = {}): ColumnTable {
  const history = historyOf(run);
  const step = recordedStep(history, options.step);
  const rows = (history.activations().objects() as { step: number; module: string; role: string; encoding: string; bytes: number }[]).filter((r) => r.step === step);
  const total = rows.reduce((s, r) => s + r.bytes, 0);
  return table({
    part: rows.map((r) => modelPart(r.module)),
    layer: rows.map((r) => shortLayerName(r.module)),
    role: rows.map((r) => r.role),
    encoding: rows.map((r) => r.encoding),
    bytes: rows.map((r) => r.bytes),
    percent: rows.map((r) => (100 * r.bytes) / total),
  });
}

/**
 * Device memory by what it is for: at the end of the last step, at most within any step, and what plain fine-tuning holds (gradients of all weights, both moments of all weights, all
 * activations in float32); how many times less the peak is. Workspace of plain fine-tuning is not known. Of an engine that keeps buffers for the tensors to come (webgpu) there is a row
 * for all that it holds of the device.
 */
export function deviceMemoryTable(run: Run): ColumnTable {
  const history = historyOf(run);
  const last = history.length - 1;
  const weights = history.memory('weights', 'end')[last];
  const full = history.column('fullActivationBytes')[last];
  const plain = { weights, gradients: weights, optimizer: 2 * weights, activations: full, workspace: NaN };
  const rows: { use: string; now: number; peak: number; plain: number }[] = CATEGORIES.map((c) => ({
    use: c as string,
    now: history.memory(c, 'end')[last],
    peak: Math.max(...history.memory(c, 'peak')),
    plain: plain[c],
  }));
  rows.push({ use: 'all together', now: rows.reduce((s, r) => s + r.now, 0), peak: Math.max(...history.column('totalPeakBytes')), plain: 4 * weights + full });
  const held = history.column('heldBytes');
  if (held.some(Number.isFinite)) rows.push({ use: 'held by the engine', now: held[last], peak: held.reduce((a, b) => Math.max(a, b), 0), plain: NaN });
  const ratio = (r: { peak: number; plain: number }) => (Number.isFinite(r.plain) && r.peak > 0 ? r.plain / r.peak : null);
  return table({
    use: rows.map((r) => r.use),
    nowBytes: rows.map((r) => r.now),
    peakBytes: rows.map((r) => r.peak),
    plainFineTuningBytes: rows.map((r) => (Number.isFinite(r.plain) ? r.plain : null)),
    timesLess: rows.map(ratio),
  } as never);
}

/** What the encodings did to the values in a measured step, one row per kept activation, in percent. @param options `step`: a measured one; default the last of them */
export function encodingErrorsTable(run: Run, options: { readonly step?: number } = {}): ColumnTable {
  const rows = measuredErrors(run, options.step);
  return table({
    layer: rows.map((r) => shortLayerName(r.module)),
    keeps: rows.map((r) => r.what),
    encoding: rows.map((r) => r.encoding),
    clippedPercent: rows.map((r) => 100 * r.clipped),
    lostToZeroPercent: rows.map((r) => 100 * r.zeroed),
    relativeErrorPercent: rows.map((r) => 100 * r.relativeError),
  });
}

/** How much a layer trained: in every step, in none, or in some. */
function extent(times: number, steps: number): 'always' | 'never' | 'sometimes' {
  return times === 0 ? 'never' : times === steps ? 'always' : 'sometimes';
}

/**
 * Which layers train in every step or in none, and why (SLIMFIT-SPEC §6); stuck ones first. Under inter-layer scheduling a layer that trained while the learning rate was 0 has magnitude
 * 0 and is frozen for ever; one that holds a weight of exactly 0 has an infinite or undefined magnitude and trains for ever.
 */
export function healthTable(run: Run): ColumnTable {
  const history = historyOf(run);
  const steps = history.length;
  const overruled = history.freezableLayers.map(() => 0);
  for (let i = 0; i < steps; i++) history.overruledIn(i).forEach((yes, l) => (overruled[l] += yes));
  const rows = history.freezableLayers
    .map((l) => {
      const { times } = history.trainingOf(l.index);
      return { layer: l, times, trains: extent(times, steps), why: reason(history, l.index, overruled[l.index]) };
    })
    .sort((a, b) => Number(b.why !== '') - Number(a.why !== '') || b.times - a.times);
  return table({
    layer: rows.map((r) => shortLayerName(r.layer.name)),
    kind: rows.map((r) => r.layer.kind as string),
    trains: rows.map((r) => r.trains),
    timesTrained: rows.map((r) => r.times),
    percent: rows.map((r) => (100 * r.times) / steps),
    why: rows.map((r) => r.why),
  });
}

/** Why a layer always trains, never does, or never will again; '' for one that takes its turns. */
function reason(history: History, layer: number, overruled: number): string {
  const steps = history.length;
  const { times, last } = history.trainingOf(layer);
  const magnitude = history.magnitudesAfter(steps - 1)[layer];
  if (overruled === steps) return times > 0 ? 'the user trains it (thaw)' : 'the user freezes it (freeze)';
  if (times > 0 && !Number.isFinite(magnitude)) return `its update magnitude is ${magnitude}: it holds a weight of exactly 0, so it always trains`;
  if (times > 0 && times < steps && magnitude === 0) {
    const at = Array.from(history.column('step')).indexOf(last);
    return history.column('learningRate')[at] === 0 ? `it trained while the learning rate was 0 (step ${last}), so its magnitude is 0 and it stays frozen` : 'its weights did not move when it trained, so it stays frozen';
  }
  const frozen = history.column('frozenLayers')[steps - 1];
  if (times === steps && steps > 1) return frozen === 0 ? 'nothing is frozen' : 'the policy trained it in every step';
  if (times === 0) {
    const perStep = history.freezableLayers.length - frozen;
    // Only inter-layer scheduling sweeps: it gives a layer that has not trained yet a magnitude, its initial draw.
    if (Number.isNaN(magnitude)) return 'the policy has frozen it in every step';
    return steps * perStep < history.freezableLayers.length ? 'the first sweep has not reached it yet' : 'its turn has not come';
  }
  return '';
}
