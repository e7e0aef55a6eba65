/** Real training steps, timed: forward, backward, AdamW, magnitudes and freezing decisions by the library's trainer, on random sentences or images of the setting's shape. */
import { CATEGORIES, type Category } from '../../src/engine/engine';
import { parseBertConfig } from '../../src/hub/config';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { BertForSequenceClassification } from '../../src/models/bert';
import type { BatchSource, HostWeights, ImageBatch, LabelledBatch, Model, ParameterSpec, TextBatch } from '../../src/models/model';
import { sequenceClassificationSpecs } from '../../src/models/sequenceClassification';
import { imageClassificationSpecs, ViTForImageClassification } from '../../src/models/vit';
import type { Engine } from '../../src/engine/engine';
import { Random } from '../../src/random';
import { SlimFitTrainer } from '../../src/training/trainer';
import { randomTexts } from '../randomTexts';
import { stepFlops } from './flops';
import { openEngine } from './openEngine';
import type { Mode, Precision, Setting } from './settings';

/** How long is measured. */
export interface Rounds {
  /** Steps before the clock starts: pipelines are compiled, buffers made, and every layer gets its moments. */
  readonly warmup: number;
  /** Steps at most, and seconds after which no more are begun (but at least three are done). */
  readonly steps: number;
  readonly seconds: number;
}

/** What was measured of one row. Bytes are the engine's own count. */
export interface TrainingFigures {
  readonly device: string;
  readonly steps: number;
  /** From one step's start to the next one's, so that nothing is left out. */
  readonly ms: number;
  readonly msMin: number;
  readonly msMax: number;
  /** All steps and the wait for the device after the last one, by their number. */
  readonly msMean: number;
  /** Tokens (padding included) or images. */
  readonly perSecond: number;
  readonly tflops: number;
  /** Most bytes of each category within a timed step. */
  readonly bytes: Readonly<Record<Category, number>>;
  /** Most bytes of all categories at one moment of a timed step. */
  readonly peakBytes: number;
  /** Bytes of all device buffers behind the tensors at the end, those that wait for their next use included. */
  readonly poolBytes: number;
  readonly dispatches: number;
  /** Buffers and bind groups made in the timed steps. */
  readonly buffersMade: number;
  readonly bindGroupsMade: number;
  readonly loss: number;
  /** How many different sets of frozen layers the timed steps had. */
  readonly frozenSets: number;
}

/** Numbers N(0, std²), of which a prime number is drawn: what they are does not matter to time, and a hundred million draws take long. */
function noise(size: number, std: number, random: Random): Float32Array {
  const drawn = Float32Array.from({ length: Math.min(size, 65_521) }, () => std * random.normal());
  const data = new Float32Array(size);
  for (let at = 0; at < size; at += drawn.length) data.set(at + drawn.length <= size ? drawn : drawn.subarray(0, size - at), at);
  return data;
}

function randomWeights(specs: readonly ParameterSpec[]): HostWeights {
  const random = new Random(1);
  return new Map(
    specs.map(({ name, shape, init }) => {
      const size = shape.reduce((a, b) => a * b, 1);
      return [name, { shape, data: init === 'normal' ? noise(size, 0.02, random) : new Float32Array(size).fill(init === 'ones' ? 1 : 0) }];
    }),
  );
}

function textModel(engine: Engine, s: Setting): Model<TextBatch> {
  const config = parseBertConfig({
    model_type: 'bert',
    vocab_size: s.vocabulary,
    hidden_size: s.hidden,
    num_hidden_layers: s.layers,
    num_attention_heads: s.heads,
    intermediate_size: s.intermediate,
    hidden_dropout_prob: s.dropout,
    attention_probs_dropout_prob: s.dropout,
  });
  return new BertForSequenceClassification(engine, config, randomWeights(sequenceClassificationSpecs(config)));
}

function imageModel(engine: Engine, s: Setting): Model<ImageBatch> {
  const config = parseViTConfig({
    model_type: 'vit',
    image_size: s.image,
    patch_size: s.patch,
    hidden_size: s.hidden,
    num_hidden_layers: s.layers,
    num_attention_heads: s.heads,
    intermediate_size: s.intermediate,
    hidden_dropout_prob: s.dropout,
    attention_probs_dropout_prob: s.dropout,
    id2label: Object.fromEntries(Array.from({ length: s.labels }, (_, i) => [i, `class ${i}`])),
  });
  return new ViTForImageClassification(engine, config, randomWeights(imageClassificationSpecs(config)));
}

function randomImages({ batch, image, labels }: Setting): ImageBatch {
  const random = new Random(2);
  return { pixelValues: noise(batch * 3 * image * image, 1, random), labels: Int32Array.from({ length: batch }, () => random.int(labels)), batchSize: batch, channels: 3, height: image, width: image };
}

/** Trains in one setting, mode and precision. @throws whatever the engine says: no adapter, no such precision, no memory */
export async function measureTraining(setting: Setting, mode: Mode, precision: Precision, rounds: Rounds): Promise<TrainingFigures> {
  const engine = await openEngine(precision);
  try {
    if (setting.kind === 'text') {
      const batch = randomTexts(setting.vocabulary, setting.batch, setting.tokens);
      return await timed(engine, textModel(engine, setting), { size: setting.batch, batch: () => batch }, setting, mode, rounds);
    }
    const batch = randomImages(setting);
    return await timed(engine, imageModel(engine, setting), { size: setting.batch, batch: () => batch }, setting, mode, rounds);
  } finally {
    engine.dispose();
  }
}

async function timed<Batch extends LabelledBatch>(engine: Awaited<ReturnType<typeof openEngine>>, model: Model<Batch>, train: BatchSource<Batch>, setting: Setting, mode: Mode, { warmup, steps, seconds }: Rounds): Promise<TrainingFigures> {
  // Encoding errors are a measurement of their own, which the peers do not make.
  const trainer = new SlimFitTrainer({ model, train, batchSize: setting.batch, mode: mode.scheme, freezeRate: mode.freezeRate, schedule: 'constant', totalSteps: 100_000, measureEncodingsEvery: 0, onWarning: () => {} });
  for (let i = 0; i < warmup; i++) await trainer.step();
  const one = engine.full([1], 1);
  await engine.read(one);
  const before = engine.counts();
  const bytes = Object.fromEntries(CATEGORIES.map((c) => [c, 0])) as Record<Category, number>;
  const [times, flops, sets] = [[] as number[], [] as number[], new Set<string>()];
  let [peakBytes, loss] = [0, 0];
  const started = performance.now();
  let last = started;
  while (times.length < steps && (times.length < 3 || last - started < 1000 * seconds)) {
    const record = await trainer.step();
    const now = performance.now();
    times.push(now - last);
    last = now;
    loss = record.loss;
    peakBytes = Math.max(peakBytes, record.memory.totalPeak);
    for (const c of CATEGORIES) bytes[c] = Math.max(bytes[c], record.memory.peak[c]);
    flops.push(stepFlops(setting, record.active.map((i) => trainer.freezableLayers[i].name), mode.scheme === 'tuned'));
    sets.add(record.frozen.join());
  }
  await engine.read(one);
  const msMean = (performance.now() - started) / times.length;
  const after = engine.counts();
  const sorted = [...times].sort((a, b) => a - b);
  const ms = sorted[sorted.length >> 1];
  const units = setting.kind === 'text' ? setting.batch * setting.tokens : setting.batch;
  engine.free(one);
  trainer.dispose();
  model.dispose();
  return {
    device: engine.device,
    steps: times.length,
    ms,
    msMin: sorted[0],
    msMax: sorted[sorted.length - 1],
    msMean,
    perSecond: (1000 * units) / ms,
    tflops: flops.reduce((a, b) => a + b, 0) / flops.length / ms / 1e9,
    bytes,
    peakBytes,
    poolBytes: after.bytes,
    dispatches: Math.round((after.dispatches - before.dispatches) / times.length),
    buffersMade: after.made - before.made,
    bindGroupsMade: after.bindGroupsMade - before.bindGroupsMade,
    loss,
    frozenSets: sets.size,
  };
}
