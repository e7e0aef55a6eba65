/** Figures of freeze decisions: which layer trained when, how often, and the bytes that freezing saved. */
import { historyOf, layerNames, legendEntry, rowsHeight, type Run, stepColumns, withLayerRows } from './axes';
import { type Figure, figureOfText } from './figure';
import { baseLayout, COLOURS } from './palette';
import { formatBytes, MIB } from '../units';

/** Grey that is seen on white and on black. */
const FROZEN = 'rgba(127,127,127,0.22)';

/** Which layers trained in which step, with the bytes that each decision saved or cost. Of several steps drawn as one, the share in which the layer trained. */
export function freezeMapFigure(run: Run): Figure {
  const history = historyOf(run);
  const layers = history.freezableLayers;
  const columns = stepColumns(history);
  const names = layerNames(layers);
  const z = layers.map(() => columns.map(() => 0));
  const text = layers.map(() => columns.map(() => ''));
  columns.forEach(({ from, to }, c) => {
    const saves = layers.map(() => 0);
    for (let i = from; i < to; i++) {
      const [trained, bytes] = [history.trainedIn(i), history.freezingSavesIn(i)];
      layers.forEach(({ index }) => {
        z[index][c] += trained[index] / (to - from);
        saves[index] += bytes[index] / (to - from);
      });
    }
    layers.forEach(({ index }) => {
      const share = z[index][c];
      const bytes = Number.isFinite(saves[index]) ? formatBytes(Math.round(saves[index])) : '';
      const what = share === 0 ? 'frozen' : share === 1 ? 'trained' : `trained in ${(100 * share).toFixed(0)} %`;
      text[index][c] = bytes ? `${what}, ${share === 0 ? 'saves' : 'freezing saves'} ${bytes}` : what;
    });
  });
  return figureOfText({
    data: [
      {
        type: 'heatmap',
        x: columns.map((c) => c.step),
        y: names,
        // Frozen is the ground, so that the map reads on light and dark pages; it tells its text all the same.
        z: z.map((row) => row.map((share) => (share === 0 ? null : share))),
        zmin: 0,
        zmax: 1,
        colorscale: [
          [0, '#b3d4e8'],
          [1, COLOURS.blue],
        ],
        showscale: false,
        hoverongaps: true,
        text,
        hovertemplate: '%{y}<br>step %{x}: %{text}<extra></extra>',
      },
      legendEntry('trained', COLOURS.blue),
      legendEntry('frozen', FROZEN),
    ],
    layout: { ...withLayerRows(baseLayout('Which layers trained in which step', 'step', '', rowsHeight(layers.length)), names), plot_bgcolor: FROZEN },
  });
}

/** How often each layer trained. */
export function timesTrainedFigure(run: Run): Figure {
  const history = historyOf(run);
  const layers = history.freezableLayers;
  const names = layerNames(layers);
  const n = history.length;
  const times = layers.map((l) => history.trainingOf(l.index).times);
  const layout = withLayerRows(baseLayout(`How often each layer trained in ${n} steps`, 'steps in which it trained', '', rowsHeight(layers.length)), names);
  return figureOfText({
    data: [
      {
        type: 'bar',
        orientation: 'h',
        x: times,
        y: names,
        text: times.map((t) => `${((100 * t) / n).toFixed(1)} % of the steps`),
        textposition: 'none',
        marker: { color: COLOURS.blue },
        hovertemplate: '%{y}<br>trained in %{x} steps, %{text}<extra></extra>',
      },
    ],
    layout: { ...layout, showlegend: false },
  });
}

/** Bytes that freezing each layer saved, and that training it cost, on average over all steps. Layers that share an input (query, key, value) save it only when all are frozen. */
export function freezingSavesFigure(run: Run): Figure {
  const history = historyOf(run);
  const layers = history.freezableLayers;
  const names = layerNames(layers);
  const saved = layers.map(() => 0);
  const spent = layers.map(() => 0);
  for (let i = 0; i < history.length; i++) {
    const [trained, bytes] = [history.trainedIn(i), history.freezingSavesIn(i)];
    layers.forEach(({ index }) => ((trained[index] ? spent : saved)[index] += bytes[index] / history.length / MIB));
  }
  const bar = (name: string, x: readonly number[], color: string) => ({ type: 'bar', orientation: 'h', name, x, y: names, marker: { color }, hovertemplate: `%{y}<br>${name} %{x:.3f} MiB a step<extra></extra>` });
  const layout = withLayerRows(baseLayout('Bytes that freezing saved and training cost, mean over all steps', 'MiB a step', '', rowsHeight(layers.length)), names);
  return figureOfText({ data: [bar('saved by freezing', saved, COLOURS.sky), bar('kept for training', spent, COLOURS.blue)], layout: { ...layout, barmode: 'stack' } });
}
