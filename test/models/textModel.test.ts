/** Every text architecture with both heads, against what Hugging Face's transformers computes on the same weights (fixtures/make.py). */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { chooseEngine } from '../../src/engine/choose';
import type { Engine } from '../../src/engine/engine';
import { SequenceTooLongError, ShapeError } from '../../src/errors';
import type { TextConfig } from '../../src/hub/config';
import { readSafetensors, type StoredTensor } from '../../src/hub/safetensors';
import { bertActivationBytes } from '../../src/memory/activationBytes';
import { AutoModelForQuestionAnswering, AutoModelForSequenceClassification } from '../../src/models/auto';
import { DistilBertForSequenceClassification } from '../../src/models/distilbert';
import type { TextBatch } from '../../src/models/model';
import type { QuestionAnsweringModel } from '../../src/models/questionAnswering';
import { RobertaForSequenceClassification } from '../../src/models/roberta';
import type { SequenceClassificationModel } from '../../src/models/sequenceClassification';
import { ForwardContext } from '../../src/nn/context';
import { Random } from '../../src/random';
import { SCHEMES } from '../../src/tape/scheme';
import { SlimFitTrainer } from '../../src/training/trainer';
import { cpuEngine } from './fixtures';

type AnyTextModel = SequenceClassificationModel | QuestionAnsweringModel;

const ARCHITECTURES = ['bert', 'distilbert', 'roberta'] as const;
const HEADS = ['classification', 'answering'] as const;
const fixtureFolder = (architecture: string, head: string) => path.join(__dirname, 'fixtures', `${architecture}-${head}`);

/** A model of transformers, and what it computed. */
async function fixture(engine: Engine, architecture: string, head: string): Promise<{ model: AnyTextModel; batch: TextBatch; expected: Map<string, StoredTensor> }> {
  const folder = fixtureFolder(architecture, head);
  const auto = head === 'answering' ? AutoModelForQuestionAnswering : AutoModelForSequenceClassification;
  const model = await auto.fromPretrained(folder, { engine, onNotice: (t) => assert.fail(t) });
  const expected = await readSafetensors(path.join(folder, 'expected.safetensors'));
  const ints = (name: string) => expected.get(name)?.data as Int32Array | undefined;
  const [batchSize, length] = expected.get('input_ids')!.shape;
  const inputIds = ints('input_ids')!;
  return { model, expected, batch: { inputIds, tokenTypeIds: ints('token_type_ids') ?? inputIds.map(() => 0), attentionMask: ints('attention_mask')!, labels: ints('labels')!, batchSize, length } };
}

async function run(model: AnyTextModel, ctx: ForwardContext, batch: TextBatch): Promise<{ logits: Float32Array; shape: readonly number[]; loss: number; grads: Map<string, Float32Array> }> {
  const { engine } = model;
  const out = model.forwardWithLoss(ctx, batch);
  const pending: Promise<[string, Float32Array]>[] = [];
  ctx.tape.backward(out.loss, (p, g) => pending.push(engine.read(g).then((d) => [p.name, d as Float32Array])));
  const result = { logits: (await engine.read(out.logits.tensor)) as Float32Array, shape: out.logits.tensor.shape, loss: (await engine.read(out.loss.tensor))[0], grads: new Map(await Promise.all(pending)) };
  engine.free(out.logits.tensor, out.loss.tensor);
  return result;
}

const norm = (a: ArrayLike<number>): number => Math.sqrt(Array.from(a).reduce((s, v) => s + v * v, 0));

for (const architecture of ARCHITECTURES)
  for (const head of HEADS)
    test(`${architecture}, ${head}: logits, loss and the exact gradient of every parameter are those of Hugging Face’s library, padding included`, async () => {
      for (const engine of new Set([await cpuEngine(), await chooseEngine()])) {
        const before = engine.memory().tensors;
        const { model, batch, expected } = await fixture(engine, architecture, head);
        const { logits, shape, loss, grads } = await run(model, ForwardContext.deterministic(engine, SCHEMES.exact), batch);
        const want = expected.get('logits')!;
        assert.deepEqual(shape, want.shape);
        want.data.forEach((z, i) => assert.ok(Math.abs(z - logits[i]) < 1e-5, `${engine.name}: logit ${i} is ${logits[i]}, not ${z}`));
        assert.ok(Math.abs(loss - expected.get('loss')!.data[0]) < 1e-5);
        const names = [...expected.keys()].flatMap((k) => (k.startsWith('grad.') ? [k.slice(5)] : []));
        assert.deepEqual([...grads.keys()].sort(), names.sort());
        assert.deepEqual([...model.parameters.keys()].sort(), names.sort());
        for (const name of names) {
          const g = expected.get(`grad.${name}`)!.data;
          // A key's bias moves no probability: its gradient is rounding alone.
          const off = norm(g.map((v, i) => v - grads.get(name)![i]));
          assert.ok(off < 1e-4 * norm(g) + 1e-7, `${engine.name}: gradient of ${name} is off by ${off} of ${norm(g)}`);
        }
        model.dispose();
        assert.equal(engine.memory().tensors, before);
      }
    });

test('the rows of padding get no gradient: words everywhere, positions in RoBERTa', async () => {
  const engine = await cpuEngine();
  for (const architecture of ARCHITECTURES) {
    const { model, batch } = await fixture(engine, architecture, 'classification');
    const { grads } = await run(model, ForwardContext.deterministic(engine, SCHEMES.exact), batch);
    const { padTokenId, hiddenSize: H } = model.config;
    const row = (table: string, r: number) => grads.get(`${architecture}.embeddings.${table}.weight`)!.slice(r * H, (r + 1) * H);
    assert.ok(row('word_embeddings', padTokenId).every((g) => g === 0));
    assert.ok(row('position_embeddings', architecture === 'roberta' ? 2 : 0).some((g) => g !== 0));
    if (architecture === 'roberta') for (const r of [0, 1]) assert.ok(row('position_embeddings', r).every((g) => g === 0), 'RoBERTa’s positions begin at row 2');
    model.dispose();
  }
  assert.equal(engine.memory().tensors, 0);
});

/** The same model with other settings in its config. */
async function changed(model: AnyTextModel, engine: Engine, changes: Partial<TextConfig>): Promise<AnyTextModel> {
  const type = model.constructor as new (engine: Engine, config: TextConfig, weights: Awaited<ReturnType<AnyTextModel['weights']>>) => AnyTextModel;
  return new type(engine, { ...model.config, ...changes } as TextConfig, await model.weights());
}

for (const architecture of ARCHITECTURES)
  for (const head of HEADS)
    test(`${architecture}, ${head}: what is kept equals the formula and the engine’s own count, for any frozen set, and nothing of it is left after backward`, async () => {
      const engine = await cpuEngine();
      const plain = await fixture(engine, architecture, head);
      const dropping = await changed(plain.model, engine, { hiddenDropoutProb: 0.1, attentionProbsDropoutProb: 0.1, classifierDropout: 0.1, spanDropout: 0.1 });
      const sets = (names: readonly string[]): [string, (n: string) => boolean][] => [
        ['none frozen', () => false],
        ['all frozen', () => true],
        ['every second', (n) => names.indexOf(n) % 2 === 0],
        ['every second but the first', (n) => names.indexOf(n) % 2 === 1],
        ['only the head trains', (n) => n.startsWith(`${architecture}.`) && !n.includes('pooler')],
      ];
      for (const [model, dropout] of [[plain.model, false], [dropping, true]] as const) {
        const idle = engine.memory().tensors;
        const names = model.layers.map((l) => l.name);
        for (const mode of ['exact', 'paper'] as const)
          for (const [what, frozen] of sets(names)) {
            for (const p of model.parameters.values()) p.trains = !(names.includes(p.name) && frozen(p.name));
            const ctx = dropout ? ForwardContext.training(engine, SCHEMES[mode], 1, 0) : ForwardContext.deterministic(engine, SCHEMES[mode]);
            const out = model.forwardWithLoss(ctx, plain.batch);
            const plan = { mode, dropout, trains: (n: string) => !frozen(n) };
            const predicted = model.predictActivations(plain.batch, plan);
            const { head: headBytes, total } = bertActivationBytes({ config: model.config, ...plain.batch, ...plan, head: head === 'answering' ? 'question answering' : 'sequence classification' });
            assert.deepEqual([predicted.total, predicted.parts.head], [total, headBytes]);
            assert.equal(ctx.tape.ledger.totalBytes, total, `${mode}, ${what}`);
            assert.equal(engine.memory().live.activations, total, `${mode}, ${what}`);
            ctx.tape.backward(out.loss, () => {});
            engine.free(out.loss.tensor, out.logits.tensor);
            assert.equal(ctx.tape.ledger.liveBytes, 0);
            assert.equal(engine.memory().tensors, idle, `${mode}, ${what}: tensors left`);
          }
      }
      plain.model.dispose();
      dropping.dispose();
      assert.equal(engine.memory().tensors, 0);
    });

test('DistilBERT draws one mask fewer a layer than BERT: nothing is dropped between attention and its LayerNorm', async () => {
  const engine = await cpuEngine();
  // Every layer of BERT: attention, attention output, MLP output; before it the embeddings', behind it the classifier's.
  for (const [architecture, draws] of [['bert', 1 + 3 * 2 + 1], ['distilbert', 1 + 2 * 2 + 1], ['roberta', 1 + 3 * 2 + 2]] as const) {
    const { model, batch } = await fixture(engine, architecture, 'classification');
    const dropping = await changed(model, engine, { hiddenDropoutProb: 0.1, attentionProbsDropoutProb: 0.1, classifierDropout: 0.1 });
    const ctx = ForwardContext.training(engine, SCHEMES.exact, 1, 0);
    const out = dropping.forwardWithLoss(ctx, batch);
    assert.equal(ctx.nextDropout()!.counter, draws, architecture);
    engine.free(out.logits.tensor, out.loss.tensor);
    ctx.tape.dispose();
    model.dispose();
    dropping.dispose();
  }
  assert.equal(engine.memory().tensors, 0);
});

for (const architecture of ARCHITECTURES)
  for (const head of HEADS)
    test(`${architecture}, ${head}: what is saved is loaded with the same config, weights and logits`, async () => {
      const engine = await cpuEngine();
      const { model, batch, expected } = await fixture(engine, architecture, head);
      const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-text-'));
      await model.savePretrained(folder);
      const auto = head === 'answering' ? AutoModelForQuestionAnswering : AutoModelForSequenceClassification;
      const again = await auto.fromPretrained(folder, { engine, onNotice: (t) => assert.fail(t) });
      assert.equal(again.constructor, model.constructor);
      assert.deepEqual(again.config, model.config);
      assert.deepEqual(await again.weights(), await model.weights());
      const { logits } = await run(again, ForwardContext.deterministic(engine, SCHEMES.paper), batch);
      expected.get('logits')!.data.forEach((z, i) => assert.ok(Math.abs(z - logits[i]) < 1e-5));
      model.dispose();
      again.dispose();
      assert.equal(engine.memory().tensors, 0);
    });

/** Sequences whose label can be read off them: the class is whether token 5 is there; the answer begins at token 5 and ends at token 6. */
function learnable(config: TextConfig, head: string): { size: number; batch(indices: ArrayLike<number>): TextBatch } {
  const length = 8;
  const rows = Array.from({ length: 32 }, (_, n) => {
    const random = new Random(n);
    const ids = Array.from({ length }, () => 7 + random.int(20));
    const begin = 1 + random.int(4);
    const end = begin + 1 + random.int(2);
    if (head === 'answering' || n % 2 === 1) ids[begin] = 5;
    if (head === 'answering') ids[end] = 6;
    const real = n % 4 === 3 ? length - 1 : length;
    return { ids: ids.map((id, t) => (t < real ? id : config.padTokenId)), mask: ids.map((_, t) => (t < real ? 1 : 0)), labels: head === 'answering' ? [begin, end] : [n % 2] };
  });
  return {
    size: rows.length,
    batch: (indices) => {
      const chosen = Array.from(indices, (i) => rows[i]);
      const inputIds = Int32Array.from(chosen.flatMap((r) => r.ids));
      return { inputIds, tokenTypeIds: inputIds.map(() => 0), attentionMask: Int32Array.from(chosen.flatMap((r) => r.mask)), labels: Int32Array.from(chosen.flatMap((r) => r.labels)), batchSize: chosen.length, length };
    },
  };
}

for (const architecture of ARCHITECTURES)
  for (const head of HEADS)
    test(`${architecture}, ${head}: the trainer learns in both modes with half of the layers frozen, and predicts the bytes of every step`, async () => {
      const engine = await chooseEngine();
      const before = engine.memory().tensors;
      for (const mode of ['paper', 'exact'] as const) {
        const { model } = await fixture(engine, architecture, head);
        const data = learnable(model.config, head);
        const trainer = new SlimFitTrainer({ model, train: data, evaluation: data, freezeRate: 0.5, mode, batchSize: 16, totalSteps: 60, learningRate: 5e-3, schedule: 'constant', onWarning: () => {} });
        const { loss: first } = await trainer.evaluate();
        for await (const step of trainer.steps()) {
          const trains = new Set(step.active.map((i) => model.layers[i].name));
          assert.equal(step.activationBytes, model.predictActivations({ batchSize: 16, length: 8 }, { mode, dropout: true, trains: (n) => trains.has(n) }).total);
        }
        const { loss: last } = await trainer.evaluate();
        assert.ok(last < 0.5 * first, `${mode}: the loss went from ${first} to ${last}`);
        trainer.dispose();
        model.dispose();
        assert.equal(engine.memory().tensors, before);
      }
    });

test('RoBERTa has fewer positions than rows of its table; DistilBERT does not look at token types', async () => {
  const engine = await cpuEngine();
  const roberta = await fixture(engine, 'roberta', 'classification');
  assert.equal(roberta.model.maxLength, 12);
  const idle = engine.memory().tensors;
  const ctx = ForwardContext.evaluation(engine);
  const long = { ...roberta.batch, inputIds: new Int32Array(13).fill(5), tokenTypeIds: new Int32Array(13), attentionMask: new Int32Array(13).fill(1), labels: Int32Array.of(0), batchSize: 1, length: 13 };
  assert.throws(() => roberta.model.forward(ctx, long), (e: Error) => e instanceof SequenceTooLongError && e.message.includes('12 positions'));
  // A pair's second text has type 1, of which RoBERTa's table has no row.
  assert.throws(() => roberta.model.forward(ctx, { ...roberta.batch, tokenTypeIds: roberta.batch.inputIds.map(() => 1) }), (e: Error) => e instanceof ShapeError && e.message.includes('tokenTypeIds[0] is 1'));
  assert.equal(engine.memory().tensors, idle);
  roberta.model.dispose();

  const distilbert = await fixture(engine, 'distilbert', 'classification');
  const { logits } = await run(distilbert.model, ForwardContext.deterministic(engine, SCHEMES.exact), { ...distilbert.batch, tokenTypeIds: distilbert.batch.inputIds.map(() => 1) });
  distilbert.expected.get('logits')!.data.forEach((z, i) => assert.ok(Math.abs(z - logits[i]) < 1e-5));
  ctx.tape.dispose();
  distilbert.model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('a fresh DistilBERT draws its positions as sines and cosines when its config says so', async () => {
  const engine = await cpuEngine();
  const { model } = await fixture(engine, 'distilbert', 'classification');
  const config = { ...(model.config as DistilBertForSequenceClassification['config']), sinusoidalPosEmbds: true };
  const fresh = DistilBertForSequenceClassification.fresh(engine, config);
  const table = (await fresh.weights()).get('distilbert.embeddings.position_embeddings.weight')!.data;
  const H = config.hiddenSize;
  for (const [pos, j] of [[0, 0], [0, 1], [3, 0], [3, 1], [5, 4], [13, 15]]) {
    const angle = pos / 10000 ** ((2 * (j >> 1)) / H);
    assert.ok(Math.abs(table[pos * H + j] - (j % 2 ? Math.cos(angle) : Math.sin(angle))) < 1e-6, `${pos}, ${j}`);
  }
  model.dispose();
  fresh.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('models of the base sizes have as many freezable layers as their papers’ architectures have weights', async () => {
  const engine = await cpuEngine();
  const { config } = (await fixture(engine, 'roberta', 'classification').then(({ model }) => (model.dispose(), model))) as RobertaForSequenceClassification;
  const freezable = (specs: readonly { kind: string }[]) => specs.filter((s) => s.kind !== 'bias').length;
  // Words, positions, types, norm; eight a layer; two of the head.
  assert.equal(freezable(RobertaForSequenceClassification.specs({ ...config, numHiddenLayers: 12 })), 4 + 8 * 12 + 2);
  const distilbert = (await fixture(engine, 'distilbert', 'classification').then(({ model }) => (model.dispose(), model))) as DistilBertForSequenceClassification;
  assert.equal(freezable(DistilBertForSequenceClassification.specs({ ...distilbert.config, numHiddenLayers: 6 })), 3 + 8 * 6 + 2);
});
