/** A run that goes on from a checkpoint is the run that was never stopped; a damaged, foreign or unwritable checkpoint harms nothing. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import fsPromises from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, mock, test, type TestContext } from 'node:test';
import { embeddedModel } from '../../src/data/embedded/embedded';
import { ImageDataset } from '../../src/data/imageDataset';
import { parseImageProcessor } from '../../src/data/imageProcessor';
import { imagenetAugmentation } from '../../src/data/pixels/augmentation';
import { Tokenizer } from '../../src/data/tokenizer';
import type { Engine } from '../../src/engine/engine';
import { CheckpointError, CheckpointWriteError, FileMissingError, InvalidArgumentError, ResumeMismatchError, type SlimFitErrorCode } from '../../src/errors';
import { AutoFreeze } from '../../src/freezing/autoFreeze';
import { BitFit } from '../../src/freezing/bitFit';
import { BlockCyclic } from '../../src/freezing/blockCyclic';
import { CkaFreezing } from '../../src/freezing/ckaFreezing';
import { FreezeOut } from '../../src/freezing/freezeOut';
import { KnapsackFreezing } from '../../src/freezing/knapsackFreezing';
import { MemoryBudget } from '../../src/freezing/memoryBudget';
import { NoFreezing } from '../../src/freezing/none';
import type { PolicyFactory } from '../../src/freezing/policy';
import { RandomLayers } from '../../src/freezing/randomLayers';
import { AutoModelForSequenceClassification } from '../../src/models/auto';
import { BertForSequenceClassification } from '../../src/models/bert';
import { type BatchSource, initialWeights, type ImageBatch, type LabelledBatch, type Model, type TextBatch } from '../../src/models/model';
import { imageClassificationSpecs, ViTForImageClassification } from '../../src/models/vit';
import { SafetensorsReader } from '../../src/hub/safetensors';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { SCHEMES } from '../../src/tape/scheme';
import { damageOf, listCheckpoints } from '../../src/training/checkpointFolder';
import { loadHistory } from '../../src/training/historyFile';
import { SlimFitTrainer, type TrainerOptions } from '../../src/training/trainer';
import { cpuEngine, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

const root = mkdtempSync(path.join(tmpdir(), 'slimfit-checkpoint-'));
after(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;
const newFolder = () => path.join(root, String(folders++));

const config = tinyConfig({ hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1 });
/** Wide enough for moments in 8 bits. */
const wide = tinyConfig({ hidden_size: 64, intermediate_size: 128, hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1 });
const configWith = (changes: object) => tinyConfig({ hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1, ...changes });

/** Twelve examples, a batch's shape beforehand. */
function tinyData(seed = 1, size = 12): BatchSource<TextBatch> {
  const all = tinyBatch(config, size, 6, seed);
  return {
    size,
    shape: (indices) => ({ batchSize: indices.length, length: 6 }),
    batch(indices) {
      const rows = Array.from(indices);
      const take = (a: Int32Array) => Int32Array.from(rows.flatMap((r) => [...a.slice(r * 6, r * 6 + 6)]));
      return { inputIds: take(all.inputIds), tokenTypeIds: take(all.tokenTypeIds), attentionMask: take(all.attentionMask), labels: Int32Array.from(rows, (r) => (all.labels as Int32Array)[r]), batchSize: rows.length, length: 6 };
    },
  };
}

const usual: Partial<TrainerOptions> = { batchSize: 5, learningRate: 0.01, freezeRate: 0.75, totalSteps: 9, seed: 3, measureEncodingsEvery: 4, evaluation: tinyData(2), onWarning: () => {} };
const optionsOf = (model: Model, options: Partial<TrainerOptions> = {}): TrainerOptions => ({ model, train: tinyData(), ...usual, ...options });

/** Runs with an engine and a tiny model, frees both, and looks for tensors that are left. */
async function withModel<R>(work: (model: BertForSequenceClassification, engine: Engine) => Promise<R>, seed = 1, of = config): Promise<R> {
  const engine = await cpuEngine();
  const model = tinyModel(engine, of, seed);
  try {
    return await work(model, engine);
  } finally {
    model.dispose();
    assert.equal(engine.memory().tensors, 0, 'tensors left');
    engine.dispose();
  }
}

/** A run from its beginning, or from a checkpoint. */
async function withTrainer<R>(options: Partial<TrainerOptions>, work: (trainer: SlimFitTrainer, engine: Engine) => Promise<R>, from?: string): Promise<R> {
  // The weights of a model that goes on are others, so that a weight that is not put back shows.
  return withModel(async (model, engine) => {
    const trainer = from === undefined ? new SlimFitTrainer(optionsOf(model, options)) : await SlimFitTrainer.resume(from, optionsOf(model, options));
    try {
      return await work(trainer, engine);
    } finally {
      trainer.dispose();
    }
  }, from === undefined ? 1 : 99);
}

const TIMES = /milliseconds|PerSecond/i;

/** Everything that a run leaves, but for times: what it would do next, weights, moments, history. */
async function traceOf<Batch extends LabelledBatch>(trainer: SlimFitTrainer<Batch>): Promise<unknown> {
  const { head, columns } = trainer.history.parts();
  const { optimizer } = trainer as unknown as { optimizer: import('../../src/optim/adamw').AdamW };
  const moments = await optimizer.snapshot();
  return {
    next: trainer.nextStep,
    head,
    columns: Object.fromEntries([...columns].filter(([name]) => !TIMES.test(name)).map(([name, v]) => [name, Buffer.from(v.buffer, v.byteOffset, v.byteLength).toString('hex')])),
    weights: [...(await trainer.model.weights())].map(([name, { data }]) => [name, Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('hex')]),
    moments: new Map([...moments].map(([p, state]) => [p.name, state])),
    policy: JSON.stringify(trainer.policy.state()),
    preview: { ...trainer.peek() },
  };
}

const policies: Readonly<Record<string, PolicyFactory | undefined>> = {
  InterLayerScheduling: undefined,
  NoFreezing: (l) => new NoFreezing(l),
  RandomLayers: (l, { seed }) => new RandomLayers(l, { activatedLayers: 1, intervalSteps: 2, seed }),
  BlockCyclic: (l) => new BlockCyclic(l, { switchBlockEvery: 2 }),
  FreezeOut: (l, { totalSteps }) => new FreezeOut(l, { totalSteps, t0: 0.3, schedule: 'linear' }),
  AutoFreeze: (l) => new AutoFreeze(l, { evaluateEvery: 2, percentile: 90 }),
  BitFit: (l) => new BitFit(l),
  CkaFreezing: (l) => new CkaFreezing(l, { compareEvery: 2, threshold: 0.05, examples: 6 }),
  MemoryBudget: (l) => new MemoryBudget(l, { budgetBytes: 12_000 }),
  KnapsackFreezing: (l) => new KnapsackFreezing(l, { budgetBytes: 12_000 }),
};
for (const [name, policy] of Object.entries(policies))
  test(`under ${name} a run that goes on from a checkpoint in the middle of an epoch is to the bit the run that was never stopped`, async () => {
    const options = { policy };
    const whole = await withTrainer(options, async (trainer) => {
      for await (const _ of trainer.steps(4));
      await trainer.evaluate();
      for await (const _ of trainer.steps(5));
      return traceOf(trainer);
    });
    const dir = newFolder();
    const folder = await withTrainer(options, async (trainer) => {
      for await (const _ of trainer.steps(4));
      await trainer.evaluate();
      return trainer.save(dir);
    });
    assert.equal(folder, path.join(dir, 'checkpoint-4'));
    const resumed = await withTrainer(
      options,
      async (trainer) => {
        assert.deepEqual([trainer.nextStep, trainer.history.length], [4, 4]);
        for await (const _ of trainer.steps());
        return traceOf(trainer);
      },
      dir,
    );
    assert.deepEqual(resumed, whole);
  });

for (const { sparseEmbeddings, ...optimizer } of [
  { moments: '8-bit' },
  { idleMoments: 'host' },
  { idleMoments: 'release', idleAfter: 1 },
  { moments: '8-bit', idleMoments: 'host', idleAfter: 2 },
  { sparseEmbeddings: true },
  { sparseEmbeddings: true, moments: '8-bit', idleMoments: 'host' },
] as readonly ({ sparseEmbeddings?: boolean } & NonNullable<TrainerOptions['optimizer']>)[])
  test(`a run with the optimizer ${JSON.stringify(optimizer)}${sparseEmbeddings ? ', word embeddings by rows,' : ''} goes on to the bit too, bytes on the device included`, async () => {
    const run = (from: string | undefined, work: (trainer: SlimFitTrainer) => Promise<unknown>) =>
      withModel(
        async (model) => {
          const options = optionsOf(model, { optimizer, sparseEmbeddings });
          const trainer = from === undefined ? new SlimFitTrainer(options) : await SlimFitTrainer.resume(from, options);
          try {
            for await (const _ of trainer.steps(from === undefined ? 5 : 4));
            return await work(trainer);
          } finally {
            trainer.dispose();
          }
        },
        from === undefined ? 1 : 9,
        wide,
      );
    const dir = newFolder();
    const whole = await run(undefined, async (trainer) => {
      const reader = SafetensorsReader.open(path.join(await trainer.save(dir), 'optimizer.safetensors'));
      assert.equal(reader.names.some((n) => n.endsWith('.weight.m.codes')), 'moments' in optimizer);
      // The rows that the first steps looked up.
      const rows = reader.names.filter((n) => n.endsWith('.rows'));
      assert.ok(rows.length <= (sparseEmbeddings ? 1 : 0) && rows.every((n) => n.includes('word_embeddings')));
      reader.close();
      for await (const _ of trainer.steps());
      return traceOf(trainer);
    });
    assert.deepEqual(await run(dir, traceOf), whole);
  });

for (const mode of ['exact', 'tuned'] as const)
  test(`a run in mode ${mode} goes on to the bit from its very beginning and through several checkpoints, layers that the user froze or thawed included`, async () => {
    const change = (trainer: SlimFitTrainer) => {
      if (trainer.nextStep === 2) trainer.freeze('L0 query', 'bert.pooler');
      if (trainer.nextStep === 3) trainer.thaw('L1 key');
      if (trainer.nextStep === 6) trainer.follow('bert.pooler');
    };
    const options = { mode, frozenParameters: 'zerograd' as const };
    const whole = await withTrainer(options, async (trainer) => {
      for (let i = 0; i < 8; i++) {
        change(trainer);
        await trainer.step();
      }
      return traceOf(trainer);
    });
    const dir = newFolder();
    await withTrainer(options, (trainer) => trainer.save(dir));
    let trace: unknown;
    for (let i = 0; i < 8; i++)
      trace = await withTrainer(
        options,
        async (trainer) => {
          change(trainer);
          await trainer.step();
          await trainer.save(dir);
          return traceOf(trainer);
        },
        dir,
      );
    assert.deepEqual(trace, whole);
    assert.equal(readdirSync(dir).length, 9);
  });

test('NaN and infinite update magnitudes, which JSON does not know, come back', async () => {
  const dir = newFolder();
  const odd = [NaN, Infinity, -Infinity, -0, 1e-320];
  const options: Partial<TrainerOptions> = { policy: (l) => new NoFreezing(l) };
  await withTrainer(options, async (trainer) => {
    trainer.policy.observe(0, new Map(odd.map((v, i) => [i, v])));
    await trainer.save(dir);
  });
  await withTrainer(options, async (trainer) => assert.deepEqual([...trainer.policy.magnitudes].slice(0, 6), [...odd, NaN]), dir);
});

test('a state that JSON would change is refused before anything is written', async () => {
  const dir = newFolder();
  for (const bad of [NaN, Float64Array.of(1), new Map([[1, 2]])]) {
    const options: Partial<TrainerOptions> = { policy: (l) => Object.assign(new NoFreezing(l), { state: () => ({ bad }) }) };
    await withTrainer(options, (trainer) => assert.rejects(trainer.save(dir), (e: Error) => e instanceof InvalidArgumentError && /policy none does not survive JSON/.test(e.message)));
  }
  assert.equal(existsSync(dir), false);
});

test('augmented images made ahead in a thread are the same ones after a resume in the middle of an epoch', async () => {
  const vit = parseViTConfig({ model_type: 'vit', image_size: 16, patch_size: 8, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 24, num_labels: 2 });
  const seen = async (dir: string, stopAt: number | undefined) => {
    const engine = await cpuEngine();
    const run = async (resume: boolean, steps: number) => {
      const model = new ViTForImageClassification(engine, vit, initialWeights(imageClassificationSpecs(vit), 0.1, resume ? 9 : 1));
      const labels = Int32Array.from({ length: 10 }, (_, i) => i % 2);
      const source = { size: 10, labels, labelNames: ['a', 'b'], imageSize: { height: 20, width: 24 }, image: (i: number) => ({ kind: 'rgb' as const, image: { width: 24, height: 20, data: Uint8Array.from({ length: 20 * 24 * 3 }, (_, k) => (k * (7 + i) + 13 * i) % 256) } }) };
      const train = new ImageDataset(source, parseImageProcessor({ size: 16 }), { workers: 1, seed: 5, augmentation: imagenetAugmentation() });
      const asked: string[] = [];
      const watched: BatchSource<ImageBatch> = { size: 10, shape: (i) => train.shape(i), prefetch: (i, e) => train.prefetch(i, e), batch: async (i, e) => { const b = await train.batch(i, e); asked.push(`${e} ${Array.from(i)} ${b.pixelValues.reduce((s, v, k) => s + v * (1 + (k % 101)), 0)}`); return b; } };
      const options: TrainerOptions<ImageBatch> = { model, train: watched, batchSize: 3, totalSteps: 7, freezeRate: 0.5, seed: 2, onWarning: () => {} };
      const trainer = resume ? await SlimFitTrainer.resume(dir, options) : new SlimFitTrainer(options);
      asked.length = 0;
      for await (const _ of trainer.steps(steps));
      const batches = [...asked];
      const trace = await traceOf(trainer);
      await trainer.save(dir);
      trainer.dispose();
      model.dispose();
      await train.close();
      return { batches, trace };
    };
    const first = await run(false, stopAt ?? 7);
    const second = stopAt === undefined ? undefined : await run(true, 7 - stopAt);
    assert.equal(engine.memory().tensors, 0);
    engine.dispose();
    return { batches: [...first.batches, ...(second?.batches ?? [])], trace: (second ?? first).trace };
  };
  const whole = await seen(newFolder(), undefined);
  assert.equal(new Set(whole.batches).size, 7);
  assert.deepEqual(await seen(newFolder(), 5), whole);
});

/** A folder with checkpoints 2, 4 and 6 of a run of six steps. */
let madeOnce: Promise<string> | undefined;
async function threeCheckpoints(): Promise<string> {
  madeOnce ??= (async () => {
    const dir = newFolder();
    await withTrainer({ checkpoints: { dir, saveSteps: 2 } }, async (trainer) => {
      for await (const _ of trainer.steps(6));
    });
    return dir;
  })();
  const copy = newFolder();
  cpSync(await madeOnce, copy, { recursive: true });
  return copy;
}

test('checkpoints are written by themselves after every so many steps and after the last one', async () => {
  const dir = await threeCheckpoints();
  assert.deepEqual(readdirSync(dir).sort(), ['checkpoint-2', 'checkpoint-4', 'checkpoint-6']);
  await withTrainer({ checkpoints: { dir, saveSteps: 2 } }, async (trainer) => {
    for await (const _ of trainer.steps());
    assert.equal(trainer.nextStep, 9);
  }, dir);
  assert.deepEqual(readdirSync(dir).sort(), ['checkpoint-2', 'checkpoint-4', 'checkpoint-6', 'checkpoint-8', 'checkpoint-9']);
});

const mismatches: readonly [field: string, options: Partial<TrainerOptions>][] = [
  ['seed', { seed: 4 }],
  ['batchSize', { batchSize: 4 }],
  ['totalSteps', { totalSteps: 10 }],
  ['learningRate', { learningRate: 0.02 }],
  ['schedule', { schedule: 'glue' }],
  ['schedule', { schedule: () => 0.01 }],
  ['freezeRate', { freezeRate: 0.5 }],
  ['policy', { policy: (l) => new BitFit(l) }],
  ['scheme.geluInput', { mode: { ...SCHEMES.paper, geluInput: 'float32' } }],
  ['frozenBiases', { frozenBiases: true }],
  ['magnitude', { magnitude: 'relative-l2' }],
  ['blockBytes', { blockBytes: 1000 }],
  ['optimizer.eps', { optimizer: { eps: 1e-8 } }],
  ['optimizer.noDecay', { optimizer: { noDecay: [] } }],
  ['frozenParameters', { frozenParameters: 'zerograd' }],
  ['dropout', { dropout: false }],
  ['shuffle', { shuffle: false }],
  ['alwaysTrain', { alwaysTrain: ['classifier.weight'] }],
  ['gradientAccumulationSteps', { gradientAccumulationSteps: 2 }],
  ['sparseEmbeddings', { sparseEmbeddings: true }],
  ['train.size', { train: tinyData(1, 13) }],
  ['train', { train: tinyData(7) }],
];
test('options, data or a model of another run are refused by the name of what differs, and nothing is changed', async () => {
  const dir = await threeCheckpoints();
  const refused = (field: string) => (e: Error) => e instanceof ResumeMismatchError && e.field === field && e.stored !== e.given && e.code === ('resume-mismatch' satisfies SlimFitErrorCode) && e.message.includes(`${dir}/checkpoint-6`);
  await withModel(async (model, engine) => {
    const before = await model.weights();
    for (const [field, options] of mismatches) {
      await assert.rejects(SlimFitTrainer.resume(dir, optionsOf(model, options)), (e: Error) => refused(field)(e) || assert.fail(`${field}: ${e.message}`));
      assert.equal(engine.memory().tensors, model.parameters.size);
    }
    assert.deepEqual(await model.weights(), before);
  }, 5);
  for (const [field, changes] of [['model.num_attention_heads', { num_attention_heads: 2 }], ['model.vocab_size', { vocab_size: 32 }], ['model.hidden_dropout_prob', { hidden_dropout_prob: 0.2 }]] as const)
    await withModel((model) => assert.rejects(SlimFitTrainer.resume(dir, optionsOf(model)), (e: Error) => refused(field)(e) || assert.fail(`${field}: ${e.message}`)), 1, configWith(changes));
});

test('what only looks on may be another, and a run at a constant rate may become longer', async () => {
  const dir = await threeCheckpoints();
  await withTrainer({ name: 'again', measureEncodingsEvery: 0, evaluation: undefined, signal: new AbortController().signal, initialMagnitudeScale: 7, gradientCheckpointing: true, gradientAccumulationSteps: 1 }, async (trainer) => {
    assert.equal(trainer.nextStep, 6);
    assert.equal(trainer.history.name, 'again');
  }, dir);
  const longer = newFolder();
  await withTrainer({ schedule: 'constant' }, async (trainer) => {
    await trainer.step();
    await trainer.save(longer);
  });
  await withTrainer({ schedule: 'constant', totalSteps: 50 }, async (trainer) => assert.equal(trainer.totalSteps, 50), longer);
});

const files = ['model.safetensors', 'config.json', 'optimizer.safetensors', 'trainer_state.json', 'history.json', 'history.safetensors', 'manifest.json'];
const harms: Readonly<Record<string, (file: string) => void>> = {
  'cut off': (file) => truncateSync(file, Math.floor(readFileSync(file).length / 2)),
  'left empty, as a power cut leaves what was not synced,': (file) => truncateSync(file, 0),
  missing: (file) => rmSync(file),
  'with one bit turned': (file) => {
    const bytes = readFileSync(file);
    bytes[bytes.length >> 1] ^= 1;
    writeFileSync(file, bytes);
  },
  'with a byte too many': (file) => appendFileSync(file, ' '),
};
for (const [what, harm] of Object.entries(harms))
  test(`a checkpoint with a file ${what} is named, and the one before it is used`, async () => {
    for (const file of files) {
      // JSON does not mind a space at its end, nor a manifest another date.
      if (file === 'manifest.json' && /byte too many|one bit/.test(what)) continue;
      const dir = await threeCheckpoints();
      harm(path.join(dir, 'checkpoint-6', file));
      const said: string[] = [];
      await withTrainer({ onWarning: (t) => said.push(t) }, async (trainer) => assert.equal(trainer.nextStep, 4), dir);
      assert.equal(said.length, 1, `${file}: ${said}`);
      assert.match(said[0], /checkpoint-6 is damaged: .*; going on from .*checkpoint-4 instead/);
      assert.ok(said[0].includes(file), said[0]);
    }
  });

test('when no checkpoint is whole each is named, when there is none that is said, and the model is as it was', async () => {
  const dir = await threeCheckpoints();
  for (const name of readdirSync(dir)) truncateSync(path.join(dir, name, 'optimizer.safetensors'), 9);
  const empty = newFolder();
  mkdirSync(empty);
  await withModel(async (model) => {
    const before = await model.weights();
    await assert.rejects(SlimFitTrainer.resume(dir, optionsOf(model)), (e: Error) => e instanceof CheckpointError && ['checkpoint-2', 'checkpoint-4', 'checkpoint-6'].every((n) => e.message.includes(n)));
    for (const where of [empty, path.join(empty, 'nothing')]) await assert.rejects(SlimFitTrainer.resume(where, optionsOf(model)), (e: Error) => e instanceof FileMissingError && e.message.includes(where));
    assert.deepEqual(await model.weights(), before);
  });
});

test('a checkpoint that was forged, hashes included, is refused before a weight is overwritten or the trainer changed', async () => {
  const dir = await threeCheckpoints();
  const folder = path.join(dir, 'checkpoint-6');
  const [stateFile, manifestFile] = ['trainer_state.json', 'manifest.json'].map((n) => path.join(folder, n));
  const good = JSON.parse(readFileSync(stateFile, 'utf8')) as { slimfit: { optimizer: [string, { m: { $tensor: string } }][]; policy: { magnitudes: unknown[] } } };
  const [first, second] = good.slimfit.optimizer.filter(([name], i, all) => i === 0 || name.endsWith('.weight') !== all[0][0].endsWith('.weight'));
  const moment = (m: object, more = {}) => ({ optimizer: [[first[0], { ...first[1], m, ...more }], ...good.slimfit.optimizer.slice(1)] });
  const forged: readonly [object, RegExp][] = [
    [{ overruled: [5] }, /slimfit.overruled is \[5\]/],
    [moment({ $tensor: 'nothing' }), /holds no tensor nothing/],
    [moment({ codes: first[1].m, scales: first[1].m }), /the moments of .* are not float32/],
    [moment(first[1].m, { rows: [1, 2] }), /slimfit.optimizer is/],
    [moment(first[1].m, { rows: first[1].m }), /the moments of .* are of (row|\d+ rows)/],
    [moment(second[1].m), /the moments of .* are not float32/],
    [{ policy: { magnitudes: good.slimfit.policy.magnitudes.map(() => ({ toString: 1, valueOf: 1 })) } }, /slimfit.policy is no state of the policy/],
  ];
  await withModel(async (model, engine) => {
    const before = await model.weights();
    for (const [part, says] of forged) {
      const text = JSON.stringify({ ...good, slimfit: { ...good.slimfit, ...part } });
      writeFileSync(stateFile, text);
      const manifest = JSON.parse(readFileSync(manifestFile, 'utf8')) as { files: object };
      writeFileSync(manifestFile, JSON.stringify({ ...manifest, files: { ...manifest.files, 'trainer_state.json': { bytes: Buffer.byteLength(text), sha256: createHash('sha256').update(text).digest('hex') } } }));
      await assert.rejects(SlimFitTrainer.resume(folder, optionsOf(model)), (e: Error) => (e instanceof CheckpointError || e instanceof InvalidArgumentError) && (says.test(e.message) || assert.fail(e.message)));
      assert.equal(engine.memory().tensors, model.parameters.size);
    }
    assert.deepEqual(await model.weights(), before);
  }, 5);
});

test('one checkpoint of several can be gone on from, by its folder', async () => {
  const dir = await threeCheckpoints();
  await withTrainer({}, async (trainer) => assert.equal(trainer.nextStep, 2), path.join(dir, 'checkpoint-2'));
  const elsewhere = newFolder();
  cpSync(path.join(dir, 'checkpoint-2'), elsewhere, { recursive: true });
  await withTrainer({}, async (trainer) => assert.equal(trainer.nextStep, 2), elsewhere);
  truncateSync(path.join(dir, 'checkpoint-2', 'model.safetensors'), 100);
  await withModel((model) => assert.rejects(SlimFitTrainer.resume(path.join(dir, 'checkpoint-2'), optionsOf(model)), CheckpointError));
});

test('what a killed save left behind is removed, and a checkpoint that had stepped aside for it gets its name back', async () => {
  const dir = await threeCheckpoints();
  mkdirSync(path.join(dir, '.checkpoint-8.tmp'));
  writeFileSync(path.join(dir, '.checkpoint-8.tmp', 'model.safetensors'), 'half');
  renameSync(path.join(dir, 'checkpoint-6'), path.join(dir, '.checkpoint-6.old'));
  cpSync(path.join(dir, 'checkpoint-4'), path.join(dir, '.checkpoint-4.old'), { recursive: true });
  await withTrainer({}, async (trainer) => assert.equal(trainer.nextStep, 6), dir);
  assert.deepEqual(readdirSync(dir).sort(), ['checkpoint-2', 'checkpoint-4', 'checkpoint-6']);
});

test('the last ones are kept and the best one besides, as its metric says, also across a resume', async () => {
  const dir = newFolder();
  const values = [0.1, 0.9, 0.2, 0.3, 0.95, 0.1, 0.1, 0.1, 0.1];
  let at = 0;
  const options: Partial<TrainerOptions> = { metrics: () => ({ quality: values[at++] }), checkpoints: { dir, saveSteps: 1, saveTotalLimit: 2, metricForBestModel: 'eval_quality' } };
  await withTrainer(options, async (trainer) => {
    await trainer.step();
    await trainer.step();
    assert.deepEqual(readdirSync(dir).sort(), ['checkpoint-1', 'checkpoint-2']);
    await trainer.step();
    await trainer.step();
    assert.deepEqual(readdirSync(dir).sort(), ['checkpoint-2', 'checkpoint-3', 'checkpoint-4']);
  });
  assert.equal((JSON.parse(readFileSync(path.join(dir, 'checkpoint-4', 'trainer_state.json'), 'utf8')) as { best_metric: number }).best_metric, 0.9);
  await withTrainer(options, async (trainer) => {
    await trainer.step();
    assert.deepEqual(readdirSync(dir).sort(), ['checkpoint-4', 'checkpoint-5']);
    for await (const _ of trainer.steps());
  }, dir);
  assert.deepEqual(readdirSync(dir).sort(), ['checkpoint-5', 'checkpoint-8', 'checkpoint-9']);
  const { best_model_checkpoint, best_global_step, global_step, max_steps } = JSON.parse(readFileSync(path.join(dir, 'checkpoint-9', 'trainer_state.json'), 'utf8')) as Record<string, unknown>;
  assert.deepEqual([best_model_checkpoint, best_global_step, global_step, max_steps], [path.join(dir, 'checkpoint-5'), 5, 9, 9]);
  const loss = newFolder();
  await withTrainer({ ...options, checkpoints: { dir: loss, saveSteps: 3, saveTotalLimit: 1, metricForBestModel: 'loss' } }, async (trainer) => {
    for await (const _ of trainer.steps());
    const rows = (trainer.history.evaluations().objects() as { step: number; metric: string; value: number }[]).filter((r) => r.metric === 'loss');
    assert.deepEqual(rows.map((r) => r.step), [3, 6, 9]);
    const best = rows.reduce((a, b) => (b.value < a.value ? b : a)).step;
    assert.deepEqual(readdirSync(loss).sort(), [...new Set([`checkpoint-${best}`, 'checkpoint-9'])].sort());
  });
});

test('a damaged checkpoint does not count among those that are kept', async () => {
  const dir = await threeCheckpoints();
  truncateSync(path.join(dir, 'checkpoint-6', 'model.safetensors'), 100);
  await withTrainer({ checkpoints: { dir, saveSteps: 1, saveTotalLimit: 2 } }, (trainer) => trainer.step(), dir);
  assert.deepEqual(readdirSync(dir).sort(), ['checkpoint-4', 'checkpoint-5']);
});

test('after a rewind the checkpoint written last is gone on from, although it has fewer steps, and a step’s checkpoint is replaced', async () => {
  const dir = newFolder();
  await withTrainer({ checkpoints: { dir, saveSteps: 2 } }, async (trainer) => {
    await trainer.step();
    await trainer.snapshot();
    for await (const _ of trainer.steps(5));
    trainer.rewind(1);
    trainer.freeze('bert');
    await trainer.step();
  });
  assert.deepEqual(readdirSync(dir).sort(), ['checkpoint-2', 'checkpoint-4', 'checkpoint-6']);
  await withTrainer({}, async (trainer) => {
    assert.equal(trainer.nextStep, 2);
    assert.ok(trainer.peek().active.every((l) => !l.name.startsWith('bert.')));
  }, dir);
  // The list has the same order; what cannot be read stands first, and a folder that is none has none.
  assert.deepEqual(listCheckpoints(dir).map((c) => c.step), [2, 6, 4]);
  assert.deepEqual(listCheckpoints(dir).map((c) => [c.folder, c.manifest?.step]), [2, 6, 4].map((step) => [path.join(dir, `checkpoint-${step}`), step]));
  truncateSync(path.join(dir, 'checkpoint-4', 'manifest.json'), 10);
  assert.deepEqual(listCheckpoints(dir).map((c) => [c.step, c.manifest?.step]), [[4, undefined], [2, 2], [6, 6]]);
  for (const none of [path.join(dir, 'none'), path.join(dir, 'checkpoint-2', 'config.json')]) assert.deepEqual(listCheckpoints(none), []);
});

test('a manifest that names a file of another folder is damage, and the file is not read', async () => {
  const dir = newFolder();
  const outside = path.join(dir, 'outside.bin');
  mkdirSync(path.join(dir, 'checkpoint-1'), { recursive: true });
  writeFileSync(outside, '');
  for (const name of ['../outside.bin', outside, 'sub/file', '..']) {
    // Right in size and hash, so that only the name can be what is wrong.
    const files = { [name]: { bytes: 0, sha256: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855' } };
    writeFileSync(path.join(dir, 'checkpoint-1', 'manifest.json'), JSON.stringify({ format: 'slimfit-checkpoint', version: 1, step: 1, run: 'r', sequence: 1, savedAt: '', files }));
    assert.match((await damageOf(listCheckpoints(dir)[0], []))!, /no file of this folder/, name);
  }
});

test('another program’s checkpoint is not overwritten, but a damaged one is', async () => {
  const dir = newFolder();
  mkdirSync(path.join(dir, 'checkpoint-1'), { recursive: true });
  writeFileSync(path.join(dir, 'checkpoint-1', 'pytorch_model.bin'), 'weights');
  await withTrainer({}, async (trainer) => {
    await trainer.step();
    await assert.rejects(trainer.save(dir), (e: Error) => e instanceof InvalidArgumentError && /checkpoint-1 is of another run/.test(e.message));
    assert.deepEqual(readdirSync(path.join(dir, 'checkpoint-1')), ['pytorch_model.bin']);
    await trainer.step();
    truncateSync(path.join(await trainer.save(dir), 'manifest.json'), 3);
    await trainer.save(dir);
  });
  await withTrainer({}, async (trainer) => assert.equal(trainer.nextStep, 2), dir);
});

test('another run’s checkpoint is not overwritten, nor removed when old ones are', async () => {
  const dir = await threeCheckpoints();
  const before = readFileSync(path.join(dir, 'checkpoint-2', 'manifest.json'), 'utf8');
  await withTrainer({ checkpoints: { dir, saveSteps: 1, saveTotalLimit: 1 } }, async (trainer) => {
    await trainer.step();
    await assert.rejects(trainer.step(), (e: Error) => e instanceof InvalidArgumentError && /checkpoint-2 is of another run/.test(e.message));
  });
  assert.equal(readFileSync(path.join(dir, 'checkpoint-2', 'manifest.json'), 'utf8'), before);
  assert.deepEqual(readdirSync(dir).sort(), ['checkpoint-1', 'checkpoint-2', 'checkpoint-4', 'checkpoint-6']);
});

test('a checkpoint is a Hugging Face folder, tokenizer and labels included', async () => {
  const dir = newFolder();
  const tokenizer = Tokenizer.fromFolder(embeddedModel());
  const folder = await withTrainer({ processingClass: tokenizer }, async (trainer) => {
    await trainer.step();
    const saved = await trainer.save(dir);
    const loaded = await AutoModelForSequenceClassification.fromPretrained(saved, { engine: trainer.engine, onNotice: (t) => assert.fail(t) });
    assert.deepEqual(await loaded.weights(), await trainer.model.weights());
    loaded.dispose();
    return saved;
  });
  assert.deepEqual(Tokenizer.fromFolder(folder).encode('the dog sees a cat').inputIds, tokenizer.encode('the dog sees a cat').inputIds);
  const { files: listed } = JSON.parse(readFileSync(path.join(folder, 'manifest.json'), 'utf8')) as { files: Record<string, { bytes: number }> };
  assert.deepEqual(Object.keys(listed).sort(), readdirSync(folder).filter((f) => f !== 'manifest.json').sort());
  // The sum of the sizes by another program than the writer.
  for (const [file, { bytes }] of Object.entries(listed)) assert.equal(bytes, readFileSync(path.join(folder, file)).length);
  assert.equal(loadHistory(folder).length, 1);
});

/** Files written from now on take so many bytes in all, then the disk is full. */
function fillDisk(t: TestContext, bytes: number): void {
  let left = bytes;
  const real = fsPromises.open;
  t.mock.method(fsPromises, 'open', async (file: string, flags: string) => {
    const handle = await real(file, flags);
    const write = handle.writeFile.bind(handle);
    handle.writeFile = async (data) => {
      left -= (data as Uint8Array).length;
      if (left < 0) throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC', errno: -28, syscall: 'write' });
      return write(data);
    };
    return handle;
  });
}

test('a disk that is full at any byte of a checkpoint is a typed error with path and bytes; the older one stays, and training goes on to the bit', async (t) => {
  const whole = await withTrainer({}, async (trainer) => {
    for await (const _ of trainer.steps(6));
    return traceOf(trainer);
  });
  for (const bytes of [0, 100, 20_000, 60_000]) {
    const dir = await threeCheckpoints();
    rmSync(path.join(dir, 'checkpoint-6'), { recursive: true });
    const before = readFileSync(path.join(dir, 'checkpoint-4', 'model.safetensors'));
    await withTrainer({ checkpoints: { dir, saveSteps: 1, saveTotalLimit: 1 } }, async (trainer) => {
      fillDisk(t, bytes);
      await assert.rejects(trainer.step(), (e: Error) => e instanceof CheckpointWriteError && e.path === path.join(dir, 'checkpoint-5') && e.neededBytes > 20_000 && e.message.includes(e.path) && e.message.includes(String(e.neededBytes)));
      assert.equal(trainer.nextStep, 5);
      mock.restoreAll();
      t.mock.restoreAll();
      assert.deepEqual(readdirSync(dir).sort(), ['checkpoint-2', 'checkpoint-4']);
      assert.deepEqual(readFileSync(path.join(dir, 'checkpoint-4', 'model.safetensors')), before);
      await trainer.step();
      assert.deepEqual(await traceOf(trainer), whole);
      assert.deepEqual(readdirSync(dir), ['checkpoint-6']);
      // What was said to be needed is about what it took.
      const took = readdirSync(path.join(dir, 'checkpoint-6')).reduce((sum, f) => sum + readFileSync(path.join(dir, 'checkpoint-6', f)).length, 0);
      assert.ok(took > 50_000);
    }, dir);
  }
});

/** A small file system of its own, where this process may make one. */
function smallDisk(): { dir: string; remove: () => void } | undefined {
  const dir = newFolder();
  mkdirSync(dir);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=160k', 'tmpfs', dir], { stdio: 'ignore' });
    return { dir, remove: () => execFileSync('umount', ['-l', dir]) };
  } catch {
    return undefined;
  }
}

test('a disk that is really full leaves the older checkpoint, and a save after making room succeeds', async (t) => {
  const disk = smallDisk();
  if (!disk) return t.skip('mounting a small disk needs root');
  try {
    await withTrainer({}, async (trainer) => {
      await trainer.step();
      await trainer.save(disk.dir);
      await trainer.step();
      await assert.rejects(trainer.save(disk.dir), (e: Error) => e instanceof CheckpointWriteError && e.path.endsWith('checkpoint-2') && /the disk is full/.test(e.message) && e.neededBytes > 20_000);
      assert.deepEqual(readdirSync(disk.dir), ['checkpoint-1']);
      rmSync(path.join(disk.dir, 'checkpoint-1'), { recursive: true });
      await trainer.save(disk.dir);
      assert.deepEqual(readdirSync(disk.dir), ['checkpoint-2']);
    });
    await withTrainer({}, async (trainer) => assert.equal(trainer.nextStep, 2), disk.dir);
  } finally {
    disk.remove();
  }
});

test('a folder that cannot be is a typed error', async () => {
  const file = newFolder();
  writeFileSync(file, 'a file');
  await withTrainer({}, (trainer) => assert.rejects(trainer.save(file), (e: Error) => e instanceof CheckpointWriteError && e.path.startsWith(file)));
  await withTrainer({}, (trainer) => assert.rejects(trainer.save(), (e: Error) => e instanceof InvalidArgumentError && /trainer\.save\('run'\)/.test(e.message)));
});

test('what cannot work of the options is refused by its value', async () => {
  await withModel(async (model) => {
    for (const [checkpoints, says] of [
      [{ dir: '' }, /folder/],
      [{ dir: 'x', saveSteps: 0 }, /saveSteps is 0/],
      [{ dir: 'x', saveTotalLimit: 1.5 }, /saveTotalLimit is 1\.5/],
    ] as const)
      assert.throws(() => new SlimFitTrainer(optionsOf(model, { checkpoints })), (e: Error) => e instanceof InvalidArgumentError && says.test(e.message));
    assert.throws(() => new SlimFitTrainer(optionsOf(model, { evaluation: undefined, checkpoints: { dir: 'x', metricForBestModel: 'loss' } })), /metricForBestModel/);
  });
  const dir = newFolder();
  await withTrainer({ checkpoints: { dir, saveSteps: 1, metricForBestModel: 'acc' } }, (trainer) => assert.rejects(trainer.step(), /metricForBestModel is 'acc'.*gives loss/));
});

test('no more than one parameter is on its way to the host at once, and nothing more stays on the device', async () => {
  const dir = newFolder();
  await withTrainer({}, async (trainer, engine) => {
    for await (const _ of trainer.steps(2));
    let [now, most] = [0, 0];
    const read = engine.read.bind(engine);
    engine.read = async (tensor) => {
      most = Math.max(most, ++now);
      return read(tensor).finally(() => now--);
    };
    const before = engine.memory();
    await trainer.save(dir);
    assert.deepEqual(engine.memory().live, before.live);
    assert.ok(most >= 1 && most <= 2, `${most} tensors`);
  });
});

test('a step and a save do not overlap', async () => {
  const dir = newFolder();
  await withTrainer({}, async (trainer) => {
    const saving = trainer.save(dir);
    await assert.rejects(trainer.step(), InvalidArgumentError);
    await saving;
    assert.equal((await trainer.step()).step, 0);
  });
});
