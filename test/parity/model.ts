/** Replays the golden cases of a model: one forward and backward each, and whole training runs. */
import type { Engine } from '../../src/engine/engine';
import { InterLayerScheduling } from '../../src/freezing/ils';
import { parseBertConfig } from '../../src/hub/config';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { BertForSequenceClassification } from '../../src/models/bert';
import type { BatchSource, HostWeights, ImageBatch, LabelledBatch, Model, TextBatch } from '../../src/models/model';
import { ViTForImageClassification } from '../../src/models/vit';
import { ForwardContext } from '../../src/nn/context';
import type { LedgerEntry } from '../../src/tape/roles';
import { SCHEMES } from '../../src/tape/scheme';
import { SlimFitTrainer } from '../../src/training/trainer';
import { type GoldenCase, type GoldenFile, type GoldenModel, type GoldenRun, norm, relativeL2 } from './golden';

/** One line of output: errors are relative unless their name says otherwise. */
export interface ParityLine {
  readonly file: string;
  readonly case: string;
  readonly engine: string;
  readonly ok: boolean;
  readonly tolerance: number;
  readonly [field: string]: unknown;
}

const TOLERANCE = 1e-4;
/** A gradient this much smaller than the largest one is compared against that scale: it is 0 but for rounding. */
const NEGLIGIBLE = 1e-6;

/** A model file that this project implements: how its model and its batches are made, and what is kept smaller on purpose. */
interface Architecture<Batch extends LabelledBatch> {
  readonly base: string;
  model(engine: Engine, json: GoldenModel, weights: HostWeights): Model<Batch>;
  batch(file: GoldenFile, i: number): Batch;
  /** Bytes that the reference keeps and this project does not, outside the encoder, each with the reason. */
  smaller(json: GoldenModel, trains: (name: string) => boolean, exact: boolean): { readonly embeddings: number; readonly head: number; readonly why: readonly string[] };
}

const bert: Architecture<TextBatch> = {
  base: 'bert',
  model: (engine, json, weights) => new BertForSequenceClassification(engine, parseBertConfig(json.config), weights),
  batch(file, i) {
    const ids = file.tensor(`batch${i}.input_ids`);
    return {
      inputIds: ids.data as Int32Array,
      tokenTypeIds: file.tensor(`batch${i}.token_type_ids`).data as Int32Array,
      attentionMask: file.tensor(`batch${i}.attention_mask`).data as Int32Array,
      labels: file.tensor(`batch${i}.labels`).data as Int32Array,
      batchSize: ids.shape[0],
      length: ids.shape[1],
    };
  },
  smaller({ batch_size: B, tokens: T, config }, trains) {
    const rest = 4 * B * (T - 1) * (config.hidden_size as number);
    return trains('bert.pooler.dense.weight') && rest > 0
      ? { embeddings: 0, head: rest, why: [`the pooler keeps the first tokens, not the sequence that they are a view of: ${rest} bytes`] }
      : { embeddings: 0, head: 0, why: [] };
  },
};

const vit: Architecture<ImageBatch> = {
  base: 'vit',
  model: (engine, json, weights) => new ViTForImageClassification(engine, parseViTConfig(json.config), weights),
  batch(file, i) {
    const pixels = file.tensor(`batch${i}.pixel_values`);
    const [batchSize, channels, height, width] = pixels.shape;
    return { pixelValues: pixels.data as Float32Array, labels: file.tensor(`batch${i}.labels`).data as Int32Array, batchSize, channels, height, width };
  },
  smaller({ batch_size: B, tokens: T, config }, trains, exact) {
    const rest = 4 * B * (T - 1) * (config.hidden_size as number);
    const norm = rest + (exact ? 8 * B * (T - 1) : 0);
    const pixels = trains('vit.embeddings.patch_embeddings.projection.weight') ? 0 : 4 * B * (config.num_channels as number) * (config.image_size as number) ** 2;
    const classifier = trains('classifier.weight') ? rest : 0;
    return {
      embeddings: pixels,
      head: norm + classifier,
      why: [
        ...(pixels > 0 ? [`no pixels are kept while the patch projection is frozen: ${pixels} bytes`] : []),
        `the final LayerNorm sees the class token alone: ${norm} bytes`,
        ...(classifier > 0 ? [`so does the classifier: ${classifier} bytes`] : []),
      ],
    };
  },
};

/** Whether this project implements a model. */
export function isImplemented(json: GoldenModel): boolean {
  return json.config.model_type === 'bert' || json.config.model_type === 'vit';
}

/** Every case of one model file on one engine. */
export function replayModel(engine: Engine, file: GoldenFile): AsyncGenerator<ParityLine> {
  return (file.json as GoldenModel).config.model_type === 'vit' ? replay(engine, file, vit) : replay(engine, file, bert);
}

async function* replay<Batch extends LabelledBatch>(engine: Engine, file: GoldenFile, architecture: Architecture<Batch>): AsyncGenerator<ParityLine> {
  const json = file.json as GoldenModel;
  for (const [name, golden] of Object.entries(json.cases)) yield await replayCase(engine, file, architecture, name, golden);
  for (const [name, run] of Object.entries(json.training.runs)) yield await replayRun(engine, file, architecture, name, run);
}

function buildModel<Batch extends LabelledBatch>(engine: Engine, file: GoldenFile, architecture: Architecture<Batch>): Model<Batch> {
  const json = file.json as GoldenModel;
  const weights: HostWeights = new Map(json.parameters.map(({ name, shape }) => [name, { shape, data: file.tensor(`init.${name}`).data as Float32Array }]));
  return architecture.model(engine, json, weights);
}

async function replayCase<Batch extends LabelledBatch>(engine: Engine, file: GoldenFile, architecture: Architecture<Batch>, name: string, golden: GoldenCase): Promise<ParityLine> {
  const json = file.json as GoldenModel;
  const model = buildModel(engine, file, architecture);
  const before = engine.memory().tensors;
  const frozen = new Set(golden.frozen.map((u) => json.units[u]));
  for (const p of model.parameters.values()) p.trains = !frozen.has(p.name);

  const ctx = ForwardContext.deterministic(engine, SCHEMES[name === 'exact' ? 'exact' : 'paper']);
  const out = model.forwardWithLoss(ctx, architecture.batch(file, 0));
  const logits = await engine.read(out.logits.tensor);
  const loss = (await engine.read(out.loss.tensor))[0];
  const bytes = compareBytes(ctx.tape.ledger.entries, engine.memory().live.activations, golden, architecture.base, architecture.smaller(json, (n) => !frozen.has(n), name === 'exact'));
  const pending: Promise<[string, Float32Array | Int32Array]>[] = [];
  ctx.tape.backward(out.loss, (p, g) => pending.push(engine.read(g).then((data) => [p.name, data])));
  const grads = new Map(await Promise.all(pending));
  engine.free(out.logits.tensor, out.loss.tensor);
  const leaked = engine.memory().tensors - before;
  model.dispose();

  const largest = Math.max(...golden.parameters_with_gradient.map((p) => norm(file.tensor(`${name}.grad.${p}`).data)));
  let gradients = 0;
  let worstGradient = '';
  for (const p of golden.parameters_with_gradient) {
    const mine = grads.get(p);
    // Without quantization a key bias shifts all scores of a row alike, so its gradient is 0 and what is left of it is rounding: compared absolutely.
    const floor = name === 'exact' && p.endsWith('.key.bias') ? largest : NEGLIGIBLE * largest;
    const error = mine ? relativeL2(mine, file.tensor(`${name}.grad.${p}`).data, floor) : Infinity;
    if (!(error <= gradients)) [gradients, worstGradient] = [error, p];
  }
  const extra = [...grads.keys()].filter((p) => !golden.parameters_with_gradient.includes(p));
  if (extra.length > 0) [gradients, worstGradient] = [Infinity, extra[0]];
  const logitsError = relativeL2(logits, file.tensor(`${name}.logits`).data);
  const lossError = Math.abs(loss - golden.loss) / Math.abs(golden.loss);
  const tolerance = golden.suggested_tolerance ?? TOLERANCE;
  const unitsEqual = model.layers.map((l) => l.name).filter((n) => json.units.includes(n)).join() === json.units.join();
  return {
    file: file.name,
    case: name,
    engine: engine.name,
    logits: logitsError,
    loss: lossError,
    gradients,
    worstGradient,
    savedBytesEqual: bytes.equal,
    keptSmaller: bytes.why,
    unitsEqual,
    tensorsLeft: leaked,
    tolerance,
    ok: logitsError <= tolerance && lossError <= tolerance && gradients <= tolerance && bytes.equal && unitsEqual && leaked === 0,
  };
}

/**
 * Compares what the ledger counts, part by part, with the reference. Equal but for what is kept smaller on purpose; codes are counted without the bytes that fill up their last word.
 */
function compareBytes(
  entries: readonly LedgerEntry[],
  engineBytes: number,
  { saved_bytes: want }: GoldenCase,
  base: string,
  smaller: ReturnType<Architecture<LabelledBatch>['smaller']>,
): { equal: boolean; why: readonly string[] } {
  const sum = (test: (layer: string) => boolean) => entries.filter((e) => test(e.layer)).reduce((n, e) => n + e.bytes - e.padding, 0);
  const encoder = /^\w+\.encoder\.layer\.(\d+)\./;
  const isEmbedding = (l: string) => l.startsWith(`${base}.embeddings.`);
  const parts = [
    sum(isEmbedding) === want.embeddings - smaller.embeddings,
    ...want.encoder_layers.map((bytes, i) => sum((l) => encoder.exec(l)?.[1] === String(i)) === bytes),
    sum((l) => !isEmbedding(l) && !encoder.test(l)) === want.head - smaller.head,
    entries.reduce((n, e) => n + e.bytes, 0) === engineBytes,
  ];
  return { equal: parts.every(Boolean), why: smaller.why };
}

async function replayRun<Batch extends LabelledBatch>(engine: Engine, file: GoldenFile, architecture: Architecture<Batch>, name: string, run: GoldenRun): Promise<ParityLine> {
  const json = file.json as GoldenModel;
  const model = buildModel(engine, file, architecture);
  const { optimizer: o, freeze_rate: freezeRate, distance_initial } = json.training;
  const train: BatchSource<Batch> = { size: run.steps.length, batch: (steps) => architecture.batch(file, run.steps[steps[0]].batch) };
  const trainer = new SlimFitTrainer({
    model,
    train,
    batchSize: 1,
    totalSteps: run.steps.length,
    shuffle: false,
    dropout: false,
    schedule: (k) => run.steps[k].lr,
    alwaysTrain: model.layers.map((l) => l.name).filter((n) => !json.units.includes(n)),
    policy: (layers) => new InterLayerScheduling(layers, { freezeRate, seed: 0, initialMagnitudes: distance_initial.map(Number) }),
    optimizer: { beta1: o.beta1, beta2: o.beta2, eps: o.eps, weightDecay: o.weight_decay, noDecay: o.no_decay_name_contains },
    frozenParameters: name === 'train_zerograd' ? 'zerograd' : 'skip',
    onWarning: () => {},
  });

  let frozenSetsEqual = true;
  let lossAbs = 0;
  let distance = 0;
  let afterStep0 = 0;
  for (const want of run.steps) {
    const got = await trainer.step();
    frozenSetsEqual &&= got.frozen.join() === want.frozen.join();
    lossAbs = Math.max(lossAbs, Math.abs(got.loss - want.loss));
    want.distance_after.forEach((d, i) => {
      const w = Number(d);
      const g = got.updateMagnitudes[i];
      distance = Math.max(distance, Object.is(w, g) || w === g ? 0 : Math.abs(g - w) / Math.abs(w));
      if (Number.isNaN(distance)) distance = Infinity;
    });
    if (want.step === 0 && name === 'train_skip')
      for (const [p, { data }] of await model.weights()) {
        const key = `${name}.after_step0.${p}`;
        afterStep0 = Math.max(afterStep0, relativeL2(data, (file.has(key) ? file.tensor(key) : file.tensor(`init.${p}`)).data));
      }
  }
  let finalWeights = 0;
  let worstWeight = '';
  let finalAbs = 0;
  for (const [p, { data }] of await model.weights()) {
    const want = file.tensor(`${name}.final.${p}`).data;
    const error = relativeL2(data, want);
    if (!(error <= finalWeights)) [finalWeights, worstWeight] = [error, p];
    want.forEach((w, i) => (finalAbs = Math.max(finalAbs, Math.abs(w - data[i]))));
  }
  const stepCountsEqual = [...model.parameters.values()].every((p) => trainer.stepCount(p.name) === (run.optimizer_step_count[p.name] ?? 0));
  trainer.dispose();
  model.dispose();
  const t = run.suggested_tolerance ?? { final_weights_max_rel_l2: TOLERANCE, final_weights_max_abs: TOLERANCE, loss_max_abs: TOLERANCE, distance_max_rel: TOLERANCE };
  return {
    file: file.name,
    case: name,
    engine: engine.name,
    lossAbs,
    distance,
    ...(name === 'train_skip' ? { afterStep0 } : {}),
    finalWeights,
    worstWeight,
    finalWeightsAbs: finalAbs,
    frozenSetsEqual,
    stepCountsEqual,
    tolerance: t.final_weights_max_rel_l2,
    ok:
      frozenSetsEqual &&
      stepCountsEqual &&
      finalWeights <= t.final_weights_max_rel_l2 &&
      finalAbs <= t.final_weights_max_abs &&
      lossAbs <= t.loss_max_abs &&
      distance <= t.distance_max_rel &&
      afterStep0 <= t.final_weights_max_rel_l2,
  };
}
