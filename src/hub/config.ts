/** `config.json` of a BERT checkpoint, as Hugging Face writes it. Read strictly: a model that would compute something else is refused. */
import { UnsupportedModelError } from '../errors';

/** A BERT's shape and settings; Hugging Face's BertConfig in camel case. */
export interface BertConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly intermediateSize: number;
  readonly maxPositionEmbeddings: number;
  readonly typeVocabSize: number;
  readonly layerNormEps: number;
  readonly hiddenDropoutProb: number;
  readonly attentionProbsDropoutProb: number;
  readonly padTokenId: number;
  /** Standard deviation of fresh weights. */
  readonly initializerRange: number;
  /** Outputs of a classification head; 1 is regression. */
  readonly numLabels: number;
  /** Name of each label, by index. */
  readonly id2label: Readonly<Record<number, string>>;
}

type Json = Readonly<Record<string, unknown>>;

const SUPPORTED = ['bert'];

/** Reads a Hugging Face config. @throws UnsupportedModelError naming the field */
export function parseBertConfig(json: Json): BertConfig {
  if (!SUPPORTED.includes(json.model_type as string))
    throw new UnsupportedModelError(`config.json has model_type ${JSON.stringify(json.model_type)}; supported: ${SUPPORTED.join(', ')}`);
  const number = (key: string, fallback: number | undefined, valid: (v: number) => boolean, what: string): number => {
    const v = json[key] ?? fallback;
    if (typeof v !== 'number' || !valid(v)) throw new UnsupportedModelError(`config.json has ${key} ${JSON.stringify(json[key])}; it must be ${what}`);
    return v;
  };
  const count = (key: string, fallback?: number) => number(key, fallback, (v) => Number.isInteger(v) && v >= 1, 'a whole number of at least 1');
  const share = (key: string, fallback: number) => number(key, fallback, (v) => v >= 0 && v < 1, 'in [0, 1)');
  if ((json.hidden_act ?? 'gelu') !== 'gelu') throw new UnsupportedModelError(`config.json has hidden_act '${String(json.hidden_act)}'; only the exact 'gelu' is supported`);
  if ((json.position_embedding_type ?? 'absolute') !== 'absolute')
    throw new UnsupportedModelError(`config.json has position_embedding_type '${String(json.position_embedding_type)}'; only 'absolute' is supported`);
  if (json.is_decoder === true) throw new UnsupportedModelError('config.json has is_decoder true; only encoders are supported');
  const labels = labelsOf(json);
  const config: BertConfig = {
    vocabSize: count('vocab_size', 30522),
    hiddenSize: count('hidden_size', 768),
    numHiddenLayers: count('num_hidden_layers', 12),
    numAttentionHeads: count('num_attention_heads', 12),
    intermediateSize: count('intermediate_size', 3072),
    maxPositionEmbeddings: count('max_position_embeddings', 512),
    typeVocabSize: count('type_vocab_size', 2),
    layerNormEps: number('layer_norm_eps', 1e-12, (v) => v > 0, 'positive'),
    hiddenDropoutProb: share('hidden_dropout_prob', 0.1),
    attentionProbsDropoutProb: share('attention_probs_dropout_prob', 0.1),
    padTokenId: number('pad_token_id', 0, (v) => Number.isInteger(v) && v >= 0, 'a token id'),
    initializerRange: number('initializer_range', 0.02, (v) => v > 0, 'positive'),
    numLabels: Object.keys(labels).length,
    id2label: labels,
  };
  if (config.hiddenSize % config.numAttentionHeads !== 0)
    throw new UnsupportedModelError(`config.json has hidden_size ${config.hiddenSize}, which ${config.numAttentionHeads} attention heads do not divide`);
  return config;
}

function labelsOf(json: Json): Record<number, string> {
  if (json.id2label && typeof json.id2label === 'object') {
    const labels = json.id2label as Record<number, string>;
    const n = Object.keys(labels).length;
    if (n >= 1 && Array.from({ length: n }, (_, i) => labels[i]).every((l) => typeof l === 'string')) return { ...labels };
    throw new UnsupportedModelError(`config.json has id2label ${JSON.stringify(json.id2label)}; it must name every index from 0`);
  }
  const n = json.num_labels ?? 2;
  if (!(Number.isInteger(n) && (n as number) >= 1)) throw new UnsupportedModelError(`config.json has num_labels ${JSON.stringify(n)}; it must be a whole number of at least 1`);
  return defaultLabels(n as number);
}

/** LABEL_0, LABEL_1, … as Hugging Face names them. */
export function defaultLabels(n: number): Record<number, string> {
  return Object.fromEntries(Array.from({ length: n }, (_, i) => [i, `LABEL_${i}`]));
}

/** Writes a Hugging Face config. @param architecture class name such as `BertForSequenceClassification` */
export function serializeBertConfig(c: BertConfig, architecture: string): Record<string, unknown> {
  return {
    architectures: [architecture],
    model_type: 'bert',
    vocab_size: c.vocabSize,
    hidden_size: c.hiddenSize,
    num_hidden_layers: c.numHiddenLayers,
    num_attention_heads: c.numAttentionHeads,
    intermediate_size: c.intermediateSize,
    hidden_act: 'gelu',
    max_position_embeddings: c.maxPositionEmbeddings,
    type_vocab_size: c.typeVocabSize,
    layer_norm_eps: c.layerNormEps,
    hidden_dropout_prob: c.hiddenDropoutProb,
    attention_probs_dropout_prob: c.attentionProbsDropoutProb,
    pad_token_id: c.padTokenId,
    initializer_range: c.initializerRange,
    position_embedding_type: 'absolute',
    id2label: c.id2label,
    label2id: Object.fromEntries(Object.entries(c.id2label).map(([i, l]) => [l, Number(i)])),
    ...(c.numLabels === 1 ? { problem_type: 'regression' } : {}),
    torch_dtype: 'float32',
  };
}
