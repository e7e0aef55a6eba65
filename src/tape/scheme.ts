/**
 * How activations are kept for backward: one option for each kind of activation, so that a scheme is a plain object and a new one is another with some options changed:
 * `{ ...SCHEMES.paper, name: 'paper, probabilities recomputed', attentionProbs: 'recompute' }`. Forward is exact float32 under every scheme; only what backward sees differs.
 *
 * - `exact`: everything in float32, as plain fine-tuning keeps it.
 * - `paper`: SlimFit (paper §3.2–3.3): static activations quantized, a frozen LayerNorm's input pruned to a tenth, the MLP's
 *   down-projection input in 8 bits (load balancing).
 * - `tuned`: what the paper leaves on the table: attention probabilities are computed again instead of kept, 8-bit codes have a step for each row, so that nothing clips; LayerNorms keep all their
 *   normalised values in them, which the linear maps behind read too, so that those cost nothing more when they train, and from which the MLP is computed again; LayerNorm's backward has the model's epsilon,
 *   and attention drops probabilities as plain BERT does.
 */
import { type CodeEncoding, FIXED_POINT, ROW_SCALED } from '../engine/engine';
import { InvalidArgumentError } from '../errors';

/** A scheme by name. */
export type ActivationMode = 'exact' | 'paper' | 'tuned';

/** How each kind of activation is kept. N = batch·tokens, B batch, T tokens, H hidden, F MLP width, A heads; bytes are of one encoder layer. */
export interface ActivationScheme {
  /** What tables and messages call it. */
  readonly name: string;
  /**
   * Queries, keys and values as attention's matrix products see them: 12NH in float32; 3NH as `q3.4`, which clips beyond ±8; 3NH + 12NA as `q8-row`, with a step for each token of each head, for models
   * with large or very small queries, keys or values.
   */
  readonly attentionOperands: CodeEncoding | 'float32';
  /**
   * softmax(q·kᵀ/√d): 4BAT² in float32, BAT² as `q0.8`, which loses what is below 1/512 (most of a row of 577 flat ones), BAT² + 4BAT as `u8-row`, which does not, and 0 with `recompute`, where backward computes them again from the kept q, k and the mask.
   * Costs one more of attention's products and a softmax (2·B·T²·H multiplications), 1/9 of a layer's forward at T = H/2 and F = 4H. With float32 operands the gradient is that of
   * keeping them; with coded operands it is that of attention over the coded q and k. For long sequences and many patches, where T² outweighs all else.
   */
  readonly attentionProbs: CodeEncoding | 'float32' | 'recompute';
  /**
   * 4NF in float32, NF + 4N as `q8-row`, NF/2 as `q2.1`, NF/2 + 4N as `q4-row`: in 4 bits the largest part of the gradient's error on small models. With `recompute` the MLP's input is kept instead, as `linearInput` says, and
   * backward computes GELU's input, and the down projection's, from it again: NH + 4N as `q8-row`, nothing where `normalizedValues` keeps the same; one more of the MLP's two products, a third of a layer's
   * forward.
   */
  readonly geluInput: CodeEncoding | 'float32' | 'recompute';
  /** Input of the MLP's second linear, kept when it trains and is not computed again: 4NF in float32, NF as `q3.4`, NF + 4N as `q8-row`. */
  readonly downProjectionInput: CodeEncoding | 'float32';
  /** Input of an encoder's other linear maps, kept when they train: 4NH in float32, NH + 4N as `q8-row`; once for all that read the same. */
  readonly linearInput: CodeEncoding | 'float32';
  /**
   * A LayerNorm's normalised values ŷ, frozen or not: NH + 4N as `q8-row`, and 4N for 1/std; the three options below then say nothing but the epsilon. A linear map that trains on the
   * LayerNorm's output under the same code as `linearInput` keeps nothing: its input is ŷ·w + b. Undefined keeps what the options below say.
   */
  readonly normalizedValues: CodeEncoding | undefined;
  /** Share of a frozen LayerNorm's normalised values that is kept, each with its position: 8·share·NH + 4N instead of 4NH; undefined keeps its input whole. */
  readonly frozenLayerNormShare: number | undefined;
  /** Mean and 1/std of the rows of a LayerNorm whose input is kept whole: `kept` beside it (8N), or computed again from it in backward. */
  readonly layerNormStatistics: 'kept' | 'recompute';
  /** Epsilon of LayerNorm's backward; undefined: the model's own. The authors' code has 1e-12 whatever the config says. */
  readonly layerNormBackwardEps: number | undefined;
  /** Where attention's dropout acts: the published code drops values, plain BERT drops probabilities. */
  readonly attentionDropout: 'values' | 'probabilities';
}

/** The schemes that have a name. */
export const SCHEMES: Readonly<Record<ActivationMode, ActivationScheme>> = {
  exact: {
    name: 'exact',
    attentionOperands: 'float32',
    attentionProbs: 'float32',
    geluInput: 'float32',
    downProjectionInput: 'float32',
    linearInput: 'float32',
    normalizedValues: undefined,
    frozenLayerNormShare: undefined,
    layerNormStatistics: 'kept',
    layerNormBackwardEps: undefined,
    attentionDropout: 'probabilities',
  },
  paper: {
    name: 'paper',
    attentionOperands: 'q3.4',
    attentionProbs: 'q0.8',
    geluInput: 'q2.1',
    downProjectionInput: 'q3.4',
    linearInput: 'float32',
    normalizedValues: undefined,
    frozenLayerNormShare: 0.1,
    layerNormStatistics: 'recompute',
    layerNormBackwardEps: 1e-12,
    attentionDropout: 'values',
  },
  tuned: {
    name: 'tuned',
    attentionOperands: 'q8-row',
    attentionProbs: 'recompute',
    geluInput: 'recompute',
    downProjectionInput: 'q8-row',
    linearInput: 'q8-row',
    normalizedValues: 'q8-row',
    frozenLayerNormShare: undefined,
    layerNormStatistics: 'recompute',
    layerNormBackwardEps: undefined,
    attentionDropout: 'probabilities',
  },
};

const CODES: readonly string[] = [...Object.keys(FIXED_POINT), ...Object.keys(ROW_SCALED), 'float32'];

/**
 * The scheme of a name, or the scheme itself once each of its options was looked at.
 * @throws InvalidArgumentError naming the option
 */
export function schemeOf(mode: ActivationMode | ActivationScheme): ActivationScheme {
  if (typeof mode === 'string') {
    if (!Object.hasOwn(SCHEMES, mode)) throw new InvalidArgumentError(`mode is '${mode}'; it must be one of ${Object.keys(SCHEMES).join(', ')}, or a scheme: { ...SCHEMES.paper, … }`);
    return SCHEMES[mode];
  }
  const allowed: readonly (readonly [keyof ActivationScheme, readonly string[]])[] = [
    ['attentionOperands', CODES],
    ['attentionProbs', [...CODES, 'recompute']],
    ['geluInput', [...CODES, 'recompute']],
    ['downProjectionInput', CODES],
    ['linearInput', CODES],
    ['layerNormStatistics', ['kept', 'recompute']],
    ['attentionDropout', ['values', 'probabilities']],
  ];
  for (const [option, words] of allowed)
    if (!words.includes(mode[option] as string)) throw new InvalidArgumentError(`${option} of the scheme '${mode.name}' is '${mode[option]}'; it must be one of ${words.join(', ')}`);
  const { frozenLayerNormShare: share, layerNormBackwardEps: eps, normalizedValues } = mode;
  if (normalizedValues !== undefined && !(CODES.includes(normalizedValues) && (normalizedValues as string) !== 'float32'))
    throw new InvalidArgumentError(`normalizedValues of the scheme '${mode.name}' is '${String(normalizedValues)}'; it must be one of ${CODES.filter((c) => c !== 'float32').join(', ')}, or be undefined`);
  if (share !== undefined && !(share >= 0 && share <= 1)) throw new InvalidArgumentError(`frozenLayerNormShare of the scheme '${mode.name}' is ${share}; it must lie in [0, 1], or be undefined`);
  if (eps !== undefined && !(eps > 0)) throw new InvalidArgumentError(`layerNormBackwardEps of the scheme '${mode.name}' is ${eps}; it must be positive, or undefined for the model's own`);
  return mode;
}
