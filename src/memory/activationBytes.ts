/**
 * Bytes that BERT, or a text encoder that computes the same under other names, keeps between forward and backward, from its shapes alone (encoderLayerBytes.ts). Outside the encoder, N = B·T tokens, H
 * hidden: the embeddings' LayerNorm; of a classification head 4BH for the activation, and 4BH for each of its linear maps that trains on an input of its own; of a span head 4NH when it trains.
 */
import type { TextConfig } from '../hub/config';
import { embeddingName, TEXT_NAMES } from '../hub/textNames';
import type { ActivationMode } from '../tape/scheme';
import { encoderLayerBytes, layerNormBytes } from './encoderLayerBytes';

/** Where the bytes are. */
export interface ActivationBytes {
  readonly embeddings: number;
  readonly encoderLayers: readonly number[];
  readonly head: number;
  readonly total: number;
}

/** Bytes kept, by the parts of any model in their order: 'embeddings', 'layer 0', …, 'head' (the words of `modelPart`). */
export interface ActivationPrediction {
  readonly total: number;
  readonly parts: Readonly<Record<string, number>>;
}

/** The same by name. */
export function byPart({ embeddings, encoderLayers, head, total }: ActivationBytes): ActivationPrediction {
  return { total, parts: { embeddings, ...Object.fromEntries(encoderLayers.map((bytes, i) => [`layer ${i}`, bytes])), head } };
}

/** What is asked about. */
export interface ActivationBytesQuery {
  readonly config: TextConfig;
  readonly batchSize: number;
  readonly length: number;
  readonly mode: ActivationMode;
  /** Whether a weight, by Hugging Face name, trains. */
  readonly trains: (name: string) => boolean;
  /** Default: sequence classification. */
  readonly head?: 'sequence classification' | 'question answering';
  /** Whether dropout acts between a classification head's two linear maps: its output is then a tensor of its own. Default false. */
  readonly dropout?: boolean;
}

/** Bytes kept, by part of the model. Biases are taken to train, as in the paper, so that backward runs down to the embeddings. */
export function bertActivationBytes({ config: c, batchSize: B, length: T, mode, trains, head: kind, dropout = false }: ActivationBytesQuery): ActivationBytes {
  const names = TEXT_NAMES[c.modelType];
  const H = c.hiddenSize;
  const N = B * T;
  const embeddings = layerNormBytes(N, H, mode, trains(`${embeddingName(names, 'LayerNorm')}.weight`));
  const encoderLayers = Array.from({ length: c.numHiddenLayers }, (_, i) => {
    const weight = (part: string) => trains(`${names.layers}.${i}.${part}.weight`);
    const { query, key, value, attentionOutput, attentionNorm, up, down, outputNorm } = names.layer;
    return encoderLayerBytes(
      { batchSize: B, tokens: T, hiddenSize: H, intermediateSize: c.intermediateSize, heads: c.numAttentionHeads, mode },
      { projections: [query, key, value].some(weight), attentionOutput: weight(attentionOutput), up: weight(up), down: weight(down), norms: [weight(attentionNorm), weight(outputNorm)] },
    );
  });
  const onFirstToken = (): number => {
    // The activation's output, always; the input of the linear below it, and that of the one above where dropout stands between.
    const { dense, out } = names.classifier;
    const pooled = 4 * B * H;
    return pooled + (trains(`${dense}.weight`) ? pooled : 0) + (dropout && trains(`${out}.weight`) ? pooled : 0);
  };
  const head = kind === 'question answering' ? (trains('qa_outputs.weight') ? 4 * N * H : 0) : onFirstToken();
  return { embeddings, encoderLayers, head, total: embeddings + encoderLayers.reduce((a, b) => a + b, 0) + head };
}
