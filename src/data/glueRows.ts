/** GLUE as the hub's data set `glue` has it: rows with a column for each text, and the class by number. */
import { DataRowError } from '../errors';
import { shown } from '../shown';
import type { Example, GlueTask } from './glue';

/** Columns of text and pair, where they are not called as in the TSV files. */
const COLUMNS: Readonly<Record<string, { readonly text: string; readonly pair?: string }>> = {
  cola: { text: 'sentence' },
  mrpc: { text: 'sentence1', pair: 'sentence2' },
  mnli: { text: 'premise', pair: 'hypothesis' },
};

/** Names of the splits with labels. */
export function glueSplits(task: GlueTask): { readonly train: string; readonly dev: string; readonly devMismatched?: string } {
  return task.mismatchedDevFile ? { train: 'train', dev: 'validation_matched', devMismatched: 'validation_mismatched' } : { train: 'train', dev: 'validation' };
}

/**
 * Examples of rows, in order.
 * @param where what errors call them
 * @throws DataRowError with the row (from 1): no text, a label that is none of the task's
 */
export function glueExamples(task: GlueTask, rows: readonly Readonly<Record<string, unknown>>[], where: string): Example[] {
  const { text, pair } = COLUMNS[task.name] ?? { text: String(task.columns.text), pair: task.columns.pair as string | undefined };
  return rows.map((row, i) => {
    const bad = (reason: string): never => {
      throw new DataRowError(where, i + 1, reason);
    };
    const string = (column: string): string => (typeof row[column] === 'string' && row[column] !== '' ? (row[column] as string) : bad(`no text in column '${column}'`));
    // Parquet's 64-bit integers come as bigint.
    const label = typeof row.label === 'number' || typeof row.label === 'bigint' ? Number(row.label) : NaN;
    const fits = task.labels.length === 0 ? label >= 0 && label <= 5 : Number.isInteger(label) && label >= 0 && label < task.labels.length;
    if (!fits) bad(`label ${shown(row.label)} is no ${task.labels.length === 0 ? 'score from 0 to 5' : `class from 0 to ${task.labels.length - 1}`}`);
    return { text: string(text), ...(pair === undefined ? {} : { pair: string(pair) }), label };
  });
}
