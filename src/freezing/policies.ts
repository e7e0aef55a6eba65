/**
 * Policies by name: what a command line, a study or a stored setting says of a policy, as plain data, made into one. Every name has a list of its options; options that a policy does not have are refused
 * before a run begins. What depends on the run (its length, its seed) is taken from the run where it is not given.
 */
import { InvalidArgumentError } from '../errors';
import { cut, shown } from '../shown';
import { parseBytes } from '../units';
import { AutoFreeze, type AutoFreezeOptions } from './autoFreeze';
import { BitFit, type BitFitOptions } from './bitFit';
import { BlockCyclic, type BlockCyclicOptions } from './blockCyclic';
import { groupsOf } from './blocks';
import { CkaFreezing, type CkaFreezingOptions } from './ckaFreezing';
import { FreezeOut, type FreezeOutOptions } from './freezeOut';
import { checkFreezeRate, type IlsOptions, InterLayerScheduling } from './ils';
import { KnapsackFreezing, type KnapsackFreezingOptions } from './knapsackFreezing';
import type { FreezableLayer } from './layer';
import { MemoryBudget, type MemoryBudgetOptions } from './memoryBudget';
import { NoFreezing } from './none';
import type { FreezePolicy, PolicyFactory, PolicyRun } from './policy';
import { RandomLayers, type RandomLayersOptions } from './randomLayers';

/** Options of the random layers, by count or by rate. */
export interface RandomPolicyOptions extends RandomLayersOptions {
  /** Share F in [0, 1) of the encoder's n blocks (or weights) that rests: n − floor(F·n) train, instead of `activatedLayers`. Embeddings and head train in any case. */
  readonly freezeRate?: number;
}

/** The options of each policy that has a name. All are plain data. */
export interface PolicyOptions {
  readonly ils: Partial<Pick<IlsOptions, 'freezeRate' | 'seed' | 'initialScale'>>;
  readonly none: Readonly<Record<string, never>>;
  readonly random: RandomPolicyOptions;
  readonly 'block-cyclic': BlockCyclicOptions;
  readonly 'freeze-out': Partial<FreezeOutOptions>;
  readonly 'auto-freeze': Partial<AutoFreezeOptions>;
  readonly bitfit: BitFitOptions;
  readonly cka: CkaFreezingOptions;
  readonly 'memory-budget': Pick<MemoryBudgetOptions, 'budgetBytes' | 'freezeRate' | 'seed' | 'initialScale'>;
  readonly knapsack: KnapsackFreezingOptions;
}

/** Name of a policy. */
export type PolicyName = keyof PolicyOptions;

/** Any policy's options, as they are read from a command line or a file. */
export type PolicySettings = Readonly<Record<string, number | string>>;

/** What is known of a policy that has a name. */
export interface PolicyEntry {
  /** As in figures and tables. */
  readonly label: string;
  /** Which layers train. */
  readonly about: string;
  /** Its options and what they take: a number, bytes such as 8GiB, or one of some words. */
  readonly options: Readonly<Record<string, 'number' | 'bytes' | readonly string[]>>;
  /** Whether it has a freeze rate. The others decide by their own options how much rests. */
  readonly hasRate: boolean;
  /** The option that says in other words what a rate would say. */
  readonly insteadOfRate?: string;
}

const SEED = { seed: 'number' } as const;
const GRANULARITY = { granularity: ['weight', 'block'] } as const;

/** The policies that have a name. */
export const POLICIES: Readonly<Record<PolicyName, PolicyEntry>> = {
  ils: { label: 'ILS', about: 'the share that moved most when they last trained (SlimFit)', options: { freezeRate: 'number', initialScale: 'number', ...SEED }, hasRate: true },
  none: { label: 'no freezing', about: 'all', options: {}, hasRate: false },
  random: { label: 'random layers', about: 'embeddings, head and random blocks, others every K steps (LISA)', options: { freezeRate: 'number', activatedLayers: 'number', intervalSteps: 'number', ...GRANULARITY, ...SEED }, hasRate: true, insteadOfRate: 'activatedLayers' },
  'block-cyclic': { label: 'block-cyclic', about: 'one block for K steps, then the next (BAdam)', options: { switchBlockEvery: 'number', switchMode: ['random', 'ascending', 'descending'], ...GRANULARITY, ...SEED }, hasRate: false },
  'freeze-out': { label: 'FreezeOut', about: 'all but the first blocks, which stop one by one on a schedule', options: { t0: 'number', schedule: ['linear', 'cubic'], ...GRANULARITY, totalSteps: 'number' }, hasRate: false },
  'auto-freeze': { label: 'AutoFreeze', about: 'the same, stopping when their gradients change least', options: { evaluateEvery: 'number', percentile: 'number' }, hasRate: false },
  bitfit: { label: 'BitFit', about: 'biases and the head of the task', options: { head: ['train', 'freeze'] }, hasRate: false },
  cka: { label: 'CKA', about: 'blocks whose representation still moves against the model at the start', options: { compareEvery: 'number', examples: 'number', threshold: 'number', ...GRANULARITY }, hasRate: false },
  'memory-budget': { label: 'memory budget', about: 'the layers of largest magnitude that fit a number of activation bytes', options: { budgetBytes: 'bytes', freezeRate: 'number', initialScale: 'number', ...SEED }, hasRate: true, insteadOfRate: 'budgetBytes' },
  knapsack: { label: 'knapsack', about: 'the set of largest expected progress that fits a number of activation bytes', options: { budgetBytes: 'bytes', freezeRate: 'number', ...SEED }, hasRate: true, insteadOfRate: 'budgetBytes' },
};

/** Names of the policies. */
export const POLICY_NAMES = Object.keys(POLICIES) as PolicyName[];

type Makers = { readonly [N in PolicyName]: (layers: readonly FreezableLayer[], run: PolicyRun, options: PolicyOptions[N]) => FreezePolicy };

const MAKERS: Makers = {
  ils: (layers, { seed, initialScale }, o) => new InterLayerScheduling(layers, { freezeRate: 0.9, seed, initialScale, ...o }),
  none: (layers) => new NoFreezing(layers),
  random: (layers, { seed }, { freezeRate, ...o }) => new RandomLayers(layers, { seed, ...o, ...(freezeRate !== undefined && { activatedLayers: activatedAt(freezeRate, layers, o.granularity) }) }),
  'block-cyclic': (layers, { seed }, o) => new BlockCyclic(layers, { seed, ...o }),
  'freeze-out': (layers, { totalSteps }, o) => new FreezeOut(layers, { totalSteps, ...o }),
  // A tenth of the run, as the authors have it.
  'auto-freeze': (layers, { totalSteps }, o) => new AutoFreeze(layers, { evaluateEvery: Math.max(1, Math.round(totalSteps / 10)), ...o }),
  bitfit: (layers, _run, o) => new BitFit(layers, o),
  cka: (layers, _run, o) => new CkaFreezing(layers, o),
  'memory-budget': (layers, { seed, initialScale }, o) => new MemoryBudget(layers, { seed, initialScale, ...o }),
  knapsack: (layers, { seed }, o) => new KnapsackFreezing(layers, { seed, ...o }),
};

function activatedAt(freezeRate: number, layers: readonly FreezableLayer[], granularity: RandomLayersOptions['granularity'] = 'block'): number {
  checkFreezeRate(freezeRate);
  const n = groupsOf(layers, granularity).filter((g) => g.part === 'encoder').length;
  return n - Math.floor(freezeRate * n);
}

/** What is known of the policy of a name. @throws InvalidArgumentError with the list of names */
export function policyEntry(name: string): PolicyEntry {
  if (!Object.hasOwn(POLICIES, name)) throw new InvalidArgumentError(`no policy is called '${cut(name)}': choose one of ${POLICY_NAMES.join(', ')}`);
  return POLICIES[name as PolicyName];
}

/** @throws InvalidArgumentError for a name or an option that does not exist, a value of the wrong kind, a rate beside what says the same */
export function checkPolicy(name: string, options: PolicySettings): void {
  const entry = policyEntry(name);
  const known = Object.keys(entry.options);
  for (const [key, value] of Object.entries(options)) {
    const kind = Object.hasOwn(entry.options, key) ? entry.options[key] : undefined;
    if (kind === undefined)
      throw new InvalidArgumentError(`the policy ${name} has no ${key === 'freezeRate' ? 'freeze rate' : `option '${cut(key)}'`}: ${known.length > 0 ? `it has ${known.join(', ')}` : 'it has no options'}`);
    if (typeof kind === 'object' ? !kind.includes(String(value)) : typeof value !== 'number' || Number.isNaN(value))
      throw new InvalidArgumentError(`${key} of the policy ${name} is ${shown(value)}; it must be ${typeof kind === 'object' ? `one of ${kind.join(', ')}` : 'a number'}`);
  }
  const { insteadOfRate: other } = entry;
  if (other && options.freezeRate !== undefined && options[other] !== undefined) throw new InvalidArgumentError(`the policy ${name} is given freezeRate ${options.freezeRate} and ${other} ${options[other]}: give one of the two`);
}

/**
 * A policy by name, for the trainer's `policy`: `policyOf('random', { freezeRate: 0.75, intervalSteps: 10 })`. Length and seed of the run are the run's where the options say nothing; `auto-freeze` looks ten
 * times a run.
 * @throws InvalidArgumentError for an unknown name or option, at once; for values that the policy refuses, when the trainer is made
 */
export function policyOf<N extends PolicyName>(name: N, options: PolicyOptions[N] = {} as PolicyOptions[N]): PolicyFactory {
  const given = Object.fromEntries(Object.entries(options).filter(([, v]) => v !== undefined)) as PolicySettings;
  checkPolicy(name, given);
  return (layers, run) => MAKERS[name](layers, run, given as unknown as PolicyOptions[N]);
}

/**
 * Options of a policy from texts `name=value`; names also as on a command line, `interval-steps`.
 * @throws InvalidArgumentError for a text of another form, an unknown name or option, a value of the wrong kind
 */
export function parsePolicyOptions(name: string, texts: readonly string[]): PolicySettings {
  const { options } = policyEntry(name);
  const entries = texts.map((text): [string, number | string] => {
    const at = text.indexOf('=');
    if (at < 1) throw new InvalidArgumentError(`'${text}' is no option of a policy: write name=value, such as ${Object.keys(options)[0] ?? 'seed'}=…`);
    const key = text.slice(0, at).replace(/-([a-z0-9])/g, (_, c: string) => c.toUpperCase());
    const value = text.slice(at + 1);
    const kind = Object.hasOwn(options, key) ? options[key] : undefined;
    return [key, kind === 'bytes' ? parseBytes(value) : kind === 'number' && value.trim() !== '' && !Number.isNaN(Number(value)) ? Number(value) : value];
  });
  const out = Object.fromEntries(entries);
  checkPolicy(name, out);
  return out;
}
