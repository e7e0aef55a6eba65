/** An arquero table as Jupyter shows it: HTML with numbers aligned and of sensible length, and plain text beside it. All text is escaped. */
import type { ColumnTable } from 'arquero';

/** Rows shown; the caption tells how many there are. */
const MAX_ROWS = 50;

/** A table as data by mime type. */
export function tableBundle(table: ColumnTable): Record<string, string> {
  return { 'text/html': tableHtml(table), 'text/plain': tableText(table) };
}

/** Short text of a number: whole ones with thousands separated, others with four significant digits. */
export function formatNumber(x: number): string {
  if (!Number.isFinite(x)) return String(x);
  if (Number.isInteger(x) && Math.abs(x) < 1e15) return x.toLocaleString('en-US');
  const a = Math.abs(x);
  return a >= 1e-3 && a < 1e6 ? String(Number(x.toPrecision(4))) : x.toExponential(3);
}

function formatCell(value: unknown): string {
  if (value === null || value === undefined) return '';
  return typeof value === 'number' ? formatNumber(value) : String(value);
}

/** Escapes text for HTML. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

function shown(table: ColumnTable): { names: string[]; rows: unknown[][]; total: number } {
  const names = table.columnNames();
  const rows = (table.objects({ limit: MAX_ROWS }) as Record<string, unknown>[]).map((o) => names.map((n) => o[n]));
  return { names, rows, total: table.numRows() };
}

function tableHtml(table: ColumnTable): string {
  const { names, rows, total } = shown(table);
  const numeric = names.map((_, i) => rows.some((r) => typeof r[i] === 'number'));
  const style = (i: number) => ` style="text-align:${numeric[i] ? 'right' : 'left'};white-space:nowrap"`;
  const cells = (tag: string, values: readonly string[]) => values.map((v, i) => `<${tag}${style(i)}>${escapeHtml(v)}</${tag}>`).join('');
  const caption = total > rows.length ? `first ${rows.length} of ${formatNumber(total)} rows` : `${formatNumber(total)} row${total === 1 ? '' : 's'}`;
  return `<div style="overflow-x:auto"><table style="font-variant-numeric:tabular-nums"><thead><tr>${cells('th', names)}</tr></thead><tbody>${rows
    .map((r) => `<tr>${cells('td', r.map(formatCell))}</tr>`)
    .join('')}</tbody></table><small>${caption} × ${names.length} columns</small></div>`;
}

function tableText(table: ColumnTable): string {
  const { names, rows, total } = shown(table);
  const grid = [names, ...rows.map((r) => r.map(formatCell))];
  const widths = names.map((_, i) => Math.max(...grid.map((r) => r[i].length)));
  const lines = grid.map((r) => r.map((c, i) => c.padStart(widths[i])).join('  '));
  return [...lines, ...(total > rows.length ? [`… ${total} rows`] : [])].join('\n');
}
