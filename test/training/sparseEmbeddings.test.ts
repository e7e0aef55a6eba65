/** Word embeddings whose gradient, update and moments are of the rows that a step looks up: against runs that update the whole table. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Engine } from '../../src/engine/engine';
import { InvalidArgumentError } from '../../src/errors';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { BertForMaskedLM, BertForSequenceClassification, IGNORED_LABEL } from '../../src/models/bert';
import { AutoFreeze } from '../../src/freezing/autoFreeze';
import { markTouchedRows } from '../../src/models/sparseEmbeddings';
import type { BatchSource, Model, TextBatch } from '../../src/models/model';
import { ViTForImageClassification } from '../../src/models/vit';
import { ForwardContext } from '../../src/nn/context';
import { Random } from '../../src/random';
import { SCHEMES } from '../../src/tape/scheme';
import { SlimFitTrainer, type TrainerOptions } from '../../src/training/trainer';
import { cpuEngine, gradientsOf, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

const WORDS = 'bert.embeddings.word_embeddings.weight';
const config = tinyConfig();
const [B, T] = [8, 6];

async function withEngine(fn: (engine: Engine) => Promise<void>): Promise<void> {
  const engine = await cpuEngine();
  await fn(engine);
  assert.equal(engine.memory().tensors, 0, 'tensors left');
  engine.dispose();
}

/** Batches of given words, one after the other. */
const wordsIn = (words: (step: number, place: number) => number): BatchSource<TextBatch> => {
  const some = tinyBatch(config, B, T);
  return { size: B, batch: (rows, epoch = 0) => ({ ...some, inputIds: Int32Array.from({ length: rows.length * T }, (_, i) => words(epoch, i)), attentionMask: some.attentionMask.slice(0, rows.length * T), tokenTypeIds: some.tokenTypeIds.slice(0, rows.length * T), labels: Int32Array.from(rows, (r) => r % 3), batchSize: rows.length }) };
};

const usual: Partial<TrainerOptions> = { batchSize: B, learningRate: 0.01, schedule: 'constant', totalSteps: 20, freezeRate: 0.5, seed: 3, shuffle: false, magnitude: 'relative-l2', onWarning: () => {} };

async function run(engine: Engine, train: BatchSource<TextBatch>, options: Partial<TrainerOptions>, steps = 5) {
  const model = tinyModel(engine, config);
  const trainer = new SlimFitTrainer({ model, train, ...usual, ...options });
  const records = [];
  for await (const r of trainer.steps(steps)) records.push(r);
  const weights = await model.weights();
  trainer.dispose();
  model.dispose();
  return { records, weights };
}

test('where each step looks up every word, training is that of whole tables: losses, decisions and weights, in micro-batches too', () =>
  withEngine(async (engine) => {
    const every = wordsIn((step, i) => (i * 7 + step) % config.vocabSize);
    for (const options of [{}, { gradientAccumulationSteps: 3 }, { mode: 'tuned' }, { freezeRate: 0, onNonFinite: 'stop' }, { policy: (l: ConstructorParameters<typeof AutoFreeze>[0]) => new AutoFreeze(l, { evaluateEvery: 2 }) }] as Partial<TrainerOptions>[]) {
      const [rows, whole] = [await run(engine, every, { ...options, sparseEmbeddings: true }), await run(engine, every, options)];
      assert.ok(whole.records.some((r) => r.active.includes(0)), 'the table trains');
      for (const [i, r] of rows.records.entries()) {
        assert.ok(Math.abs(r.loss - whole.records[i].loss) < 1e-6, `step ${i}: loss ${r.loss}, not ${whole.records[i].loss}`);
        assert.deepEqual(r.frozen, whole.records[i].frozen);
        assert.ok(Math.abs(r.updateMagnitudes[0] - whole.records[i].updateMagnitudes[0]) < 1e-5);
        assert.deepEqual([r.memory.live.workspace, r.memory.live.gradients], [0, 0]);
      }
      for (const [name, { data }] of whole.weights) data.forEach((w, i) => assert.ok(Math.abs(rows.weights.get(name)!.data[i] - w) < 1e-6, `${name}[${i}]`));
    }
  }));

test('words that no step looks up stand still and have no moments, the others learn, and the gradient is of their rows alone', () =>
  withEngine(async (engine) => {
    const before = (await (async () => { const m = tinyModel(engine, config); const w = await m.readWeight(WORDS); m.dispose(); return w; })());
    const few = wordsIn((step, i) => 1 + ((i + step) % 5));
    const { records, weights } = await run(engine, few, { sparseEmbeddings: true, freezeRate: 0, optimizer: { weightDecay: 0.1 } });
    const whole = await run(engine, few, { freezeRate: 0, optimizer: { weightDecay: 0.1 } });
    const H = config.hiddenSize;
    weights.get(WORDS)!.data.forEach((w, i) => assert.equal(w === before[i], !(Math.floor(i / H) >= 1 && Math.floor(i / H) <= 5), `word ${Math.floor(i / H)}`));
    // Weight decay moves the others where the whole table is updated.
    assert.notEqual(whole.weights.get(WORDS)!.data[10 * H], before[10 * H]);
    const [sparse, dense] = [records, whole.records].map((r) => r[2].memory);
    assert.equal(dense.live.optimizer - sparse.live.optimizer, 2 * 4 * H * (config.vocabSize - 5));
    assert.ok(sparse.totalPeak < dense.totalPeak);
  }));

test('the gradient of touched rows is that of the whole table, row by row, the padding’s included; the others’ are 0', () =>
  withEngine(async (engine) => {
    const model = tinyModel(engine, config);
    const batch = tinyBatch(config, 4, T, 5);
    const pass = () => gradientsOf(model, ForwardContext.deterministic(engine, SCHEMES.exact), batch);
    const whole = (await pass()).grads.get(WORDS)!;
    const unmark = markTouchedRows(model, [batch, tinyBatch(config, 2, T, 6)]);
    const { rows } = model.parameters.get(WORDS)!.touched!;
    assert.ok(rows.includes(config.padTokenId) && rows.length < config.vocabSize);
    assert.deepEqual([...rows], [...new Set([...batch.inputIds, ...tinyBatch(config, 2, T, 6).inputIds])].sort((a, b) => a - b));
    const got = (await pass()).grads.get(WORDS)!;
    const H = config.hiddenSize;
    assert.equal(got.length, rows.length * H);
    rows.forEach((row, k) => got.slice(k * H, (k + 1) * H).forEach((g, j) => assert.ok(Math.abs(g - whole[row * H + j]) < 1e-7)));
    assert.ok(whole.every((g, i) => g === 0 || rows.includes(Math.floor(i / H))));
    unmark();
    assert.equal(model.parameters.get(WORDS)!.touched, undefined);
    // A frozen table is not marked.
    model.parameters.get(WORDS)!.trains = false;
    markTouchedRows(model, [batch])();
    assert.deepEqual(await pass().then(({ grads }) => grads.has(WORDS)), false);
    model.dispose();
  }));

test('tables that are read as a whole, as by the tied decoder of masked LM, and models without words train as they do without', () =>
  withEngine(async (engine) => {
    const random = new Random(2);
    const vit = parseViTConfig({ model_type: 'vit', image_size: 8, patch_size: 4, hidden_size: 12, num_hidden_layers: 1, num_attention_heads: 3, intermediate_size: 21, num_labels: 3, initializer_range: 0.3 });
    const pixels = Float32Array.from({ length: 2 * 192 }, () => random.normal());
    const masked = { ...tinyBatch(config, 2, T), labels: Int32Array.from({ length: 2 * T }, (_, i) => (i % 3 === 0 ? 5 : IGNORED_LABEL)) };
    const tasks: (() => [Model<never>, object])[] = [
      () => [BertForMaskedLM.fresh(engine, { ...config, initializerRange: 0.3 }) as never, masked],
      () => [ViTForImageClassification.fresh(engine, vit) as never, { pixelValues: pixels, labels: Int32Array.of(0, 1), batchSize: 2, channels: 3, height: 8, width: 8 }],
    ];
    for (const make of tasks) {
      const results = [];
      for (const sparseEmbeddings of [false, true]) {
        const [model, batch] = make();
        const trainer = new SlimFitTrainer<never>({ model, train: { size: 2, batch: () => batch as never }, batchSize: 2, totalSteps: 5, seed: 1, sparseEmbeddings, onWarning: () => {} });
        for await (const _ of trainer.steps(3));
        results.push(await model.weights());
        trainer.dispose();
        model.dispose();
      }
      assert.deepEqual(results[1], results[0]);
    }
  }));

test('a batch with a word outside the vocabulary is refused as ever, and nothing is left of the step', () =>
  withEngine(async (engine) => {
    const model = tinyModel(engine, config);
    const trainer = new SlimFitTrainer({ model, train: wordsIn((step) => (step === 1 ? config.vocabSize : 3)), ...usual, sparseEmbeddings: true, freezeRate: 0 });
    await trainer.step();
    const { tensors } = engine.memory();
    await assert.rejects(trainer.step(), /inputIds\[0\] is 31/);
    assert.equal(engine.memory().tensors, tensors);
    assert.equal(model.parameters.get(WORDS)!.touched, undefined);
    assert.throws(() => new SlimFitTrainer({ model, train: wordsIn(() => 1), sparseEmbeddings: true, frozenParameters: 'zerograd' }), InvalidArgumentError);
    trainer.dispose();
    model.dispose();
  }));

test('a rewind takes moments by rows back, rows that came later included', () =>
  withEngine(async (engine) => {
    const model = BertForSequenceClassification.fresh(engine, { ...config, initializerRange: 0.3 });
    const trainer = new SlimFitTrainer({ model, train: wordsIn((step, i) => (3 * step + (i % 4)) % config.vocabSize), ...usual, sparseEmbeddings: true, freezeRate: 0 });
    await trainer.step();
    const early = await trainer.snapshot();
    const runs = [];
    for (let k = 0; k < 2; k++) {
      trainer.rewind(early);
      const losses = [];
      for await (const r of trainer.steps(3)) losses.push(r.loss);
      runs.push([losses, await model.readWeight(WORDS), engine.memory().live.optimizer]);
    }
    assert.deepEqual(runs[1], runs[0]);
    trainer.dispose();
    model.dispose();
  }));
