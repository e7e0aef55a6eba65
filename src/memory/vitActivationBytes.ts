/**
 * Bytes that a vision transformer keeps between forward and backward, from its shapes alone (encoderLayerBytes.ts). Outside the encoder: pixels 4·B·C·I² when the patch projection trains; the final
 * LayerNorm and the classifier see the class token only, 4BH each (the authors' code keeps all tokens, and the pixels always).
 */
import { type ViTConfig, vitTokens } from '../hub/vitConfig';
import type { ActivationMode } from '../tape/scheme';
import type { ActivationBytes } from './activationBytes';
import { encoderLayerBytes, layerNormBytes } from './encoderLayerBytes';

/** What is asked about. */
export interface ViTActivationBytesQuery {
  readonly config: ViTConfig;
  readonly batchSize: number;
  readonly mode: ActivationMode;
  /** Whether a weight, by Hugging Face name, trains. */
  readonly trains: (name: string) => boolean;
}

/** Bytes kept, by part of the model. Biases are taken to train, as in the paper, so that backward runs down to the patches. */
export function vitActivationBytes({ config: c, batchSize: B, mode, trains }: ViTActivationBytesQuery): ActivationBytes {
  const base = c.modelType;
  const embeddings = trains(`${base}.embeddings.patch_embeddings.projection.weight`) ? 4 * B * c.numChannels * c.imageSize ** 2 : 0;
  const encoderLayers = Array.from({ length: c.numHiddenLayers }, (_, i) => {
    const weight = (name: string) => trains(`${base}.encoder.layer.${i}.${name}.weight`);
    return encoderLayerBytes(
      { batchSize: B, tokens: vitTokens(c), hiddenSize: c.hiddenSize, intermediateSize: c.intermediateSize, heads: c.numAttentionHeads, mode },
      {
        projections: ['query', 'key', 'value'].some((n) => weight(`attention.attention.${n}`)),
        attentionOutput: weight('attention.output.dense'),
        up: weight('intermediate.dense'),
        down: weight('output.dense'),
        norms: [weight('layernorm_before'), weight('layernorm_after')],
      },
    );
  });
  const head = layerNormBytes(B, c.hiddenSize, mode, true) + (trains('classifier.weight') ? 4 * B * c.hiddenSize : 0);
  return { embeddings, encoderLayers, head, total: embeddings + encoderLayers.reduce((a, b) => a + b, 0) + head };
}
