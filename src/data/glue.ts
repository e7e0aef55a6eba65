/**
 * The GLUE tasks from their official TSV files. A row is split on tabs alone: a quote is an ordinary character. Columns are found by the header's names (CoLA has
 * none: source, label, mark, sentence).
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { UnknownTaskError } from '../errors';
import type { Predictions } from '../models/model';
import { cut } from '../shown';
import { accuracy, argmaxRows, f1, matthewsCorrelation, pearson, spearman } from './metrics';
import { readTsv } from './tsv';

/** A text or a pair that is to be predicted. */
export interface UnlabelledExample {
  readonly text: string;
  readonly pair?: string;
}

/** One example: a text or a pair, and a class index or score. */
export interface Example extends UnlabelledExample {
  readonly label: number;
}

/** One task. */
export interface GlueTask {
  readonly name: string;
  /** Folder of the official download. */
  readonly folder: string;
  /** Label names by class index; empty for a score. */
  readonly labels: readonly string[];
  /** Outputs of the head. */
  readonly numLabels: number;
  readonly trainFile: string;
  readonly devFile: string;
  /** A second development file, of other genres than training (MNLI). */
  readonly mismatchedDevFile?: string;
  /** Files whose labels are secret, and the file of predictions that the GLUE server wants for each. */
  readonly submissions: readonly { readonly testFile: string; readonly file: string }[];
  /** Official metrics of predictions, the leading one first. */
  readonly metrics: (predictions: Predictions) => Readonly<Record<string, number>>;
  /** Columns of text, pair and label: by header name, or by number for a file without header. */
  readonly columns: { readonly text: string | number; readonly pair?: string; readonly label: string | number };
}

const classes = (p: Predictions): Int32Array => argmaxRows(p.logits, p.numLabels);
const onlyAccuracy = (p: Predictions) => ({ accuracy: accuracy(classes(p), p.labels) });
const accuracyAndF1 = (p: Predictions) => ({ accuracy: accuracy(classes(p), p.labels), f1: f1(classes(p), p.labels) });
const NOT_ENTAILED = ['entailment', 'not_entailment'];

type Spec = Omit<GlueTask, 'name' | 'trainFile' | 'devFile' | 'numLabels' | 'submissions'> & Partial<Pick<GlueTask, 'devFile' | 'submissions'>>;

const MNLI_SUBMISSIONS = [
  { testFile: 'test_matched.tsv', file: 'MNLI-m.tsv' },
  { testFile: 'test_mismatched.tsv', file: 'MNLI-mm.tsv' },
];

const SPECS: Readonly<Record<string, Spec>> = {
  cola: { folder: 'CoLA', labels: ['unacceptable', 'acceptable'], columns: { text: 3, label: 1 }, metrics: (p) => ({ matthews: matthewsCorrelation(classes(p), p.labels), accuracy: accuracy(classes(p), p.labels) }) },
  sst2: { folder: 'SST-2', labels: ['negative', 'positive'], columns: { text: 'sentence', label: 'label' }, metrics: onlyAccuracy },
  mrpc: { folder: 'MRPC', labels: ['not_equivalent', 'equivalent'], columns: { text: '#1 String', pair: '#2 String', label: 'Quality' }, metrics: accuracyAndF1 },
  rte: { folder: 'RTE', labels: NOT_ENTAILED, columns: { text: 'sentence1', pair: 'sentence2', label: 'label' }, metrics: onlyAccuracy },
  stsb: { folder: 'STS-B', labels: [], columns: { text: 'sentence1', pair: 'sentence2', label: 'score' }, metrics: (p) => ({ pearson: pearson(p.logits, p.labels), spearman: spearman(p.logits, p.labels) }) },
  qnli: { folder: 'QNLI', labels: NOT_ENTAILED, columns: { text: 'question', pair: 'sentence', label: 'label' }, metrics: onlyAccuracy },
  qqp: { folder: 'QQP', labels: ['not_duplicate', 'duplicate'], columns: { text: 'question1', pair: 'question2', label: 'is_duplicate' }, metrics: accuracyAndF1 },
  mnli: { folder: 'MNLI', labels: ['entailment', 'neutral', 'contradiction'], devFile: 'dev_matched.tsv', mismatchedDevFile: 'dev_mismatched.tsv', submissions: MNLI_SUBMISSIONS, columns: { text: 'sentence1', pair: 'sentence2', label: 'gold_label' }, metrics: onlyAccuracy },
  wnli: { folder: 'WNLI', labels: ['not_entailment', 'entailment'], columns: { text: 'sentence1', pair: 'sentence2', label: 'label' }, metrics: onlyAccuracy },
};

/** All nine tasks by name. */
export const GLUE_TASKS: Readonly<Record<string, GlueTask>> = Object.fromEntries(
  Object.entries(SPECS).map(([name, s]) => [name, { name, trainFile: 'train.tsv', devFile: 'dev.tsv', numLabels: s.labels.length || 1, submissions: [{ testFile: 'test.tsv', file: `${s.folder}.tsv` }], ...s }]),
);

/** A task by name; case, dash and underscore do not matter. @throws UnknownTaskError */
export function glueTask(name: string): GlueTask {
  const key = name.toLowerCase().replace(/[-_]/g, '');
  if (!Object.hasOwn(GLUE_TASKS, key)) throw new UnknownTaskError(`no task is called '${name}': choose one of ${Object.keys(GLUE_TASKS).join(', ')}`);
  return GLUE_TASKS[key];
}

/** A task's examples; `devMismatched` where the task has such a file and it is there. */
export interface GlueData {
  readonly train: Example[];
  readonly dev: Example[];
  readonly devMismatched?: Example[];
}

/** Folder of a task: below GLUE's folder, or the folder itself. */
export function glueTaskFolder(task: GlueTask, folder: string): string {
  const inside = path.join(folder, task.folder);
  return existsSync(inside) ? inside : folder;
}

/** All parts of a task that have labels, from GLUE's folder or the task's own. @throws FileMissingError, DataRowError, UnknownTaskError */
export function loadGlue(task: string | GlueTask, folder: string): GlueData {
  const t = typeof task === 'string' ? glueTask(task) : task;
  const at = glueTaskFolder(t, folder);
  const mismatched = t.mismatchedDevFile && path.join(at, t.mismatchedDevFile);
  return {
    train: readGlueFile(t, path.join(at, t.trainFile)),
    dev: readGlueFile(t, path.join(at, t.devFile)),
    ...(mismatched && existsSync(mismatched) ? { devMismatched: readGlueFile(t, mismatched) } : {}),
  };
}

const NUMBERED: ReadonlySet<string> = new Set(['cola', 'sst2', 'mrpc', 'qqp', 'wnli']);

/** The classes as the official files write them: by number in some tasks, by name in others. */
export function writtenLabels(task: GlueTask): readonly string[] {
  return NUMBERED.has(task.name) ? task.labels.map((_, k) => String(k)) : task.labels;
}

/** The examples of one TSV file, in order. @throws FileMissingError, DataRowError with file, line and reason */
export function readGlueFile(task: GlueTask, file: string): Example[] {
  const { text, pair, label } = task.columns;
  return readTsv(file, { header: typeof text === 'string', width: 4, missing: `download GLUE's ${task.folder}, or name the folder that holds it` }, { text, pair, label }).map(
    ({ text, pair, label, bad }) => ({ text, ...(pair === undefined ? {} : { pair }), label: labelOf(task, label, bad) }),
  );
}

function labelOf(task: GlueTask, text: string, bad: (reason: string) => never): number {
  if (task.labels.length === 0) {
    // Number() alone takes '0x3' and ' 3' too.
    const score = /^\d+(\.\d+)?$/.test(text) ? Number(text) : NaN;
    return score >= 0 && score <= 5 ? score : bad(`score '${cut(text)}' is no number from 0 to 5`);
  }
  const known = writtenLabels(task);
  const i = known.indexOf(text);
  return i >= 0 ? i : bad(`label '${cut(text)}' is none of ${known.join(', ')}`);
}
