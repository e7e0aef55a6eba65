/** The cells of this session, for front ends that ask for them (history_request). */

/** One cell: session (always 1, this kernel's), execution count, source. */
export type HistoryEntry = readonly [session: number, count: number, source: string];

/** Cells kept: enough for any session by hand. */
const KEPT = 10_000;

export class SessionHistory {
  private entries: HistoryEntry[] = [];

  add(count: number, source: string): void {
    this.entries.push([1, count, source]);
    if (this.entries.length > KEPT) this.entries.shift();
  }

  /** What a history_request asks for: the last `n` cells, a range of counts, or those that match a pattern of `*` and `?`. */
  query(request: Record<string, unknown>): readonly HistoryEntry[] {
    const { hist_access_type: kind, n, start, stop, session, pattern, unique } = request;
    const last = (found: readonly HistoryEntry[]) => (typeof n === 'number' ? found.slice(Math.max(0, found.length - n)) : found);
    if (kind === 'tail') return last(this.entries);
    if (kind === 'range') {
      if (session !== 0 && session !== 1) return [];
      return this.entries.filter(([, count]) => count >= Number(start ?? 0) && (typeof stop !== 'number' || count < stop));
    }
    if (kind === 'search' && typeof pattern === 'string') {
      const glob = new RegExp(`^${pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&').replace(/\*/g, '[^]*').replace(/\?/g, '[^]')}$`);
      const found = this.entries.filter(([, , source]) => glob.test(source));
      return last(unique === true ? [...new Map(found.map((e) => [e[2], e])).values()] : found);
    }
    return [];
  }
}
