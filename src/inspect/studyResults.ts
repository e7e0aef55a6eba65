/** What a study found: every run as a row, and for each point of its grid mean and standard deviation over the seeds. */
import { type ColumnTable, table } from 'arquero';
import type { StudyJob } from '../training/studyDefinition';
import type { StudyResult } from '../training/studyFolder';
import { MIB } from '../units';
import { tableBundle } from './tableHtml';

/** A run of the grid with its result. */
export interface StudyRun {
  readonly job: StudyJob;
  readonly result: StudyResult;
}

/** The results of a study, as far as its runs are done. Shown by itself, it is the table of its grid. */
export class StudyResults {
  constructor(
    readonly folder: string,
    /** All runs of the grid. */
    readonly jobs: readonly StudyJob[],
    private readonly results: ReadonlyMap<string, StudyResult>,
  ) {}

  /** The finished runs, in the order of the grid. */
  get runs(): readonly StudyRun[] {
    return this.jobs.flatMap((job) => {
      const result = this.results.get(job.id);
      return result ? [{ job, result }] : [];
    });
  }

  /** Runs that are not done. */
  get missing(): readonly StudyJob[] {
    return this.jobs.filter((j) => !this.results.has(j.id));
  }

  /** Names of the metrics, in the order in which the task gives them; `loss` where it gives none. */
  get metrics(): readonly string[] {
    const names = [...new Set(this.runs.flatMap((r) => Object.keys(r.result.metrics)))];
    return names.length > 0 ? names : ['loss'];
  }

  /** What Jupyter shows. */
  [Symbol.for('Jupyter.display')](): Record<string, string> {
    const bundle = tableBundle(studyTable(this));
    const note = this.missing.length > 0 ? `${this.missing.length} of ${this.jobs.length} runs are not done` : '';
    return note ? { 'text/html': `${bundle['text/html']}<small>${note}</small>`, 'text/plain': `${bundle['text/plain']}\n${note}` } : bundle;
  }
}

/** Mean and standard deviation (of a sample, over n − 1; NaN of one value). */
export interface Spread {
  readonly n: number;
  readonly mean: number;
  readonly sd: number;
}

export function spreadOf(values: readonly number[]): Spread {
  const n = values.length;
  // From the first value, so that equal values have exactly no deviation.
  const mean = values[0] + values.reduce((s, v) => s + (v - values[0]), 0) / n;
  return { n, mean, sd: n > 1 ? Math.sqrt(values.reduce((s, v) => s + (v - mean) ** 2, 0) / (n - 1)) : NaN };
}

/** A metric of a result, or its loss. */
export const metricOf = ({ loss, metrics }: StudyResult, name: string): number => metrics[name] ?? (name === 'loss' ? loss : NaN);

/** One point of the grid: the seeds of a policy, variant and rate. */
export interface StudyPoint {
  readonly policy: string;
  readonly variant: string;
  readonly freezeRate: number | undefined;
  readonly results: readonly StudyResult[];
}

/** The points that have a finished run, in the order of the grid. */
export function studyPoints({ runs }: StudyResults): StudyPoint[] {
  const points = new Map<string, StudyPoint & { results: StudyResult[] }>();
  for (const { job, result } of runs) {
    const { policy, variant, freezeRate } = job;
    const key = JSON.stringify([policy, variant, freezeRate]);
    const point = points.get(key);
    if (point) point.results.push(result);
    else points.set(key, { policy, variant, freezeRate, results: [result] });
  }
  return [...points.values()];
}

const finite = (v: number): number | null => (Number.isFinite(v) ? v : null);

/** All finished runs, one row each: settings, metrics as fractions, bytes, seconds. */
export function studyRunsTable(results: StudyResults): ColumnTable {
  const { runs, metrics, jobs } = results;
  const varied = jobs.some((j) => j.variant !== '');
  const rates = runs.some((r) => r.job.freezeRate !== undefined);
  const column = <T>(of: (r: StudyRun) => T): T[] => runs.map(of);
  return table({
    run: column((r) => r.job.id),
    policy: column((r) => r.job.policy),
    ...(varied && { variant: column((r) => r.job.variant) }),
    ...(rates && { freezeRate: column((r) => r.job.freezeRate ?? null) }),
    seed: column((r) => r.job.seed),
    steps: column((r) => r.result.steps),
    ...Object.fromEntries(metrics.filter((m) => m !== 'loss').map((m) => [m, Float64Array.from(runs, (r) => metricOf(r.result, m))])),
    ...Object.fromEntries((['loss', 'activationBytes', 'fullActivationBytes', 'peakBytes', 'secondsPerStep', 'frozenShare', 'seconds'] as const).map((k) => [k, Float64Array.from(runs, (r) => r.result[k])])),
    engine: column((r) => r.result.engine),
    finished: column((r) => r.result.finished),
  } as never);
}

/**
 * The grid, one row for each policy, variant and rate: number of runs, means over the seeds, standard deviations (…Sd; of a sample) of the metrics; MiB kept for backward (mean over the steps) and at the
 * peak of a step, how many times less is kept than in plain fine-tuning, share of the layers frozen, seconds a step (median over the steps).
 */
export function studyTable(results: StudyResults): ColumnTable {
  const points = studyPoints(results);
  const mean = (p: StudyPoint, of: (r: StudyResult) => number) => finite(spreadOf(p.results.map(of)).mean);
  const varied = points.some((p) => p.variant !== '');
  return table({
    policy: points.map((p) => p.policy),
    ...(varied && { variant: points.map((p) => p.variant) }),
    freezeRate: points.map((p) => p.freezeRate ?? null),
    runs: points.map((p) => p.results.length),
    ...Object.fromEntries(
      results.metrics.flatMap((m) => {
        const spreads = points.map((p) => spreadOf(p.results.map((r) => metricOf(r, m))));
        return [[m, spreads.map((s) => finite(s.mean))], [`${m}Sd`, spreads.map((s) => finite(s.sd))]];
      }),
    ),
    activationMiB: points.map((p) => mean(p, (r) => r.activationBytes / MIB)),
    peakMiB: points.map((p) => mean(p, (r) => r.peakBytes / MIB)),
    timesLessThanPlain: points.map((p) => mean(p, (r) => r.fullActivationBytes / r.activationBytes)),
    frozenShare: points.map((p) => mean(p, (r) => r.frozenShare)),
    secondsPerStep: points.map((p) => mean(p, (r) => r.secondsPerStep)),
  } as never);
}
