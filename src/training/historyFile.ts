/** A history on disk: one JSON file from which it comes back whole, and its tables as CSV files, which any program reads. In a checkpoint, its columns as tensors of a safetensors file, however many there are. */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { toCSV } from 'arquero';
import { FileMissingError, InvalidArgumentError } from '../errors';
import { rawTypeOf, safetensorsContents, SafetensorsReader, type TensorPlan } from '../hub/safetensors';
import { checkHead, History, type HistoryHead, type HistoryParts, type StoredHistory } from './history';
import type { ColumnValues } from './columns';

const WHOLE = 'history.json';
const COLUMNS = 'history.safetensors';
const TABLES = ['steps', 'layers', 'activations', 'evaluations'] as const;

/** Writes `history.json`, `steps.csv`, `layers.csv`, `activations.csv` and `evaluations.csv` into a folder; each appears whole or not at all. @returns the files */
export function saveHistory(history: History, folder: string): string[] {
  mkdirSync(folder, { recursive: true });
  const contents: [string, string][] = [[WHOLE, JSON.stringify(history)], ...TABLES.map((name): [string, string] => [`${name}.csv`, toCSV(history[name]())])];
  return contents.map(([name, text]) => {
    const file = path.join(folder, name);
    writeFileSync(`${file}.tmp`, `${text}\n`);
    renameSync(`${file}.tmp`, file);
    return file;
  });
}

/**
 * Reads a history back: every table and figure shows of it what it showed of the run.
 * @param folder what `saveHistory` wrote to (`slimfit train --out`), the `history.json` in it, or a checkpoint
 * @throws FileMissingError, CheckpointError, InvalidArgumentError for a damaged file
 */
export function loadHistory(folder: string): History {
  const file = folder.endsWith('.json') ? folder : path.join(folder, WHOLE);
  const stored = readJson(file) as StoredHistory;
  return naming(file, () => (stored?.columns ? History.fromJSON(stored) : History.fromParts(readHistoryParts(path.dirname(file)))));
}

/** Puts the file's name before what is wrong with its contents. */
function naming<T>(file: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof InvalidArgumentError && !error.message.includes(file)) throw new InvalidArgumentError(`${file}: ${error.message}`, { cause: error });
    throw error;
  }
}

function readJson(file: string): unknown {
  if (!existsSync(file)) throw new FileMissingError(`there is no ${file}: give the folder that saveHistory wrote to, a checkpoint, or what \`slimfit train --out\` named`);
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new InvalidArgumentError(`${file} is damaged: ${(error as Error).message}`, { cause: error });
  }
}

/** A history as the two files of a checkpoint, `history.json` and `history.safetensors`, as it is now. */
export function historyContents(history: History): { readonly bytes: number; head(): Iterable<Uint8Array>; columns(): AsyncIterable<Uint8Array> } {
  const { head, columns } = history.parts();
  const text = Buffer.from(`${JSON.stringify(head)}\n`);
  const plans = [...columns].map(([name, values]): TensorPlan => ({ name, shape: [values.length], dtype: rawTypeOf(name, values) }));
  return {
    bytes: text.length + [...columns.values()].reduce((sum, values) => sum + values.byteLength, 0),
    head: () => [text],
    columns: () => safetensorsContents(plans, (name) => columns.get(name)!, { format: 'np' }),
  };
}

/** The same read back. @throws FileMissingError, CheckpointError, InvalidArgumentError */
export function readHistoryParts(folder: string): HistoryParts {
  const file = path.join(folder, WHOLE);
  const head = readJson(file) as HistoryHead;
  naming(file, () => checkHead(head));
  const reader = SafetensorsReader.open(path.join(folder, COLUMNS));
  try {
    return { head, columns: new Map(reader.names.map((name) => [name, reader.read(name) as ColumnValues])) };
  } finally {
    reader.close();
  }
}
