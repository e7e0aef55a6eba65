/** Predictions for the GLUE server: its test files, whose labels are secret, and the TSV files that it takes (one per task, columns `index` and `prediction`). */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { InvalidArgumentError } from '../errors';
import { checkPlainName } from '../hub/names';
import type { Predictions } from '../models/model';
import { type GlueTask, type UnlabelledExample, writtenLabels } from './glue';
import { argmaxRows } from './metrics';
import { readTsv } from './tsv';

/** The examples of a test file and their numbers, in the file's order. */
export interface GlueTest {
  readonly ids: readonly string[];
  readonly examples: readonly UnlabelledExample[];
}

/** Reads a test file, which has a header in every task. @throws FileMissingError, DataRowError */
export function readGlueTest(task: GlueTask, file: string): GlueTest {
  // CoLA's training file alone has no header.
  const text = typeof task.columns.text === 'number' ? 'sentence' : task.columns.text;
  const id = task.name === 'qqp' ? 'id' : 'index';
  const rows = readTsv(file, { header: true, width: 0, missing: `download GLUE's ${task.folder}, which has it` }, { id, text, pair: task.columns.pair });
  return { ids: rows.map((r) => r.id), examples: rows.map(({ text, pair }) => ({ text, ...(pair === undefined ? {} : { pair }) })) };
}

/**
 * The text of a submission: scores with three decimals within [0, 5], classes by number (CoLA, SST-2, MRPC, QQP, WNLI) or name.
 * @throws InvalidArgumentError when there is not one prediction for each id, or not one output for each label
 */
export function glueSubmission(task: GlueTask, ids: readonly string[], { logits, numLabels }: Pick<Predictions, 'logits' | 'numLabels'>): string {
  if (numLabels !== task.numLabels) throw new InvalidArgumentError(`the model has ${numLabels} outputs, ${task.name} needs ${task.numLabels}`);
  if (logits.length !== ids.length * numLabels) throw new InvalidArgumentError(`${logits.length / numLabels} predictions for ${ids.length} test examples`);
  const labels = writtenLabels(task);
  const values =
    task.labels.length === 0
      ? Array.from(logits, (v) => Math.min(5, Math.max(0, v)).toFixed(3))
      : Array.from(argmaxRows(logits, numLabels), (c) => labels[c]);
  return ['index\tprediction', ...ids.map((id, i) => `${id}\t${values[i]}`), ''].join('\n');
}

/** Writes a submission into a folder; the file appears whole or not at all. @returns the file @throws UnsafeFileNameError for anything but a plain file name */
export function writeGlueSubmission(folder: string, fileName: string, text: string): string {
  checkPlainName(fileName, 'the submission');
  mkdirSync(folder, { recursive: true });
  const file = path.join(folder, fileName);
  writeFileSync(`${file}.tmp`, text);
  renameSync(`${file}.tmp`, file);
  return file;
}
