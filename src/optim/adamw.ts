/**
 * AdamW in the older Hugging Face form, parameter by parameter: each has its own step count, and decay follows the Adam step.
 * A weight's gradient is applied the moment it is complete, and its update magnitude comes out of the same step.
 */
import type { DeviceTensor, Engine, UpdateMagnitude } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import type { Parameter } from '../tape/parameter';

/** Numbers of the optimizer. */
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
}

interface State {
  readonly m: DeviceTensor;
  readonly v: DeviceTensor;
  step: number;
}

/** State of one parameter on the host: moments and step count. Plain data and typed arrays only, so that a checkpoint can hold it. */
export interface AdamWParameterSnapshot {
  readonly m: Float32Array;
  readonly v: Float32Array;
  readonly step: number;
}

/** State of every parameter that has trained. */
export type AdamWSnapshot = ReadonlyMap<Parameter, AdamWParameterSnapshot>;

/** AdamW with state per parameter, made when a parameter first trains. Owns the moments: `dispose` frees them. */
export class AdamW {
  readonly settings: Required<AdamWSettings>;
  private readonly states = new Map<Parameter, State>();

  constructor(
    private readonly engine: Engine,
    settings: AdamWSettings = {},
  ) {
    this.settings = { beta1: 0.9, beta2: 0.999, eps: 1e-6, weightDecay: 0.01, noDecay: ['bias', 'LayerNorm.weight'], ...dropUndefined(settings) };
    const { beta1, beta2, eps, weightDecay } = this.settings;
    if (!(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1)) throw new InvalidArgumentError(`betas are ${beta1} and ${beta2}; each must lie in [0, 1)`);
    if (!(eps > 0)) throw new InvalidArgumentError(`eps is ${eps}; it must be positive`);
    if (!(weightDecay >= 0)) throw new InvalidArgumentError(`weightDecay is ${weightDecay}; it must not be negative`);
  }

  /** Decay of one parameter. */
  weightDecayOf(name: string): number {
    return this.settings.noDecay.some((part) => name.includes(part)) ? 0 : this.settings.weightDecay;
  }

  /** How often a parameter was updated. */
  stepCount(parameter: Parameter): number {
    return this.states.get(parameter)?.step ?? 0;
  }

  /**
   * One update of one parameter.
   * @param magnitude which update magnitude is wanted, if any
   * @returns it as a scalar tensor of the caller's
   */
  apply(parameter: Parameter, grad: DeviceTensor, lr: number, magnitude?: UpdateMagnitude): DeviceTensor | undefined {
    const { beta1, beta2, eps } = this.settings;
    const state = this.stateOf(parameter);
    const moved = this.engine.adamwStep({ weight: parameter.data, m: state.m, v: state.v }, grad, {
      lr,
      beta1,
      beta2,
      eps,
      weightDecay: this.weightDecayOf(parameter.name),
      step: state.step + 1,
      magnitude,
    });
    state.step++;
    return moved;
  }

  /**
   * What the published code does to a frozen parameter under PyTorch 1.x (`zerograd`): one that once trained has a zero gradient, so its moments
   * decay, its count advances, and momentum and decay still move it. One that never trained is not touched.
   */
  applyZeroGradient(parameter: Parameter, lr: number): void {
    if (!this.states.has(parameter)) return;
    const zero = this.engine.full(parameter.shape, 0, 'gradients');
    this.apply(parameter, zero, lr);
    this.engine.free(zero);
  }

  /** Parameters that have state, in the order in which they got it. */
  get parameters(): readonly Parameter[] {
    return [...this.states.keys()];
  }

  /** Copies the state of one parameter to the host; undefined when it has none. */
  async snapshotOf(parameter: Parameter): Promise<AdamWParameterSnapshot | undefined> {
    const state = this.states.get(parameter);
    return state && { m: (await this.engine.read(state.m)) as Float32Array, v: (await this.engine.read(state.v)) as Float32Array, step: state.step };
  }

  /** Makes the state of one parameter what it was. @throws ShapeError for moments of another size */
  restoreOf(parameter: Parameter, { m, v, step }: AdamWParameterSnapshot): void {
    const state = this.stateOf(parameter);
    this.engine.write(state.m, m);
    this.engine.write(state.v, v);
    state.step = step;
  }

  /** Copies all state to the host. */
  async snapshot(): Promise<AdamWSnapshot> {
    const out = new Map<Parameter, AdamWParameterSnapshot>();
    for (const parameter of this.parameters) out.set(parameter, (await this.snapshotOf(parameter))!);
    return out;
  }

  /** Makes the state what it was when the snapshot was taken. */
  restore(snapshot: AdamWSnapshot): void {
    for (const [parameter, { m, v }] of this.states) {
      if (snapshot.has(parameter)) continue;
      this.engine.free(m, v);
      this.states.delete(parameter);
    }
    for (const [parameter, moments] of snapshot) this.restoreOf(parameter, moments);
  }

  dispose(): void {
    for (const { m, v } of this.states.values()) this.engine.free(m, v);
    this.states.clear();
  }

  private stateOf(parameter: Parameter): State {
    let state = this.states.get(parameter);
    if (!state) {
      const zeros = () => this.engine.full(parameter.shape, 0, 'optimizer');
      state = { m: zeros(), v: zeros(), step: 0 };
      this.states.set(parameter, state);
    }
    return state;
  }
}

function dropUndefined<T extends object>(o: T): Partial<T> {
  return Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)) as Partial<T>;
}
