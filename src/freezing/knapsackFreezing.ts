/**
 * The knapsack of layers: Fed-piLot's assignment (Zhang et al. 2024, arXiv 2410.10200: of LoRA modules under each client's memory, valued by an information-gain score), here of layers under a budget
 * of activation bytes, valued by the progress that their training can be expected to make. Where each weight moves by about the learning rate, as under Adam, the loss falls to first order by
 * lr·‖g‖₁, and ‖g‖₁ ≤ √n·‖g‖₂ over n weights: the value of a layer is √n·‖g‖₂ of the step in which it last trained. Layers that have not trained yet come before all others, in a random order, so
 * that each gets a value. Where the trainer freezes biases too, the bytes of a step are no sum over its layers, but of the lowest that trains: the choice is then a good one, not the best, and keeps to the budget.
 */
import { Random } from '../random';
import { addWhileFitting, type BudgetOptions, budgetOf, budgetText, checkBudget, others } from './budget';
import { type KnapsackGroup, solveKnapsack } from './knapsack';
import type { FreezableLayer } from './layer';
import type { KeptBytes, PolicyState, StepObservation } from './policy';
import { numbersOf, textOf, TrackingPolicy } from './tracking';

/** Options of the knapsack of layers. */
export interface KnapsackFreezingOptions extends BudgetOptions {
  /** Of the order in which layers that have not trained yet come first. Default 43. */
  readonly seed?: number;
}

/**
 * What each layer's training costs, from the bytes of a step alone: neighbours in model order that cost less together than apart share the difference (query, key and value their input).
 * @returns groups of layers that cost something, and the layers that cost nothing
 */
export function trainingCosts(layers: number, keeps: KeptBytes, valueOf: (layer: number) => number): { readonly groups: readonly KnapsackGroup[]; readonly free: readonly number[] } {
  const least = keeps(new Set());
  const cost = Array.from({ length: layers }, (_, i) => keeps(new Set([i])) - least);
  const groups: { entry: number; members: number[] }[] = [];
  for (let i = 0; i < layers; i++) {
    if (cost[i] <= 0) continue;
    const group = groups.at(-1);
    const neighbour = group?.members.at(-1);
    const shared = neighbour === i - 1 ? cost[i - 1] + cost[i] - (keeps(new Set([i - 1, i])) - least) : 0;
    if (group && shared > 0 && (group.members.length === 1 || shared === group.entry)) {
      group.entry = shared;
      group.members.push(i);
    } else groups.push({ entry: 0, members: [i] });
  }
  return {
    groups: groups.map(({ entry, members }) => ({ entry, items: members.map((id) => ({ id, cost: Math.max(0, cost[id] - entry), value: valueOf(id) })) })),
    free: cost.flatMap((c, i) => (c <= 0 ? [i] : [])),
  };
}

/** Trains the layers of largest expected progress that fit a budget. */
export class KnapsackFreezing extends TrackingPolicy {
  readonly name = 'knapsack';
  readonly label: string;
  readonly wantsGradientNorms = true;
  private readonly budget: BudgetOptions;
  /** ‖g‖₂ of the last step in which each layer trained; NaN before. */
  private norms: Float64Array;
  /** In [0, 1): orders the layers that have not trained yet. */
  private readonly draws: Float64Array;

  /** @throws InvalidArgumentError unless there is a positive budget or a freeze rate */
  constructor(layers: readonly FreezableLayer[], { budgetBytes, freezeRate, seed = 43 }: KnapsackFreezingOptions) {
    super(layers);
    this.budget = { budgetBytes, freezeRate };
    checkBudget(this.budget);
    this.norms = new Float64Array(layers.length).fill(NaN);
    const random = new Random(seed);
    this.draws = Float64Array.from(layers, () => random.uniform());
    this.label = `knapsack of ${budgetText(this.budget)}`;
  }

  /** Expected progress of each layer, by index: √n·‖g‖₂; of one that has not trained yet, more than that of all others together. */
  get values(): Float64Array {
    const known = Float64Array.from(this.layers, (l) => Math.sqrt(l.parameters) * this.norms[l.index]);
    const first = 1 + known.reduce((sum, v) => sum + (Number.isFinite(v) ? v : 0), 0);
    return known.map((v, i) => (Number.isFinite(v) ? v : first * (1 + this.draws[i] / this.layers.length)));
  }

  /** @throws InvalidArgumentError when the budget does not even cover a step in which no layer trains */
  select(_step: number, known?: KeptBytes): readonly number[] {
    const { values, layers } = this;
    const { keeps, budget } = budgetOf(this.budget, layers, known);
    const { groups, free } = trainingCosts(layers.length, keeps, (l) => values[l]);
    const trained = new Set(free);
    const chosen = solveKnapsack(groups, budget - keeps(trained));
    const byValue = (of: Iterable<number>) => [...of].sort((a, b) => values[b] - values[a] || a - b);
    // What the sums said, as far as the bytes of a step are such sums (they are where biases always train); then what fits beside the choice: a key beside a query, and, where bytes are no sum, more.
    addWhileFitting(trained, byValue(chosen), keeps, budget);
    addWhileFitting(trained, byValue(layers.keys()), keeps, budget);
    return others(layers, trained);
  }

  override observe(step: number, magnitudes: ReadonlyMap<number, number>, more: StepObservation = {}): void {
    super.observe(step, magnitudes, more);
    for (const [layer, norm] of more.gradientNorms ?? []) this.norms[layer] = norm;
  }

  override state(): PolicyState {
    return { ...super.state(), norms: textOf(this.norms) };
  }

  override restore(state: PolicyState): void {
    const norms = numbersOf(state.norms, this.norms.length, this.name);
    super.restore(state);
    this.norms = norms;
  }
}
