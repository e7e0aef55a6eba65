/** Steps whose loss or gradient is not finite: what is stopped or skipped changes nothing, and what is looked at changes nothing either. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { Engine } from '../../src/engine/engine';
import { GradientNotFiniteError, InvalidArgumentError, LossNotFiniteError } from '../../src/errors';
import { AutoFreeze } from '../../src/freezing/autoFreeze';
import { Parameter } from '../../src/tape/parameter';
import { GradientGuard } from '../../src/training/gradientGuard';
import { SlimFitTrainer } from '../../src/training/trainer';
import { cpuEngine, tinyModel } from '../models/fixtures';
import { config, type Run, stateOf, train, trainerOf } from './tinyRun';

/** One weight gradient after the `count`-th, of all that are computed from now on, is spoilt. */
function spoil(engine: Engine, count: number, value: number): () => void {
  const real = engine.linearGradWeight.bind(engine);
  engine.linearGradWeight = (g, x) => {
    const right = real(g, x);
    if (count-- !== 0) return right;
    const bad = new Float32Array(right.size);
    bad[right.size >> 1] = value;
    engine.free(right);
    return engine.upload(bad, right.shape);
  };
  return () => (engine.linearGradWeight = real);
}

test('a gradient passes when every square of it is finite', async () => {
  const engine = await cpuEngine();
  const guard = new GradientGuard(engine);
  const values = { zero: [0, 0], large: [1.8e19, -1.8e19], small: [1e-45, -0], nan: [1, NaN], infinite: [-Infinity, 1], square: [1, 1.9e19], opposite: [Infinity, -Infinity] };
  const parameters = Object.keys(values).map((name) => new Parameter(name, engine.upload(new Float32Array(2), [1, 2], 'weights')));
  const hold = () =>
    parameters.forEach((p) => {
      const grad = engine.upload(Float32Array.from(values[p.name as keyof typeof values]), [1, 2], 'gradients');
      guard.hold(p, grad);
      engine.free(grad);
    });
  hold();
  assert.deepEqual(await guard.notFinite(), ['nan', 'infinite', 'square', 'opposite']);
  const seen: [string, number[]][] = [];
  const reads: Promise<void>[] = [];
  guard.release((p, g) => reads.push(engine.read(g).then((v) => void seen.push([p.name, [...v]]))));
  await Promise.all(reads);
  assert.deepEqual(seen.map(([name]) => name), Object.keys(values));
  assert.deepEqual(seen[1][1], [...Float32Array.from(values.large)]);
  assert.deepEqual(await guard.notFinite(), []);
  hold();
  guard.dispose();
  engine.free(...parameters.map((p) => p.data));
  assert.equal(engine.memory().tensors, 0);
});

test('looking at the gradients changes no bit of a run', async () => {
  const traces: unknown[] = [];
  for (const onNonFinite of [undefined, 'stop', 'skip'] as const) {
    const run = await trainerOf({ onNonFinite, policy: (l) => new AutoFreeze(l, { evaluateEvery: 2 }) });
    for await (const r of run.trainer.steps(6)) assert.equal(r.nonFinite, undefined);
    traces.push({ ...(await stateOf(run)), losses: [...run.trainer.history.column('loss')] });
    run.close();
  }
  assert.deepEqual(traces[1], traces[0]);
  assert.deepEqual(traces[2], traces[0]);
});

for (const value of [NaN, Infinity, 1e25])
  test(`a gradient with a ${value} stops the step before anything changed, by the name of its parameter, or is skipped and noted`, async () => {
    for (const onNonFinite of ['stop', 'skip'] as const) {
      const run = await trainerOf({ onNonFinite, freezeRate: 0, frozenParameters: 'zerograd' });
      const { trainer, engine, said } = run;
      await trainer.step();
      const before = await stateOf(run);
      const tensors = engine.memory().tensors;
      const mend = spoil(engine, 5, value);
      const names: string[] = [];
      if (onNonFinite === 'stop') {
        await assert.rejects(trainer.step(), (e: Error) => e instanceof GradientNotFiniteError && (names.push(...e.parameters), e.message.includes(e.parameters[0])) && /step 1 is not finite/.test(e.message));
        assert.equal(trainer.nextStep, 1);
      } else {
        const record = await trainer.step();
        names.push(...record.nonFinite!);
        assert.deepEqual([record.step, record.active, trainer.nextStep], [1, [], 2]);
        assert.deepEqual([...trainer.history.trainedIn(1)].reduce((a, b) => a + b), 0);
        assert.ok(said.some((t) => t.includes(names[0])));
      }
      mend();
      assert.equal(names.length, 1);
      assert.ok(run.model.parameters.has(names[0]) && names[0].endsWith('.weight'), names[0]);
      assert.deepEqual(await stateOf(run), before);
      assert.equal(engine.memory().tensors, tensors);
      assert.ok((await trainer.step()).active.length > 0);
      run.close();
    }
  });

test('with lower-rate a step that is skipped halves the learning rate from the next one on; rewind and a checkpoint bring the rate that was', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-rate-'));
  const options = { onNonFinite: 'lower-rate', schedule: 'constant', freezeRate: 0 } as const;
  const run = await trainerOf(options);
  const { trainer, engine, said } = run;
  await trainer.step();
  const start = await trainer.snapshot();
  const skip = async () => {
    const mend = spoil(engine, 5, NaN);
    const record = await trainer.step();
    mend();
    assert.equal(record.nonFinite?.length, 1);
    return record.learningRate;
  };
  assert.equal(await skip(), 0.01);
  assert.match(said.at(-1)!, /learning rate is 0\.5 of the schedule’s/);
  assert.equal(trainer.peek().learningRate, 0.005);
  assert.equal(await skip(), 0.005);
  const state = await stateOf(run);
  await trainer.save(folder);
  const after = await trainer.step();
  assert.equal(after.learningRate, 0.0025);
  const moved = async (r: Run, before: Awaited<ReturnType<typeof stateOf>>) => [...(await stateOf(r)).weights].map(([n, w]) => [n, w.data.map((v, i) => v - before.weights.get(n)!.data[i])]);
  const lowered = await moved(run, state);
  const model = tinyModel(engine, config, 2);
  const again = await SlimFitTrainer.resume(folder, { model, train, batchSize: 4, learningRate: 0.01, totalSteps: 40, seed: 3, shuffle: false, measureEncodingsEvery: 0, onWarning: () => {}, ...options });
  assert.equal(again.peek().learningRate, 0.0025);
  assert.equal((await again.step()).loss, after.loss);
  assert.deepEqual(await moved({ ...run, trainer: again, model }, state), lowered);
  again.dispose();
  model.dispose();
  trainer.rewind(start);
  assert.equal(trainer.peek().learningRate, 0.01);
  run.close();
  rmSync(folder, { recursive: true, force: true });
});

test('without the option such a gradient spoils its layer, which is what the option is for', async () => {
  const run = await trainerOf({ freezeRate: 0 });
  const mend = spoil(run.engine, 5, NaN);
  await run.trainer.step();
  mend();
  assert.ok([...(await run.model.weights()).values()].some(({ data }) => data.some(Number.isNaN)));
  run.close();
});

test('gradients that overflow from weights far too large are found, and not applied', async () => {
  const run = await trainerOf({ onNonFinite: 'stop', freezeRate: 0 });
  // Every answer becomes wrong, and sure.
  const classifier = run.model.parameters.get('classifier.weight')!;
  run.engine.write(classifier.data, Float32Array.from(await run.engine.read(classifier.data), (v) => v * -1e25));
  const before = await stateOf(run);
  await assert.rejects(run.trainer.step(), (e: Error) => e instanceof GradientNotFiniteError && e.parameters.includes('bert.pooler.dense.weight') && !e.parameters.includes('classifier.weight') && / and \d+ more/.test(e.message));
  assert.deepEqual(await stateOf(run), before);
  run.close();
});

test('a loss that is not finite is skipped too, and ten steps in a row stop', async () => {
  const run = await trainerOf({ onNonFinite: 'skip' });
  const { trainer, model, engine } = run;
  const bias = model.parameters.get('classifier.bias')!;
  const sound = (await engine.read(bias.data)) as Float32Array;
  await trainer.step();
  const before = await stateOf(run);
  for (let round = 0; round < 2; round++) {
    const trained = (await engine.read(bias.data)) as Float32Array;
    engine.write(bias.data, Float32Array.from(sound, () => NaN));
    for (let i = 0; i < 9; i++) {
      const record = await trainer.step();
      assert.deepEqual([record.nonFinite, record.loss], [['loss'], NaN]);
    }
    if (round === 1) await assert.rejects(trainer.step(), (e: Error) => e instanceof LossNotFiniteError && /tenth step in a row/.test(e.message));
    engine.write(bias.data, trained);
    if (round === 0) {
      assert.deepEqual(await stateOf(run), before);
      assert.equal((await trainer.step()).nonFinite, undefined);
    }
  }
  run.close();
  await assert.rejects(trainerOf({ onNonFinite: 'ignore' as 'skip' }), (e: Error) => e instanceof InvalidArgumentError && /ignore/.test(e.message));
});
