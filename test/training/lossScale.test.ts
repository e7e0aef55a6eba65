/** The loss scale of mixed precision: invisible in float32, and in float16 what keeps small gradients from becoming 0. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { DeviceTensor, Engine } from '../../src/engine/engine';
import { GradientNotFiniteError, InvalidArgumentError } from '../../src/errors';
import { AutoFreeze } from '../../src/freezing/autoFreeze';
import type { BatchSource, TextBatch } from '../../src/models/model';
import { LossScale } from '../../src/training/lossScale';
import { SlimFitTrainer, type TrainerOptions } from '../../src/training/trainer';
import { half } from '../engine/half';
import { cpuEngine, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

const config = tinyConfig();
const train: BatchSource<TextBatch> = { size: 4, shape: (i) => ({ batchSize: i.length, length: 6 }), batch: (i) => tinyBatch(config, i.length, 6, 1 + i[0]) };

async function trainerOf(options: Partial<TrainerOptions> = {}, prepare: (engine: Engine) => void = () => {}) {
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
type Run = Awaited<ReturnType<typeof trainerOf>>;

/** Everything that a step changes. */
async function stateOf({ trainer, model }: Run) {
  const { optimizer } = trainer as unknown as { optimizer: import('../../src/optim/adamw').AdamW };
  return { weights: await model.weights(), moments: new Map([...(await optimizer.snapshot())].map(([p, s]) => [p.name, s])), policy: trainer.policy.state() };
}

/** An engine that multiplies as mixed precision does: operands of matrix products are rounded to float16, and infinite beyond 65,504. */
function inHalves(engine: Engine): void {
  Object.assign(engine, { precision: 'mixed' });
  for (const name of ['matmul', 'linear', 'linearGradInput', 'linearGradWeight'] as const) {
    const real = engine[name].bind(engine) as (...args: unknown[]) => DeviceTensor;
    const replaced = (a: DeviceTensor, b: DeviceTensor, ...more: unknown[]) => engine.scope(() => real(rounded(engine, a), rounded(engine, b), ...more));
    (engine as unknown as Record<string, unknown>)[name] = replaced;
  }
}
function rounded(engine: Engine, t: DeviceTensor): DeviceTensor {
  // Values of the cpu engine are at hand at once.
  const { raw } = t as unknown as { raw: { dataSync(): Float32Array } };
  return engine.upload(raw.dataSync().map(half), t.shape);
}

/** The loss's gradient is larger by this factor: as that of a larger model may be. */
function louder(engine: Engine, factor: number): () => void {
  const real = engine.crossEntropy.bind(engine);
  engine.crossEntropy = (...args) => {
    const { loss, grad } = real(...args);
    const loud = engine.affine(grad, factor);
    engine.free(grad);
    return { loss, grad: loud };
  };
  return () => (engine.crossEntropy = real);
}

test('in float32 a loss scale changes no bit of a run: weights, moments, magnitudes, gradient norms', async () => {
  for (const more of [{}, { gradientAccumulationSteps: 2 }, { onNonFinite: 'stop', policy: (l) => new AutoFreeze(l, { evaluateEvery: 2 }) }] as Partial<TrainerOptions>[]) {
    const traces: unknown[] = [];
    for (const lossScale of [undefined, 1, 1024, 'dynamic'] as const) {
      const run = await trainerOf({ ...more, lossScale });
      for await (const r of run.trainer.steps(5)) {
        assert.equal(r.nonFinite, undefined);
        assert.equal(r.lossScale, { undefined: undefined, 1: undefined, 1024: 1024, dynamic: 65_536 }[String(lossScale)]);
      }
      traces.push({ ...(await stateOf(run)), losses: [...run.trainer.history.column('loss')] });
      run.close();
    }
    for (const trace of traces.slice(1)) assert.deepEqual(trace, traces[0]);
  }
});

test('what is told of gradients is told without the scale', async () => {
  const norms: number[][] = [];
  for (const lossScale of [1, 4096]) {
    const run = await trainerOf({ lossScale });
    norms.push((await run.trainer.compareGradients()).errors.flatMap((e) => [e.exactNorm, e.norm, e.relativeError]));
    run.close();
  }
  assert.deepEqual(norms[1], norms[0]);
});

test('in float16 small gradients are 0 without a scale and right with it', async () => {
  // Gradients 2⁻³⁰ as large, as early layers of a large batch have them, and an optimizer that does not care for their size.
  const moved: number[] = [];
  for (const lossScale of [1, 2 ** 30]) {
    const run = await trainerOf({ lossScale, freezeRate: 0, mode: 'exact', dropout: false, optimizer: { eps: 1e-30, weightDecay: 0 } }, (e) => {
      inHalves(e);
      louder(e, 2 ** -30);
    });
    const before = await run.model.weights();
    await run.trainer.step();
    const after = await run.model.weights();
    const name = 'bert.encoder.layer.0.attention.self.value.weight';
    moved.push(after.get(name)!.data.filter((w, i) => w !== before.get(name)!.data[i]).length);
    run.close();
  }
  assert.equal(moved[0], 0);
  assert.ok(moved[1] > 0, `${moved}`);
});

test('on an engine of mixed precision the scale is dynamic: too large a one skips the step, changes nothing and is halved, until steps go through', async () => {
  const run = await trainerOf({ freezeRate: 0 }, (e) => {
    inHalves(e);
    louder(e, 16);
  });
  const { trainer, said } = run;
  const before = await stateOf(run);
  const records = [];
  for await (const r of trainer.steps(12)) {
    records.push(r);
    if (r.nonFinite) {
      assert.deepEqual(r.active, []);
      assert.deepEqual(await stateOf(run), before);
    }
    if (!r.nonFinite) break;
  }
  assert.ok(records.length > 1 && records.length < 12, `${records.length} steps`);
  records.forEach((r, i) => assert.equal(r.lossScale, 2 ** (16 - i)));
  assert.ok(records[0].nonFinite!.every((n) => run.model.parameters.has(n)) && records.at(-1)!.active.length > 0);
  assert.equal(said.filter((t) => /loss scale/.test(t)).length, 1);
  assert.notDeepEqual((await stateOf(run)).weights, before.weights);
  run.close();
});

test('a gradient that overflows at a scale of 1 is not the scale’s fault: it stops the step, or does what onNonFinite says', async () => {
  for (const onNonFinite of [undefined, 'stop', 'skip', 'lower-rate'] as const) {
    const run = await trainerOf({ lossScale: 'dynamic', freezeRate: 0, onNonFinite, schedule: 'constant' });
    const mend = louder(run.engine, Infinity);
    for (let i = 0; i < 16; i++) assert.equal((await run.trainer.step()).learningRate, 0.01);
    assert.equal(run.trainer.history.length, 16);
    if (onNonFinite === undefined || onNonFinite === 'stop') await assert.rejects(run.trainer.step(), GradientNotFiniteError);
    else {
      const record = await run.trainer.step();
      assert.ok(record.nonFinite!.length > 0 && record.lossScale === undefined);
      assert.equal(run.trainer.peek().learningRate, onNonFinite === 'lower-rate' ? 0.005 : 0.01);
    }
    mend();
    assert.ok((await run.trainer.step()).active.length > 0);
    run.close();
  }
});

test('rewind and a checkpoint bring the scale back', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-scale-'));
  const run = await trainerOf({ lossScale: 'dynamic' });
  const { trainer, engine } = run;
  const start = await trainer.snapshot();
  const mend = louder(engine, Infinity);
  for (let i = 0; i < 3; i++) await trainer.step();
  mend();
  await trainer.save(folder);
  const next = await trainer.step();
  assert.equal(next.lossScale, 2 ** 13);
  const model = tinyModel(engine, config, 2);
  const again = await SlimFitTrainer.resume(folder, { model, train, batchSize: 4, learningRate: 0.01, freezeRate: 0.5, totalSteps: 40, seed: 3, shuffle: false, measureEncodingsEvery: 0, lossScale: 'dynamic', onWarning: () => {} });
  const resumed = await again.step();
  assert.deepEqual([resumed.lossScale, resumed.loss], [2 ** 13, next.loss]);
  again.dispose();
  model.dispose();
  trainer.rewind(start);
  assert.equal((await trainer.step()).lossScale, 2 ** 16);
  run.close();
  rmSync(folder, { recursive: true, force: true });
});

test('a dynamic scale doubles after 2,000 finite steps in a row, halves down to 1, and goes on from its state', () => {
  const scale = new LossScale('dynamic');
  for (let i = 0; i < 1999; i++) scale.grow();
  assert.equal(scale.scale, 65_536);
  const other = new LossScale('dynamic');
  other.restore(scale.state);
  for (const s of [scale, other]) {
    s.grow();
    assert.equal(s.scale, 131_072);
    for (let i = 0; i < 1999; i++) s.grow();
    assert.equal(s.backOff(), true);
    s.grow();
    assert.equal(s.scale, 65_536, 'counting began again');
  }
  for (let i = 0; i < 16; i++) assert.equal(scale.backOff(), true);
  assert.deepEqual([scale.scale, scale.backOff(), scale.scale], [1, false, 1]);
  const fixed = new LossScale(256);
  for (let i = 0; i < 5000; i++) fixed.grow();
  assert.deepEqual([fixed.backOff(), fixed.scale, fixed.state], [false, 256, undefined]);
});

test('a loss scale that is no power of two is refused with its value', async () => {
  for (const lossScale of [0, -2, 1000, NaN, Infinity, 2 ** 127, 'big' as never]) await assert.rejects(trainerOf({ lossScale }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(String(lossScale)));
});
