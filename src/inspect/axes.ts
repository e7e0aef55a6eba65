/** What figures over steps and layers share: steps gathered into columns so that long runs stay readable, and axes with one row per layer. */
import { InvalidArgumentError } from '../errors';
import type { FreezableLayer } from '../freezing/layer';
import type { History } from '../training/history';
import { shortLayerName } from './layerNames';
import type { Trace } from './staticSvg';

/** Columns of a map, points of a curve: more than a screen shows only makes a notebook heavy. */
const MAX_COLUMNS = 240;

/** A history, or a trainer that has one. */
export type Run = History | { readonly history: History };

/** The history of a run that has recorded something. @throws InvalidArgumentError before the first step */
export function historyOf(run: Run): History {
  const history = 'history' in run ? run.history : run;
  if (history.length === 0) throw new InvalidArgumentError('no step was recorded yet: run `await trainer.step()` first');
  return history;
}

/** Neighbouring steps that are drawn as one. */
export interface StepColumn {
  /** Places in the history, from (included) to (excluded). */
  readonly from: number;
  readonly to: number;
  /** Number of the first of these steps. */
  readonly step: number;
  /** 'step 12' or 'steps 12–15'. */
  readonly label: string;
}

/** The steps of a run, each by itself or several together, at most 240 columns. */
export function stepColumns(history: History): StepColumn[] {
  const steps = history.column('step');
  const width = Math.ceil(steps.length / MAX_COLUMNS);
  return Array.from({ length: Math.ceil(steps.length / width) }, (_, c) => {
    const from = c * width;
    const to = Math.min(steps.length, from + width);
    return { from, to, step: steps[from], label: to - from === 1 ? `step ${steps[from]}` : `steps ${steps[from]}–${steps[to - 1]}` };
  });
}

/** Mean of the finite values of a column's steps; NaN when there are none. */
export function columnMean(values: ArrayLike<number>, { from, to }: StepColumn): number {
  let sum = 0;
  let n = 0;
  for (let i = from; i < to; i++)
    if (Number.isFinite(values[i])) {
      sum += values[i];
      n++;
    }
  return sum / n;
}

/** Height of a figure with one row per layer. */
export const rowsHeight = (rows: number): number => Math.max(320, 140 + 13 * rows);

/** A layout with layers from the first at the top to the last at the bottom, every name shown. */
export function withLayerRows(layout: Record<string, unknown>, names: readonly string[]): Record<string, unknown> {
  return { ...layout, yaxis: { ...(layout.yaxis as object), autorange: 'reversed', type: 'category', categoryorder: 'array', categoryarray: names, tickmode: 'array', tickvals: names, tickfont: { size: 9 } } };
}

/** Short names of layers. */
export const layerNames = (layers: readonly FreezableLayer[]): string[] => layers.map((l) => shortLayerName(l.name));

/** A name in the legend, with no points of its own. */
export function legendEntry(name: string, color: string): Trace {
  return { type: 'scatter', mode: 'markers', name, x: [null], y: [null], marker: { color, symbol: 'square', size: 10 } };
}

/** A line over steps. */
export function stepLine(name: string, x: readonly number[], y: readonly number[], color: string, hover: string, more: Readonly<Record<string, unknown>> = {}): Trace {
  const { line, ...rest } = more as { line?: object };
  return { type: 'scatter', mode: x.length === 1 ? 'markers' : 'lines', name, x, y, line: { color, ...line }, hovertemplate: `step %{x}<br>${hover}<extra></extra>`, ...rest };
}
