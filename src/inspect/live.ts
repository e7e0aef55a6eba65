/**
 * The live display of a run: one output that is redrawn up to four times a second while training goes on: progress, rate, time left, loss curve, freeze map of the last
 * steps, memory bar; on demand the device's bytes by category. It has one fixed height, so that the page does not jump, and ends as interactive figures. Without a notebook it is a text bar.
 */
import { randomUUID } from 'node:crypto';
import type { History } from '../training/history';
import { formatDuration, ProgressLine } from '../progress';
import { freezeMapFigure } from './freezeFigures';
import { CATEGORIES } from '../engine/engine';
import { type KernelApi, type MimeBundle, runningKernel } from './kernelApi';
import { COLOURS } from './palette';
import { CATEGORY_COLOURS, deviceMemoryFigure } from './memoryFigures';
import { lossFigure } from './runFigures';
import { escapeHtml } from './tableHtml';
import { formatBytes } from '../units';

/** Least milliseconds between two drawings. */
const REDRAW_MS = 250;
/** Steps that the freeze map shows. */
const MAP_STEPS = 80;
/** Points of the loss curve. */
const CURVE_POINTS = 240;
const WIDTH = 640;
const PANEL = 130;
/** Height of the device's bytes. */
const DEVICE = 156;

/** How a run stands. `stopped`: its loop was left before the end. */
export type LiveState = 'running' | 'done' | 'stopped' | 'interrupted' | 'failed';

const STATE_COLOUR: Readonly<Record<LiveState, string>> = { running: COLOURS.blue, done: COLOURS.green, stopped: COLOURS.grey, interrupted: COLOURS.vermilion, failed: COLOURS.vermilion };

/** One loop over steps. Times by `performance.now()`. */
export interface LiveRun {
  /** Steps in the history when it began. */
  readonly first: number;
  readonly total: number;
  readonly began: number;
  state: LiveState;
  ended: number | undefined;
}

/** What the display reads of a run. */
export interface LiveSource {
  readonly history: History;
  /** Activation bytes of plain fine-tuning on the same batch, if known. */
  readonly fullActivationBytes: number | undefined;
  /** Whether it shows the device's bytes by category too. Default false. */
  readonly memory?: boolean;
}

/** One live output. */
export class LiveView {
  private readonly displayId = `slimfit-live-${randomUUID()}`;
  private shown = false;
  private drawn = -Infinity;
  private run: LiveRun | undefined;
  private text: ProgressLine | undefined;

  constructor(
    private readonly source: LiveSource,
    private readonly kernel: KernelApi | undefined = runningKernel(),
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Shows a run that begins, goes on or is over, at once. */
  follow(run: LiveRun): void {
    this.run = run;
    if (this.kernel) this.draw();
    else if (run.state === 'running') this.text = new ProgressLine('training', run.total);
  }

  /** A step is done. Draws at most four times a second. */
  update(): void {
    if (this.text) this.text.update(this.done, `loss ${(this.source.history.column('loss').at(-1) ?? NaN).toFixed(4)}`);
    else if (this.now() - this.drawn >= REDRAW_MS) this.draw();
  }

  /** The run is over. */
  end(): void {
    this.text?.end();
    this.text = undefined;
    this.draw();
  }

  private get done(): number {
    return this.run ? Math.max(0, this.source.history.length - this.run.first) : 0;
  }

  private draw(): void {
    if (!this.run || !this.kernel) return;
    this.kernel.display(this.bundle(this.run), { displayId: this.displayId, update: this.shown });
    this.shown = true;
    this.drawn = this.now();
  }

  /** The display as data by mime type. */
  private bundle({ began, ended, total, state }: LiveRun): MimeBundle {
    const { history } = this.source;
    const { done } = this;
    const seconds = ((ended ?? this.now()) - began) / 1000;
    const rate = seconds > 0 ? done / seconds : 0;
    const left = state === 'running' ? (rate > 0 ? `${formatDuration((total - done) / rate)} left` : '') : `in ${formatDuration(seconds)}`;
    const speed = rate >= 1 ? `${rate.toFixed(1)} steps/s` : rate > 0 ? `${(1 / rate).toFixed(1)} s a step` : '';
    const line = [`${done} of ${total} steps`, speed, left, state === 'running' ? '' : state].filter(Boolean).join(' · ');
    const share = total > 0 ? Math.min(1, done / total) : 1;
    const filled = Math.round(24 * share);
    const text = `training ${'█'.repeat(filled)}${'░'.repeat(24 - filled)} ${line}`;
    const bar = `<div style="height:8px;background:rgba(127,127,127,0.25);width:${WIDTH}px;max-width:100%"><div style="height:8px;width:${(100 * share).toFixed(1)}%;background:${STATE_COLOUR[state]}"></div></div>`;
    const red = state === 'interrupted' || state === 'failed';
    const head = `<div style="font-variant-numeric:tabular-nums;color:${red ? COLOURS.vermilion : 'inherit'}">${escapeHtml(line)}</div>${bar}`;
    const body = state === 'running' || history.length === 0 ? this.panels() : `${lossFigure(history).toHtml()}${freezeMapFigure(history).toHtml()}${this.source.memory ? deviceMemoryFigure(history).toHtml() : ''}`;
    return { 'text/html': `<div style="min-height:${2 * PANEL + 80 + (this.source.memory ? DEVICE : 0)}px">${head}${body}</div>`, 'text/plain': text };
  }

  /** Loss curve, freeze map and memory bar as one drawing. */
  private panels(): string {
    const { history, fullActivationBytes } = this.source;
    const label = (x: number, y: number, text: string, anchor = 'start') => `<text x="${x}" y="${y}" text-anchor="${anchor}" font-size="11" fill="#7f7f7f">${escapeHtml(text)}</text>`;
    const kept = history.column('activationBytes').at(-1) ?? 0;
    const most = Math.max(kept, fullActivationBytes ?? 0, 1);
    const memory = `${label(0, 2 * PANEL + 30, fullActivationBytes ? `kept for backward: ${formatBytes(kept)} of ${formatBytes(fullActivationBytes)} in plain fine-tuning` : `kept for backward: ${formatBytes(kept)}`)}
<rect x="0" y="${2 * PANEL + 36}" width="${WIDTH}" height="8" fill="rgba(127,127,127,0.25)"/><rect x="0" y="${2 * PANEL + 36}" width="${((WIDTH * kept) / most).toFixed(1)}" height="8" fill="${COLOURS.orange}"/>`;
    const height = 2 * PANEL + 50 + (this.source.memory ? DEVICE : 0);
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" style="max-width:100%;font-family:sans-serif">${this.curve(label)}${this.map(label)}${memory}${this.source.memory ? this.device(label, 2 * PANEL + 50) : ''}</svg>`;
  }

  /** The device's bytes: at the left those of the last step, one row a category (pale: at most within it; full: alive after it), at the right the peaks of the last steps. */
  private device(label: (x: number, y: number, text: string, anchor?: string) => string, top: number): string {
    const { history } = this.source;
    const last = history.length - 1;
    if (last < 0) return '';
    const held = history.column('heldBytes');
    const ends = CATEGORIES.map((c) => history.memory(c, 'end'));
    const rows = [
      ...CATEGORIES.map((c, i) => ({ name: c as string, colour: CATEGORY_COLOURS[c], now: ends[i][last], peaks: history.memory(c, 'peak') })),
      { name: 'all together', colour: COLOURS.vermilion, now: ends.reduce((s, e) => s + e[last], 0), peaks: history.column('totalPeakBytes') },
      ...(Number.isFinite(held[last]) ? [{ name: 'held', colour: COLOURS.sky, now: held[last], peaks: held }] : []),
    ];
    const from = Math.max(0, history.length - MAP_STEPS);
    const most = rows.reduce((m, r) => r.peaks.subarray(from).reduce((a, b) => Math.max(a, b), m), 1);
    const [barAt, barWidth, chartAt, row, under] = [82, 150, 330, 17, top + 24];
    const y = (bytes: number) => under + (DEVICE - 38) * (1 - bytes / most);
    const x = (i: number) => chartAt + (history.length - from > 1 ? ((WIDTH - chartAt) * (i - from)) / (history.length - 1 - from) : 0);
    const bars = rows.map(({ name, colour, now, peaks }, i) => {
      const bar = (bytes: number, opacity: number) => `<rect x="${barAt}" y="${under + i * row}" width="${((barWidth * bytes) / most).toFixed(1)}" height="${row - 5}" fill="${colour}" fill-opacity="${opacity}"/>`;
      return `${label(0, under + i * row + 10, name)}${bar(peaks[last], 0.4)}${bar(now, 1)}${label(chartAt - 18, under + i * row + 10, formatBytes(peaks[last]), 'end')}`;
    });
    const lines = rows.map(({ colour, peaks }) => {
      const points = Array.from(peaks.subarray(from), (bytes, i) => `${x(from + i).toFixed(1)},${y(bytes).toFixed(1)}`);
      // A line of one point is not drawn.
      if (points.length === 1) points.push(`${chartAt + 4},${y(peaks[from]).toFixed(1)}`);
      return `<polyline points="${points.join(' ')}" fill="none" stroke="${colour}" stroke-width="1.5"/>`;
    });
    return `${label(0, top + 12, 'on the device; pale: peak of the step, full: what stays')}${label(WIDTH, top + 12, `last ${history.length - from} steps, up to ${formatBytes(most)}`, 'end')}<rect x="${chartAt}" y="${under}" width="${WIDTH - chartAt}" height="${DEVICE - 38}" fill="rgba(127,127,127,0.15)"/>${bars.join('')}${lines.join('')}`;
  }

  private curve(label: (x: number, y: number, text: string, anchor?: string) => string): string {
    const loss = this.source.history.column('loss').subarray(-CURVE_POINTS);
    if (loss.length === 0) return '';
    const finite = loss.filter((l) => Number.isFinite(l));
    const [low, high] = [Math.min(...finite), Math.max(...finite)];
    const x = (i: number) => (loss.length > 1 ? (WIDTH * i) / (loss.length - 1) : 0);
    const y = (l: number) => 16 + (PANEL - 28) * (high > low ? (high - l) / (high - low) : 0.5);
    const points = Array.from(loss, (l, i) => `${x(i).toFixed(1)},${y(l).toFixed(1)}`).join(' ');
    return `${label(0, 11, `loss ${loss[loss.length - 1].toFixed(4)}`)}${label(WIDTH, 11, `last ${loss.length} steps, ${low.toFixed(3)} to ${high.toFixed(3)}`, 'end')}<polyline points="${points}" fill="none" stroke="${COLOURS.blue}" stroke-width="1.5"/>`;
  }

  /** One column a step, one row a layer; drawn where the layer trained. */
  private map(label: (x: number, y: number, text: string, anchor?: string) => string): string {
    const { history } = this.source;
    const from = Math.max(0, history.length - MAP_STEPS);
    const cell = WIDTH / MAP_STEPS;
    const row = (PANEL - 24) / Math.max(1, history.freezableLayers.length);
    const top = PANEL + 16;
    let d = '';
    for (let i = from; i < history.length; i++)
      history.trainedIn(i).forEach((trained, l) => {
        if (trained) d += `M${((i - from) * cell).toFixed(1)} ${(top + (l + 0.5) * row).toFixed(1)}h${cell.toFixed(1)}`;
      });
    return `${label(0, PANEL + 11, 'layers that trained (first at the top)')}${label(WIDTH, PANEL + 11, `last ${history.length - from} steps`, 'end')}<rect x="0" y="${top}" width="${WIDTH}" height="${PANEL - 24}" fill="rgba(127,127,127,0.15)"/><path d="${d}" stroke="${COLOURS.blue}" stroke-width="${Math.max(1, row).toFixed(1)}" fill="none"/>`;
  }
}
