/** A tiny run whose whole state can be compared, for tests of steps that are skipped, scaled or stopped. */
import assert from 'node:assert/strict';
import type { Engine } from '../../src/engine/engine';
import type { BatchSource, TextBatch } from '../../src/models/model';
import { SlimFitTrainer, type TrainerOptions } from '../../src/training/trainer';
import { cpuEngine, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

export const config = tinyConfig();
export const train: BatchSource<TextBatch> = { size: 4, shape: (i) => ({ batchSize: i.length, length: 6 }), batch: (i) => tinyBatch(config, i.length, 6, 1 + i[0]) };

/** A trainer of a tiny BERT on the plain JavaScript engine. @param prepare changes the engine before the model is made */
export async function trainerOf(options: Partial<TrainerOptions> = {}, prepare: (engine: Engine) => void = () => {}) {
  const engine = await cpuEngine();
  prepare(engine);
  const model = tinyModel(engine, config);
  const said: string[] = [];
  const trainer = new SlimFitTrainer({ model, train, batchSize: 4, learningRate: 0.01, freezeRate: 0.5, totalSteps: 40, seed: 3, shuffle: false, measureEncodingsEvery: 0, onWarning: (t) => said.push(t), ...options });
  const close = () => {
    trainer.dispose();
    model.dispose();
    assert.equal(engine.memory().tensors, 0, 'tensors left');
    engine.dispose();
  };
  return { engine, model, trainer, said, close };
}
export type Run = Awaited<ReturnType<typeof trainerOf>>;

/** Everything that a step changes. */
export async function stateOf({ trainer, model }: Run) {
  const { optimizer } = trainer as unknown as { optimizer: import('../../src/optim/adamw').AdamW };
  return { weights: await model.weights(), moments: new Map([...(await optimizer.snapshot())].map(([p, s]) => [p.name, s])), policy: trainer.policy.state() };
}
