/**
 * The GLUE tasks from their official TSV files. A row is split on tabs alone: a quote is an ordinary character. Columns are found by the header's names (CoLA has
 * none: source, label, mark, sentence).
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { DataRowError, FileMissingError, UnknownTaskError } from '../errors';
import type { Predictions } from '../models/model';
import { accuracy, argmaxRows, f1, matthewsCorrelation, pearson, spearman } from './metrics';

/** One example: a text or a pair, and a class index or score. */
export interface Example {
  readonly text: string;
  readonly pair?: string;
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
  /** Official metrics of predictions, the leading one first. */
  readonly metrics: (predictions: Predictions) => Readonly<Record<string, number>>;
  /** Columns of text, pair and label: by header name, or by number for a file without header. */
  readonly columns: { readonly text: string | number; readonly pair?: string; readonly label: string | number };
}

const classes = (p: Predictions): Int32Array => argmaxRows(p.logits, p.numLabels);
const onlyAccuracy = (p: Predictions) => ({ accuracy: accuracy(classes(p), p.labels) });
const accuracyAndF1 = (p: Predictions) => ({ accuracy: accuracy(classes(p), p.labels), f1: f1(classes(p), p.labels) });
const NOT_ENTAILED = ['entailment', 'not_entailment'];

type Spec = Omit<GlueTask, 'name' | 'trainFile' | 'devFile' | 'numLabels'> & Partial<Pick<GlueTask, 'devFile'>>;

const SPECS: Readonly<Record<string, Spec>> = {
  cola: { folder: 'CoLA', labels: ['unacceptable', 'acceptable'], columns: { text: 3, label: 1 }, metrics: (p) => ({ matthews: matthewsCorrelation(classes(p), p.labels), accuracy: accuracy(classes(p), p.labels) }) },
  sst2: { folder: 'SST-2', labels: ['negative', 'positive'], columns: { text: 'sentence', label: 'label' }, metrics: onlyAccuracy },
  mrpc: { folder: 'MRPC', labels: ['not_equivalent', 'equivalent'], columns: { text: '#1 String', pair: '#2 String', label: 'Quality' }, metrics: accuracyAndF1 },
  rte: { folder: 'RTE', labels: NOT_ENTAILED, columns: { text: 'sentence1', pair: 'sentence2', label: 'label' }, metrics: onlyAccuracy },
  stsb: { folder: 'STS-B', labels: [], columns: { text: 'sentence1', pair: 'sentence2', label: 'score' }, metrics: (p) => ({ pearson: pearson(p.logits, p.labels), spearman: spearman(p.logits, p.labels) }) },
  qnli: { folder: 'QNLI', labels: NOT_ENTAILED, columns: { text: 'question', pair: 'sentence', label: 'label' }, metrics: onlyAccuracy },
  qqp: { folder: 'QQP', labels: ['not_duplicate', 'duplicate'], columns: { text: 'question1', pair: 'question2', label: 'is_duplicate' }, metrics: accuracyAndF1 },
  mnli: { folder: 'MNLI', labels: ['entailment', 'neutral', 'contradiction'], devFile: 'dev_matched.tsv', columns: { text: 'sentence1', pair: 'sentence2', label: 'gold_label' }, metrics: onlyAccuracy },
  wnli: { folder: 'WNLI', labels: ['not_entailment', 'entailment'], columns: { text: 'sentence1', pair: 'sentence2', label: 'label' }, metrics: onlyAccuracy },
};

/** All nine tasks by name. */
export const GLUE_TASKS: Readonly<Record<string, GlueTask>> = Object.fromEntries(
  Object.entries(SPECS).map(([name, s]) => [name, { name, trainFile: 'train.tsv', devFile: 'dev.tsv', numLabels: s.labels.length || 1, ...s }]),
);

/** A task by name; case, dash and underscore do not matter. @throws UnknownTaskError */
export function glueTask(name: string): GlueTask {
  const key = name.toLowerCase().replace(/[-_]/g, '');
  if (!Object.hasOwn(GLUE_TASKS, key)) throw new UnknownTaskError(`no task is called '${name}': choose one of ${Object.keys(GLUE_TASKS).join(', ')}`);
  return GLUE_TASKS[key];
}

/** Both parts of a task from GLUE's folder or the task's own. @throws FileMissingError, DataRowError, UnknownTaskError */
export function loadGlue(task: string | GlueTask, folder: string): { train: Example[]; dev: Example[] } {
  const t = typeof task === 'string' ? glueTask(task) : task;
  const inside = path.join(folder, t.folder);
  const at = existsSync(inside) ? inside : folder;
  return { train: readGlueFile(t, path.join(at, t.trainFile)), dev: readGlueFile(t, path.join(at, t.devFile)) };
}

/** Classes are written as names in some files and as numbers in others. */
const NUMBERED = new Set(['cola', 'sst2', 'mrpc', 'qqp', 'wnli']);

/** The examples of one TSV file, in order. @throws FileMissingError, DataRowError with file, line and reason */
export function readGlueFile(task: GlueTask, file: string): Example[] {
  if (!existsSync(file)) throw new FileMissingError(`no ${file}: download GLUE's ${task.folder}, or name the folder that holds it`);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(file));
  } catch {
    throw new DataRowError(file, 1, 'the file is no UTF-8 text');
  }
  const lines = text.split('\n').map((l) => (l.endsWith('\r') ? l.slice(0, -1) : l));
  if (lines.at(-1) === '') lines.pop();
  const hasHeader = typeof task.columns.text === 'string';
  const header = hasHeader ? (lines[0] ?? '').split('\t') : undefined;
  const column = (c: string | number): number => {
    if (typeof c === 'number') return c;
    const i = header!.indexOf(c);
    if (i < 0) throw new DataRowError(file, 1, `no column '${c}' among ${header!.map((h) => `'${h}'`).join(', ')}`);
    return i;
  };
  const at = { text: column(task.columns.text), pair: task.columns.pair === undefined ? undefined : column(task.columns.pair), label: column(task.columns.label) };
  const width = header?.length ?? 4;
  const examples: Example[] = [];
  for (let i = hasHeader ? 1 : 0; i < lines.length; i++) {
    const fields = lines[i].split('\t');
    const bad = (reason: string): never => {
      throw new DataRowError(file, i + 1, reason);
    };
    if (fields.length !== width) bad(`${fields.length} columns instead of ${width}`);
    const value = (c: number, what: string): string => fields[c] || bad(`no ${what} in column ${c + 1}`);
    examples.push({
      text: value(at.text, 'text'),
      ...(at.pair === undefined ? {} : { pair: value(at.pair, 'second text') }),
      label: labelOf(task, value(at.label, 'label'), bad),
    });
  }
  if (examples.length === 0) throw new DataRowError(file, 1, 'no rows');
  return examples;
}

function labelOf(task: GlueTask, text: string, bad: (reason: string) => never): number {
  if (task.labels.length === 0) {
    const score = Number(text);
    return Number.isFinite(score) && score >= 0 && score <= 5 ? score : bad(`score '${text}' is no number from 0 to 5`);
  }
  const i = NUMBERED.has(task.name) ? task.labels.findIndex((_, k) => String(k) === text) : task.labels.indexOf(text);
  const known = NUMBERED.has(task.name) ? task.labels.map((_, k) => k) : task.labels;
  return i >= 0 ? i : bad(`label '${text}' is none of ${known.join(', ')}`);
}
