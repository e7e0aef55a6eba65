/**
 * One checkpoint: everything that the steps to come depend on, so that a run which goes on from it is, to the bit, the run that was never stopped.
 *
 *   model.safetensors, config.json, tokenizer   weights as Hugging Face's library loads them
 *   optimizer.safetensors                       moments, by parameter
 *   trainer_state.json                          place in the run, settings, policy, update counts
 *   history.safetensors, history.json           columns of the history, and what belongs to them
 *   manifest.json                               bytes and SHA-256 of all of these
 *
 * Random streams need no state: shuffling, dropout, augmentation and the policies' draws are functions of seed, epoch, step and example. One parameter at a time is on the host.
 */
import { isDeepStrictEqual } from 'node:util';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { CheckpointError, InvalidArgumentError, SlimFitError } from '../errors';
import { cut, shown } from '../shown';
import { type RawArray, rawTypeOf, safetensorsContents, SafetensorsReader, tensorBytes, type TensorPlan } from '../hub/safetensors';
import { WEIGHTS_FILE } from '../hub/folder';
import type { LabelledBatch, Model } from '../models/model';
import type { AdamWParameterSnapshot } from '../optim/adamw';
import type { PolicyState } from '../freezing/policy';
import type { SavesItself } from '../models/pretrained';
import type { Parameter } from '../tape/parameter';
import { type CheckpointManifest, writeCheckpointFolder } from './checkpointFolder';
import type { History } from './history';
import { historyContents, readHistoryParts } from './historyFile';
import type { LossScaleState } from './lossScale';
import { checkSameSettings, type RunSettings } from './runSettings';
import type { Trained } from './snapshot';

const OPTIMIZER_FILE = 'optimizer.safetensors';
const STATE_FILE = 'trainer_state.json';
/** Files without which a checkpoint is none. */
export const CHECKPOINT_FILES: readonly string[] = [WEIGHTS_FILE, 'config.json', OPTIMIZER_FILE, STATE_FILE, 'history.json', 'history.safetensors'];

/** The best checkpoint by a metric. */
export interface BestCheckpoint {
  readonly metric: string;
  readonly value: number;
  readonly step: number;
  readonly folder: string;
}

/** A trainer, as checkpoints see it. */
export interface TrainingRun<Batch extends LabelledBatch> extends Trained {
  readonly model: Model<Batch>;
  readonly history: History;
  /** Number of the step that comes next. */
  readonly step: number;
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  readonly batchSize: number;
  readonly overruled: ReadonlyMap<number, boolean>;
  /** What the schedule's learning rate is multiplied by. */
  readonly rateFactor: number;
  /** Of a dynamic loss scale. */
  readonly lossScale: LossScaleState | undefined;
  readonly settings: RunSettings;
  /** What writes its files beside the model's. */
  readonly processingClass: SavesItself | undefined;
}

interface StoredTensorName {
  readonly $tensor: string;
}
type StoredMoment = StoredTensorName | { readonly codes: StoredTensorName; readonly scales: StoredTensorName };

/** Moments of a parameter; their values are elsewhere. */
interface StoredMoments {
  readonly m: StoredMoment;
  readonly v: StoredMoment;
  readonly step: number;
  readonly idle: number;
}

/** trainer_state.json: the names of Hugging Face's Trainer where it has one, and the rest under `slimfit`. */
interface StoredState {
  readonly global_step: number;
  readonly epoch: number;
  readonly max_steps: number;
  readonly train_batch_size: number;
  readonly best_metric: number | null;
  readonly best_global_step: number | null;
  readonly best_model_checkpoint: string | null;
  readonly slimfit: {
    readonly engine: string;
    readonly settings: RunSettings;
    readonly overruled: readonly (readonly [layer: number, frozen: boolean])[];
    /** Not there in checkpoints from before there was one: 1. */
    readonly rateFactor?: number;
    /** Where the loss scale is dynamic. */
    readonly lossScale?: LossScaleState;
    readonly policy: PolicyState;
    /** By parameter, in the order in which they got state; `{ $tensor }` stands for values in optimizer.safetensors. */
    readonly optimizer: readonly (readonly [parameter: string, state: StoredMoments])[];
    readonly best: { readonly metric: string; readonly value: string; readonly step: number; readonly folder: string } | null;
  };
}

/** Plain data of which the typed arrays are tensors of a file. */
function withoutTensors(value: unknown, name: string, tensors: Map<string, RawArray>): unknown {
  if (ArrayBuffer.isView(value)) {
    tensors.set(name, value as RawArray);
    return { $tensor: name };
  }
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, withoutTensors(v, `${name}.${k}`, tensors)]));
}

/** The same back. */
function withTensors(value: unknown, read: (name: string) => RawArray): unknown {
  if (value === null || typeof value !== 'object') return value;
  const { $tensor } = value as { $tensor?: string };
  if ($tensor !== undefined) return read($tensor);
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, withTensors(v, read)]));
}

/** State of a policy, if JSON keeps it. @throws InvalidArgumentError */
function jsonSafe(policy: { readonly name: string; state(): PolicyState }): PolicyState {
  const state = policy.state();
  if (!isDeepStrictEqual(JSON.parse(JSON.stringify(state)), state))
    throw new InvalidArgumentError(`the state of the policy ${policy.name} does not survive JSON: state() must return plain data, with NaN, infinities and −0 as texts, as InterLayerScheduling does`);
  return state;
}

/**
 * Writes `checkpoint-<step>` into a folder.
 * @returns its path
 * @throws CheckpointWriteError, InvalidArgumentError when the policy's state cannot be stored; nothing was changed then
 */
export async function writeCheckpoint<Batch extends LabelledBatch>(dir: string, run: TrainingRun<Batch>, head: Pick<CheckpointManifest, 'run' | 'sequence'>, best: BestCheckpoint | undefined): Promise<string> {
  const { model, optimizer, step, processingClass } = run;
  const policy = jsonSafe(run.policy);
  const history = historyContents(run.history);
  // What the moments are made of is up to the optimizer. A header comes before its data, so each parameter's state is looked at once for its size, and once more to be written.
  const moments: TensorPlan[] = [];
  const owners = new Map<string, Parameter>();
  const states: [string, StoredMoments][] = [];
  for (const parameter of optimizer.parameters) {
    const tensors = new Map<string, RawArray>();
    states.push([parameter.name, withoutTensors(await optimizer.snapshotOf(parameter), parameter.name, tensors) as StoredMoments]);
    for (const [name, data] of tensors) {
      moments.push({ name, dtype: rawTypeOf(name, data), shape: data.length === parameter.size ? parameter.shape : [data.length] });
      owners.set(name, parameter);
    }
  }
  let latest: { parameter: Parameter; tensors: Map<string, RawArray> } | undefined;
  const readMoment = async (name: string): Promise<RawArray> => {
    const parameter = owners.get(name)!;
    if (latest?.parameter !== parameter) {
      latest = undefined;
      const tensors = new Map<string, RawArray>();
      withoutTensors(await optimizer.snapshotOf(parameter), parameter.name, tensors);
      latest = { parameter, tensors };
    }
    return latest.tensors.get(name)!;
  };
  const state = {
    global_step: step,
    epoch: step / run.stepsPerEpoch,
    max_steps: run.totalSteps,
    train_batch_size: run.batchSize,
    best_metric: best?.value ?? null,
    best_global_step: best?.step ?? null,
    best_model_checkpoint: best?.folder ?? null,
    slimfit: {
      engine: `${run.engine.name}, ${run.engine.device}`,
      settings: run.settings,
      overruled: [...run.overruled],
      rateFactor: run.rateFactor,
      ...(run.lossScale && { lossScale: run.lossScale }),
      policy,
      optimizer: states,
      best: best ? { ...best, value: String(best.value) } : null,
    },
  } satisfies StoredState;
  const json = (value: unknown) => [Buffer.from(`${JSON.stringify(value, null, 2)}\n`)];
  const weights = [...model.parameters.values()].map(({ name, shape }): TensorPlan => ({ name, shape, dtype: 'F32' }));
  const needed = [...weights, ...moments].reduce((sum, t) => sum + tensorBytes(t), history.bytes + JSON.stringify(state).length);
  return writeCheckpointFolder(dir, { step, ...head }, needed, async ({ folder, write }) => {
    processingClass?.save(folder);
    await write('config.json', json(model.configJson()));
    await write(WEIGHTS_FILE, safetensorsContents(weights, (name) => model.readWeight(name)));
    await write(OPTIMIZER_FILE, safetensorsContents(moments, readMoment));
    await write('history.json', history.head());
    await write('history.safetensors', history.columns());
    await write(STATE_FILE, json(state));
  });
}

/** trainer_state.json of a checkpoint, of which everything that a run goes on from is of its type. @throws CheckpointError naming file and field */
export function readTrainerState(folder: string): StoredState {
  const file = path.join(folder, STATE_FILE);
  let state: unknown;
  try {
    state = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new CheckpointError(`${file}: no JSON: ${(cause as Error).message}`, { cause });
  }
  const check = (field: string, value: unknown, isRight: boolean): void => {
    if (!isRight) throw new CheckpointError(`${file}: ${field} is ${shown(value)}, not what SlimFit writes`);
  };
  const isObject = (v: unknown): v is Readonly<Record<string, unknown>> => typeof v === 'object' && v !== null && !Array.isArray(v);
  const isText = (v: unknown): boolean => typeof v === 'string';
  const isCount = (v: unknown): boolean => Number.isSafeInteger(v) && (v as number) >= 0;
  const isTensor = (v: unknown): boolean => isObject(v) && isText(v.$tensor);
  const isMoment = (v: unknown): boolean => isTensor(v) || (isObject(v) && isTensor(v.codes) && isTensor(v.scales));
  const isPairs = (v: unknown, isPair: (a: unknown, b: unknown) => boolean): boolean => Array.isArray(v) && v.every((p) => Array.isArray(p) && p.length === 2 && isPair(p[0], p[1]));
  if (!isObject(state)) throw new CheckpointError(`${file}: no JSON object`);
  check('global_step', state.global_step, isCount(state.global_step));
  const { slimfit } = state;
  if (!isObject(slimfit)) throw new CheckpointError(`${file}: lacks what SlimFit wrote into it`);
  const { engine, settings, overruled, rateFactor, lossScale, policy, optimizer, best } = slimfit;
  check('slimfit.engine', engine, isText(engine));
  check('slimfit.settings', settings, isObject(settings) && Object.values(settings).every(isText));
  check('slimfit.overruled', overruled, isPairs(overruled, (layer, frozen) => isCount(layer) && typeof frozen === 'boolean'));
  check('slimfit.rateFactor', rateFactor, rateFactor === undefined || (typeof rateFactor === 'number' && rateFactor > 0 && rateFactor <= 1));
  const isScale = (v: unknown): boolean => isObject(v) && typeof v.scale === 'number' && v.scale >= 1 && Number.isInteger(Math.log2(v.scale)) && isCount(v.finiteSteps);
  check('slimfit.lossScale', lossScale, lossScale === undefined || isScale(lossScale));
  check('slimfit.policy', policy, isObject(policy));
  check('slimfit.optimizer', optimizer, isPairs(optimizer, (name, s) => isText(name) && isObject(s) && isMoment(s.m) && isMoment(s.v) && isCount(s.step) && isCount(s.idle) && (s.rows === undefined || isTensor(s.rows))));
  check('slimfit.best', best, best === null || (isObject(best) && isText(best.metric) && isText(best.value) && isCount(best.step) && isText(best.folder)));
  return state as unknown as StoredState;
}

/** What a checkpoint says beside what it puts back. */
export interface Resumed {
  readonly step: number;
  readonly overruled: Map<number, boolean>;
  readonly rateFactor: number;
  readonly lossScale: LossScaleState | undefined;
  readonly best: BestCheckpoint | undefined;
  /** Engine that computed it. */
  readonly engine: string;
}

/**
 * Puts a checkpoint, whose files are those that were written, into a trainer that has not trained yet. All that can be refused is looked at before the first weight is overwritten.
 * @throws ResumeMismatchError, CheckpointError, InvalidArgumentError; model and trainer are as they were then
 */
export function restoreCheckpoint<Batch extends LabelledBatch>(folder: string, run: TrainingRun<Batch>): Resumed {
  const { model, optimizer, engine } = run;
  const { global_step: step, slimfit } = readTrainerState(folder);
  checkSameSettings(slimfit.settings, run.settings, folder);
  const history = readHistoryParts(folder);
  const weights = SafetensorsReader.open(path.join(folder, WEIGHTS_FILE));
  try {
    const moments = SafetensorsReader.open(path.join(folder, OPTIMIZER_FILE));
    try {
      for (const { name, shape } of model.parameters.values())
        if (weights.shapeOf(name)?.join() !== shape.join() || weights.dtypeOf(name) !== 'F32') throw new CheckpointError(`${weights.file}: ${name} is ${weights.dtypeOf(name)} of shape [${weights.shapeOf(name)}], the model wants F32 of [${shape}]`);
      for (const [name] of slimfit.optimizer) if (!model.parameters.has(name)) throw new CheckpointError(`${path.join(folder, STATE_FILE)}: holds moments of ${cut(name)}, which is no parameter of this model`);
      const momentsOf = (stored: StoredMoments) => withTensors(stored, (tensor) => moments.read(tensor)) as AdamWParameterSnapshot;
      for (const [name, stored] of slimfit.optimizer) optimizer.checkFits(model.parameters.get(name)!, momentsOf(stored));
      try {
        run.policy.restore(slimfit.policy);
      } catch (cause) {
        if (cause instanceof SlimFitError) throw cause;
        throw new CheckpointError(`${path.join(folder, STATE_FILE)}: slimfit.policy is no state of the policy ${run.policy.name}: ${(cause as Error).message}`, { cause });
      }
      run.history.resume(history);
      for (const p of model.parameters.values()) engine.write(p.data, weights.read(p.name) as Float32Array);
      for (const [name, stored] of slimfit.optimizer) optimizer.restoreOf(model.parameters.get(name)!, momentsOf(stored));
    } finally {
      moments.close();
    }
  } finally {
    weights.close();
  }
  return { step, overruled: new Map(slimfit.overruled), rateFactor: slimfit.rateFactor ?? 1, lossScale: slimfit.lossScale, best: slimfit.best ? { ...slimfit.best, value: Number(slimfit.best.value) } : undefined, engine: slimfit.engine };
}
