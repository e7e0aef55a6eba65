import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InterruptedError, InvalidArgumentError, LabelError, LossNotFiniteError } from '../../src/errors';
import { InterLayerScheduling } from '../../src/freezing/ils';
import { type BatchSource, type TextBatch, weightOfBias } from '../../src/models/model';
import { ForwardContext } from '../../src/nn/context';
import { SCHEMES } from '../../src/tape/scheme';
import { accuracy, argmaxRows } from '../../src/data/metrics';
import { SlimFitTrainer, type TrainerOptions } from '../../src/training/trainer';
import { cpuEngine, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

/** Twelve examples that can be told apart. */
function tinyData(config = tinyConfig()): BatchSource<TextBatch> & { asked: number[][] } {
  const all = tinyBatch(config, 12, 6);
  const asked: number[][] = [];
  return {
    size: 12,
    asked,
    batch(indices) {
      const rows = Array.from(indices);
      asked.push(rows);
      const take = (a: Int32Array) => Int32Array.from(rows.flatMap((r) => [...a.slice(r * 6, r * 6 + 6)]));
      return { inputIds: take(all.inputIds), tokenTypeIds: take(all.tokenTypeIds), attentionMask: take(all.attentionMask), labels: Int32Array.from(rows, (r) => (all.labels as Int32Array)[r]), batchSize: rows.length, length: 6 };
    },
  };
}

async function trainerOf(options: Partial<TrainerOptions> = {}) {
  const engine = await cpuEngine();
  const model = tinyModel(engine);
  const trainer = new SlimFitTrainer({ model, train: tinyData(), batchSize: 5, learningRate: 0.01, freezeRate: 0.75, totalSteps: 40, seed: 3, onWarning: () => {}, ...options });
  const close = () => {
    trainer.dispose();
    model.dispose();
    assert.equal(engine.memory().tensors, 0, 'tensors left');
    engine.dispose();
  };
  return { engine, model, trainer, close };
}

test('training lowers the loss, and every record says what the step did', async () => {
  const { engine, trainer, model, close } = await trainerOf({ mode: 'paper' });
  const losses: number[] = [];
  for await (const r of trainer.steps(40)) {
    losses.push(r.loss);
    assert.equal(r.frozen.length, Math.floor(0.75 * model.layers.length));
    assert.equal(r.frozen.length + r.active.length, model.layers.length);
    assert.equal(r.activationBytes, r.activations.reduce((s, e) => s + e.bytes, 0));
    assert.equal(r.memory.live.activations, 0);
    assert.equal(r.memory.live.gradients, 0);
    assert.ok(r.memory.peak.activations >= r.activationBytes);
  }
  assert.ok(losses.slice(-5).reduce((a, b) => a + b) < 0.7 * losses.slice(0, 5).reduce((a, b) => a + b), `${losses}`);
  assert.equal(trainer.history.length, 40);
  assert.equal(engine.memory().live.workspace, 0);
  close();
});

test('a frozen layer’s weights do not move, an active one’s do', async () => {
  const { trainer, model, close } = await trainerOf();
  const before = await model.weights();
  const { frozen } = await trainer.step();
  const after = await model.weights();
  for (const l of trainer.freezableLayers) {
    const moved = before.get(l.name)!.data.some((v, i) => v !== after.get(l.name)!.data[i]);
    assert.equal(moved, !frozen.includes(l.index), l.name);
  }
  close();
});

test('the update magnitude is the mean relative change of the weights', async () => {
  const { trainer, model, close } = await trainerOf();
  const before = await model.weights();
  const { active, updateMagnitudes } = await trainer.step();
  const after = await model.weights();
  for (const i of active) {
    const { name } = trainer.freezableLayers[i];
    const [w, v] = [before.get(name)!.data, after.get(name)!.data];
    const want = w.reduce((s, x, k) => s + Math.abs((x - v[k]) / x), 0) / w.length;
    assert.ok(Math.abs(updateMagnitudes[i] - want) < 1e-3 * want, `${name}: ${updateMagnitudes[i]} is not ${want}`);
  }
  close();
});

test('peek tells what the next step does and keeps, to the byte, and changes nothing', async () => {
  const full = await trainerOf({ freezeRate: 0, mode: 'exact' });
  const { trainer, close } = await trainerOf({ mode: 'paper' });
  for (let i = 0; i < 3; i++) {
    const plain = await full.trainer.step();
    const peeked = trainer.peek();
    assert.deepEqual(trainer.peek(), peeked);
    const r = await trainer.step();
    assert.deepEqual([r.step, r.learningRate, [...r.frozen]], [peeked.step, peeked.learningRate, peeked.frozen.map((l) => l.index)]);
    assert.deepEqual([r.activationBytes, plain.activationBytes], [peeked.activationBytes, peeked.fullActivationBytes]);
    assert.ok(r.activationBytes < plain.activationBytes);
  }
  full.close();
  close();
});

test('what freezing a layer saves is the difference that freezing it makes to what a step keeps', async () => {
  const keeps = async (change: (t: Awaited<ReturnType<typeof trainerOf>>['trainer']) => void) => {
    const { trainer, close } = await trainerOf({ mode: 'paper' });
    for (let i = 0; i < 3; i++) await trainer.step();
    change(trainer);
    const record = await trainer.step();
    close();
    return record;
  };
  const as = await keeps(() => {});
  assert.deepEqual(as.overruled, []);
  for (const layer of [as.frozen[0], as.frozen[3], as.frozen.at(-1)!, as.active[0]]) {
    const flipped = await keeps((t) => (as.frozen.includes(layer) ? t.thaw(t.freezableLayers[layer].name) : t.freeze(t.freezableLayers[layer].name)));
    assert.deepEqual(flipped.overruled, [layer]);
    assert.equal(as.freezingSaves[layer], Math.abs(flipped.activationBytes - as.activationBytes), `layer ${layer}`);
  }
});

test('the course of a step goes up to what was kept and down to nothing; encodings are measured in the steps asked for, and change nothing', async () => {
  const { trainer, model, close } = await trainerOf({ mode: 'paper', measureEncodingsEvery: 2 });
  const other = await trainerOf({ mode: 'paper', measureEncodingsEvery: 0 });
  for (let i = 0; i < 3; i++) {
    const r = await trainer.step();
    const plain = await other.trainer.step();
    assert.deepEqual([r.loss, r.activationBytes, r.memory.totalPeak], [plain.loss, plain.activationBytes, plain.memory.totalPeak]);
    const turn = r.course.findIndex((p) => p.phase === 'backward');
    assert.equal(r.course[turn - 1].activationBytes, r.activationBytes);
    assert.equal(r.course.at(-1)!.activationBytes, 0);
    assert.ok(r.course.every((p) => p.deviceBytes <= r.memory.totalPeak));
    assert.deepEqual(plain.encodingErrors, []);
    assert.equal(r.encodingErrors.length, i % 2 === 0 ? r.activations.filter((e) => e.encoding !== 'float32').length : 0);
    for (const e of r.encodingErrors) assert.ok(e.relativeError > 0 && e.relativeError < 1 && e.clipped >= 0 && e.zeroed <= 1, JSON.stringify(e));
    assert.equal(Object.values(r.fullActivations!.parts).reduce((a, b) => a + b, 0), r.fullActivations!.total);
    assert.ok(r.dataMilliseconds >= 0 && r.dataMilliseconds <= r.milliseconds);
  }
  assert.equal(trainer.history.name, `freeze rate ${trainer.policy instanceof InterLayerScheduling ? trainer.policy.freezeRate : NaN}`);
  assert.deepEqual([...(await model.weights()).values()], [...(await other.model.weights()).values()]);
  other.close();
  close();
});

test('equal seeds give equal runs to the bit, other seeds other runs', async () => {
  const run = async (seed: number) => {
    const { trainer, model, close } = await trainerOf({ seed });
    for await (const _ of trainer.steps(4));
    const weights = [...(await model.weights()).values()].map((w) => [...w.data]);
    close();
    return weights;
  };
  const first = await run(3);
  assert.deepEqual(await run(3), first);
  assert.notDeepEqual(await run(4), first);
});

test('every epoch shows every example once, in another order', async () => {
  const train = tinyData();
  const { trainer, close } = await trainerOf({ train, epochs: 2, totalSteps: undefined });
  assert.equal(trainer.stepsPerEpoch, 3);
  for await (const _ of trainer.steps());
  const epochs = [train.asked.slice(0, 3).flat(), train.asked.slice(3, 6).flat()];
  for (const e of epochs) assert.deepEqual([...e].sort((a, b) => a - b), Array.from({ length: 12 }, (_, i) => i));
  assert.notDeepEqual(epochs[0], epochs[1]);
  assert.deepEqual(trainer.history.column('epoch').slice(), Float64Array.of(0, 0, 0, 1, 1, 1));
  close();
});

test('full fine-tuning trains every layer in every step', async () => {
  const { trainer, close } = await trainerOf({ freezeRate: 0 });
  const r = await trainer.step();
  assert.equal(r.frozen.length, 0);
  close();
});

test('a layer that always trains is no freezable layer', async () => {
  const { trainer, close } = await trainerOf({ alwaysTrain: ['classifier.weight'] });
  assert.equal(trainer.freezableLayers.some((l) => l.name === 'classifier.weight'), false);
  for await (const _ of trainer.steps(3));
  assert.equal(trainer.stepCount('classifier.weight'), 3);
  close();
});

test('a loss that is not finite stops the step before anything changed, and training can go on', async () => {
  const { trainer, model, close } = await trainerOf({ schedule: (k: number) => (k === 1 ? Infinity : 0.01) });
  await trainer.step();
  await trainer.step();
  const ruined = await model.weights();
  const magnitudes = [...trainer.policy.magnitudes];
  await assert.rejects(trainer.step(), (e: Error) => e instanceof LossNotFiniteError && e.message.includes('step 2'));
  assert.equal(trainer.nextStep, 2);
  assert.deepEqual([...trainer.policy.magnitudes], magnitudes);
  assert.deepEqual(await model.weights(), ruined);
  close();
});

test('a bad batch changes nothing', async () => {
  const good = tinyData();
  let bad = true;
  const train: BatchSource<TextBatch> = { size: 12, batch: (i) => ({ ...good.batch(i), ...(bad ? { labels: new Int32Array(i.length).fill(9) } : {}) }) };
  const { trainer, model, engine, close } = await trainerOf({ train });
  const before = await model.weights();
  const tensors = engine.memory().tensors;
  await assert.rejects(trainer.step(), LabelError);
  assert.deepEqual(await model.weights(), before);
  assert.equal(engine.memory().tensors, tensors);
  bad = false;
  assert.equal((await trainer.step()).step, 0);
  close();
});

test('the trainer’s abort signal stops at the step boundary, for good; one of a loop or an evaluation stops that alone', async () => {
  const stop = new AbortController();
  const { trainer, close } = await trainerOf({ signal: stop.signal });
  await assert.rejects(async () => {
    for await (const { step } of trainer.steps(10)) if (step === 2) stop.abort();
  }, InterruptedError);
  assert.equal(trainer.nextStep, 3);
  assert.equal(trainer.history.length, 3);
  await assert.rejects(trainer.step(), InterruptedError);
  close();

  const other = await trainerOf();
  const now = AbortSignal.abort('enough');
  await assert.rejects(other.trainer.step({ signal: now }), (e: Error) => e instanceof InterruptedError && e.cause === 'enough');
  const loop = new AbortController();
  await assert.rejects(async () => {
    for await (const { step } of other.trainer.steps(10, { signal: loop.signal })) if (step === 1) loop.abort();
  }, InterruptedError);
  await assert.rejects(other.trainer.evaluate(tinyData(), { signal: now }), InterruptedError);
  assert.equal(other.trainer.history.evaluations().numRows(), 0);
  assert.equal((await other.trainer.step()).step, 2);
  other.close();
});

test('a learning rate of 0 in the first step, and a weight of 0, are warned of', async () => {
  const said: string[] = [];
  const { trainer, close } = await trainerOf({ schedule: 'warm', onWarning: (t) => said.push(t) });
  assert.match(said[0], /learning rate of step 0 is 0/);
  const { active } = await trainer.step();
  for (const i of active) assert.equal(trainer.policy.magnitudes[i], 0);
  const next = trainer.peek();
  assert.ok(next.active.every((l) => !active.includes(l.index)), 'what trained in step 0 is frozen now');
  close();
});

test('evaluation gives loss and metrics in the order of the data, without dropout, and is noted', async () => {
  const data = tinyData();
  const { trainer, close } = await trainerOf({ evaluation: data, metrics: (p) => ({ accuracy: accuracy(argmaxRows(p.logits, p.numLabels), p.labels) }) });
  const a = await trainer.evaluate();
  assert.deepEqual(data.asked.flat(), Array.from({ length: 12 }, (_, i) => i));
  assert.equal(a.examples, 12);
  assert.deepEqual(await trainer.evaluate(), a);
  assert.equal(trainer.history.evaluations().numRows(), 4);
  close();
});

test('what cannot work is refused by its value', async () => {
  const engine = await cpuEngine();
  const model = tinyModel(engine);
  const train = tinyData();
  for (const [options, text] of [
    [{ freezeRate: 1 }, '1'],
    [{ freezeRate: -0.5 }, '-0.5'],
    [{ batchSize: 0 }, '0'],
    [{ learningRate: 0 }, '0'],
    [{ epochs: 0 }, '0'],
    [{ alwaysTrain: ['no.such.weight'] }, 'no.such.weight'],
    [{ train: { ...train, size: 0 } }, 'no training examples'],
    [{ mode: 'fast' as 'paper' }, 'fast'],
    [{ blockBytes: -1 }, 'blockBytes is -1'],
    [{ magnitude: 'l1' as 'relative-l2' }, 'l1'],
    [{ mode: { ...SCHEMES.paper, attentionProbs: 'int4' as 'recompute' } }, 'int4'],
    [{ optimizer: { beta1: 1 } }, '1'],
  ] as const)
    assert.throws(() => new SlimFitTrainer({ model, train, ...options }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(text), JSON.stringify(options));
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('with frozen biases a bias moves in the steps in which its weight does, nothing is kept below the lowest layer that trains, and peek knows', async () => {
  for (const options of [{ mode: 'tuned' }, { mode: 'paper', frozenBiases: true }, { mode: SCHEMES.exact, frozenBiases: true }] as const) {
    const { trainer, model, close } = await trainerOf({ ...options, freezeRate: 0.9 });
    const order = model.specs.map((s) => s.name);
    for (let i = 0; i < 8; i++) {
      const before = await model.weights();
      const { activationBytes } = trainer.peek();
      const r = await trainer.step();
      assert.equal(r.activationBytes, activationBytes);
      const after = await model.weights();
      const active = new Set(r.active.map((l) => trainer.freezableLayers[l].name));
      const moved = order.filter((n) => after.get(n)!.data.some((v, j) => v !== before.get(n)!.data[j]));
      assert.deepEqual(moved, order.filter((n) => active.has(weightOfBias(n))));
      const lowest = Math.min(...[...active].map((n) => order.indexOf(n)));
      const encoderLayerOf = (name: string) => Number(/layer\.(\d+)\./.exec(name)?.[1] ?? (name.includes('embeddings') ? -1 : Infinity));
      assert.ok(r.activations.every((a) => encoderLayerOf(`${a.layer}.`) >= encoderLayerOf(order[lowest])), order[lowest]);
    }
    close();
  }
});

test('relative norms of the steps are what the weights themselves say, and for a weight of zeros 1, without a warning', async () => {
  const warnings: string[] = [];
  for (const options of [{ magnitude: 'relative-l2' }, { mode: 'tuned' }] as const) {
    const { engine, trainer, model, close } = await trainerOf({ ...options, freezeRate: 0.9, onWarning: (t) => warnings.push(t) });
    const zero = 'bert.embeddings.token_type_embeddings.weight';
    engine.write(model.parameters.get(zero)!.data, new Float32Array(model.parameters.get(zero)!.size));
    for (let i = 0; i < 20; i++) {
      const before = await model.weights();
      const r = await trainer.step();
      const after = await model.weights();
      for (const index of r.active) {
        const { name } = trainer.freezableLayers[index];
        const [b, a] = [before, after].map((w) => Array.from(w.get(name)!.data));
        const norm = (x: readonly number[]) => Math.sqrt(x.reduce((s, v) => s + v * v, 0));
        const want = norm(b) === 0 ? 1 : norm(a.map((v, j) => v - b[j])) / norm(b);
        assert.ok(Math.abs(r.updateMagnitudes[index] - want) < 1e-3 * want, `${name}: ${r.updateMagnitudes[index]} is not ${want}`);
      }
    }
    close();
  }
  assert.deepEqual(warnings, []);
});

test('freezing biases changes no gradient of what trains', async () => {
  const engine = await cpuEngine();
  const model = tinyModel(engine);
  const batch = tinyBatch(tinyConfig(), 4, 6);
  const layers = model.layers.map((l) => l.name);
  const gradientsOf = async (trained: readonly string[], frozenBiases: boolean) => {
    for (const p of model.parameters.values()) {
      const name = frozenBiases ? weightOfBias(p.name) : p.name;
      p.trains = !layers.includes(name) || trained.includes(name);
    }
    const ctx = ForwardContext.deterministic(engine, SCHEMES.exact);
    const out = model.forwardWithLoss(ctx, batch);
    const reads: Promise<[string, Float32Array | Int32Array]>[] = [];
    ctx.tape.backward(out.loss, (p, g) => reads.push(engine.read(g).then((d) => [p.name, d])));
    engine.free(out.loss.tensor, out.logits.tensor);
    return new Map(await Promise.all(reads));
  };
  for (const trained of [['bert.encoder.layer.1.attention.self.value.weight'], ['bert.encoder.layer.0.output.LayerNorm.weight', 'classifier.weight'], ['bert.encoder.layer.1.attention.self.key.weight'], ['bert.pooler.dense.weight']]) {
    const all = await gradientsOf(trained, false);
    const few = await gradientsOf(trained, true);
    assert.deepEqual([...few.keys()].sort(), trained.flatMap((n) => [n, n.replace('.weight', '.bias')]).sort());
    for (const [name, g] of few) assert.deepEqual(g, all.get(name), name);
  }
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('a user’s own policy is asked and told', async () => {
  const seen: number[][] = [];
  const { trainer, close } = await trainerOf({
    policy: (layers) => {
      const ils = new InterLayerScheduling(layers, { freezeRate: 0.5, seed: 1 });
      return Object.assign(ils, { select: () => layers.map((l) => l.index).slice(1), observe: (_: number, m: ReadonlyMap<number, number>) => void seen.push([...m.keys()]) });
    },
  });
  await trainer.step();
  assert.deepEqual(seen, [[0]]);
  close();
});

test('two hundred steps leave no tensor behind, and the tables have every row', async () => {
  const { engine, trainer, close } = await trainerOf({ totalSteps: 200 });
  await trainer.step();
  for await (const _ of trainer.steps(trainer.freezableLayers.length)); // every moment is there now
  const before = engine.memory();
  for await (const _ of trainer.steps());
  assert.ok(engine.memory().tensors <= before.tensors + 2 * trainer.freezableLayers.length);
  assert.equal(trainer.history.steps().numRows(), 200);
  assert.equal(trainer.history.layers().numRows(), 200 * trainer.freezableLayers.length);
  const rows = trainer.layers().objects() as { timesTrained: number; stepsSinceTrained: number | null }[];
  const times = rows.reduce((s, r) => s + r.timesTrained, 0);
  assert.equal(times, 200 * (trainer.freezableLayers.length - Math.floor(0.75 * trainer.freezableLayers.length)));
  assert.equal(Math.min(...rows.map((r) => r.stepsSinceTrained ?? Infinity)), 0);
  close();
});

test('after a rewind the same steps repeat to the bit, history included', async () => {
  for (const mode of ['paper', 'exact'] as const) {
    const { engine, trainer, model, close } = await trainerOf({ mode, evaluation: tinyData() });
    for await (const _ of trainer.steps(3));
    await trainer.evaluate();
    const before = engine.memory().totalLive;
    assert.equal(await trainer.snapshot(), 3);
    assert.equal(engine.memory().totalLive, before);
    const run = async () => {
      for await (const _ of trainer.steps(5));
      await trainer.evaluate();
      const { history } = trainer;
      const tables = [history.steps().select('step', 'loss', 'trainedLayers', 'activationBytes'), history.layers(), history.activations(), history.evaluations(), trainer.layers()];
      return { tables: tables.map((t) => t.objects()), weights: [...(await model.weights()).values()].map((w) => [...w.data]), count: trainer.stepCount(trainer.freezableLayers[0].name) };
    };
    const first = await run();
    trainer.rewind(3);
    assert.equal(trainer.nextStep, 3);
    assert.equal(trainer.history.length, 3);
    assert.deepEqual(await run(), first);
    close();
  }
});

test('rewind names the steps that it can go back to, and forgets later snapshots', async () => {
  const { trainer, close } = await trainerOf();
  assert.throws(() => trainer.rewind(0), (e: Error) => e instanceof InvalidArgumentError && /snapshot\(\)/.test(e.message));
  for (const want of [0, 1, 2]) {
    assert.equal(await trainer.snapshot(), want);
    await trainer.step();
  }
  assert.throws(() => trainer.rewind(7), /step 7.*step 0, 1, 2/);
  assert.equal(trainer.nextStep, 3);
  trainer.rewind(1);
  assert.deepEqual(trainer.snapshots, [0, 1]);
  trainer.forgetSnapshots(0, 5);
  assert.deepEqual(trainer.snapshots, [1]);
  trainer.rewind(1);
  await trainer.snapshot();
  trainer.forgetSnapshots();
  assert.deepEqual(trainer.snapshots, []);
  assert.throws(() => trainer.rewind(1), InvalidArgumentError);
  close();
});

test('freeze and thaw overrule the policy until follow', async () => {
  const { trainer, model, close } = await trainerOf();
  const [first, ...others] = trainer.peek().frozen;
  const active = trainer.peek().active[0];
  trainer.thaw(first.name);
  trainer.freeze(active.name);
  const before = await model.weights();
  const record = await trainer.step();
  const after = await model.weights();
  const moved = (name: string) => before.get(name)!.data.some((v, i) => v !== after.get(name)!.data[i]);
  assert.ok(record.active.includes(first.index) && moved(first.name));
  assert.ok(record.frozen.includes(active.index) && !moved(active.name));
  assert.ok(record.frozen.includes(others[0].index));
  assert.throws(() => trainer.freeze(others[0].name, 'no.such.layer'), /no\.such\.layer.*trainer\.layers\(\)/);
  trainer.freeze('bert');
  assert.deepEqual(trainer.peek().active.filter((l) => l.name.startsWith('bert.')), [], 'a module stands for its layers');
  trainer.follow();
  assert.deepEqual(trainer.peek().frozen.map((l) => l.index), trainer.policy.select(trainer.nextStep));
  close();
});

/** Large enough for 8-bit moments. */
const wide = tinyConfig({ hidden_size: 64, intermediate_size: 64, vocab_size: 80 });
async function wideTrainer(options: Partial<TrainerOptions>) {
  const engine = await cpuEngine();
  const model = tinyModel(engine, wide);
  const trainer = new SlimFitTrainer({ model, train: tinyData(wide), batchSize: 4, learningRate: 2e-3, freezeRate: 0.5, totalSteps: 40, seed: 3, measureEncodingsEvery: 0, onWarning: () => {}, mode: 'tuned', ...options });
  const close = () => {
    trainer.dispose();
    model.dispose();
    assert.equal(engine.memory().tensors, 0, 'tensors left');
    engine.dispose();
  };
  const weights = async () => [...(await model.weights()).values()].map((w) => w.data);
  return { engine, trainer, weights, close };
}

test('with moments of frozen layers on the host, training is the same to the bit and the device holds those of what trains; released ones change it', async () => {
  for (const moments of ['float32', '8-bit'] as const) {
    const runs = [];
    for (const idleMoments of ['keep', 'host', 'release'] as const) {
      const { engine, trainer, weights, close } = await wideTrainer({ optimizer: { moments, idleMoments } });
      const losses: number[] = [];
      for await (const r of trainer.steps(8)) losses.push(r.loss);
      runs.push({ losses, weights: await weights(), bytes: engine.memory().live.optimizer, counts: trainer.freezableLayers.map((l) => trainer.stepCount(l.name)) });
      close();
    }
    const [keep, host, release] = runs;
    assert.deepEqual([host.losses, host.weights, host.counts], [keep.losses, keep.weights, keep.counts], moments);
    assert.ok(host.bytes < 0.8 * keep.bytes && release.bytes < 0.8 * keep.bytes, `${keep.bytes} ${host.bytes} ${release.bytes}`);
    assert.notDeepEqual(release.weights, keep.weights);
    assert.ok(release.counts.some((n, i) => n < keep.counts[i]));
  }
});

test('after a rewind the same steps repeat to the bit wherever moments are and in whatever form', async () => {
  for (const optimizer of [{ moments: '8-bit' }, { idleMoments: 'host' }, { moments: '8-bit', idleMoments: 'host', idleAfter: 1 }, { idleMoments: 'release', idleAfter: 1 }] as const) {
    const { trainer, weights, close } = await wideTrainer({ optimizer });
    for await (const _ of trainer.steps(4));
    await trainer.snapshot();
    const run = async () => {
      for await (const _ of trainer.steps(4));
      return { weights: await weights(), losses: [...trainer.history.column('loss')], counts: trainer.freezableLayers.map((l) => trainer.stepCount(l.name)) };
    };
    const first = await run();
    trainer.rewind(4);
    assert.deepEqual(await run(), first, JSON.stringify(optimizer));
    close();
  }
});

test('a step whose loss is not finite loses no moments, even those that it was about to release', async () => {
  const { engine, trainer, close } = await wideTrainer({ optimizer: { idleMoments: 'release' } });
  await trainer.step();
  const counts = () => trainer.freezableLayers.map((l) => trainer.stepCount(l.name));
  const before = counts();
  assert.ok(before.includes(1));
  trainer.freeze(...trainer.freezableLayers.map((l) => l.name));
  const bias = trainer.model.parameters.get('classifier.bias')!.data;
  const values = (await engine.read(bias)) as Float32Array;
  engine.write(bias, new Float32Array(values.length).fill(NaN));
  await assert.rejects(trainer.step(), LossNotFiniteError);
  assert.deepEqual(counts(), before);
  engine.write(bias, values);
  await trainer.step();
  assert.ok(counts().every((n) => n === 0));
  close();
});

test('8-bit moments lower the loss as float32 ones do, in a quarter of the bytes', async () => {
  const run = async (moments: 'float32' | '8-bit') => {
    const { engine, trainer, close } = await wideTrainer({ optimizer: { moments }, learningRate: 1e-3 });
    const losses: number[] = [];
    for await (const r of trainer.steps(24)) losses.push(r.loss);
    const bytes = engine.memory().live.optimizer;
    close();
    const mean = (x: number[]) => x.reduce((a, b) => a + b) / x.length;
    return { start: mean(losses.slice(0, 3)), end: mean(losses.slice(-6)), bytes };
  };
  const [plain, coded] = [await run('float32'), await run('8-bit')];
  assert.ok(plain.end < 0.5 * plain.start, `${plain.start} ${plain.end}`);
  assert.ok(coded.end < 0.5 * coded.start && Math.abs(coded.end - plain.end) < 0.1 * plain.start, `${coded.end}, ${plain.end} of ${plain.start}`);
  assert.ok(coded.bytes < 0.3 * plain.bytes, `${coded.bytes} of ${plain.bytes}`);
});

test('idle moments and zero gradients for frozen layers exclude each other', async () => {
  for (const idleMoments of ['host', 'release'] as const)
    await assert.rejects(wideTrainer({ frozenParameters: 'zerograd', optimizer: { idleMoments } }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(`'${idleMoments}'`) && e.message.includes('zerograd'));
});
