/**
 * A freeze policy decides before each step which layers are frozen, and learns after it how far the others moved. What only some policies need (gradient norms, representations, the
 * bytes of a step) is optional, and nothing is computed for a policy that does not ask for it.
 */
import type { FreezableLayer } from './layer';

/** State of a policy as plain data that survives JSON, for checkpoints. */
export type PolicyState = Readonly<Record<string, unknown>>;

/** Bytes that the coming step keeps between forward and backward when these layers (indices) train and the others are frozen, what the user froze or thawed being as it is. */
export type KeptBytes = (trained: ReadonlySet<number>) => number;

/** What a policy may ask to be told after a step beside the update magnitudes. */
export interface StepObservation {
  /** ‖g‖₂ of the weight of every layer that trained, by layer index, when `wantsGradientNorms`. */
  readonly gradientNorms?: ReadonlyMap<number, number>;
  /**
   * When `probe` asked for n examples: for every layer whose output has a row per example, the n×n Gram matrix X·Xᵀ (row-major) of its outputs before this step's update, X [n, features]
   * centred over the examples (Kornblith et al. 2019, arXiv 1905.00414, §3).
   */
  readonly grams?: ReadonlyMap<number, Float32Array>;
}

/**
 * Decides which layers are frozen. Deterministic: asked twice before one step, it answers the same. One of your own is soonest made from `TrackingPolicy`, which keeps the magnitudes:
 *
 * ```ts
 * // Trains the encoder's blocks with even and with odd numbers in turn.
 * class EvenOdd extends TrackingPolicy {
 *   readonly name = 'even-odd';
 *   select(step: number): number[] {
 *     const rests = (name: string) => Number(/layer\.(\d+)\./.exec(name)?.[1] ?? step) % 2 !== step % 2;
 *     return this.layers.filter((l) => rests(l.name)).map((l) => l.index);
 *   }
 * }
 * const trainer = new SlimFitTrainer({ model, train, policy: (layers) => new EvenOdd(layers) });
 * ```
 */
export interface FreezePolicy {
  /** Short name for tables. */
  readonly name: string;
  /** Name of a run under this policy in tables and figures that compare runs. Default: `name`. */
  readonly label?: string;
  /**
   * Whether the bias of a frozen layer is frozen with it: then nothing is kept below the lowest layer that trains. `true` freezes biases whatever the trainer's option `frozenBiases` says; `false`, for a
   * policy that lives by its biases, lets them train unless that option is given. Default: up to the trainer, whose biases always train, as in the paper, but in mode 'tuned'.
   */
  readonly freezesBiases?: boolean;
  /** Whether `observe` is to be told the norms of the gradients; costs a transient copy of one gradient at a time. Default false. */
  readonly wantsGradientNorms?: boolean;
  /** Update magnitude of every layer, by layer index, as the policy knows it. */
  readonly magnitudes: Float64Array;
  /** Of how many examples `observe` is to be told the representations in this step; 0 for none. They are the first of the training data, always the same. Costs a forward pass. */
  probe?(step: number): number;
  /**
   * Indices of the layers to freeze in the coming step.
   * @param keeps undefined where the bytes of the step are not known beforehand: a model without a formula, a data source without `shape`
   */
  select(step: number, keeps?: KeptBytes): readonly number[];
  /** Takes the update magnitudes of the layers that trained in this step, and what else was asked for. */
  observe(step: number, magnitudes: ReadonlyMap<number, number>, more?: StepObservation): void;
  state(): PolicyState;
  /** @throws InvalidArgumentError for the state of another policy; nothing changes then */
  restore(state: PolicyState): void;
}

/** What a policy may want to know of the run. */
export interface PolicyRun {
  /** Length of the schedule. */
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  readonly seed: number;
  /** Range of the initial distances of inter-layer scheduling, where the run was given one (`initialMagnitudeScale`). */
  readonly initialScale?: number;
}

/** Makes the policy of a run once the layers are known. */
export type PolicyFactory = (layers: readonly FreezableLayer[], run: PolicyRun) => FreezePolicy;
