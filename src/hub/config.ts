/**
 * `config.json` of a text encoder's checkpoint (BERT, DistilBERT, RoBERTa and those built like it), as Hugging Face writes it. Read strictly: a model that would compute something
 * else is refused. Keys that are absent have the default of Hugging Face's config class.
 */
import { UnsupportedModelError } from '../errors';
import { shown } from '../shown';
import { ConfigFields, MOST_LAYERS } from './configFields';

/** What the architectures have in common: Hugging Face's BertConfig in camel case. */
interface EncoderConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly intermediateSize: number;
  /** Rows of the position table. RoBERTa's first `padTokenId + 1` stand for no position. */
  readonly maxPositionEmbeddings: number;
  /** Rows of the token-type table; 0: there is none (DistilBERT). */
  readonly typeVocabSize: number;
  readonly layerNormEps: number;
  readonly hiddenDropoutProb: number;
  readonly attentionProbsDropoutProb: number;
  /** Dropout inside a classification head. */
  readonly classifierDropout: number;
  /** Dropout before a span head (DistilBERT's `qa_dropout`; the others have none). */
  readonly spanDropout: number;
  readonly padTokenId: number;
  /** Standard deviation of fresh weights. */
  readonly initializerRange: number;
  /** Outputs of a classification head; 1 is regression. */
  readonly numLabels: number;
  /** Name of each label, by index. */
  readonly id2label: Readonly<Record<number, string>>;
}

/** A BERT's shape and settings. */
export interface BertConfig extends EncoderConfig {
  readonly modelType: 'bert';
}

/** A DistilBERT's: BERT without token types and pooler. */
export interface DistilBertConfig extends EncoderConfig {
  readonly modelType: 'distilbert';
  /** Whether a fresh position table is that of sines and cosines (Vaswani et al. 2017, §3.5); it trains all the same. */
  readonly sinusoidalPosEmbds: boolean;
}

/** A RoBERTa's, or that of a model which is one under another name: BERT whose positions count from `padTokenId + 1`. */
export interface RobertaConfig extends EncoderConfig {
  readonly modelType: 'roberta' | 'xlm-roberta' | 'camembert';
  readonly bosTokenId: number;
  readonly eosTokenId: number;
}

/** Any text encoder's. */
export type TextConfig = BertConfig | DistilBertConfig | RobertaConfig;

type Json = Readonly<Record<string, unknown>>;

const ROBERTAS = ['roberta', 'xlm-roberta', 'camembert'] as const;

/** Every `model_type` that can be read. */
export const TEXT_MODEL_TYPES = ['bert', 'distilbert', ...ROBERTAS] as const;

/** Reads the config of any text encoder. @throws UnsupportedModelError naming the field */
export function parseTextConfig(json: Json): TextConfig {
  if (json.model_type === 'distilbert') return parseDistilBertConfig(json);
  if ((ROBERTAS as readonly unknown[]).includes(json.model_type)) return parseRobertaConfig(json);
  checkType(json, TEXT_MODEL_TYPES);
  return parseBertConfig(json);
}

/** Reads BERT's config. @throws UnsupportedModelError naming the field */
export function parseBertConfig(json: Json): BertConfig {
  checkType(json, ['bert']);
  return { modelType: 'bert', ...encoderOf(json, { vocabSize: 30522, padTokenId: 0 }) };
}

/** Reads RoBERTa's config, XLM-RoBERTa's or CamemBERT's. @throws UnsupportedModelError naming the field */
export function parseRobertaConfig(json: Json): RobertaConfig {
  checkType(json, ROBERTAS);
  const read = new ConfigFields(json);
  const config: RobertaConfig = {
    modelType: json.model_type as RobertaConfig['modelType'],
    ...encoderOf(json, { vocabSize: json.model_type === 'roberta' ? 50265 : 30522, padTokenId: 1 }),
    bosTokenId: tokenId(read, 'bos_token_id', 0),
    eosTokenId: tokenId(read, 'eos_token_id', 2),
  };
  if (config.maxPositionEmbeddings < config.padTokenId + 2)
    throw new UnsupportedModelError(`config.json has max_position_embeddings ${config.maxPositionEmbeddings}; positions begin at pad_token_id + 1 = ${config.padTokenId + 1}, so there is none`);
  return config;
}

/** Reads DistilBERT's config. @throws UnsupportedModelError naming the field */
export function parseDistilBertConfig(json: Json): DistilBertConfig {
  checkType(json, ['distilbert']);
  const read = new ConfigFields(json);
  read.only('activation', 'gelu', ONLY_GELU);
  return checked('dim', {
    modelType: 'distilbert',
    vocabSize: read.count('vocab_size', 30522),
    hiddenSize: read.count('dim', 768),
    numHiddenLayers: read.count('n_layers', 6, MOST_LAYERS),
    numAttentionHeads: read.count('n_heads', 12),
    intermediateSize: read.count('hidden_dim', 3072),
    maxPositionEmbeddings: read.count('max_position_embeddings', 512),
    typeVocabSize: 0,
    layerNormEps: 1e-12,
    hiddenDropoutProb: read.share('dropout', 0.1),
    attentionProbsDropoutProb: read.share('attention_dropout', 0.1),
    classifierDropout: read.share('seq_classif_dropout', 0.2),
    spanDropout: read.share('qa_dropout', 0.1),
    sinusoidalPosEmbds: json.sinusoidal_pos_embds === true,
    ...common(read, 0),
  });
}

/** The keys that BERT and RoBERTa share. */
function encoderOf(json: Json, defaults: { readonly vocabSize: number; readonly padTokenId: number }): EncoderConfig {
  const read = new ConfigFields(json);
  read.only('hidden_act', 'gelu', ONLY_GELU);
  read.only('position_embedding_type', 'absolute', "only 'absolute' is supported");
  read.only('is_decoder', false, 'only encoders are supported');
  const hiddenDropoutProb = read.share('hidden_dropout_prob', 0.1);
  return checked('hidden_size', {
    vocabSize: read.count('vocab_size', defaults.vocabSize),
    hiddenSize: read.count('hidden_size', 768),
    numHiddenLayers: read.count('num_hidden_layers', 12, MOST_LAYERS),
    numAttentionHeads: read.count('num_attention_heads', 12),
    intermediateSize: read.count('intermediate_size', 3072),
    maxPositionEmbeddings: read.count('max_position_embeddings', 512),
    typeVocabSize: read.count('type_vocab_size', 2),
    layerNormEps: read.positive('layer_norm_eps', 1e-12),
    hiddenDropoutProb,
    attentionProbsDropoutProb: read.share('attention_probs_dropout_prob', 0.1),
    classifierDropout: read.share('classifier_dropout', hiddenDropoutProb),
    spanDropout: 0,
    ...common(read, defaults.padTokenId),
  });
}

const ONLY_GELU = 'only the exact gelu is supported';

function checkType(json: Json, supported: readonly string[]): void {
  if (!supported.includes(json.model_type as string))
    throw new UnsupportedModelError(`config.json has model_type ${shown(json.model_type)}; supported: ${supported.join(', ')}`);
}

function checked<C extends EncoderConfig>(sizeKey: string, config: C): C {
  if (config.hiddenSize % config.numAttentionHeads !== 0)
    throw new UnsupportedModelError(`config.json has ${sizeKey} ${config.hiddenSize}, which ${config.numAttentionHeads} attention heads do not divide`);
  if (config.padTokenId >= config.vocabSize) throw new UnsupportedModelError(`config.json has pad_token_id ${config.padTokenId}, outside a vocabulary of ${config.vocabSize}`);
  return config;
}

/** What every architecture names alike. */
function common(read: ConfigFields, padTokenId: number): Pick<EncoderConfig, 'padTokenId' | 'initializerRange' | 'numLabels' | 'id2label'> {
  const id2label = read.labels();
  return { padTokenId: tokenId(read, 'pad_token_id', padTokenId), initializerRange: read.positive('initializer_range', 0.02), numLabels: Object.keys(id2label).length, id2label };
}

const tokenId = (read: ConfigFields, key: string, fallback: number): number => read.number(key, fallback, (v) => Number.isSafeInteger(v) && v >= 0, 'a token id');

/** Writes a Hugging Face config. @param architecture class name such as `BertForSequenceClassification` */
export function serializeTextConfig(c: TextConfig, architecture: string): Record<string, unknown> {
  return {
    architectures: [architecture],
    model_type: c.modelType,
    vocab_size: c.vocabSize,
    ...(c.modelType === 'distilbert' ? distilBertKeys(c) : bertKeys(c)),
    max_position_embeddings: c.maxPositionEmbeddings,
    pad_token_id: c.padTokenId,
    initializer_range: c.initializerRange,
    id2label: c.id2label,
    label2id: Object.fromEntries(Object.entries(c.id2label).map(([i, l]) => [l, Number(i)])),
    ...(c.numLabels === 1 ? { problem_type: 'regression' } : {}),
    torch_dtype: 'float32',
  };
}

const bertKeys = (c: BertConfig | RobertaConfig): Record<string, unknown> => ({
  hidden_size: c.hiddenSize,
  num_hidden_layers: c.numHiddenLayers,
  num_attention_heads: c.numAttentionHeads,
  intermediate_size: c.intermediateSize,
  hidden_act: 'gelu',
  type_vocab_size: c.typeVocabSize,
  layer_norm_eps: c.layerNormEps,
  hidden_dropout_prob: c.hiddenDropoutProb,
  attention_probs_dropout_prob: c.attentionProbsDropoutProb,
  classifier_dropout: c.classifierDropout === c.hiddenDropoutProb ? null : c.classifierDropout,
  position_embedding_type: 'absolute',
  ...(c.modelType === 'bert' ? {} : { bos_token_id: c.bosTokenId, eos_token_id: c.eosTokenId }),
});

const distilBertKeys = (c: DistilBertConfig): Record<string, unknown> => ({
  dim: c.hiddenSize,
  n_layers: c.numHiddenLayers,
  n_heads: c.numAttentionHeads,
  hidden_dim: c.intermediateSize,
  activation: 'gelu',
  dropout: c.hiddenDropoutProb,
  attention_dropout: c.attentionProbsDropoutProb,
  seq_classif_dropout: c.classifierDropout,
  qa_dropout: c.spanDropout,
  sinusoidal_pos_embds: c.sinusoidalPosEmbds,
});
