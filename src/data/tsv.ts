/** GLUE's TSV files: UTF-8, split on tabs alone, a quote is an ordinary character; lines end in LF or CRLF. Strict: a row of another width is an error, not a guess. */
import { DataRowError } from '../errors';
import { cut } from '../shown';
import { readDataFile, utf8 } from './dataFile';

/** What a file is like. */
export interface TsvLayout {
  /** Whether the first line names the columns. */
  readonly header: boolean;
  /** Columns of a file without header. */
  readonly width: number;
  /** What to do when there is no such file. */
  readonly missing: string;
}

/** The wanted columns by their name here: by the header's name or by number; those that are undefined are left out. */
type Columns = Readonly<Record<string, string | number | undefined>>;

/** One row, and a way to refuse it that names file and line. */
type Row<C extends Columns> = { readonly [K in keyof C]: undefined extends C[K] ? string | undefined : string } & { readonly bad: (reason: string) => never };

/** Reads columns of a file; every wanted value must be there. @throws FileMissingError, DataRowError with file, line (from 1) and reason */
export function readTsv<C extends Columns>(file: string, layout: TsvLayout, columns: C): Row<C>[] {
  const text = utf8(readDataFile(file, layout.missing));
  if (text === undefined) throw new DataRowError(file, 1, 'the file is no UTF-8 text');
  const lines = text.split('\n').map((l) => (l.endsWith('\r') ? l.slice(0, -1) : l));
  if (lines.at(-1) === '') lines.pop();
  const header = layout.header ? (lines[0] ?? '').split('\t') : undefined;
  const wanted = Object.entries(columns).flatMap(([key, c]): [string, number][] => {
    if (c === undefined) return [];
    if (typeof c === 'number') return [[key, c]];
    const i = header ? header.indexOf(c) : -1;
    if (i < 0) throw new DataRowError(file, 1, `no column '${c}' among ${cut((header ?? []).map((h) => `'${h}'`).join(', '))}`);
    if (header!.lastIndexOf(c) !== i) throw new DataRowError(file, 1, `two columns are called '${c}'`);
    return [[key, i]];
  });
  const width = header?.length ?? layout.width;
  const rows: Row<C>[] = [];
  for (let i = layout.header ? 1 : 0; i < lines.length; i++) {
    const fields = lines[i].split('\t');
    const bad = (reason: string): never => {
      throw new DataRowError(file, i + 1, reason);
    };
    if (fields.length !== width) bad(`${fields.length} columns instead of ${width}`);
    const values = Object.fromEntries(wanted.map(([key, c]) => [key, fields[c] || bad(`no ${key} in column ${c + 1}`)]));
    rows.push({ ...values, bad } as Row<C>);
  }
  if (rows.length === 0) throw new DataRowError(file, 1, 'no rows');
  return rows;
}
