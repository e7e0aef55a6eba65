/**
 * Bytes that a vision transformer keeps between forward and backward, from its shapes alone (keptActivations.ts). Outside the encoder: pixels 4·B·C·I² when the patch projection trains; the final
 * LayerNorm and the classifier see the class token only, 4BH each (the authors' code keeps all tokens, and the pixels always).
 */
import { type ViTConfig, vitTokens } from '../hub/vitConfig';
import type { ActivationMode, ActivationScheme } from '../tape/scheme';
import { type ActivationBytes, bytesOf } from './activationBytes';
import { KeptActivations, type PlannedActivation, PlannedTensor, type TrainingSet } from './keptActivations';

/** What is asked about. */
export interface ViTActivationBytesQuery extends TrainingSet {
  readonly config: ViTConfig;
  readonly batchSize: number;
  /** A scheme, or its name. */
  readonly mode: ActivationMode | ActivationScheme;
}

/** Everything kept, in the order of forward. */
export function vitActivations({ config: c, batchSize: B, mode, ...training }: ViTActivationBytesQuery): PlannedActivation[] {
  const kept = new KeptActivations(mode, training);
  const { modelType: base, hiddenSize: H, intermediateSize: F, numAttentionHeads: heads, numChannels, imageSize, patchSize } = c;
  const tokens = vitTokens(c);
  const width = numChannels * patchSize ** 2;
  const patches = kept.linear(`${base}.embeddings.patch_embeddings.projection`, new PlannedTensor(B * numChannels * imageSize ** 2, width, false), H, 'float32', 'pixels');
  const learned = ['cls_token', ...(base === 'deit' ? ['distillation_token'] : []), 'position_embeddings'].some((t) => training.trains(`${base}.embeddings.${t}`));
  let x = new PlannedTensor(B * tokens * H, H, patches.needsGrad || learned);
  for (let i = 0; i < c.numHiddenLayers; i++) {
    const at = (part: string) => `${base}.encoder.layer.${i}.${part}`;
    const [query, key, value] = ['query', 'key', 'value'].map((n) => at(`attention.attention.${n}`));
    x = kept.layer(i, `${base}.encoder.layer.${i}`, x, (input) => {
      const before = kept.layerNorm(at('layernorm_before'), input);
      const context = kept.attention({ query, key, value, attention: at('attention.attention'), batchSize: B, tokens, hiddenSize: H, heads }, before);
      const attended = kept.sum(kept.linear(at('attention.output.dense'), context, H, kept.scheme.linearInput), input);
      const mlp = { mlp: at('intermediate'), up: at('intermediate.dense'), down: at('output.dense') };
      return kept.sum(kept.mlp(mlp, kept.layerNorm(at('layernorm_after'), attended), F), attended);
    });
  }
  kept.begin('head');
  kept.linear('classifier', kept.layerNorm(`${base}.layernorm`, new PlannedTensor(B * H, H, x.needsGrad), true), c.numLabels);
  return kept.entries;
}

/** Bytes kept, by part of the model. */
export function vitActivationBytes(query: ViTActivationBytesQuery): ActivationBytes {
  return bytesOf(vitActivations(query), query.config.numHiddenLayers);
}
