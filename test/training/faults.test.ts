/** A device that runs out of memory at any moment of a step: before the first update nothing has changed; after it the trainer says that it is between two steps, and a snapshot takes it back. Nothing leaks, and training goes on to the bit. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { InvalidArgumentError, OutOfMemoryError, StepPartlyAppliedError } from '../../src/errors';
import { AutoFreeze } from '../../src/freezing/autoFreeze';
import { CkaFreezing } from '../../src/freezing/ckaFreezing';
import type { BatchSource, TextBatch } from '../../src/models/model';
import type { AdamW } from '../../src/optim/adamw';
import { Random } from '../../src/random';
import { SlimFitTrainer, type TrainerOptions } from '../../src/training/trainer';
import { faultsOf } from '../engine/faults';
import { formatBytes } from '../../src/units';
import { cpuEngine, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

const config = tinyConfig({ num_hidden_layers: 1, hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1 });
const train: BatchSource<TextBatch> = { size: 8, shape: (i) => ({ batchSize: i.length, length: 4 }), batch: (i) => tinyBatch(config, i.length, 4, 1 + i[0]) };
const FULL = new OutOfMemoryError('no memory for 64 bytes', 64);

async function trainerOf(options: Partial<TrainerOptions> = {}) {
  const engine = await cpuEngine();
  const model = tinyModel(engine, config);
  const trainer = new SlimFitTrainer({ model, train, batchSize: 4, learningRate: 0.01, freezeRate: 0.5, totalSteps: 40, seed: 3, shuffle: false, measureEncodingsEvery: 0, onWarning: () => {}, ...options });
  const { optimizer } = trainer as unknown as { optimizer: AdamW };
  return {
    engine,
    model,
    trainer,
    /** Everything that a step changes, to the bit. */
    state: async () => ({ weights: [...(await model.weights())].map(([n, w]) => [n, w.data]), moments: [...(await optimizer.snapshot())].map(([p, s]) => [p.name, s]).sort(([a], [b]) => (String(a) < String(b) ? -1 : 1)), policy: trainer.policy.state() }),
    close: () => {
      trainer.dispose();
      model.dispose();
      assert.equal(engine.memory().tensors, 0, 'tensors left');
      engine.dispose();
    },
  };
}

const RUNS: Readonly<Record<string, Partial<TrainerOptions>>> = {
  'the paper’s scheme': {},
  'exact, everything trains': { mode: 'exact', freezeRate: 0 },
  'tuned, layers run again, micro-batches': { mode: 'tuned', gradientCheckpointing: true, gradientAccumulationSteps: 2, blockBytes: 128 },
  'gradients looked at': { onNonFinite: 'stop' },
  '8-bit moments, those of frozen layers on the host': { optimizer: { moments: '8-bit', idleMoments: 'host' } },
  'word embeddings by the rows that a step looks up': { sparseEmbeddings: true, freezeRate: 0, optimizer: { moments: '8-bit' } },
  'zero gradients for what is frozen': { frozenParameters: 'zerograd' },
  'encodings measured, gradient norms': { measureEncodingsEvery: 1, policy: (l) => new AutoFreeze(l, { evaluateEvery: 2 }) },
  'representations probed': { policy: (l) => new CkaFreezing(l, { compareEvery: 1 }) },
};

for (const [name, options] of Object.entries(RUNS))
  test(`memory that runs out anywhere in a step leaves the trainer as it was, or says that it is between two steps: ${name}`, async () => {
    const run = await trainerOf(options);
    const { trainer, engine } = run;
    const faults = faultsOf(engine);
    await trainer.step();
    const step = await trainer.snapshot();
    const before = await run.state();
    // Moments that left for the host come back when they are asked for: what is alive is compared after the same rewind.
    trainer.rewind(step);
    const alive = engine.memory();
    faults.count();
    const right = await trainer.step();
    const operations = faults.done;
    const after = await run.state();
    assert.ok(operations > 100);
    trainer.rewind(step);
    const random = new Random(1);
    let [unchanged, between] = [0, 0];
    // Every one would take a minute; the stride is drawn, so that none is left out for its place.
    for (let n = 0; n < operations; n += operations > 150 ? 1 + random.int(Math.ceil(operations / 60)) : 1) {
      faults.arm(n, FULL);
      const error = await trainer.step().then(() => assert.fail(`operation ${n} of ${operations} did not fail`), (e: Error) => e);
      faults.count();
      if (error instanceof OutOfMemoryError || error === FULL) {
        assert.ok(error === FULL || error.cause === FULL, `operation ${n}: ${error.stack}`);
        unchanged++;
        assert.deepEqual(await run.state(), before, `operation ${n}`);
        assert.equal(trainer.nextStep, step);
      } else {
        between++;
        assert.ok(error instanceof StepPartlyAppliedError && error.cause === FULL, `operation ${n}: ${error.stack}`);
        assert.match(error.message, new RegExp(`^step ${step} failed after ${error.updated.length} of the \\d+ parameters .*no memory for 64 bytes.*trainer.rewind\\(${step}\\)`));
        // What it says was updated is what differs; of one more it cannot say.
        const now = new Map((await run.state()).weights as [string, Float32Array][]);
        const moved = (before.weights as [string, Float32Array][]).filter(([p, w]) => now.get(p)!.some((v, i) => v !== w[i])).map(([p]) => p);
        assert.ok(moved.filter((p) => !error.updated.includes(p)).length <= (options.frozenParameters === 'zerograd' ? 100 : 1), `operation ${n}: ${moved}`);
        for (const refused of [() => trainer.step(), () => trainer.snapshot(), () => trainer.save(path.join(tmpdir(), 'slimfit-never'))]) await assert.rejects(refused(), (e) => e === error);
      }
      trainer.rewind(step);
      const { tensors, totalLive } = engine.memory();
      assert.deepEqual([tensors, totalLive], [alive.tensors, alive.totalLive], `operation ${n} of ${operations} (${error.name}) left something`);
    }
    assert.ok(unchanged > 5 && between > 5, `${unchanged}, ${between}`);
    assert.ok(!existsSync(path.join(tmpdir(), 'slimfit-never')));
    const again = await trainer.step();
    assert.equal(again.loss, right.loss);
    assert.deepEqual(await run.state(), after);
    faults.remove();
    run.close();
  });

test('a step that has no memory says what it keeps for backward, and what would make that less: the bytes that such a trainer foresees', async () => {
  const run = await trainerOf({ mode: 'paper', freezeRate: 0 });
  const faults = faultsOf(run.engine);
  faults.arm(20, FULL);
  const error = await run.trainer.step().then(() => assert.fail('nothing failed'), (e: Error) => e);
  faults.remove();
  run.close();
  const foreseen = async (options: Partial<TrainerOptions>) => {
    const other = await trainerOf({ mode: 'paper', freezeRate: 0, ...options });
    const bytes = other.trainer.peek().activationBytes!;
    other.close();
    return formatBytes(bytes);
  };
  assert.ok(error instanceof OutOfMemoryError && error.bytes === 64 && error.cause === FULL);
  assert.equal(
    error.message,
    `step 0: no memory for 64 bytes. Of its 4 examples it keeps ${await foreseen({})} for backward; it would be ${await foreseen({ batchSize: 2 })} with batchSize: 2, ${await foreseen({ mode: 'tuned', frozenBiases: false })} with mode: 'tuned', ${await foreseen({ gradientCheckpointing: true })} with gradientCheckpointing: true, ${await foreseen({ gradientAccumulationSteps: 2 })} with gradientAccumulationSteps: 2`,
  );
});

test('with gradients held until backward is through, memory that runs out in backward changes nothing', async () => {
  const run = await trainerOf({ onNonFinite: 'stop', freezeRate: 0 });
  const faults = faultsOf(run.engine);
  await run.trainer.step();
  const before = await run.state();
  const order: string[] = [];
  const step = await run.trainer.snapshot();
  faults.count((operation) => order.push(operation));
  await run.trainer.step();
  const first = order.indexOf('adamwStep');
  const lastProduct = order.lastIndexOf('linearGradWeight');
  assert.ok(lastProduct > 0 && lastProduct < first, 'the first update comes after the last product of backward');
  run.trainer.rewind(step);
  faults.arm(lastProduct, FULL);
  await assert.rejects(run.trainer.step(), (e: Error) => e instanceof OutOfMemoryError && e.cause === FULL);
  faults.count();
  assert.deepEqual(await run.state(), before);
  assert.equal((await run.trainer.step()).step, 1);
  faults.remove();
  run.close();
});

test('after a step that failed halfway, without a snapshot, the error names the ways on: the last checkpoint takes the run up to the bit', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'slimfit-torn-'));
  const options: Partial<TrainerOptions> = { checkpoints: { dir, saveSteps: 2 }, freezeRate: 0 };
  const whole = await trainerOf(options);
  for await (const _ of whole.trainer.steps(3));
  const wanted = await whole.state();
  whole.close();
  rmSync(dir, { recursive: true });
  const run = await trainerOf(options);
  for await (const _ of run.trainer.steps(2));
  const faults = faultsOf(run.engine);
  const order: string[] = [];
  faults.count((operation) => order.push(operation));
  await run.trainer.evaluate(train);
  const start = order.length;
  // After the second update of the step.
  let updates = 0;
  faults.count((operation) => {
    if (operation === 'adamwStep' && ++updates === 3) throw FULL;
  });
  assert.ok(start > 0);
  const error = await run.trainer.step().then(() => assert.fail(), (e: Error) => e);
  assert.ok(error instanceof StepPartlyAppliedError && error.step === 2 && error.updated.length === 2);
  assert.ok(error.message.includes(`SlimFitTrainer.resume('${dir}'`) && !/rewind/.test(error.message) && /onNonFinite: 'stop'/.test(error.message), error.message);
  faults.remove();
  // What only looks on still works.
  assert.ok(Number.isFinite((await run.trainer.evaluate(train)).loss));
  assert.throws(() => run.trainer.rewind(2), InvalidArgumentError);
  run.trainer.dispose();
  const resumed = await SlimFitTrainer.resume(dir, { model: run.model, train, batchSize: 4, learningRate: 0.01, totalSteps: 40, seed: 3, shuffle: false, measureEncodingsEvery: 0, onWarning: () => {}, ...options });
  assert.equal((await resumed.step()).step, 2);
  assert.deepEqual([...(await run.model.weights())].map(([n, w]) => [n, w.data]), wanted.weights);
  resumed.dispose();
  run.model.dispose();
  assert.equal(run.engine.memory().tensors, 0);
  run.engine.dispose();
  rmSync(dir, { recursive: true, force: true });
});
