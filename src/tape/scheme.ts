/**
 * How activations are kept for backward. Forward is exact float32 under every scheme; only what backward sees differs.
 *
 * - `exact`: everything in float32, as plain fine-tuning keeps it.
 * - `paper`: SlimFit (paper §3.2–3.3): static activations quantized, a frozen LayerNorm's input pruned to a tenth, the MLP's
 *   down-projection input in 8 bits (load balancing).
 */
import type { FixedPoint } from '../engine/engine';

/** Which scheme, by name. */
export type ActivationMode = 'exact' | 'paper';

/** How each kind of activation is kept. */
export interface ActivationScheme {
  readonly mode: ActivationMode;
  /** Queries, keys and values as attention's matrix products see them. */
  readonly attentionOperands: FixedPoint | 'float32';
  /** softmax(q·kᵀ/√d). */
  readonly attentionProbs: FixedPoint | 'float32';
  readonly geluInput: FixedPoint | 'float32';
  /** Input of the MLP's second linear, kept when it trains. */
  readonly downProjectionInput: FixedPoint | 'float32';
  /** Share of a frozen LayerNorm's normalised values that is kept; undefined keeps its input whole. */
  readonly frozenLayerNormShare: number | undefined;
  /** Epsilon of LayerNorm's backward; undefined: the model's own. The authors' code has 1e-12 whatever the config says. */
  readonly layerNormBackwardEps: number | undefined;
  /** Where attention's dropout acts: the published code drops values, plain BERT drops probabilities. */
  readonly attentionDropout: 'values' | 'probabilities';
}

/** The two schemes. */
export const SCHEMES: Readonly<Record<ActivationMode, ActivationScheme>> = {
  exact: {
    mode: 'exact',
    attentionOperands: 'float32',
    attentionProbs: 'float32',
    geluInput: 'float32',
    downProjectionInput: 'float32',
    frozenLayerNormShare: undefined,
    layerNormBackwardEps: undefined,
    attentionDropout: 'probabilities',
  },
  paper: {
    mode: 'paper',
    attentionOperands: 'q3.4',
    attentionProbs: 'q0.8',
    geluInput: 'q2.1',
    downProjectionInput: 'q3.4',
    frozenLayerNormShare: 0.1,
    layerNormBackwardEps: 1e-12,
    attentionDropout: 'values',
  },
};
