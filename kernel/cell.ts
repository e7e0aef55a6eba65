/** One execution of a cell: what it prints, shows and whether it is interrupted follows the code that it started, through awaits. */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { MimeBundle } from '../src/inspect/kernelApi';
import type { Header } from './wire';

/** Thrown into a cell whose stop button was pressed. */
export class InterruptError extends Error {
  constructor() {
    super('interrupted');
    this.name = 'InterruptError';
  }
}

/** One execution. */
export class Cell {
  readonly abort = new AbortController();
  /** Value of the cell's last expression. */
  result: { readonly value: unknown } | undefined;
  /** What the front end is asked to do when the cell has ended: show a page. */
  readonly payload: { readonly source: 'page'; readonly data: MimeBundle; readonly start: number }[] = [];
  /** First error that the language engine reported. */
  error: unknown;

  constructor(
    readonly header: Header | undefined,
    readonly silent: boolean,
    readonly interruptsBefore: number,
  ) {}
}

const current = new AsyncLocalStorage<Cell>();
let latest: Cell | undefined;

/** Runs code as part of a cell. */
export function within<R>(cell: Cell, fn: () => R): R {
  // What a silent run prints is not shown, so code without a context must not fall to it.
  if (!cell.silent) latest = cell;
  return current.run(cell, fn);
}

/** The cell that the running code belongs to; of code that lost its context, the latest one. */
export function runningCell(): Cell | undefined {
  return current.getStore() ?? latest;
}
