/**
 * Inter-layer scheduling under a memory budget: instead of a fixed number of layers (SlimFit, Ardakani et al. 2024, Algorithm 1), those of largest update magnitude train that fit a number of activation
 * bytes. Layers are tried from the largest magnitude down; one that does not fit is passed over for the next. Magnitudes and their initial draw are those of inter-layer scheduling.
 * Where the trainer freezes biases too, a layer's bytes are also those of reaching it: all that is kept from there up.
 */
import { addWhileFitting, type BudgetOptions, budgetOf, budgetText, checkBudget, others } from './budget';
import { byMagnitude, InterLayerScheduling } from './ils';
import type { FreezableLayer } from './layer';
import type { FreezePolicy, KeptBytes, PolicyState } from './policy';

/** Options of inter-layer scheduling under a budget. */
export interface MemoryBudgetOptions extends BudgetOptions {
  /** Seeds the initial distances. Default 43. */
  readonly seed?: number;
  /** Initial distances are uniform in [0, this). Default 1e10. */
  readonly initialScale?: number;
  /** Initial distances themselves, one per layer; instead of drawing them. */
  readonly initialMagnitudes?: ArrayLike<number>;
}

/** Trains the layers of largest update magnitude that fit a budget. */
export class MemoryBudget implements FreezePolicy {
  readonly name = 'memory-budget';
  readonly label: string;
  private readonly scheduling: InterLayerScheduling;
  private readonly budget: BudgetOptions;

  /** @throws InvalidArgumentError unless there is a positive budget or a freeze rate */
  constructor(
    private readonly layers: readonly FreezableLayer[],
    { budgetBytes, freezeRate, seed = 43, initialScale, initialMagnitudes }: MemoryBudgetOptions,
  ) {
    this.budget = { budgetBytes, freezeRate };
    checkBudget(this.budget);
    this.scheduling = new InterLayerScheduling(layers, { freezeRate: 0, seed, initialScale, initialMagnitudes });
    this.label = `largest magnitudes in ${budgetText(this.budget)}`;
  }

  get magnitudes(): Float64Array {
    return this.scheduling.magnitudes;
  }

  /** @throws InvalidArgumentError when the budget does not even cover a step in which no layer trains */
  select(_step: number, known?: KeptBytes): readonly number[] {
    const { keeps, budget } = budgetOf(this.budget, this.layers, known);
    const trained = new Set<number>();
    addWhileFitting(trained, byMagnitude(this.magnitudes).reverse(), keeps, budget);
    return others(this.layers, trained);
  }

  observe(step: number, magnitudes: ReadonlyMap<number, number>): void {
    this.scheduling.observe(step, magnitudes);
  }

  state(): PolicyState {
    return this.scheduling.state();
  }

  restore(state: PolicyState): void {
    this.scheduling.restore(state);
  }
}
