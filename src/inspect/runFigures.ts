/** Figures of how a run goes: loss, learning rate, metrics, throughput, waiting for data. */
import { InvalidArgumentError } from '../errors';
import { columnMean, historyOf, type Run, stepColumns, stepLine } from './axes';
import { type Figure, figureOfText } from './figure';
import { asText } from './markup';
import { baseLayout, COLOURS } from './palette';

/** A second axis on the right. */
function withRightAxis(layout: Record<string, unknown>, title: string): Record<string, unknown> {
  return { ...layout, yaxis2: { title: { text: title }, overlaying: 'y', side: 'right', showgrid: false, rangemode: 'tozero', automargin: true }, margin: { ...(layout.margin as object), r: 70 } };
}

/** Loss and learning rate by step. */
export function lossFigure(run: Run): Figure {
  const history = historyOf(run);
  const columns = stepColumns(history);
  const x = columns.map((c) => c.step);
  const mean = (field: 'loss' | 'learningRate') => columns.map((c) => columnMean(history.column(field), c));
  return figureOfText({
    data: [
      stepLine('loss', x, mean('loss'), COLOURS.blue, 'loss %{y:.4f}'),
      stepLine('learning rate', x, mean('learningRate'), COLOURS.orange, 'learning rate %{y:.2e}', { yaxis: 'y2', line: { dash: 'dot' } }),
    ],
    layout: withRightAxis(baseLayout('Loss', 'step', 'loss', 340), 'learning rate'),
  });
}

/** What evaluations found, by steps done. @throws InvalidArgumentError before the first `trainer.evaluate()` */
export function metricsFigure(run: Run): Figure {
  const history = 'history' in run ? run.history : run;
  const rows = history.evaluations().objects() as { step: number; metric: string; value: number }[];
  if (rows.length === 0) throw new InvalidArgumentError('nothing was evaluated yet: run `await trainer.evaluate()` first');
  const metrics = [...new Set(rows.map((r) => r.metric))].filter((m) => m !== 'loss');
  const colours = [COLOURS.green, COLOURS.purple, COLOURS.vermilion, COLOURS.sky];
  const trace = (metric: string, color: string, more: object = {}) => {
    const own = rows.filter((r) => r.metric === metric);
    return { ...stepLine(metric, own.map((r) => r.step), own.map((r) => r.value), color, `${asText(metric)} %{y:.4f}`, { ...more }), mode: 'lines+markers' };
  };
  const layout = baseLayout('Evaluations', 'steps done', metrics.length > 0 ? metrics.join(', ') : 'loss', 340);
  if (metrics.length === 0) return figureOfText({ data: [trace('loss', COLOURS.blue)], layout });
  return figureOfText({
    data: [...metrics.map((m, i) => trace(m, colours[i % colours.length])), trace('loss', COLOURS.blue, { yaxis: 'y2', line: { dash: 'dot' } })],
    layout: withRightAxis(layout, 'loss'),
  });
}

/** Tokens a second, and the share of each step spent waiting for its batch. */
export function throughputFigure(run: Run): Figure {
  const history = historyOf(run);
  const columns = stepColumns(history);
  const x = columns.map((c) => c.step);
  const [ms, waiting, tokens] = (['milliseconds', 'dataMilliseconds', 'tokens'] as const).map((f) => columns.map((c) => columnMean(history.column(f), c)));
  return figureOfText({
    data: [
      stepLine('tokens a second', x, tokens.map((t, i) => (1000 * t) / ms[i]), COLOURS.blue, '%{y:,.0f} tokens a second'),
      stepLine('waiting for data', x, waiting.map((w, i) => (100 * w) / ms[i]), COLOURS.vermilion, 'waited %{y:.2f} % of the time for data', { yaxis: 'y2', line: { dash: 'dot' } }),
    ],
    layout: withRightAxis(baseLayout('Throughput', 'step', 'tokens / s', 340), '% of the time'),
  });
}
