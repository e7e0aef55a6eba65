import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnsupportedModelError } from '../../src/errors';
import { parseBertConfig, parseDistilBertConfig, parseRobertaConfig, parseTextConfig, serializeTextConfig } from '../../src/hub/config';

/** The config.json of well-known checkpoints, without what only tells who wrote it. */
const ROBERTA_BASE = { architectures: ['RobertaForMaskedLM'], attention_probs_dropout_prob: 0.1, bos_token_id: 0, eos_token_id: 2, hidden_act: 'gelu', hidden_dropout_prob: 0.1, hidden_size: 768, initializer_range: 0.02, intermediate_size: 3072, layer_norm_eps: 1e-5, max_position_embeddings: 514, model_type: 'roberta', num_attention_heads: 12, num_hidden_layers: 12, pad_token_id: 1, type_vocab_size: 1, vocab_size: 50265 };
const DISTILBERT_BASE = { activation: 'gelu', architectures: ['DistilBertForMaskedLM'], attention_dropout: 0.1, dim: 768, dropout: 0.1, hidden_dim: 3072, initializer_range: 0.02, max_position_embeddings: 512, model_type: 'distilbert', n_heads: 12, n_layers: 6, pad_token_id: 0, qa_dropout: 0.1, seq_classif_dropout: 0.2, sinusoidal_pos_embds: false, tie_weights_: true, vocab_size: 30522 };

test('DistilBERT’s keys are read by their own names', () => {
  assert.deepEqual(parseTextConfig({ ...DISTILBERT_BASE, dim: 24, n_heads: 3, n_layers: 5, hidden_dim: 7, dropout: 0.01, attention_dropout: 0.02, seq_classif_dropout: 0.03, qa_dropout: 0.04, pad_token_id: 6, sinusoidal_pos_embds: true, num_labels: 1 }), {
    modelType: 'distilbert',
    vocabSize: 30522,
    hiddenSize: 24,
    numHiddenLayers: 5,
    numAttentionHeads: 3,
    intermediateSize: 7,
    maxPositionEmbeddings: 512,
    typeVocabSize: 0,
    layerNormEps: 1e-12,
    hiddenDropoutProb: 0.01,
    attentionProbsDropoutProb: 0.02,
    classifierDropout: 0.03,
    spanDropout: 0.04,
    sinusoidalPosEmbds: true,
    padTokenId: 6,
    initializerRange: 0.02,
    numLabels: 1,
    id2label: { 0: 'LABEL_0' },
  });
});

test('RoBERTa’s are BERT’s, with defaults of its own', () => {
  const base = parseTextConfig(ROBERTA_BASE);
  assert.deepEqual([base.modelType, base.padTokenId, base.typeVocabSize, base.layerNormEps, base.maxPositionEmbeddings], ['roberta', 1, 1, 1e-5, 514]);
  // Of transformers' RobertaConfig, XLMRobertaConfig and CamembertConfig.
  for (const [model_type, vocab] of [['roberta', 50265], ['xlm-roberta', 30522], ['camembert', 30522]] as const) {
    const c = parseRobertaConfig({ model_type });
    assert.deepEqual([c.modelType, c.vocabSize, c.maxPositionEmbeddings, c.typeVocabSize, c.layerNormEps, c.padTokenId, c.bosTokenId, c.eosTokenId], [model_type, vocab, 512, 2, 1e-12, 1, 0, 2]);
  }
});

test('dropout inside the head is classifier_dropout, else that of the hidden states', () => {
  for (const [parse, model_type] of [[parseBertConfig, 'bert'], [parseRobertaConfig, 'roberta']] as const) {
    assert.equal(parse({ model_type, hidden_dropout_prob: 0.3 }).classifierDropout, 0.3);
    assert.equal(parse({ model_type, hidden_dropout_prob: 0.3, classifier_dropout: null }).classifierDropout, 0.3);
    assert.equal(parse({ model_type, hidden_dropout_prob: 0.3, classifier_dropout: 0 }).classifierDropout, 0);
  }
});

test('what is written is read back the same, and has the keys that were read', () => {
  for (const json of [ROBERTA_BASE, DISTILBERT_BASE, { model_type: 'camembert', classifier_dropout: 0.4 }, { model_type: 'bert', num_labels: 1 }, { model_type: 'distilbert', id2label: { 0: 'no', 1: 'yes' } }]) {
    const config = parseTextConfig(json);
    const written = serializeTextConfig(config, 'AnyFor');
    assert.deepEqual(parseTextConfig(JSON.parse(JSON.stringify(written)) as Record<string, unknown>), config);
    for (const [key, value] of Object.entries(json)) if (key !== 'architectures' && key !== 'tie_weights_' && key !== 'num_labels') assert.deepEqual(written[key], value, key);
  }
});

test('what computes something else is refused by field', () => {
  for (const [json, field] of [
    [{ model_type: 'distilbert', activation: 'relu' }, /activation "relu"/],
    [{ model_type: 'distilbert', dim: 10, n_heads: 3 }, /dim 10.*3 attention heads/],
    [{ model_type: 'distilbert', n_layers: 0 }, /n_layers 0/],
    [{ model_type: 'distilbert', qa_dropout: 1 }, /qa_dropout 1/],
    [{ model_type: 'roberta', position_embedding_type: 'relative_key' }, /relative_key/],
    [{ model_type: 'roberta', is_decoder: true }, /is_decoder/],
    [{ model_type: 'roberta', max_position_embeddings: 2 }, /max_position_embeddings 2/],
    [{ model_type: 'roberta', pad_token_id: 50265 }, /pad_token_id 50265/],
    [{ model_type: 'bert', classifier_dropout: -0.1 }, /classifier_dropout -0\.1/],
    [{ model_type: 'deberta' }, /"deberta"; supported: bert, distilbert, roberta, xlm-roberta, camembert/],
  ] as const)
    assert.throws(() => parseTextConfig(json), (e: Error) => e instanceof UnsupportedModelError && field.test(e.message), field.source);
  assert.throws(() => parseDistilBertConfig({ model_type: 'bert' }), UnsupportedModelError);
  assert.throws(() => parseRobertaConfig({ model_type: 'bert' }), UnsupportedModelError);
});

test('a config that claims more than any model has is refused by its field, before anything is allocated', () => {
  const bert = { model_type: 'bert', hidden_size: 8, num_attention_heads: 2 };
  for (const [key, value] of Object.entries({ num_labels: 2 ** 53, num_hidden_layers: 1e9, vocab_size: 1e300, layer_norm_eps: Infinity, initializer_range: Infinity, pad_token_id: 2 ** 60 }))
    assert.throws(() => parseTextConfig({ ...bert, [key]: value }), (e: Error) => e instanceof UnsupportedModelError && e.message.includes(key), key);
  assert.equal(parseTextConfig({ ...bert, num_labels: 21_843 }).numLabels, 21_843, 'ImageNet-21k’s classes');
});

test('a config whose values are objects with a toString of their own, or lists without end, is refused by its field', () => {
  const deep: unknown = JSON.parse(`${'['.repeat(100_000)}${']'.repeat(100_000)}`);
  for (const value of [deep, { toString: 1, valueOf: 1 }])
    for (const key of ['model_type', 'hidden_act', 'hidden_size', 'num_labels', 'is_decoder'])
      assert.throws(() => parseTextConfig({ model_type: 'bert', [key]: value }), (e: Error) => e instanceof UnsupportedModelError && e.message.includes(key) && e.message.length < 500, key);
});
