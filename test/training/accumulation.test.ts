/** Steps in micro-batches, and with layers that are run again, against the same steps in one piece that keep everything. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidArgumentError, LabelError, LossNotFiniteError } from '../../src/errors';
import { AutoFreeze } from '../../src/freezing/autoFreeze';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { BertForMaskedLM, BertForQuestionAnswering, IGNORED_LABEL } from '../../src/models/bert';
import type { BatchSource, ImageBatch, Model, TextBatch } from '../../src/models/model';
import { ViTForImageClassification } from '../../src/models/vit';
import { Random } from '../../src/random';
import { type ActivationScheme, SCHEMES } from '../../src/tape/scheme';
import { SlimFitTrainer, type TrainerOptions } from '../../src/training/trainer';
import { cpuEngine, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

const T = 6;
const EXAMPLES = 13;
const bert = tinyConfig();
const all = tinyBatch(bert, EXAMPLES, T);
const vit = parseViTConfig({ model_type: 'vit', image_size: 8, patch_size: 4, hidden_size: 12, num_hidden_layers: 2, num_attention_heads: 3, intermediate_size: 21, num_labels: 3, initializer_range: 0.3 });
const random = new Random(6);
const pixels = Float32Array.from({ length: EXAMPLES * 192 }, () => random.normal());
/** Masked-LM labels of very unequal number: the first example has one, the fourth none, the others more. */
const masked = Int32Array.from({ length: EXAMPLES * T }, (_, i) => {
  const example = Math.floor(i / T);
  const labelled = example === 0 ? i % T === 1 : example === 3 ? false : i % T < 1 + (example % 4);
  return labelled ? 1 + random.int(30) : IGNORED_LABEL;
});

const take = <A extends Int32Array | Float32Array>(a: A, rows: ArrayLike<number>): A => {
  const width = a.length / EXAMPLES;
  return (a.constructor as unknown as { from(values: number[]): A }).from(Array.from(rows).flatMap((r) => [...a.slice(r * width, (r + 1) * width)]));
};
const texts = (labels: Int32Array | Float32Array): BatchSource<TextBatch> => ({
  size: EXAMPLES,
  shape: (rows) => ({ batchSize: rows.length, length: T }),
  batch: (rows) => ({ inputIds: take(all.inputIds, rows), tokenTypeIds: take(all.tokenTypeIds, rows), attentionMask: take(all.attentionMask, rows), labels: take(labels, rows), batchSize: rows.length, length: T }),
});
const images: BatchSource<ImageBatch> = {
  size: EXAMPLES,
  shape: (rows) => ({ batchSize: rows.length, channels: 3, height: 8, width: 8 }),
  batch: (rows) => ({ pixelValues: take(pixels, rows), labels: Int32Array.from(rows, (r) => r % 3), batchSize: rows.length, channels: 3, height: 8, width: 8 }),
};

const engine = cpuEngine();
const spans = Int32Array.from({ length: 2 * EXAMPLES }, () => random.int(T));
const scores = Float32Array.from({ length: EXAMPLES }, () => random.normal());
const TASKS: Readonly<Record<string, () => Promise<{ model: Model<never>; train: BatchSource<never> }>>> = {
  'BERT, classes': async () => ({ model: tinyModel(await engine) as never, train: texts(all.labels) as never }),
  'BERT, scores': async () => ({ model: tinyModel(await engine, tinyConfig({ num_labels: 1 })) as never, train: texts(scores) as never }),
  'BERT, answers': async () => ({ model: BertForQuestionAnswering.fresh(await engine, { ...bert, initializerRange: 0.3 }) as never, train: texts(spans) as never }),
  'BERT, masked words': async () => ({ model: BertForMaskedLM.fresh(await engine, { ...bert, initializerRange: 0.3 }) as never, train: texts(masked) as never }),
  'ViT, classes': async () => ({ model: ViTForImageClassification.fresh(await engine, vit) as never, train: images as never }),
};

type Options = Partial<TrainerOptions<never>>;
/** A run of some steps, with what it left behind. */
async function run(task: string, options: Options, steps = 4) {
  const { model, train } = await TASKS[task]();
  // 13 examples in steps of 5: 5, 5, 3, and over again. AdamW divides by a gradient's size: with an epsilon above its rounding it does not magnify that.
  const trainer = new SlimFitTrainer<never>({ model, train, batchSize: 5, learningRate: 0.01, schedule: 'constant', freezeRate: 0.5, totalSteps: 20, seed: 3, dropout: false, mode: 'exact', optimizer: { eps: 1e-3 }, onWarning: () => {}, ...options });
  const records = [];
  for await (const r of trainer.steps(steps)) records.push(r);
  const weights = await model.weights();
  trainer.dispose();
  model.dispose();
  assert.equal((await engine).memory().tensors, 0, 'tensors left');
  return { records, weights };
}

function assertClose(a: ReadonlyMap<string, { data: Float32Array }>, b: ReadonlyMap<string, { data: Float32Array }>, what: string): void {
  for (const [name, { data }] of a) {
    const other = b.get(name)!.data;
    data.forEach((v, i) => assert.ok(Math.abs(v - other[i]) <= 2e-6 * (1 + Math.abs(v)), `${what}: ${name}[${i}] is ${other[i]}, not ${v}`));
  }
}

for (const task of Object.keys(TASKS))
  test(`${task}: steps in micro-batches give the losses, magnitudes and weights of steps in one piece, whatever the parts' sizes and the labels in them`, async () => {
    for (const mode of ['exact', { ...SCHEMES.exact, name: 'recomputed', attentionProbs: 'recompute' } satisfies ActivationScheme] as const) {
      // A norm, not a mean of quotients, which near-zero weights decide.
      const magnitude = 'relative-l2';
      const whole = await run(task, { mode, magnitude });
      for (const gradientAccumulationSteps of [2, 3, 5]) {
        const what = `${gradientAccumulationSteps} parts`;
        const parts = await run(task, { mode, magnitude, gradientAccumulationSteps });
        for (const [i, r] of parts.records.entries()) {
          const w = whole.records[i];
          assert.ok(Math.abs(r.loss - w.loss) <= 2e-6 * Math.abs(w.loss), `${what}: loss ${r.loss}, not ${w.loss}`);
          assert.deepEqual([r.frozen, r.examples, r.tokens, r.step], [w.frozen, w.examples, w.tokens, w.step]);
          for (const l of r.active) assert.ok(Math.abs(r.updateMagnitudes[l] - w.updateMagnitudes[l]) <= 1e-4 * w.updateMagnitudes[l], `${what}: magnitude of ${l}`);
          assert.ok(r.activationBytes < w.activationBytes, 'a part keeps less');
          assert.equal(r.activationBytes, r.activations.reduce((s, e) => s + e.bytes, 0));
          assert.ok(r.memory.peak.activations === r.activationBytes);
          assert.deepEqual([r.memory.live.activations, r.memory.live.gradients, r.memory.live.workspace], [0, 0, 0]);
          assert.equal(r.course.at(-1)!.activationBytes, 0);
          assert.equal(Math.max(...r.course.map((p) => p.activationBytes)), r.activationBytes);
          assert.deepEqual(r.fullActivations, w.fullActivations);
        }
        assertClose(whole.weights, parts.weights, what);
      }
    }
  });

test('codes of an element or a row are those of the batch in one piece, so coded schemes that prune no LayerNorm agree too but for codes on an edge', async () => {
  for (const base of [SCHEMES.paper, SCHEMES.tuned]) {
    const mode: ActivationScheme = { ...base, name: `${base.name}, LayerNorms whole`, frozenLayerNormShare: undefined };
    const whole = await run('BERT, classes', { mode }, 1);
    const parts = await run('BERT, classes', { mode, gradientAccumulationSteps: 2 }, 1);
    assertClose(whole.weights, parts.weights, mode.name);
  }
});

test('one micro-batch a step is the step itself, to the bit; runs in micro-batches repeat to the bit, with dropout of their own in each part', async () => {
  const dropping = async (options: Options) => {
    const config = tinyConfig({ hidden_dropout_prob: 0.3, attention_probs_dropout_prob: 0.3 });
    const model = tinyModel(await engine, config);
    // The same example twice: with equal dropout both parts would have one loss.
    const one = texts(all.labels);
    const train: BatchSource<TextBatch> = { size: 2, batch: (rows) => one.batch(Int32Array.from(rows, () => 0)) };
    const trainer = new SlimFitTrainer({ model, train, batchSize: 2, totalSteps: 9, mode: 'paper', seed: 3, onWarning: () => {}, ...(options as object) });
    const losses: number[] = [];
    for await (const r of trainer.steps(3)) losses.push(r.loss);
    const weights = await model.weights();
    trainer.dispose();
    model.dispose();
    return { losses, weights };
  };
  assert.deepEqual(await dropping({ gradientAccumulationSteps: 1 }), await dropping({}));
  const parts = await dropping({ gradientAccumulationSteps: 2 });
  assert.deepEqual(await dropping({ gradientAccumulationSteps: 2 }), parts);
  const alone = await dropping({ batchSize: 1 });
  assert.notEqual(parts.losses[0], alone.losses[0]);
});

test('layers that are run again train to the same weights to the bit, in parts or not, under every scheme; what a step keeps is what peek foresaw', async () => {
  for (const task of ['BERT, classes', 'ViT, classes'])
    // Where BERT's projections read codes of the LayerNorm before, a layer that is run again takes codes of its input (nn/checkpoint.ts).
    for (const mode of [SCHEMES.exact, SCHEMES.paper, task.startsWith('BERT') ? { ...SCHEMES.tuned, name: 'tuned, LayerNorms whole', normalizedValues: undefined } : SCHEMES.tuned])
      for (const gradientAccumulationSteps of [1, 2]) {
        const kept = await run(task, { mode, gradientAccumulationSteps });
        const again = await run(task, { mode, gradientAccumulationSteps, gradientCheckpointing: true });
        assert.deepEqual(again.weights, kept.weights, `${task}, ${mode.name}`);
        assert.deepEqual(again.records.map((r) => r.loss), kept.records.map((r) => r.loss));
        assert.ok(again.records[0].memory.peak.activations < kept.records[0].memory.peak.activations, `${task}, ${mode.name}`);
      }
  for (const options of [{ gradientCheckpointing: true }, { gradientAccumulationSteps: 3 }, { gradientAccumulationSteps: 2, gradientCheckpointing: true, mode: 'tuned' }] as const) {
    const { model, train } = await TASKS['BERT, classes']();
    const trainer = new SlimFitTrainer<never>({ model, train, batchSize: 5, seed: 3, onWarning: () => {}, ...options });
    for (let i = 0; i < 4; i++) {
      const { activationBytes } = trainer.peek();
      const r = await trainer.step();
      assert.equal(r.activationBytes, activationBytes);
    }
    trainer.dispose();
    model.dispose();
  }
  assert.equal((await engine).memory().tensors, 0);
});

test('between micro-batches the device holds the gradients of what trains, and no more', async () => {
  const whole = await run('BERT, classes', { freezeRate: 0.9 }, 1);
  const parts = await run('BERT, classes', { freezeRate: 0.9, gradientAccumulationSteps: 5 }, 1);
  const { model } = await TASKS['BERT, classes']();
  const trained = [...model.parameters.values()].filter((p) => p.name.endsWith('bias') || parts.records[0].active.some((l) => model.layers[l].name === p.name));
  const bytes = trained.reduce((s, p) => s + 4 * p.size, 0);
  const { gradients } = parts.records[0].memory.peak;
  assert.ok(gradients >= bytes && gradients <= bytes + 2 * Math.max(...trained.map((p) => 4 * p.size)) + 4 * 3, `${gradients}, not ${bytes}`);
  assert.ok(whole.records[0].memory.peak.gradients < gradients);
  model.dispose();
});

test('a policy sees the norm of the whole step’s gradient', async () => {
  const norms = async (options: Options) => {
    const seen: Record<number, number>[] = [];
    await run('BERT, classes', {
      ...options,
      policy: (layers, { totalSteps }) => {
        const policy = new AutoFreeze(layers, { evaluateEvery: totalSteps });
        const observe = policy.observe.bind(policy);
        policy.observe = (step, moved, seenNow) => {
          seen.push(Object.fromEntries(seenNow!.gradientNorms!));
          observe(step, moved, seenNow);
        };
        return policy;
      },
    }, 2);
    return seen;
  };
  const [whole, parts] = [await norms({}), await norms({ gradientAccumulationSteps: 3 })];
  assert.ok(Object.keys(whole[0]).length > 10);
  for (const [i, step] of whole.entries())
    for (const [layer, norm] of Object.entries(step)) assert.ok(Math.abs(parts[i][+layer] - norm) <= 1e-4 * norm, `${layer}: ${parts[i][+layer]}, not ${norm}`);
});

test('gradients are compared over all micro-batches: exact ones have no error, and the errors are those of the batch in one piece', async () => {
  const compared = async (options: Options) => {
    const { model, train } = await TASKS['BERT, classes']();
    const trainer = new SlimFitTrainer<never>({ model, train, batchSize: 5, seed: 3, dropout: false, freezeRate: 0.5, onWarning: () => {}, ...options });
    const { errors } = await trainer.compareGradients();
    trainer.dispose();
    model.dispose();
    assert.equal((await engine).memory().tensors, 0);
    return errors;
  };
  const mode: ActivationScheme = { ...SCHEMES.paper, name: 'LayerNorms whole', frozenLayerNormShare: undefined };
  for (const error of await compared({ mode: 'exact', gradientAccumulationSteps: 2, gradientCheckpointing: true })) assert.ok(!(error.relativeError > 0), error.parameter);
  const whole = await compared({ mode });
  const parts = await compared({ mode, gradientAccumulationSteps: 2 });
  assert.ok(whole.some((e) => e.relativeError > 1e-3));
  for (const [i, e] of whole.entries()) {
    assert.equal(parts[i].parameter, e.parameter);
    for (const what of ['exactNorm', 'norm'] as const) assert.ok(Math.abs(parts[i][what] - e[what]) <= 1e-4 * e[what] + 1e-6, `${e.parameter}: ${what} ${parts[i][what]}, not ${e[what]}`);
  }
});

test('a micro-batch that fails, or whose loss is not finite, applies nothing and leaves nothing; the step can be run again', async () => {
  const e = await engine;
  const { model, train } = await TASKS['BERT, scores']();
  let labels: (l: Float32Array) => Float32Array = (l) => l;
  const source = { size: EXAMPLES, batch: (rows: ArrayLike<number>) => { const b = (train as BatchSource<TextBatch>).batch(rows) as TextBatch; return { ...b, labels: labels(b.labels as Float32Array) }; } };
  const trainer = new SlimFitTrainer<never>({ model, train: source as never, batchSize: 5, seed: 3, gradientAccumulationSteps: 3, gradientCheckpointing: true, freezeRate: 0, onWarning: () => {} });
  await trainer.step();
  const idle = e.memory().tensors;
  const before = await model.weights();
  const magnitudes = [...trainer.policy.magnitudes];
  const last = (value: number) => (l: Float32Array) => l.map((v, i) => (i === l.length - 1 ? value : v));
  for (const [bad, error] of [[last(NaN), LabelError], [last(1e30), LossNotFiniteError]] as const) {
    labels = bad;
    await assert.rejects(trainer.step(), error);
    assert.equal(e.memory().tensors, idle);
    assert.equal(trainer.nextStep, 1);
    assert.deepEqual(await model.weights(), before);
    assert.deepEqual([...trainer.policy.magnitudes], magnitudes);
    assert.equal(trainer.stepCount('classifier.weight'), 1);
  }
  labels = (l) => l;
  await trainer.step();
  assert.equal(trainer.stepCount('classifier.weight'), 2);
  trainer.dispose();
  model.dispose();
  assert.equal(e.memory().tensors, 0);
});

test('with onNonFinite a step whose last micro-batch is not finite is skipped whole, and finite steps are those without it to the bit', async () => {
  const { model, train } = await TASKS['BERT, scores']();
  const source = { size: EXAMPLES, batch: (rows: ArrayLike<number>) => { const b = (train as BatchSource<TextBatch>).batch(rows) as TextBatch; return { ...b, labels: (b.labels as Float32Array).map((v, i) => (i === 4 ? 1e30 : v)) }; } };
  const trainer = new SlimFitTrainer<never>({ model, train: source as never, batchSize: 5, seed: 3, gradientAccumulationSteps: 3, totalSteps: 20, onWarning: () => {}, onNonFinite: 'skip' });
  const before = await model.weights();
  const skipped = await trainer.step();
  assert.deepEqual([skipped.nonFinite, skipped.active, trainer.nextStep], [['loss'], [], 1]);
  assert.deepEqual(await model.weights(), before);
  assert.deepEqual([skipped.memory.live.gradients, skipped.memory.live.activations, skipped.memory.live.optimizer], [0, 0, 0]);
  trainer.dispose();
  model.dispose();
  const guarded = await run('BERT, scores', { gradientAccumulationSteps: 3, onNonFinite: 'stop' });
  assert.deepEqual(guarded.weights, (await run('BERT, scores', { gradientAccumulationSteps: 3 })).weights);
});

test('more micro-batches than examples of a step, and no whole number of them, are refused', async () => {
  const { model, train } = await TASKS['BERT, classes']();
  for (const [gradientAccumulationSteps, text] of [[6, 'a step has 5 examples'], [0, 'is 0'], [2.5, 'is 2.5']] as const)
    assert.throws(() => new SlimFitTrainer<never>({ model, train, batchSize: 5, gradientAccumulationSteps }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(text));
  model.dispose();
});
