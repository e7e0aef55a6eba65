/** The cells of this session, for front ends that ask for them (history_request). */

/** One cell: session (always 1, this kernel's), execution count, source; where outputs are asked for, source and the text of its result. */
export type HistoryEntry = readonly [session: number, count: number, source: string | readonly [source: string, result: string | null]];

interface Cell {
  readonly count: number;
  readonly source: string;
  result: string | null;
}

/** Cells kept: enough for any session by hand. */
const KEPT = 10_000;

export class SessionHistory {
  private cells: Cell[] = [];

  add(count: number, source: string): void {
    this.cells.push({ count, source, result: null });
    if (this.cells.length > KEPT) this.cells.shift();
  }

  /** Notes the result of the cell with a count. */
  addResult(count: number, text: string): void {
    const cell = this.cells.findLast((c) => c.count === count);
    if (cell) cell.result = text;
  }

  /** What a history_request asks for: the last `n` cells, a range of counts, or those that match a pattern of `*` and `?`. */
  query(request: Record<string, unknown>): readonly HistoryEntry[] {
    return this.find(request).map((c) => [1, c.count, request.output === true ? [c.source, c.result] : c.source]);
  }

  private find(request: Record<string, unknown>): readonly Cell[] {
    const { hist_access_type: kind, n, start, stop, session, pattern, unique } = request;
    const last = (found: readonly Cell[]) => (typeof n === 'number' ? found.slice(Math.max(0, found.length - n)) : found);
    if (kind === 'tail') return last(this.cells);
    if (kind === 'range') {
      if (session !== 0 && session !== 1) return [];
      return this.cells.filter(({ count }) => count >= Number(start ?? 0) && (typeof stop !== 'number' || count < stop));
    }
    if (kind === 'search' && typeof pattern === 'string') {
      const glob = new RegExp(`^${pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&').replace(/\*/g, '[^]*').replace(/\?/g, '[^]')}$`);
      const found = this.cells.filter((c) => glob.test(c.source));
      return last(unique === true ? [...new Map(found.map((c) => [c.source, c])).values()] : found);
    }
    return [];
  }
}
