/**
 * `study({ … })`: every run of a grid, one after the other, with progress; finished runs stand in the study's folder, and calling it again goes on with what is missing. Several processes can share a
 * folder: each run is done by the one that claims it.
 */
import path from 'node:path';
import { chooseEngine } from '../engine/choose';
import type { Engine } from '../engine/engine';
import { InterruptedError, StudyRunError } from '../errors';
import { StudyProgressView } from '../inspect/studyProgress';
import { StudyResults, studyRunsTable } from '../inspect/studyResults';
import type { LabelledBatch, TextBatch } from '../models/model';
import { kernelCheckpoint } from './interrupt';
import { recipeNamed } from './recipes';
import { describeJob, studyJobs, type StudyDefinition, type StudyJob } from './studyDefinition';
import { Claim, readDefinition, readResult, readResults, type StudyResult, writeDefinition, writeResult, writeWhole } from './studyFolder';
import { runJob } from './studyRun';

/** How a study stands. */
export interface StudyProgress {
  /** The run that goes on, or went on last; undefined when there was nothing to do. */
  readonly run: StudyJob | undefined;
  /** Runs of the study that are finished, and all of them. */
  readonly done: number;
  readonly total: number;
  /** Steps done of the run that goes on. */
  readonly step: number;
  readonly steps: number;
  /** Over all steps since `study` was called. */
  readonly stepsPerSecond: number;
  /** Until the last run is done, as far as runs take equally long; NaN before that can be told. */
  readonly secondsLeft: number;
  readonly state: 'running' | 'done' | 'interrupted' | 'failed';
}

/** How a study is run. */
export interface StudyRunOptions {
  /** Default: the best engine of this machine. */
  readonly engine?: Engine;
  /** Stops at the next step boundary. */
  readonly signal?: AbortSignal;
  /** Told after every step. Default: shows it, below the cell or as a line of text. */
  readonly onProgress?: (progress: StudyProgress) => void;
  /** Told of damaged results, runs that others do, and what the trainers warn of, each once. Default: console.warn. */
  readonly onNotice?: (text: string) => void;
}

/** A study and how it is run. */
export interface StudyOptions<Batch extends LabelledBatch = TextBatch> extends StudyDefinition<Batch>, StudyRunOptions {
  /** Where results are kept. */
  readonly folder: string;
}

/**
 * Runs what is missing of a study, and gives all results:
 *
 * ```ts
 * const results = await study({
 *   folder: 'out/study',
 *   task: { name: 'grammar', prepare: async ({ seed, engine }) => ({ model, train, evaluation, metrics }) },   // or { recipe: 'cola' }
 *   policies: ['none', 'ils', { policy: 'random', options: { intervalSteps: 10 } }],
 *   freezeRates: [0.5, 0.9],
 *   seeds: [1, 2, 3],
 *   trainer: { totalSteps: 100, learningRate: 5e-4 },
 * });
 * studyFigure(results)
 * ```
 *
 * The folder holds `study.json`, `runs/ID.json` for each finished run, and all of them as a table in `runs.arrow`. A run that another process does at the time is left to it; `results.missing` lists it then.
 * @throws InvalidArgumentError for a grid that cannot work, StudyChangedError where the folder holds a study of another task or other settings, before anything is run; InterruptedError when stopped;
 *   StudyRunError when runs failed, after all others were done
 */
export async function study<Batch extends LabelledBatch = TextBatch>(options: StudyOptions<Batch>): Promise<StudyResults> {
  const { folder, task, policies, freezeRates, seeds, variants, trainer, steps } = options;
  const definition = complete({ task, policies, freezeRates, seeds, variants, trainer, steps });
  const jobs = studyJobs(definition);
  writeDefinition(folder, definition);
  return runJobs(folder, definition, jobs, jobs, options);
}

/** A definition in which a recipe stands with its numbers, not by its name. @throws UnknownTaskError */
export function complete<Batch extends LabelledBatch>(definition: StudyDefinition<Batch>): StudyDefinition<Batch> {
  const { task } = definition;
  return 'recipe' in task && typeof task.recipe === 'string' ? { ...definition, task: { ...task, recipe: recipeNamed(task.recipe) } } : definition;
}

/**
 * The results in a study's folder, as far as there are any.
 * @param onNotice told of damaged files; default console.warn
 * @throws FileMissingError, StudyFileError
 */
export function loadStudy(folder: string, onNotice: (text: string) => void = warn): StudyResults {
  const jobs = studyJobs(readDefinition(folder));
  return new StudyResults(folder, jobs, readResults(folder, jobs, onNotice));
}

const warn = (text: string): void => console.warn(`slimfit: ${text}`);

/** Does some runs of a study, those that are not done. @param jobs all of them */
export async function runJobs<Batch extends LabelledBatch>(folder: string, definition: StudyDefinition<Batch>, jobs: readonly StudyJob[], wanted: readonly StudyJob[], options: StudyRunOptions): Promise<StudyResults> {
  const said = new Set<string>();
  const onNotice = (text: string) => {
    if (!said.has(text)) (options.onNotice ?? warn)(text);
    said.add(text);
  };
  const results = readResults(folder, jobs, onNotice);
  const open = wanted.filter((j) => !results.has(j.id));
  const view = options.onProgress ? undefined : new StudyProgressView();
  const tell = options.onProgress ?? ((p: StudyProgress) => view!.update(p));
  const clock = new ProgressClock(jobs.length, open.length, tell);
  const failures: { readonly run: string; readonly reason: string; readonly cause: unknown }[] = [];
  let engine: Engine | undefined;
  try {
    for (const job of open) {
      await checkpoint(options.signal, job);
      const done = await doJob(job);
      if (done === 'elsewhere') onNotice(`${describeJob(job)}: another process does this run`);
      else if (done) results.set(job.id, done);
      clock.leave(results.size, done !== undefined && done !== 'elsewhere');
    }
    clock.tell(results.size, failures.length > 0 ? 'failed' : 'done');
  } catch (error) {
    clock.tell(results.size, isInterrupt(error) ? 'interrupted' : 'failed');
    throw error;
  } finally {
    if (!options.engine) engine?.dispose();
    writeRuns(folder, jobs, results);
  }
  if (failures.length > 0) {
    const [{ run, reason, cause }] = failures;
    throw new StudyRunError(`${failures.length === 1 ? `a run of the study failed (${run})` : `${failures.length} runs of the study failed, the first ${run}`}: ${reason}. The others are done; call again to try once more`, failures.map((f) => ({ run: f.run, reason: f.reason })), { cause });
  }
  return new StudyResults(folder, jobs, results);

  async function doJob(job: StudyJob): Promise<StudyResult | 'elsewhere' | undefined> {
    const claim = Claim.take(folder, job.id);
    if (!claim) return 'elsewhere';
    // Loading and evaluation last, too.
    const alive = setInterval(() => claim.touch(), 1000).unref();
    try {
      // Another process may have done it since the folder was read.
      const { result: already } = readResult(folder, job.id);
      if (already) return already;
      engine ??= options.engine ?? (await chooseEngine());
      const result = await runJob(definition, job, {
        engine,
        ...(options.signal && { signal: options.signal }),
        onNotice,
        onStep(step, steps) {
          claim.touch();
          clock.step(job, results.size, step, steps);
        },
      });
      writeResult(folder, result);
      return result;
    } catch (error) {
      if (isInterrupt(error)) throw error;
      failures.push({ run: describeJob(job), reason: (error as Error).message, cause: error });
      return undefined;
    } finally {
      clearInterval(alive);
      claim.release();
    }
  }
}

/** Writes all results as one table. What others have done meanwhile counts too; and what they do while it is written, so that of several writers the last one has it all. */
function writeRuns(folder: string, jobs: readonly StudyJob[], results: Map<string, StudyResult>): void {
  for (let written = -1; ; ) {
    for (const [id, result] of readResults(folder, jobs)) results.set(id, result);
    if (results.size === Math.max(0, written)) return;
    written = results.size;
    writeWhole(path.join(folder, 'runs.arrow'), studyRunsTable(new StudyResults(folder, jobs, results)).toArrowIPC({ format: 'file' }));
  }
}

/** The kernel stops a cell with an error of its own, which like ours says so by its name. */
const isInterrupt = (error: unknown): boolean => /interrupt/i.test((error as Error)?.name ?? '');

async function checkpoint(signal: AbortSignal | undefined, job: StudyJob): Promise<void> {
  await kernelCheckpoint();
  if (signal?.aborted) throw new InterruptedError(`the study was stopped before ${describeJob(job)}; call again to go on from there`, { cause: signal.reason });
}

/** Rate and time left of a study. */
class ProgressClock {
  private readonly began = performance.now();
  private left: number;
  private run: StudyJob | undefined;
  private stepsBefore = 0;
  private runsBefore = 0;
  private at = { step: 0, steps: 0 };

  constructor(
    private readonly total: number,
    open: number,
    private readonly onProgress: (p: StudyProgress) => void,
  ) {
    this.left = open;
  }

  step(run: StudyJob, done: number, step: number, steps: number): void {
    this.run = run;
    this.at = { step, steps };
    this.tell(done, 'running');
  }

  /** A run is over. @param worked whether it was done here */
  leave(done: number, worked: boolean): void {
    this.left--;
    if (worked) {
      this.stepsBefore += this.at.step;
      this.runsBefore++;
    }
    if (this.left === 0) return;
    this.at = { step: 0, steps: this.at.steps };
    this.tell(done, 'running');
  }

  tell(done: number, state: StudyProgress['state']): void {
    const { step, steps } = this.at;
    const seconds = (performance.now() - this.began) / 1000;
    const turns = this.runsBefore + (this.left > 0 && steps > 0 ? step / steps : 0);
    const open = this.left - (this.left > 0 && steps > 0 ? step / steps : 0);
    const allSteps = this.stepsBefore + (this.left > 0 ? step : 0);
    this.onProgress({ run: this.run, done, total: this.total, step, steps, stepsPerSecond: seconds > 0 ? allSteps / seconds : 0, secondsLeft: turns > 0 ? (seconds / turns) * open : this.left === 0 ? 0 : NaN, state });
  }
}
