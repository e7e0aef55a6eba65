/**
 * Inter-layer scheduling, the heart of SlimFit (paper §3.1, Algorithm 1): freeze the floor(F·n) layers whose weights moved least when they last
 * trained, d = mean(abs((W_before − W_after)/W_before)). The layers that train get a new d, the others keep theirs. Initial distances are large random numbers, so
 * that a first sweep of ceil(n / active) steps visits every layer once.
 */
import { InvalidArgumentError } from '../errors';
import { Random } from '../random';
import type { FreezableLayer } from './layer';
import type { FreezePolicy, PolicyState } from './policy';

/** Options of inter-layer scheduling. */
export interface IlsOptions {
  /** Share of the layers that is frozen in a step, F in [0, 1). */
  readonly freezeRate: number;
  /** Seeds the initial distances. */
  readonly seed: number;
  /** Initial distances are uniform in [0, this): 1e10 for BERT, 1e7 for CIFAR, 1e20 for ImageNet in the authors' code. Default 1e10. */
  readonly initialScale?: number;
  /** Initial distances themselves, one per layer; instead of drawing them. */
  readonly initialMagnitudes?: ArrayLike<number>;
}

/** @throws InvalidArgumentError unless 0 ≤ rate < 1. */
export function checkFreezeRate(rate: number): void {
  if (!(rate >= 0 && rate < 1))
    throw new InvalidArgumentError(`freezeRate is ${rate}; it must lie in [0, 1): 0 trains every layer, 0.9 freezes nine tenths of them`);
}

/** All layers from the smallest magnitude to the largest. Ties: lower index first. NaN counts as largest, so that layer trains. */
export function byMagnitude(magnitudes: ArrayLike<number>): number[] {
  const rank = (i: number) => (Number.isNaN(magnitudes[i]) ? 1 : 0);
  return Array.from({ length: magnitudes.length }, (_, i) => i).sort(
    (a, b) => rank(a) - rank(b) || (magnitudes[a] < magnitudes[b] ? -1 : magnitudes[a] > magnitudes[b] ? 1 : a - b),
  );
}

/**
 * The `count` layers of smallest magnitude, ascending by index. Ties: lower index first. NaN counts as largest, so that layer trains.
 */
export function selectFrozen(magnitudes: ArrayLike<number>, count: number): number[] {
  return byMagnitude(magnitudes).slice(0, count).sort((a, b) => a - b);
}

/** The paper's policy. */
export class InterLayerScheduling implements FreezePolicy {
  readonly name = 'ils';
  readonly freezeRate: number;
  readonly frozenCount: number;
  readonly label: string;
  private distances: Float64Array;

  constructor(layers: readonly FreezableLayer[], options: IlsOptions) {
    checkFreezeRate(options.freezeRate);
    this.freezeRate = options.freezeRate;
    this.label = `freeze rate ${options.freezeRate}`;
    this.frozenCount = Math.floor(options.freezeRate * layers.length);
    if (options.initialMagnitudes) {
      if (options.initialMagnitudes.length !== layers.length)
        throw new InvalidArgumentError(`${options.initialMagnitudes.length} initial magnitudes for ${layers.length} layers`);
      this.distances = Float64Array.from(options.initialMagnitudes);
    } else {
      const random = new Random(options.seed);
      const scale = options.initialScale ?? 1e10;
      this.distances = Float64Array.from(layers, () => random.uniform() * scale);
    }
  }

  get magnitudes(): Float64Array {
    return this.distances.slice();
  }

  select(): readonly number[] {
    return selectFrozen(this.distances, this.frozenCount);
  }

  observe(_step: number, magnitudes: ReadonlyMap<number, number>): void {
    for (const [layer, d] of magnitudes) this.distances[layer] = d;
  }

  state(): PolicyState {
    // Text keeps NaN and infinities, which JSON does not.
    return { magnitudes: Array.from(this.distances, String) };
  }

  restore(state: PolicyState): void {
    const { magnitudes } = state;
    if (!Array.isArray(magnitudes) || magnitudes.length !== this.distances.length)
      throw new InvalidArgumentError(`this policy state is not of inter-layer scheduling over ${this.distances.length} layers`);
    this.distances = Float64Array.from(magnitudes, Number);
  }
}
