/** Bytes kept between forward and backward, against figures worked out by hand and against what the paper's method was measured to keep. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseBertConfig, parseDistilBertConfig, parseRobertaConfig } from '../../src/hub/config';
import { bertActivationBytes } from '../../src/memory/activationBytes';
import { Random } from '../../src/random';
import { tinyConfig } from '../models/fixtures';

const MIB = 2 ** 20;
const names = (layers: number): string[] => [
  ...['word_embeddings', 'position_embeddings', 'token_type_embeddings', 'LayerNorm'].map((n) => `bert.embeddings.${n}.weight`),
  ...Array.from({ length: layers }, (_, i) =>
    ['attention.self.query', 'attention.self.key', 'attention.self.value', 'attention.output.dense', 'attention.output.LayerNorm', 'intermediate.dense', 'output.dense', 'output.LayerNorm'].map(
      (n) => `bert.encoder.layer.${i}.${n}.weight`,
    ),
  ).flat(),
  'bert.pooler.dense.weight',
  'classifier.weight',
];
const all = () => true;
const none = () => false;
const only =
  (...trained: string[]) =>
  (name: string): boolean =>
    trained.includes(name);

/** N = 6, NH = 48, NF = 96, BAT² = 36: no code is left over in a word. */
const small = { config: tinyConfig({ hidden_size: 8, intermediate_size: 16, num_attention_heads: 2, num_hidden_layers: 1 }), batchSize: 2, length: 3, dropout: false };
const L = 'bert.encoder.layer.0';

test('a tiny BERT keeps, in full fine-tuning, 32NH + 8NF + 4BAT² + 16N bytes a layer', () => {
  assert.deepEqual(bertActivationBytes({ ...small, mode: 'exact', trains: all }), {
    // 4·48 + 8·6
    embeddings: 240,
    // 1536 + 768 + 144 + 96
    encoderLayers: [2544],
    // tanh's output and the pooler's input, 2·8 floats each; the classifier reads tanh's output itself.
    head: 128,
    total: 2912,
  });
});

test('a tiny BERT under SlimFit keeps 3NH + BAT² + NF/2 a layer and a tenth of each LayerNorm when all is frozen', () => {
  assert.deepEqual(bertActivationBytes({ ...small, mode: 'paper', trains: none }), {
    // 8·floor(4.8) + 4·6
    embeddings: 56,
    // 144 + 36 + 48 + 2·56
    encoderLayers: [340],
    head: 64,
    total: 460,
  });
});

test('a tiny BERT under SlimFit with nothing frozen keeps float32 inputs, but codes of the down projection’s', () => {
  assert.deepEqual(bertActivationBytes({ ...small, mode: 'paper', trains: all }), {
    embeddings: 192,
    // 144 + 36 + 48, three inputs of 192 (the projections share one), NF = 96, two LayerNorm inputs of 192
    encoderLayers: [228 + 576 + 96 + 384],
    head: 128,
    total: 1604,
  });
});

test('each layer that trains adds what it alone needs', () => {
  const frozen = { paper: 460, exact: 2912 - 64 - 3 * 192 - 384 };
  const adds = (mode: 'paper' | 'exact', ...trained: string[]) => bertActivationBytes({ ...small, mode, trains: only(...trained) }).total - frozen[mode];
  for (const [trained, paper, exact] of [
    [[], 0, 0],
    [[`${L}.attention.self.query.weight`], 192, 192],
    [[`${L}.attention.self.key.weight`], 192, 192],
    [[`${L}.attention.self.value.weight`], 192, 192],
    [['query', 'key', 'value'].map((n) => `${L}.attention.self.${n}.weight`), 192, 192],
    [[`${L}.attention.output.dense.weight`], 192, 192],
    [[`${L}.attention.output.LayerNorm.weight`], 192 - 56, 0],
    [[`${L}.intermediate.dense.weight`], 192, 192],
    [[`${L}.output.dense.weight`], 96, 384],
    [[`${L}.output.LayerNorm.weight`], 192 - 56, 0],
    [['bert.embeddings.LayerNorm.weight'], 192 - 56, 0],
    [['bert.embeddings.word_embeddings.weight', 'bert.embeddings.position_embeddings.weight', 'bert.embeddings.token_type_embeddings.weight'], 0, 0],
    [['bert.pooler.dense.weight'], 64, 64],
    [['classifier.weight'], 0, 0],
    [[`${L}.attention.self.query.weight`, `${L}.output.dense.weight`, 'bert.pooler.dense.weight'], 192 + 96 + 64, 192 + 384 + 64],
  ] as const) {
    assert.equal(adds('paper', ...trained), paper, `paper, ${trained.join(', ')}`);
    assert.equal(adds('exact', ...trained), exact, `exact, ${trained.join(', ')}`);
  }
});

test('dropout before the classifier gives it an input of its own, kept when it trains', () => {
  const config = tinyConfig({ hidden_size: 8, intermediate_size: 16, num_attention_heads: 2, num_hidden_layers: 1, classifier_dropout: 0.1 });
  for (const mode of ['exact', 'paper'] as const)
    for (const trains of [all, only('classifier.weight'), none]) {
      const without = bertActivationBytes({ ...small, config, mode, trains });
      const withDropout = bertActivationBytes({ ...small, config, mode, trains, dropout: true });
      assert.deepEqual(bertActivationBytes({ ...small, mode, trains, dropout: true }), without, 'a config without dropout');
      assert.equal(withDropout.head - without.head, trains === none ? 0 : 64);
      assert.equal(withDropout.total - without.total, withDropout.head - without.head);
    }
});

test('a span head keeps its input of every token when it trains, and nothing else: no pooler, no tanh', () => {
  for (const mode of ['exact', 'paper'] as const) {
    const bytes = (trains: (name: string) => boolean) => bertActivationBytes({ ...small, mode, trains, head: 'question answering' });
    // 4NH
    assert.deepEqual([bytes(all).head, bytes(only('qa_outputs.weight')).head, bytes(none).head], [192, 192, 0]);
    for (const trains of [all, none]) {
      const classification = bertActivationBytes({ ...small, mode, trains });
      assert.deepEqual(bytes(trains).encoderLayers, classification.encoderLayers);
      assert.equal(bytes(trains).total, classification.total - classification.head + bytes(trains).head);
    }
  }
});

test('DistilBERT and RoBERTa keep what a BERT of their size keeps, each part by its own names', () => {
  const size = { vocab_size: 31, num_labels: 2 };
  const distilbert = parseDistilBertConfig({ model_type: 'distilbert', ...size, dim: 8, hidden_dim: 16, n_heads: 2, n_layers: 1 });
  const roberta = parseRobertaConfig({ model_type: 'roberta', ...size, hidden_size: 8, intermediate_size: 16, num_attention_heads: 2, num_hidden_layers: 1 });
  const bert = (...trained: string[]) => bertActivationBytes({ ...small, mode: 'paper', trains: only(...trained) });
  const D = 'distilbert.transformer.layer.0';
  for (const [config, name, bertName] of [
    [distilbert, `${D}.attention.q_lin`, `${L}.attention.self.query`],
    [distilbert, `${D}.attention.v_lin`, `${L}.attention.self.value`],
    [distilbert, `${D}.attention.out_lin`, `${L}.attention.output.dense`],
    [distilbert, `${D}.sa_layer_norm`, `${L}.attention.output.LayerNorm`],
    [distilbert, `${D}.ffn.lin1`, `${L}.intermediate.dense`],
    [distilbert, `${D}.ffn.lin2`, `${L}.output.dense`],
    [distilbert, `${D}.output_layer_norm`, `${L}.output.LayerNorm`],
    [distilbert, 'distilbert.embeddings.LayerNorm', 'bert.embeddings.LayerNorm'],
    [distilbert, 'pre_classifier', 'bert.pooler.dense'],
    [roberta, 'roberta.encoder.layer.0.attention.self.key', `${L}.attention.self.key`],
    [roberta, 'roberta.encoder.layer.0.output.dense', `${L}.output.dense`],
    [roberta, 'classifier.dense', 'bert.pooler.dense'],
    [roberta, 'classifier.out_proj', 'classifier'],
  ] as const) {
    const bytes = bertActivationBytes({ ...small, config, mode: 'paper', trains: only(`${name}.weight`) });
    assert.deepEqual(bytes, bert(`${bertName}.weight`), name);
    if (bertName !== 'classifier') assert.notDeepEqual(bytes, bert(), `${name} adds nothing`);
  }
});

test('codes fill whole words: three operands, probabilities, GELU nibbles and the down projection’s input each round up', () => {
  // N = 3, NH = 21 (24 bytes of codes), BAT² = 9 (12), NF = 15: 8 bytes of nibbles, 15 of bytes (16).
  const config = tinyConfig({ hidden_size: 7, num_attention_heads: 1, intermediate_size: 5, num_hidden_layers: 1 });
  const bytes = bertActivationBytes({ config, batchSize: 1, length: 3, mode: 'paper', trains: only(`${L}.output.dense.weight`), dropout: false });
  // A frozen LayerNorm: 8·floor(2.1) + 4·3.
  assert.deepEqual(bytes, { embeddings: 28, encoderLayers: [3 * 24 + 12 + 8 + 16 + 2 * 28], head: 28, total: 28 + 164 + 28 });
});

/** NH = 3145728, NF = 12582912, BAT² = 6291456. */
const base = { config: parseBertConfig({ model_type: 'bert', num_labels: 2 }), batchSize: 32, length: 128, dropout: false };

test('BERT-base at 32×128 keeps 2605 MiB in full, as measured in PyTorch but for the pooler, whose view there pins the whole sequence', () => {
  const bytes = bertActivationBytes({ ...base, mode: 'exact', trains: all });
  assert.deepEqual(new Set(bytes.encoderLayers), new Set([226557952]));
  assert.deepEqual([bytes.encoderLayers.length, bytes.embeddings, bytes.head, bytes.total], [12, 12615680, 196608, 2731507712]);
  // PyTorch keeps 4NH for the pooler where 4BH do.
  assert.equal(((bytes.total + 4 * 3145728 - 4 * 32 * 768) / MIB).toFixed(1), '2616.9');
});

test('BERT-base at 32×128 keeps 312.5 MiB under SlimFit when nothing trains', () => {
  const bytes = bertActivationBytes({ ...base, mode: 'paper', trains: none });
  // 3·3145728 + 6291456 + 6291456 + 2·(8·314572 + 4·4096)
  assert.deepEqual(new Set(bytes.encoderLayers), new Set([27086016]));
  assert.deepEqual([bytes.embeddings, bytes.head, bytes.total], [2532960, 98304, 327663456]);
  assert.equal((bytes.total / MIB).toFixed(1), '312.5');
});

test('BERT-base with some layers frozen keeps the sum of its parts, each in its own encoder layer', () => {
  const layer = (i: number, n: string) => `bert.encoder.layer.${i}.${n}.weight`;
  const trains = only(layer(0, 'attention.self.query'), layer(0, 'attention.self.key'), layer(5, 'output.dense'), layer(11, 'output.LayerNorm'), 'bert.pooler.dense.weight');
  const bytes = bertActivationBytes({ ...base, mode: 'paper', trains });
  const idle = 27086016;
  assert.deepEqual(
    bytes.encoderLayers,
    Array.from({ length: 12 }, (_, i) => idle + (i === 0 ? 12582912 : i === 5 ? 12582912 : i === 11 ? 12582912 - 2532960 : 0)),
  );
  assert.equal(bytes.head, 2 * 98304);
  assert.equal(bytes.total, 327663456 + 3 * 12582912 - 2532960 + 98304);
});

test('random sets of BERT-base average what the method was measured to keep: 377 MiB at a rate of 0.95, 526 at 0.80', () => {
  const layers = names(12);
  assert.equal(layers.length, 102);
  const r = new Random(5);
  for (const [active, measured] of [[6, 377], [21, 526]]) {
    let sum = 0;
    for (let n = 0; n < 300; n++) {
      const trained = new Set<string>();
      while (trained.size < active) trained.add(layers[r.int(layers.length)]);
      sum += bertActivationBytes({ ...base, mode: 'paper', trains: (name) => trained.has(name) }).total / MIB / 300;
    }
    assert.ok(Math.abs(sum / measured - 1) < 0.02, `${sum.toFixed(1)} MiB, measured ${measured}`);
  }
});
