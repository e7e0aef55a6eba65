/**
 * Bytes that BERT, or a text encoder that computes the same under other names, keeps between forward and backward, from its shapes alone (keptActivations.ts). Outside the encoder, N = B·T tokens, H
 * hidden: the embeddings' LayerNorm; of a classification head 4BH for the activation, and 4BH for each of its linear maps that trains on an input of its own; of a span head 4NH when it trains.
 */
import type { TextConfig } from '../hub/config';
import { embeddingName, TEXT_NAMES } from '../hub/textNames';
import type { ActivationMode, ActivationScheme } from '../tape/scheme';
import { keptBy, type PlannedActivation, type PlannedPart, PlannedTensor, type TrainingSet } from './keptActivations';

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

/** Sums of what is kept. */
export function bytesOf(entries: readonly PlannedActivation[], layers: number): ActivationBytes {
  const parts = new Map<string, number>();
  for (const { part, bytes } of entries) parts.set(part, (parts.get(part) ?? 0) + bytes);
  const of = (part: string) => parts.get(part) ?? 0;
  const encoderLayers = Array.from({ length: layers }, (_, i) => of(`layer ${i}`));
  return { embeddings: of('embeddings'), encoderLayers, head: of('head'), total: [...parts.values()].reduce((a, b) => a + b, 0) };
}

/** What is asked about. */
export interface ActivationBytesQuery extends TrainingSet {
  readonly config: TextConfig;
  readonly batchSize: number;
  readonly length: number;
  /** A scheme, or its name. */
  readonly mode: ActivationMode | ActivationScheme;
  /** Default: sequence classification. */
  readonly head?: 'sequence classification' | 'question answering';
  /** Whether dropout acts, where the config has some: its output is a tensor of its own. Default false. */
  readonly dropout?: boolean;
}

/** The parts of the model. */
export function bertParts({ config: c, batchSize: B, length: T, head, dropout = false }: Omit<ActivationBytesQuery, keyof TrainingSet | 'mode'>): PlannedPart[] {
  const { hiddenSize: H, intermediateSize: F, numAttentionHeads: heads } = c;
  const { layers, layer: names, classifier } = TEXT_NAMES[c.modelType];
  const embedding = (part: Parameters<typeof embeddingName>[1]) => embeddingName(TEXT_NAMES[c.modelType], part);
  const tables = (['word_embeddings', 'position_embeddings', ...(c.typeVocabSize > 0 ? (['token_type_embeddings'] as const) : [])] as const).map((t) => `${embedding(t)}.weight`);
  const acts = (p: number) => dropout && p > 0;
  const embeddings: PlannedPart = (kept) => {
    const x = kept.layerNorm(embedding('LayerNorm'), new PlannedTensor(B * T * H, H, tables.some((t) => kept.trains(t))));
    return acts(c.hiddenDropoutProb) ? kept.sum(x) : x;
  };
  const encoderLayers = Array.from({ length: c.numHiddenLayers }, (_, i): PlannedPart => {
    const at = (part: string) => `${layers}.${i}.${part}`;
    const attention = { query: at(names.query), key: at(names.key), value: at(names.value), attention: at(names.attention), batchSize: B, tokens: T, hiddenSize: H, heads };
    const mlp = { mlp: at(names.mlp), up: at(names.up), down: at(names.down) };
    const [module, attentionOutput, attentionNorm, outputNorm] = [`${layers}.${i}`, at(names.attentionOutput), at(names.attentionNorm), at(names.outputNorm)];
    return (kept, x) =>
      kept.layer(i, module, x, (input) => {
        const context = kept.attention(attention, input);
        const attended = kept.layerNorm(attentionNorm, kept.sum(kept.linear(attentionOutput, context, H, kept.scheme.linearInput), input));
        return kept.layerNorm(outputNorm, kept.sum(kept.mlp(mlp, attended, F), attended));
      });
  });
  const last: PlannedPart = (kept, x) => {
    kept.begin('head');
    if (head === 'question answering') return kept.linear('qa_outputs', x, 2);
    const dense = kept.linear(classifier.dense, new PlannedTensor(B * H, H, x.needsGrad), H);
    const pooled = kept.fromOutput(classifier.activationModule, classifier.activation === 'tanh' ? 'tanh output' : 'ReLU output', dense);
    return kept.linear(classifier.out, acts(c.classifierDropout) ? kept.sum(pooled) : pooled, c.numLabels);
  };
  return [embeddings, ...encoderLayers, last];
}

/** Everything kept, in the order of forward. */
export function bertActivations(query: ActivationBytesQuery): PlannedActivation[] {
  return keptBy(bertParts(query), query.mode, query).entries;
}

/** Bytes kept, by part of the model. */
export function bertActivationBytes(query: ActivationBytesQuery): ActivationBytes {
  return bytesOf(bertActivations(query), query.config.numHiddenLayers);
}
