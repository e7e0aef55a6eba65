/**
 * Front to back by gradient change: AutoFreeze (Liu et al. 2021, arXiv 2102.01386, §3; rule as in the authors' code). The norm Δ of each encoder block's gradients is gathered over an interval of steps;
 * at its end η = |Δ_before − Δ|/Δ_before says how much it changed against the interval before. Of the blocks that train, those from the front whose η lies below the given percentile of all are
 * frozen for good, up to the first that does not; the embeddings with the first block. The block of largest η stays, so the last block and the head always train. Frozen layers are frozen with
 * their biases, so backward ends at the lowest block that trains. The authors add gradients up and take the norm of the sum, which needs a copy of all weights; here Δ² is the mean of ‖g‖² of the steps.
 */
import { type LayerGroup, groupsOf, layersOutside } from './blocks';
import { InvalidArgumentError } from '../errors';
import type { FreezableLayer } from './layer';
import { checkRange, checkWhole } from './options';
import type { PolicyState, StepObservation } from './policy';
import { numbersOf, textOf, TrackingPolicy } from './tracking';

/** Options of AutoFreeze. */
export interface AutoFreezeOptions {
  /** Steps of an interval. The authors: a tenth of the run. */
  readonly evaluateEvery: number;
  /** Blocks whose η lies below this percentile may be frozen, in [0, 100]; 0 freezes none. Default 50. */
  readonly percentile?: number;
}

/** Value below which a share of the sorted values lies, linear between neighbours (NumPy's `percentile`). */
export function percentileOf(values: readonly number[], percentile: number): number {
  const sorted = Float64Array.from(values).sort();
  const at = ((sorted.length - 1) * percentile) / 100;
  const [low, high] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  return low === high ? low : low + (high - low) * (at - Math.floor(at));
}

/** AutoFreeze's policy. */
export class AutoFreeze extends TrackingPolicy {
  readonly name = 'autofreeze';
  readonly label: string;
  readonly freezesBiases = true;
  readonly wantsGradientNorms = true;
  private readonly groups: readonly LayerGroup[];
  private readonly blocks: readonly LayerGroup[];
  private readonly every: number;
  private readonly percentile: number;
  /** Encoder blocks that are frozen, from the front. */
  private frozen = 0;
  /** Steps of this interval, and the sum of ‖g‖² over them, by block. */
  private steps = 0;
  private squares: Float64Array;
  /** Δ of the interval before; NaN before there is one. */
  private before: Float64Array;

  /** @throws InvalidArgumentError for an interval below 1 step, a percentile outside [0, 100] */
  constructor(layers: readonly FreezableLayer[], { evaluateEvery, percentile = 50 }: AutoFreezeOptions) {
    super(layers);
    checkWhole('evaluateEvery', evaluateEvery);
    checkRange('percentile', percentile, 0, 100);
    this.groups = groupsOf(layers, 'block');
    this.blocks = this.groups.filter((g) => g.part === 'encoder');
    this.every = evaluateEvery;
    this.percentile = percentile;
    this.squares = new Float64Array(this.blocks.length);
    this.before = new Float64Array(this.blocks.length).fill(NaN);
    this.label = `AutoFreeze, percentile ${percentile} every ${evaluateEvery} steps`;
  }

  select(): readonly number[] {
    const frozen = new Set(this.blocks.slice(0, this.frozen));
    return layersOutside(this.groups, (g) => (g.part === 'embeddings' ? this.frozen === 0 : !frozen.has(g)));
  }

  override observe(step: number, magnitudes: ReadonlyMap<number, number>, more: StepObservation = {}): void {
    super.observe(step, magnitudes, more);
    this.blocks.forEach((b, i) => b.layers.forEach((l) => (this.squares[i] += (more.gradientNorms?.get(l) ?? 0) ** 2)));
    this.steps++;
    if (this.steps < this.every) return;
    const now = this.squares.map((s) => Math.sqrt(s / this.steps));
    // A block without gradients (the user froze it) counts as unchanged, as in the authors' code; what cannot be told counts as changed.
    const change = Array.from(now.subarray(this.frozen), (d, k) => {
      const eta = d > 0 ? Math.abs(this.before[this.frozen + k] - d) / this.before[this.frozen + k] : 0;
      return Number.isNaN(eta) ? Infinity : eta;
    });
    const isFirst = this.before.every(Number.isNaN);
    if (!isFirst && change.length > 0) {
      const threshold = percentileOf(change, this.percentile);
      const stays = change.findIndex((eta) => !(eta < threshold));
      this.frozen += Math.max(0, stays);
    }
    this.before = now;
    this.squares = new Float64Array(this.blocks.length);
    this.steps = 0;
  }

  override state(): PolicyState {
    return { ...super.state(), frozen: this.frozen, steps: this.steps, squares: textOf(this.squares), before: textOf(this.before) };
  }

  override restore(state: PolicyState): void {
    const { frozen, steps } = state;
    const n = this.blocks.length;
    if (!Number.isInteger(frozen) || !Number.isInteger(steps)) throw new InvalidArgumentError(`this state is not of the policy ${this.name}`);
    const [squares, before] = [numbersOf(state.squares, n, this.name), numbersOf(state.before, n, this.name)];
    super.restore(state);
    this.frozen = frozen as number;
    this.steps = steps as number;
    this.squares = squares;
    this.before = before;
  }
}
