import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { SquadDataset } from '../../src/data/squadDataset';
import { Tokenizer } from '../../src/data/tokenizer';
import { chooseEngine } from '../../src/engine/choose';
import { InvalidArgumentError, LabelError } from '../../src/errors';
import { parseRobertaConfig } from '../../src/hub/config';
import { BertForMaskedLM, BertForQuestionAnswering } from '../../src/models/bert';
import { initialWeights, type TextBatch } from '../../src/models/model';
import { questionAnsweringSpecs } from '../../src/models/questionAnswering';
import { RobertaForQuestionAnswering } from '../../src/models/roberta';
import { ForwardContext } from '../../src/nn/context';
import { Random } from '../../src/random';
import { SCHEMES } from '../../src/tape/scheme';
import { evaluate, SlimFitTrainer } from '../../src/training/trainer';
import { cpuEngine, gradientsOf, tinyBatch, tinyConfig, tinyModel } from './fixtures';
import { referenceBert } from './referenceBert';

const config = tinyConfig();
const shape = { H: config.hiddenSize, L: config.numHiddenLayers, A: config.numAttentionHeads, eps: config.layerNormEps };
const newFolder = () => mkdtempSync(path.join(tmpdir(), 'slimfit-qa-'));

function weights(seed = 1) {
  const random = new Random(seed + 100);
  const all = initialWeights(questionAnsweringSpecs(config), 0.3, seed);
  for (const { data } of all.values()) data.forEach((v, i) => (data[i] = v + 0.05 * random.normal()));
  return all;
}

function spans(batchSize: number, length: number, seed = 1): TextBatch {
  const random = new Random(seed + 50);
  const labels = Int32Array.from({ length: 2 * batchSize }, () => random.int(length));
  return { ...tinyBatch(config, batchSize, length, seed), labels };
}

test('logits are each row’s start scores and then its end scores, and the loss is the mean of both cross-entropies: as a float64 reference', async () => {
  const engine = await cpuEngine();
  const model = new BertForQuestionAnswering(engine, config, weights());
  for (const batch of [spans(3, 7), spans(1, 1, 2), spans(2, 12, 3)]) {
    const ctx = ForwardContext.evaluation(engine);
    const out = model.forwardWithLoss(ctx, batch);
    assert.deepEqual(out.logits.tensor.shape, [batch.batchSize, 2 * batch.length]);
    const logits = await engine.read(out.logits.tensor);
    const loss = (await engine.read(out.loss.tensor))[0];
    engine.free(out.logits.tensor, out.loss.tensor);
    ctx.tape.dispose();
    const want = referenceBert(weights(), shape, batch);
    want.logits.flat().forEach((z, i) => assert.ok(Math.abs(z - logits[i]) < 1e-4, `logit ${i}: ${logits[i]} is not ${z}`));
    assert.ok(Math.abs(loss - want.loss) < 1e-5, `${loss} is not ${want.loss}`);
  }
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('the span head’s gradients equal finite differences of the float64 reference', async () => {
  const engine = await cpuEngine();
  const model = new BertForQuestionAnswering(engine, config, weights());
  const batch = spans(2, 6);
  const { grads } = await gradientsOf(model, ForwardContext.deterministic(engine, SCHEMES.exact), batch);
  assert.equal(grads.size, model.parameters.size);
  const w = new Map([...weights()].map(([n, t]) => [n, { shape: t.shape, data: Float64Array.from(t.data) }]));
  const h = 1e-5;
  for (const name of ['qa_outputs.weight', 'bert.encoder.layer.1.output.dense.weight', 'bert.embeddings.position_embeddings.weight']) {
    const grad = grads.get(name)!;
    const { data } = w.get(name)!;
    for (const i of [0, grad.length >> 1, grad.reduce((best, g, k) => (Math.abs(g) > Math.abs(grad[best]) ? k : best), 0)]) {
      const keep = data[i];
      const lossAt = (v: number) => {
        data[i] = v;
        return referenceBert(w, shape, batch).loss;
      };
      const want = (lossAt(keep + h) - lossAt(keep - h)) / (2 * h);
      data[i] = keep;
      assert.ok(Math.abs(grad[i] - want) < 1e-5 + 1e-3 * Math.abs(want), `${name}[${i}]: ${grad[i]} is not ${want}`);
    }
  }
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('BERT-base for SQuAD has 101 freezable layers, the span head the last, and no pooler', () => {
  const specs = BertForQuestionAnswering.specs(tinyConfig({ num_hidden_layers: 12 }));
  const layers = specs.filter((s) => s.kind !== 'bias');
  assert.equal(layers.length, 101);
  assert.deepEqual([layers.at(-1)!.name, layers.at(-1)!.shape], ['qa_outputs.weight', [2, 16]]);
  assert.deepEqual(specs.filter((s) => /pooler|classifier/.test(s.name)), []);
});

test('evaluation hands the metric 2·T logits and two labels for each sequence', async () => {
  const engine = await cpuEngine();
  const model = new BertForQuestionAnswering(engine, config, weights());
  const batches = [spans(2, 6, 1), spans(1, 6, 2)];
  const data = { size: 3, batch: (i: ArrayLike<number>) => batches[i[0] === 0 ? 0 : 1] };
  let seen: number[] = [];
  const { loss } = await evaluate(model, data, 2, ({ logits, numLabels, labels }) => {
    seen = [logits.length, numLabels, labels.length];
    assert.deepEqual([...labels], [...batches[0].labels, ...batches[1].labels]);
    return {};
  });
  assert.deepEqual(seen, [3 * 12, 12, 6]);
  const [a, b] = batches.map((batch) => referenceBert(weights(), shape, batch).loss);
  assert.ok(Math.abs(loss - (2 * a + b) / 3) < 1e-5);
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('an answer outside its sequence is refused before anything is computed', async () => {
  const engine = await cpuEngine();
  const model = new BertForQuestionAnswering(engine, config, weights());
  const good = spans(2, 6);
  const idle = engine.memory().tensors;
  for (const [labels, text] of [
    [[0, 1, 2], /3 labels for a batch of 2/],
    [[0, 1, -1, 3], /first token -1 of answer 1 .*outside \[0, 6\)/],
    [[0, 6, 2, 3], /last token 6 of answer 0 .*outside \[0, 6\)/],
    [[0, 0.5, 2, 3], /last token 0\.5 of answer 0/],
    [[NaN, 0, 2, 3], /first token NaN of answer 0/],
  ] as const) {
    const ctx = ForwardContext.deterministic(engine, SCHEMES.paper);
    assert.throws(() => model.forwardWithLoss(ctx, { ...good, labels: Float32Array.from(labels) }), (e: Error) => e instanceof LabelError && text.test(e.message), text.source);
    ctx.tape.dispose();
    assert.equal(engine.memory().tensors, idle);
  }
  model.dispose();
});

test('a classifier’s or a masked LM’s folder gives its encoder; its head is ignored, the span head drawn afresh, and both are said', async () => {
  const engine = await cpuEngine();
  const name = 'bert.encoder.layer.1.output.dense.weight';
  for (const [make, ignored] of [
    [() => tinyModel(engine), /not used by this model: .*bert\.pooler\.dense\.weight.*classifier\.bias/],
    [() => BertForMaskedLM.fresh(engine, config, 3), /not used by this model: .*cls\.predictions\.transform\.dense\.weight/],
  ] as const) {
    const other = make();
    const folder = newFolder();
    await other.savePretrained(folder);
    const said: string[] = [];
    const model = await BertForQuestionAnswering.fromPretrained(folder, { engine, onNotice: (t) => said.push(t) });
    assert.match(said.join('\n'), /drawn afresh.*: qa_outputs\.weight, qa_outputs\.bias/);
    assert.match(said.join('\n'), ignored);
    assert.deepEqual((await model.weights()).get(name), (await other.weights()).get(name));
    // Three labels of the classifier are none of the span head's.
    assert.deepEqual([model.config.numLabels, [...model.parameters.get('qa_outputs.weight')!.shape]], [2, [2, 16]]);
    other.dispose();
    model.dispose();
  }
  assert.equal(engine.memory().tensors, 0);
});

test('a saved span model says what it is, with the two labels that Hugging Face’s library sizes its head by', async () => {
  const engine = await cpuEngine();
  const model = new BertForQuestionAnswering(engine, tinyConfig({ num_labels: 5 }), weights());
  const folder = newFolder();
  await model.savePretrained(folder);
  const json = JSON.parse(readFileSync(path.join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
  assert.deepEqual([json.architectures, json.model_type, json.id2label], [['BertForQuestionAnswering'], 'bert', { 0: 'LABEL_0', 1: 'LABEL_1' }]);
  model.dispose();
  await assert.rejects(BertForQuestionAnswering.fromPretrained(folder, { engine, labels: ['yes', 'no'] }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes('labels'));
  assert.equal(engine.memory().tensors, 0);
});

/** Who barks and who sleeps, in turns; the last question has no answer. */
const question = (n: number, verb: string, answer: string | undefined, context: string) => ({
  id: `${n}`,
  title: 't',
  question: `who ${verb} ?`,
  context,
  answers: answer ? [{ text: answer, start: context.indexOf(answer) }] : [],
  isImpossible: !answer,
});
const EXAMPLES = [
  question(0, 'barks', 'dog', 'the dog barks and the cat sleeps .'),
  question(1, 'sleeps', 'cat', 'the dog barks and the cat sleeps .'),
  question(2, 'barks', 'cat', 'the cat barks and the dog sleeps .'),
  question(3, 'sleeps', undefined, 'the cat barks and the dog .'),
];

test('windows of SQuAD questions train it until every answer, and every missing answer, is found', async () => {
  const tokenizer = Tokenizer.fromVocabulary(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'who', 'barks', 'sleeps', 'the', 'dog', 'cat', 'and', '.', '?']);
  const data = new SquadDataset(EXAMPLES, tokenizer, { maxLength: 16, maxQueryLength: 4 });
  const engine = await chooseEngine();
  const before = engine.memory().tensors;
  const model = BertForQuestionAnswering.fresh(engine, tinyConfig({ vocab_size: 14, max_position_embeddings: 16, hidden_size: 32, initializer_range: 0.2 }));
  const trainer = new SlimFitTrainer({ model, train: data, evaluation: data, metrics: data.metrics, freezeRate: 0.5, batchSize: 4, totalSteps: 150, learningRate: 5e-3, onWarning: () => {} });
  for await (const _ of trainer.steps());
  const { metrics } = await trainer.evaluate();
  assert.deepEqual([metrics.exact, metrics.f1, metrics.NoAns_f1], [100, 100, 100]);
  trainer.dispose();
  model.dispose();
  assert.equal(engine.memory().tensors, before);
});

test('windows of RoBERTa’s byte-level tokens train its span model until every answer, and every missing answer, is found', async () => {
  const tokenizer = Tokenizer.fromFolder(path.join(__dirname, '../data/fixtures/bpe'));
  const data = new SquadDataset(EXAMPLES, tokenizer, { maxLength: 48, maxQueryLength: 12, padding: 'max' });
  assert.equal(data.size, EXAMPLES.length);
  const engine = await chooseEngine();
  const before = engine.memory().tensors;
  const config = parseRobertaConfig({
    model_type: 'roberta', vocab_size: tokenizer.vocabSize, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 32, max_position_embeddings: 50,
    type_vocab_size: 1, hidden_act: 'gelu', layer_norm_eps: 1e-5, hidden_dropout_prob: 0, attention_probs_dropout_prob: 0, pad_token_id: tokenizer.padTokenId, initializer_range: 0.2,
  });
  const model = RobertaForQuestionAnswering.fresh(engine, config);
  const trainer = new SlimFitTrainer({ model, train: data, evaluation: data, metrics: data.metrics, freezeRate: 0.5, batchSize: 4, totalSteps: 150, learningRate: 5e-3, onWarning: () => {} });
  for await (const _ of trainer.steps());
  const { metrics } = await trainer.evaluate();
  assert.deepEqual([metrics.exact, metrics.f1, metrics.NoAns_f1], [100, 100, 100]);
  trainer.dispose();
  model.dispose();
  assert.equal(engine.memory().tensors, before);
});
