/** A cell that is only `name?` or `?name` asks what the name is, as in IPython; no TypeScript looks like that. */

const QUESTION = /^\s*(?:\?{1,2}\s*(?<after>[\p{ID_Start}$_][\p{ID_Continue}$.]*)|(?<before>[\p{ID_Start}$_][\p{ID_Continue}$.]*)\s*\?{1,2})\s*$/u;

/** The name that a cell asks about. */
export function questionIn(source: string): string | undefined {
  const { after, before } = QUESTION.exec(source)?.groups ?? {};
  return after ?? before;
}
