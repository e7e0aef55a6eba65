/** A trainer on the WebGPU engine when the device has no memory left, or is gone: on Dawn's null device, whose 512 MiB really end. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { DeviceLostError, OutOfMemoryError, StepPartlyAppliedError } from '../../../src/errors';
import { BertForSequenceClassification } from '../../../src/models/bert';
import { SlimFitTrainer, type TrainerOptions } from '../../../src/training/trainer';
import { tinyBatch, tinyConfig } from '../../models/fixtures';
import { nullEngine } from './nullEngine';

/** @param batchSize examples of the next batches */
async function run(options: Partial<TrainerOptions> = {}) {
  const engine = await nullEngine();
  const config = tinyConfig({ max_position_embeddings: 128, num_hidden_layers: 5 });
  const model = BertForSequenceClassification.fresh(engine, config, 1);
  const next = { batchSize: 2 };
  const settings: TrainerOptions = { model, train: { size: 8, batch: () => tinyBatch(config, next.batchSize, 128) }, batchSize: 2, freezeRate: 0, mode: 'exact', totalSteps: 100, seed: 1, onWarning: () => {}, ...options };
  return { engine, model, settings, trainer: new SlimFitTrainer(settings), next };
}

test('a batch that the device has no memory for is refused by name before anything is updated, and the same trainer goes on with smaller ones', async () => {
  const { engine, model, trainer, next } = await run();
  await trainer.step();
  await trainer.step();
  const before = { ...engine.memory(), bytes: engine.counts().bytes };
  // The probabilities of each layer have 120 MiB.
  next.batchSize = 480;
  await assert.rejects(trainer.step(), (error: Error) => error instanceof OutOfMemoryError && error.code === 'out-of-memory' && error.bytes > 2 ** 20 && /^step 2: the device has no memory for a tensor of \d+ bytes/.test(error.message));
  assert.equal(trainer.nextStep, 2);
  assert.deepEqual([engine.memory().tensors, engine.memory().totalLive], [before.tensors, before.totalLive]);
  next.batchSize = 2;
  for (const step of [2, 3]) assert.equal((await trainer.step()).step, step);
  assert.ok(engine.counts().bytes <= before.bytes + 32 * 2 ** 20, `${engine.counts().bytes} bytes of buffers, ${before.bytes} before`);
  trainer.dispose();
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
  engine.dispose();
});

test('a lost device stops the step, and the error names the checkpoint that a new engine goes on from', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'slimfit-lost-'));
  const options = { checkpoints: { dir, saveSteps: 2 } };
  const { engine, model, trainer } = await run(options);
  for await (const _ of trainer.steps(3));
  engine.opened.device.destroy();
  const lost = (error: Error) => error instanceof DeviceLostError && !(error instanceof StepPartlyAppliedError) && error.code === 'device-lost' && error.message.includes(engine.opened.name);
  const resume = `SlimFitTrainer.resume('${dir}', …) on a new engine goes on from ${path.join(dir, 'checkpoint-2')}`;
  for (let i = 0; i < 2; i++) await assert.rejects(trainer.step(), (error: Error) => lost(error) && error.message.startsWith('step 3: ') && error.message.endsWith(resume));
  await assert.rejects(trainer.snapshot(), lost);
  trainer.dispose();
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
  engine.dispose();
  const again = await run(options);
  const resumed = await SlimFitTrainer.resume(dir, again.settings);
  assert.equal((await resumed.step()).step, 2);
  for (const t of [resumed, again.trainer]) t.dispose();
  again.model.dispose();
  again.engine.dispose();
  rmSync(dir, { recursive: true });
});

test('without a checkpoint, the error of a lost device says that what was trained is lost', async () => {
  for (const [options, says] of [
    [{}, 'No checkpoint of this run was written: what was trained is lost. With checkpoints: { dir: … } a run can be taken up again'],
    [{ checkpoints: { dir: path.join(tmpdir(), 'slimfit-never'), saveSteps: 50 } }, 'No checkpoint of this run was written yet: what was trained is lost'],
  ] as const) {
    const { engine, model, trainer } = await run(options);
    await trainer.step();
    engine.opened.device.destroy();
    await assert.rejects(trainer.step(), (error: Error) => error instanceof DeviceLostError && error.message.endsWith(says));
    trainer.dispose();
    model.dispose();
    engine.dispose();
  }
});
