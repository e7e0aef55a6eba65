/**
 * The folder of a study: `study.json`, its definition, and in `runs` one JSON file for each finished run. Files appear whole or not at all. A process that works on a run holds its claim file, made
 * exclusively and touched while it works; a claim is stale when its process is gone or has not touched it for ten minutes, and is then taken over.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readlinkSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import path from 'node:path';
import { FileMissingError, StudyChangedError, StudyFileError } from '../errors';
import type { LabelledBatch, TextBatch } from '../models/model';
import { cut, shown } from '../shown';
import { commonPart, differences, plainForm, type StudyDefinition, type StudyJob } from './studyDefinition';

/** After so many milliseconds without a sign of life a claim may be taken over. */
export const STALE_MS = 600_000;
/** A sign of life at most so often. */
const TOUCH_MS = 10_000;
/** Taking a claim over lasts milliseconds; whoever needs so long is gone. */
const TAKEOVER_MS = 60_000;

/** What a finished run found. */
export interface StudyResult {
  readonly format: 'slimfit-study-run';
  readonly version: 1;
  readonly id: string;
  /** As the run was called when it was done; what is shown comes from the definition. */
  readonly policy: string;
  readonly variant: string;
  readonly freezeRate: number | null;
  readonly seed: number;
  readonly steps: number;
  /** Loss and metrics on the evaluation data after the last step. */
  readonly loss: number;
  readonly metrics: Readonly<Record<string, number>>;
  /** Bytes kept for backward, mean over the steps, to the byte. */
  readonly activationBytes: number;
  /** The same of plain fine-tuning (everything trains, float32); NaN where the model has no formula. */
  readonly fullActivationBytes: number;
  /** Most bytes on the device at one moment of any step, without what others had there before. */
  readonly peakBytes: number;
  /** Median. */
  readonly secondsPerStep: number;
  /** Share of the layers that were frozen, mean over the steps. */
  readonly frozenShare: number;
  /** Of the whole run, loading and evaluation included. */
  readonly seconds: number;
  readonly engine: string;
  readonly device: string;
  /** When it was done, ISO 8601. */
  readonly finished: string;
}

const NUMBERS = ['seed', 'steps', 'loss', 'activationBytes', 'fullActivationBytes', 'peakBytes', 'secondsPerStep', 'frozenShare', 'seconds'] as const satisfies readonly (keyof StudyResult)[];

const TEXTS = ['policy', 'variant', 'engine', 'device', 'finished'] as const satisfies readonly (keyof StudyResult)[];

/** A file that appears whole or not at all. */
export function writeWhole(file: string, contents: string | Uint8Array): void {
  const temporary = `${file}.${randomUUID()}.tmp`;
  writeFileSync(temporary, contents);
  renameSync(temporary, file);
}

const definitionFile = (folder: string): string => path.join(folder, 'study.json');
const resultFile = (folder: string, id: string): string => path.join(folder, 'runs', `${id}.json`);
const claimFile = (folder: string, id: string): string => path.join(folder, 'runs', `${id}.claim`);

interface StoredDefinition extends StudyDefinition {
  readonly format: 'slimfit-study';
  readonly version: 1;
}

const isObject = (v: unknown): v is Readonly<Record<string, unknown>> => typeof v === 'object' && v !== null && !Array.isArray(v);
/** Nobody writes settings as deep as this by hand, and functions that walk through them walk one call deeper for each. */
const MOST_DEPTH = 64;
const isDeeper = (v: unknown, most: number): boolean => typeof v === 'object' && v !== null && (most === 0 || Object.values(v).some((inner) => isDeeper(inner, most - 1)));

/** What of a stored definition is not of its type, in words; whether its values make a study is for `studyJobs` to say. */
function wrongPart({ task, policies, freezeRates, seeds, variants, trainer, steps }: { readonly [K in keyof StudyDefinition]?: unknown }): string | undefined {
  const isFunction = (v: unknown): boolean => isObject(v) && typeof v.function === 'string';
  const isNumbers = (v: unknown): boolean => Array.isArray(v) && v.every((n) => typeof n === 'number');
  const maybe = (v: unknown, check: (v: unknown) => boolean): boolean => v === undefined || check(v);
  const isTask = (v: unknown): boolean => isObject(v) && (typeof v.recipe === 'string' || isObject(v.recipe) || (typeof v.name === 'string' && isFunction(v.prepare)));
  const isPolicy = (v: unknown): boolean =>
    typeof v === 'string' ||
    (isObject(v) && (typeof v.policy === 'string' || (isFunction(v.policy) && typeof v.label === 'string')) && maybe(v.label, (l) => typeof l === 'string') && maybe(v.freezeRates, isNumbers) && maybe(v.options, isObject) && maybe(v.trainer, isObject));
  const parts: readonly [name: string, value: unknown, isRight: boolean][] = [
    ['task', task, isTask(task)],
    ['policies', policies, Array.isArray(policies) && policies.every(isPolicy)],
    ['freezeRates', freezeRates, maybe(freezeRates, isNumbers)],
    ['seeds', seeds, isNumbers(seeds)],
    ['variants', variants, maybe(variants, (v) => isObject(v) && Object.values(v).every(isObject))],
    ['trainer', trainer, maybe(trainer, isObject)],
    ['steps', steps, maybe(steps, (v) => typeof v === 'number')],
  ];
  const wrong = parts.find(([, value, isRight]) => !isRight || isDeeper(value, MOST_DEPTH));
  return wrong && `'${wrong[0]}' is ${shown(wrong[1])}`;
}

/** The definition in a folder; functions in it are but hashes. @throws FileMissingError, StudyFileError */
export function readDefinition(folder: string): StudyDefinition {
  const file = definitionFile(folder);
  if (!existsSync(file)) throw new FileMissingError(`there is no ${file}: name the folder of a study, or make one with \`slimfit study init\``);
  let stored: StoredDefinition;
  try {
    stored = JSON.parse(readFileSync(file, 'utf8')) as StoredDefinition;
  } catch (error) {
    throw new StudyFileError(file, `damaged (${(error as Error).message}): delete it, and define the study again; its finished runs are kept`, { cause: error });
  }
  if (stored?.format !== 'slimfit-study') throw new StudyFileError(file, 'this is no definition of a study');
  if (stored.version !== 1) throw new StudyFileError(file, `version ${shown(stored.version)}; this SlimFit reads version 1`);
  const { format: _, version: __, ...definition } = stored;
  const wrong = wrongPart(definition);
  if (wrong) throw new StudyFileError(file, `${wrong}: correct it, or delete the file and define the study again; its finished runs are kept`);
  return definition;
}

/**
 * Writes the definition of a study into its folder. The grid may differ from the one that stands there: runs that stay in it keep their results.
 * @throws StudyChangedError when task, settings or steps differ, which would make every result another; StudyFileError for a damaged definition
 */
export function writeDefinition<Batch extends LabelledBatch = TextBatch>(folder: string, definition: StudyDefinition<Batch>): void {
  const next = plainForm({ format: 'slimfit-study', version: 1, ...definition }) as StoredDefinition;
  const file = definitionFile(folder);
  if (existsSync(file)) {
    const before = readDefinition(folder);
    const changes = differences(plainForm(commonPart(before)), plainForm(commonPart(next)));
    if (changes.length > 0) throw new StudyChangedError(`${folder} holds a study that differs in ${changes.join('; ')}: give this one another folder, or delete that one`, changes);
    if (differences(plainForm(before), plainForm(definition)).length === 0) return;
  }
  mkdirSync(path.join(folder, 'runs'), { recursive: true });
  writeWhole(file, `${JSON.stringify(next, null, 2)}\n`);
}

/** Writes a result. */
export function writeResult(folder: string, result: StudyResult): void {
  // Numbers that JSON lacks are written as texts.
  writeWhole(resultFile(folder, result.id), `${JSON.stringify(result, (_, v: unknown) => (typeof v === 'number' && !Number.isFinite(v) ? String(v) : v), 2)}\n`);
}

/** Numbers back from how they were written. */
const numeric = (v: unknown): unknown => (v === 'NaN' || v === 'Infinity' || v === '-Infinity' ? Number(v) : v);

/** The result of a run, and what is wrong with its file; neither where there is none. */
export function readResult(folder: string, id: string): { readonly result?: StudyResult; readonly damage?: string } {
  const file = resultFile(folder, id);
  if (!existsSync(file)) return {};
  try {
    const read = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
    if (read?.format !== 'slimfit-study-run' || read.version !== 1) return { damage: 'no result of a run of version 1' };
    if (read.id !== id) return { damage: `a result of another run, ${typeof read.id === 'string' ? cut(read.id) : shown(read.id)}` };
    if (!isObject(read.metrics)) return { damage: `metrics is ${shown(read.metrics)}` };
    const metrics = Object.fromEntries(Object.entries(read.metrics).map(([k, v]) => [k, numeric(v)]));
    const result = { ...read, ...Object.fromEntries(NUMBERS.map((k) => [k, numeric(read[k])])), metrics } as unknown as StudyResult;
    const bad = [...NUMBERS.map((k) => [k, result[k]] as const), ...Object.entries(metrics)].find(([, v]) => typeof v !== 'number');
    if (bad) return { damage: `${cut(bad[0])} is ${shown(bad[1])}` };
    const badText = TEXTS.find((k) => typeof read[k] !== 'string') ?? (read.freezeRate === null || typeof read.freezeRate === 'number' ? undefined : 'freezeRate');
    return badText ? { damage: `${badText} is ${shown(read[badText])}` } : { result };
  } catch (error) {
    return { damage: (error as Error).message };
  }
}

/** Results of some runs, by id. @param onDamage told of every file that cannot be used */
export function readResults(folder: string, jobs: readonly StudyJob[], onDamage: (text: string) => void = () => {}): Map<string, StudyResult> {
  const found = new Map<string, StudyResult>();
  for (const { id } of jobs) {
    const { result, damage } = readResult(folder, id);
    if (result) found.set(id, result);
    else if (damage) onDamage(`${resultFile(folder, id)} is damaged (${damage}): this run is done again`);
  }
  return found;
}

/** Which processes can be seen: this machine's, and where there are several spaces of process numbers, this one's. */
function place(): string {
  try {
    return `${hostname()} ${readlinkSync('/proc/self/ns/pid')}`;
  } catch {
    return hostname();
  }
}

interface ClaimText {
  readonly token: string;
  readonly place: string;
  readonly pid: number;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Time by the clock of the folder's disk, which may be another machine's. */
function diskTime(runs: string): number {
  const file = path.join(runs, `.${randomUUID()}.tmp`);
  writeFileSync(file, '');
  const { mtimeMs } = statSync(file);
  rmSync(file, { force: true });
  return mtimeMs;
}

/** Whether somebody works on a run. */
export function isClaimed(folder: string, id: string): boolean {
  const file = claimFile(folder, id);
  try {
    const { mtimeMs } = statSync(file);
    if (diskTime(path.dirname(file)) - mtimeMs > STALE_MS) return false;
    const claim = JSON.parse(readFileSync(file, 'utf8')) as ClaimText;
    return claim.place !== place() || isRunning(claim.pid);
  } catch (error) {
    // Gone is free; one that is just being written is held.
    return (error as NodeJS.ErrnoException).code !== 'ENOENT';
  }
}

/** The right to do a run. */
export class Claim {
  private touched = Date.now();

  private constructor(
    private readonly file: string,
    private readonly text: string,
  ) {}

  /** Claims a run. @returns undefined when another process has it */
  static take(folder: string, id: string): Claim | undefined {
    const file = claimFile(folder, id);
    mkdirSync(path.dirname(file), { recursive: true });
    const text = JSON.stringify({ token: randomUUID(), place: place(), pid: process.pid } satisfies ClaimText);
    if (exclusively(file, text)) return new Claim(file, text);
    if (isClaimed(folder, id)) return undefined;
    // Stale. Of several that see it, one takes it over: the one that makes the take-over file.
    const lock = `${file}.takeover`;
    if (!exclusively(lock, text)) {
      try {
        if (diskTime(path.dirname(file)) - statSync(lock).mtimeMs > TAKEOVER_MS) rmSync(lock, { force: true });
      } catch {
        // The other one is done.
      }
      return undefined;
    }
    try {
      if (isClaimed(folder, id)) return undefined;
      writeWhole(file, text);
      return new Claim(file, text);
    } finally {
      rmSync(lock, { force: true });
    }
  }

  /** Says that the process still works. */
  touch(): void {
    const now = Date.now();
    if (now - this.touched < TOUCH_MS) return;
    this.touched = now;
    try {
      const at = diskTime(path.dirname(this.file)) / 1000;
      utimesSync(this.file, at, at);
    } catch {
      // Taken over and done by another, who thought this process gone.
    }
  }

  /** Gives the claim back, unless another process has taken it over. */
  release(): void {
    try {
      if (readFileSync(this.file, 'utf8') === this.text) rmSync(this.file, { force: true });
    } catch {
      // It is gone.
    }
  }
}

/** Makes a file unless it is there. */
function exclusively(file: string, text: string): boolean {
  try {
    writeFileSync(file, text, { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}
