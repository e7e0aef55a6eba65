/** An arquero table as Jupyter shows it: HTML with numbers aligned and of sensible length, and plain text beside it. All text is escaped. */
import type { ColumnTable } from 'arquero';

/** Rows shown; the caption tells how many there are. */
const MAX_ROWS = 50;
/** Characters shown of a cell that holds a list or an object. */
const MAX_TEXT = 80;

/** A table as data by mime type. */
export function tableBundle(table: ColumnTable): Record<string, string> {
  const s = shown(table);
  return { 'text/html': tableHtml(s), 'text/plain': tableText(s) };
}

/** Short text of a number: whole ones with thousands separated, others with four significant digits. */
export function formatNumber(x: number): string {
  if (!Number.isFinite(x)) return String(x);
  if (Number.isInteger(x) && Math.abs(x) < 1e15) return x.toLocaleString('en-US');
  const a = Math.abs(x);
  return a >= 1e-3 && a < 1e6 ? String(Number(x.toPrecision(4))) : x.toExponential(3);
}

/**
 * How the numbers of one column are written. Of like size: with the same decimals, so that the points stand below each other; of very different sizes (update
 * magnitudes) each with four significant digits.
 */
export function columnFormat(values: readonly number[]): (x: number) => string {
  let least = Infinity;
  let most = 0;
  let whole = true;
  for (const v of values) {
    if (!Number.isFinite(v) || v === 0) continue;
    whole &&= Number.isInteger(v);
    least = Math.min(least, Math.abs(v));
    most = Math.max(most, Math.abs(v));
  }
  if (whole || most >= 1e6 || most < 1e-2 || least < most / 1e3) return formatNumber;
  const decimals = Math.max(1, 3 - Math.floor(Math.log10(most)));
  return (x) => (Number.isFinite(x) ? x.toLocaleString('en-US', { minimumFractionDigits: decimals, maximumFractionDigits: decimals }) : String(x));
}

function formatOther(value: unknown): string {
  if (value === null || value === undefined) return '';
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'invalid date' : value.toISOString().replace(/T00:00:00\.000Z$/, '');
  if (typeof value === 'bigint') return value.toLocaleString('en-US');
  if (typeof value !== 'object') return String(value);
  const list = ArrayBuffer.isView(value) ? Array.from(value as Float64Array).slice(0, MAX_TEXT) : value;
  const text = JSON.stringify(list, (_, v: unknown) => (typeof v === 'bigint' ? String(v) : v)) ?? String(value);
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT - 1)}…` : text;
}

/** Escapes text for HTML and SVG. Characters that XML does not allow, which would spoil a whole picture, become �. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`).replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '\ufffd');
}

/** Control characters as their pictures (␛, ␊): in a terminal they would move the cursor, in a table break the row. */
const visible = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (c) => (c < ' ' ? String.fromCharCode(0x2400 + c.charCodeAt(0)) : c === '\u007f' ? '␡' : '\ufffd'));

interface Shown {
  readonly names: readonly string[];
  /** Rows of texts. */
  readonly rows: readonly (readonly string[])[];
  /** Which columns hold numbers. */
  readonly numeric: readonly boolean[];
  readonly caption: string;
}

function shown(table: ColumnTable): Shown {
  const names = table.columnNames();
  const objects = table.objects({ limit: MAX_ROWS }) as Record<string, unknown>[];
  const isNumber = (v: unknown) => typeof v === 'number' || typeof v === 'bigint';
  const columns = names.map((n) => {
    const format = columnFormat(objects.map((o) => o[n]).filter((v): v is number => typeof v === 'number'));
    return objects.map((o) => (typeof o[n] === 'number' ? format(o[n] as number) : visible(formatOther(o[n]))));
  });
  const total = table.numRows();
  const rows = total > objects.length ? `first ${objects.length} of ${formatNumber(total)} rows` : `${formatNumber(total)} row${total === 1 ? '' : 's'}`;
  return {
    names: names.map(visible),
    rows: objects.map((_, r) => columns.map((c) => c[r])),
    numeric: names.map((n) => objects.some((o) => isNumber(o[n]))),
    caption: `${rows} × ${names.length} column${names.length === 1 ? '' : 's'}`,
  };
}

/** Colours are the page's own, so it reads on light and on dark. */
function tableHtml({ names, rows, numeric, caption }: Shown): string {
  const cells = (tag: string, texts: readonly string[]) => texts.map((t, i) => `<${tag} style="text-align:${numeric[i] ? 'right' : 'left'};white-space:nowrap">${escapeHtml(t)}</${tag}>`).join('');
  return `<div style="overflow-x:auto"><table style="font-variant-numeric:tabular-nums"><thead><tr>${cells('th', names)}</tr></thead><tbody>${rows
    .map((r) => `<tr>${cells('td', r)}</tr>`)
    .join('')}</tbody></table><small>${caption}</small></div>`;
}

function tableText({ names, rows, numeric, caption }: Shown): string {
  const grid = [names, ...rows];
  const widths = names.map((_, i) => grid.reduce((w, r) => Math.max(w, r[i].length), 0));
  const lines = grid.map((r) => r.map((c, i) => (numeric[i] ? c.padStart(widths[i]) : c.padEnd(widths[i]))).join('  ').trimEnd());
  return [...lines, caption].join('\n');
}
