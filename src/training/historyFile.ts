/** A history on disk: one JSON file from which it comes back whole, and its tables as CSV files, which any program reads. */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { toCSV } from 'arquero';
import { FileMissingError, InvalidArgumentError } from '../errors';
import { History, type StoredHistory } from './history';

const WHOLE = 'history.json';
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
 * @param folder what `saveHistory` wrote to (`slimfit train --out`), or the `history.json` in it
 * @throws FileMissingError, InvalidArgumentError for a damaged file
 */
export function loadHistory(folder: string): History {
  const file = folder.endsWith('.json') ? folder : path.join(folder, WHOLE);
  if (!existsSync(file)) throw new FileMissingError(`there is no ${file}: give the folder that saveHistory wrote to, or that \`slimfit train --out\` named`);
  let stored: unknown;
  try {
    stored = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new InvalidArgumentError(`${file} is damaged: ${(error as Error).message}`, { cause: error });
  }
  return History.fromJSON(stored as StoredHistory);
}
