/**
 * AdamW in the older Hugging Face form, parameter by parameter: each has its own step count, and decay follows the Adam step.
 * A weight's gradient is applied the moment it is complete, and its update magnitude comes out of the same step. Tables of which a step touches a few rows are updated by these (rowMoments.ts).
 */
import type { AdamWOptions, DeviceTensor, Engine, UpdateMagnitude } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import type { Parameter } from '../tape/parameter';
import { blockLength, decodeFirst, decodeSecond, encodeFirst, encodeSecond } from './eightBit';
import { growMoments, rowLayout, RowSlots, updateRows } from './rowMoments';

/** Numbers of the optimizer, and where its moments are. */
export interface AdamWSettings {
  /** Default 0.9. */
  readonly beta1?: number;
  /** Default 0.999. */
  readonly beta2?: number;
  /** Default 1e-6. */
  readonly eps?: number;
  /** Default 0.01. */
  readonly weightDecay?: number;
  /** Parameters whose name contains one of these do not decay. Default `['bias', 'LayerNorm.weight']`. */
  readonly noDecay?: readonly string[];
  /**
   * How moments are stored between steps (eightBit.ts). `8-bit`: 2 bytes and a bit of a weight instead of 8, for parameters of at least 4096 elements; the step itself is AdamW's, on float32 values. Costs a
   * random error of at most 9 % of a stored moment a step (more for a first moment below a 4,000th of its block's largest), right on average, and while a parameter is updated three float32 tensors of its size beside what the step itself takes. Default `float32`.
   */
  readonly moments?: 'float32' | '8-bit';
  /**
   * What happens to the moments of a parameter that does not train. `keep`: they stay on the device. `host`: they wait on the host, and come back when it trains again; training is the same to the bit, for a copy
   * each way (of use on a GPU: on a CPU the host's memory is the device's). `release`: they are forgotten with the step count, as if it had never trained, which **changes training**: each thaw starts with
   * Adam's bias-corrected first step. Default `keep`.
   */
  readonly idleMoments?: 'keep' | 'host' | 'release';
  /** Steps in which a parameter did not train before `idleMoments` acts on it. Default 0: they leave at the start of the first step in which it is frozen. */
  readonly idleAfter?: number;
}

interface State {
  /** On the device: m and v, or in 8 bits the codes and scales of m, then of v; empty before the first update, and while they are on the host. */
  tensors: DeviceTensor[];
  /** Of a table that is updated by rows: which have moments, and where. */
  slots: RowSlots | undefined;
  /** The same tensors on the host. */
  parked: readonly (Float32Array | Int32Array)[];
  step: number;
  /** Completed steps since the last one in which it trained. */
  idle: number;
}

/** One moment in 8-bit codes on the host: packed codes, int32 words, and the scale of each block. */
export interface CodedMomentValues {
  readonly codes: Int32Array;
  readonly scales: Float32Array;
}

/** State of one parameter on the host. */
export interface AdamWParameterSnapshot {
  readonly m: Float32Array | CodedMomentValues;
  readonly v: Float32Array | CodedMomentValues;
  readonly step: number;
  /** Completed steps since the last one in which it trained; counted only where idle moments leave. */
  readonly idle: number;
  /** Of a table that is updated by rows: those that have moments, in the order in which these stand in `m` and `v`. */
  readonly rows?: Int32Array;
}

/** Moments and step count of every parameter that has trained, on the host. */
export type AdamWSnapshot = ReadonlyMap<Parameter, AdamWParameterSnapshot>;

/** AdamW with state per parameter, made when a parameter first trains. Owns the moments: `dispose` frees them. */
export class AdamW {
  readonly settings: Required<AdamWSettings>;
  private readonly states = new Map<Parameter, State>();
  private begun = 0;

  /** @throws InvalidArgumentError naming the setting that cannot work */
  constructor(
    readonly engine: Engine,
    settings: AdamWSettings = {},
  ) {
    this.settings = {
      ...{ beta1: 0.9, beta2: 0.999, eps: 1e-6, weightDecay: 0.01, noDecay: ['bias', 'LayerNorm.weight'], moments: 'float32', idleMoments: 'keep', idleAfter: 0 },
      ...dropUndefined(settings),
    } as Required<AdamWSettings>;
    const { beta1, beta2, eps, weightDecay, moments, idleMoments, idleAfter } = this.settings;
    if (!(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1)) throw new InvalidArgumentError(`betas are ${beta1} and ${beta2}; each must lie in [0, 1)`);
    if (!(eps > 0)) throw new InvalidArgumentError(`eps is ${eps}; it must be positive`);
    if (!(weightDecay >= 0)) throw new InvalidArgumentError(`weightDecay is ${weightDecay}; it must not be negative`);
    if (!['float32', '8-bit'].includes(moments)) throw new InvalidArgumentError(`moments is '${moments}'; it must be float32 or 8-bit`);
    if (!['keep', 'host', 'release'].includes(idleMoments)) throw new InvalidArgumentError(`idleMoments is '${idleMoments}'; it must be keep, host or release`);
    if (!(Number.isSafeInteger(idleAfter) && idleAfter >= 0)) throw new InvalidArgumentError(`idleAfter is ${idleAfter}; it must be a whole number of steps, 0 or more`);
  }

  /** Decay of one parameter. */
  weightDecayOf(name: string): number {
    return this.settings.noDecay.some((part) => name.includes(part)) ? 0 : this.settings.weightDecay;
  }

  /** Updates begun so far, of all parameters: while it stays the same, no weight and no moment changed, whatever failed. */
  get updatesBegun(): number {
    return this.begun;
  }

  /** How often a parameter was updated, since its moments were last released. */
  stepCount(parameter: Parameter): number {
    return this.states.get(parameter)?.step ?? 0;
  }

  /**
   * One update of one parameter; of one that is marked with the rows that a step touches, of these rows, whose gradient is [n, H].
   * @param magnitude which update magnitude is wanted, if any
   * @returns it as a scalar tensor of the caller's
   */
  apply(parameter: Parameter, grad: DeviceTensor, lr: number, magnitude?: UpdateMagnitude): DeviceTensor | undefined {
    const { beta1, beta2, eps } = this.settings;
    const state = this.stateOf(parameter);
    if (state.step > 0 && (state.slots !== undefined) !== (parameter.touched !== undefined))
      throw new InvalidArgumentError(`${parameter.name} has the moments of ${state.slots ? 'some rows' : 'the whole table'}, but this gradient is of ${state.slots ? 'the whole table' : 'some rows'}: one optimizer does either`);
    const options = { lr, beta1, beta2, eps, weightDecay: this.weightDecayOf(parameter.name), step: state.step + 1, magnitude };
    const block = this.blockOf(parameter);
    try {
      const moved = parameter.touched ? this.stepByRows(parameter, state, grad, options) : block === undefined ? this.stepInFloat32(parameter, state, grad, options) : this.stepIn8Bits(parameter, state, grad, options, block);
      state.step++;
      return moved;
    } catch (error) {
      // Without moments it is as if it had never trained.
      if (state.tensors.length === 0) this.states.delete(parameter);
      throw error;
    }
  }

  private stepByRows(parameter: Parameter, state: State, grad: DeviceTensor, options: AdamWOptions): DeviceTensor | undefined {
    const { rows } = parameter.touched!;
    const layout = rowLayout(parameter, this.settings.moments);
    const slots = (state.slots ??= new RowSlots());
    growMoments(this.engine, state.tensors, slots.size + slots.missing(rows), layout);
    slots.add(rows);
    return updateRows(this.engine, { parameter, grad, moments: state.tensors, places: slots.placesOf(rows), layout, options, begin: () => void this.begun++ });
  }

  private stepInFloat32({ data: weight, shape }: Parameter, state: State, grad: DeviceTensor, options: AdamWOptions): DeviceTensor | undefined {
    if (state.tensors.length === 0) state.tensors = this.allOf([0, 0], (zero) => this.engine.full(shape, zero, 'optimizer'));
    const [m, v] = state.tensors;
    this.begun++;
    return this.engine.adamwStep({ weight, m, v }, grad, options);
  }

  /** The same step on the decoded moments, which are then coded again. */
  private stepIn8Bits({ data: weight, shape }: Parameter, state: State, grad: DeviceTensor, options: AdamWOptions, block: number): DeviceTensor | undefined {
    const { engine } = this;
    return engine.scope(() => {
      const old = state.tensors;
      const isFirst = old.length === 0;
      const m = isFirst ? engine.full(shape, 0) : decodeFirst(engine, { words: old[0], scales: old[1] }, shape);
      const v = isFirst ? engine.full(shape, 0) : decodeSecond(engine, { words: old[2], scales: old[3] }, shape);
      this.begun++;
      const moved = engine.adamwStep({ weight, m, v }, grad, options);
      // In this order at most three tensors of the parameter's size are alive at once.
      const second = encodeSecond(engine, v, block, options.step);
      const first = encodeFirst(engine, m, block, options.step);
      state.tensors = [first.words, first.scales, second.words, second.scales].map((t) => engine.share(t, 'optimizer'));
      engine.free(...old);
      return moved;
    });
  }

  /**
   * What the published code does to a frozen parameter under PyTorch 1.x (`zerograd`): one that once trained has a zero gradient, so its moments
   * decay, its count advances, and momentum and decay still move it. One that never trained is not touched.
   */
  applyZeroGradient(parameter: Parameter, lr: number): void {
    if (!this.states.has(parameter)) return;
    const zero = this.engine.full(parameter.shape, 0, 'gradients');
    try {
      this.apply(parameter, zero, lr);
    } finally {
      this.engine.free(zero);
    }
  }

  /** Parameters that have state, in the order in which they got it. */
  get parameters(): readonly Parameter[] {
    return [...this.states.keys()];
  }

  /** Copies the state of one parameter to the host; undefined when it has none. Plain data and typed arrays only, so that a checkpoint can hold it. */
  async snapshotOf(parameter: Parameter): Promise<AdamWParameterSnapshot | undefined> {
    const state = this.states.get(parameter);
    if (!state) return undefined;
    const { step, idle } = state;
    const rest = { step, idle, ...(state.slots && { rows: state.slots.rows }) };
    const [a, b, c, d] = await this.valuesOf(state);
    if (c === undefined) return { m: a as Float32Array, v: b as Float32Array, ...rest };
    return { m: { codes: a as Int32Array, scales: b as Float32Array }, v: { codes: c as Int32Array, scales: d as Float32Array }, ...rest };
  }

  /** Makes the state of one parameter what it was. @throws InvalidArgumentError, before anything is changed, when a moment is not of the kind and size that these settings give the parameter */
  restoreOf(parameter: Parameter, snapshot: AdamWParameterSnapshot): void {
    this.checkFits(parameter, snapshot);
    const { m, v, step, idle, rows } = snapshot;
    this.forget(parameter);
    const parked = [m, v].flatMap((x) => (x instanceof Float32Array ? [x] : [x.codes, x.scales]));
    this.states.set(parameter, { tensors: [], parked, step, idle, slots: rows && new RowSlots(rows) });
    // Where it was: what has been idle for no longer than idleAfter had not left the device.
    if (this.settings.idleMoments === 'keep' || idle <= this.settings.idleAfter) this.stateOf(parameter);
  }

  /** Looks whether a state could be restored. @throws InvalidArgumentError as `restoreOf` */
  checkFits(parameter: Parameter, { m, v, rows }: AdamWParameterSnapshot): void {
    const bad = rows?.find((row) => !(row >= 0 && row < parameter.shape[0]));
    if (rows && (rows.length === 0 || bad !== undefined || new Set(rows).size < rows.length))
      throw new InvalidArgumentError(`the moments of ${parameter.name} in this snapshot are of ${bad === undefined ? `${rows.length} rows, some of them twice or none at all` : `row ${bad}`}; it has rows 0 to ${parameter.shape[0] - 1}`);
    const { coded, shapes } = this.formOf(parameter, rows?.length);
    const parts = [m, v].map((x): readonly (Float32Array | Int32Array)[] => (x instanceof Float32Array ? [x] : [x.codes, x.scales]));
    const fits = parts.every((p) => p.length === (coded ? 2 : 1)) && parts.flat().every((x, i) => (coded && i % 2 === 0 ? x instanceof Int32Array : x instanceof Float32Array) && x.length === shapes[i].reduce((a, b) => a * b, 1));
    if (!fits) throw new InvalidArgumentError(`the moments of ${parameter.name} in this snapshot are not ${coded ? '8-bit' : 'float32'} ones of ${rows ? `${rows.length} rows` : `${parameter.size} elements`}: restore it into an optimizer of the same settings`);
  }

  /** Before a step, once it is known what trains (`Parameter.trains`): moments that are idle for long enough leave the device. What fails stays where it was. */
  async beginStep(): Promise<void> {
    const { idleMoments, idleAfter } = this.settings;
    if (idleMoments === 'keep') return;
    for (const [parameter, state] of this.states) {
      if (parameter.trains || state.idle < idleAfter || state.tensors.length === 0) continue;
      state.parked = await this.valuesOf(state);
      this.engine.free(...state.tensors);
      state.tensors = [];
    }
  }

  /** After a step that was applied: counts who did not train, and forgets what is to be released. Not called for a step that failed, which therefore forgets nothing. */
  endStep(): void {
    const { idleMoments, idleAfter } = this.settings;
    if (idleMoments === 'keep') return;
    for (const [parameter, state] of this.states) {
      state.idle = parameter.trains ? 0 : state.idle + 1;
      if (idleMoments === 'release' && state.idle > idleAfter) this.forget(parameter);
    }
  }

  /** Copies all state to the host. */
  async snapshot(): Promise<AdamWSnapshot> {
    const out = new Map<Parameter, AdamWParameterSnapshot>();
    for (const parameter of this.parameters) out.set(parameter, (await this.snapshotOf(parameter))!);
    return out;
  }

  /**
   * Makes the state what it was when the snapshot was taken, to the bit, moments that waited on the host included.
   * @throws InvalidArgumentError, before anything is changed, when a moment of it is not of the kind and size that these settings give the parameter
   */
  restore(snapshot: AdamWSnapshot): void {
    for (const [parameter, moments] of snapshot) this.checkFits(parameter, moments);
    for (const parameter of [...this.states.keys()]) if (!snapshot.has(parameter)) this.forget(parameter);
    for (const [parameter, moments] of snapshot) this.restoreOf(parameter, moments);
  }

  dispose(): void {
    for (const parameter of [...this.states.keys()]) this.forget(parameter);
  }

  private forget(parameter: Parameter): void {
    const state = this.states.get(parameter);
    if (!state) return;
    this.engine.free(...state.tensors);
    this.states.delete(parameter);
  }

  /** Shape of each tensor of a parameter's moments, m and v, or in 8 bits codes and scales of each. @param rows how many rows of a table have moments */
  private formOf(parameter: Parameter, rows: number | undefined): { readonly coded: boolean; readonly shapes: readonly (readonly number[])[] } {
    if (rows !== undefined) {
      const { block, columns } = rowLayout(parameter, this.settings.moments);
      return { coded: block !== undefined, shapes: columns.map(({ width }) => [rows, width]) };
    }
    const block = this.blockOf(parameter);
    const { shape, size } = parameter;
    if (block === undefined) return { coded: false, shapes: [shape, shape] };
    const coded = [[Math.ceil(size / 4)], [size / block, 1]];
    return { coded: true, shapes: [...coded, ...coded] };
  }

  /** Length of the blocks of a parameter's moments; undefined where they are float32. */
  private blockOf({ size }: Parameter): number | undefined {
    return this.settings.moments === '8-bit' ? blockLength(size) : undefined;
  }

  /** A parameter's moments on the host. */
  private async valuesOf({ tensors, parked, slots }: State): Promise<readonly (Float32Array | Int32Array)[]> {
    if (tensors.length === 0) return parked;
    const values = await Promise.all(tensors.map((t) => this.engine.read(t)));
    // Rows for which there was room when memory ran out have no moments yet.
    return slots ? values.map((x, i) => x.subarray(0, slots.size * tensors[i].shape[1])) : values;
  }

  /** A parameter's state, its moments on the device. */
  private stateOf(parameter: Parameter): State {
    let state = this.states.get(parameter);
    if (!state) this.states.set(parameter, (state = { tensors: [], parked: [], step: 0, idle: 0, slots: undefined }));
    if (state.parked.length > 0) {
      const { shapes } = this.formOf(parameter, state.slots?.size);
      state.tensors = this.allOf(state.parked, (values, i) => this.engine.upload(values, shapes[i], 'optimizer'));
      state.parked = [];
    }
    return state;
  }

  /** Tensors made one by one: all of them, or when one cannot be made, none. */
  private allOf<T>(values: readonly T[], make: (value: T, index: number) => DeviceTensor): DeviceTensor[] {
    const made: DeviceTensor[] = [];
    try {
      for (const [i, value] of values.entries()) made.push(make(value, i));
      return made;
    } catch (error) {
      this.engine.free(...made);
      throw error;
    }
  }
}

function dropUndefined<T extends object>(o: T): Partial<T> {
  return Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)) as Partial<T>;
}
