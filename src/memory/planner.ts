/**
 * The memory of a training step before it is run. What is kept for backward comes from the formulas (keptActivations.ts); the peak comes from the step itself, run on an engine
 * that computes nothing (shapeEngine.ts), so that it has every temporary that the real engine's books have.
 *
 * Not included: what a library takes below the engine (TensorFlow's own temporaries within one operation and its allocator's slack, the CUDA context), steps in which encodings are measured, snapshots
 * (on the host), the data.
 */
import type { DeviceTensor, UpdateMagnitude } from '../engine/engine';
import { type Kernels, ShapeEngine } from '../engine/shapeEngine';
import { InvalidArgumentError } from '../errors';
import { checkFreezeRate } from '../freezing/ils';
import { modelPart } from '../freezing/blocks';
import type { FreezableLayer } from '../freezing/layer';
import { embeddingName, TEXT_NAMES } from '../hub/textNames';
import type { TextConfig } from '../hub/config';
import type { ViTConfig } from '../hub/vitConfig';
import { showing } from '../inspect/cards';
import { planBundle } from '../inspect/planCards';
import { checkAccumulation, microBatchSizes } from '../models/microBatches';
import { freezableLayersOf, type HostWeights, type ImageBatch, type LabelledBatch, type Model, type ParameterSpec, type TextBatch, weightOfBias } from '../models/model';
import { markTouchedRows } from '../models/sparseEmbeddings';
import { QuestionAnsweringModel, questionAnsweringSpecs } from '../models/questionAnswering';
import { SequenceClassificationModel, sequenceClassificationSpecs } from '../models/sequenceClassification';
import { imageClassificationSpecs, ViTForImageClassification } from '../models/vit';
import { blockBytesOf } from '../nn/blocks';
import { ForwardContext } from '../nn/context';
import { AdamW, type AdamWSettings } from '../optim/adamw';
import { momentBytes } from '../optim/eightBit';
import { GradientSums } from '../tape/gradientSums';
import type { Parameter } from '../tape/parameter';
import type { CoursePoint } from '../tape/roles';
import { type ActivationMode, type ActivationScheme, schemeOf } from '../tape/scheme';
import { TouchedRows } from '../tape/touchedRows';
import type { GradientSink } from '../tape/tape';
import { bertActivations } from './activationBytes';
import type { PlannedActivation, TrainingSet } from './keptActivations';
import { vitActivations } from './vitActivationBytes';

/** What is planned. */
export interface MemoryQuery {
  readonly config: TextConfig | ViTConfig;
  /** What the model's head does; default: classification of what the config's model reads. */
  readonly kind?: 'sequence-classification' | 'question-answering' | 'image-classification';
  readonly batchSize: number;
  /** As for the trainer: micro-batches in which the batch is run; default 1. */
  readonly gradientAccumulationSteps?: number;
  /** As for the trainer: whether an encoder layer keeps its input only and is run again in backward; default false. */
  readonly gradientCheckpointing?: boolean;
  /** As for the trainer: whether gradient, update and moments of the word embeddings are of the rows that a step looks up; default false. */
  readonly sparseEmbeddings?: boolean;
  /** With `sparseEmbeddings`, how many different tokens a step's batch has; default as many as it can have, which bounds every batch. Moments are of every row, as after many steps. */
  readonly distinctTokens?: number;
  /** Tokens of a sequence, padding included; for texts. */
  readonly length?: number;
  /** Height and width of the images; default: the config's. */
  readonly imageSize?: number;
  /**
   * Share of the layers frozen in a step, in [0, 1); default 0.9, as the trainer's. Which ones changes from step to step: planned is the costliest of some choices, to train the layers that have most
   * alive at once (activations, and moments where these come and go with the layers), or the largest, the lowest and then those; with gradient accumulation, and with LayerNorms in codes, the largest ones; and in a model of at most 64
   * layers, for each of them, that one and those below it that have most alive. Of BERT-base and ViT-Base no random choice had a higher peak (640 tried; with micro-batches 900), with gradient checkpointing some of 300 by up to
   * 0.3 %. Of small models some had, by up to 0.03 %, and with gradient checkpointing 0.7 % (10,800 tried), so that an allowance is added there, 0.1 %, and 1 % for any model with gradient checkpointing: with it none of 7,200 had.
   */
  readonly freezeRate?: number;
  /** The frozen layers themselves, by name, instead of a rate. */
  readonly frozen?: readonly string[];
  /** As for the trainer: weights that are no freezable layers but always train. */
  readonly alwaysTrain?: readonly string[];
  /** How activations are kept; default `paper`. */
  readonly mode?: ActivationMode | ActivationScheme;
  /** As for the trainer; default: true in mode 'tuned', else false. */
  readonly frozenBiases?: boolean;
  /** As for the trainer; default: `relative-l2` in mode 'tuned', else `mean-relative`. */
  readonly magnitude?: UpdateMagnitude;
  /** As for the trainer: most bytes of one temporary of attention or of the MLP; default: 64 MiB in mode 'tuned', else no limit. */
  readonly blockBytes?: number;
  /** Whether dropout acts; default true. */
  readonly dropout?: boolean;
  /** As for the trainer; says how many bytes a moment has, and whether moments of frozen layers are on the device. */
  readonly optimizer?: AdamWSettings;
  /**
   * Moments of every parameter, as inter-layer scheduling has them once each layer has trained, or of those that train now, as a fixed set has them. Default: of what trains, if `optimizer.idleMoments` says
   * that others leave at once; else of every parameter, which is an upper bound where they leave after `idleAfter` steps.
   */
  readonly moments?: 'every parameter' | 'what trains';
  /** Whose temporaries count; default `fused`, TensorFlow on a CPU. On a GPU `tensorflow` or `webgpu`, on the wasm and cpu engines `composed`. */
  readonly kernels?: Kernels;
}

/** The memory of one training step, in bytes. A cell shows it; `activationMemoryFigure(plan)` and `stepMemoryFigure(plan)` draw it. */
export interface MemoryPlan {
  readonly batchSize: number;
  /** Freezable layers that train, in model order, and how many layers there are. */
  readonly trains: readonly string[];
  readonly layers: number;
  readonly weightBytes: number;
  readonly momentBytes: number;
  /** Most bytes of gradients alive at one moment: each is applied and freed as soon as it is complete; with gradient accumulation, those of all that trains are held between micro-batches. */
  readonly gradientBytes: number;
  /** Kept between forward and backward, of the largest micro-batch. */
  readonly activationBytes: number;
  readonly activations: readonly PlannedActivation[];
  /** What the peak has beside weights, moments and kept activations: gradients and temporaries; with gradient checkpointing, the activations of a layer that is run again. */
  readonly temporaryBytes: number;
  /** Most bytes alive at one moment of the step. */
  readonly peakBytes: number;
  /** Where memory stands as forward keeps and backward lets go, as a step's record has it; of many micro-batches the first two and the last. Temporaries come and go between these points. */
  readonly course: readonly CoursePoint[];
}

/** Which model a query means, with what is needed to run it on shapes. */
interface Planned {
  readonly specs: readonly ParameterSpec[];
  readonly layers: readonly FreezableLayer[];
  /** The table of word embeddings. */
  readonly table?: string;
  readonly kept: (batchSize: number, training: TrainingSet) => PlannedActivation[];
  readonly make: (engine: ShapeEngine, weights: HostWeights) => Model<never>;
  /** @param first number of examples of the step before these */
  readonly batch: (batchSize: number, first: number) => LabelledBatch;
}

/** Concrete classes for any architecture: which one it is, the config says. */
class AnyClassifier extends SequenceClassificationModel {}
class AnyAnswerer extends QuestionAnsweringModel {}
/** Without pixels: cutting patches is host work, and takes the time that the rest does not. */
class PixelFreeViT extends ViTForImageClassification {
  protected override uploadPatches({ batchSize, channels, height }: ImageBatch): DeviceTensor {
    const { patchSize: P } = this.config;
    return this.engine.full([batchSize, (height / P) ** 2, channels * P ** 2], 0);
  }
}

/** Whether a config is of a model of texts; else it is of images. */
export const readsText = ({ modelType }: MemoryQuery['config']): boolean => modelType in TEXT_NAMES;

function plannedOf(q: Omit<MemoryQuery, 'batchSize'>): Planned {
  const { config, length, imageSize, alwaysTrain = [], dropout = true } = q;
  const mode = schemeOf(q.mode ?? 'paper');
  const kinds: readonly MemoryQuery['kind'][] = readsText(config) ? ['sequence-classification', 'question-answering'] : ['image-classification'];
  const { kind = kinds[0] } = q;
  if (!kinds.includes(kind)) throw new InvalidArgumentError(`kind is '${kind}', but the config is of ${config.modelType}: it must be ${kinds.join(' or ')}`);
  if (kind === 'image-classification') {
    const stored = config as ViTConfig;
    const vit: ViTConfig = { ...stored, imageSize: imageSize ?? stored.imageSize };
    if (!(Number.isInteger(vit.imageSize) && vit.imageSize >= 1 && vit.imageSize % vit.patchSize === 0)) throw new InvalidArgumentError(`imageSize is ${imageSize}; it must be a multiple of the patches' ${vit.patchSize} pixels`);
    const specs = imageClassificationSpecs(vit);
    const { numChannels: channels, imageSize: side, numLabels } = vit;
    return {
      specs,
      layers: freezableLayersOf(specs, alwaysTrain),
      kept: (batchSize, training) => vitActivations({ config: vit, batchSize, mode, ...training }),
      make: (engine, weights) => new PixelFreeViT(engine, vit, weights) as Model<never>,
      batch: (batchSize): ImageBatch => ({ pixelValues: new Float32Array(0), labels: numLabels === 1 ? new Float32Array(batchSize) : new Int32Array(batchSize), batchSize, channels, height: side, width: side }),
    };
  }
  const text = config as TextConfig;
  if (!(length !== undefined && Number.isInteger(length) && length >= 1)) throw new InvalidArgumentError(`length is ${length}; texts need the number of tokens of a sequence, at least 1`);
  const { distinctTokens = text.vocabSize } = q;
  if (!(Number.isInteger(distinctTokens) && distinctTokens >= 1 && distinctTokens <= text.vocabSize)) throw new InvalidArgumentError(`distinctTokens is ${distinctTokens}; it must be a whole number from 1 to the ${text.vocabSize} of the vocabulary`);
  const answers = kind === 'question-answering';
  const specs = answers ? questionAnsweringSpecs(text) : sequenceClassificationSpecs(text);
  const head = answers ? 'question answering' : 'sequence classification';
  return {
    specs,
    layers: freezableLayersOf(specs, alwaysTrain),
    table: `${embeddingName(TEXT_NAMES[text.modelType], 'word_embeddings')}.weight`,
    kept: (batchSize, training) => bertActivations({ config: text, batchSize, length, mode, head, dropout, ...training }),
    make: (engine, weights) => (answers ? new AnyAnswerer(engine, text, weights) : new AnyClassifier(engine, text, weights)) as Model<never>,
    batch: (batchSize, first): TextBatch => {
      const tokens = batchSize * length;
      // One token of padding, so that there is a mask.
      const attentionMask = new Int32Array(tokens).fill(1, 1);
      const labels = answers ? new Int32Array(2 * batchSize) : text.numLabels === 1 ? new Float32Array(batchSize) : new Int32Array(batchSize);
      return { inputIds: Int32Array.from({ length: tokens }, (_, i) => (first * length + i) % distinctTokens), tokenTypeIds: new Int32Array(tokens), attentionMask, labels, batchSize, length };
    },
  };
}

/** Most bytes alive at once of what is kept: all at the end of forward, or of a layer that is run again and what lies below it. */
function mostAlive(kept: readonly PlannedActivation[], again: readonly PlannedActivation[]): number {
  const sum = (entries: readonly PlannedActivation[], isMeant: (part: string) => boolean) => entries.reduce((s, e) => (isMeant(e.part) ? s + e.bytes : s), 0);
  const parts = [...new Set(kept.map((e) => e.part))];
  const whileRunAgain = parts.filter((p) => p.startsWith('layer')).map((part) => sum(again, (p) => p === part) + sum(kept, (p) => parts.indexOf(p) <= parts.indexOf(part)));
  return Math.max(sum(kept, () => true), ...(again.length > 0 ? whileRunAgain : []));
}

/** Batch at which layers are compared: what they keep grows with it, so which keep most does not change. */
const COMPARED_AT = 8;

/** Layers of a model of which every layer is looked at as the one at which memory peaks. */
const MOST_SEARCHED = 64;

/** Whose moments are on the device. */
function momentsOf({ moments, optimizer: { idleMoments = 'keep', idleAfter = 0 } = {} }: Pick<MemoryQuery, 'moments' | 'optimizer'>): NonNullable<MemoryQuery['moments']> {
  return moments ?? (idleMoments !== 'keep' && idleAfter === 0 ? 'what trains' : 'every parameter');
}

/** Sets of layers that train: the one asked for, or the candidates for the costliest. Moments count where they come and go with the layers; which set is the costliest then depends on the batch. */
function trainingSets(q: Omit<MemoryQuery, 'batchSize'>, { layers, kept, table }: Planned, batchSize: number): readonly ReadonlySet<string>[] {
  const names = layers.map((l) => l.name);
  if (q.frozen) {
    const unknown = q.frozen.find((n) => !names.includes(n));
    if (unknown !== undefined) throw new InvalidArgumentError(`frozen names ${unknown}, which is no freezable layer of this model`);
    return [new Set(names.filter((n) => !q.frozen!.includes(n)))];
  }
  const { freezeRate = 0.9, frozenBiases = q.mode === 'tuned' } = q;
  checkFreezeRate(freezeRate);
  const count = names.length - Math.floor(freezeRate * names.length);
  if (count === names.length) return [new Set(names)];
  const isLayer = new Set(names);
  const comesAndGoes = new Map(momentsOf(q) === 'what trains' ? layers.map((l) => [l.name, momentBytes(l.parameters, q.optimizer?.moments)]) : []);
  const bytesOf = (set: ReadonlySet<string>) => {
    const training: TrainingSet = { trains: (n) => !isLayer.has(n) || set.has(n), frozenBiases };
    const all = kept(batchSize, training);
    const alive = q.gradientCheckpointing ? mostAlive(kept(batchSize, { ...training, gradientCheckpointing: true }), all) : mostAlive(all, []);
    return [...set].reduce((s, n) => s + (comesAndGoes.get(n) ?? 0), alive);
  };
  const grown = (start: readonly string[]): Set<string> => {
    const set = new Set(start.slice(0, count));
    while (set.size < count) {
      let best: { name: string; bytes: number } | undefined;
      for (const name of names) {
        if (set.has(name)) continue;
        set.add(name);
        const bytes = bytesOf(set);
        set.delete(name);
        if (!best || bytes > best.bytes) best = { name, bytes };
      }
      set.add(best!.name);
    }
    return set;
  };
  // The same from a part of the layers, and, when these are taken, from all. What a layer adds seldom grows with the set (it may share what it keeps), so that only the one that seemed best is looked at again.
  const grownWithin = (start: readonly string[], within: readonly string[]): Set<string> => {
    const set = new Set(start.slice(0, count));
    for (const from of [within, names]) {
      let alive = bytesOf(set);
      const adds = (name: string) => {
        const bytes = bytesOf(new Set(set).add(name));
        return { name, gain: bytes - alive, bytes };
      };
      const left = set.size < count ? from.filter((n) => !set.has(n)).map(adds) : [];
      while (set.size < count && left.length > 0) {
        const best = left.reduce((a, b) => (b.gain > a.gain ? b : a));
        const now = adds(best.name);
        const at = left.indexOf(best);
        if (left.some((other) => other !== best && other.gain > now.gain)) {
          left[at] = now;
          continue;
        }
        left.splice(at, 1);
        set.add(best.name);
        alive = now.bytes;
      }
    }
    return set;
  };
  // What a layer's gradient has: of a table, the rows that are looked up.
  const tokens = batchSize * (q.gradientAccumulationSteps ?? 1) * (q.length ?? 0);
  const gradientOf = ({ name, shape, parameters }: FreezableLayer) => (q.sparseEmbeddings && name === table ? Math.min(q.distinctTokens ?? shape[0], tokens) * shape[1] : parameters);
  const bySize = [...layers].sort((a, b) => gradientOf(b) - gradientOf(a)).map((l) => l.name);
  const sets = [grown([]), grown([...new Set([bySize[0], names[0]])])];
  // When backward is at a layer, only what lies below it is still kept: of a small model the peak may be at any of them.
  if (names.length <= MOST_SEARCHED)
    for (const [i, name] of names.entries()) {
      // Of a layer that is run again all is there at once.
      const part = modelPart(name);
      const ends = q.gradientCheckpointing ? [i + 1, names.findLastIndex((n) => modelPart(n) === part) + 1] : [i + 1];
      for (const end of ends) for (const start of frozenBiases && i > 0 ? [[name], [name, names[0]]] : [[name]]) sets.push(grownWithin(start, names.slice(0, end)));
    }
  // Between micro-batches the gradients of all that trains are held; and where few bytes kept depend on what trains, a large weight's gradient may weigh more.
  return (q.gradientAccumulationSteps ?? 1) > 1 || schemeOf(q.mode ?? 'paper').normalizedValues !== undefined ? [...sets, grown(bySize)] : sets;
}

/**
 * One training step without values, as `SlimFitTrainer.step` runs it; of many micro-batches the first two and the last, which have the peak.
 * @param newRows whether the rows that the step looks up have no moments yet, where these are by rows
 */
function dryStep(q: MemoryQuery, planned: Planned, trained: ReadonlySet<string>, newRows = false): MemoryPlan {
  const { batchSize, gradientAccumulationSteps = 1, gradientCheckpointing = false, dropout = true, magnitude = q.mode === 'tuned' ? 'relative-l2' : 'mean-relative', frozenBiases = q.mode === 'tuned' } = q;
  const engine = new ShapeEngine(q.kernels);
  const none = new Float32Array(0);
  const model = planned.make(engine, new Map(planned.specs.map(({ name, shape }) => [name, { shape, data: none }])));
  const optimizer = new AdamW(engine, q.optimizer);
  const isLayer = new Set(planned.layers.map((l) => l.name));
  const sizes = microBatchSizes(batchSize, gradientAccumulationSteps);
  let first = 0;
  const batches = sizes.map((size) => planned.batch(size, (first += size) - size) as never);
  const looksUp = new Map<string, Set<number>>();
  if (q.sparseEmbeddings) for (const batch of batches) for (const [name, ids] of model.lookups(batch)) for (const id of ids) looksUp.set(name, (looksUp.get(name) ?? new Set()).add(id));
  for (const p of model.parameters.values()) {
    const decides = frozenBiases ? weightOfBias(p.name) : p.name;
    p.trains = !isLayer.has(decides) || trained.has(decides);
    // An update of zero makes the moments.
    if (p.trains || momentsOf(q) === 'every parameter') engine.scope(() => makeMoments(optimizer, p, looksUp.get(p.name), newRows));
  }
  engine.resetPeak();
  const unmark = q.sparseEmbeddings ? markTouchedRows(model, batches) : () => {};
  const scheme = schemeOf(q.mode ?? 'paper');
  const sums = new GradientSums(engine);
  const apply: GradientSink = (parameter, grad) => {
    const value = optimizer.apply(parameter, grad, 1, isLayer.has(parameter.name) ? magnitude : undefined);
    if (value) engine.share(value, 'gradients');
  };
  let activationBytes = 0;
  const course: CoursePoint[] = [];
  for (const i of new Set([0, Math.min(1, sizes.length - 1), sizes.length - 1])) {
    const options = { blockBytes: blockBytesOf(q.blockBytes, q.mode), gradientCheckpointing, lossWeight: sizes[i] / batchSize };
    const ctx = dropout ? ForwardContext.training(engine, scheme, 0, 0, options) : ForwardContext.deterministic(engine, scheme, options);
    const out = model.forwardWithLoss(ctx, batches[i]);
    engine.free(out.logits.tensor);
    activationBytes = Math.max(activationBytes, ctx.tape.ledger.totalBytes);
    engine.free(out.loss.tensor);
    ctx.tape.backward(out.loss, i === sizes.length - 1 ? sums.last(apply) : sums.add);
    course.push(...ctx.tape.course);
  }
  unmark();
  const { live: { weights: weightBytes, optimizer: momentBytes }, peak, totalPeak } = engine.memory();
  const activations = planned.kept(sizes[0], { trains: (n) => !isLayer.has(n) || trained.has(n), frozenBiases, gradientCheckpointing });
  return {
    batchSize,
    trains: planned.layers.map((l) => l.name).filter((n) => trained.has(n)),
    layers: planned.layers.length,
    weightBytes,
    momentBytes,
    gradientBytes: peak.gradients,
    activationBytes,
    activations,
    temporaryBytes: totalPeak - weightBytes - momentBytes - activationBytes,
    peakBytes: totalPeak,
    course,
  };
}

/**
 * Makes the moments of a parameter, as they are before a step.
 * @param lookedUp rows of a table that the step looks up, if that is updated by rows
 * @param newRows whether these have none yet
 */
function makeMoments(optimizer: AdamW, parameter: Parameter, lookedUp: ReadonlySet<number> | undefined, newRows: boolean): void {
  const { engine } = optimizer;
  if (!lookedUp) return void optimizer.apply(parameter, engine.full(parameter.shape, 0), 1);
  const [rows, width] = parameter.shape;
  const others = Int32Array.from(Array.from({ length: rows }, (_, row) => row).filter((row) => !newRows || !lookedUp.has(row)));
  if (others.length === 0) return;
  parameter.touched = new TouchedRows(engine, [others]);
  optimizer.apply(parameter, engine.full([others.length, width], 0), 1);
  parameter.touched.dispose();
  parameter.touched = undefined;
}

/** With what a choice of layers that was not looked at may take more (`MemoryQuery.freezeRate`). */
function withAllowance(plan: MemoryPlan, { gradientCheckpointing }: Omit<MemoryQuery, 'batchSize'>): MemoryPlan {
  const share = gradientCheckpointing ? 0.01 : plan.layers <= MOST_SEARCHED ? 0.001 : 0;
  const more = Math.ceil(share * plan.peakBytes);
  return { ...plan, temporaryBytes: plan.temporaryBytes + more, peakBytes: plan.peakBytes + more };
}

/** Plans steps of one model for batches of any size. */
export function plannerOf(q: Omit<MemoryQuery, 'batchSize'>): (batchSize: number) => MemoryPlan {
  const planned = plannedOf(q);
  const sets = new Map<number, readonly ReadonlySet<string>[]>();
  // Moments by rows: either every row has some, or the step brings the last ones, for which their tensors are made anew.
  const rowsBefore = q.sparseEmbeddings ? [false, true] : [false];
  const setsFor = (batchSize: number) => {
    // The nearest power of two will do, and spares a search its time.
    const at = momentsOf(q) === 'what trains' ? 2 ** Math.round(Math.log2(batchSize)) : COMPARED_AT;
    if (!sets.has(at)) sets.set(at, trainingSets(q, planned, at));
    return sets.get(at)!;
  };
  return (batchSize) => {
    if (!(Number.isInteger(batchSize) && batchSize >= 1)) throw new InvalidArgumentError(`batchSize is ${batchSize}; it must be a whole number of at least 1`);
    const { gradientAccumulationSteps = 1 } = q;
    checkAccumulation(gradientAccumulationSteps, batchSize);
    const plans = setsFor(microBatchSizes(batchSize, gradientAccumulationSteps)[0]).flatMap((set) => rowsBefore.map((newRows) => dryStep({ ...q, batchSize }, planned, set, newRows)));
    const costliest = plans.reduce((a, b) => (b.peakBytes > a.peakBytes ? b : a));
    return showing(costliest.trains.length === costliest.layers || q.frozen ? costliest : withAllowance(costliest, q), planBundle);
  };
}

/**
 * The memory of a training step: weights, moments, gradients, what is kept for backward by layer, role and encoding, and the peak.
 * @throws InvalidArgumentError naming the field, SequenceTooLongError
 */
export function planMemory(query: MemoryQuery): MemoryPlan {
  return plannerOf(query)(query.batchSize);
}
