/**
 * A static picture of a figure: what GitHub, nbconvert and untrusted notebooks show. Draws the few kinds of traces that our figures have (scatter, bar, heatmap) without a
 * browser.
 */
import { withoutMarkup } from './markup';
import { CIVIDIS, COLOURS } from './palette';
import { escapeHtml } from './tableHtml';

/** The traces that can be drawn. */
export type Trace = Readonly<Record<string, unknown>>;

interface Axis {
  /** Position of a value on the page. */
  at(value: number | string): number;
  ticks(): { value: number | string; text: string }[];
  /** Width of one category. */
  readonly band: number;
}

const WIDTH = 760;
/** Characters shown of a category. */
const LONGEST_NAME = 32;
/** Room beside the plot for a second axis: its numbers, and its title at the edge. */
const SECOND_AXIS = 56;
/** Height of a line of the legend. */
const LEGEND_ROW = 15;
const FONT = 'font-family="sans-serif" font-size="11" fill="#7f7f7f"';

/** Kinds of traces that are drawn; of others the picture says that they are not. */
const DRAWN = new Set<unknown>(['scatter', 'bar', 'heatmap', undefined]);

/** SVG of traces under a Plotly layout. */
export function staticSvg(traces: readonly Trace[], layout: Readonly<Record<string, unknown>>): string {
  const data = traces.filter((t) => DRAWN.has(t.type)).map(completed);
  const notDrawn = [...new Set(traces.filter((t) => !DRAWN.has(t.type)).map((t) => String(t.type)))];
  const height = Number(layout.height) || 360;
  const titleOf = (o: unknown): string => {
    const t = (o as { title?: { text?: string } | string } | undefined)?.title;
    return typeof t === 'string' ? t : (t?.text ?? '');
  };
  const list = (v: unknown): (number | string)[] => (v === undefined ? [] : Array.from(v as ArrayLike<number | string>).filter((e) => e !== null));
  const ys = data.flatMap((t) => list(t.y));
  const longest = ys.reduce<number>((n, y) => (typeof y === 'string' ? Math.max(n, y.length) : n), 0);
  const named = data.filter((t) => typeof t.name === 'string' && t.showlegend !== false);
  const legendRows = wrapLegend(layout.showlegend !== false && (named.length > 1 || layout.showlegend === true) ? named : []);
  const second = data.filter((t) => t.yaxis === 'y2');
  const box = { left: Math.max(64, 24 + 6 * Math.min(longest, LONGEST_NAME)), right: WIDTH - 24 - (second.length > 0 ? SECOND_AXIS : 0), top: 64 + LEGEND_ROW * Math.max(0, legendRows.length - 1), bottom: height - 48 };
  const main = data.filter((t) => t.yaxis !== 'y2');
  const stacked = layout.barmode === 'stack';
  const x = axisOf(main.flatMap((t) => list(t.x)), layout.xaxis, box.left, box.right, valueExtent(main, 'x', stacked));
  const y = axisOf(main.flatMap((t) => list(t.y)), layout.yaxis, box.bottom, box.top, valueExtent(main, 'y', stacked));
  const parts: string[] = [];
  if (typeof layout.plot_bgcolor === 'string' && layout.plot_bgcolor !== 'rgba(0,0,0,0)')
    parts.push(`<rect x="${box.left}" y="${box.top}" width="${box.right - box.left}" height="${box.bottom - box.top}" fill="${escapeHtml(layout.plot_bgcolor)}"/>`);
  for (const { value, text } of y.ticks())
    parts.push(`<line x1="${box.left}" x2="${box.right}" y1="${r(y.at(value))}" y2="${r(y.at(value))}" stroke="#7f7f7f" stroke-opacity="0.2"/>`, label(text, box.left - 6, y.at(value) + 4, 'end'));
  for (const { value, text } of x.ticks()) parts.push(label(text, x.at(value), box.bottom + 16, 'middle'));
  const bases = new Map<number | string, number>();
  const grouped = main.filter((t) => t.type === 'bar');
  for (const t of main) {
    if (t.type === 'heatmap') parts.push(heatmap(t, x, y));
    else if (t.type === 'bar') parts.push(bars(t, x, y, stacked ? bases : new Map(), layout.barmode === 'group' ? { place: grouped.indexOf(t), of: grouped.length } : { place: 0, of: 1 }));
    else parts.push(line(t, x, y));
  }
  const upright = (text: string, at: number) => `<text transform="translate(${at} ${(box.top + box.bottom) / 2}) rotate(-90)" text-anchor="middle">${shown(text)}</text>`;
  if (second.length > 0) {
    const y2 = axisOf(second.flatMap((t) => list(t.y)), layout.yaxis2, box.bottom, box.top, valueExtent(second, 'y', false));
    for (const t of second) parts.push(line(t, x, y2));
    for (const { value, text } of y2.ticks()) parts.push(label(text, box.right + 4, y2.at(value) + 4, 'start'));
    parts.push(upright(titleOf(layout.yaxis2), WIDTH - 10));
  }
  if (notDrawn.length > 0) parts.push(label(`no static picture of: ${notDrawn.join(', ')}`, (box.left + box.right) / 2, (box.top + box.bottom) / 2, 'middle'));
  legendRows.forEach((row, r) => {
    let at = WIDTH - 24 - row.reduce((w, t) => w + legendWidth(t), 0);
    for (const t of row) {
      parts.push(symbolOf(t) ? markerAt(t, at + 15, 46 + LEGEND_ROW * r, 0, 10) : `<rect x="${(at + 10).toFixed(1)}" y="${41 + LEGEND_ROW * r}" width="10" height="10" fill="${colourOf(t)}"/>`, label(String(t.name), at + 24, 50 + LEGEND_ROW * r, 'start'));
      at += legendWidth(t);
    }
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" ${FONT}><text x="${box.left}" y="22" font-size="15">${shown(titleOf(layout))}</text>${parts.join('')}${label(
    titleOf(layout.xaxis),
    (box.left + box.right) / 2,
    height - 10,
    'middle',
  )}${upright(titleOf(layout.yaxis), 14)}</svg>`;
}

const legendWidth = (t: Trace): number => 30 + 6.2 * String(t.name).length;

/** Names of a legend in lines that fit the picture. */
function wrapLegend(named: readonly Trace[]): Trace[][] {
  const rows: Trace[][] = [];
  let room = 0;
  for (const t of named) {
    if (rows.length === 0 || room < legendWidth(t)) {
      rows.push([]);
      room = WIDTH - 48;
    }
    rows.at(-1)!.push(t);
    room -= legendWidth(t);
  }
  return rows;
}

const r = (n: number): string => n.toFixed(1);
/** Plotly's text as text of the picture. */
const shown = (text: unknown): string => escapeHtml(withoutMarkup(String(text)));
const label = (text: string, x: number, y: number, anchor: string): string => `<text x="${r(x)}" y="${r(y)}" text-anchor="${anchor}">${shown(text)}</text>`;

/** A trace with the coordinates and colours that Plotly would give it. */
function completed(t: Trace, index: number): Trace {
  const list = (v: unknown, length: number) =>
    v === undefined ? Array.from({ length }, (_, i) => i) : Array.from(v as ArrayLike<unknown>, (e) => (e instanceof Date ? e.toISOString() : typeof e === 'boolean' ? String(e) : typeof e === 'bigint' ? Number(e) : e));
  const lengthOf = (v: unknown) => (v as ArrayLike<unknown> | undefined)?.length ?? 0;
  if (t.type === 'heatmap') {
    const z = Array.from((t.z ?? []) as ArrayLike<ArrayLike<number | null>>);
    return { ...t, z, x: list(t.x, lengthOf(z[0])), y: list(t.y, z.length), colorscale: Array.isArray(t.colorscale) ? t.colorscale : CIVIDIS };
  }
  const colours = Object.values(COLOURS);
  return { ...t, x: list(t.x, lengthOf(t.y)), y: list(t.y, lengthOf(t.x)), fallbackColour: colours[index % colours.length] };
}

/** Colour of a trace, or of one of its points. */
function colourOf(t: Trace, point = 0): string {
  const of = (o: unknown) => (o as { color?: unknown } | undefined)?.color;
  const c = of(t.line) ?? of(t.marker);
  const chosen = Array.isArray(c) ? (c as unknown[])[point] : c;
  return typeof chosen === 'string' ? escapeHtml(chosen) : String(t.fallbackColour);
}

/** Smallest and largest number that a kind of traces reaches along one axis. */
function valueExtent(traces: readonly Trace[], axis: 'x' | 'y', stacked: boolean): [number, number] {
  let lo = Infinity;
  let hi = -Infinity;
  const sums = new Map<unknown, number>();
  for (const t of traces) {
    const bar = t.type === 'bar' && (t.orientation === 'h' ? axis === 'x' : axis === 'y');
    const keys = t[axis === 'x' ? 'y' : 'x'] as ArrayLike<unknown> | undefined;
    Array.from((t[axis] ?? []) as ArrayLike<number | string>).forEach((v, i) => {
      if (typeof v !== 'number' || !Number.isFinite(v)) return;
      if (t.type === 'heatmap') {
        // Cells reach half their width beyond their middle.
        const at = t[axis] as ArrayLike<number>;
        const half = at.length > 1 ? Math.abs(at[1] - at[0]) / 2 : 0.5;
        lo = Math.min(lo, v - half);
        hi = Math.max(hi, v + half);
        return;
      }
      const total = bar && stacked ? (sums.get(keys?.[i]) ?? 0) + v : v;
      if (bar && stacked) sums.set(keys?.[i], total);
      const error = errorOf(t, axis, i);
      lo = Math.min(lo, bar ? 0 : total - error);
      hi = Math.max(hi, total + error);
    });
  }
  // Markers of their own form are large: none is to stand half outside.
  if (lo < hi && traces.some(symbolOf)) return [lo - 0.05 * (hi - lo), hi + 0.05 * (hi - lo)];
  if (!(lo < hi)) return [Number.isFinite(lo) ? lo - 0.5 : 0, Number.isFinite(hi) ? hi + 0.5 : 1];
  return [lo, hi];
}

function axisOf(values: readonly (number | string)[], settings: unknown, from: number, to: number, extent: [number, number]): Axis {
  const { type, autorange, categoryarray = [] } = (settings ?? {}) as { type?: string; autorange?: string; categoryarray?: readonly string[] };
  const found = new Set(values.filter((v): v is string => typeof v === 'string'));
  const categories = [...new Set([...categoryarray.filter((c) => found.has(c)), ...found])];
  if (categories.length > 0) {
    const [a, b] = autorange === 'reversed' ? [to, from] : [from, to];
    const step = (b - a) / categories.length;
    const index = new Map(categories.map((c, i) => [c, i]));
    const every = Math.ceil(categories.length / Math.max(1, Math.floor(Math.abs(b - a) / 13)));
    return {
      band: Math.abs(step),
      at: (v) => a + ((index.get(String(v)) ?? 0) + 0.5) * step,
      ticks: () => categories.filter((_, i) => i % every === 0).map((c) => ({ value: c, text: c.length > LONGEST_NAME ? `${c.slice(0, LONGEST_NAME - 1)}…` : c })),
    };
  }
  const log = type === 'log';
  const scale = (v: number) => (log ? Math.log10(v) : v);
  let [lo, hi] = extent.map(scale);
  if (!Number.isFinite(lo)) lo = hi - 3;
  const pad = log ? 0.05 * (hi - lo || 1) : 0;
  [lo, hi] = [lo - pad, hi + pad];
  const distinct = new Set(values).size;
  return {
    band: Math.abs(to - from) / Math.max(1, distinct),
    at: (v) => from + ((scale(Number(v)) - lo) / (hi - lo)) * (to - from),
    ticks() {
      const raw = (hi - lo) / 5;
      const power = 10 ** Math.floor(Math.log10(raw));
      const step = log ? Math.max(1, Math.round(raw)) : ([1, 2, 5, 10].find((m) => m * power >= raw) ?? 10) * power;
      const out: { value: number; text: string }[] = [];
      for (let t = Math.ceil(lo / step) * step; t <= hi + 1e-9 * step; t += step) out.push({ value: log ? 10 ** t : t, text: log ? `1e${Math.round(t)}` : String(Number(t.toPrecision(6))) });
      return out;
    },
  };
}

function line(t: Trace, x: Axis, y: Axis): string {
  const xs = t.x as (number | string | null)[];
  const ys = t.y as (number | string | null)[];
  const drawable = (v: unknown) => typeof v === 'string' || (typeof v === 'number' && Number.isFinite(v));
  const colour = colourOf(t);
  const mode = String(t.mode ?? (xs.length < 20 ? 'lines+markers' : 'lines'));
  const runs: string[][] = [[]];
  const dots: string[] = [];
  xs.forEach((v, i) => {
    const at = drawable(v) && drawable(ys[i]) ? [x.at(v!), y.at(ys[i]!)] : [NaN];
    // A missing point, or one that a logarithmic axis cannot show, is a gap.
    if (!at.every(Number.isFinite)) return void runs.push([]);
    runs.at(-1)!.push(`${r(at[0])},${r(at[1])}`);
    dots.push(...errorBars(t, i, x, y));
    if (mode.includes('markers')) dots.push(symbolOf(t) ? markerAt(t, at[0], at[1], i) : `<circle cx="${r(at[0])}" cy="${r(at[1])}" r="2.5" fill="${colourOf(t, i)}"/>`);
    const text = mode.includes('text') ? (t.text as ArrayLike<string> | undefined)?.[i] : undefined;
    if (text) dots.push(label(text, at[0] + 6, at[1] - 6, 'start'));
  });
  const { width = 1.8, dash = 'solid' } = symbolOf(t) ? ((t.line ?? {}) as { width?: number; dash?: string }) : {};
  const dashes = Object.hasOwn(DASHES, dash) ? ` stroke-dasharray="${DASHES[dash]}"` : '';
  const lines = mode.includes('lines') ? runs.filter((run) => run.length > 1).map((run) => `<polyline fill="none" stroke="${colour}" stroke-width="${Number(width)}"${dashes} points="${run.join(' ')}"/>`) : [];
  return [...lines, ...dots].join('');
}

const DASHES: Readonly<Record<string, string>> = { dash: '7 4', dot: '2 3', dashdot: '7 3 2 3' };

/** Form of a trace's markers, where it has one of its own. */
function symbolOf(t: Trace): string | undefined {
  const { symbol } = (t.marker ?? {}) as { symbol?: unknown };
  return typeof symbol === 'string' && typeof t.mode === 'string' && t.mode.includes('markers') ? symbol : undefined;
}

/** Half length of Plotly's line markers, in radii. */
const LINE_MARKER = 1.4;
/** Corners of Plotly's markers, in radii, y downwards. */
const CORNERS: Readonly<Record<string, readonly (readonly [number, number])[]>> = {
  square: [[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]],
  diamond: [[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]],
  'triangle-up': [[0, -1.1], [1.1, 0.8], [-1.1, 0.8]],
  'triangle-down': [[0, 1.1], [1.1, -0.8], [-1.1, -0.8]],
  cross: [[-0.4, -1.1], [0.4, -1.1], [0.4, -0.4], [1.1, -0.4], [1.1, 0.4], [0.4, 0.4], [0.4, 1.1], [-0.4, 1.1], [-0.4, 0.4], [-1.1, 0.4], [-1.1, -0.4], [-0.4, -0.4]],
  x: [[0, -0.55], [0.55, -1.1], [1.1, -0.55], [0.55, 0], [1.1, 0.55], [0.55, 1.1], [0, 0.55], [-0.55, 1.1], [-1.1, 0.55], [-0.55, 0], [-1.1, -0.55], [-0.55, -1.1]],
  star: Array.from({ length: 10 }, (_, i): [number, number] => [(i % 2 ? 0.55 : 1.3) * Math.sin((i * Math.PI) / 5), -(i % 2 ? 0.55 : 1.3) * Math.cos((i * Math.PI) / 5)]),
};

/** The marker of a trace's point, its middle at (x, y), at most `largest` across. */
function markerAt(t: Trace, x: number, y: number, point: number, largest = Infinity): string {
  const symbol = symbolOf(t)!;
  const { size: wanted, line: edge } = t.marker as { size?: unknown; line?: { width?: unknown } };
  const size = Math.min(typeof wanted === 'number' ? wanted : 6, largest);
  const colour = colourOf(t, point);
  const paint = symbol.endsWith('-open') ? `fill="none" stroke="${colour}" stroke-width="1.5"` : `fill="${colour}"`;
  const form = symbol.replace(/-open$/, '');
  const corners = Object.hasOwn(CORNERS, form) ? CORNERS[form] : undefined;
  const radius = size / 2;
  if (form === 'line-ew' || form === 'line-ns') {
    const width = typeof edge?.width === 'number' ? edge.width : 1;
    const path = form === 'line-ew' ? `M${r(x - radius * LINE_MARKER)} ${r(y)}H${r(x + radius * LINE_MARKER)}` : `M${r(x)} ${r(y - radius * LINE_MARKER)}V${r(y + radius * LINE_MARKER)}`;
    return `<path d="${path}" stroke="${colour}" stroke-width="${r(width)}"/>`;
  }
  return corners ? `<polygon points="${corners.map(([dx, dy]) => `${r(x + dx * radius)},${r(y + dy * radius)}`).join(' ')}" ${paint}/>` : `<circle cx="${r(x)}" cy="${r(y)}" r="${r(radius)}" ${paint}/>`;
}

/** Half length of a point's error bar along an axis, in units of that axis; 0 for none. */
function errorOf(t: Trace, axis: 'x' | 'y', point: number): number {
  const { array, visible } = (t[`error_${axis}`] ?? {}) as { array?: ArrayLike<number>; visible?: boolean };
  const e = visible === false ? undefined : array?.[point];
  return typeof e === 'number' && Number.isFinite(e) ? e : 0;
}

/** Error bars of a point, with caps. */
function errorBars(t: Trace, point: number, x: Axis, y: Axis): string[] {
  const [px, py] = [(t.x as number[])[point], (t.y as number[])[point]];
  const stroke = `stroke="${colourOf(t)}" stroke-width="1.2"`;
  const [ex, ey] = [errorOf(t, 'x', point), errorOf(t, 'y', point)];
  const out: string[] = [];
  if (ex > 0) {
    const [a, b, at] = [x.at(px - ex), x.at(px + ex), y.at(py)];
    out.push(`<path d="M${r(a)} ${r(at)}H${r(b)}M${r(a)} ${r(at - 3)}V${r(at + 3)}M${r(b)} ${r(at - 3)}V${r(at + 3)}" ${stroke}/>`);
  }
  if (ey > 0) {
    const [a, b, at] = [y.at(py - ey), y.at(py + ey), x.at(px)];
    out.push(`<path d="M${r(at)} ${r(a)}V${r(b)}M${r(at - 3)} ${r(a)}H${r(at + 3)}M${r(at - 3)} ${r(b)}H${r(at + 3)}" ${stroke}/>`);
  }
  return out;
}

/** @param side which of how many bars beside each other */
function bars(t: Trace, x: Axis, y: Axis, bases: Map<number | string, number>, side: { readonly place: number; readonly of: number }): string {
  const across = t.orientation === 'h';
  const keys = (across ? t.y : t.x) as (number | string)[];
  const values = (across ? t.x : t.y) as number[];
  const [keyAxis, valueAxis] = across ? [y, x] : [x, y];
  const thick = (0.8 * keyAxis.band) / side.of;
  return keys
    .map((k, i) => {
      if (!Number.isFinite(values[i])) return '';
      const base = bases.get(k) ?? 0;
      bases.set(k, base + values[i]);
      const [a, b] = [valueAxis.at(base), valueAxis.at(base + values[i])];
      const mid = keyAxis.at(k) + (side.place - (side.of - 1) / 2) * thick;
      const rect = across ? [Math.min(a, b), mid - thick / 2, Math.abs(b - a), thick] : [mid - thick / 2, Math.min(a, b), thick, Math.abs(b - a)];
      return `<rect x="${r(rect[0])}" y="${r(rect[1])}" width="${r(rect[2])}" height="${r(rect[3])}" fill="${colourOf(t, i)}"/>`;
    })
    .join('');
}

function heatmap(t: Trace, x: Axis, y: Axis): string {
  const xs = t.x as (number | string)[];
  const ys = t.y as (number | string)[];
  const z = t.z as ArrayLike<ArrayLike<number | null>>;
  const scale = t.colorscale as readonly [number, string][];
  let [least, most] = [Infinity, -Infinity];
  for (const row of Array.from(z))
    for (const v of Array.from(row))
      if (v !== null && Number.isFinite(v)) [least, most] = [Math.min(least, v), Math.max(most, v)];
  const [lo, hi] = [(t.zmin as number | undefined) ?? least, (t.zmax as number | undefined) ?? most];
  const height = ys.length > 1 ? Math.abs(y.at(ys[1]) - y.at(ys[0])) : y.band;
  const width = xs.length > 1 ? Math.abs(x.at(xs[1]) - x.at(xs[0])) : x.band;
  const out: string[] = [];
  // Neighbours of one colour in a row are one rectangle: a freeze map is mostly such.
  for (let j = 0; j < ys.length; j++) {
    const colours = xs.map((_, i) => {
      const v = z[j]?.[i];
      return v === null || v === undefined || !Number.isFinite(v) ? '' : colourAt(scale, hi > lo ? (v - lo) / (hi - lo) : 0.5);
    });
    for (let i = 0, end = 0; i < xs.length; i = end) {
      for (end = i + 1; end < xs.length && colours[end] === colours[i]; ) end++;
      if (!colours[i]) continue;
      const [a, b] = [x.at(xs[i]) - width / 2, x.at(xs[end - 1]) + width / 2 + 0.2];
      out.push(`<rect x="${r(a)}" y="${r(y.at(ys[j]) - height / 2)}" width="${r(b - a)}" height="${r(height + 0.2)}" fill="${colours[i]}"/>`);
    }
  }
  return out.join('');
}

/** Colour of a place from 0 to 1 on a scale of hex colours. */
function colourAt(scale: readonly [number, string][], place: number): string {
  const p = Math.min(1, Math.max(0, place));
  const k = Math.max(1, scale.findIndex(([at]) => at >= p));
  const [a, from] = scale[k - 1];
  const [b, to] = scale[k];
  const share = b > a ? (p - a) / (b - a) : 0;
  const channel = (hex: string, i: number) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
  return `#${[0, 1, 2].map((i) => Math.round(channel(from, i) + share * (channel(to, i) - channel(from, i))).toString(16).padStart(2, '0')).join('')}`;
}
