/** What a front end shows of a failed cell: a name, a line, and a traceback that points into the user's source. */
import { inspect } from 'node:util';
import type { CellDiagnostic, CellFailure } from './languageService';

/** Content of an `error` message. */
export interface ErrorContent {
  readonly ename: string;
  readonly evalue: string;
  readonly traceback: readonly string[];
}

const RED = '\x1b[31m';
const RESET = '\x1b[0m';
/** Frames of the machinery below the user's code. */
const INTERNAL = /node_modules\/tslab\/|node:vm|node:internal|node:async_hooks|\/dist\/kernel\/|at evalmachine|^\s+at new Promise/;

/** The error of a cell: of a type error every place, of a thrown value its name, text and stack. */
export function errorContent(failure: unknown, source: string): ErrorContent {
  const f = failure as CellFailure | undefined;
  if (f?.kind === 'types') {
    const [first] = f.diagnostics;
    return { ename: 'TypeScriptError', evalue: `TS${first.code}: ${first.messageText}`, traceback: f.diagnostics.map((d) => pointAt(d, source)) };
  }
  const error = f?.kind === 'throw' ? f.error : failure;
  const e = error as Partial<Error> | undefined;
  if (e && typeof e === 'object' && typeof e.stack === 'string')
    return { ename: e.name ?? 'Error', evalue: String(e.message), traceback: e.stack.split('\n').filter((line) => !INTERNAL.test(line)) };
  return { ename: 'Error', evalue: inspect(error), traceback: [`Uncaught ${inspect(error)}`] };
}

function pointAt(d: CellDiagnostic, source: string): string {
  const { line, character } = d.start;
  const head = `${RED}TS${d.code}${RESET} ${d.fileName ? `${d.fileName} ` : ''}${line + 1}:${character + 1} - ${d.messageText}`;
  if (d.fileName) return head;
  const width = Math.max(1, d.end.line === line ? d.end.character - character : 1);
  return `${head}\n    ${source.split('\n')[line] ?? ''}\n    ${' '.repeat(character)}${RED}${'~'.repeat(width)}${RESET}`;
}
