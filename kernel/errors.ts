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
const INTERNAL = /^\s+at .*(node_modules\/tslab\/|node:vm|node:internal|node:async_hooks|\/dist\/kernel\/)|^\s+at new Promise/;
/** What Node puts before the stack of an error that left a script: file, line of compiled code and a caret. */
const ARROW = /^\S+:\d+\n.*\n\s*\^+\n\n/;

/** The error of a cell: of a type error every place, of a thrown value its name, text and stack. */
export function errorContent(failure: unknown, source: string): ErrorContent {
  const f = failure as CellFailure | undefined;
  if (f?.kind === 'types') {
    const [first] = f.diagnostics;
    return { ename: 'TypeScriptError', evalue: `TS${first.code}: ${first.messageText}`, traceback: f.diagnostics.map((d) => pointAt(d, source)) };
  }
  const error = f?.kind === 'throw' ? f.error : failure;
  if (isError(error)) return { ename: error.name ?? 'Error', evalue: String(error.message), traceback: tracebackOf(error) };
  return { ename: 'Error', evalue: inspect(error), traceback: [`Uncaught ${inspect(error)}`] };
}

function isError(value: unknown): value is Error {
  return typeof value === 'object' && value !== null && typeof (value as Partial<Error>).stack === 'string';
}

/** The stack without the kernel's own frames, then those of what caused it. */
function tracebackOf(error: Error): string[] {
  const lines: string[] = [];
  const seen = new Set<unknown>();
  for (let e: unknown = error; isError(e) && !seen.has(e); e = e.cause) {
    const [first, ...frames] = e.stack!.replace(ARROW, '').split('\n');
    lines.push(seen.size === 0 ? first : `Caused by: ${first}`, ...frames.filter((f) => !INTERNAL.test(f)));
    seen.add(e);
  }
  return lines;
}

function pointAt(d: CellDiagnostic, source: string): string {
  const { line, character } = d.start;
  const head = `${RED}TS${d.code}${RESET} ${d.fileName ? `${d.fileName} ` : ''}${line + 1}:${character + 1} - ${d.messageText}`;
  if (d.fileName) return head;
  const width = Math.max(1, d.end.line === line ? d.end.character - character : 1);
  return `${head}\n    ${source.split('\n')[line] ?? ''}\n    ${' '.repeat(character)}${RED}${'~'.repeat(width)}${RESET}`;
}
