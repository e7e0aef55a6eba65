/** Bytes kept where biases freeze too: the formula against what the tape keeps, for random sets of parameters that train. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { AutoModelForQuestionAnswering, AutoModelForSequenceClassification } from '../../src/models/auto';
import { type ImageBatch, initialWeights, type LabelledBatch, type Model } from '../../src/models/model';
import { imageClassificationSpecs, ViTForImageClassification } from '../../src/models/vit';
import { ForwardContext } from '../../src/nn/context';
import { Random } from '../../src/random';
import { SCHEMES } from '../../src/tape/scheme';
import { cpuEngine, tinyBatch, tinyConfig } from '../models/fixtures';

/** In every mode, with ever fewer parameters that train: as many bytes as predicted, and no tensor left. */
async function check<Batch extends LabelledBatch>(model: Model<Batch>, batch: Batch, dropout: boolean): Promise<void> {
  const { engine } = model;
  const idle = engine.memory().tensors;
  const random = new Random(11);
  const totals = new Set<number>();
  for (const mode of ['paper', 'exact'] as const)
    for (const share of [0.5, 0.1, 0.05, 0.03, 0.02, 0.02, 0.02, 0]) {
      const isFreezable = new Set(model.layers.map((l) => l.name));
      const trains = new Map<string, boolean>();
      // Biases for themselves, not with their weights: the formula knows of both.
      for (const p of model.parameters.values()) trains.set(p.name, (p.trains = p.name.endsWith('bias') || isFreezable.has(p.name) ? random.uniform() < share : true));
      const ctx = dropout ? ForwardContext.training(engine, SCHEMES[mode], 1, 0) : ForwardContext.deterministic(engine, SCHEMES[mode]);
      const out = model.forwardWithLoss(ctx, batch);
      const want = model.predictActivations(batch, { mode, dropout, trains: (n) => trains.get(n)!, biasTrains: (n) => trains.get(n)! })!;
      const which = [...trains].filter(([, t]) => t).map(([n]) => n);
      assert.equal(ctx.tape.ledger.totalBytes, want.total, `${mode}: ${which}`);
      assert.equal(Object.values(want.parts).reduce((a, b) => a + b, 0), want.total);
      totals.add(want.total);
      const got = new Set<string>();
      ctx.tape.backward(out.loss, (p) => got.add(p.name));
      assert.deepEqual([...got].sort(), [...which].sort(), 'whoever trains gets a gradient, none other');
      engine.free(out.loss.tensor, out.logits.tensor);
      assert.equal(engine.memory().tensors, idle, `${mode}: tensors left`);
    }
  assert.ok(totals.size >= 8, `backward ended at many places: ${[...totals]}`);
}

for (const architecture of ['bert', 'distilbert', 'roberta'] as const)
  for (const head of ['classification', 'answering'] as const)
    test(`${architecture}, ${head}: nothing is kept below the lowest part that trains, and the formula knows it to the byte`, async () => {
      const engine = await cpuEngine();
      const auto = head === 'answering' ? AutoModelForQuestionAnswering : AutoModelForSequenceClassification;
      const model = await auto.fromPretrained(path.join(__dirname, '../models/fixtures', `${architecture}-${head}`), { engine });
      const { vocabSize, padTokenId } = model.config;
      const batch = tinyBatch({ ...tinyConfig(), vocabSize, padTokenId, numLabels: 2 }, 3, 5);
      await check(model, { ...batch, tokenTypeIds: batch.tokenTypeIds.map(() => 0), labels: head === 'answering' ? Int32Array.of(0, 1, 2, 3, 1, 4) : Int32Array.of(0, 1, 0) }, true);
      model.dispose();
      assert.equal(engine.memory().tensors, 0);
    });

for (const model_type of ['vit', 'deit'])
  test(`${model_type}: the same`, async () => {
    const engine = await cpuEngine();
    const config = parseViTConfig({ model_type, image_size: 8, patch_size: 4, hidden_size: 12, num_hidden_layers: 2, num_attention_heads: 3, intermediate_size: 20, num_labels: 3 });
    const model = new ViTForImageClassification(engine, config, initialWeights(imageClassificationSpecs(config), 0.3, 1));
    const random = new Random(1);
    const batch: ImageBatch = { pixelValues: Float32Array.from({ length: 2 * 3 * 64 }, () => random.normal()), labels: Int32Array.of(0, 2), batchSize: 2, channels: 3, height: 8, width: 8 };
    await check(model, batch, false);
    model.dispose();
    assert.equal(engine.memory().tensors, 0);
  });
