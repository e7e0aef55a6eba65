/** 500 training steps, each with other layers frozen than the one before: what the engine holds does not grow. Counts are printed. On Dawn's null device, which records everything and computes nothing. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { MOST_BIND_GROUPS } from '../../../src/engine/webgpu/gpu';
import type { WebgpuEngine } from '../../../src/engine/webgpu/webgpuEngine';
import { BertForSequenceClassification } from '../../../src/models/bert';
import { Random } from '../../../src/random';
import { SlimFitTrainer, type TrainerOptions } from '../../../src/training/trainer';
import { tinyBatch, tinyConfig } from '../../models/fixtures';
import { nullEngine } from './nullEngine';

const COUNTS = ['tensors', 'totalLive', 'buffers', 'bytes', 'pipelines', 'bindGroups', 'stagingBuffers'] as const;
type Counts = Record<(typeof COUNTS)[number], number>;

/** Runs 500 steps and gives the counts after every 50th, which are printed. @param before each step */
async function counted(t: TestContext, engine: WebgpuEngine, options: Partial<TrainerOptions>, before: (trainer: SlimFitTrainer, step: number) => void = () => {}): Promise<Counts[]> {
  const config = tinyConfig({ hidden_size: 32, intermediate_size: 64, hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1 });
  const model = BertForSequenceClassification.fresh(engine, config, 1);
  const batches = [1, 2, 3, 4].map((seed) => tinyBatch(config, 4, 8, seed));
  const trainer = new SlimFitTrainer({ model, train: { size: 16, batch: (indices) => batches[indices[0] % 4] }, batchSize: 4, totalSteps: 500, seed: 1, onWarning: () => {}, ...options });
  const all: Counts[] = [];
  for (let step = 1; step <= 500; step++) {
    before(trainer, step);
    await trainer.step();
    if (step % 50 > 0) continue;
    const now = { ...engine.counts(), ...engine.memory() };
    all.push(Object.fromEntries(COUNTS.map((c) => [c, now[c]])) as Counts);
    t.diagnostic(`step ${step}: ${COUNTS.map((c) => `${now[c]} ${c === 'totalLive' ? 'bytes of tensors' : c === 'bytes' ? 'bytes of buffers' : c}`).join(', ')}; ${now.made} buffers and ${now.bindGroupsMade} bind groups made so far`);
  }
  const frozen = new Set(Array.from({ length: trainer.history.length }, (_, i) => trainer.history.trainedIn(i).join('')));
  assert.ok(frozen.size > 3, `${frozen.size} frozen sets`);
  trainer.dispose();
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
  return all;
}

test('over 500 steps no tensor, buffer, pipeline, bind group or staging buffer is added once every frozen set was seen', async (t) => {
  const engine = await nullEngine();
  const random = new Random(3);
  let sets: string[][] = [];
  const counts = await counted(t, engine, { mode: 'paper', freezeRate: 0 }, (trainer, step) => {
    const names = trainer.freezableLayers.map((l) => l.name);
    if (step === 1) sets = [[], ...Array.from({ length: 9 }, () => names.filter(() => random.uniform() < 0.8))];
    trainer.follow();
    trainer.freeze(...sets[step % 10]);
  });
  // Every set was seen by step 10, but with the moments of all layers there, in a step that measures encodings, one only in step 101.
  for (const now of counts.slice(3)) assert.deepEqual(now, counts[2]);
  engine.dispose();
});

test('over 500 steps of inter-layer scheduling no tensor or staging buffer is added once all layers have trained, and pipelines, buffers and bind groups stay bounded', async (t) => {
  const engine = await nullEngine();
  const counts = await counted(t, engine, { mode: 'tuned', freezeRate: 0.8 });
  const [first, last] = [counts[1], counts[9]];
  for (const c of ['tensors', 'totalLive', 'stagingBuffers'] as const) for (const now of counts.slice(2)) assert.equal(now[c], first[c], c);
  // Attention's backward has seven forms, by which of its three gradients are wanted where the lowest layer trains: 4 kernels of its rows and 3 of its columns.
  assert.ok(last.pipelines - first.pipelines <= 7, `${counts.map((c) => c.pipelines)} pipelines`);
  // Another set may need one buffer more of a size at the same time, or meet a pair of buffers for the first time.
  assert.ok(last.bytes <= 1.25 * first.bytes, `${first.bytes} bytes of buffers became ${last.bytes}`);
  assert.ok(last.bindGroups <= MOST_BIND_GROUPS);
  assert.ok(last.bindGroups - counts[4].bindGroups <= (counts[4].bindGroups - counts[0].bindGroups) / 2, `bind groups: ${counts.map((c) => c.bindGroups)}`);
  engine.dispose();
});
