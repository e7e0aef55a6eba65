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

/** The error of a cell: of a type error every place, of a thrown value its name, text and stack. Never throws, whatever was thrown. */
export function errorContent(failure: unknown, source: string): ErrorContent {
  const f = failure as CellFailure | undefined;
  if (f?.kind === 'types') {
    const [first] = f.diagnostics;
    return { ename: 'TypeScriptError', evalue: `TS${first.code}: ${first.messageText}`, traceback: f.diagnostics.map((d) => pointAt(d, source)) };
  }
  const error = f?.kind === 'throw' ? f.error : failure;
  try {
    if (isError(error)) return { ename: String(error.name ?? 'Error'), evalue: String(error.message), traceback: tracebackOf(error) };
  } catch {
    // Its getters throw: shown like any other value.
  }
  const text = textOf(error);
  return { ename: 'Error', evalue: text, traceback: [`Uncaught ${text}`] };
}

/** A value as text; of one whose own inspection throws, that it does. */
export function textOf(value: unknown): string {
  try {
    return inspect(value);
  } catch {
    return '[a value that cannot be shown: its own inspection throws]';
  }
}

function isError(value: unknown): value is Error {
  try {
    return typeof value === 'object' && value !== null && typeof (value as Partial<Error>).stack === 'string';
  } catch {
    return false;
  }
}

/** The stack without the kernel's own frames, then those of what caused it and of what it gathers. */
function tracebackOf(error: Error): string[] {
  const lines: string[] = [];
  const seen = new Set<unknown>();
  const add = (e: unknown, before: string): void => {
    if (seen.has(e)) return;
    seen.add(e);
    if (!isError(e)) return void lines.push(`${before}${textOf(e)}`);
    const [first, ...frames] = e.stack!.replace(ARROW, '').split('\n');
    lines.push(`${before}${first}`, ...frames.filter((f) => !INTERNAL.test(f)));
    if (e.cause !== undefined) add(e.cause, 'Caused by: ');
    if (e instanceof AggregateError) e.errors.forEach((one, i) => add(one, `${i + 1} of ${e.errors.length}: `));
  };
  add(error, '');
  return lines;
}

function pointAt(d: CellDiagnostic, source: string): string {
  const { line, character } = d.start;
  const head = `${RED}TS${d.code}${RESET} ${d.fileName ? `${d.fileName} ` : ''}${line + 1}:${character + 1} - ${d.messageText}`;
  if (d.fileName) return head;
  const width = Math.max(1, d.end.line === line ? d.end.character - character : 1);
  return `${head}\n    ${source.split('\n')[line] ?? ''}\n    ${' '.repeat(character)}${RED}${'~'.repeat(width)}${RESET}`;
}
