/**
 * A freezable layer: one weight tensor that can be frozen on its own (SlimFit's "layer"): each matrix, each embedding table and
 * each LayerNorm weight. Biases are not layers: in paper mode they always train.
 */

/** What a layer's weight does; decides what its activation is and how it is kept. */
export type LayerKind = 'embedding' | 'linear' | 'layer-norm' | 'patch-projection';

/** Describes a freezable layer. */
export interface FreezableLayer {
  /** Place in model order, from 0. */
  readonly index: number;
  /** Hugging Face name of the weight, such as `bert.encoder.layer.0.attention.self.query.weight`. */
  readonly name: string;
  readonly kind: LayerKind;
  readonly shape: readonly number[];
  /** Number of weights. */
  readonly parameters: number;
}
