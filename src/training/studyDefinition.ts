/**
 * What a study is: one task, and a grid of policies, freeze rates, variants of the trainer's settings, and seeds. Every point of the grid is a run, known by a hash of all that decides its result; so an
 * old result can never stand for another run. A definition is plain data but for functions (a task of one's own, a policy of one's own), of which the hash takes the source text: what a function refers to outside
 * itself is not seen, and belongs into `settings`.
 */
import { createHash } from 'node:crypto';
import type { Engine } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import { checkFreezeRate } from '../freezing/ils';
import { checkPolicy, policyEntry, type PolicyName, type PolicyOptions, type PolicySettings } from '../freezing/policies';
import type { FreezableLayer } from '../freezing/layer';
import type { FreezePolicy, PolicyRun } from '../freezing/policy';
import type { BatchSource, LabelledBatch, Model, Predictions, TextBatch } from '../models/model';
import { cut } from '../shown';
import type { FromRecipeOptions } from './fromRecipe';
import type { Recipe } from './recipes';
import type { TrainerOptions } from './trainer';

/** Settings of the trainer that a study gives to its runs. */
export type StudySettings = Omit<
  TrainerOptions<LabelledBatch>,
  'model' | 'train' | 'evaluation' | 'metrics' | 'policy' | 'freezeRate' | 'seed' | 'name' | 'signal' | 'onWarning' | 'measureEncodingsEvery' | 'checkpoints' | 'processingClass'
>;

/** What one run trains and how it is judged. */
export interface StudyParts<Batch extends LabelledBatch = TextBatch> {
  /** A fresh model, on the engine that `prepare` was given. The study disposes it. */
  readonly model: Model<Batch>;
  readonly train: BatchSource<Batch>;
  readonly evaluation: BatchSource<Batch>;
  readonly metrics: (predictions: Predictions) => Readonly<Record<string, number>>;
  /** Settings of the trainer that belong to the task; those of the study come before them. */
  readonly options?: StudySettings;
  /** Frees what else was made. */
  dispose?(): void;
}

/** What `prepare` is given. */
export interface StudySeed {
  readonly seed: number;
  readonly engine: Engine;
  readonly signal?: AbortSignal;
}

/** A task of one's own. */
export interface OwnStudyTask<Batch extends LabelledBatch = TextBatch> {
  readonly name: string;
  /** Plain data on which the results depend beside the text of `prepare`: sizes, lengths, files. */
  readonly settings?: unknown;
  /** Makes model and data of a run; called once for each. */
  prepare(run: StudySeed): StudyParts<Batch> | Promise<StudyParts<Batch>>;
}

/** A task by recipe. */
export interface RecipeStudyTask {
  /** One of `recipes`, or its name. Its seed and freeze rate are replaced by those of the grid. */
  readonly recipe: Recipe | string;
  readonly options?: Omit<FromRecipeOptions, 'engine' | 'trainer' | 'hub' | 'onNotice'> & { readonly offline?: boolean };
}

/** What all runs of a study have in common. */
export type StudyTask<Batch extends LabelledBatch = TextBatch> = OwnStudyTask<Batch> | RecipeStudyTask;

/** A policy by name, with options. */
export type NamedStudyPolicy = {
  readonly [N in PolicyName]: {
    readonly policy: N;
    readonly options?: PolicyOptions[N];
    /** In tables and figures. Default: the policy's name in words. */
    readonly label?: string;
    /** Its rates, where they are not those of the study. */
    readonly freezeRates?: readonly number[];
    /** Settings of the trainer under this policy, over those of the study, below those of a variant: `{ mode: 'exact' }` beside `none` is plain fine-tuning. */
    readonly trainer?: StudySettings;
  };
}[PolicyName];

/** A policy of one's own. */
export interface OwnStudyPolicy {
  readonly label: string;
  /** Makes it; `run.freezeRate` is the rate of the grid, if there are any. */
  readonly policy: (layers: readonly FreezableLayer[], run: StudyPolicyRun) => FreezePolicy;
  /** Its rates. Default: none, one run a seed. */
  readonly freezeRates?: readonly number[];
  /** Settings of the trainer under this policy, over those of the study, below those of a variant. */
  readonly trainer?: StudySettings;
}

/** What a policy of one's own is told. */
export interface StudyPolicyRun extends PolicyRun {
  readonly freezeRate?: number;
}

/** A policy of the grid. */
export type StudyPolicy = PolicyName | NamedStudyPolicy | OwnStudyPolicy;

/** The definition of a study. */
export interface StudyDefinition<Batch extends LabelledBatch = TextBatch> {
  readonly task: StudyTask<Batch>;
  readonly policies: readonly StudyPolicy[];
  /** For the policies that have a rate. */
  readonly freezeRates?: readonly number[];
  readonly seeds: readonly number[];
  /** What else is varied, by name: settings of the trainer over `trainer`: `{ paper: { mode: 'paper' }, tuned: { mode: 'tuned' } }`. Default: nothing. */
  readonly variants?: Readonly<Record<string, StudySettings>>;
  /** Settings of the trainer in every run. */
  readonly trainer?: StudySettings;
  /** Steps of a run. Default: the whole schedule. */
  readonly steps?: number;
}

/** One run of the grid. */
export interface StudyJob {
  /** Hash of all that decides its result; name of its files. */
  readonly id: string;
  /** Number in the list of all runs, from 1. */
  readonly number: number;
  /** Label of the policy. */
  readonly policy: string;
  /** '' where nothing is varied. */
  readonly variant: string;
  /** Undefined for a policy without a rate. */
  readonly freezeRate: number | undefined;
  readonly seed: number;
  /** Entry of the grid that it belongs to. */
  readonly entry: NamedStudyPolicy | OwnStudyPolicy;
  /** Settings of the trainer. */
  readonly settings: StudySettings;
}

/** A function in a stored definition. */
interface StoredFunction {
  readonly function: string;
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/**
 * A value as plain data in one form: keys sorted, what is undefined left out, numbers that JSON lacks as texts, a function as the hash of its text.
 * @throws InvalidArgumentError for what has no such form: a map, a tensor, an instance of a class
 */
export function plainForm(value: unknown, at = 'definition'): unknown {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number') return Number.isFinite(value) ? value : String(value);
  if (typeof value === 'function') return { function: `sha256:${sha256(value.toString())}` } satisfies StoredFunction;
  if (Array.isArray(value)) return Array.from(value, (v, i) => plainForm(v, `${at}[${i}]`));
  const prototype: unknown = typeof value === 'object' ? Object.getPrototypeOf(value) : undefined;
  // Objects of a cell come from another realm: their prototype has no prototype either.
  if (typeof value === 'object' && (prototype === null || Object.getPrototypeOf(prototype) === null)) {
    const entries = Object.entries(value as object).filter(([, v]) => v !== undefined);
    return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([k, v]) => [k, plainForm(v, `${at}.${k}`)]));
  }
  throw new InvalidArgumentError(`${at} of a study is ${typeof value === 'object' ? `a ${(value as object).constructor.name}` : typeof value}; it must be plain data: numbers, texts, lists, objects`);
}

/** Whether a stored definition holds functions, so that only the code that made it can go on with it. */
export function hasFunctions(value: unknown): boolean {
  if (typeof value === 'function') return true;
  if (typeof value !== 'object' || value === null) return false;
  const { function: text } = value as { function?: unknown };
  return (typeof text === 'string' && text.startsWith('sha256:')) || Object.values(value).some(hasFunctions);
}

/** What differs between two values in plain form, by path: 'trainer.learningRate: 0.001 → 0.0005'. */
export function differences(before: unknown, after: unknown, at = ''): string[] {
  const isObject = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null;
  if (isObject(before) && isObject(after) && Array.isArray(before) === Array.isArray(after))
    return [...new Set([...Object.keys(before), ...Object.keys(after)])].flatMap((k) => differences(before[k], after[k], at ? `${at}.${k}` : k));
  if (before === after) return [];
  if (at.endsWith('.function')) return [`the text of ${at.slice(0, -'.function'.length)}`];
  const text = (v: unknown) => (v === undefined ? 'nothing' : JSON.stringify(v));
  return [`${at}: ${text(before)} → ${text(after)}`];
}

/** What every run depends on, whatever the grid is. */
export function commonPart<Batch extends LabelledBatch>({ task, trainer = {}, steps }: StudyDefinition<Batch>): object {
  return { task, trainer, steps };
}

/** Whether a policy of the grid has a name. */
export function isNamed(entry: NamedStudyPolicy | OwnStudyPolicy): entry is NamedStudyPolicy {
  return typeof entry.policy === 'string';
}

/** Rates of a policy of the grid; `[undefined]` for one run without. */
function ratesOf(entry: NamedStudyPolicy | OwnStudyPolicy, all: readonly number[] | undefined): readonly (number | undefined)[] {
  if (!isNamed(entry)) return entry.freezeRates ?? [undefined];
  const { hasRate, insteadOfRate } = policyEntry(entry.policy);
  const options = (entry.options ?? {}) as PolicySettings;
  if (!hasRate) {
    if (entry.freezeRates) throw new InvalidArgumentError(`the policy ${entry.policy} has no freeze rate: leave freezeRates out`);
    return [undefined];
  }
  if (options.freezeRate !== undefined) throw new InvalidArgumentError(`the freeze rate of ${entry.policy} belongs into freezeRates, not into its options`);
  if (insteadOfRate && options[insteadOfRate] !== undefined) return [undefined];
  const rates = entry.freezeRates ?? all;
  if (!rates?.length) throw new InvalidArgumentError(`the policy ${entry.policy} has a freeze rate: give the study freezeRates`);
  return rates;
}

/**
 * The runs of a study, seed by seed, so that a study that is cut short has seen every policy.
 * @throws InvalidArgumentError for an empty grid, an unknown policy or option, a rate outside [0, 1), a seed that is no whole number, two runs that are the same
 */
export function studyJobs<Batch extends LabelledBatch>(definition: StudyDefinition<Batch>): StudyJob[] {
  const { policies, freezeRates, seeds, variants = { '': {} }, trainer = {}, steps } = definition;
  if (policies.length === 0 || seeds.length === 0 || Object.keys(variants).length === 0) throw new InvalidArgumentError('a study needs at least one policy and one seed, and if it has variants, one of them');
  if (steps !== undefined && !(Number.isInteger(steps) && steps >= 1)) throw new InvalidArgumentError(`steps is ${steps}; it must be a whole number of at least 1`);
  const badSeed = seeds.find((s) => !(Number.isSafeInteger(s) && s >= 0));
  if (badSeed !== undefined) throw new InvalidArgumentError(`a seed is ${badSeed}; it must be a whole number, 0 or more`);
  const common = plainForm(commonPart(definition)) as object;
  const jobs: StudyJob[] = [];
  const seen = new Map<string, string>();
  const labels = new Map<string, string>();
  for (const seed of seeds)
    for (const given of policies) {
      const entry = typeof given === 'string' ? ({ policy: given } as NamedStudyPolicy) : given;
      if (isNamed(entry)) checkPolicy(entry.policy, plainForm(entry.options ?? {}) as PolicySettings);
      const policy = entry.label ?? policyEntry((entry as NamedStudyPolicy).policy).label;
      const what = plainForm(isNamed(entry) ? { policy: entry.policy, options: entry.options ?? {} } : { policy: entry.policy, label: entry.label });
      const text = JSON.stringify([what, plainForm(entry.trainer ?? {})]);
      if ((labels.get(policy) ?? text) !== text) throw new InvalidArgumentError(`two policies of the study are called '${cut(policy)}': give each a label of its own`);
      labels.set(policy, text);
      for (const freezeRate of ratesOf(entry, freezeRates)) {
        if (freezeRate !== undefined) checkFreezeRate(freezeRate);
        for (const [variant, more] of Object.entries(variants)) {
          const settings = { ...trainer, ...entry.trainer, ...more };
          const id = sha256(JSON.stringify(plainForm({ ...common, trainer: settings, policy: what, freezeRate, seed }))).slice(0, 16);
          const job: StudyJob = { id, number: jobs.length + 1, policy, variant, freezeRate, seed, entry, settings };
          const twin = seen.get(id);
          if (twin !== undefined) throw new InvalidArgumentError(`two runs of the study are the same: ${cut(twin)}, and ${cut(describeJob(job))}`);
          seen.set(id, describeJob(job));
          jobs.push(job);
        }
      }
    }
  if (jobs.length === 0) throw new InvalidArgumentError('a study needs a run: a policy whose freezeRates are an empty list has none');
  return jobs;
}

/** A run in words: 'ILS, freeze rate 0.9, tuned, seed 43'. */
export function describeJob({ policy, freezeRate, variant, seed }: Pick<StudyJob, 'policy' | 'freezeRate' | 'variant' | 'seed'>): string {
  return [policy, freezeRate === undefined ? '' : `freeze rate ${freezeRate}`, variant, `seed ${seed}`].filter(Boolean).join(', ');
}
