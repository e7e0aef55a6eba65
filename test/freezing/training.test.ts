/** Every policy in a training run: what it promises is what the steps do. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidArgumentError } from '../../src/errors';
import { AutoFreeze } from '../../src/freezing/autoFreeze';
import { BitFit } from '../../src/freezing/bitFit';
import { BlockCyclic } from '../../src/freezing/blockCyclic';
import { CkaFreezing, linearCka } from '../../src/freezing/ckaFreezing';
import { FreezeOut } from '../../src/freezing/freezeOut';
import { KnapsackFreezing } from '../../src/freezing/knapsackFreezing';
import { MemoryBudget } from '../../src/freezing/memoryBudget';
import type { PolicyFactory, StepObservation } from '../../src/freezing/policy';
import { RandomLayers } from '../../src/freezing/randomLayers';
import { TrackingPolicy } from '../../src/freezing/tracking';
import { compare } from '../../src/inspect/compare';
import { freezeMapFigure, timesTrainedFigure } from '../../src/inspect/freezeFigures';
import { shortLayerName } from '../../src/inspect/layerNames';
import { updateMagnitudeDistributionFigure } from '../../src/inspect/magnitudeFigures';
import { healthTable } from '../../src/inspect/tables';
import type { BatchSource, TextBatch } from '../../src/models/model';
import { ForwardContext } from '../../src/nn/context';
import { SCHEMES } from '../../src/tape/scheme';
import { SlimFitTrainer, type TrainerOptions } from '../../src/training/trainer';
import { cpuEngine, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';
import { trainingParts } from './bertLayers';

const config = tinyConfig();
/** Twelve examples, and a batch's shape beforehand. */
function tinyData(): BatchSource<TextBatch> {
  const all = tinyBatch(config, 12, 6);
  return {
    size: 12,
    shape: (indices) => ({ batchSize: indices.length, length: 6 }),
    batch(indices) {
      const rows = Array.from(indices);
      const take = (a: Int32Array) => Int32Array.from(rows.flatMap((r) => [...a.slice(r * 6, r * 6 + 6)]));
      return { inputIds: take(all.inputIds), tokenTypeIds: take(all.tokenTypeIds), attentionMask: take(all.attentionMask), labels: Int32Array.from(rows, (r) => (all.labels as Int32Array)[r]), batchSize: rows.length, length: 6 };
    },
  };
}

async function trainerOf(policy: PolicyFactory, options: Partial<TrainerOptions> = {}) {
  const engine = await cpuEngine();
  const model = tinyModel(engine);
  const trainer = new SlimFitTrainer({ model, train: tinyData(), batchSize: 4, learningRate: 0.01, totalSteps: 12, seed: 3, measureEncodingsEvery: 0, onWarning: () => {}, policy, ...options });
  const close = () => {
    trainer.dispose();
    model.dispose();
    assert.equal(engine.memory().tensors, 0, 'tensors left');
    engine.dispose();
  };
  return { engine, model, trainer, close };
}

const BUDGET = 12_000;
const policies: Readonly<Record<string, { readonly make: PolicyFactory; readonly label: RegExp; readonly parts?: RegExp }>> = {
  RandomLayers: { make: (l, { seed }) => new RandomLayers(l, { activatedLayers: 1, intervalSteps: 2, seed }), label: /^1 random block every 2 steps$/, parts: /^E[01]H$/ },
  BlockCyclic: { make: (l) => new BlockCyclic(l, { switchBlockEvery: 2 }), label: /^block by block, random, 2 steps each$/, parts: /^[E01H]$/ },
  FreezeOut: { make: (l, { totalSteps }) => new FreezeOut(l, { totalSteps, t0: 0.3, schedule: 'linear' }), label: /^FreezeOut, linear, t0 0.3$/, parts: /^E?0?1?H$/ },
  AutoFreeze: { make: (l) => new AutoFreeze(l, { evaluateEvery: 2, percentile: 90 }), label: /^AutoFreeze, percentile 90/, parts: /^(E01H|1H)$/ },
  BitFit: { make: (l) => new BitFit(l), label: /^BitFit$/ },
  CkaFreezing: { make: (l) => new CkaFreezing(l, { compareEvery: 2, threshold: 0.05, examples: 6 }), label: /^CKA change/, parts: /^E?0?1?H$/ },
  MemoryBudget: { make: (l) => new MemoryBudget(l, { budgetBytes: BUDGET }), label: /^largest magnitudes in 11.7 KiB$/ },
  KnapsackFreezing: { make: (l) => new KnapsackFreezing(l, { budgetBytes: BUDGET }), label: /^knapsack of 11.7 KiB$/ },
};

for (const [name, { make, label, parts }] of Object.entries(policies))
  test(`${name} trains: peek says what a step does and keeps, frozen weights stay, a rewound run repeats to the bit, figures draw`, async () => {
    const { trainer, model, close } = await trainerOf(make);
    assert.match(trainer.history.name, label);
    const moving = new Set<string>();
    for (let s = 0; s < 8; s++) {
      if (s === 3) await trainer.snapshot();
      const peeked = trainer.peek();
      const before = await model.weights();
      const r = await trainer.step();
      const after = await model.weights();
      assert.deepEqual([...r.frozen], peeked.frozen.map((l) => l.index));
      assert.equal(r.activationBytes, peeked.activationBytes, `bytes of step ${s}`);
      assert.ok(Number.isFinite(r.loss));
      assert.equal(r.memory.live.gradients, 0);
      if (parts) assert.match(trainingParts(trainer.freezableLayers, r.frozen), parts);
      if (/Budget|Knapsack/.test(name)) assert.ok(r.activationBytes <= BUDGET && r.active.length > 4, `${r.activationBytes}`);
      const isFrozen = new Set(r.frozen.map((i) => trainer.freezableLayers[i].name));
      for (const [p, { data }] of before) {
        const moved = data.some((v, i) => v !== after.get(p)!.data[i]);
        if (moved) moving.add(p);
        if (isFrozen.has(p)) assert.ok(!moved, `${p} is frozen and moved in step ${s}`);
        if (isFrozen.has(p.replace(/bias$/, 'weight')) && trainer.policy.freezesBiases) assert.ok(!moved, `${p} moved in step ${s}`);
        // A bias has no gradient where softmax does not feel it: a key's, a shift common to all keys.
        if (p.endsWith('bias') && !trainer.policy.freezesBiases && !p.includes('key')) assert.ok(moved, `${p} did not move in step ${s}`);
      }
    }
    assert.ok(moving.size > 3);
    const course = (await lastLosses()).join();
    trainer.rewind(3);
    for (let s = 3; s < 8; s++) await trainer.step();
    assert.equal((await lastLosses()).join(), course);
    for (const figure of [freezeMapFigure, timesTrainedFigure, updateMagnitudeDistributionFigure]) assert.ok(figure(trainer.history).data.length > 0);
    assert.equal(healthTable(trainer.history).numRows(), trainer.freezableLayers.length);
    assert.match(compare(trainer.history, { history: trainer.history }).loss().data[0].name as string, label);
    assert.equal(trainer.layers().numRows(), trainer.freezableLayers.length);
    close();

    async function lastLosses(): Promise<number[]> {
      const weights = [...(await model.weights()).values()].map((w) => w.data.reduce((a, b) => a + b, 0));
      return [...trainer.history.column('loss').slice(), ...weights];
    }
  });

test('AutoFreeze, CKA and FreezeOut froze something in those runs', async () => {
  for (const name of ['AutoFreeze', 'CkaFreezing', 'FreezeOut']) {
    const { trainer, close } = await trainerOf(policies[name].make);
    for await (const _ of trainer.steps(8));
    assert.ok(trainer.peek().frozen.length >= 4, name);
    close();
  }
});

test('nothing is kept below the lowest block that trains when biases freeze with their layers', async () => {
  const { trainer, close } = await trainerOf((l) => new BlockCyclic(l, { switchBlockEvery: 1, switchMode: 'descending' }));
  const modules: string[][] = [];
  for (let s = 0; s < 4; s++) modules.push([...new Set((await trainer.step()).activations.map((e) => e.layer))]);
  assert.ok(modules[0].every((m) => /pooler|classifier/.test(m)), `head: ${modules[0]}`);
  assert.ok(modules[1].every((m) => /pooler|classifier|layer\.1\./.test(m)) && modules[1].some((m) => m.includes('layer.1.')), `block 1: ${modules[1]}`);
  assert.ok(modules[2].some((m) => m.includes('layer.0.')) && !modules[2].some((m) => m.includes('embeddings')), `block 0: ${modules[2]}`);
  assert.ok(modules[3].some((m) => m.includes('embeddings')));
  close();
});

test('biases freeze with their layers when the policy or the trainer’s option says so; in mode tuned unless the policy says no', async () => {
  const head: PolicyFactory = (l) => new BlockCyclic(l, { switchBlockEvery: 1, switchMode: 'descending' });
  const one: PolicyFactory = (l) => new (class extends TrackingPolicy {
    readonly name = 'pooler only';
    select = () => this.layers.filter((x) => !x.name.includes('pooler')).map((x) => x.index);
  })(l);
  const bits: PolicyFactory = (l) => new BitFit(l);
  for (const [policy, options, freeze, warning] of [
    [head, {}, true],
    [head, { frozenBiases: false }, true],
    [head, { frozenBiases: true }, true],
    [head, { mode: 'tuned' }, true],
    [one, {}, false],
    [one, { frozenBiases: true }, true],
    [one, { mode: 'tuned' }, true],
    [one, { mode: 'tuned', frozenBiases: false }, false],
    [bits, {}, false],
    [bits, { mode: 'tuned' }, false],
    [bits, { frozenBiases: true }, true, /frozenBiases.*bitfit/],
  ] as const) {
    const warnings: string[] = [];
    const { trainer, model, close } = await trainerOf(policy, { ...options, onWarning: (t) => warnings.push(t) });
    const { activationBytes } = trainer.peek();
    const before = await model.weights();
    const r = await trainer.step();
    const after = await model.weights();
    const why = `${trainer.policy.name}, ${JSON.stringify(options)}`;
    assert.equal(r.activationBytes, activationBytes, why);
    for (const i of r.frozen) {
      const bias = trainer.freezableLayers[i].name.replace(/weight$/, 'bias');
      // A key's bias has no gradient.
      if (!bias.endsWith('bias') || !before.has(bias) || bias.includes('key')) continue;
      assert.equal(before.get(bias)!.data.some((v, j) => v !== after.get(bias)!.data[j]), !freeze, `${why}: ${bias}`);
    }
    assert.equal(r.activations.some((e) => e.layer.includes('layer.0.')), !freeze, `${why}: what is kept`);
    assert.equal(warnings.length, warning ? 1 : 0, why);
    if (warning) assert.match(warnings[0], warning);
    close();
  }
});

for (const name of ['MemoryBudget', 'KnapsackFreezing'])
  test(`${name} keeps to its budget where biases freeze too, and leaves out no layer that would fit`, async () => {
    const { trainer, close } = await trainerOf(policies[name].make, { mode: 'tuned' });
    const trained = new Set<number>();
    for (let s = 0; s < 8; s++) {
      const { activationBytes } = trainer.peek();
      const r = await trainer.step();
      assert.equal(r.activationBytes, activationBytes);
      assert.ok(r.active.length >= 1 && r.activationBytes <= BUDGET, `${r.active.length} layers, ${r.activationBytes} bytes`);
      // freezingSaves: what one layer more, or less, makes of the bytes of the step.
      for (const i of r.frozen) assert.ok(r.activationBytes + r.freezingSaves[i] > BUDGET, `${trainer.freezableLayers[i].name} would fit`);
      for (const i of r.active) trained.add(i);
    }
    assert.ok(trained.size > 4, `${trained.size}`);
    close();
  });

/** Told everything; freezes nothing. */
class Curious extends TrackingPolicy {
  readonly name = 'curious';
  readonly wantsGradientNorms = true;
  readonly told: StepObservation[] = [];
  probe(step: number): number {
    return step === 1 ? 5 : 0;
  }
  select(): number[] {
    return [];
  }
  override observe(step: number, magnitudes: ReadonlyMap<number, number>, more: StepObservation = {}): void {
    super.observe(step, magnitudes, more);
    this.told.push(more);
  }
}

test('the gradient norms that a policy is told are those of the gradients', async () => {
  const { trainer, model, engine, close } = await trainerOf((l) => new Curious(l), { mode: 'exact', shuffle: false, dropout: false });
  const norms = new Map<string, number>();
  const ctx = ForwardContext.deterministic(engine, SCHEMES.exact);
  const out = model.forwardWithLoss(ctx, (await tinyData().batch([0, 1, 2, 3])) as TextBatch);
  const grads: Promise<void>[] = [];
  ctx.tape.backward(out.loss, (p, g) => {
    const copy = engine.share(g, 'gradients');
    grads.push(engine.read(copy).then((v) => (norms.set(p.name, Math.hypot(...v)), engine.free(copy))));
  });
  await Promise.all(grads);
  engine.free(out.loss.tensor, out.logits.tensor);
  await trainer.step();
  const told = (trainer.policy as Curious).told[0].gradientNorms!;
  assert.equal(told.size, trainer.freezableLayers.length);
  for (const { index, name } of trainer.freezableLayers) assert.ok(Math.abs(told.get(index)! - norms.get(name)!) <= 1e-5 * norms.get(name)!, name);
  close();
});

test('the Gram matrices that a policy is told are of the layers’ outputs before the update, on the first examples, when it asks', async () => {
  const { trainer, model, close } = await trainerOf((l) => new Curious(l));
  await trainer.step();
  const before = await model.weights();
  await trainer.step();
  const { told } = trainer.policy as Curious;
  assert.equal(told[0].grams, undefined);
  const grams = told[1].grams!;
  assert.deepEqual([...grams.keys()].sort((a, b) => a - b), trainer.freezableLayers.map((l) => l.index));
  // The word embeddings' output is the table's rows: worked out here.
  const batch = (await tinyData().batch([0, 1, 2, 3, 4])) as TextBatch;
  const table = before.get('bert.embeddings.word_embeddings.weight')!.data;
  const x = Array.from({ length: 5 }, (_, e) => Array.from(batch.inputIds.slice(6 * e, 6 * e + 6)).flatMap((id) => [...table.slice(16 * id, 16 * id + 16)]));
  const mean = x[0].map((_, j) => x.reduce((s, r) => s + r[j], 0) / 5);
  const want = x.flatMap((a) => x.map((b) => a.reduce((s, v, j) => s + (v - mean[j]) * (b[j] - mean[j]), 0)));
  grams.get(0)!.forEach((v, i) => assert.ok(Math.abs(v - want[i]) < 1e-3, `${v} is not ${want[i]}`));
  assert.ok(Math.abs(linearCka(grams.get(0)!, want) - 1) < 1e-6);
  close();
});

test('layers that the user thaws or freezes count in the bytes that a budget goes by', async () => {
  const { trainer, close } = await trainerOf((l) => new MemoryBudget(l, { budgetBytes: BUDGET }));
  const thawed = ['L0 query', 'L0 MLP down', 'L1 attention output'];
  trainer.thaw(...thawed);
  trainer.freeze('L1 MLP up');
  for (let s = 0; s < 4; s++) {
    const r = await trainer.step();
    assert.ok(r.activationBytes <= BUDGET && r.active.length > 3 + 3, `${r.activationBytes}`);
    for (const l of trainer.freezableLayers) {
      if (thawed.includes(shortLayerName(l.name))) assert.ok(r.active.includes(l.index));
      if (l.name.includes('layer.1.intermediate')) assert.ok(r.frozen.includes(l.index));
    }
  }
  close();
});

test('a budget that a step cannot meet, or that nobody can tell, stops before anything changed', async () => {
  const { trainer, model, close } = await trainerOf((l) => new MemoryBudget(l, { budgetBytes: 5 }));
  const before = await model.weights();
  await assert.rejects(trainer.step(), (e: Error) => e instanceof InvalidArgumentError && e.message.includes('budgetBytes is 5'));
  assert.deepEqual([await model.weights(), trainer.nextStep], [before, 0]);
  close();
  // The batch is made in time to tell its shape in a step, but not for peek.
  const data = tinyData();
  const late = await trainerOf((l) => new MemoryBudget(l, { budgetBytes: BUDGET }), { train: { size: 12, batch: async (i) => data.batch(i) } });
  assert.throws(() => late.trainer.peek(), (e: Error) => e instanceof InvalidArgumentError && e.message.includes('`shape`'));
  assert.ok((await late.trainer.step()).activationBytes <= BUDGET);
  late.close();
});

test('a policy of one’s own in ten lines: what it names is frozen, and it may ask for all the rest', async () => {
  // As in the docstring of FreezePolicy.
  class EvenOdd extends TrackingPolicy {
    readonly name = 'even-odd';
    select(step: number): number[] {
      const rests = (name: string) => Number(/layer\.(\d+)\./.exec(name)?.[1] ?? step) % 2 !== step % 2;
      return this.layers.filter((l) => rests(l.name)).map((l) => l.index);
    }
  }
  const { trainer, close } = await trainerOf((layers) => new EvenOdd(layers));
  const parts: string[] = [];
  for await (const r of trainer.steps(4)) parts.push(trainingParts(trainer.freezableLayers, r.frozen));
  assert.deepEqual(parts, ['E0H', 'E1H', 'E0H', 'E1H']);
  assert.equal(trainer.history.name, 'even-odd');
  assert.ok([...trainer.policy.magnitudes].every((d) => d > 0));
  close();
});

test('a policy that names a layer that is not there is told so by its name, and nothing changes', async () => {
  class Astray extends TrackingPolicy {
    readonly name = 'astray';
    select(): number[] {
      return [3, 99];
    }
  }
  const { trainer, close } = await trainerOf((l) => new Astray(l));
  await assert.rejects(trainer.step(), (e: Error) => e instanceof InvalidArgumentError && /astray.*layer 99/.test(e.message));
  assert.equal(trainer.nextStep, 0);
  close();
});
