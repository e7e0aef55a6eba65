/**
 * The history of a run, column by column: what every step did, to every layer. Typed arrays that double when full, so that recording a step costs
 * microseconds and a long run little memory. All tables and figures read from here.
 */
import { type ColumnTable, table } from 'arquero';
import { CATEGORIES } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import type { FreezableLayer } from '../freezing/layer';
import type { StepRecord } from './stepRecord';

type Numbers = Float64Array | Int32Array | Uint8Array;

/** A typed array that grows. */
class Column<A extends Numbers> {
  length = 0;
  private data: A;
  constructor(private readonly make: (n: number) => A) {
    this.data = make(64);
  }
  push(value: number): void {
    if (this.length === this.data.length) {
      const bigger = this.make(2 * this.length);
      bigger.set(this.data);
      this.data = bigger;
    }
    this.data[this.length++] = value;
  }
  get(i: number): number {
    return this.data[i];
  }
  /** Forgets all values from the n-th on. */
  truncate(n: number): void {
    this.length = Math.min(this.length, n);
  }
  /** The values so far, a view. */
  get values(): A {
    return this.data.subarray(0, this.length) as A;
  }
}

const floats = () => new Column((n) => new Float64Array(n));
const ints = () => new Column((n) => new Int32Array(n));
const bytes = () => new Column((n) => new Uint8Array(n));

/** Strings stored once, as numbers. */
class Dictionary {
  readonly words: string[] = [];
  private readonly index = new Map<string, number>();
  code(word: string): number {
    let i = this.index.get(word);
    if (i === undefined) {
      i = this.words.push(word) - 1;
      this.index.set(word, i);
    }
    return i;
  }
}

const STEP_FIELDS = ['step', 'epoch', 'loss', 'learningRate', 'trainedLayers', 'frozenLayers', 'activationBytes', 'totalPeakBytes', 'milliseconds', 'examples', 'tokens'] as const;
type StepField = (typeof STEP_FIELDS)[number];

/** Everything that was recorded of a run. */
export class History {
  private readonly scalars: Record<StepField, Column<Float64Array>>;
  private readonly live = Object.fromEntries(CATEGORIES.map((c) => [c, floats()]));
  private readonly peak = Object.fromEntries(CATEGORIES.map((c) => [c, floats()]));
  /** [steps × layers], row-major. */
  private readonly trained = bytes();
  private readonly magnitudes = floats();
  private readonly layerBytes = floats();
  /** Kept activations, one row per step, module, role and encoding. */
  private readonly kept = { step: ints(), module: ints(), role: ints(), encoding: ints(), bytes: floats() };
  private readonly names = { module: new Dictionary(), role: new Dictionary(), encoding: new Dictionary() };
  private readonly timesTrained: number[];
  private readonly lastTrained: number[];
  private readonly evaluated: { step: number; metrics: Readonly<Record<string, number>> }[] = [];

  constructor(readonly freezableLayers: readonly FreezableLayer[]) {
    this.scalars = Object.fromEntries(STEP_FIELDS.map((f) => [f, floats()])) as Record<StepField, Column<Float64Array>>;
    this.timesTrained = freezableLayers.map(() => 0);
    this.lastTrained = freezableLayers.map(() => -1);
  }

  /** Number of recorded steps. */
  get length(): number {
    return this.scalars.step.length;
  }

  /** Adds the record of one step. @throws InvalidArgumentError when it is of other layers; nothing is added then */
  append(record: StepRecord): void {
    const n = this.freezableLayers.length;
    if (record.updateMagnitudes.length !== n) throw new InvalidArgumentError(`a record of ${record.updateMagnitudes.length} layers in a history of ${n}`);
    const row: Record<StepField, number> = {
      step: record.step,
      epoch: record.epoch,
      loss: record.loss,
      learningRate: record.learningRate,
      trainedLayers: record.active.length,
      frozenLayers: record.frozen.length,
      activationBytes: record.activationBytes,
      totalPeakBytes: record.memory.totalPeak,
      milliseconds: record.milliseconds,
      examples: record.examples,
      tokens: record.tokens,
    };
    for (const f of STEP_FIELDS) this.scalars[f].push(row[f]);
    for (const c of CATEGORIES) {
      this.live[c].push(record.memory.live[c]);
      this.peak[c].push(record.memory.peak[c]);
    }
    const active = new Set(record.active);
    const byModule = new Map<string, number>();
    const groups = new Map<string, { module: string; role: string; encoding: string; bytes: number }>();
    for (const e of record.activations) {
      byModule.set(e.layer, (byModule.get(e.layer) ?? 0) + e.bytes);
      const key = `${e.layer}|${e.role}|${e.encoding}`;
      const group = groups.get(key);
      if (group) group.bytes += e.bytes;
      else groups.set(key, { module: e.layer, role: e.role, encoding: e.encoding, bytes: e.bytes });
    }
    for (const layer of this.freezableLayers) {
      const trains = active.has(layer.index);
      this.trained.push(trains ? 1 : 0);
      this.magnitudes.push(record.updateMagnitudes[layer.index]);
      this.layerBytes.push(byModule.get(moduleOf(layer.name)) ?? 0);
      if (trains) {
        this.timesTrained[layer.index]++;
        this.lastTrained[layer.index] = record.step;
      }
    }
    for (const g of groups.values()) {
      this.kept.step.push(record.step);
      for (const k of ['module', 'role', 'encoding'] as const) this.kept[k].push(this.names[k].code(g[k]));
      this.kept.bytes.push(g.bytes);
    }
  }

  /** Notes metrics measured after a number of steps. */
  addEvaluation(step: number, metrics: Readonly<Record<string, number>>): void {
    this.evaluated.push({ step, metrics: { ...metrics } });
  }

  /** Forgets the steps from the n-th recorded one on, and evaluations made after more than `step` steps. */
  truncate(n: number, step: number): void {
    const layers = this.freezableLayers.length;
    const gone = this.scalars.step.values[n] ?? Infinity;
    for (const f of STEP_FIELDS) this.scalars[f].truncate(n);
    for (const c of CATEGORIES) {
      this.live[c].truncate(n);
      this.peak[c].truncate(n);
    }
    for (const column of [this.trained, this.magnitudes, this.layerBytes]) column.truncate(n * layers);
    const keptRows = this.kept.step.values.findIndex((s) => s >= gone);
    if (keptRows >= 0) for (const column of Object.values(this.kept)) column.truncate(keptRows);
    this.evaluated.splice(0, this.evaluated.length, ...this.evaluated.filter((e) => e.step <= step));
    for (let l = 0; l < layers; l++) {
      this.timesTrained[l] = 0;
      this.lastTrained[l] = -1;
    }
    for (let i = 0; i < n; i++)
      this.trainedIn(i).forEach((trains, l) => {
        if (!trains) return;
        this.timesTrained[l]++;
        this.lastTrained[l] = this.scalars.step.get(i);
      });
  }

  /** How often a layer trained, and in which step last (−1: never). */
  trainingOf(layer: number): { times: number; last: number } {
    return { times: this.timesTrained[layer], last: this.lastTrained[layer] };
  }

  /** Whether each layer trained in the i-th recorded step. */
  trainedIn(i: number): Uint8Array {
    const n = this.freezableLayers.length;
    return this.trained.values.subarray(i * n, (i + 1) * n);
  }

  /** Update magnitude of each layer after the i-th recorded step. */
  magnitudesAfter(i: number): Float64Array {
    const n = this.freezableLayers.length;
    return this.magnitudes.values.subarray(i * n, (i + 1) * n);
  }

  /** One number of every step. */
  column(field: StepField): Float64Array {
    return this.scalars[field].values;
  }

  /** One row per step: loss, rates, counts of layers, bytes by category, milliseconds. */
  steps(): ColumnTable {
    const columns: Record<string, ArrayLike<number>> = {};
    for (const f of STEP_FIELDS) columns[f] = this.scalars[f].values.slice();
    for (const c of CATEGORIES) columns[`${c}Bytes`] = this.live[c].values.slice();
    for (const c of CATEGORIES) columns[`${c}PeakBytes`] = this.peak[c].values.slice();
    return table(columns as never);
  }

  /** One row per step and freezable layer. `activationBytes` is what the layer itself keeps. */
  layers(): ColumnTable {
    const { freezableLayers: all, length: steps } = this;
    const repeat = <T>(of: (layer: FreezableLayer) => T): T[] => Array.from({ length: steps * all.length }, (_, i) => of(all[i % all.length]));
    return table({
      step: Array.from({ length: steps * all.length }, (_, i) => this.scalars.step.get(Math.floor(i / all.length))),
      layer: repeat((l) => l.index),
      name: repeat((l) => l.name),
      kind: repeat((l) => l.kind as string),
      trained: Array.from(this.trained.values, (v) => v === 1),
      updateMagnitude: this.magnitudes.values.slice(),
      activationBytes: this.layerBytes.values.slice(),
    } as never);
  }

  /** Kept activations: one row per step, module, role and encoding. */
  activations(): ColumnTable {
    const words = (k: 'module' | 'role' | 'encoding') => Array.from(this.kept[k].values, (code) => this.names[k].words[code]);
    return table({ step: this.kept.step.values.slice(), module: words('module'), role: words('role'), encoding: words('encoding'), bytes: this.kept.bytes.values.slice() } as never);
  }

  /** One row per evaluation and metric. */
  evaluations(): ColumnTable {
    const rows = this.evaluated.flatMap(({ step, metrics }) => Object.entries(metrics).map(([metric, value]) => ({ step, metric, value })));
    return table({ step: rows.map((r) => r.step), metric: rows.map((r) => r.metric), value: rows.map((r) => r.value) });
  }
}

/** Module name of a weight: what the ledger calls the layer. */
export function moduleOf(weightName: string): string {
  return weightName.replace(/\.weight$/, '');
}
