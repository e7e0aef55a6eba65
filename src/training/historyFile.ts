/** Writes a history's tables as CSV files, which any program reads. */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { toCSV } from 'arquero';
import type { History } from './history';

/** Writes `steps.csv`, `layers.csv`, `activations.csv` and `evaluations.csv` into a folder; each appears whole or not at all. @returns the files */
export function saveHistory(history: History, folder: string): string[] {
  mkdirSync(folder, { recursive: true });
  return (['steps', 'layers', 'activations', 'evaluations'] as const).map((name) => {
    const file = path.join(folder, `${name}.csv`);
    writeFileSync(`${file}.tmp`, `${toCSV(history[name]())}\n`);
    renameSync(`${file}.tmp`, file);
    return file;
  });
}
