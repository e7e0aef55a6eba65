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
import { fitMemory, type MemoryFit, type MemoryQuery, planMemory } from '../../src/memory/planner';
import { BertForQuestionAnswering } from '../../src/models/bert';
import type { BatchSource, ImageBatch, Model } from '../../src/models/model';
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
const vit = parseViTConfig({ model_type: 'vit', image_size: 12, patch_size: 4, hidden_size: 12, num_hidden_layers: 2, num_attention_heads: 3, intermediate_size: 21, num_labels: 3 });

type Kind = MemoryQuery['kind'];
function modelOf(engine: Engine, kind: Kind): { model: Model<never>; train: BatchSource<never>; query: Pick<MemoryQuery, 'kind' | 'config' | 'length'> } {
  const random = new Random(1);
  if (kind === 'image-classification') {
    const batch: ImageBatch = { pixelValues: Float32Array.from({ length: B * 3 * 144 }, () => random.normal()), labels: Int32Array.of(0, 1, 2), batchSize: B, channels: 3, height: 12, width: 12 };
    return { model: ViTForImageClassification.fresh(engine, vit) as never, train: { size: B, batch: () => batch as never }, query: { kind, config: vit } };
  }
  const tiny = tinyBatch(bert, B, T);
  // Padding in every sequence, so that every micro-batch has a mask, as is planned.
  const text = { ...tiny, attentionMask: tiny.attentionMask.map((m, i) => (i % T === T - 1 ? 0 : m)) };
  const batch = kind === 'question-answering' ? { ...text, labels: new Int32Array(2 * B) } : text;
  const model = kind === 'question-answering' ? BertForQuestionAnswering.fresh(engine, bert) : tinyModel(engine, bert);
  return { model: model as never, train: { size: B, batch: () => batch as never }, query: { kind, config: bert, length: T } };
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
        { mode: 'tuned' },
        { mode: { ...SCHEMES.paper, attentionProbs: 'u8-row' }, optimizer: { weightDecay: 0 }, magnitude: 'relative-l2' },
        { mode: 'exact', frozen: [], gradientCheckpointing: true },
        { mode: 'paper', gradientCheckpointing: true },
        { mode: 'tuned', gradientCheckpointing: true },
        { mode: 'exact', frozen: [], gradientAccumulationSteps: 2 },
        { mode: 'paper', gradientAccumulationSteps: 3 },
        { mode: 'tuned', gradientAccumulationSteps: 2, gradientCheckpointing: true, dropout: false },
      ];
      for (const options of cases) {
        const { model, train, query } = modelOf(engine, kind);
        const names = model.layers.map((l) => l.name);
        const frozen = options.frozen ?? names.filter(() => random.uniform() < 0.7);
        const indices = names.flatMap((n, i) => (frozen.includes(n) ? [i] : []));
        const { mode, frozenBiases, magnitude, dropout, optimizer, gradientAccumulationSteps, gradientCheckpointing, moments = 'every parameter' } = options;
        const trainer = new SlimFitTrainer<never>({
          model, train, batchSize: B, totalSteps: 10, schedule: 'constant', measureEncodingsEvery: 0, onWarning: () => {},
          mode, frozenBiases, magnitude, dropout, optimizer, gradientAccumulationSteps, gradientCheckpointing,
          // The first step makes the moments.
          policy: (layers) => ({ name: 'fixed', magnitudes: new Float64Array(layers.length), select: (step) => (step === 0 && moments === 'every parameter' ? [] : indices), observe: () => {}, state: () => ({}), restore: () => {} }),
        });
        await trainer.step();
        const weightsAndMoments = engine.memory().live;
        const { memory, activationBytes } = await trainer.step();
        const plan = planMemory({ ...query, ...options, batchSize: B, frozen, kernels });
        const what = `${JSON.stringify(options)}`;
        assert.equal(plan.peakBytes, memory.totalPeak, what);
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

test('a freeze rate is planned for a costly choice: no random set of as many layers has a peak 5 % higher, and on average they are lower', () => {
  const random = new Random(3);
  for (const [query, layers] of [[{ kind: 'sequence-classification', config: bert, length: T }, 22], [{ kind: 'image-classification', config: vit }, 20]] as const)
    for (const mode of ['exact', 'paper', 'tuned'] as const)
      for (const freezeRate of [0.5, 0.8]) {
        const worst = planMemory({ ...query, batchSize: 4, mode, freezeRate });
        assert.equal(worst.layers, layers);
        assert.equal(worst.trains.length, layers - Math.floor(freezeRate * layers));
        const names = planMemory({ ...query, batchSize: 4, frozen: [] }).trains;
        let mean = 0;
        for (let i = 0; i < 40; i++) {
          const order = random.permutation(names.length);
          const frozen = names.filter((_, n) => order[n] >= worst.trains.length);
          const { peakBytes } = planMemory({ ...query, batchSize: 4, mode, frozen });
          mean += peakBytes / 40;
          assert.ok(peakBytes <= 1.05 * worst.peakBytes, `${mode} ${freezeRate}: ${peakBytes} > ${worst.peakBytes}, training ${names.filter((n) => !frozen.includes(n))}`);
        }
        assert.ok(mean < worst.peakBytes, `${mean}`);
      }
});

test('a larger budget never gives a smaller batch, the batch fits, and the next one does not', () => {
  const query = { kind: 'sequence-classification', config: bert, length: T, largestBatchSize: 40 } as const;
  const least = planMemory({ ...query, batchSize: 1 }).peakBytes;
  const most = planMemory({ ...query, batchSize: 40 }).peakBytes;
  fc.assert(
    fc.property(fc.integer({ min: least, max: 2 * most }), fc.integer({ min: least, max: 2 * most }), (a, b) => {
      const [small, large] = [Math.min(a, b), Math.max(a, b)].map((budget) => ({ budget, fit: fitMemory({ ...query, budget }) }));
      assert.ok(small.fit.plan.batchSize <= large.fit.plan.batchSize);
      for (const { budget, fit } of [small, large]) {
        assert.deepEqual(fit.changes, {});
        assert.ok(fit.plan.peakBytes <= budget);
        if (fit.plan.batchSize < 40) assert.ok(planMemory({ ...query, batchSize: fit.plan.batchSize + 1 }).peakBytes > budget);
      }
    }),
    { numRuns: 25, seed: 4 },
  );
  assert.equal(fitMemory({ ...query, budget: most }).plan.batchSize, 40);
});

test('a batch that does not fit gets the smallest change that makes it fit, in order of harm', () => {
  const query = { kind: 'image-classification', config: vit, batchSize: 8, freezeRate: 0.5, mode: 'exact' } as const;
  const parts = (gradientAccumulationSteps: number) => ({ gradientAccumulationSteps });
  const again = { ...parts(8), gradientCheckpointing: true };
  const tuned = { ...again, mode: 'tuned' as const };
  const changes: readonly MemoryFit['changes'][] = [
    {}, parts(2), parts(4), parts(8), again,
    { ...again, mode: { ...SCHEMES.exact, name: 'exact, probabilities recomputed', attentionProbs: 'recompute' } },
    { ...tuned, frozenBiases: false }, { ...tuned, frozenBiases: true }, { ...tuned, frozenBiases: true, freezeRate: 0.75 },
  ];
  const peaks = changes.map((c) => planMemory({ ...query, ...c }).peakBytes);
  for (const [i, change] of changes.entries()) {
    // What an earlier change gives already is no reason for a later one.
    if (peaks.slice(0, i).some((p) => p <= peaks[i])) continue;
    const fit = fitMemory({ ...query, budget: peaks[i] });
    assert.deepEqual(fit.changes, change);
    assert.equal(fit.plan.peakBytes, peaks[i]);
  }
  assert.ok(peaks[1] < peaks[0] && peaks[2] < peaks[1] && peaks[4] < peaks[3], `${peaks}`);
});

test('a change that makes a step no smaller is not among those that make it fit: micro-batches, where the gradients held between them outweigh the activations', () => {
  const query = { kind: 'sequence-classification', config: bert, length: 1, batchSize: 2, freezeRate: 0, mode: 'exact', dropout: false, moments: 'what trains' } as const;
  const peak = (changes: MemoryFit['changes']) => planMemory({ ...query, ...changes }).peakBytes;
  assert.ok(peak({ gradientAccumulationSteps: 2 }) > peak({}));
  const budget = peak({ gradientCheckpointing: true });
  assert.ok(budget < peak({}));
  assert.deepEqual(fitMemory({ ...query, budget }).changes, { gradientCheckpointing: true });
});

test('the largest batch with gradient accumulation has at least an example for each micro-batch', () => {
  const query = { kind: 'sequence-classification', config: bert, length: T, gradientAccumulationSteps: 3 } as const;
  const least = planMemory({ ...query, batchSize: 3 }).peakBytes;
  assert.equal(fitMemory({ ...query, budget: least }).plan.batchSize, 3);
  assert.throws(() => fitMemory({ ...query, budget: least - 1 }), (e: Error) => e instanceof MemoryBudgetError && e.message.includes('a batch of 3:'));
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
    if (batchSize !== undefined) assert.equal(fitMemory({ ...query, batchSize, budget: neededBytes }).plan.peakBytes, neededBytes);
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
    [{ config: vit }, 'vit'],
    [{ kind: 'image-classification', config: vit, imageSize: 13 }, '13'],
    [{ freezeRate: 1 }, '1'],
    [{ frozen: ['no.such.weight'] }, 'no.such.weight'],
    [{ mode: 'fast' }, 'fast'],
    [{ kernels: 'cuda' }, 'cuda'],
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
