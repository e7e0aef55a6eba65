/**
 * The trainer: fine-tunes a model one step at a time, freezing what its policy says, and writes down what each step did.
 *
 * One step (ARCHITECTURE: "One training step"): the policy selects; forward keeps only what backward will need; the loss is looked at (a loss that is not
 * finite stops here, nothing was changed); backward applies each weight gradient the moment it is complete and frees it; the policy learns the update
 * magnitudes of the layers that trained, and what else it asked for; the history gets a record. With gradient accumulation forward and backward run for each
 * micro-batch, and only the backward of the last one applies, the sums of all.
 */
import type { ColumnTable } from 'arquero';
import { type DeviceTensor, type Engine, UPDATE_MAGNITUDES, type UpdateMagnitude } from '../engine/engine';
import { DeviceLostError, GradientNotFiniteError, InterruptedError, InvalidArgumentError, LossNotFiniteError, OutOfMemoryError, StepPartlyAppliedError } from '../errors';
import { InterLayerScheduling } from '../freezing/ils';
import type { FreezableLayer } from '../freezing/layer';
import { MemoryBudget } from '../freezing/memoryBudget';
import { NoFreezing } from '../freezing/none';
import type { FreezePolicy, KeptBytes, PolicyFactory, StepObservation } from '../freezing/policy';
import { checkAccumulation, microBatches, microBatchSizes } from '../models/microBatches';
import type { SavesItself } from '../models/pretrained';
import { markTouchedRows } from '../models/sparseEmbeddings';
import { type ActivationPlan, type BatchShape, type BatchSource, type LabelledBatch, type Model, type Predictions, type TextBatch, weightOfBias } from '../models/model';
import { blockBytesOf, checkBlockBytes } from '../nn/blocks';
import { ForwardContext, type ForwardOptions } from '../nn/context';
import { AdamW, type AdamWSettings } from '../optim/adamw';
import { constantSchedule, linearSchedule, type PaperSchedule, paperSchedule, type Schedule } from '../optim/schedules';
import { Random } from '../random';
import { GradientSums } from '../tape/gradientSums';
import { type ActivationMode, type ActivationScheme, schemeOf } from '../tape/scheme';
import type { CoursePoint, LedgerEntry } from '../tape/roles';
import type { GradientSink, Variable } from '../tape/tape';
import { formatBytes } from '../units';
import type { ActivationPrediction } from '../memory/activationBytes';
import type { EncodingError } from '../tape/encodingError';
import { previewBundle, recordBundle, showing } from '../inspect/cards';
import { shortLayerName } from '../inspect/layerNames';
import { type LiveRun, LiveView } from '../inspect/live';
import { layersTable } from '../inspect/tables';
import { restoreCheckpoint, type TrainingRun } from './checkpoint';
import { CheckpointKeeper, type CheckpointOptions, findCheckpoint } from './checkpoints';
import { GradientGuard } from './gradientGuard';
import { GradientComparison, gradientErrors, singleEncodings } from './gradients';
import { History } from './history';
import { LossScale, type LossScaling, unscaled } from './lossScale';
import { kernelCheckpoint } from './interrupt';
import { dataSettings, modelSettings, type RunSettings, trainerSettings } from './runSettings';
import { restoreSnapshot, takeSnapshot, type Trained, type TrainingSnapshot } from './snapshot';
import type { StepRecord } from './stepRecord';

/** Result of an evaluation. */
export interface Evaluation {
  readonly loss: number;
  readonly examples: number;
  /** By name, such as accuracy. */
  readonly metrics: Readonly<Record<string, number>>;
}

/** Options of a run. */
export interface TrainerOptions<Batch extends LabelledBatch = TextBatch> {
  readonly model: Model<Batch>;
  readonly train: BatchSource<Batch>;
  /** What `evaluate()` looks at when it is given nothing. */
  readonly evaluation?: BatchSource<Batch>;
  /** Turns predictions into numbers, such as the task's official metric. */
  readonly metrics?: (predictions: Predictions) => Readonly<Record<string, number>>;
  /** Examples per step. Default 32. */
  readonly batchSize?: number;
  /**
   * Micro-batches in which a step's batch is run, one after the other, so that the activations of one only are alive at a time; their gradients are summed, weighted so that the result is that of the batch
   * in one piece (the mean over all its examples, or over all labels that count) up to float32 rounding (a pruned LayerNorm keeps the largest tenth of each part), and applied once. `batchSize` counts all examples of a step (in Hugging Face's trainer, those
   * of one micro-batch): the parts are of equal size, or the first ones larger by one; a short last batch of an epoch has at most as many parts as examples. Costs the gradients of what trains, 4 bytes a weight, kept between the parts, and the time of smaller
   * products; each part draws dropout of its own. Default 1.
   */
  readonly gradientAccumulationSteps?: number;
  /**
   * Whether of an encoder layer only its input is kept, 4NH bytes, and its forward run again in backward, with the same draws of dropout: the activations of one layer only are alive at a time. Gradients are
   * the same to the bit. Costs one more forward of the layers that a gradient flows through, about a third of a step in which all train. Default false.
   */
  readonly gradientCheckpointing?: boolean;
  /**
   * Whether the word embeddings' gradient is of the rows alone that a step's tokens look up, and their update and moments too, as with PyTorch's `nn.Embedding(sparse=True)` and SparseAdam: of BERT-base's 30,522 rows those
   * that a batch has (of 32 of GLUE's texts 180 to 910) in place of all, which is 89 MiB of gradient, and twice that of moments while they are float32. **Changes training**: the other rows stand still where momentum and weight decay would go on moving
   * them. Without effect on models that have no such table. Default false.
   */
  readonly sparseEmbeddings?: boolean;
  /** Passes over the data, which set the length of the schedule. Default 3. */
  readonly epochs?: number;
  /** Length of the schedule in steps, instead of `epochs`. */
  readonly totalSteps?: number;
  /** Peak learning rate. Default 5e-5. */
  readonly learningRate?: number;
  /** `linear` (with `warmupSteps`), `constant`, one of the authors' forms, or a function of the step. Default `linear`. */
  readonly schedule?: 'linear' | 'constant' | PaperSchedule | Schedule;
  /** Steps of linear warm-up, for `linear`. Default 0. */
  readonly warmupSteps?: number;
  /** Share of the layers frozen in a step, in [0, 1). 0 is full fine-tuning. Default 0.9. */
  readonly freezeRate?: number;
  /** Another policy than inter-layer scheduling: `(layers) => new RandomLayers(layers, { activatedLayers: 2 })`; told, too, how long the run is. */
  readonly policy?: PolicyFactory;
  /** Range of the initial distances: uniform in [0, this). Default 1e10 (the paper's for BERT). */
  readonly initialMagnitudeScale?: number;
  /** Weights that are no freezable layers but always train, by name (the paper's STS-B and CIFAR classifiers). */
  readonly alwaysTrain?: readonly string[];
  /**
   * How activations are kept: `paper` (quantized and pruned), `exact` (float32), `tuned`, or a scheme of one's own such as `{ ...SCHEMES.paper, name: '…', attentionProbs: 'recompute' }`.
   * Default `paper`.
   */
  readonly mode?: ActivationMode | ActivationScheme;
  /**
   * Whether a bias trains only in the steps in which its layer's weight does; a bias without a freezable weight always trains. Backward then stops below the lowest layer that trains, and nothing is kept
   * there: saves up to all activations, and the time of backward, in steps in which the lower layers are frozen. Costs that frozen layers' biases stand still (paper: every bias trains in every step).
   * A policy with `freezesBiases` does this whatever is said here. Default: what the policy says, if it says anything; else true in mode 'tuned', false in others.
   */
  readonly frozenBiases?: boolean;
  /**
   * How far a layer moved, which is what inter-layer scheduling goes by. `mean-relative` is the paper's mean |ΔW/W|: near-zero weights decide it, and one of exactly 0 makes its layer train for ever.
   * `relative-l2` is ‖ΔW‖/‖W‖: always finite, the same for a layer of any scale. `loss-change` is |Σ g·ΔW|, what the step does to the loss to first order. Neither costs anything. Default: `relative-l2` in mode 'tuned', else `mean-relative`.
   */
  readonly magnitude?: UpdateMagnitude;
  /**
   * Most bytes that one temporary of attention (scores, probabilities, their gradients: 4·B·A·T² each) or of the MLP (4·N·F each) may have; larger ones are computed block by block, forward and backward.
   * What is kept for backward stays the same, and so do all numbers up to rounding. Default: 64 MiB in mode 'tuned', else Infinity: whole tensors.
   */
  readonly blockBytes?: number;
  /** Numbers of AdamW, the form of its moments (`moments: '8-bit'`), and what happens to those of frozen layers (`idleMoments`). */
  readonly optimizer?: AdamWSettings;
  /**
   * What happens to a frozen parameter: `skip` leaves it alone; `zerograd` is what the published code does under PyTorch 1.x (a zero gradient once it has trained). Default `skip`.
   */
  readonly frozenParameters?: 'skip' | 'zerograd';
  /**
   * What happens in a step whose loss or gradient is not finite. Not given: the loss alone is looked at, and stops the step before anything changed; a gradient that overflows in backward spoils its layer. `stop`: a gradient
   * stops the step, too, before anything changed. `skip`: such a step changes nothing, its record names what was not finite, and training goes on with the next batch; the tenth in a row stops. `lower-rate`:
   * skipped likewise, and from the next step on the learning rate is half of what it would have been. All three hold the gradients until backward is through: 4 bytes for each weight that trains, which the planner does not count, and two passes over it.
   */
  readonly onNonFinite?: 'stop' | 'skip' | 'lower-rate';
  /**
   * What the loss's gradient is multiplied by before backward, and every weight gradient divided by before anything sees it, so that small gradients are not 0 in an engine of mixed precision (lossScale.ts): a power of two, or
   * `dynamic`: from 65,536 on, halved in a step whose gradients are not finite, which is skipped and noted (whatever `onNonFinite` says, which holds once the scale is 1), doubled after 2,000 steps that are. `dynamic` holds the
   * gradients until backward is through, as `onNonFinite` does; a number does not. Default: `dynamic` where `engine.precision` is 'mixed', else 1: none.
   */
  readonly lossScale?: LossScaling;
  /** Whether dropout acts. Default true. */
  readonly dropout?: boolean;
  /** Seeds shuffling, dropout and the initial distances. Default 43 (the paper's for most tasks). */
  readonly seed?: number;
  /** Whether examples are shuffled in every epoch. Default true. */
  readonly shuffle?: boolean;
  /** Name of the run in tables and figures that compare runs. Default: what its policy is called, with inter-layer scheduling its freeze rate. */
  readonly name?: string;
  /**
   * In every so many steps, the first among them, what the encodings do to the activations is measured by a forward pass of its own: clipped and lost values, relative error; with gradient accumulation,
   * on the first micro-batch. 0: never.
   * Default 100.
   */
  readonly measureEncodingsEvery?: number;
  /** Checkpoints that are written while training goes on: `{ dir: 'run', saveSteps: 100, saveTotalLimit: 2 }`. `SlimFitTrainer.resume` goes on from them. Default: only what `save()` is asked for. */
  readonly checkpoints?: CheckpointOptions;
  /** Tokenizer, or whatever else writes its files beside the model's, put into every checkpoint. */
  readonly processingClass?: SavesItself;
  /** Stops training at the next step boundary, and as it stays aborted, for good. One for a single loop: `steps(100, { signal })`. */
  readonly signal?: AbortSignal;
  /** Told about things that work but are probably not meant. Default: console.warn. */
  readonly onWarning?: (text: string) => void;
}

/** What holds for one call of `step()`, `steps()` or `evaluate()`. */
export interface StepOptions {
  /** Stops before the next step; the trainer goes on with a call that has another signal, or none. */
  readonly signal?: AbortSignal;
}

/** What the next step will do. */
export interface StepPreview {
  readonly step: number;
  readonly epoch: number;
  readonly learningRate: number;
  readonly frozen: readonly FreezableLayer[];
  readonly active: readonly FreezableLayer[];
  /** Share of the layers' weights that trains. */
  readonly trainedShare: number;
  /** Bytes that the step will keep between forward and backward, from the shapes of its batch (of its largest micro-batch); undefined where the model has no formula. */
  readonly activationBytes: number | undefined;
  /** The same for plain fine-tuning on this batch: everything trains, everything in float32. */
  readonly fullActivationBytes: number | undefined;
}

/** Settings of a run that change what a step keeps. */
interface MemoryChanges {
  readonly batchSize?: number;
  readonly mode?: ActivationMode | ActivationScheme;
  readonly gradientCheckpointing?: boolean;
  readonly gradientAccumulationSteps?: number;
}

/** A number of one layer, on the device. */
interface LayerScalar {
  readonly layer: number;
  readonly value: DeviceTensor;
}

/** Fine-tunes a model with SlimFit. Owns the optimizer's moments: `dispose` frees them; the model stays its maker's. */
export class SlimFitTrainer<Batch extends LabelledBatch = TextBatch> {
  readonly model: Model<Batch>;
  readonly engine: Engine;
  /** The layers that the policy may freeze, in model order. */
  readonly freezableLayers: readonly FreezableLayer[];
  readonly history: History;
  readonly policy: FreezePolicy;
  readonly batchSize: number;
  readonly stepsPerEpoch: number;
  /** Length of the schedule. */
  readonly totalSteps: number;
  readonly seed: number;

  private readonly options: TrainerOptions<Batch>;
  private readonly scheme: ActivationScheme;
  private readonly frozenBiases: boolean;
  private readonly accumulationSteps: number;
  private readonly magnitude: UpdateMagnitude;
  private readonly blockBytes: number;
  private readonly schedule: Schedule;
  private readonly optimizer: AdamW;
  private readonly layerOf: ReadonlyMap<string, number>;
  private readonly warned = new Set<string>();
  /** Layers that the user froze (true) or thawed (false), over the policy's head. */
  private overruled = new Map<number, boolean>();
  private readonly taken = new Map<number, TrainingSnapshot>();
  private readonly keeper: CheckpointKeeper;
  private settings: RunSettings | undefined;
  /** The loop over steps that goes on, or went on last, and the displays that show it or the next one. */
  private run: LiveRun | undefined;
  private views: LiveView[] = [];
  /** Order of the examples by epoch, of the last two that were asked for. */
  private readonly orders = new Map<number, Int32Array>();
  private next = 0;
  private skippedInARow = 0;
  /** What the schedule's rate is multiplied by: halved by each step that `onNonFinite: 'lower-rate'` skips. */
  private rateFactor = 1;
  private isWarm = false;
  private readonly lossScale: LossScale;
  private busy = false;
  /** Why this trainer is between two steps; undefined while it is not. */
  private torn: StepPartlyAppliedError | undefined;

  /** @throws InvalidArgumentError for a freeze rate outside [0, 1), a batch of 0, more micro-batches than examples of a step, no examples, an unknown name to train always. */
  constructor(options: TrainerOptions<Batch>) {
    const { model, train, epochs = 3, batchSize = 32, freezeRate = 0.9, seed = 43, alwaysTrain = [], measureEncodingsEvery = 100 } = options;
    if (!(Number.isInteger(batchSize) && batchSize >= 1)) throw new InvalidArgumentError(`batchSize is ${batchSize}; it must be a whole number of at least 1`);
    checkAccumulation(options.gradientAccumulationSteps ?? 1, batchSize);
    if (!(train.size >= 1)) throw new InvalidArgumentError('no training examples');
    if (!(Number.isInteger(measureEncodingsEvery) && measureEncodingsEvery >= 0))
      throw new InvalidArgumentError(`measureEncodingsEvery is ${measureEncodingsEvery}; it must be a whole number of steps, or 0 for never`);
    if (!(epochs > 0)) throw new InvalidArgumentError(`epochs is ${epochs}; it must be positive`);
    const scheme = schemeOf(options.mode ?? 'paper');
    if (options.blockBytes !== undefined) checkBlockBytes(options.blockBytes);
    if (options.magnitude !== undefined && !UPDATE_MAGNITUDES.includes(options.magnitude)) throw new InvalidArgumentError(`magnitude is '${options.magnitude}'; it must be one of ${UPDATE_MAGNITUDES.join(', ')}`);
    const unknown = alwaysTrain.find((n) => !model.layers.some((l) => l.name === n));
    if (unknown) throw new InvalidArgumentError(`alwaysTrain names ${unknown}, which is no layer of this model`);
    if (options.onNonFinite !== undefined && !['stop', 'skip', 'lower-rate'].includes(options.onNonFinite)) throw new InvalidArgumentError(`onNonFinite is '${options.onNonFinite}'; it must be stop, skip or lower-rate`);
    this.keeper = new CheckpointKeeper(options.checkpoints, options.evaluation !== undefined && options.evaluation.size > 0);
    this.options = options;
    this.model = model;
    this.engine = model.engine;
    this.batchSize = batchSize;
    this.seed = seed;
    this.accumulationSteps = options.gradientAccumulationSteps ?? 1;
    this.stepsPerEpoch = Math.ceil(train.size / batchSize);
    this.totalSteps = options.totalSteps ?? Math.ceil(this.stepsPerEpoch * epochs);
    this.schedule = scheduleOf(options, this.totalSteps);
    this.scheme = scheme;
    this.blockBytes = blockBytesOf(options.blockBytes, options.mode);
    this.magnitude = options.magnitude ?? (options.mode === 'tuned' ? 'relative-l2' : 'mean-relative');
    this.freezableLayers = model.layers.filter((l) => !alwaysTrain.includes(l.name)).map((l, index) => ({ ...l, index }));
    this.layerOf = new Map(this.freezableLayers.map((l) => [l.name, l.index]));
    this.policy = options.policy
      ? options.policy(this.freezableLayers, { totalSteps: this.totalSteps, stepsPerEpoch: this.stepsPerEpoch, seed, initialScale: options.initialMagnitudeScale })
      : freezeRate === 0
        ? new NoFreezing(this.freezableLayers)
        : new InterLayerScheduling(this.freezableLayers, { freezeRate, seed, initialScale: options.initialMagnitudeScale });
    // Either one's word suffices; what a policy says comes before what a mode brings along.
    this.frozenBiases = this.policy.freezesBiases === true || (options.frozenBiases ?? (this.policy.freezesBiases === undefined && options.mode === 'tuned'));
    if (this.frozenBiases && this.policy.freezesBiases === false)
      this.warn(`frozenBiases freezes the biases of frozen layers, which the policy ${this.policy.name} is meant to train`);
    this.lossScale = new LossScale(options.lossScale ?? (this.engine.precision === 'mixed' ? 'dynamic' : 1));
    this.optimizer = new AdamW(this.engine, options.optimizer);
    const { idleMoments } = this.optimizer.settings;
    if (options.frozenParameters === 'zerograd' && idleMoments !== 'keep')
      throw new InvalidArgumentError(`idleMoments is '${idleMoments}', but frozenParameters 'zerograd' updates frozen parameters in every step, so that no moments are idle: use 'keep', or frozenParameters 'skip'`);
    if (options.frozenParameters === 'zerograd' && options.sparseEmbeddings)
      throw new InvalidArgumentError("sparseEmbeddings updates the rows that a step looks up alone, but frozenParameters 'zerograd' updates whole tables: use frozenParameters 'skip'");
    this.history = new History(this.freezableLayers, options.name ?? this.policy.label ?? this.policy.name);
    if ((this.policy instanceof InterLayerScheduling || this.policy instanceof MemoryBudget) && this.schedule(0) === 0)
      this.warn('the learning rate of step 0 is 0: the layers that train in it get update magnitude 0 and stay frozen for the whole run (the published code does the same on CoLA and SQuAD)');
  }

  /** Number of the step that `step()` will run. */
  get nextStep(): number {
    return this.next;
  }

  /**
   * Freezes layers whatever the policy says, until `thaw` or `follow`.
   * @param names full names (`bert.pooler.dense.weight`), short ones (`L3 query`), or modules that contain layers (`bert.encoder.layer.3`)
   * @throws InvalidArgumentError for a name that is no layer's; nothing changes then
   */
  freeze(...names: readonly string[]): void {
    this.setOverruled(names, true);
  }

  /** Trains layers whatever the policy says, until `freeze` or `follow`. Names as for `freeze`. */
  thaw(...names: readonly string[]): void {
    this.setOverruled(names, false);
  }

  /** Lets the policy decide again: about the layers named as for `freeze`, or about all. */
  follow(...names: readonly string[]): void {
    const indices = names.length > 0 ? this.indicesOf(names) : [...this.overruled.keys()];
    for (const i of indices) this.overruled.delete(i);
  }

  /**
   * Remembers the state before the next step, on the host: weights, moments, policy. Costs the bytes of the weights and of the moments (three times those of the weights, with float32 moments).
   * @returns the number of that step, for `rewind`
   * @throws StepPartlyAppliedError after a step that failed in the middle of its updates
   */
  async snapshot(): Promise<number> {
    return this.alone(async () => {
      this.checkWhole();
      const { next: step, overruled, rateFactor } = this;
      this.taken.set(step, await takeSnapshot(this.trained, { step, recorded: this.history.length, overruled, rateFactor, lossScale: this.lossScale.state }));
      return step;
    });
  }

  /** Steps that `rewind` can go back to. */
  get snapshots(): readonly number[] {
    return [...this.taken.keys()].sort((a, b) => a - b);
  }

  /** Frees the host's memory of the snapshots before these steps, or of all. A step without one is no error. */
  forgetSnapshots(...steps: readonly number[]): void {
    for (const step of steps.length > 0 ? steps : this.snapshots) this.taken.delete(step);
  }

  /**
   * Goes back to the state before a step, exactly, also after one that failed halfway: the steps that follow repeat to the bit, unless something is changed. The history forgets what came after, and so do the snapshots.
   * @throws InvalidArgumentError when no snapshot was taken before that step
   */
  rewind(step: number): void {
    if (this.busy) throw new InvalidArgumentError('a step of this trainer is still running: await it before rewinding');
    const snapshot = this.taken.get(step);
    if (!snapshot)
      throw new InvalidArgumentError(`no snapshot was taken before step ${step}: ${this.taken.size > 0 ? `there is one of step ${this.snapshots.join(', ')}` : 'call `await trainer.snapshot()` first'}`);
    restoreSnapshot(this.trained, snapshot);
    this.overruled = new Map(snapshot.overruled);
    this.rateFactor = snapshot.rateFactor;
    this.lossScale.restore(snapshot.lossScale);
    this.history.truncate(snapshot.recorded, step);
    for (const later of this.snapshots.filter((s) => s > step)) this.taken.delete(later);
    this.next = step;
    this.torn = undefined;
  }

  /**
   * Writes a checkpoint of the state before the next step: the folder `checkpoint-<step>`, which `SlimFitTrainer.resume` goes on from, to the bit, and Hugging Face's `from_pretrained` loads as a model. It appears whole or
   * not at all; one parameter at a time is on the host.
   * @param dir where that folder is made. Default: that of the option `checkpoints`
   * @returns the folder
   * @throws CheckpointWriteError when the disk is full or refuses, InvalidArgumentError for a folder in which this step is another run's, StepPartlyAppliedError after a step that failed in the middle of its updates; older checkpoints and the training are as they were then
   */
  async save(dir = this.options.checkpoints?.dir): Promise<string> {
    if (dir === undefined) throw new InvalidArgumentError("save() needs a folder: trainer.save('run'), or the option checkpoints: { dir: 'run' }");
    return this.alone(async () => {
      this.checkWhole();
      return this.keeper.save(dir, await this.resumable());
    });
  }

  /**
   * A trainer that goes on from the last whole checkpoint in a folder, with the options that the first one had: what it does from there is, to the bit, what the run would have done that was never stopped (on the same
   * engine). Damaged checkpoints are named to `onWarning` and passed over.
   * @param dir where the `checkpoint-<step>` folders are, or one of these
   * @param options as for the constructor; `model` needs the same architecture, its weights are overwritten
   * @throws FileMissingError when there is no checkpoint, CheckpointError when none is whole, ResumeMismatchError (naming the field) when options, model or data are others; the model is as it was then
   */
  static async resume<Batch extends LabelledBatch = TextBatch>(dir: string, options: TrainerOptions<Batch>): Promise<SlimFitTrainer<Batch>> {
    const trainer = new SlimFitTrainer<Batch>(options);
    try {
      const found = await findCheckpoint(dir, (text) => trainer.warn(text));
      const resumed = restoreCheckpoint(found.checkpoint.folder, await trainer.resumable());
      trainer.next = resumed.step;
      trainer.overruled = resumed.overruled;
      trainer.rateFactor = resumed.rateFactor;
      trainer.lossScale.restore(resumed.lossScale);
      trainer.keeper.resume(resumed, found);
      const engine = `${trainer.engine.name}, ${trainer.engine.device}`;
      if (resumed.engine !== engine) trainer.warn(`${found.checkpoint.folder} was computed by ${resumed.engine}, this is ${engine}: the run goes on, but its numbers will differ in the last bits`);
      return trainer;
    } catch (error) {
      trainer.dispose();
      throw error;
    }
  }

  /** What the next step will freeze and keep, without running it. */
  peek(): StepPreview {
    const shape = this.shapeOf(this.next);
    const frozen = new Set(this.decide(this.next, shape));
    const of = (want: boolean) => this.freezableLayers.filter((l) => frozen.has(l.index) === want);
    const weights = (layers: readonly FreezableLayer[]) => layers.reduce((n, l) => n + l.parameters, 0);
    const active = of(false);
    const preview: StepPreview = {
      step: this.next,
      epoch: this.epochOf(this.next),
      learningRate: this.rateOf(this.next),
      frozen: of(true),
      active,
      trainedShare: weights(active) / weights(this.freezableLayers),
      activationBytes: shape && this.predict(shape, frozen)?.total,
      fullActivationBytes: shape && this.predictFull(shape)?.total,
    };
    return showing(preview, previewBundle);
  }

  /**
   * Runs one training step, and writes a checkpoint where the option `checkpoints` says so.
   * @throws CheckpointWriteError when that cannot be written: the step was done, and the next one can be; LossNotFiniteError, GradientNotFiniteError (the step was not applied), InterruptedError (before the step), OutOfMemoryError and
   *   whatever else fails before the first update, such as what the model says of a bad batch: weights, moments and policy are then as they were, and `step()` can be called again. StepPartlyAppliedError for what fails
   *   between the first update and the last: then `rewind`, or `SlimFitTrainer.resume`. DeviceLostError when the device is gone, with the checkpoint to go on from on a new engine.
   */
  async step({ signal }: StepOptions = {}): Promise<StepRecord> {
    const record = await this.alone(async () => {
      this.checkWhole();
      await this.checkpoint(signal);
      return await this.runStep();
    });
    if (this.keeper.due(this.next, this.totalSteps)) {
      if (this.keeper.wantsEvaluation(this.history, this.next)) await this.evaluate(undefined, { signal });
      await this.save();
    }
    return record;
  }

  /** Runs steps one by one: `for await (const record of trainer.steps(100))`. Without a number, the rest of the schedule. */
  async *steps(count = Math.max(0, this.totalSteps - this.next), options: StepOptions = {}): AsyncGenerator<StepRecord, void, undefined> {
    if (!(Number.isInteger(count) && count >= 0)) throw new InvalidArgumentError(`steps(${count}): it must be a whole number, 0 or more`);
    const run: LiveRun = { first: this.history.length, total: count, began: performance.now(), state: 'running', ended: undefined };
    this.run = run;
    for (const view of this.views) view.follow(run);
    let state: LiveRun['state'] = 'stopped';
    try {
      for (let i = 0; i < count; i++) {
        const record = await this.step(options);
        for (const view of this.views) view.update();
        yield record;
      }
      state = 'done';
    } catch (error) {
      // The kernel stops a cell with an error of its own, which like ours says so by its name.
      state = /interrupt/i.test((error as Error)?.name ?? '') ? 'interrupted' : 'failed';
      throw error;
    } finally {
      run.state = state;
      run.ended = performance.now();
      for (const view of this.views.splice(0)) view.end();
    }
  }

  /**
   * Shows the loop over `steps()` that is running, or else the next one, below the cell that calls it or runs that loop: progress, rate, time left, loss, freeze map, memory; it ends as
   * interactive figures. After a page reload, call it again. Without a notebook, a text bar.
   * @param options `memory`: the device's bytes by category too, in the last step and over the steps (default false)
   */
  live({ memory = false }: { readonly memory?: boolean } = {}): void {
    const view = new LiveView({ history: this.history, fullActivationBytes: this.peek().fullActivationBytes, memory });
    const { run } = this;
    if (run?.state === 'running') {
      this.views.push(view);
      view.follow(run);
      return;
    }
    this.views = [view];
    // A loop mostly follows in the same cell; only if none does, the last one is shown once more.
    if (run) setTimeout(() => this.run === run && this.views.includes(view) && view.follow(run), 300).unref();
  }

  /**
   * Loss and metrics over a data set: no dropout, nothing quantized, nothing kept. The history notes them at the current step.
   * @param options `ignoreSignal`: also after the trainer's signal has stopped training; `signal`: stops this evaluation
   * @throws InterruptedError; nothing is noted then
   */
  async evaluate(data: BatchSource<Batch> | undefined = this.options.evaluation, { ignoreSignal = false, signal }: StepOptions & { readonly ignoreSignal?: boolean } = {}): Promise<Evaluation> {
    if (!data || data.size === 0) throw new InvalidArgumentError('nothing to evaluate: give evaluate() a data set, or the trainer an `evaluation`');
    const evaluation = await evaluate(this.model, data, this.batchSize, this.options.metrics, () => this.checkpoint(signal, ignoreSignal), this.blockBytes);
    this.history.addEvaluation(this.next, { loss: evaluation.loss, ...evaluation.metrics });
    return evaluation;
  }

  /**
   * How far the next step's gradient is from the exact one: two backward passes on its batch, with the same layers training and the same dropout, under the run's encodings and with
   * float32 activations. Changes nothing.
   * @param options `encodings`: `together` as they act in training (default), or `each` by itself too; `trains`: the layers that the next step trains (default), or `all`
   */
  async compareGradients({ encodings = 'together', trains = 'next step' }: { readonly encodings?: 'together' | 'each'; readonly trains?: 'next step' | 'all' } = {}): Promise<GradientComparison> {
    return this.alone(async () => {
      const step = this.next;
      const batch = await this.options.train.batch(this.examplesOf(step), this.epochOf(step));
      this.markTraining(trains === 'all' ? [] : this.decide(step, batch as BatchShape<Batch>));
      const schemes = { 'all encodings': this.scheme, ...(encodings === 'each' ? singleEncodings(this.scheme) : {}) };
      return new GradientComparison(step, await gradientErrors(this.model, batch, (scheme, part, lossWeight) => this.context(step, part, scheme, { lossWeight }), schemes, this.accumulationSteps, this.lossScale.scale));
    });
  }

  /** The present state of every freezable layer, one row each. */
  layers(): ColumnTable {
    return layersTable(this.freezableLayers, this.history, this.policy.magnitudes, this.decide(this.next, this.shapeOf(this.next)));
  }

  /** How often the optimizer updated a parameter, since its moments were last released. */
  stepCount(parameterName: string): number {
    const p = this.model.parameters.get(parameterName);
    if (!p) throw new InvalidArgumentError(`this model has no parameter ${parameterName}`);
    return this.optimizer.stepCount(p);
  }

  /** Frees the optimizer's moments. */
  dispose(): void {
    this.optimizer.dispose();
  }

  /** Runs what must not overlap with a step. */
  private async alone<R>(work: () => Promise<R>): Promise<R> {
    if (this.busy) throw new InvalidArgumentError('a step of this trainer is still running: await it before the next');
    this.busy = true;
    try {
      return await work();
    } finally {
      this.busy = false;
    }
  }

  /** @throws StepPartlyAppliedError when the last step failed halfway */
  private checkWhole(): void {
    if (this.torn) throw this.torn;
  }

  /** What a step that did not fit keeps for backward, and what would make that less. */
  private memoryAdvice(shape: BatchShape<Batch>, frozen: ReadonlySet<number>): string {
    const now = this.predict(shape, frozen)?.total;
    if (!now) return '';
    const { batchSize } = shape as unknown as { readonly batchSize: number };
    const parts = 2 * this.accumulationSteps;
    const changes: readonly MemoryChanges[] = [{ batchSize: Math.ceil(batchSize / 2) }, { mode: 'tuned' }, { gradientCheckpointing: true }, ...(parts <= batchSize ? [{ gradientAccumulationSteps: parts }] : [])];
    const less = changes.flatMap((change) => {
      if (this.accumulationSteps > (change.batchSize ?? batchSize)) return [];
      const bytes = this.predict(shape, frozen, change)!.total;
      const [[option, value]] = Object.entries(change) as [string, unknown][];
      return bytes < now ? [`${formatBytes(bytes)} with ${option}: ${typeof value === 'string' ? `'${value}'` : String(value)}`] : [];
    });
    return `. Of its ${batchSize} examples it keeps ${formatBytes(now)} for backward${less.length > 0 ? `; it would be ${less.join(', ')}` : ''}`;
  }

  /** What to throw for a failure within a step. @param updated names of the parameters that were updated, undefined when no update had begun */
  private failureOf(cause: unknown, step: number, updated: readonly string[] | undefined, advice: () => string): unknown {
    if (cause instanceof DeviceLostError) return new DeviceLostError(`step ${step}: ${cause.message}. ${this.afterLoss()}`, { cause });
    if (!updated) return cause instanceof OutOfMemoryError ? new OutOfMemoryError(`step ${step}: ${cause.message}${advice()}`, cause.bytes, { cause }) : cause;
    const training = [...this.model.parameters.values()].filter((p) => p.trains).length;
    const before = this.snapshots.filter((s) => s <= step).at(-1);
    const { checkpoints, onNonFinite } = this.options;
    const ways = [
      ...(before === undefined ? [] : [`trainer.rewind(${before}) goes back to the state before step ${before}`]),
      ...(checkpoints ? [`SlimFitTrainer.resume('${checkpoints.dir}', …) goes on from the last checkpoint, if there is one`] : []),
      'a new trainer goes on from the weights as they are, with fresh moments',
    ];
    const earlier = onNonFinite ? '' : ". With onNonFinite: 'stop' nothing is updated before backward is through, so that less can fail halfway";
    this.torn = new StepPartlyAppliedError(
      `step ${step} failed after ${updated.length} of the ${training} parameters that train were updated (${(cause as Error)?.message ?? String(cause)}): weights and moments are between two steps, and this trainer takes no further one. ${ways.join('; ')}${earlier}`,
      step,
      updated,
      { cause },
    );
    return this.torn;
  }

  /** What a lost device leaves of the run. */
  private afterLoss(): string {
    const { latest, options } = this.keeper;
    if (latest) return `SlimFitTrainer.resume('${options!.dir}', …) on a new engine goes on from ${latest}`;
    return `No checkpoint of this run was written${options ? ' yet' : ''}: what was trained is lost${options ? '' : '. With checkpoints: { dir: … } a run can be taken up again'}`;
  }

  /** What a checkpoint holds of this trainer. */
  private async resumable(): Promise<TrainingRun<Batch>> {
    const { model, history, next: step, totalSteps, stepsPerEpoch, batchSize, overruled, rateFactor, options, seed, policy, frozenBiases, magnitude, blockBytes, scheme } = this;
    const resolved = { batchSize, totalSteps, seed, policy, frozenBiases, magnitude, blockBytes, scheme, optimizer: this.optimizer.settings };
    this.settings ??= { ...trainerSettings(options, resolved), ...modelSettings(model), ...(await dataSettings(options.train)) };
    return { ...this.trained, model, history, step, totalSteps, stepsPerEpoch, batchSize, overruled, rateFactor, lossScale: this.lossScale.state, settings: this.settings, processingClass: options.processingClass };
  }

  private get trained(): Trained {
    const { engine, optimizer, policy } = this;
    return { engine, optimizer, policy, parameters: this.model.parameters };
  }

  /** Learning rate of a step, as things stand. */
  private rateOf(step: number): number {
    return this.schedule(step) * this.rateFactor;
  }

  /** The layers to freeze in a step on a batch of a shape, ascending: the policy's choice, unless the user overruled it. */
  private decide(step: number, shape: BatchShape<Batch> | undefined): readonly number[] {
    const { policy, freezableLayers } = this;
    const chosen = policy.select(step, this.keptBytes(shape));
    const bad = chosen.find((l) => !(l in freezableLayers));
    if (bad !== undefined) throw new InvalidArgumentError(`the policy ${policy.name} freezes layer ${bad} in step ${step}; layers are numbered from 0 to ${freezableLayers.length - 1}`);
    return [...this.overrule(new Set(chosen))].sort((a, b) => a - b);
  }

  /** A policy's choice with what the user froze or thawed. */
  private overrule(frozen: Set<number>): Set<number> {
    for (const [layer, freeze] of this.overruled) {
      if (freeze) frozen.add(layer);
      else frozen.delete(layer);
    }
    return frozen;
  }

  /** What a policy may ask of the bytes of a step. */
  private keptBytes(shape: BatchShape<Batch> | undefined): KeptBytes | undefined {
    if (!shape || this.predict(shape, new Set()) === undefined) return undefined;
    return (trained) => this.predict(shape, this.overrule(new Set(this.freezableLayers.filter((l) => !trained.has(l.index)).map((l) => l.index))))!.total;
  }

  private setOverruled(names: readonly string[], frozen: boolean): void {
    for (const i of this.indicesOf(names)) this.overruled.set(i, frozen);
  }

  private indicesOf(names: readonly string[]): number[] {
    return names.flatMap((name) => {
      const hits = this.freezableLayers.filter((l) => l.name === name || shortLayerName(l.name) === name || l.name.startsWith(`${name}.`));
      if (hits.length === 0) throw new InvalidArgumentError(`no freezable layer is called '${name}': \`trainer.layers()\` lists them`);
      return hits.map((l) => l.index);
    });
  }

  private async runStep(): Promise<StepRecord> {
    const { engine, model, policy, optimizer } = this;
    const started = performance.now();
    const step = this.next;
    const epoch = this.epochOf(step);
    const learningRate = this.rateOf(step);
    const batch = await this.options.train.batch(this.examplesOf(step), epoch);
    const dataMilliseconds = performance.now() - started;
    this.options.train.prefetch?.(this.examplesOf(step + 1), this.epochOf(step + 1));
    const shape = batch as BatchShape<Batch>;
    const frozen = this.decide(step, shape);
    const active = this.markTraining(frozen);
    const parts = microBatches(batch, this.accumulationSteps, (b) => model.lossTerms(b));
    await optimizer.beginStep();
    const encodingErrors = this.measuresEncodings(step) ? await this.measureEncodings(parts[0].batch, step) : [];
    const grams = await this.representations(policy.probe?.(step) ?? 0);
    const magnitudes: LayerScalar[] = [];
    const squares: LayerScalar[] = [];
    const { scale } = this.lossScale;
    const guard = this.options.onNonFinite || this.lossScale.dynamic ? new GradientGuard(engine) : undefined;
    const updated: string[] = [];
    const { updatesBegun } = optimizer;
    const apply: GradientSink = (parameter, grad) => {
      const layer = this.layerOf.get(parameter.name);
      if (policy.wantsGradientNorms && layer !== undefined) squares.push({ layer, value: engine.scope(() => engine.share(sumOfSquares(engine, grad), 'gradients')) });
      const value = optimizer.apply(parameter, grad, learningRate, layer === undefined ? undefined : this.magnitude);
      updated.push(parameter.name);
      if (value && layer !== undefined) magnitudes.push({ layer, value: engine.share(value, 'gradients') });
    };
    const sums = new GradientSums(engine);
    let unmark: (() => void) | undefined;
    try {
      await this.warmUp(step, parts[0].batch);
      engine.resetPeak();
      if (this.options.sparseEmbeddings) unmark = markTouchedRows(model, parts.map((p) => p.batch));
      let loss = 0;
      let activationBytes = -1;
      let activations: readonly LedgerEntry[] = [];
      let fullActivations: ActivationPrediction | undefined;
      let freezingSaves: Float64Array | undefined;
      const course: CoursePoint[] = [];
      const nonFinite: string[] = [];
      // The last part applies, when the losses of all are known to be finite.
      const last = unscaled(engine, guard ? guard.hold : apply, scale);
      for (const [i, { batch: part, weight: lossWeight }] of parts.entries()) {
        const ctx = this.context(step, i, this.scheme, { lossWeight: lossWeight * scale });
        try {
          const out = engine.attempt(() => model.forwardWithLoss(ctx, part));
          engine.free(out.logits.tensor);
          const { totalBytes, entries } = ctx.tape.ledger;
          if (totalBytes > activationBytes) [activationBytes, activations] = [totalBytes, entries];
          try {
            const reading = engine.read(out.loss.tensor);
            // Worked out while the device is at forward.
            fullActivations ??= this.predictFull(shape);
            freezingSaves ??= this.freezingSaves(shape, frozen);
            loss += lossWeight * (await reading)[0];
          } finally {
            engine.free(out.loss.tensor);
          }
          if (!Number.isFinite(loss)) {
            this.refuse(nonFinite, ['loss'], (more) => new LossNotFiniteError(`the loss of step ${step} is ${loss}: the step was not applied. Try a lower learning rate (now ${learningRate}), or look at the batch${more}`));
            break;
          }
          engine.attempt(() => ctx.tape.backward(out.loss, i === parts.length - 1 ? sums.last(last) : sums.add));
        } finally {
          ctx.tape.dispose();
          course.push(...ctx.tape.course);
        }
      }
      if (nonFinite.length === 0) {
        engine.attempt(() => sums.rest(last));
        const bad = (await guard?.notFinite()) ?? [];
        if (bad.length > 0 && this.lossScale.backOff()) {
          nonFinite.push(...bad);
          this.warn(`a step was skipped, since a gradient was not finite: the loss scale was too large and is halved. That is usual in the first steps of mixed precision; later ones are noted in their records`);
        } else if (bad.length > 0) this.refuse(nonFinite, bad, (more) => new GradientNotFiniteError(`the gradient of step ${step} is not finite in ${bad.slice(0, 4).join(', ')}${bad.length > 4 ? ` and ${bad.length - 4} more` : ''}: the step was not applied. Try a lower learning rate (now ${learningRate}), or look at the batch${more}`, bad));
        else guard?.release(apply);
      }
      // Nothing of the step is left to the record's count.
      unmark?.();
      sums.dispose();
      guard?.dispose();
      if (nonFinite.length === 0) {
        this.skippedInARow = 0;
        this.lossScale.grow();
        if (this.options.frozenParameters === 'zerograd')
          for (const p of model.parameters.values()) if (!p.trains) optimizer.applyZeroGradient(p, learningRate);
        const [moved, squared] = await this.readScalars(magnitudes, squares);
        this.warnOfMagnitudes(moved);
        policy.observe(step, moved, {
          ...(policy.wantsGradientNorms ? { gradientNorms: new Map([...squared].map(([layer, s]) => [layer, Math.sqrt(s)])) } : {}),
          ...(grams ? { grams } : {}),
        } satisfies StepObservation);
        optimizer.endStep();
      }
      this.next++;
      const record: StepRecord = {
        step,
        epoch,
        loss,
        learningRate,
        ...(scale !== 1 && { lossScale: scale }),
        frozen,
        active: nonFinite.length === 0 ? active : [],
        ...(nonFinite.length > 0 && { nonFinite }),
        overruled: [...this.overruled.keys()].sort((a, b) => a - b),
        updateMagnitudes: policy.magnitudes,
        activations,
        activationBytes,
        fullActivations,
        freezingSaves: freezingSaves!,
        course,
        encodingErrors,
        memory: engine.memory(),
        milliseconds: performance.now() - started,
        dataMilliseconds,
        ...model.countOf(shape),
      };
      this.history.append(record);
      if (nonFinite.length > 0 && this.options.onNonFinite === 'lower-rate' && this.lossScale.scale === scale) this.rateFactor /= 2;
      return showing(record, (r) => recordBundle(r, this.freezableLayers));
    } catch (error) {
      throw this.failureOf(error, step, optimizer.updatesBegun > updatesBegun ? updated : undefined, () => this.memoryAdvice(shape, new Set(frozen)));
    } finally {
      unmark?.();
      sums.dispose();
      guard?.dispose();
      engine.free(...[...magnitudes, ...squares].map((m) => m.value));
    }
  }

  /** Before the first step, has an engine that compiles kernels compile those of a pass forward and backward. Later steps, with other layers frozen, meet few new ones. */
  private async warmUp(step: number, batch: Batch): Promise<void> {
    if (this.isWarm) return;
    this.isWarm = true;
    await this.engine.warm?.(() => {
      const ctx = this.context(step, 0, this.scheme, {});
      try {
        const out = this.model.forwardWithLoss(ctx, batch);
        this.engine.free(out.logits.tensor);
        ctx.tape.backward(out.loss, () => {});
        this.engine.free(out.loss.tensor);
      } finally {
        ctx.tape.dispose();
      }
    });
  }

  /** A step that cannot be applied stops training, or is skipped and noted. @param error what stops it, with what else is to be said */
  private refuse(noted: string[], what: readonly string[], error: (more: string) => Error): void {
    if (this.options.onNonFinite !== 'skip' && this.options.onNonFinite !== 'lower-rate') throw error('');
    // So many batches in a row are not at fault: the weights are.
    if (this.skippedInARow + 1 >= 10) throw error(`; it is the tenth step in a row that would be skipped: go back to an earlier checkpoint or snapshot`);
    this.skippedInARow++;
    noted.push(...what);
    this.warn(`step ${this.next} was skipped, its ${what[0] === 'loss' ? 'loss' : `gradient of ${what[0]}`} is not finite: weights, moments and policy are as they were${this.options.onNonFinite === 'lower-rate' ? `; the learning rate is ${this.rateFactor / 2} of the schedule’s from here on` : ''}`);
  }

  /** Bytes that a step with these layers frozen keeps on the largest part of a batch of a shape. @param changes settings other than this run's */
  private predict(shape: BatchShape<Batch>, frozen: ReadonlySet<number>, changes: MemoryChanges = {}): ActivationPrediction | undefined {
    return this.model.predictActivations(...this.planned(shape, frozen, changes));
  }

  private planned(shape: BatchShape<Batch>, frozen: ReadonlySet<number>, changes: MemoryChanges = {}): [BatchShape<Batch>, ActivationPlan] {
    const { mode = this.scheme, gradientCheckpointing = this.options.gradientCheckpointing === true, gradientAccumulationSteps = this.accumulationSteps } = changes;
    const { batchSize: examples } = shape as unknown as { readonly batchSize: number };
    const [batchSize] = microBatchSizes(changes.batchSize ?? examples, gradientAccumulationSteps);
    const names = new Set([...frozen].map((i) => this.freezableLayers[i].name));
    const plan = { mode, frozenBiases: this.frozenBiases, gradientCheckpointing, dropout: this.options.dropout !== false, trains: (name: string) => !names.has(name) };
    return [{ ...shape, batchSize }, plan];
  }

  /** The same for plain fine-tuning. */
  private predictFull(shape: BatchShape<Batch>): ActivationPrediction | undefined {
    return this.model.predictActivations(shape, { mode: 'exact', dropout: this.options.dropout !== false, trains: () => true });
  }

  /** What freezing each layer saves, the others being as they are. */
  private freezingSaves(shape: BatchShape<Batch>, frozen: readonly number[]): Float64Array {
    const names = this.freezableLayers.map((l) => l.name);
    return this.model.freezingSaves(...this.planned(shape, new Set(frozen)), names) ?? new Float64Array(names.length).fill(NaN);
  }

  private measuresEncodings(step: number): boolean {
    const { measureEncodingsEvery = 100 } = this.options;
    return measureEncodingsEvery > 0 && step % measureEncodingsEvery === 0 && codesAnything(this.scheme);
  }

  /** A forward pass like that of the step, whose tape compares what it keeps with the values themselves. */
  private async measureEncodings(batch: Batch, step: number): Promise<EncodingError[]> {
    const ctx = this.context(step, 0, this.scheme, { measuring: true });
    try {
      const out = this.engine.attempt(() => this.model.forwardWithLoss(ctx, batch));
      this.engine.free(out.logits.tensor, out.loss.tensor);
      return await ctx.tape.readEncodingErrors();
    } finally {
      ctx.tape.dispose();
    }
  }

  /** The forward pass of a part of a step under a scheme: equal draws of dropout however often it is made, others for each part. */
  private context(step: number, part: number, scheme: ActivationScheme, options: ForwardOptions): ForwardContext {
    const all = { ...options, blockBytes: this.blockBytes, gradientCheckpointing: this.options.gradientCheckpointing };
    // The odd number takes the parts to seeds that no user is likely to try side by side.
    return this.options.dropout === false ? ForwardContext.deterministic(this.engine, scheme, all) : ForwardContext.training(this.engine, scheme, this.seed + part * 0x9e3779b9, step, all);
  }

  /** Lists of scalars by layer, in one read-back; they are freed, and the lists emptied. */
  private async readScalars(...lists: readonly LayerScalar[][]): Promise<Map<number, number>[]> {
    const { engine } = this;
    const scalars = lists.flat();
    if (scalars.length === 0) return lists.map(() => new Map<number, number>());
    const all = engine.scope(() =>
      engine.concat(
        scalars.map((m) => engine.reshape(m.value, [1])),
        0,
      ),
    );
    let values: Float32Array | Int32Array;
    try {
      values = await engine.read(all);
    } finally {
      engine.free(all);
    }
    engine.free(...scalars.map((m) => m.value));
    let at = 0;
    return lists.map((list) => new Map(list.splice(0).map(({ layer }) => [layer, values[at++]])));
  }

  private warnOfMagnitudes(magnitudes: ReadonlyMap<number, number>): void {
    for (const [layer, d] of magnitudes)
      if (!Number.isFinite(d)) this.warn(`${this.freezableLayers[layer].name} holds a weight of exactly 0, so its update magnitude is ${d}: inter-layer scheduling trains it in every step (as in the published code)`);
  }

  /** Gram matrices of what the layers put out on the first `count` examples of the training data (StepObservation.grams); undefined for none. Nothing is dropped or kept. */
  private async representations(count: number): Promise<Map<number, Float32Array> | undefined> {
    if (count === 0) return undefined;
    const { engine, model, options } = this;
    const batch = await options.train.batch(Int32Array.from({ length: Math.min(count, options.train.size) }, (_, i) => i));
    const n = batch.batchSize;
    const grams = new Map<number, DeviceTensor>();
    const ctx = ForwardContext.evaluation(engine, {
      watch: ({ name }, output) => {
        const layer = this.layerOf.get(name);
        // A table that is used twice (tied to the decoder) is looked at where it embeds.
        if (layer !== undefined && !grams.has(layer) && output.shape[0] === n) grams.set(layer, engine.scope(() => engine.share(centredGram(engine, output), 'gradients')));
      },
    });
    try {
      engine.free(engine.attempt(() => model.forward(ctx, batch)).tensor);
      const all = engine.scope(() => engine.concat([...grams.values()].map((g) => engine.reshape(g, [n * n])), 0));
      let values: Float32Array;
      try {
        values = (await engine.read(all)) as Float32Array;
      } finally {
        engine.free(all);
      }
      return new Map([...grams.keys()].map((layer, i) => [layer, values.slice(i * n * n, (i + 1) * n * n)]));
    } finally {
      ctx.tape.dispose();
      engine.free(...grams.values());
    }
  }

  /** Marks what trains: always-trained weights, the layers that are not frozen, and every bias or those of what trains. @returns the layers' indices */
  private markTraining(frozen: readonly number[]): number[] {
    const isFrozen = new Set(frozen);
    const active: number[] = [];
    for (const p of this.model.parameters.values()) {
      const layer = this.layerOf.get(p.name);
      const decides = layer ?? (this.frozenBiases ? this.layerOf.get(weightOfBias(p.name)) : undefined);
      p.trains = decides === undefined || !isFrozen.has(decides);
      if (p.trains && layer !== undefined) active.push(layer);
    }
    return active.sort((a, b) => a - b);
  }

  private epochOf(step: number): number {
    return Math.floor(step / this.stepsPerEpoch);
  }

  /** Numbers of the examples of a step: a run over a fresh random order in every epoch. */
  private examplesOf(step: number): Int32Array {
    const n = this.options.train.size;
    const epoch = this.epochOf(step);
    let order = this.orders.get(epoch);
    if (!order) {
      order = this.options.shuffle === false ? Int32Array.from({ length: n }, (_, i) => i) : new Random(this.seed + 2 ** 32 * (epoch + 1)).permutation(n);
      // The last step of an epoch and the one after it are looked at in turn.
      if (this.orders.size >= 2) this.orders.delete(this.orders.keys().next().value!);
      this.orders.set(epoch, order);
    }
    const begin = (step % this.stepsPerEpoch) * this.batchSize;
    return order.subarray(begin, begin + this.batchSize);
  }

  /** Shape of the batch of a step; undefined where only making the batch would tell, and that takes time. */
  private shapeOf(step: number): BatchShape<Batch> | undefined {
    const { train } = this.options;
    const examples = this.examplesOf(step);
    if (train.shape) return train.shape(examples);
    const batch = train.batch(examples, this.epochOf(step));
    return batch instanceof Promise ? undefined : (batch as BatchShape<Batch>);
  }

  /** Lets the event loop turn, then stops if the run was interrupted. */
  private async checkpoint(signal?: AbortSignal, ignoreOwn = false): Promise<void> {
    await kernelCheckpoint();
    const stopped = [signal, ignoreOwn ? undefined : this.options.signal].find((s) => s?.aborted);
    if (stopped) throw new InterruptedError(`training was stopped before step ${this.next}; the trainer can go on from there`, { cause: stopped.reason });
  }

  private warn(text: string): void {
    if (this.warned.has(text)) return;
    this.warned.add(text);
    (this.options.onWarning ?? ((t: string) => console.warn(`slimfit: ${t}`)))(text);
  }
}

/** Loss and metrics of a model over a data set, in order, without dropout. @param blockBytes as of the trainer's options; default: whole tensors */
export async function evaluate<Batch extends LabelledBatch>(
  model: Model<Batch>,
  data: BatchSource<Batch>,
  batchSize: number,
  metrics?: (predictions: Predictions) => Readonly<Record<string, number>>,
  checkpoint: () => Promise<void> = async () => {},
  blockBytes?: number,
): Promise<Evaluation> {
  const { engine } = model;
  let sum = 0;
  const predictions = await forEachBatch(model, data, batchSize, checkpoint, async (ctx, batch) => {
    const out = engine.attempt(() => model.forwardWithLoss(ctx, batch));
    try {
      sum += (await engine.read(out.loss.tensor))[0] * batch.batchSize;
    } catch (error) {
      engine.free(out.logits.tensor);
      throw error;
    } finally {
      engine.free(out.loss.tensor);
    }
    return out.logits;
  }, blockBytes);
  return { loss: sum / data.size, examples: data.size, metrics: metrics ? metrics(predictions) : {} };
}

/** Logits of a model over a data set, in order, without dropout. Labels are passed on, not looked at. */
export function predict<Batch extends LabelledBatch>(model: Model<Batch>, data: BatchSource<Batch>, batchSize = 32, checkpoint: () => Promise<void> = kernelCheckpoint): Promise<Predictions> {
  return forEachBatch(model, data, batchSize, checkpoint, async (ctx, batch) => model.engine.attempt(() => model.forward(ctx, batch)));
}

/** Goes through a data set in order and gathers logits and labels. */
async function forEachBatch<Batch extends LabelledBatch>(
  model: Model<Batch>,
  data: BatchSource<Batch>,
  batchSize: number,
  checkpoint: () => Promise<void>,
  forward: (ctx: ForwardContext, batch: Batch) => Promise<Variable>,
  blockBytes?: number,
): Promise<Predictions> {
  const { engine } = model;
  const logits: Float32Array[] = [];
  const labels: (Int32Array | Float32Array)[] = [];
  let numLabels = 0;
  const indicesFrom = (begin: number) => Int32Array.from({ length: Math.min(batchSize, data.size - begin) }, (_, i) => begin + i);
  for (let begin = 0; begin < data.size; begin += batchSize) {
    await checkpoint();
    const batch = await data.batch(indicesFrom(begin));
    if (begin + batchSize < data.size) data.prefetch?.(indicesFrom(begin + batchSize));
    const ctx = ForwardContext.evaluation(engine, { blockBytes });
    try {
      const { tensor } = await forward(ctx, batch);
      try {
        logits.push((await engine.read(tensor)) as Float32Array);
      } finally {
        engine.free(tensor);
      }
      numLabels = tensor.shape[1];
      labels.push(batch.labels);
    } finally {
      ctx.tape.dispose();
    }
  }
  const scores = labels.some((l) => l instanceof Float32Array);
  return { logits: joined(logits, Float32Array), numLabels, labels: scores ? joined(labels, Float32Array) : joined(labels, Int32Array) };
}

function joined<A extends Float32Array | Int32Array>(parts: readonly ArrayLike<number>[], Type: new (length: number) => A): A {
  const all = new Type(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    all.set(p, at);
    at += p.length;
  }
  return all;
}

/** Σ g² of a gradient, [1]. */
function sumOfSquares(engine: Engine, grad: DeviceTensor): DeviceTensor {
  const flat = engine.reshape(grad, [grad.size]);
  return engine.sum(engine.mul(flat, flat), 0, true);
}

/** X·Xᵀ of outputs [n, ...] as X [n, features], less the mean over the n: [n, n]. */
function centredGram(engine: Engine, output: DeviceTensor): DeviceTensor {
  const n = output.shape[0];
  const x = engine.reshape(output, [n, output.size / n]);
  const centred = engine.sub(x, engine.mean(x, 0, true));
  return engine.matmul(centred, centred, { transposeB: true });
}

/** Whether anything that the scheme keeps differs from what forward saw. */
function codesAnything({ attentionOperands, attentionProbs, geluInput, downProjectionInput, linearInput, normalizedValues, frozenLayerNormShare }: ActivationScheme): boolean {
  return frozenLayerNormShare !== undefined || normalizedValues !== undefined || [attentionOperands, attentionProbs, geluInput, downProjectionInput, linearInput].some((e) => e !== 'float32' && e !== 'recompute');
}

function scheduleOf(o: Pick<TrainerOptions, 'schedule' | 'learningRate' | 'warmupSteps'>, total: number): Schedule {
  const { schedule = 'linear', learningRate = 5e-5, warmupSteps = 0 } = o;
  if (!(learningRate > 0 && Number.isFinite(learningRate))) throw new InvalidArgumentError(`learningRate is ${learningRate}; it must be a positive number`);
  if (typeof schedule === 'function') return schedule;
  if (schedule === 'linear') return linearSchedule(learningRate, total, warmupSteps);
  if (schedule === 'constant') return constantSchedule(learningRate);
  return paperSchedule(schedule, learningRate, total);
}
