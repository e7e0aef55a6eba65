/** The figures of a run: how far each layer moved, which were frozen, what was kept, how the loss fell. All read from the history. */
import { CATEGORIES } from '../engine/engine';
import type { History } from '../training/history';
import { Figure } from './figure';
import { modelPart, shortLayerName } from './layerNames';
import { baseLayout, CIVIDIS, COLOURS } from './palette';
import type { Trace } from './staticSvg';

const MIB = 2 ** 20;
const FROZEN = '#d9d9d9';

/** Height of a figure with one row per layer. */
const rowsHeight = (rows: number): number => Math.max(320, 140 + 13 * rows);

/** Bytes as '12.3 MiB'. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let i = 0;
  let n = bytes;
  while (n >= 1024 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return `${i === 0 ? n : n.toPrecision(n < 10 ? 2 : 3)} ${units[i]}`;
}

/** Update magnitude of each layer in the steps in which it trained, step × layer, in powers of ten. Blank: frozen. */
export function updateMagnitudeFigure(history: History): Figure {
  const layers = history.freezableLayers;
  const steps = Array.from(history.column('step'));
  const z = layers.map((l) => steps.map((_, i) => {
    const d = history.magnitudesAfter(i)[l.index];
    return history.trainedIn(i)[l.index] && d > 0 && Number.isFinite(d) ? Math.log10(d) : null;
  }));
  const names = layers.map((l) => shortLayerName(l.name));
  return new Figure({
    data: [
      {
        type: 'heatmap',
        x: steps,
        y: names,
        z,
        colorscale: CIVIDIS,
        colorbar: { title: { text: 'log₁₀' } },
        hovertemplate: '%{y}<br>step %{x}<br>mean |ΔW/W| = 10^%{z:.2f}<extra></extra>',
      },
    ],
    layout: { ...withReversedLayers(baseLayout('Update magnitude, mean |ΔW/W|, of the layers that trained (log₁₀)', 'step', '', rowsHeight(layers.length)), names), showlegend: false },
  });
}

/** Which layers trained in which step. */
export function freezeMapFigure(history: History): Figure {
  const layers = history.freezableLayers;
  const steps = Array.from(history.column('step'));
  const names = layers.map((l) => shortLayerName(l.name));
  const z = layers.map((l) => steps.map((_, i) => history.trainedIn(i)[l.index]));
  return new Figure({
    data: [
      {
        type: 'heatmap',
        x: steps,
        y: names,
        z,
        zmin: 0,
        zmax: 1,
        colorscale: [
          [0, FROZEN],
          [1, COLOURS.blue],
        ],
        showscale: false,
        text: layers.map((l) => steps.map((_, i) => `${history.trainedIn(i)[l.index] ? 'trained' : 'frozen'}<br>trained in ${history.trainingOf(l.index).times} of ${steps.length} steps`)),
        hovertemplate: '%{y}<br>step %{x}: %{text}<extra></extra>',
      },
      legendEntry('trained', COLOURS.blue),
      legendEntry('frozen', FROZEN),
    ],
    layout: withReversedLayers(baseLayout('Which layers trained in which step', 'step', '', rowsHeight(layers.length)), names),
  });
}

/** A name in the legend, with no points of its own. */
function legendEntry(name: string, color: string): Trace {
  return { type: 'scatter', mode: 'markers', name, x: [null], y: [null], marker: { color, symbol: 'square', size: 10 } };
}

/** Layers from the first at the top to the last at the bottom, every name shown. */
function withReversedLayers(layout: Record<string, unknown>, names: readonly string[]): Record<string, unknown> {
  return { ...layout, yaxis: { ...(layout.yaxis as object), autorange: 'reversed', tickmode: 'array', tickvals: names, tickfont: { size: 9 } } };
}

/** Bytes that a step kept for backward, by part of the model, stacked by role and encoding; beside them those of full fine-tuning, if given. */
export function activationMemoryFigure(history: History, options: { readonly step?: number; readonly full?: Readonly<Record<string, number>> } = {}): Figure {
  const last = history.length - 1;
  const step = options.step ?? history.column('step')[last];
  const rows = (history.activations().objects() as { step: number; module: string; role: string; encoding: string; bytes: number }[]).filter((row) => row.step === step);
  const parts = [...new Set(rows.map((row) => modelPart(row.module)))];
  const kinds = [...new Set(rows.map((row) => `${row.role}, ${row.encoding}`))];
  const colours = [COLOURS.blue, COLOURS.sky, COLOURS.green, COLOURS.orange, COLOURS.vermilion, COLOURS.purple, COLOURS.grey];
  const slim = kinds.map((kind, i) => ({
    type: 'bar',
    name: kind,
    x: parts,
    y: parts.map((p) => rows.filter((row) => modelPart(row.module) === p && `${row.role}, ${row.encoding}` === kind).reduce((s, row) => s + row.bytes, 0) / MIB),
    marker: { color: colours[i % colours.length] },
    hovertemplate: `%{x}<br>${kind}: %{y:.3f} MiB<extra></extra>`,
  }));
  const { full } = options;
  const beside = full
    ? [{ type: 'scatter', mode: 'markers', name: 'full fine-tuning', x: parts, y: parts.map((p) => (full[p] ?? 0) / MIB), marker: { color: COLOURS.grey, symbol: 'line-ew-open', size: 22, line: { width: 3 } }, hovertemplate: '%{x}<br>full fine-tuning: %{y:.3f} MiB<extra></extra>' }]
    : [];
  const layout = baseLayout(`Activations kept for backward in step ${step}`, '', 'MiB', 380);
  return new Figure({ data: [...slim, ...beside], layout: { ...layout, barmode: 'stack' } });
}

/** Loss and learning rate by step. */
export function lossFigure(history: History): Figure {
  const x = Array.from(history.column('step'));
  const layout = baseLayout('Loss', 'step', 'loss', 340);
  return new Figure({
    data: [
      { type: 'scatter', mode: 'lines', name: 'loss', x, y: Array.from(history.column('loss')), line: { color: COLOURS.blue }, hovertemplate: 'step %{x}<br>loss %{y:.4f}<extra></extra>' },
      { type: 'scatter', mode: 'lines', name: 'learning rate', yaxis: 'y2', x, y: Array.from(history.column('learningRate')), line: { color: COLOURS.orange, dash: 'dot' }, hovertemplate: 'step %{x}<br>learning rate %{y:.2e}<extra></extra>' },
    ],
    layout: { ...layout, yaxis2: { title: { text: 'learning rate' }, overlaying: 'y', side: 'right', showgrid: false, rangemode: 'tozero', automargin: true }, margin: { l: 60, r: 70, t: 60, b: 48 } },
  });
}

/** Device bytes by category at the end of each step, and the peak within it. */
export function deviceMemoryFigure(history: History): Figure {
  const table = history.steps();
  const x = Array.from(history.column('step'));
  const colours = { weights: COLOURS.blue, optimizer: COLOURS.green, gradients: COLOURS.purple, activations: COLOURS.orange, workspace: COLOURS.grey };
  const column = (name: string) => Array.from(table.array(name) as ArrayLike<number>, (v) => v / MIB);
  return new Figure({
    data: [
      ...CATEGORIES.map((c) => ({ type: 'scatter', mode: 'lines', name: c, x, y: column(`${c}PeakBytes`), line: { color: colours[c] }, hovertemplate: `step %{x}<br>${c}: peak %{y:.2f} MiB<extra></extra>` })),
      { type: 'scatter', mode: 'lines', name: 'all together', x, y: column('totalPeakBytes'), line: { color: COLOURS.vermilion, dash: 'dash' }, hovertemplate: 'step %{x}<br>peak of all %{y:.2f} MiB<extra></extra>' },
    ],
    layout: baseLayout('Device memory: peak within each step', 'step', 'MiB', 360),
  });
}
