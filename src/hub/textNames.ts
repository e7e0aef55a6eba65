/**
 * Where each text architecture keeps its parts, by the names of the Hugging Face Hub. The encoders compute the same but for what this table and the config say.
 */
import type { TextConfig } from './config';

/** Module names of one encoder layer, below the layer itself. */
export interface LayerNames {
  readonly query: string;
  readonly key: string;
  readonly value: string;
  /** What attends: it keeps the operands. */
  readonly attention: string;
  readonly attentionOutput: string;
  readonly attentionNorm: string;
  readonly up: string;
  /** What the GELU belongs to: it keeps its input. */
  readonly mlp: string;
  readonly down: string;
  readonly outputNorm: string;
}

/** A classification head: [dropout,] dense, activation, dropout, out, on the first token. */
export interface ClassifierNames {
  readonly dense: string;
  readonly activation: 'tanh' | 'relu';
  /** What keeps the activation's output. */
  readonly activationModule: string;
  readonly out: string;
  /** Whether dropout acts before `dense` too. */
  readonly dropsFirst: boolean;
}

/** One architecture. */
export interface TextNames {
  /** What Hugging Face's classes begin with: `Bert` of `BertForQuestionAnswering`. */
  readonly className: string;
  /** What the encoder's names begin with; a checkpoint of the bare encoder lacks it. */
  readonly prefix: string;
  /** The list of layers, such as `bert.encoder.layer`. */
  readonly layers: string;
  readonly layer: LayerNames;
  readonly classifier: ClassifierNames;
  /** Whether dropout acts between attention and its LayerNorm (not in DistilBERT). */
  readonly attentionOutputDropout: boolean;
  /** Whether positions count real tokens from `padTokenId + 1` (RoBERTa), or all tokens from 0. */
  readonly positionsAfterPadding: boolean;
}

const BERT_LAYER: LayerNames = {
  query: 'attention.self.query',
  key: 'attention.self.key',
  value: 'attention.self.value',
  attention: 'attention.self',
  attentionOutput: 'attention.output.dense',
  attentionNorm: 'attention.output.LayerNorm',
  up: 'intermediate.dense',
  mlp: 'intermediate',
  down: 'output.dense',
  outputNorm: 'output.LayerNorm',
};

const DISTILBERT_LAYER: LayerNames = {
  query: 'attention.q_lin',
  key: 'attention.k_lin',
  value: 'attention.v_lin',
  attention: 'attention',
  attentionOutput: 'attention.out_lin',
  attentionNorm: 'sa_layer_norm',
  up: 'ffn.lin1',
  mlp: 'ffn',
  down: 'ffn.lin2',
  outputNorm: 'output_layer_norm',
};

const BERT: TextNames = {
  className: 'Bert',
  prefix: 'bert.',
  layers: 'bert.encoder.layer',
  layer: BERT_LAYER,
  classifier: { dense: 'bert.pooler.dense', activation: 'tanh', activationModule: 'bert.pooler', out: 'classifier', dropsFirst: false },
  attentionOutputDropout: true,
  positionsAfterPadding: false,
};

const DISTILBERT: TextNames = {
  className: 'DistilBert',
  prefix: 'distilbert.',
  layers: 'distilbert.transformer.layer',
  layer: DISTILBERT_LAYER,
  classifier: { dense: 'pre_classifier', activation: 'relu', activationModule: 'pre_classifier', out: 'classifier', dropsFirst: false },
  attentionOutputDropout: false,
  positionsAfterPadding: false,
};

const ROBERTA: TextNames = {
  className: 'Roberta',
  prefix: 'roberta.',
  layers: 'roberta.encoder.layer',
  layer: BERT_LAYER,
  classifier: { dense: 'classifier.dense', activation: 'tanh', activationModule: 'classifier', out: 'classifier.out_proj', dropsFirst: true },
  attentionOutputDropout: true,
  positionsAfterPadding: true,
};

/** Names by `model_type`. */
export const TEXT_NAMES: Readonly<Record<TextConfig['modelType'], TextNames>> = {
  bert: BERT,
  distilbert: DISTILBERT,
  roberta: ROBERTA,
  'xlm-roberta': { ...ROBERTA, className: 'XLMRoberta' },
  camembert: { ...ROBERTA, className: 'Camembert' },
};

/** Name of a part of the embeddings. */
export const embeddingName = (names: TextNames, part: 'word_embeddings' | 'position_embeddings' | 'token_type_embeddings' | 'LayerNorm'): string => `${names.prefix}embeddings.${part}`;

/** Parts of any head that a checkpoint of these architectures may carry: pooler, classifiers, masked LM, next sentence, spans. */
export const ANY_HEAD = /^((bert|roberta)\.pooler|pooler|classifier|pre_classifier|cls|lm_head|vocab_transform|vocab_layer_norm|vocab_projector|qa_outputs)\./;
