/**
 * Bytes that BERT, or a text encoder that computes the same under other names, keeps between forward and backward, from its shapes alone (encoderLayerBytes.ts). Outside the encoder, N = B·T tokens, H
 * hidden: the embeddings' LayerNorm; of a classification head 4BH for the activation, and 4BH for each of its linear maps that trains on an input of its own; of a span head 4NH when it trains.
 */
import type { TextConfig } from '../hub/config';
import { embeddingName, TEXT_NAMES } from '../hub/textNames';
import type { ActivationMode } from '../tape/scheme';
import { type EncoderPart, encoderPartBytes, type KeepingPart, keptFromLowest, layerNormBytes } from './encoderLayerBytes';

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
  /** Whether a bias, by Hugging Face name, trains. Default: all do, as in the paper. */
  readonly biasTrains?: (name: string) => boolean;
  /** Default: sequence classification. */
  readonly head?: 'sequence classification' | 'question answering';
  /** Whether dropout acts between a classification head's two linear maps: its output is then a tensor of its own. Default false. */
  readonly dropout?: boolean;
}

/** Bytes kept, by part of the model. Where biases do not train, backward ends at the lowest part that does. */
export function bertActivationBytes({ config: c, batchSize: B, length: T, mode, trains, biasTrains = () => true, head: kind, dropout = false }: ActivationBytesQuery): ActivationBytes {
  const names = TEXT_NAMES[c.modelType];
  const H = c.hiddenSize;
  const N = B * T;
  const weight = (module: string) => trains(`${module}.weight`);
  const either = (module: string) => weight(module) || biasTrains(`${module}.bias`);
  const tables = (['word_embeddings', 'position_embeddings', 'token_type_embeddings'] as const).map((t) => embeddingName(names, t));
  const norm = embeddingName(names, 'LayerNorm');
  const embeddings: KeepingPart[] = [
    { bytes: 0, trains: tables.slice(0, c.typeVocabSize > 0 ? 3 : 2).some(weight) },
    { bytes: layerNormBytes(N, H, mode, weight(norm)), trains: either(norm) },
  ];
  const shape = { batchSize: B, tokens: T, hiddenSize: H, intermediateSize: c.intermediateSize, heads: c.numAttentionHeads, mode };
  const encoder = Array.from({ length: c.numHiddenLayers }, (_, i): KeepingPart[] => {
    const at = (part: string) => `${names.layers}.${i}.${part}`;
    const { query, key, value, attentionOutput, attentionNorm, up, down, outputNorm } = names.layer;
    const modules: Record<EncoderPart, string[]> = { projections: [at(query), at(key), at(value)], attentionOutput: [at(attentionOutput)], firstNorm: [at(attentionNorm)], up: [at(up)], down: [at(down)], secondNorm: [at(outputNorm)] };
    const on = (part: EncoderPart) => modules[part].some(weight);
    const bytes = encoderPartBytes(shape, { projections: on('projections'), attentionOutput: on('attentionOutput'), up: on('up'), down: on('down'), norms: [on('firstNorm'), on('secondNorm')] });
    return POST_NORM.map((part) => ({ bytes: bytes[part], trains: modules[part].some(either) }));
  });
  const onFirstToken = (): KeepingPart[] => {
    // The activation's output, always; the input of the linear below it, and that of the one above where dropout stands between.
    const { dense, out } = names.classifier;
    const pooled = 4 * B * H;
    return [
      { bytes: pooled + (weight(dense) ? pooled : 0), trains: either(dense) },
      { bytes: dropout && weight(out) ? pooled : 0, trains: either(out) },
    ];
  };
  const head = kind === 'question answering' ? [{ bytes: weight('qa_outputs') ? 4 * N * H : 0, trains: either('qa_outputs') }] : onFirstToken();
  return bytesByPart(embeddings, encoder, head);
}

/** Order of the parts of an encoder layer that normalises after each half. */
const POST_NORM: readonly EncoderPart[] = ['projections', 'attentionOutput', 'firstNorm', 'up', 'down', 'secondNorm'];

/** Sums of what a model's parts keep, in the order of forward. */
export function bytesByPart(embeddings: readonly KeepingPart[], encoder: readonly (readonly KeepingPart[])[], head: readonly KeepingPart[]): ActivationBytes {
  const kept = keptFromLowest([...embeddings, ...encoder.flat(), ...head]);
  const take = (parts: readonly KeepingPart[]) => kept.splice(0, parts.length).reduce((a, b) => a + b, 0);
  const bytes = { embeddings: take(embeddings), encoderLayers: encoder.map(take), head: take(head) };
  return { ...bytes, total: bytes.embeddings + bytes.encoderLayers.reduce((a, b) => a + b, 0) + bytes.head };
}
