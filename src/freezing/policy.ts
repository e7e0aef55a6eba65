/** A freeze policy decides before each step which layers are frozen, and learns after it how far the others moved. */
import type { FreezableLayer } from './layer';

/** State of a policy as plain data, for checkpoints. */
export type PolicyState = Readonly<Record<string, unknown>>;

/** Decides which layers are frozen. Deterministic: asked twice before one step, it answers the same. */
export interface FreezePolicy {
  /** Short name for tables. */
  readonly name: string;
  /** Update magnitude of every layer, by layer index, as the policy knows it. */
  readonly magnitudes: Float64Array;
  /** Indices of the layers to freeze in the coming step, ascending. */
  select(step: number): readonly number[];
  /** Takes the update magnitudes of the layers that trained in this step. */
  observe(step: number, magnitudes: ReadonlyMap<number, number>): void;
  state(): PolicyState;
  restore(state: PolicyState): void;
}

/** Makes the policy of a run once the layers are known. */
export type PolicyFactory = (layers: readonly FreezableLayer[]) => FreezePolicy;
