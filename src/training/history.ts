/**
 * The history of a run, column by column: what every step did, to every layer. Typed arrays that double when full, so that recording a step costs
 * microseconds and a long run little memory. All tables and figures read from here, so a history loaded from disk shows the same as the run itself.
 */
import { type ColumnTable, table } from 'arquero';
import { CATEGORIES, type Category } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import type { FreezableLayer } from '../freezing/layer';
import { cut, shown } from '../shown';
import type { CoursePoint } from '../tape/roles';
import { type Column, bytes, Dictionary, floats, ints, type ColumnValues, storeColumn, type StoredColumn, storedValues } from './columns';
import type { StepRecord } from './stepRecord';

const STEP_FIELDS = [
  'step',
  'epoch',
  'loss',
  'learningRate',
  'trainedLayers',
  'frozenLayers',
  'activationBytes',
  'fullActivationBytes',
  'totalPeakBytes',
  'heldBytes',
  'milliseconds',
  'dataMilliseconds',
  'examples',
  'tokens',
] as const;
/** A number that is recorded of every step. */
export type StepField = (typeof STEP_FIELDS)[number];

/** Steps of which the course of memory is remembered: the latest ones. */
const COURSES = 100;

/** Bits of what is noted of a layer in a step. */
const TRAINED = 1;
const OVERRULED = 2;

/** A history without its columns, as plain data. */
export interface HistoryHead {
  readonly format: 'slimfit-history';
  readonly version: 1;
  readonly name: string;
  readonly layers: readonly FreezableLayer[];
  readonly words: Readonly<Record<string, readonly string[]>>;
  readonly courses: readonly { readonly step: number; readonly course: readonly CoursePoint[] }[];
  /** Metrics as texts, which keep NaN and infinities. */
  readonly evaluations: readonly { readonly step: number; readonly metrics: Readonly<Record<string, string>> }[];
}

/** A history as plain data. */
export interface StoredHistory extends HistoryHead {
  readonly columns: Readonly<Record<string, StoredColumn>>;
}

/** A history in two: what a JSON file holds well, and numbers. */
export interface HistoryParts {
  readonly head: HistoryHead;
  readonly columns: ReadonlyMap<string, ColumnValues>;
}

/** Everything that was recorded of a run. */
export class History {
  private readonly scalars = Object.fromEntries(STEP_FIELDS.map((f) => [f, floats()])) as Record<StepField, Column<Float64Array>>;
  private readonly live = Object.fromEntries(CATEGORIES.map((c) => [c, floats()])) as Record<Category, Column<Float64Array>>;
  private readonly peak = Object.fromEntries(CATEGORIES.map((c) => [c, floats()])) as Record<Category, Column<Float64Array>>;
  /** [steps × layers], row-major. */
  private readonly perLayer = { noted: bytes(), magnitude: floats(), bytes: floats(), saves: floats() };
  /** Kept activations, one row per step, module, role and encoding. */
  private readonly kept = { step: ints(), module: ints(), role: ints(), encoding: ints(), bytes: floats() };
  /** What plain fine-tuning would have kept: one row per step and part. */
  private readonly full = { step: ints(), part: ints(), bytes: floats() };
  /** What encodings did to values, in the steps in which it was measured. */
  private readonly errors = { step: ints(), module: ints(), what: ints(), encoding: ints(), clipped: floats(), zeroed: floats(), relativeError: floats() };
  private readonly words = { module: new Dictionary(), role: new Dictionary(), encoding: new Dictionary(), what: new Dictionary(), part: new Dictionary() };
  private readonly timesTrained: number[];
  private readonly lastTrained: number[];
  private courses: { readonly step: number; readonly course: readonly CoursePoint[] }[] = [];
  private evaluated: { readonly step: number; readonly metrics: Readonly<Record<string, number>> }[] = [];

  /** @param name of the run, for figures that compare runs */
  constructor(
    readonly freezableLayers: readonly FreezableLayer[],
    readonly name = 'run',
  ) {
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
    if (record.updateMagnitudes.length !== n || record.freezingSaves.length !== n)
      throw new InvalidArgumentError(`a record of ${record.updateMagnitudes.length} layers in a history of ${n}`);
    const { step } = record;
    const row: Record<StepField, number> = {
      step,
      epoch: record.epoch,
      loss: record.loss,
      learningRate: record.learningRate,
      trainedLayers: record.active.length,
      frozenLayers: record.frozen.length,
      activationBytes: record.activationBytes,
      fullActivationBytes: record.fullActivations?.total ?? NaN,
      totalPeakBytes: record.memory.totalPeak,
      heldBytes: record.memory.held?.bytes ?? NaN,
      milliseconds: record.milliseconds,
      dataMilliseconds: record.dataMilliseconds,
      examples: record.examples,
      tokens: record.tokens,
    };
    for (const f of STEP_FIELDS) this.scalars[f].push(row[f]);
    for (const c of CATEGORIES) {
      this.live[c].push(record.memory.live[c]);
      this.peak[c].push(record.memory.peak[c]);
    }
    const byModule = this.appendActivations(record);
    const overruled = new Set(record.overruled);
    const active = new Set(record.active);
    for (const { index, name } of this.freezableLayers) {
      const trains = active.has(index);
      this.perLayer.noted.push((trains ? TRAINED : 0) | (overruled.has(index) ? OVERRULED : 0));
      this.perLayer.magnitude.push(record.updateMagnitudes[index]);
      this.perLayer.bytes.push(byModule.get(moduleOf(name)) ?? 0);
      this.perLayer.saves.push(record.freezingSaves[index]);
      if (trains) {
        this.timesTrained[index]++;
        this.lastTrained[index] = step;
      }
    }
    for (const [part, size] of Object.entries(record.fullActivations?.parts ?? {})) {
      this.full.step.push(step);
      this.full.part.push(this.words.part.code(part));
      this.full.bytes.push(size);
    }
    for (const e of record.encodingErrors) {
      this.errors.step.push(step);
      this.errors.module.push(this.words.module.code(e.layer));
      this.errors.what.push(this.words.what.code(e.what));
      this.errors.encoding.push(this.words.encoding.code(e.encoding));
      for (const k of ['clipped', 'zeroed', 'relativeError'] as const) this.errors[k].push(e[k]);
    }
    if (record.course.length > 0) this.courses.push({ step, course: record.course });
    if (this.courses.length > COURSES) this.courses.shift();
  }

  /** @returns bytes by module */
  private appendActivations(record: StepRecord): Map<string, number> {
    const byModule = new Map<string, number>();
    const groups = new Map<string, { module: string; role: string; encoding: string; bytes: number }>();
    for (const e of record.activations) {
      byModule.set(e.layer, (byModule.get(e.layer) ?? 0) + e.bytes);
      const key = `${e.layer}|${e.role}|${e.encoding}`;
      const group = groups.get(key);
      if (group) group.bytes += e.bytes;
      else groups.set(key, { module: e.layer, role: e.role, encoding: e.encoding, bytes: e.bytes });
    }
    for (const g of groups.values()) {
      this.kept.step.push(record.step);
      for (const k of ['module', 'role', 'encoding'] as const) this.kept[k].push(this.words[k].code(g[k]));
      this.kept.bytes.push(g.bytes);
    }
    return byModule;
  }

  /** Notes metrics measured after a number of steps. */
  addEvaluation(step: number, metrics: Readonly<Record<string, number>>): void {
    this.evaluated.push({ step, metrics: { ...metrics } });
  }

  /** The metrics that were last measured after so many steps; undefined when none were. */
  metricsAt(step: number): Readonly<Record<string, number>> | undefined {
    return this.evaluated.findLast((e) => e.step === step)?.metrics;
  }

  /** Forgets the steps from the n-th recorded one on, and evaluations made after more than `step` steps. */
  truncate(n: number, step: number): void {
    const layers = this.freezableLayers.length;
    const gone = this.scalars.step.values[n] ?? Infinity;
    for (const [name, column] of this.columns()) if (/^(step|live|peak)\./.test(name)) column.truncate(n);
    for (const column of Object.values(this.perLayer)) column.truncate(n * layers);
    for (const group of [this.kept, this.full, this.errors]) {
      const rows = group.step.values.findIndex((s) => s >= gone);
      if (rows >= 0) for (const column of Object.values(group)) column.truncate(rows);
    }
    this.courses = this.courses.filter((c) => c.step < gone);
    this.evaluated = this.evaluated.filter((e) => e.step <= step);
    this.countTraining();
  }

  private countTraining(): void {
    this.timesTrained.fill(0);
    this.lastTrained.fill(-1);
    for (let i = 0; i < this.length; i++)
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
    return this.rowOf(this.perLayer.noted, i).map((noted) => noted & TRAINED);
  }

  /** Whether the user decided about each layer in the i-th recorded step (`freeze`, `thaw`), not the policy. */
  overruledIn(i: number): Uint8Array {
    return this.rowOf(this.perLayer.noted, i).map((noted) => (noted & OVERRULED) / OVERRULED);
  }

  /** Update magnitude of each layer after the i-th recorded step. */
  magnitudesAfter(i: number): Float64Array {
    return this.rowOf(this.perLayer.magnitude, i);
  }

  /** Bytes that freezing each layer saved in the i-th recorded step (if it trained: would have saved). NaN: not known. */
  freezingSavesIn(i: number): Float64Array {
    return this.rowOf(this.perLayer.saves, i);
  }

  private rowOf<A extends Float64Array | Uint8Array>(column: Column<A>, i: number): A {
    const n = this.freezableLayers.length;
    return column.values.subarray(i * n, (i + 1) * n) as A;
  }

  /** One number of every step. `heldBytes` is what the engine held of the device at the end of the step, buffers that wait for tensors included; NaN where it keeps none. */
  column(field: StepField): Float64Array {
    return this.scalars[field].values;
  }

  /** Bytes of one category in every step: alive at its end, or at most within it. */
  memory(category: Category, when: 'end' | 'peak'): Float64Array {
    return (when === 'end' ? this.live : this.peak)[category].values;
  }

  /** Memory over the course of a step, forward and backward; undefined when it is not remembered. The latest 100 steps are. @param step number of the step; default the last */
  course(step = this.courses.at(-1)?.step): readonly CoursePoint[] | undefined {
    return this.courses.find((c) => c.step === step)?.course;
  }

  /** Steps whose course is remembered. */
  get courseSteps(): readonly number[] {
    return this.courses.map((c) => c.step);
  }

  /** One row per step: loss, rates, counts of layers, bytes by category (alive at the end, and at most), milliseconds; `heldBytes` where the engine keeps buffers for tensors to come. */
  steps(): ColumnTable {
    const columns: Record<string, ArrayLike<number>> = {};
    for (const f of STEP_FIELDS) if (f !== 'heldBytes' || this.column(f).some(Number.isFinite)) columns[f] = this.scalars[f].values.slice();
    columns.tokensPerSecond = this.scalars.tokens.values.map((tokens, i) => (1000 * tokens) / this.scalars.milliseconds.get(i));
    for (const c of CATEGORIES) columns[`${c}Bytes`] = this.live[c].values.slice();
    for (const c of CATEGORIES) columns[`${c}PeakBytes`] = this.peak[c].values.slice();
    return table(columns as never);
  }

  /**
   * One row per step and freezable layer. `activationBytes` is what the layer itself keeps; `freezingSavesBytes` what freezing it saves, the others being as they are: saved if it was
   * frozen, spent if it trained.
   */
  layers(): ColumnTable {
    const { freezableLayers: all, length: steps, perLayer } = this;
    const repeat = <T>(of: (layer: FreezableLayer) => T): T[] => Array.from({ length: steps * all.length }, (_, i) => of(all[i % all.length]));
    return table({
      step: Array.from({ length: steps * all.length }, (_, i) => this.scalars.step.get(Math.floor(i / all.length))),
      layer: repeat((l) => l.index),
      name: repeat((l) => l.name),
      kind: repeat((l) => l.kind as string),
      trained: Array.from(perLayer.noted.values, (v) => (v & TRAINED) !== 0),
      overruled: Array.from(perLayer.noted.values, (v) => (v & OVERRULED) !== 0),
      updateMagnitude: perLayer.magnitude.values.slice(),
      activationBytes: perLayer.bytes.values.slice(),
      freezingSavesBytes: perLayer.saves.values.slice(),
    } as never);
  }

  /** Kept activations: one row per step, module, role and encoding. */
  activations(): ColumnTable {
    const { step, bytes: size } = this.kept;
    return table({ step: step.values.slice(), ...this.spell(this.kept, 'module', 'role', 'encoding'), bytes: size.values.slice() } as never);
  }

  /** What plain fine-tuning would have kept: one row per step and part of the model. Empty where the model has no formula. */
  fullActivations(): ColumnTable {
    return table({ step: this.full.step.values.slice(), ...this.spell(this.full, 'part'), bytes: this.full.bytes.values.slice() } as never);
  }

  /** What the encodings did to the values: one row per measured step and kept activation; shares in [0, 1]. */
  encodingErrors(): ColumnTable {
    const { step, clipped, zeroed, relativeError } = this.errors;
    return table({
      step: step.values.slice(),
      ...this.spell(this.errors, 'module', 'what', 'encoding'),
      clipped: clipped.values.slice(),
      zeroed: zeroed.values.slice(),
      relativeError: relativeError.values.slice(),
    } as never);
  }

  /** One row per evaluation and metric. */
  evaluations(): ColumnTable {
    const rows = this.evaluated.flatMap(({ step, metrics }) => Object.entries(metrics).map(([metric, value]) => ({ step, metric, value })));
    return table({ step: rows.map((r) => r.step), metric: rows.map((r) => r.metric), value: rows.map((r) => r.value) });
  }

  private spell<K extends 'module' | 'role' | 'encoding' | 'what' | 'part'>(group: Readonly<Record<K, Column<Int32Array>>>, ...names: readonly K[]): Record<string, string[]> {
    return Object.fromEntries(names.map((k) => [k, Array.from(group[k].values, (code) => this.words[k].words[code])]));
  }

  /** All columns by the names under which they are stored. */
  private columns(): [string, Column<Float64Array | Int32Array | Uint8Array>][] {
    const groups = { step: this.scalars, live: this.live, peak: this.peak, layer: this.perLayer, kept: this.kept, full: this.full, errors: this.errors };
    return Object.entries(groups).flatMap(([group, columns]) => Object.entries(columns).map(([k, c]) => [`${group}.${k}`, c as Column<Float64Array>] as [string, Column<Float64Array>]));
  }

  /** Everything in two parts; the columns are views of what is recorded now. */
  parts(): HistoryParts {
    const head: HistoryHead = {
      format: 'slimfit-history',
      version: 1,
      name: this.name,
      layers: this.freezableLayers,
      words: Object.fromEntries(Object.entries(this.words).map(([k, d]) => [k, d.words])),
      courses: this.courses,
      // Text keeps NaN, infinities and −0.
      evaluations: this.evaluated.map(({ step, metrics }) => ({ step, metrics: Object.fromEntries(Object.entries(metrics).map(([k, v]) => [k, Object.is(v, -0) ? '-0' : String(v)])) })),
    };
    return { head, columns: new Map(this.columns().map(([name, column]) => [name, column.values])) };
  }

  /** Everything as plain data, for a file. */
  toJSON(): StoredHistory {
    const { head, columns } = this.parts();
    return { ...head, columns: Object.fromEntries([...columns].map(([name, values]) => [name, storeColumn(values)])) };
  }

  /** The history that was stored. @throws InvalidArgumentError for data of another kind, or damaged */
  static fromJSON(stored: StoredHistory): History {
    checkHead(stored);
    if (!isObject(stored.columns)) throw new InvalidArgumentError(`this history is damaged: its columns are ${shown(stored.columns)}`);
    return History.fromParts({ head: stored, columns: new Map(Object.entries(stored.columns).map(([name, column]) => [name, storedValues(column)])) });
  }

  /** The same from two parts. @throws InvalidArgumentError for data of another kind, or damaged */
  static fromParts(parts: HistoryParts): History {
    checkHead(parts.head);
    const { head } = parts;
    // Only what belongs there: whatever else the file holds would be written again.
    const layers = head.layers.map(({ index, name, kind, shape, parameters }): FreezableLayer => ({ index, name, kind, shape, parameters }));
    const history = new History(layers, head.name);
    history.take(parts);
    return history;
  }

  /** Goes on where a history of the same layers ended; only an empty one can. @throws InvalidArgumentError for other layers, or damaged data */
  resume(parts: HistoryParts): void {
    if (this.length > 0) throw new InvalidArgumentError(`a history of ${this.length} steps cannot take up another one`);
    // What is damaged is found before this one takes anything of it.
    History.fromParts(parts);
    const names = (layers: readonly FreezableLayer[]) => layers.map((l) => l.name).join();
    if (names(parts.head.layers) !== names(this.freezableLayers)) throw new InvalidArgumentError(`a history of ${parts.head.layers.length} layers in a run of ${this.freezableLayers.length}, or of others`);
    this.take(parts);
  }

  private take({ head, columns }: HistoryParts): void {
    for (const [kind, dictionary] of Object.entries(this.words)) for (const word of head.words[kind] ?? []) dictionary.code(word);
    for (const [name, column] of this.columns()) {
      // Older histories do not have what engines hold.
      const values = columns.get(name) ?? (name === 'step.heldBytes' ? columns.get('step.step')?.map(() => NaN) : undefined);
      if (!values) throw new InvalidArgumentError(`this history lacks the column ${name}`);
      column.fill(values);
    }
    this.checkLengths();
    this.courses = head.courses.map(({ step, course }) => ({ step, course: course.map(({ phase, layer, activationBytes, deviceBytes }) => ({ phase, layer, activationBytes, deviceBytes })) }));
    this.evaluated = head.evaluations.map(({ step, metrics }) => ({ step, metrics: Object.fromEntries(Object.entries(metrics).map(([k, v]) => [k, Number(v)])) }));
    this.countTraining();
  }

  private checkLengths(): void {
    const steps = this.length;
    const wanted: Record<string, number> = { step: steps, live: steps, peak: steps, layer: steps * this.freezableLayers.length, kept: this.kept.step.length, full: this.full.step.length, errors: this.errors.step.length };
    for (const [name, column] of this.columns()) {
      const want = wanted[name.slice(0, name.indexOf('.'))];
      if (column.length !== want) throw new InvalidArgumentError(`this history is damaged: column ${name} has ${column.length} values, not ${want}`);
    }
    const coded = [['module', this.kept.module], ['role', this.kept.role], ['encoding', this.kept.encoding], ['part', this.full.part], ['module', this.errors.module], ['what', this.errors.what], ['encoding', this.errors.encoding]] as const;
    for (const [kind, column] of coded) {
      const known = this.words[kind].words.length;
      if (column.values.some((code) => code < 0 || code >= known)) throw new InvalidArgumentError(`this history is damaged: a ${kind} has no name`);
    }
  }
}

const isObject = (v: unknown): v is Readonly<Record<string, unknown>> => typeof v === 'object' && v !== null && !Array.isArray(v);

/** Looks at all of a head, which may come from a file. @throws InvalidArgumentError naming the field */
export function checkHead(head: HistoryHead): void {
  if (!isObject(head) || head.format !== 'slimfit-history') throw new InvalidArgumentError('this is no history of SlimFit');
  if (head.version !== 1) throw new InvalidArgumentError(`this history has format version ${shown(head.version)}; this SlimFit reads version 1`);
  const { name, layers, words, courses, evaluations } = head as Readonly<Record<keyof HistoryHead, unknown>>;
  const check = (part: string, value: unknown, isRight: boolean): void => {
    if (!isRight) throw new InvalidArgumentError(`this history is damaged: its ${part} is ${shown(value)}`);
  };
  const isText = (v: unknown): boolean => typeof v === 'string';
  const isCount = (v: unknown): boolean => Number.isSafeInteger(v) && (v as number) >= 0;
  check('name', name, isText(name));
  const eachOf = (part: string, values: unknown, isRight: (v: Readonly<Record<string, unknown>>, i: number) => boolean): void => {
    if (!Array.isArray(values)) return check(part, values, false);
    values.forEach((v: unknown, i) => check(`${part}[${i}]`, v, isObject(v) && isRight(v, i)));
  };
  eachOf('layers', layers, (l, i) => l.index === i && isText(l.name) && KINDS.has(l.kind) && isCount(l.parameters) && Array.isArray(l.shape) && l.shape.every(isCount));
  check('words', words, isObject(words));
  for (const [kind, list] of Object.entries(words as object)) check(`words.${cut(kind)}`, list, Array.isArray(list) && list.every(isText) && new Set(list).size === list.length);
  eachOf('courses', courses, (c) => isCount(c.step) && Array.isArray(c.course) && c.course.every((p: unknown) => isObject(p) && PHASES.has(p.phase) && isText(p.layer) && typeof p.activationBytes === 'number' && typeof p.deviceBytes === 'number'));
  eachOf('evaluations', evaluations, (e) => isCount(e.step) && isObject(e.metrics) && Object.values(e.metrics).every(isText));
}

const KINDS: ReadonlySet<unknown> = new Set(['embedding', 'linear', 'layer-norm', 'patch-projection'] satisfies FreezableLayer['kind'][]);
const PHASES: ReadonlySet<unknown> = new Set(['forward', 'recompute', 'backward'] satisfies CoursePoint['phase'][]);

/** Module name of a weight: what the ledger calls the layer. */
export function moduleOf(weightName: string): string {
  return weightName.replace(/\.weight$/, '');
}
