/**
 * Any value as a short text for an error. What comes from a file can be anything: an object whose `toString` is a number, lists in lists a hundred thousand deep, a text of megabytes. String() and JSON.stringify throw at
 * the first two and copy the third.
 */

/** Characters of a text that are shown. */
const MOST_CHARACTERS = 160;
/** Items of a list or object that are shown, and lists in lists. */
const MOST_ITEMS = 12;
const MOST_DEPTH = 4;

/** A text as it is, long ones cut. */
export function cut(text: string): string {
  return text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}…` : text;
}

/** A value as JSON writes it, cut to a size that an error can bear; what JSON lacks by its name. Never throws. */
export function shown(value: unknown): string {
  return cut(spelled(value, MOST_DEPTH));
}

function spelled(value: unknown, depth: number): string {
  if (typeof value === 'string') return JSON.stringify(cut(value));
  if (value === null || typeof value !== 'object') return typeof value === 'function' || typeof value === 'symbol' ? `a ${typeof value}` : String(value);
  if (ArrayBuffer.isView(value)) return `${value.byteLength} bytes`;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'an invalid date' : JSON.stringify(value);
  const isList = Array.isArray(value);
  if (depth === 0) return isList ? '[…]' : '{…}';
  const keys = Object.keys(value);
  const items = keys.slice(0, MOST_ITEMS).map((k) => `${isList ? '' : `${JSON.stringify(cut(k))}:`}${spelled((value as Record<string, unknown>)[k], depth - 1)}`);
  if (keys.length > MOST_ITEMS) items.push('…');
  return isList ? `[${items.join(',')}]` : `{${items.join(',')}}`;
}
