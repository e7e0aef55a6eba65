/**
 * Bytes that BERT, or a text encoder that computes the same under other names, with a head on its first token or on every token keeps between forward and backward, from its shapes alone. N = B·T tokens, H hidden, F MLP width,
 * A heads. Plain fine-tuning keeps 32NH + 8NF + 4BAT² + 16N per encoder layer; SlimFit 3NH + BAT² + NF/2, plus what its training layers add
 * (paper §3.2–3.3, Table 1). Written apart from the tape, so that each can check the other.
 */
import type { TextConfig } from '../hub/config';
import { embeddingName, TEXT_NAMES } from '../hub/textNames';
import { type ActivationMode, SCHEMES } from '../tape/scheme';

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

/** Codes are packed into whole 32-bit words. */
const words = (bytes: number): number => 4 * Math.ceil(bytes / 4);

/** Bytes kept, by part of the model. Biases are taken to train, as in the paper, so that backward runs down to the embeddings. */
export function bertActivationBytes(query: ActivationBytesQuery): ActivationBytes {
  const { config: c, batchSize: B, length: T, mode, trains, dropout = false } = query;
  const names = TEXT_NAMES[c.modelType];
  const H = c.hiddenSize;
  const F = c.intermediateSize;
  const N = B * T;
  const NH = N * H;
  const paper = mode === 'paper';

  const norm = (name: string): number => {
    if (!paper) return 4 * NH + 8 * N;
    return trains(`${name}.weight`) ? 4 * NH : 8 * Math.floor(SCHEMES.paper.frozenLayerNormShare! * NH) + 4 * N;
  };
  const encoderLayer = (i: number): number => {
    const { query, key, value, attentionOutput, attentionNorm, up, down, outputNorm } = names.layer;
    const at = (part: string) => `${names.layers}.${i}.${part}`;
    const learns = (part: string) => trains(`${at(part)}.weight`);
    const probs = B * c.numAttentionHeads * T * T;
    const staticBytes = paper
      ? 3 * words(NH) + words(probs) + words(Math.ceil((N * F) / 2))
      : 3 * 4 * NH + 4 * probs + 4 * N * F;
    return (
      staticBytes +
      ([query, key, value].some(learns) ? 4 * NH : 0) +
      (learns(attentionOutput) ? 4 * NH : 0) +
      norm(at(attentionNorm)) +
      (learns(up) ? 4 * NH : 0) +
      (learns(down) ? (paper ? words(N * F) : 4 * N * F) : 0) +
      norm(at(outputNorm))
    );
  };
  const embeddings = norm(embeddingName(names, 'LayerNorm'));
  const encoderLayers = Array.from({ length: c.numHiddenLayers }, (_, i) => encoderLayer(i));
  const onFirstToken = (): number => {
    // The activation's output, always; the input of the linear below it, and that of the one above where dropout stands between.
    const { dense, out } = names.classifier;
    const pooled = 4 * B * H;
    return pooled + (trains(`${dense}.weight`) ? pooled : 0) + (dropout && trains(`${out}.weight`) ? pooled : 0);
  };
  const head = query.head === 'question answering' ? (trains('qa_outputs.weight') ? 4 * NH : 0) : onFirstToken();
  return { embeddings, encoderLayers, head, total: embeddings + encoderLayers.reduce((a, b) => a + b, 0) + head };
}
