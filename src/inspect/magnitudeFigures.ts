/** Figures of update magnitudes: mean |ΔW/W| of each layer in its last training step, what inter-layer scheduling goes by (paper §3.1). */
import type { LayerKind } from '../freezing/layer';
import { historyOf, layerNames, rowsHeight, type Run, stepColumns, withLayerRows } from './axes';
import { type Figure, figureOfText } from './figure';
import { baseLayout, CIVIDIS, COLOURS } from './palette';

const drawable = (d: number) => d > 0 && Number.isFinite(d);

/** Update magnitude of each layer in the steps in which it trained, step × layer, in powers of ten. Blank: frozen. Of several steps drawn as one, the last in which it trained. */
export function updateMagnitudeFigure(run: Run): Figure {
  const history = historyOf(run);
  const layers = history.freezableLayers;
  const columns = stepColumns(history);
  const names = layerNames(layers);
  const z: (number | null)[][] = layers.map(() => columns.map(() => null));
  columns.forEach(({ from, to }, c) => {
    for (let i = from; i < to; i++) {
      const d = history.magnitudesAfter(i);
      history.trainedIn(i).forEach((trained, l) => {
        if (trained && drawable(d[l])) z[l][c] = Math.log10(d[l]);
      });
    }
  });
  return figureOfText({
    data: [
      {
        type: 'heatmap',
        x: columns.map((c) => c.step),
        y: names,
        z,
        colorscale: CIVIDIS,
        colorbar: { title: { text: 'log₁₀' } },
        hovertemplate: '%{y}<br>step %{x}<br>mean |ΔW/W| = 10^%{z:.2f}<extra></extra>',
      },
    ],
    layout: { ...withLayerRows(baseLayout('Update magnitude, mean |ΔW/W|, of the layers that trained (log₁₀)', 'step', '', rowsHeight(layers.length)), names), showlegend: false },
  });
}

const KINDS: Readonly<Record<LayerKind, { readonly name: string; readonly color: string }>> = {
  embedding: { name: 'embeddings', color: COLOURS.purple },
  linear: { name: 'linear', color: COLOURS.blue },
  'layer-norm': { name: 'LayerNorm', color: COLOURS.orange },
  'patch-projection': { name: 'patch projection', color: COLOURS.green },
};

function median(values: readonly number[]): number {
  const sorted = values.filter(drawable).sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length === 0 ? NaN : sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Update magnitude by kind of layer over the steps: one point a layer and step, and the median of each kind among those that trained. */
export function updateMagnitudeByKindFigure(run: Run): Figure {
  const history = historyOf(run);
  const columns = stepColumns(history);
  const kinds = (Object.keys(KINDS) as LayerKind[]).filter((kind) => history.freezableLayers.some((l) => l.kind === kind));
  const data = kinds.flatMap((kind) => {
    const members = history.freezableLayers.filter((l) => l.kind === kind);
    const points = columns.map(({ from, to }) => {
      const found: { name: string; d: number }[] = [];
      for (let i = from; i < to; i++) {
        const [d, trained] = [history.magnitudesAfter(i), history.trainedIn(i)];
        for (const l of members) if (trained[l.index] && drawable(d[l.index])) found.push({ name: layerNames([l])[0], d: d[l.index] });
      }
      return found;
    });
    const { name, color } = KINDS[kind];
    const flat = points.flatMap((found, c) => found.map((f) => ({ ...f, step: columns[c].step })));
    const middle = points.map((found, c) => ({ step: columns[c].step, d: median(found.map((f) => f.d)) })).filter((p) => drawable(p.d));
    return [
      {
        type: 'scatter',
        mode: 'markers',
        name: `${name}, each`,
        showlegend: false,
        x: flat.map((p) => p.step),
        y: flat.map((p) => p.d),
        text: flat.map((p) => p.name),
        marker: { color, size: 3, opacity: 0.45 },
        hovertemplate: '%{text}<br>step %{x}<br>mean |ΔW/W| %{y:.2e}<extra></extra>',
      },
      {
        type: 'scatter',
        mode: middle.length > 1 ? 'lines' : 'markers',
        name,
        x: middle.map((p) => p.step),
        y: middle.map((p) => p.d),
        line: { color, width: 2 },
        hovertemplate: `median of the ${name} layers that trained<br>step %{x}<br>mean |ΔW/W| %{y:.2e}<extra></extra>`,
      },
    ];
  });
  const layout = baseLayout('Update magnitude by kind of layer, and its median', 'step', 'mean |ΔW/W|', 380);
  return figureOfText({ data, layout: { ...layout, yaxis: { ...(layout.yaxis as object), type: 'log', exponentformat: 'power' } } });
}

/** The update magnitudes as they stand: each layer's last one, largest first. Those at the top train next; a layer that has not trained yet stands far to the right with its initial draw. */
export function updateMagnitudeDistributionFigure(run: Run): Figure {
  const history = historyOf(run);
  const last = history.length - 1;
  const [magnitudes, trained] = [history.magnitudesAfter(last), history.trainedIn(last)];
  const step = history.column('step')[last];
  const sorted = history.freezableLayers.filter((l) => drawable(magnitudes[l.index])).sort((a, b) => magnitudes[b.index] - magnitudes[a.index]);
  const names = layerNames(sorted);
  const group = (name: string, color: string, member: (layer: number) => boolean) => {
    const layers = sorted.filter((l) => member(l.index));
    return {
      type: 'scatter',
      mode: 'markers',
      name,
      x: layers.map((l) => magnitudes[l.index]),
      y: layerNames(layers),
      text: layers.map((l) => {
        const { times, last: when } = history.trainingOf(l.index);
        return times === 0 ? 'has not trained: its initial draw' : `trained ${times} times, last in step ${when}`;
      }),
      marker: { color, size: 7 },
      hovertemplate: '%{y}<br>mean |ΔW/W| %{x:.2e}<br>%{text}<extra></extra>',
    };
  };
  const layout = withLayerRows(baseLayout(`Update magnitudes after step ${step}, largest first`, 'mean |ΔW/W|', '', rowsHeight(sorted.length)), names);
  return figureOfText({
    data: [
      group(`trained in step ${step}`, COLOURS.blue, (l) => trained[l] === 1),
      group('frozen', COLOURS.grey, (l) => trained[l] === 0 && history.trainingOf(l).times > 0),
      group('not yet trained', COLOURS.orange, (l) => history.trainingOf(l).times === 0),
    ].filter((t) => t.x.length > 0),
    layout: { ...layout, xaxis: { ...(layout.xaxis as object), type: 'log', exponentformat: 'power' } },
  });
}
