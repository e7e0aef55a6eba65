/** Interrupts at any moment of a step: it is finished, none follows, and the run that goes on is the one that nobody stopped, to the bit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InterruptedError } from '../../src/errors';
import type { BatchSource, TextBatch } from '../../src/models/model';
import type { AdamW } from '../../src/optim/adamw';
import { Random } from '../../src/random';
import { SlimFitTrainer } from '../../src/training/trainer';
import { faultsOf } from '../engine/faults';
import { cpuEngine, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

const config = tinyConfig({ num_hidden_layers: 1, hidden_dropout_prob: 0.1 });
const train: BatchSource<TextBatch> = { size: 12, shape: (i) => ({ batchSize: i.length, length: 4 }), batch: (i) => tinyBatch(config, i.length, 4, 1 + i[0]) };

async function trainerOf() {
  const engine = await cpuEngine();
  const model = tinyModel(engine, config);
  const trainer = new SlimFitTrainer({ model, train, batchSize: 4, learningRate: 0.01, freezeRate: 0.5, totalSteps: 1000, seed: 3, measureEncodingsEvery: 7, onWarning: () => {} });
  const { optimizer } = trainer as unknown as { optimizer: AdamW };
  const state = async () => ({ weights: [...(await model.weights())].map(([n, w]) => [n, w.data]), moments: [...(await optimizer.snapshot())].map(([p, s]) => [p.name, s]), policy: trainer.policy.state(), losses: [...trainer.history.column('loss')] });
  const close = () => {
    trainer.dispose();
    model.dispose();
    assert.equal(engine.memory().tensors, 0);
    engine.dispose();
  };
  return { engine, trainer, state, close };
}

test('of fifty interrupts at random operations each stops after the step that it came in, leaves nothing, and the run goes on to the bit', async () => {
  const { engine, trainer, state, close } = await trainerOf();
  // Every layer has its moments by then.
  for await (const _ of trainer.steps(6));
  const { tensors } = engine.memory();
  const faults = faultsOf(engine);
  faults.count();
  await trainer.step();
  const perStep = faults.done;
  const random = new Random(1);
  for (let i = 0; i < 50; i++) {
    const stop = new AbortController();
    const moment = random.int(3 * perStep);
    let arrived = -1;
    faults.count(() => {
      if (faults.done !== moment || stop.signal.aborted) return;
      arrived = trainer.nextStep;
      stop.abort('stop button');
    });
    let seen = 0;
    await assert.rejects(
      async () => {
        for await (const _ of trainer.steps(10, { signal: stop.signal })) seen++;
      },
      (e: Error) => e instanceof InterruptedError && e.cause === 'stop button',
    );
    // In the middle of a step, that one is finished.
    assert.ok(arrived >= 0 && trainer.nextStep - arrived <= 1, `${trainer.nextStep - arrived} steps after interrupt ${i}`);
    assert.ok(seen <= 4);
    assert.equal(engine.memory().tensors, tensors);
    faults.count();
    await trainer.step();
  }
  faults.remove();
  const done = trainer.nextStep;
  const interrupted = await state();
  close();
  const other = await trainerOf();
  for await (const _ of other.trainer.steps(done));
  assert.deepEqual(interrupted, await other.state());
  other.close();
});
