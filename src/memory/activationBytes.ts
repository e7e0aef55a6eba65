/**
 * Bytes that BERT, or a text encoder that computes the same under other names, keeps between forward and backward, from its shapes alone (keptActivations.ts). Outside the encoder, N = B·T tokens, H
 * hidden: the embeddings' LayerNorm; of a classification head 4BH for the activation, and 4BH for each of its linear maps that trains on an input of its own; of a span head 4NH when it trains.
 */
import type { TextConfig } from '../hub/config';
import { embeddingName, TEXT_NAMES } from '../hub/textNames';
import type { ActivationMode, ActivationScheme } from '../tape/scheme';
import { KeptActivations, type PlannedActivation, PlannedTensor, type TrainingSet } from './keptActivations';

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

/** Everything kept, in the order of forward. */
export function bertActivations({ config: c, batchSize: B, length: T, mode, head, dropout = false, ...training }: ActivationBytesQuery): PlannedActivation[] {
  const kept = new KeptActivations(mode, training);
  const { hiddenSize: H, intermediateSize: F, numAttentionHeads: heads } = c;
  const { layers, layer: names, classifier } = TEXT_NAMES[c.modelType];
  const embedding = (part: Parameters<typeof embeddingName>[1]) => embeddingName(TEXT_NAMES[c.modelType], part);
  const tables = (['word_embeddings', 'position_embeddings', ...(c.typeVocabSize > 0 ? (['token_type_embeddings'] as const) : [])] as const).map((t) => `${embedding(t)}.weight`);
  let x = kept.layerNorm(embedding('LayerNorm'), new PlannedTensor(B * T * H, H, tables.some(training.trains)));
  const acts = (p: number) => dropout && p > 0;
  if (acts(c.hiddenDropoutProb)) x = kept.sum(x);
  for (let i = 0; i < c.numHiddenLayers; i++) {
    const at = (part: string) => `${layers}.${i}.${part}`;
    const modules = { query: at(names.query), key: at(names.key), value: at(names.value), attention: at(names.attention) };
    x = kept.layer(i, `${layers}.${i}`, x, (input) => {
      const context = kept.attention({ ...modules, batchSize: B, tokens: T, hiddenSize: H, heads }, input);
      const attended = kept.layerNorm(at(names.attentionNorm), kept.sum(kept.linear(at(names.attentionOutput), context, H, kept.scheme.linearInput), input));
      return kept.layerNorm(at(names.outputNorm), kept.sum(kept.mlp({ mlp: at(names.mlp), up: at(names.up), down: at(names.down) }, attended, F), attended));
    });
  }
  kept.begin('head');
  if (head === 'question answering') kept.linear('qa_outputs', x, 2);
  else {
    const dense = kept.linear(classifier.dense, new PlannedTensor(B * H, H, x.needsGrad), H);
    const pooled = kept.fromOutput(classifier.activationModule, classifier.activation === 'tanh' ? 'tanh output' : 'ReLU output', dense);
    kept.linear(classifier.out, acts(c.classifierDropout) ? kept.sum(pooled) : pooled, c.numLabels);
  }
  return kept.entries;
}

/** Bytes kept, by part of the model. */
export function bertActivationBytes(query: ActivationBytesQuery): ActivationBytes {
  return bytesOf(bertActivations(query), query.config.numHiddenLayers);
}
