/**
 * Part of `npm run test:interop`: vision transformers that `savePretrained` writes, after a few steps of training, are loaded by Python's transformers with no missing or unexpected key and the same
 * logits; the really trained checkpoints beside the project, where they are there, give the same logits in both.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Engine } from '../../src/engine/engine';
import { parseViTConfig } from '../../src/hub/vitConfig';
import type { ImageBatch } from '../../src/models/model';
import { ViTForImageClassification } from '../../src/models/vit';
import { Random } from '../../src/random';
import { predict, SlimFitTrainer } from '../../src/training/trainer';

const CHECKPOINTS = path.resolve(__dirname, '../../../shared/data/checkpoints');

/** Random images. */
function images(model: ViTForImageClassification, seed: number): ImageBatch {
  const { imageSize, numChannels: channels, numLabels } = model.config;
  const random = new Random(seed);
  const batchSize = 8;
  const pixelValues = Float32Array.from({ length: batchSize * channels * imageSize ** 2 }, () => random.normal());
  return { pixelValues, labels: Int32Array.from({ length: batchSize }, () => random.int(numLabels)), batchSize, channels, height: imageSize, width: imageSize };
}

/** Trains a little, saves, and lets Python compare. @returns whether it agreed */
async function agrees(python: string, model: ViTForImageClassification, what: string, folder = mkdtempSync(path.join(tmpdir(), 'slimfit-interop-')), steps = 4): Promise<boolean> {
  const batch = images(model, 11);
  if (steps > 0) {
    const trainer = new SlimFitTrainer({ model, train: { size: 8, batch: () => batch }, batchSize: 8, freezeRate: 0.5, totalSteps: steps, learningRate: 1e-3, onWarning: () => {} });
    for await (const _ of trainer.steps());
    trainer.dispose();
    await model.savePretrained(folder);
  }
  const { logits } = await predict(model, { size: 8, batch: () => batch }, 8);
  const expected = path.join(mkdtempSync(path.join(tmpdir(), 'slimfit-interop-')), 'expected.json');
  const { batchSize, channels, height, width, pixelValues } = batch;
  writeFileSync(expected, JSON.stringify({ what, shape: [batchSize, channels, height, width], pixels: Array.from(pixelValues), logits: Array.from(logits), labels: Object.values(model.config.id2label) }));
  const run = spawnSync(python, [path.join(__dirname, 'check_vit.py'), folder, expected], { stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, HF_HUB_OFFLINE: '1' } });
  model.dispose();
  return run.status === 0;
}

/** @returns whether all of them agreed */
export async function vitInterop(engine: Engine, python: string): Promise<boolean> {
  let ok = true;
  for (const modelType of ['vit', 'deit'] as const) {
    const json = { model_type: modelType, image_size: 32, patch_size: 8, hidden_size: 48, num_hidden_layers: 3, num_attention_heads: 4, intermediate_size: 96, layer_norm_eps: 1e-12, id2label: { 0: 'cat', 1: 'dog', 2: 'ship' } };
    ok = (await agrees(python, ViTForImageClassification.fresh(engine, parseViTConfig(json)), `${modelType}, trained and saved here`)) && ok;
  }
  for (const name of ['vit-cifar10-128x4', 'vit-cifar10-64x4']) {
    const folder = path.join(CHECKPOINTS, name);
    if (!existsSync(folder)) {
      process.stdout.write(`${name}: skipped, it is not there\n`);
      continue;
    }
    const load = () => ViTForImageClassification.fromPretrained(folder, { engine });
    ok = (await agrees(python, await load(), `${name}, as it is`, folder, 0)) && ok;
    ok = (await agrees(python, await load(), `${name}, trained on and saved here`)) && ok;
  }
  return ok;
}
