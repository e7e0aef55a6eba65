/** Figures of what the approximations cost: values that the encodings clip or lose, and the error of the gradient. */
import { InvalidArgumentError } from '../errors';
import type { GradientComparison } from '../training/gradients';
import { historyOf, rowsHeight, type Run, withLayerRows } from './axes';
import { type Figure, figureOfText } from './figure';
import { shortLayerName } from './layerNames';
import { asText } from './markup';
import { baseLayout, COLOURS } from './palette';

interface ErrorRow {
  readonly step: number;
  readonly module: string;
  readonly what: string;
  readonly encoding: string;
  readonly clipped: number;
  readonly zeroed: number;
  readonly relativeError: number;
}

/** What the encodings did in a measured step; the last one measured, unless another is asked for. @throws InvalidArgumentError when none was */
export function measuredErrors(run: Run, step?: number): readonly ErrorRow[] {
  const all = historyOf(run).encodingErrors().objects() as ErrorRow[];
  const chosen = step ?? all.at(-1)?.step;
  const rows = all.filter((r) => r.step === chosen);
  if (rows.length > 0) return rows;
  throw new InvalidArgumentError(
    all.length === 0
      ? 'what the encodings do was not measured in this run: it is exact, or its trainer has measureEncodingsEvery: 0'
      : `what the encodings do was not measured in step ${chosen}: it was in steps ${[...new Set(all.map((r) => r.step))].join(', ')}`,
  );
}

/** By layer and kept activation: share of the values that are clipped, share that is lost to 0, relative error of the whole. @param options `step`: a measured one; default the last of them */
export function encodingErrorFigure(run: Run, options: { readonly step?: number } = {}): Figure {
  const rows = measuredErrors(run, options.step);
  const names = rows.map((r) => `${shortLayerName(r.module)}: ${r.encoding === 'top10' ? 'pruned' : r.what}`);
  const dots = (name: string, key: 'clipped' | 'zeroed' | 'relativeError', color: string, symbol: string) => ({
    type: 'scatter',
    mode: 'markers',
    name,
    x: rows.map((r) => 100 * r[key]),
    y: names,
    text: rows.map((r) => r.encoding),
    marker: { color, symbol, size: 8 },
    hovertemplate: `%{y} (%{text}), step ${rows[0].step}<br>${name}: %{x:.3f} %<extra></extra>`,
  });
  return figureOfText({
    data: [dots('relative error', 'relativeError', COLOURS.blue, 'circle'), dots('lost to 0', 'zeroed', COLOURS.orange, 'square'), dots('clipped', 'clipped', COLOURS.vermilion, 'x')],
    layout: withLayerRows(baseLayout(`What the encodings did to the values in step ${rows[0].step}`, '% (of the values; of the norm for the relative error)', '', rowsHeight(names.length)), names),
  });
}

/** Relative error of each parameter's gradient, by encoding. Biases are left out unless nothing else trained. */
export function gradientErrorFigure(comparison: GradientComparison): Figure {
  const isWeight = (name: string) => !name.endsWith('.bias');
  const weights = comparison.errors.filter((e) => isWeight(e.parameter));
  const rows = (weights.length > 0 ? weights : comparison.errors).filter((e) => Number.isFinite(e.relativeError));
  // Backward completes gradients from the last layer to the first.
  const names = [...new Set(rows.map((e) => shortLayerName(e.parameter)))].reverse();
  const kinds = [...new Set(rows.map((e) => e.encodings))];
  const colours = [COLOURS.vermilion, COLOURS.blue, COLOURS.sky, COLOURS.green, COLOURS.orange, COLOURS.purple];
  const layout = withLayerRows(baseLayout(`Error of the gradient of step ${comparison.step}, against exact activations`, '‖g′ − g‖ / ‖g‖ in %', '', rowsHeight(names.length)), names);
  return figureOfText({
    data: kinds.map((kind, i) => {
      const own = rows.filter((e) => e.encodings === kind);
      return {
        type: 'scatter',
        mode: 'markers',
        name: kind,
        x: own.map((e) => 100 * e.relativeError),
        y: own.map((e) => shortLayerName(e.parameter)),
        text: own.map((e) => e.cosine.toFixed(4)),
        marker: { color: colours[i % colours.length], size: i === 0 ? 9 : 6, symbol: i === 0 ? 'diamond' : 'circle' },
        hovertemplate: `%{y}, step ${comparison.step}<br>${asText(kind)}<br>relative error %{x:.2f} %, cosine %{text}<extra></extra>`,
      };
    }),
    layout,
  });
}
