/**
 * The picture of a study: what a policy achieves against what it costs. One point for each policy, variant and freeze rate: mean over the seeds, bars of one standard deviation. A policy has one colour and
 * one marker, so that either alone tells it.
 */
import { InvalidArgumentError } from '../errors';
import type { StudyResult } from '../training/studyFolder';
import { MIB } from '../units';
import { type Figure, figureOfText } from './figure';
import { asText } from './markup';
import { baseLayout, SERIES_COLOURS } from './palette';
import { metricOf, type Spread, spreadOf, studyPoints, type StudyPoint, type StudyResults } from './studyResults';
import type { Trace } from './staticSvg';

/** Markers of the policies; their number has no divisor in common with that of the colours, so that pairs repeat late. */
const SYMBOLS = ['circle', 'square', 'diamond', 'triangle-up', 'x', 'triangle-down', 'cross', 'star'] as const;
const DASHES = ['solid', 'dash', 'dot', 'dashdot'] as const;

/** Which memory a study is drawn over: the device's peak in a step with weights and moments, or what is kept for backward, mean over the steps. */
export type StudyMemory = 'peak' | 'activations';

const MEMORY: Readonly<Record<StudyMemory, { readonly title: string; readonly axis: string; readonly of: (r: StudyResult) => number }>> = {
  peak: { title: 'peak memory', axis: 'MiB at the peak of a step', of: (r) => r.peakBytes / MIB },
  activations: { title: 'activation memory', axis: 'MiB kept for backward, mean over the steps', of: (r) => r.activationBytes / MIB },
};

/** '0.812 ± 0.010'; of one value, only that. */
const spreadText = ({ mean, sd }: Spread, digits: number): string => (Number.isNaN(sd) ? mean.toFixed(digits) : `${mean.toFixed(digits)} ± ${sd.toFixed(digits)}`);

function errorBars(spreads: readonly Spread[]): Readonly<Record<string, unknown>> {
  return { type: 'data', array: spreads.map((s) => (Number.isFinite(s.sd) ? s.sd : 0)), visible: true, thickness: 1.2, width: 4 };
}

/**
 * A study as a figure. Text beside a point is its freeze rate.
 * @param options `metric`: as the task names it, or `loss`; default its first. `memory`: the device's peak (default), or what is kept for backward
 * @throws InvalidArgumentError when no run is done, or no run has that metric
 */
export function studyFigure(results: StudyResults, { metric = results.metrics[0], memory = 'peak' }: { readonly metric?: string; readonly memory?: StudyMemory } = {}): Figure {
  if (!(memory in MEMORY)) throw new InvalidArgumentError(`memory is '${String(memory)}'; it must be peak or activations`);
  const points = studyPoints(results);
  if (points.length === 0) throw new InvalidArgumentError('no run of the study is done yet: await study(…) first');
  if (metric !== 'loss' && !results.metrics.includes(metric)) throw new InvalidArgumentError(`no run has a metric '${metric}': choose one of ${[...new Set([...results.metrics, 'loss'])].join(', ')}`);
  const { title, axis, of } = MEMORY[memory];
  // All of the grid, so that a policy keeps its colour while runs come in.
  const policies = [...new Set(results.jobs.map((j) => j.policy))];
  const variants = [...new Set(results.jobs.map((j) => j.variant))];
  const series = new Map<string, StudyPoint[]>();
  for (const p of points) {
    const key = JSON.stringify([p.policy, p.variant]);
    series.set(key, [...(series.get(key) ?? []), p]);
  }
  const data = [...series.values()].map((group): Trace => {
    const { policy, variant } = group[0];
    const [place, which] = [policies.indexOf(policy), variants.indexOf(variant)];
    const color = SERIES_COLOURS[place % SERIES_COLOURS.length];
    const name = variant ? `${policy}, ${variant}` : policy;
    const sorted = [...group].sort((a, b) => (a.freezeRate ?? 0) - (b.freezeRate ?? 0));
    const x = sorted.map((p) => spreadOf(p.results.map(of)));
    const y = sorted.map((p) => spreadOf(p.results.map((r) => metricOf(r, metric))));
    return {
      type: 'scatter',
      mode: 'lines+markers+text',
      name,
      x: x.map((s) => s.mean),
      y: y.map((s) => s.mean),
      error_x: errorBars(x),
      error_y: errorBars(y),
      text: sorted.map((p) => (p.freezeRate === undefined ? '' : String(p.freezeRate))),
      textposition: 'top right',
      textfont: { size: 10 },
      hovertext: sorted.map((p, i) => [`<b>${asText(name)}</b>`, p.freezeRate === undefined ? 'no freeze rate' : `freeze rate ${p.freezeRate}`, `${y[i].n} seed${y[i].n === 1 ? '' : 's'}, mean ± sd`, `${asText(metric)} ${spreadText(y[i], 4)}`, `${title} ${spreadText(x[i], 2)} MiB`].join('<br>')),
      hovertemplate: '%{hovertext}<extra></extra>',
      marker: { color, size: 9, symbol: which === 0 ? SYMBOLS[place % SYMBOLS.length] : `${SYMBOLS[place % SYMBOLS.length]}-open` },
      line: { color, width: 1, dash: DASHES[which % DASHES.length] },
    };
  });
  const most = Math.max(...points.map((p) => p.results.length));
  const bars = most > 1 ? ` (mean ± sd, ${most} seeds)` : '';
  return figureOfText({ data, layout: { ...baseLayout(`${metric} against ${title}`, axis, `${metric}${bars}`, 420), hovermode: 'closest', showlegend: true } });
}
