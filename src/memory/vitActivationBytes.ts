/**
 * Bytes that a vision transformer keeps between forward and backward, from its shapes alone (encoderLayerBytes.ts). Outside the encoder: pixels 4·B·C·I² when the patch projection trains; the final
 * LayerNorm and the classifier see the class token only, 4BH each (the authors' code keeps all tokens, and the pixels always).
 */
import { type ViTConfig, vitTokens } from '../hub/vitConfig';
import type { ActivationMode } from '../tape/scheme';
import { type ActivationBytes, bytesByPart } from './activationBytes';
import { type EncoderPart, encoderPartBytes, type KeepingPart, layerNormBytes } from './encoderLayerBytes';

/** What is asked about. */
export interface ViTActivationBytesQuery {
  readonly config: ViTConfig;
  readonly batchSize: number;
  readonly mode: ActivationMode;
  /** Whether a weight, by Hugging Face name, trains. */
  readonly trains: (name: string) => boolean;
  /** Whether a bias, by Hugging Face name, trains. Default: all do, as in the paper. */
  readonly biasTrains?: (name: string) => boolean;
}

/** Bytes kept, by part of the model. Where biases do not train, backward ends at the lowest part that does. */
export function vitActivationBytes({ config: c, batchSize: B, mode, trains, biasTrains = () => true }: ViTActivationBytesQuery): ActivationBytes {
  const base = c.modelType;
  const weight = (module: string) => trains(`${module}.weight`);
  const either = (module: string) => weight(module) || biasTrains(`${module}.bias`);
  const projection = `${base}.embeddings.patch_embeddings.projection`;
  const learned = ['cls_token', ...(base === 'deit' ? ['distillation_token'] : []), 'position_embeddings'];
  const embeddings: KeepingPart[] = [
    { bytes: weight(projection) ? 4 * B * c.numChannels * c.imageSize ** 2 : 0, trains: either(projection) },
    { bytes: 0, trains: learned.some((n) => trains(`${base}.embeddings.${n}`)) },
  ];
  const shape = { batchSize: B, tokens: vitTokens(c), hiddenSize: c.hiddenSize, intermediateSize: c.intermediateSize, heads: c.numAttentionHeads, mode };
  const encoder = Array.from({ length: c.numHiddenLayers }, (_, i): KeepingPart[] => {
    const at = (part: string) => `${base}.encoder.layer.${i}.${part}`;
    const modules: Record<EncoderPart, string[]> = {
      projections: ['query', 'key', 'value'].map((n) => at(`attention.attention.${n}`)),
      attentionOutput: [at('attention.output.dense')],
      firstNorm: [at('layernorm_before')],
      up: [at('intermediate.dense')],
      down: [at('output.dense')],
      secondNorm: [at('layernorm_after')],
    };
    const on = (part: EncoderPart) => modules[part].some(weight);
    const bytes = encoderPartBytes(shape, { projections: on('projections'), attentionOutput: on('attentionOutput'), up: on('up'), down: on('down'), norms: [on('firstNorm'), on('secondNorm')] });
    return PRE_NORM.map((part) => ({ bytes: bytes[part], trains: modules[part].some(either) }));
  });
  const head: KeepingPart[] = [
    // The final LayerNorm always trains.
    { bytes: layerNormBytes(B, c.hiddenSize, mode, true), trains: true },
    { bytes: weight('classifier') ? 4 * B * c.hiddenSize : 0, trains: either('classifier') },
  ];
  return bytesByPart(embeddings, encoder, head);
}

/** Order of the parts of an encoder layer that normalises before each half. */
const PRE_NORM: readonly EncoderPart[] = ['firstNorm', 'projections', 'attentionOutput', 'secondNorm', 'up', 'down'];
