/**
 * Freezing by similarity: SimFreeze of ETuner/EdgeOL (Li et al. 2024, arXiv 2401.16694, intra-tuning optimization). The reference is the model as the run found it. Every so many steps both see the same
 * few examples; linear CKA(X, Y) = ⟨K, L⟩/(‖K‖·‖L‖), K and L the centred Gram matrices of a layer's outputs (Kornblith et al. 2019, arXiv 1905.00414, §3), says how alike they still are. A block whose
 * CKA, mean over its layers, changed by no more than a share of itself between two looks has converged and is frozen for good, biases included; the head always trains. Of the reference
 * only the Gram matrices are kept. ETuner's other half, which decides when a round of tuning begins as data streams in, has no counterpart in a run over a data set.
 */
import { type Granularity, groupsOf, layersOutside, type LayerGroup } from './blocks';
import { InvalidArgumentError } from '../errors';
import type { FreezableLayer } from './layer';
import { checkRange, checkWhole, checkWord } from './options';
import type { PolicyState, StepObservation } from './policy';
import { numbersOf, textOf, TrackingPolicy } from './tracking';

/** Options of freezing by similarity. */
export interface CkaFreezingOptions {
  /** Steps between two looks. Each costs a forward pass. Default 50. */
  readonly compareEvery?: number;
  /** Examples that are looked at, the first of the training data; at least 3, since any two points are alike. Default 16. */
  readonly examples?: number;
  /** A block is frozen when its CKA changed by no more than this share of itself. Default 0.01. */
  readonly threshold?: number;
  /** What is frozen at one time. Default `block`. */
  readonly granularity?: Granularity;
}

/** Linear CKA of two representations of the same examples, from their centred Gram matrices: 1 for the same up to rotation and scale. NaN when one of them is 0. */
export function linearCka(K: ArrayLike<number>, L: ArrayLike<number>): number {
  let [kl, kk, ll] = [0, 0, 0];
  for (let i = 0; i < K.length; i++) {
    kl += K[i] * L[i];
    kk += K[i] * K[i];
    ll += L[i] * L[i];
  }
  return kl / Math.sqrt(kk * ll);
}

/** SimFreeze as a policy. */
export class CkaFreezing extends TrackingPolicy {
  readonly name = 'cka';
  readonly label: string;
  readonly freezesBiases = true;
  private readonly groups: readonly LayerGroup[];
  private readonly every: number;
  private readonly examples: number;
  private readonly threshold: number;
  /** Gram matrices of the reference, by layer. */
  private reference = new Map<number, Float64Array>();
  /** CKA of each group at the last look; NaN before the second. */
  private similarity: Float64Array;
  private converged: Set<number> = new Set();

  /** @throws InvalidArgumentError for an interval below 1 step, fewer than 3 examples, a threshold outside [0, 1] */
  constructor(layers: readonly FreezableLayer[], { compareEvery = 50, examples = 16, threshold = 0.01, granularity = 'block' }: CkaFreezingOptions = {}) {
    super(layers);
    checkWhole('compareEvery', compareEvery);
    checkWhole('examples', examples, 3);
    checkRange('threshold', threshold, 0, 1);
    checkWord('granularity', granularity, ['weight', 'block']);
    this.groups = groupsOf(layers, granularity);
    this.every = compareEvery;
    this.examples = examples;
    this.threshold = threshold;
    this.similarity = new Float64Array(this.groups.length).fill(NaN);
    this.label = `CKA change ≤ ${threshold} in ${compareEvery} steps`;
  }

  /** CKA to the reference at the last look, by group in model order (embeddings, blocks, head; or weights); NaN before the second look. */
  get similarities(): Float64Array {
    return this.similarity.slice();
  }

  probe(step: number): number {
    return step % this.every === 0 && this.groups.some((g, i) => g.part !== 'head' && !this.converged.has(i)) ? this.examples : 0;
  }

  select(): readonly number[] {
    return layersOutside(this.groups, (_, i) => !this.converged.has(i));
  }

  override observe(step: number, magnitudes: ReadonlyMap<number, number>, more: StepObservation = {}): void {
    super.observe(step, magnitudes, more);
    const { grams } = more;
    if (!grams) return;
    if (this.reference.size === 0) {
      this.reference = new Map([...grams].map(([layer, k]) => [layer, Float64Array.from(k)]));
      return;
    }
    const now = Float64Array.from(this.groups, ({ layers }) => {
      const known = layers.filter((l) => this.reference.has(l) && grams.has(l));
      return known.reduce((sum, l) => sum + linearCka(this.reference.get(l)!, grams.get(l)!), 0) / known.length;
    });
    this.groups.forEach(({ part }, i) => {
      const change = Math.abs(now[i] - this.similarity[i]) / this.similarity[i];
      if (part !== 'head' && change <= this.threshold) this.converged.add(i);
    });
    this.similarity = now;
  }

  override state(): PolicyState {
    return {
      ...super.state(),
      similarity: textOf(this.similarity),
      converged: [...this.converged].sort((a, b) => a - b),
      reference: [...this.reference].map(([layer, k]) => [layer, textOf(k)]),
    };
  }

  override restore(state: PolicyState): void {
    const { converged, reference } = state;
    if (!Array.isArray(converged) || !Array.isArray(reference)) throw new InvalidArgumentError(`this state is not of the policy ${this.name}`);
    const similarity = numbersOf(state.similarity, this.groups.length, this.name);
    const grams = new Map((reference as [number, string[]][]).map(([layer, k]) => [layer, Float64Array.from(k, Number)]));
    super.restore(state);
    this.similarity = similarity;
    this.converged = new Set(converged as number[]);
    this.reference = grams;
  }
}
