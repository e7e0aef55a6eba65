/** The planner against real training: peaks of real steps on real engines, and what a budget holds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Engine } from '../../src/engine/engine';
import type { Kernels } from '../../src/engine/shapeEngine';
import { createTensorflowEngine } from '../../src/engine/tfjs/createTensorflowEngine';
import { fusedKernels, loadTensorflow } from '../../src/engine/tfjs/tensorflowBinding';
import { InvalidArgumentError, MemoryBudgetError, SequenceTooLongError } from '../../src/errors';
import { parseBertConfig } from '../../src/hub/config';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { fitMemory, type MemoryChanges, memoryLevers } from '../../src/memory/fit';
import { type MemoryQuery, planMemory } from '../../src/memory/planner';
import { BertForQuestionAnswering } from '../../src/models/bert';
import type { BatchSource, ImageBatch, Model } from '../../src/models/model';
import { sequenceClassificationSpecs } from '../../src/models/sequenceClassification';
import { ViTForImageClassification } from '../../src/models/vit';
import { Random } from '../../src/random';
import { SCHEMES } from '../../src/tape/scheme';
import { SlimFitTrainer } from '../../src/training/trainer';
import { cpuEngine, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

let skip: string | false = false;
try {
  loadTensorflow();
} catch (error) {
  skip = (error as Error).message;
}
const ENGINES: readonly (readonly [Kernels, () => Promise<Engine>, string | false])[] = [
  ['composed', cpuEngine, false],
  ['tensorflow', () => createTensorflowEngine({ fused: false }), skip],
  ['fused', () => createTensorflowEngine(), skip || (!fusedKernels().loaded && fusedKernels().why)],
];

const [B, T] = [3, 7];
const dropouts = { hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1 };
const bert = tinyConfig({ ...dropouts, intermediate_size: 40, num_labels: 2 });
/** Of matrices large enough for 8-bit moments. */
const wideBert = tinyConfig({ ...dropouts, hidden_size: 64, intermediate_size: 132, vocab_size: 77, num_labels: 2 });
const wideVit = parseViTConfig({ model_type: 'vit', image_size: 12, patch_size: 4, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 132, num_labels: 3 });
const vit = parseViTConfig({ model_type: 'vit', image_size: 12, patch_size: 4, hidden_size: 12, num_hidden_layers: 2, num_attention_heads: 3, intermediate_size: 21, num_labels: 3 });

type Kind = MemoryQuery['kind'];
function modelOf(engine: Engine, kind: Kind, wide = false): { model: Model<never>; train: BatchSource<never>; query: Pick<MemoryQuery, 'kind' | 'config' | 'length'> } {
  const random = new Random(1);
  const [text, image] = wide ? [wideBert, wideVit] : [bert, vit];
  if (kind === 'image-classification') {
    const batch: ImageBatch = { pixelValues: Float32Array.from({ length: B * 3 * 144 }, () => random.normal()), labels: Int32Array.of(0, 1, 2), batchSize: B, channels: 3, height: 12, width: 12 };
    return { model: ViTForImageClassification.fresh(engine, image) as never, train: { size: B, batch: () => batch as never }, query: { kind, config: image } };
  }
  const tiny = tinyBatch(text, B, T);
  // Padding in every sequence, so that every micro-batch has a mask, as is planned.
  const sentences = { ...tiny, attentionMask: tiny.attentionMask.map((m, i) => (i % T === T - 1 ? 0 : m)) };
  const batch = kind === 'question-answering' ? { ...sentences, labels: new Int32Array(2 * B) } : sentences;
  const model = kind === 'question-answering' ? BertForQuestionAnswering.fresh(engine, text) : tinyModel(engine, text);
  return { model: model as never, train: { size: B, batch: () => batch as never }, query: { kind, config: text, length: T } };
}

for (const [kernels, make, missing] of ENGINES)
  for (const kind of ['sequence-classification', 'question-answering', 'image-classification'] as const)
    test(`${kind}, ${kernels} kernels: the planned peak is that of the step itself, to the byte, and so are its parts`, { skip: missing }, async () => {
      const engine = await make();
      const random = new Random(11);
      const cases: readonly Partial<MemoryQuery>[] = [
        { mode: 'exact', frozen: [] },
        { mode: 'exact' },
        { mode: 'paper' },
        { mode: 'paper', moments: 'what trains' },
        { mode: 'paper', frozenBiases: true, dropout: false, magnitude: 'relative-l2', moments: 'what trains' },
        { mode: 'tuned', magnitude: 'loss-change' },
        { mode: 'tuned' },
        // Blocks of queries; of heads or examples; of examples, odd ones left over.
        { mode: 'exact', blockBytes: 1 },
        { mode: 'tuned', blockBytes: 150 },
        { mode: 'paper', blockBytes: 1600 },
        { mode: { ...SCHEMES.paper, attentionOperands: 'q4-row', geluInput: 'q4-row', normalizedValues: 'q4-row' } },
        { mode: { ...SCHEMES.paper, attentionProbs: 'u8-row' }, optimizer: { weightDecay: 0 }, magnitude: 'relative-l2' },
        { mode: 'exact', frozen: [], gradientCheckpointing: true },
        { mode: 'paper', gradientCheckpointing: true },
        { mode: 'tuned', gradientCheckpointing: true },
        { mode: 'exact', frozen: [], gradientAccumulationSteps: 2 },
        { mode: 'paper', gradientAccumulationSteps: 3 },
        { mode: 'tuned', gradientAccumulationSteps: 2, gradientCheckpointing: true, dropout: false },
        { mode: 'exact', frozen: [], optimizer: { moments: '8-bit' } },
        { mode: 'paper', optimizer: { moments: '8-bit' } },
        { mode: 'tuned', optimizer: { moments: '8-bit', idleMoments: 'host' } },
        { mode: 'paper', optimizer: { idleMoments: 'host' } },
        { mode: 'paper', optimizer: { idleMoments: 'release' } },
        { mode: 'paper', optimizer: { moments: '8-bit', idleMoments: 'release' }, gradientAccumulationSteps: 2, gradientCheckpointing: true },
      ];
      for (const options of cases) {
        const { model, train, query } = modelOf(engine, kind, options.optimizer?.moments === '8-bit');
        const names = model.layers.map((l) => l.name);
        const frozen = options.frozen ?? names.filter(() => random.uniform() < 0.7);
        const indices = names.flatMap((n, i) => (frozen.includes(n) ? [i] : []));
        const { mode, frozenBiases, magnitude, dropout, optimizer, blockBytes, gradientAccumulationSteps, gradientCheckpointing, moments = 'every parameter' } = options;
        const trainer = new SlimFitTrainer<never>({
          model, train, batchSize: B, totalSteps: 10, schedule: 'constant', measureEncodingsEvery: 0, onWarning: () => {},
          mode, frozenBiases, magnitude, dropout, optimizer, blockBytes, gradientAccumulationSteps, gradientCheckpointing,
          // The first step makes the moments.
          policy: (layers) => ({ name: 'fixed', magnitudes: new Float64Array(layers.length), select: (step) => (step === 0 && moments === 'every parameter' ? [] : indices), observe: () => {}, state: () => ({}), restore: () => {} }),
        });
        await trainer.step();
        const first = engine.memory().live;
        const { memory, activationBytes, course } = await trainer.step();
        const weightsAndMoments = memory.live;
        if ((optimizer?.idleMoments ?? 'keep') === 'keep') assert.deepEqual(weightsAndMoments, first);
        else assert.ok(weightsAndMoments.optimizer < first.optimizer);
        const plan = planMemory({ ...query, ...options, batchSize: B, frozen, kernels });
        const what = `${JSON.stringify(options)}`;
        assert.equal(plan.peakBytes, memory.totalPeak, what);
        assert.deepEqual(plan.course, course, what);
        assert.deepEqual(
          [plan.weightBytes, plan.momentBytes, plan.activationBytes, plan.gradientBytes],
          [weightsAndMoments.weights, weightsAndMoments.optimizer, activationBytes, memory.peak.gradients],
          what,
        );
        assert.equal(plan.activations.reduce((s, a) => s + a.bytes, 0), plan.activationBytes);
        assert.equal(plan.temporaryBytes, plan.peakBytes - plan.weightBytes - plan.momentBytes - plan.activationBytes);
        assert.deepEqual(plan.trains, names.filter((n) => !frozen.includes(n)));
        trainer.dispose();
        model.dispose();
        assert.equal(engine.memory().tensors, 0);
      }
      engine.dispose();
    });

for (const [kernels, make, missing] of ENGINES)
  test(`word embeddings by touched rows, ${kernels} kernels: planned is the larger of the step that brings the last new rows and the steps after it, to the byte, and no step is above`, { skip: missing }, async () => {
    const engine = await make();
    // Of 77 words, 21 tokens a step; the last step looks up those that were left.
    const config = wideBert;
    const wordsOf = [[...Array(21).keys()], [...Array(21).keys()].map((i) => 21 + i), [...Array(21).keys()].map((i) => 42 + i), [...Array(21).keys()].map((i) => (i < 14 ? 63 + i : 76))];
    const tokens = { tokenTypeIds: new Int32Array(B * T), attentionMask: Int32Array.from({ length: B * T }, (_, i) => (i % T === T - 1 ? 0 : 1)), labels: new Int32Array(B), batchSize: B, length: T };
    for (const optimizer of [{}, { moments: '8-bit' }] as const)
      for (const options of [{ mode: 'paper' }, { mode: 'tuned' }, { mode: 'exact', gradientAccumulationSteps: 3 }] as const) {
        const model = tinyModel(engine, config);
        const names = model.layers.map((l) => l.name);
        const frozen = names.filter((n, i) => !n.includes('word_embeddings') && i % 3 > 0);
        const indices = frozen.map((n) => names.indexOf(n));
        const trainer = new SlimFitTrainer({
          model, batchSize: B, totalSteps: 10, schedule: 'constant', measureEncodingsEvery: 0, onWarning: () => {}, sparseEmbeddings: true, optimizer, ...options,
          train: { size: B, batch: (_, epoch = 0) => ({ ...tokens, inputIds: Int32Array.from(wordsOf[Math.min(epoch, 3)]) }) },
          policy: (layers) => ({ name: 'fixed', magnitudes: new Float64Array(layers.length), select: (step) => (step === 0 ? [] : indices), observe: () => {}, state: () => ({}), restore: () => {} }),
        });
        const query = { kind: 'sequence-classification', config, length: T, batchSize: B, sparseEmbeddings: true, optimizer, frozen, kernels, ...options } as const;
        const plan = planMemory({ ...query, distinctTokens: 14 });
        const bound = planMemory(query);
        const dense = planMemory({ ...query, sparseEmbeddings: false });
        const what = `${JSON.stringify({ optimizer, ...options })}`;
        const peaks: number[] = [];
        for (let step = 0; step < 6; step++) {
          const { memory, activationBytes } = await trainer.step();
          peaks.push(memory.totalPeak);
          if (step > 0) assert.ok(memory.totalPeak <= bound.peakBytes, `${what}, step ${step}: ${memory.totalPeak} above ${bound.peakBytes}`);
          if (step >= 3) assert.deepEqual([activationBytes, memory.live.optimizer, memory.peak.gradients], [plan.activationBytes, plan.momentBytes, plan.gradientBytes], what);
        }
        assert.equal(Math.max(peaks[3], peaks[4]), plan.peakBytes, what);
        assert.equal(peaks[5], peaks[4]);
        assert.ok(plan.peakBytes <= bound.peakBytes && bound.gradientBytes <= dense.gradientBytes);
        trainer.dispose();
        model.dispose();
        assert.equal(engine.memory().tensors, 0);
      }
    engine.dispose();
  });

test('how many different tokens a step has must lie between one and the vocabulary', () => {
  const query = { kind: 'sequence-classification', config: bert, length: T, batchSize: B, sparseEmbeddings: true } as const;
  for (const distinctTokens of [0, -1, 1.5, bert.vocabSize + 1, NaN]) assert.throws(() => planMemory({ ...query, distinctTokens }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(String(distinctTokens)));
});

test('a freeze rate is planned for a costly choice: no random set of as many layers has a peak 5 % higher, and on average they are lower', () => {
  const random = new Random(3);
  for (const [query, layers] of [[{ kind: 'sequence-classification', config: bert, length: T }, 22], [{ kind: 'image-classification', config: vit }, 20]] as const)
    for (const [mode, optimizer] of [['exact', {}], ['paper', {}], ['tuned', {}], ['paper', { idleMoments: 'host' }], ['tuned', { idleMoments: 'host' }]] as const)
      for (const freezeRate of [0.5, 0.8]) {
        const worst = planMemory({ ...query, batchSize: 4, mode, freezeRate, optimizer });
        assert.equal(worst.layers, layers);
        assert.equal(worst.trains.length, layers - Math.floor(freezeRate * layers));
        const names = planMemory({ ...query, batchSize: 4, frozen: [] }).trains;
        let mean = 0;
        for (let i = 0; i < 40; i++) {
          const order = random.permutation(names.length);
          const frozen = names.filter((_, n) => order[n] >= worst.trains.length);
          const { peakBytes } = planMemory({ ...query, batchSize: 4, mode, frozen, optimizer });
          mean += peakBytes / 40;
          assert.ok(peakBytes <= 1.05 * worst.peakBytes, `${mode} ${freezeRate}: ${peakBytes} > ${worst.peakBytes}, training ${names.filter((n) => !frozen.includes(n))}`);
        }
        assert.ok(mean < worst.peakBytes, `${mean}`);
      }
});

test('a larger budget never gives a smaller batch, the batch fits, the next one does not, and nothing is changed as long as a batch of 1 fits', () => {
  const query = { config: bert, length: T, largestBatchSize: 40 } as const;
  const needed = (): number => {
    try {
      return fitMemory({ ...query, budget: 1 }).plan.peakBytes;
    } catch (error) {
      return (error as MemoryBudgetError).neededBytes;
    }
  };
  const [lowest, least, most] = [needed(), planMemory({ ...query, batchSize: 1 }).peakBytes, planMemory({ ...query, batchSize: 40 }).peakBytes];
  assert.ok(lowest < least);
  const budgets = fc.oneof(fc.integer({ min: lowest, max: least }), fc.integer({ min: least, max: 2 * most }));
  fc.assert(
    fc.property(budgets, budgets, (a, b) => {
      const [small, large] = [Math.min(a, b), Math.max(a, b)].map((budget) => ({ budget, fit: fitMemory({ ...query, budget }) }));
      assert.ok(small.fit.plan.batchSize <= large.fit.plan.batchSize);
      for (const { budget, fit } of [small, large]) {
        assert.ok(fit.plan.peakBytes <= budget);
        assert.equal(fit.plan.peakBytes, planMemory({ ...query, ...fit.changes, batchSize: fit.plan.batchSize }).peakBytes);
        assert.equal(Object.keys(fit.changes).length > 0, budget < least);
        if (budget < least) assert.equal(fit.plan.batchSize, 1);
        else if (fit.plan.batchSize < 40) assert.ok(planMemory({ ...query, batchSize: fit.plan.batchSize + 1 }).peakBytes > budget);
      }
    }),
    { numRuns: 12, seed: 4 },
  );
  assert.equal(fitMemory({ ...query, budget: most }).plan.batchSize, 40);
});

test('what was said to fit in a budget stays within it when it is run, whatever layers inter-layer scheduling chooses', { skip }, async () => {
  const engine = await createTensorflowEngine({ fused: false });
  const random = new Random(17);
  const settings = [{ mode: 'paper' }, { mode: 'tuned' }, { mode: 'exact', freezeRate: 0.5 }, { mode: 'paper', gradientCheckpointing: true }, { mode: 'tuned', gradientCheckpointing: true, freezeRate: 0.5 }, { mode: 'paper', optimizer: { idleMoments: 'release' } }] as const;
  for (const kind of ['sequence-classification', 'image-classification'] as const)
    for (const options of settings) {
      const { model, train, query } = modelOf(engine, kind);
      const [least, most] = [1, 24].map((batchSize) => planMemory({ ...query, ...options, batchSize, kernels: 'tensorflow' }).peakBytes);
      const budget = Math.round(least + random.uniform() * (most - least));
      const { plan, changes } = fitMemory({ ...query, ...options, kernels: 'tensorflow', budget, largestBatchSize: 24 });
      assert.deepEqual(changes, {});
      const whole = (await train.batch(new Int32Array(1))) as unknown as Record<string, unknown>;
      // As many examples as were planned, each one of the batch's again.
      const repeated = (v: unknown): unknown => {
        if (!(v instanceof Int32Array || v instanceof Float32Array)) return v;
        const values = Array.from({ length: (v.length / B) * plan.batchSize }, (_, i) => v[i % v.length]);
        return v instanceof Int32Array ? Int32Array.from(values) : Float32Array.from(values);
      };
      const batch = { ...Object.fromEntries(Object.entries(whole).map(([k, v]) => [k, repeated(v)])), batchSize: plan.batchSize };
      const trainer = new SlimFitTrainer<never>({ model, train: { size: plan.batchSize, batch: () => batch as never }, batchSize: plan.batchSize, totalSteps: 20, schedule: 'constant', measureEncodingsEvery: 0, onWarning: () => {}, ...options });
      for await (const { memory, step } of trainer.steps(14)) assert.ok(memory.totalPeak <= budget, `${kind}, ${JSON.stringify(options)}, step ${step}: ${memory.totalPeak} bytes in a budget of ${budget}`);
      trainer.dispose();
      model.dispose();
      assert.equal(engine.memory().tensors, 0);
    }
  engine.dispose();
});

test('a budget may be a text, and a plan without a kind is of a classifier of what the model reads', () => {
  const mib = fitMemory({ config: bert, length: T, budget: '1 MiB' }).plan;
  assert.equal(mib.peakBytes, fitMemory({ config: bert, kind: 'sequence-classification', length: T, budget: 2 ** 20 }).plan.peakBytes);
  assert.notEqual(mib.batchSize, fitMemory({ config: bert, length: T, budget: '2MB' }).plan.batchSize);
  assert.equal(planMemory({ config: vit, batchSize: 2 }).peakBytes, planMemory({ config: vit, kind: 'image-classification', batchSize: 2 }).peakBytes);
  assert.throws(() => fitMemory({ config: bert, length: T, budget: 'much' }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes("'much'"));
});

test('each lever tells the peak of the step with it alone, and what is changed already is not offered again', () => {
  const query = { config: bert, length: T, batchSize: 8, freezeRate: 0.5, kernels: 'webgpu' } as const;
  const whole = planMemory(query).peakBytes;
  const { paper } = SCHEMES;
  const want: readonly (readonly [string, MemoryChanges])[] = [
    ['blocks of 64.0 MiB', { blockBytes: 64 * 2 ** 20 }],
    ['2 micro-batches', { gradientAccumulationSteps: 2 }],
    ['4 micro-batches', { gradientAccumulationSteps: 4 }],
    ['gradient checkpointing', { gradientCheckpointing: true }],
    ['probabilities recomputed', { mode: { ...paper, name: 'paper, probabilities recomputed', attentionProbs: 'recompute' } }],
    ['moments of frozen layers on the host', { optimizer: { idleMoments: 'host' } }],
    ['8-bit moments', { optimizer: { moments: '8-bit' } }],
    ['word embeddings by the rows of a step', { sparseEmbeddings: true }],
    ['mode tuned', { mode: 'tuned', frozenBiases: false }],
    ['frozen biases', { frozenBiases: true }],
    ['freeze rate 0.75', { freezeRate: 0.75 }],
    ['freeze rate 0.9', { freezeRate: 0.9 }],
    ['freeze rate 0.95', { freezeRate: 0.95 }],
  ];
  const levers = memoryLevers(query);
  assert.deepEqual(levers.map((l) => [l.name, l.changes]), want);
  for (const { changes, peakBytes, savesBytes, costs } of levers) {
    assert.deepEqual([peakBytes, savesBytes], [planMemory({ ...query, ...changes }).peakBytes, whole - peakBytes]);
    assert.ok(costs.length > 0);
  }
  assert.ok(levers.find((l) => l.changes.gradientCheckpointing)!.savesBytes > 0);
  const { batchSize, ...open } = query;
  const { changes, levers: left } = fitMemory({ ...open, batchSize, budget: planMemory({ ...query, gradientAccumulationSteps: 8 }).peakBytes });
  assert.deepEqual(changes, { gradientAccumulationSteps: 8 });
  assert.deepEqual(left.map((l) => l.name), want.map(([name]) => name).filter((name) => !name.includes('micro-batches')));
});

test('a batch that does not fit gets the smallest change that makes it fit, in order of harm; moments go to the host where that is other memory', () => {
  for (const kernels of ['fused', 'tensorflow'] as const) smallestChanges(kernels);
});

function smallestChanges(kernels: Kernels): void {
  const query = { kind: 'image-classification', config: wideVit, batchSize: 8, freezeRate: 0.5, mode: 'exact', optimizer: { beta1: 0.8 }, kernels } as const;
  const onHost = { optimizer: { beta1: 0.8, idleMoments: 'host' } } as const;
  const steps: readonly (readonly [string, (before: MemoryChanges) => MemoryChanges])[] = [
    ...[2, 4, 8].map((gradientAccumulationSteps) => [`${gradientAccumulationSteps} parts`, () => ({ gradientAccumulationSteps })] as const),
    ['checkpointing', () => ({ gradientCheckpointing: true })],
    ['recomputed', () => ({ mode: { ...SCHEMES.exact, name: 'exact, probabilities recomputed', attentionProbs: 'recompute' } })],
    ...(kernels === 'tensorflow' ? [['host', () => onHost] as const] : []),
    ['8-bit', (before) => ({ optimizer: { beta1: 0.8, ...before.optimizer, moments: '8-bit' } })],
    ['tuned', () => ({ mode: 'tuned', frozenBiases: false })],
    ['frozen biases', () => ({ frozenBiases: true })],
    ['freeze rate', () => ({ freezeRate: 0.75 })],
  ];
  let changes: MemoryChanges = {};
  let peak = planMemory(query).peakBytes;
  assert.deepEqual(fitMemory({ ...query, budget: peak }).changes, {});
  const smaller: string[] = [];
  for (const [name, step] of steps) {
    const next = { ...changes, ...step(changes) };
    const { peakBytes } = planMemory({ ...query, ...next });
    // What makes a step no smaller is no reason for a change.
    if (peakBytes >= peak) continue;
    const fit = fitMemory({ ...query, budget: peakBytes });
    assert.deepEqual(fit.changes, next);
    assert.equal(fit.plan.peakBytes, peakBytes);
    smaller.push(name);
    [changes, peak] = [next, peakBytes];
  }
  for (const name of ['2 parts', '4 parts', 'checkpointing', '8-bit', ...(kernels === 'tensorflow' ? ['host'] : [])]) assert.ok(smaller.includes(name), `${kernels}: ${smaller}`);
}

test('where temporaries are larger than 64 MiB, blocks of so much are the first change, and those that follow come with them', () => {
  const config = parseBertConfig({ model_type: 'bert', num_labels: 2, vocab_size: 100, num_hidden_layers: 2 });
  const query = { kind: 'question-answering', config, batchSize: 32, length: 384, freezeRate: 0.5 } as const;
  const whole = planMemory(query);
  const blocks = planMemory({ ...query, blockBytes: 64 * 2 ** 20 });
  assert.equal(blocks.activationBytes, whole.activationBytes);
  // Scores and probabilities, 4BAT² each, are no longer there.
  assert.ok(blocks.peakBytes < whole.peakBytes - 4 * 32 * 12 * 384 ** 2);
  const first = fitMemory({ ...query, budget: whole.peakBytes - 1 });
  assert.deepEqual([first.changes, first.plan.peakBytes], [{ blockBytes: 64 * 2 ** 20 }, blocks.peakBytes]);
  const second = fitMemory({ ...query, budget: blocks.peakBytes - 1 });
  assert.deepEqual(second.changes, { blockBytes: 64 * 2 ** 20, gradientAccumulationSteps: 2 });
  // Mode tuned has them already.
  assert.equal('blockBytes' in fitMemory({ ...query, mode: 'tuned', frozenBiases: false, budget: planMemory({ ...query, mode: 'tuned', frozenBiases: false }).peakBytes - 1 }).changes, false);
  assert.equal(planMemory({ ...query, mode: 'tuned' }).peakBytes, planMemory({ ...query, mode: 'tuned', blockBytes: 64 * 2 ** 20 }).peakBytes);
  assert.ok(planMemory({ ...query, mode: 'tuned', blockBytes: Infinity }).peakBytes > planMemory({ ...query, mode: 'tuned' }).peakBytes);
  assert.throws(() => fitMemory({ ...query, budget: 1e6 }), (e: Error) => e instanceof MemoryBudgetError && e.message.includes('with blocks of 64.0 MiB, 32 micro-batches'));
});

test('a change that makes a step no smaller is not among those that make it fit: micro-batches, where the gradients held between them outweigh the activations', () => {
  const query = { kind: 'sequence-classification', config: bert, length: 1, batchSize: 2, freezeRate: 0, mode: 'exact', dropout: false, moments: 'what trains' } as const;
  const peak = (changes: MemoryChanges) => planMemory({ ...query, ...changes }).peakBytes;
  assert.ok(peak({ gradientAccumulationSteps: 2 }) > peak({}));
  const budget = peak({ gradientCheckpointing: true });
  assert.ok(budget < peak({}));
  assert.deepEqual(fitMemory({ ...query, budget }).changes, { gradientCheckpointing: true });
});

test('the largest batch with gradient accumulation has at least an example for each micro-batch', () => {
  const query = { kind: 'sequence-classification', config: bert, length: T, gradientAccumulationSteps: 3 } as const;
  const least = planMemory({ ...query, batchSize: 3 }).peakBytes;
  assert.equal(fitMemory({ ...query, budget: least }).plan.batchSize, 3);
  const changed = fitMemory({ ...query, budget: least - 1 });
  assert.deepEqual([changed.plan.batchSize, changed.plan.peakBytes < least], [3, true]);
  assert.throws(() => fitMemory({ ...query, budget: 1000 }), (e: Error) => e instanceof MemoryBudgetError && e.message.includes('a batch of 3:'));
  const more = fitMemory({ ...query, budget: 1.5 * least, largestBatchSize: 60 }).plan;
  assert.ok(more.batchSize > 3 && more.peakBytes <= 1.5 * least);
});

test('a freeze rate with gradient checkpointing is planned for a costly choice too', () => {
  const random = new Random(3);
  const deep = { kind: 'sequence-classification', config: tinyConfig({ num_hidden_layers: 4, intermediate_size: 64 }), length: 12, batchSize: 16, gradientCheckpointing: true } as const;
  const names = planMemory({ ...deep, frozen: [] }).trains;
  for (const mode of ['exact', 'paper', 'tuned'] as const) {
    const worst = planMemory({ ...deep, mode, freezeRate: 0.8 });
    for (let i = 0; i < 40; i++) {
      const order = random.permutation(names.length);
      const frozen = names.filter((_, n) => order[n] >= worst.trains.length);
      const { peakBytes } = planMemory({ ...deep, mode, frozen });
      assert.ok(peakBytes <= 1.02 * worst.peakBytes, `${mode}: ${peakBytes} > ${worst.peakBytes}, training ${names.filter((n) => !frozen.includes(n))}`);
    }
  }
});

test('a budget that nothing fits in is refused with the smallest that would do', () => {
  const query = { kind: 'sequence-classification', config: bert, length: T } as const;
  for (const batchSize of [undefined, 4]) {
    const refusal = (budget: number): MemoryBudgetError => {
      try {
        fitMemory({ ...query, batchSize, budget });
      } catch (error) {
        assert.ok(error instanceof MemoryBudgetError && error.code === 'memory-budget');
        return error;
      }
      throw new Error('not refused');
    };
    const { neededBytes, message } = refusal(1000);
    assert.ok(message.includes('1000 B') && message.includes(`${neededBytes} bytes`) && message.includes(`batch of ${batchSize ?? 1}:`), message);
    const { plan } = fitMemory({ ...query, batchSize, budget: neededBytes });
    assert.deepEqual([plan.peakBytes, plan.batchSize], [neededBytes, batchSize ?? 1]);
    assert.equal(refusal(neededBytes - 1).neededBytes, neededBytes);
  }
});

test('what cannot be planned is refused by its value', () => {
  const good: MemoryQuery = { kind: 'sequence-classification', config: bert, length: T, batchSize: 2 };
  for (const [change, text] of [
    [{ batchSize: 0 }, '0'],
    [{ batchSize: 1.5 }, '1.5'],
    [{ gradientAccumulationSteps: 3 }, 'gradientAccumulationSteps is 3, but a step has 2 examples'],
    [{ gradientAccumulationSteps: 0 }, 'gradientAccumulationSteps is 0'],
    [{ length: undefined }, 'length is undefined'],
    [{ kind: 'image-classification' }, 'bert'],
    [{ config: vit }, 'vit: it must be image-classification'],
    [{ kind: 'token-classification' }, 'token-classification'],
    [{ kind: 'image-classification', config: vit, imageSize: 13 }, '13'],
    [{ freezeRate: 1 }, '1'],
    [{ frozen: ['no.such.weight'] }, 'no.such.weight'],
    [{ mode: 'fast' }, 'fast'],
    [{ kernels: 'cuda' }, 'cuda'],
    [{ blockBytes: 0 }, 'blockBytes is 0'],
  ] as const)
    assert.throws(() => planMemory({ ...good, ...change } as MemoryQuery), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(text), JSON.stringify(change));
  assert.throws(() => planMemory({ ...good, length: 99 }), SequenceTooLongError);
  assert.throws(() => fitMemory({ ...good, budget: 0 }), InvalidArgumentError);
  assert.throws(() => fitMemory({ ...good, budget: NaN }), InvalidArgumentError);
});

test('BERT-base at 32×128 is planned in full: 433 MB of weights, twice that of moments, and in plain fine-tuning 2605 MiB for backward', () => {
  const config = parseBertConfig({ model_type: 'bert', num_labels: 2, vocab_size: 28_996 });
  const plan = planMemory({ config, kind: 'sequence-classification', batchSize: 32, length: 128, freezeRate: 0, mode: 'exact', dropout: false });
  assert.equal((plan.weightBytes / 1e6).toFixed(0), '433');
  assert.equal(plan.momentBytes, 2 * plan.weightBytes);
  assert.equal(plan.activationBytes, 2731507712);
  assert.ok(plan.peakBytes > plan.weightBytes + plan.momentBytes + plan.activationBytes);
});

test('with moments of frozen layers off the device, BERT-base at freeze rate 0.95 holds those of what trains; in 8 bits, a quarter and the scales; idle moments that linger are planned as if all stayed', () => {
  const config = parseBertConfig({ model_type: 'bert', num_labels: 2, vocab_size: 28_996 });
  const query = { config, kind: 'sequence-classification', batchSize: 8, length: 128, freezeRate: 0.95, mode: 'tuned' } as const;
  const [kept, onHost, coded, lingering] = [{}, { idleMoments: 'host' }, { moments: '8-bit' }, { idleMoments: 'host', idleAfter: 3 }].map((optimizer) => planMemory({ ...query, optimizer } as MemoryQuery));
  const names = planMemory({ ...query, frozen: [] }).trains;
  const trained = sequenceClassificationSpecs(config).filter((s) => onHost.trains.includes(s.name) || (!names.includes(s.name) && onHost.trains.includes(s.name.replace(/bias$/, 'weight'))));
  assert.equal(onHost.momentBytes, 8 * trained.reduce((n, s) => n + s.shape.reduce((a, b) => a * b, 1), 0));
  assert.ok(onHost.trains.some((n) => n.endsWith('word_embeddings.weight')), 'the costliest choice has the largest moments');
  assert.ok(onHost.peakBytes < kept.peakBytes);
  assert.ok(coded.momentBytes > kept.momentBytes / 4 && coded.momentBytes < 0.2516 * kept.momentBytes, `${coded.momentBytes / kept.momentBytes}`);
  assert.deepEqual([lingering.momentBytes, lingering.peakBytes], [kept.momentBytes, kept.peakBytes]);
});
