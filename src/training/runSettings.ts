/**
 * What decides the numbers of a run, as texts by name: settings, model, data. A checkpoint holds them, and a run that goes on from it must have the same, or its steps would be those of neither run.
 * What only looks on (names, measuring, evaluation, where checkpoints go) is not among them.
 */
import { createHash } from 'node:crypto';
import { ResumeMismatchError } from '../errors';
import type { FreezePolicy } from '../freezing/policy';
import type { BatchSource, LabelledBatch, Model } from '../models/model';
import type { ActivationScheme } from '../tape/scheme';
import type { TrainerOptions } from './trainer';

/** Texts by name: 'seed', 'scheme.geluInput', 'model.hidden_size', … */
export type RunSettings = Readonly<Record<string, string>>;

/** Nested plain data as texts by dotted names. Functions and undefined are left out. */
export function flatSettings(values: Readonly<Record<string, unknown>>, prefix = ''): Record<string, string> {
  const out: Record<string, string> = {};
  for (const [key, value] of Object.entries(values)) {
    if (value === undefined || typeof value === 'function') continue;
    const isMap = value !== null && typeof value === 'object' && !Array.isArray(value);
    if (isMap) Object.assign(out, flatSettings(value as Record<string, unknown>, `${prefix}${key}.`));
    else out[`${prefix}${key}`] = typeof value === 'number' ? String(value) : typeof value === 'string' ? value : JSON.stringify(value);
  }
  return out;
}

/** What a trainer made of its options. */
export interface ResolvedOptions {
  readonly batchSize: number;
  readonly totalSteps: number;
  readonly seed: number;
  readonly policy: FreezePolicy;
  readonly frozenBiases: boolean;
  readonly magnitude: string;
  readonly blockBytes: number;
  readonly scheme: ActivationScheme;
  readonly optimizer: object;
}

/** Every option of a trainer that its numbers depend on, with its default where it was left out. An option that is not named here counts as it was given. */
export function trainerSettings<Batch extends LabelledBatch>(given: TrainerOptions<Batch>, resolved: ResolvedOptions): Record<string, string> {
  // These only look on, or change no number, or stand in `resolved`; the initial distances are in the policy's state.
  const { model: _, train, evaluation, metrics, epochs, mode, name, measureEncodingsEvery, initialMagnitudeScale, checkpoints, processingClass, signal, onWarning, alwaysTrain, gradientCheckpointing, ...options } = given;
  const { schedule = 'linear', learningRate = 5e-5, warmupSteps = 0, freezeRate = 0.9, frozenParameters = 'skip', dropout = true, shuffle = true, gradientAccumulationSteps = 1, sparseEmbeddings } = options;
  const { totalSteps, policy, scheme, ...others } = resolved;
  const { name: _name, ...kept } = scheme;
  return flatSettings({
    ...options,
    ...others,
    learningRate,
    warmupSteps,
    frozenParameters,
    dropout,
    shuffle,
    gradientAccumulationSteps: gradientAccumulationSteps > 1 ? gradientAccumulationSteps : undefined,
    sparseEmbeddings: sparseEmbeddings || undefined,
    // A function is known by what it gives.
    schedule: typeof schedule === 'string' ? schedule : `a function: ${hashOf(Float64Array.from({ length: totalSteps }, (_, k) => schedule(k)))}`,
    // Under a constant rate a longer run begins as a shorter one does, unless a policy of one's own looks at its length.
    totalSteps: schedule === 'constant' && !given.policy ? undefined : totalSteps,
    policy: policy.label ?? policy.name,
    freezeRate: given.policy ? undefined : freezeRate,
    alwaysTrain: alwaysTrain?.length ? [...alwaysTrain].sort() : undefined,
    scheme: kept,
  });
}

function hashOf(values: Float64Array): string {
  return createHash('sha256').update(new Uint8Array(values.buffer)).digest('hex').slice(0, 16);
}

/** Names, shapes and config.json of a model. */
export function modelSettings<Batch extends LabelledBatch>(model: Model<Batch>): Record<string, string> {
  const { transformers_version: _, ...config } = model.configJson();
  const hash = createHash('sha256');
  for (const { name, shape } of model.parameters.values()) hash.update(`${name}[${shape}]\n`);
  return { ...flatSettings(config, 'model.'), 'model.parameters': `${model.parameters.size} (${hash.digest('hex').slice(0, 16)})` };
}

/** Examples by whose batch data are recognised. */
const LOOKED_AT = 8;

/** Size of a data set, and a hash of its first examples as the first epoch sees them: token ids or augmented pixels, and labels. */
export async function dataSettings<Batch extends LabelledBatch>(train: BatchSource<Batch>): Promise<Record<string, string>> {
  const batch = await train.batch(Int32Array.from({ length: Math.min(LOOKED_AT, train.size) }, (_, i) => i), 0);
  const hash = createHash('sha256');
  for (const [name, value] of Object.entries(batch).sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${name}:`);
    if (ArrayBuffer.isView(value)) hash.update(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
    else hash.update(JSON.stringify(value) ?? '');
  }
  return { 'train.size': String(train.size), train: hash.digest('hex') };
}

/** @throws ResumeMismatchError naming the first setting that differs */
export function checkSameSettings(stored: RunSettings, given: RunSettings, folder: string): void {
  // What an option says explains more than what follows from it: the model's hash and the data's come last.
  const rank = (field: string) => (field === 'train' || field === 'model.parameters' ? 1 : 0);
  const fields = [...new Set([...Object.keys(given), ...Object.keys(stored)])].sort((a, b) => rank(a) - rank(b));
  for (const field of fields) {
    const [was, is] = [stored[field] ?? 'nothing', given[field] ?? 'nothing'];
    if (was === is) continue;
    const what = field === 'train' ? `the first examples of the training data are others than those of ${folder}` : `${field} is ${is}, but ${folder} was saved with ${was}`;
    throw new ResumeMismatchError(`${what}: go on with what it was saved with, or begin a new run from its weights with fromPretrained('${folder}')`, field, was, is);
  }
}
