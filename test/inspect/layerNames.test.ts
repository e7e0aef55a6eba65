import assert from 'node:assert/strict';
import { test } from 'node:test';
import { modelPart, shortLayerName } from '../../src/inspect/layerNames';

/** Freezable weights of a BERT with a classifier, by their Hugging Face names. */
const bert = (layers: number): string[] => [
  'bert.embeddings.word_embeddings.weight',
  'bert.embeddings.position_embeddings.weight',
  'bert.embeddings.token_type_embeddings.weight',
  'bert.embeddings.LayerNorm.weight',
  ...Array.from({ length: layers }, (_, l) =>
    ['attention.self.query', 'attention.self.key', 'attention.self.value', 'attention.output.dense', 'attention.output.LayerNorm', 'intermediate.dense', 'output.dense', 'output.LayerNorm'].map((part) => `bert.encoder.layer.${l}.${part}.weight`),
  ).flat(),
  'bert.pooler.dense.weight',
  'classifier.weight',
];

test('each weight of an encoder layer has a short name with the layer’s number', () => {
  const expected: Record<string, string> = {
    'attention.self.query': 'query',
    'attention.self.key': 'key',
    'attention.self.value': 'value',
    'attention.output.dense': 'attention output',
    'attention.output.LayerNorm': 'attention norm',
    'intermediate.dense': 'MLP up',
    'output.dense': 'MLP down',
    'output.LayerNorm': 'MLP norm',
  };
  for (const [part, short] of Object.entries(expected)) {
    assert.equal(shortLayerName(`bert.encoder.layer.3.${part}.weight`), `L3 ${short}`);
    assert.equal(shortLayerName(`bert.encoder.layer.11.${part}`), `L11 ${short}`, 'a module without .weight');
  }
});

test('an encoder layer as a whole has its number for a name, and is a part of the model by itself', () => {
  for (const name of ['bert.encoder.layer.3', 'vit.encoder.layer.3', 'distilbert.transformer.layer.3']) assert.deepEqual([shortLayerName(name), modelPart(name)], ['L3', 'layer 3']);
});

test('DistilBERT’s and RoBERTa’s layers have the short names of BERT’s', () => {
  const expected: Record<string, string> = {
    'attention.q_lin': 'query',
    'attention.k_lin': 'key',
    'attention.v_lin': 'value',
    'attention.out_lin': 'attention output',
    sa_layer_norm: 'attention norm',
    'ffn.lin1': 'MLP up',
    'ffn.lin2': 'MLP down',
    output_layer_norm: 'MLP norm',
    attention: 'attention',
    ffn: 'GELU',
  };
  for (const [part, short] of Object.entries(expected)) assert.equal(shortLayerName(`distilbert.transformer.layer.3.${part}.weight`), `L3 ${short}`);
  assert.equal(shortLayerName('roberta.encoder.layer.3.output.dense.weight'), 'L3 MLP down');
  assert.equal(shortLayerName('roberta.encoder.layer.3.attention.self.query.weight'), 'L3 query');
  for (const [name, short] of [
    ['distilbert.embeddings.word_embeddings.weight', 'word embeddings'],
    ['roberta.embeddings.LayerNorm.weight', 'embeddings norm'],
    ['pre_classifier.weight', 'pre classifier'],
    ['classifier.dense.weight', 'classifier dense'],
    ['classifier.out_proj.weight', 'classifier output'],
    ['qa_outputs.weight', 'answer span'],
  ])
    assert.equal(shortLayerName(name), short);
  assert.deepEqual(
    ['distilbert.embeddings.LayerNorm', 'distilbert.transformer.layer.5.ffn', 'roberta.encoder.layer.11.output.dense.weight', 'pre_classifier', 'classifier.dense.weight', 'qa_outputs'].map(modelPart),
    ['embeddings', 'layer 5', 'layer 11', 'head', 'head', 'head'],
  );
});

test('modules without weights of their own have names too', () => {
  assert.equal(shortLayerName('bert.encoder.layer.0.attention.self'), 'L0 attention');
  assert.equal(shortLayerName('bert.encoder.layer.0.intermediate'), 'L0 GELU');
});

test('embeddings and heads are named in words', () => {
  assert.equal(shortLayerName('bert.embeddings.word_embeddings.weight'), 'word embeddings');
  assert.equal(shortLayerName('bert.embeddings.token_type_embeddings.weight'), 'token type embeddings');
  assert.equal(shortLayerName('bert.embeddings.LayerNorm.weight'), 'embeddings norm');
  assert.equal(shortLayerName('bert.pooler.dense.weight'), 'pooler');
  assert.equal(shortLayerName('classifier.weight'), 'classifier');
  assert.equal(shortLayerName('cls.predictions.transform.dense.weight'), 'LM transform');
  assert.equal(shortLayerName('cls.predictions.transform.LayerNorm.weight'), 'LM transform.LayerNorm');
});

test('no two layers of a model share a short name, so rows of a figure do not fall together', () => {
  const names = bert(12);
  assert.equal(new Set(names.map(shortLayerName)).size, names.length);
});

test('an unknown part of an encoder layer keeps its own name', () => {
  assert.equal(shortLayerName('bert.encoder.layer.2.adapter.down.weight'), 'L2 adapter.down');
});

test('a model’s parts are its embeddings, its layers by number, and its head', () => {
  assert.deepEqual([...new Set(bert(11).map(modelPart))], ['embeddings', ...Array.from({ length: 11 }, (_, l) => `layer ${l}`), 'head']);
  assert.equal(modelPart('bert.encoder.layer.1.attention.self'), 'layer 1');
  assert.equal(modelPart('bert.encoder.layer.10.intermediate'), 'layer 10');
  assert.equal(modelPart('cls.predictions.transform.dense'), 'head');
});

test('the weights of a vision transformer have the same short names, and its own for patches, class token and final norm', () => {
  const layer = ['attention.attention.query', 'attention.attention.key', 'attention.attention.value', 'attention.output.dense', 'intermediate.dense', 'output.dense', 'layernorm_before', 'layernorm_after'];
  assert.deepEqual(
    layer.map((n) => shortLayerName(`vit.encoder.layer.2.${n}.weight`)),
    ['L2 query', 'L2 key', 'L2 value', 'L2 attention output', 'L2 MLP up', 'L2 MLP down', 'L2 attention norm', 'L2 MLP norm'],
  );
  assert.equal(shortLayerName('vit.encoder.layer.2.attention.attention'), 'L2 attention');
  assert.deepEqual(
    ['vit.embeddings.cls_token', 'deit.embeddings.distillation_token', 'vit.embeddings.position_embeddings', 'vit.embeddings.patch_embeddings.projection.weight', 'vit.layernorm', 'classifier.weight'].map(shortLayerName),
    ['cls token', 'distillation token', 'position embeddings', 'patch projection', 'final norm', 'classifier'],
  );
  assert.deepEqual(['vit.embeddings.patch_embeddings.projection', 'vit.encoder.layer.1.layernorm_before', 'vit.layernorm'].map(modelPart), ['embeddings', 'layer 1', 'head']);
});
