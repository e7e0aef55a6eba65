/** When checkpoints are written, which are kept, and which one a run goes on from. */
import { existsSync, rmSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { CheckpointError, FileMissingError, InvalidArgumentError } from '../errors';
import type { LabelledBatch } from '../models/model';
import { type BestCheckpoint, CHECKPOINT_FILES, type Resumed, type TrainingRun, writeCheckpoint } from './checkpoint';
import { checkpointAt, cleanUp, damageOf, listCheckpoints, MANIFEST_FILE, type StoredCheckpoint } from './checkpointFolder';
import type { History } from './history';

/** Checkpoints that a trainer writes by itself. Names and meanings as in Hugging Face's TrainingArguments. */
export interface CheckpointOptions {
  /** Folder in which the folders `checkpoint-<step>` are made. */
  readonly dir: string;
  /** One after every so many steps, and one after the last step of the schedule. Default 500. */
  readonly saveSteps?: number;
  /** So many of this run are kept, the latest, and the best one besides. Default: all. */
  readonly saveTotalLimit?: number;
  /** A metric of `evaluate()`, such as 'loss' or 'accuracy': the trainer evaluates before each of these checkpoints, and keeps the best. Default: none. */
  readonly metricForBestModel?: string;
  /** Whether more of it is better. Default: true, unless its name ends with 'loss'. */
  readonly greaterIsBetter?: boolean;
}

/** The run that checkpoints belong to: its options, its best checkpoint, and what it knows of the folder. */
export class CheckpointKeeper {
  best: BestCheckpoint | undefined;
  private run: string = randomUUID();
  /** Folders that were found damaged. */
  private damaged: ReadonlySet<string> = new Set();

  /** @throws InvalidArgumentError */
  constructor(
    readonly options: CheckpointOptions | undefined,
    canEvaluate: boolean,
  ) {
    if (!options) return;
    const { dir, saveSteps = 500, saveTotalLimit, metricForBestModel } = options;
    if (typeof dir !== 'string' || dir === '') throw new InvalidArgumentError('checkpoints need a folder: checkpoints: { dir: … }');
    for (const [name, n] of Object.entries({ saveSteps, saveTotalLimit }))
      if (n !== undefined && !(Number.isInteger(n) && n >= 1)) throw new InvalidArgumentError(`${name} is ${n}; it must be a whole number of at least 1`);
    if (metricForBestModel !== undefined && !canEvaluate) throw new InvalidArgumentError(`metricForBestModel is '${metricForBestModel}', but the trainer has no \`evaluation\` to measure it on`);
  }

  /** Whether a checkpoint is to be written when so many steps are done. */
  due(step: number, totalSteps: number): boolean {
    return this.options !== undefined && (step % (this.options.saveSteps ?? 500) === 0 || step === totalSteps);
  }

  /** Whether an evaluation is wanted before it. */
  wantsEvaluation(history: History, step: number): boolean {
    return this.options?.metricForBestModel !== undefined && history.metricsAt(step) === undefined;
  }

  /** The run goes on from a checkpoint, and leaves aside those that are damaged. */
  resume({ best }: Resumed, { checkpoint, damaged }: FoundCheckpoint): void {
    this.best = best;
    this.run = checkpoint.manifest!.run;
    this.damaged = damaged;
  }

  /** Writes a checkpoint, and removes those that are no longer to be kept. @returns its folder @throws CheckpointWriteError, InvalidArgumentError */
  async save<Batch extends LabelledBatch>(dir: string, of: TrainingRun<Batch>): Promise<string> {
    const others = listCheckpoints(dir);
    const same = others.find((c) => c.step === of.step);
    // Without a readable manifest it may be one of this run that was damaged, or a folder of another program.
    const isForeign = same && (same.manifest ? same.manifest.run !== this.run : !existsSync(path.join(same.folder, MANIFEST_FILE)) && !existsSync(path.join(same.folder, 'history.safetensors')));
    if (isForeign) throw new InvalidArgumentError(`${same.folder} is of another run: save to another folder, go on from it with SlimFitTrainer.resume(), or delete it`);
    const isOwn = this.options !== undefined && path.resolve(dir) === path.resolve(this.options.dir);
    const best = isOwn ? this.bestWith(dir, of) : this.best;
    const sequence = 1 + Math.max(0, ...others.map((c) => c.manifest?.sequence ?? 0));
    const folder = await writeCheckpoint(dir, of, { run: this.run, sequence }, best);
    this.best = best;
    if (isOwn) this.rotate(dir);
    return folder;
  }

  /** The folder of this run's latest checkpoint among those that the trainer writes by itself; undefined when there is none. */
  get latest(): string | undefined {
    return this.options && listCheckpoints(this.options.dir).find((c) => c.manifest?.run === this.run)?.folder;
  }

  /** The best checkpoint, the one that is about to be written among them. */
  private bestWith<Batch extends LabelledBatch>(dir: string, { history, step }: TrainingRun<Batch>): BestCheckpoint | undefined {
    const { metricForBestModel, greaterIsBetter = !metricForBestModel?.endsWith('loss') } = this.options!;
    // One of the same step is about to be replaced.
    const before = this.best?.step === step ? undefined : this.best;
    if (metricForBestModel === undefined) return before;
    const metric = metricForBestModel.replace(/^eval_/, '');
    const metrics = history.metricsAt(step);
    if (!metrics) return before;
    if (!Object.hasOwn(metrics, metric)) throw new InvalidArgumentError(`metricForBestModel is '${metricForBestModel}', but evaluate() gives ${Object.keys(metrics).join(', ')}`);
    const value = metrics[metric];
    const better = before?.metric !== metric || Number.isNaN(before.value) || (greaterIsBetter ? value > before.value : value < before.value);
    return better ? { metric, value, step, folder: path.join(dir, `checkpoint-${step}`) } : before;
  }

  private rotate(dir: string): void {
    const { saveTotalLimit } = this.options!;
    if (saveTotalLimit === undefined) return;
    const own = listCheckpoints(dir).filter((c) => c.manifest?.run === this.run);
    const isDamaged = (c: StoredCheckpoint) => this.damaged.has(`${c.folder} ${c.manifest!.sequence}`);
    const kept = new Set(own.filter((c) => !isDamaged(c)).slice(0, saveTotalLimit));
    for (const c of own) if (!kept.has(c) && c.step !== this.best?.step) rmSync(c.folder, { recursive: true, force: true });
  }
}

/** What a run goes on from. */
export interface FoundCheckpoint {
  readonly checkpoint: StoredCheckpoint;
  /** Those that were passed over. */
  readonly damaged: ReadonlySet<string>;
}

/**
 * The checkpoint in a folder that was written last and is whole; damaged ones are named to `onNotice`. Left-overs of a killed save are removed.
 * @param dir folder of `checkpoint-<step>` folders, or one of these
 * @throws FileMissingError when there is none, CheckpointError when none is whole
 */
export async function findCheckpoint(dir: string, onNotice: (text: string) => void): Promise<FoundCheckpoint> {
  try {
    cleanUp(dir);
  } catch (error) {
    onNotice(`what a stopped save left in ${dir} cannot be removed: ${(error as Error).message}`);
  }
  const inside = listCheckpoints(dir);
  const single = checkpointAt(dir);
  const all = inside.length === 0 && single.manifest ? [single] : inside;
  if (all.length === 0) throw new FileMissingError(`no checkpoint in ${dir}: give the folder that holds checkpoint-<step> folders, as trainer.save(folder) or \`slimfit train --out folder --save-steps N\` made it`);
  const damaged: string[] = [];
  const said: string[] = [];
  for (const checkpoint of all) {
    const damage = await damageOf(checkpoint, CHECKPOINT_FILES);
    if (damage === undefined) {
      for (const text of said) onNotice(`${text}; going on from ${checkpoint.folder} instead`);
      return { checkpoint, damaged: new Set(damaged) };
    }
    damaged.push(`${checkpoint.folder} ${checkpoint.manifest?.sequence}`);
    said.push(`${checkpoint.folder} is damaged: ${damage}`);
  }
  throw new CheckpointError(`no checkpoint in ${dir} is whole: ${said.join('; ')}`);
}
