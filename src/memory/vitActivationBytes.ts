/**
 * Bytes that a vision transformer keeps between forward and backward, from its shapes alone (keptActivations.ts). Outside the encoder: pixels 4·B·C·I² when the patch projection trains; the final
 * LayerNorm and the classifier see the class token only, 4BH each (the authors' code keeps all tokens, and the pixels always).
 */
import { type ViTConfig, vitTokens } from '../hub/vitConfig';
import type { ActivationMode, ActivationScheme } from '../tape/scheme';
import { type ActivationBytes, bytesOf } from './activationBytes';
import { keptBy, type PlannedActivation, type PlannedPart, PlannedTensor, type TrainingSet } from './keptActivations';

/** What is asked about. */
export interface ViTActivationBytesQuery extends TrainingSet {
  readonly config: ViTConfig;
  readonly batchSize: number;
  /** A scheme, or its name. */
  readonly mode: ActivationMode | ActivationScheme;
}

/** The parts of the model. */
export function vitParts({ config: c, batchSize: B }: Pick<ViTActivationBytesQuery, 'config' | 'batchSize'>): PlannedPart[] {
  const { modelType: base, hiddenSize: H, intermediateSize: F, numAttentionHeads: heads, numChannels, imageSize, patchSize } = c;
  const tokens = vitTokens(c);
  const width = numChannels * patchSize ** 2;
  const embeddings: PlannedPart = (kept) => {
    const patches = kept.linear(`${base}.embeddings.patch_embeddings.projection`, new PlannedTensor(B * numChannels * imageSize ** 2, width, false), H, 'float32', 'pixels');
    const learned = ['cls_token', ...(base === 'deit' ? ['distillation_token'] : []), 'position_embeddings'].some((t) => kept.trains(`${base}.embeddings.${t}`));
    return new PlannedTensor(B * tokens * H, H, patches.needsGrad || learned);
  };
  const encoderLayers = Array.from({ length: c.numHiddenLayers }, (_, i): PlannedPart => {
    const at = (part: string) => `${base}.encoder.layer.${i}.${part}`;
    const [query, key, value] = ['query', 'key', 'value'].map((n) => at(`attention.attention.${n}`));
    const attention = { query, key, value, attention: at('attention.attention'), batchSize: B, tokens, hiddenSize: H, heads };
    const mlp = { mlp: at('intermediate'), up: at('intermediate.dense'), down: at('output.dense') };
    const [module, attentionOutput, normBefore, normAfter] = [`${base}.encoder.layer.${i}`, at('attention.output.dense'), at('layernorm_before'), at('layernorm_after')];
    return (kept, x) =>
      kept.layer(i, module, x, (input) => {
        const context = kept.attention(attention, kept.layerNorm(normBefore, input));
        const attended = kept.sum(kept.linear(attentionOutput, context, H, kept.scheme.linearInput), input);
        return kept.sum(kept.mlp(mlp, kept.layerNorm(normAfter, attended), F), attended);
      });
  });
  const head: PlannedPart = (kept, x) => {
    kept.begin('head');
    return kept.linear('classifier', kept.layerNorm(`${base}.layernorm`, new PlannedTensor(B * H, H, x.needsGrad), true), c.numLabels);
  };
  return [embeddings, ...encoderLayers, head];
}

/** Everything kept, in the order of forward. */
export function vitActivations(query: ViTActivationBytesQuery): PlannedActivation[] {
  return keptBy(vitParts(query), query.mode, query).entries;
}

/** Bytes kept, by part of the model. */
export function vitActivationBytes(query: ViTActivationBytesQuery): ActivationBytes {
  return bytesOf(vitActivations(query), query.config.numHiddenLayers);
}
