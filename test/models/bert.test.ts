import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LabelError, SequenceTooLongError, ShapeError } from '../../src/errors';
import { bertActivationBytes } from '../../src/memory/activationBytes';
import { BertForMaskedLM, BertForSequenceClassification, maskedLmSpecs } from '../../src/models/bert';
import { sequenceClassificationSpecs } from '../../src/models/sequenceClassification';
import { initialWeights } from '../../src/models/model';
import { ForwardContext } from '../../src/nn/context';
import { SCHEMES } from '../../src/tape/scheme';
import { cpuEngine, gradientsOf, tinyBatch, tinyConfig, tinyModel, tinyWeights } from './fixtures';
import { referenceBert } from './referenceBert';

const shapeOf = (c: ReturnType<typeof tinyConfig>) => ({ H: c.hiddenSize, L: c.numHiddenLayers, A: c.numAttentionHeads, eps: c.layerNormEps });

test('BERT’s logits and loss equal a float64 reference, padding and token types included', async () => {
  const engine = await cpuEngine();
  for (const changes of [{}, { num_labels: 1 }, { num_hidden_layers: 1, layer_norm_eps: 1e-5 }]) {
    const config = tinyConfig(changes);
    const model = tinyModel(engine, config);
    const batch = tinyBatch(config, 3, 7);
    const ctx = ForwardContext.evaluation(engine);
    const out = model.forwardWithLoss(ctx, batch);
    const logits = await engine.read(out.logits.tensor);
    const loss = (await engine.read(out.loss.tensor))[0];
    engine.free(out.logits.tensor, out.loss.tensor);
    ctx.tape.dispose();
    const want = referenceBert(tinyWeights(config), shapeOf(config), batch);
    want.logits.flat().forEach((z, i) => assert.ok(Math.abs(z - logits[i]) < 1e-4, `logit ${i}: ${logits[i]} is not ${z}`));
    assert.ok(Math.abs(loss - want.loss) < 1e-5);
    model.dispose();
  }
  assert.equal(engine.memory().tensors, 0);
});

test('exact gradients equal finite differences of the float64 reference, for every parameter', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig();
  const model = tinyModel(engine, config);
  const batch = tinyBatch(config, 2, 6);
  const { grads } = await gradientsOf(model, ForwardContext.deterministic(engine, SCHEMES.exact), batch);
  const weights = new Map([...tinyWeights(config)].map(([n, w]) => [n, { shape: w.shape, data: Float64Array.from(w.data) }]));
  const h = 1e-5;
  for (const [name, grad] of grads) {
    // The element with the largest gradient, and one in the middle.
    const largest = grad.reduce((best, g, i) => (Math.abs(g) > Math.abs(grad[best]) ? i : best), 0);
    for (const i of [largest, grad.length >> 1]) {
      if (name.includes('word_embeddings') && i < config.hiddenSize) continue;
      const { data } = weights.get(name)!;
      const keep = data[i];
      const lossAt = (v: number) => {
        data[i] = v;
        return referenceBert(weights, shapeOf(config), batch).loss;
      };
      const want = (lossAt(keep + h) - lossAt(keep - h)) / (2 * h);
      data[i] = keep;
      assert.ok(Math.abs(grad[i] - want) < 1e-5 + 1e-3 * Math.abs(want), `${name}[${i}]: ${grad[i]} is not ${want}`);
    }
  }
  assert.equal(grads.size, model.parameters.size);
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('the padding row of the word embeddings gets no gradient', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig();
  const model = tinyModel(engine, config);
  const { grads } = await gradientsOf(model, ForwardContext.deterministic(engine, SCHEMES.exact), tinyBatch(config, 4, 6));
  const table = grads.get('bert.embeddings.word_embeddings.weight')!;
  assert.ok(table.slice(0, config.hiddenSize).every((g) => g === 0));
  assert.ok(table.some((g) => g !== 0));
  model.dispose();
});

test('what is kept equals the formula and the engine’s own count, for any frozen set, and nothing of it is left after backward', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig();
  const model = tinyModel(engine, config);
  const idle = engine.memory().tensors;
  const names = model.layers.map((l) => l.name);
  const sets: [string, (n: string) => boolean][] = [
    ['none frozen', () => false],
    ['all frozen', () => true],
    ['every second', (n) => names.indexOf(n) % 2 === 0],
    ['all but a query', (n) => n !== 'bert.encoder.layer.1.attention.self.query.weight'],
    ['only the MLP outputs train', (n) => !/layer\.\d+\.output\.dense/.test(n)],
  ];
  for (const mode of ['exact', 'paper'] as const)
    for (const [B, T] of [[2, 6], [3, 5]])
      for (const [what, frozen] of sets) {
        for (const p of model.parameters.values()) p.trains = !(names.includes(p.name) && frozen(p.name));
        const ctx = ForwardContext.deterministic(engine, SCHEMES[mode]);
        const out = model.forwardWithLoss(ctx, tinyBatch(config, B, T));
        const want = bertActivationBytes({ config, batchSize: B, length: T, mode, trains: (n) => !frozen(n), dropout: false });
        assert.equal(ctx.tape.ledger.totalBytes, want.total, `${mode}, ${what}`);
        assert.equal(engine.memory().live.activations, want.total, `${mode}, ${what}`);
        ctx.tape.backward(out.loss, () => {});
        engine.free(out.loss.tensor, out.logits.tensor);
        assert.equal(ctx.tape.ledger.liveBytes, 0);
        assert.equal(engine.memory().tensors, idle, `${mode}, ${what}: tensors left`);
      }
  model.dispose();
});

test('a frozen linear keeps no input, a frozen LayerNorm a tenth of its values', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig();
  const model = tinyModel(engine, config);
  for (const p of model.parameters.values()) p.trains = p.name.endsWith('bias');
  const ctx = ForwardContext.deterministic(engine, SCHEMES.paper);
  const out = model.forwardWithLoss(ctx, tinyBatch(config, 2, 6));
  assert.deepEqual([...new Set(ctx.tape.ledger.entries.map((e) => e.role))].sort(), ['quasi-static', 'static']);
  const norm = ctx.tape.ledger.entries.filter((e) => e.layer === 'bert.encoder.layer.0.output.LayerNorm');
  assert.deepEqual(norm.map((e) => [e.encoding, e.bytes]), [['top10', 8 * Math.floor(0.1 * 2 * 6 * 16)], ['float32', 4 * 2 * 6]]);
  ctx.tape.dispose();
  engine.free(out.loss.tensor, out.logits.tensor);
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('below the lowest part that trains nothing is kept and backward stops', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig();
  const model = tinyModel(engine, config);
  for (const p of model.parameters.values()) p.trains = p.name.startsWith('classifier');
  const ctx = ForwardContext.deterministic(engine, SCHEMES.exact);
  const { grads } = await gradientsOf(model, ctx, tinyBatch(config, 2, 6));
  assert.deepEqual([...grads.keys()].sort(), ['classifier.bias', 'classifier.weight']);
  assert.deepEqual(ctx.tape.ledger.entries.map((e) => e.layer), ['classifier']);
  model.dispose();
});

test('evaluation keeps nothing', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig();
  const model = tinyModel(engine, config);
  const ctx = ForwardContext.evaluation(engine);
  const out = model.forwardWithLoss(ctx, tinyBatch(config, 2, 6));
  assert.equal(engine.memory().live.activations, 0);
  engine.free(out.loss.tensor, out.logits.tensor);
  ctx.tape.dispose();
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('dropout draws equal masks for equal seeds and steps, and others for the next step', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig({ hidden_dropout_prob: 0.2, attention_probs_dropout_prob: 0.2 });
  const model = tinyModel(engine, config);
  const batch = tinyBatch(config, 2, 6);
  const run = async (seed: number, step: number) => (await gradientsOf(model, ForwardContext.training(engine, SCHEMES.paper, seed, step), batch)).loss;
  const first = await run(1, 0);
  assert.equal(await run(1, 0), first);
  assert.notEqual(await run(1, 1), first);
  assert.notEqual(await run(2, 0), first);
  model.dispose();
});

test('gradients under dropout equal finite differences under the same masks', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig({ hidden_dropout_prob: 0.2, attention_probs_dropout_prob: 0.2 });
  const batch = tinyBatch(config, 2, 6);
  const name = 'bert.encoder.layer.0.attention.self.value.weight';
  const lossWith = async (shift: number, i: number): Promise<number> => {
    const weights = tinyWeights(config);
    weights.get(name)!.data[i] += shift;
    const model = new BertForSequenceClassification(engine, config, weights);
    const { loss } = await gradientsOf(model, ForwardContext.training(engine, SCHEMES.exact, 5, 3), batch);
    model.dispose();
    return loss;
  };
  const model = tinyModel(engine, config);
  const grad = (await gradientsOf(model, ForwardContext.training(engine, SCHEMES.exact, 5, 3), batch)).grads.get(name)!;
  const i = grad.reduce((best, g, k) => (Math.abs(g) > Math.abs(grad[best]) ? k : best), 0);
  const h = 0.02;
  const want = ((await lossWith(h, i)) - (await lossWith(-h, i))) / (2 * h);
  assert.ok(Math.abs(grad[i] - want) < 0.02 * Math.abs(want) + 1e-4, `${grad[i]} is not ${want}`);
  model.dispose();
});

test('BERT-base has 102 freezable layers, and Hugging Face’s parameter names', () => {
  const base = tinyConfig({ num_hidden_layers: 12 });
  const specs = sequenceClassificationSpecs(base);
  assert.equal(specs.filter((s) => s.kind !== 'bias').length, 102);
  assert.equal(specs.length, 5 + 16 * 12 + 4);
  assert.equal(specs[5].name, 'bert.encoder.layer.0.attention.self.query.weight');
});

test('masked LM counts labelled positions only, and its tied table gets the sum of both gradients', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig();
  const specs = maskedLmSpecs(config);
  const text = tinyBatch(config, 2, 6);
  const labels = new Int32Array(12).fill(-100);
  labels[3] = 7;
  labels[8] = 11;
  const batch = { ...text, labels };
  const name = 'bert.embeddings.word_embeddings.weight';
  const lossWith = async (shift: number, i: number): Promise<{ loss: number; grad: Float32Array; rows: number }> => {
    const weights = initialWeights(specs, 0.3, 4);
    weights.get(name)!.data[i] += shift;
    const model = new BertForMaskedLM(engine, config, weights);
    const ctx = ForwardContext.deterministic(engine, SCHEMES.exact);
    const out = model.forwardWithLoss(ctx, batch);
    let grad: Float32Array = new Float32Array();
    const reads: Promise<void>[] = [];
    ctx.tape.backward(out.loss, (p, g) => p.name === name && reads.push(engine.read(g).then((d) => void (grad = d as Float32Array))));
    await Promise.all(reads);
    const loss = (await engine.read(out.loss.tensor))[0];
    const rows = out.logits.tensor.shape[0];
    engine.free(out.loss.tensor, out.logits.tensor);
    model.dispose();
    return { loss, grad, rows };
  };
  const { grad, rows } = await lossWith(0, 0);
  assert.equal(rows, 2);
  // Row 7 is a label (decoder only); the row of an input id has both parts.
  for (const i of [7 * config.hiddenSize + 2, batch.inputIds[0] * config.hiddenSize + 5]) {
    const h = 0.01;
    const want = ((await lossWith(h, i)).loss - (await lossWith(-h, i)).loss) / (2 * h);
    assert.ok(Math.abs(grad[i] - want) < 0.02 * Math.abs(want) + 2e-4, `${grad[i]} is not ${want}`);
  }
  assert.equal(engine.memory().tensors, 0);
});

test('a bad batch is refused before anything is computed', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig();
  const model = tinyModel(engine, config);
  const good = tinyBatch(config, 2, 6);
  const idle = engine.memory().tensors;
  const refuses = (batch: typeof good, type: new (...a: never[]) => Error, text: string) => {
    const ctx = ForwardContext.deterministic(engine, SCHEMES.paper);
    assert.throws(() => model.forwardWithLoss(ctx, batch), (e: Error) => e instanceof type && e.message.includes(text));
    ctx.tape.dispose();
    assert.equal(engine.memory().tensors, idle);
  };
  refuses({ ...good, labels: Int32Array.of(0, 3) }, LabelError, 'label 3');
  refuses({ ...good, labels: Int32Array.of(0) }, LabelError, '1 labels');
  refuses(tinyBatch(config, 1, 13), SequenceTooLongError, '12 positions');
  refuses({ ...good, inputIds: good.inputIds.map((v, i) => (i === 4 ? 31 : v)) }, ShapeError, 'inputIds[4] is 31');
  refuses({ ...good, inputIds: good.inputIds.slice(1) }, ShapeError, '11 values');
  model.dispose();
});
