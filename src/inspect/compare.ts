/** Several runs in one figure: the same views as of one run, overlaid. */
import { type ColumnTable, table } from 'arquero';
import { InvalidArgumentError } from '../errors';
import type { History } from '../training/history';
import { columnMean, historyOf, layerNames, rowsHeight, type Run, stepColumns, stepLine, withLayerRows } from './axes';
import { type Figure, figureOfText } from './figure';
import { modelPart } from './layerNames';
import { asText } from './markup';
import { baseLayout, COLOURS, SERIES_COLOURS } from './palette';
import { tableBundle } from './tableHtml';
import type { Trace } from './staticSvg';
import { MIB } from '../units';

interface Named {
  readonly name: string;
  readonly history: History;
  readonly color: string;
}

/** Runs side by side. Each figure has one colour a run. */
export class RunComparison {
  private readonly runs: readonly Named[];

  /** @throws InvalidArgumentError for no run, or a run without steps */
  constructor(runs: readonly Run[]) {
    if (runs.length === 0) throw new InvalidArgumentError('compare() needs at least one run: compare(trainerA, trainerB) or compare(historyA, historyB)');
    const used = new Map<string, number>();
    this.runs = runs.map((run, i) => {
      const history = historyOf(run);
      const n = (used.get(history.name) ?? 0) + 1;
      used.set(history.name, n);
      return { name: n === 1 ? history.name : `${history.name} (${n})`, history, color: SERIES_COLOURS[i % SERIES_COLOURS.length] };
    });
  }

  /** One row per run: steps, last loss, mean bytes kept, their ratio to plain fine-tuning, device peak, speed, last metrics. */
  table(): ColumnTable {
    const mean = (values: Float64Array) => values.reduce((a, b) => a + b, 0) / values.length;
    const rows = this.runs.map(({ name, history }) => {
      const kept = mean(history.column('activationBytes'));
      const evaluations = history.evaluations().objects() as { metric: string; value: number }[];
      return {
        run: name,
        steps: history.length,
        finalLoss: mean(history.column('loss').slice(-20)),
        activationBytes: Math.round(kept),
        timesLessThanPlain: mean(history.column('fullActivationBytes')) / kept,
        devicePeakBytes: Math.max(...history.column('totalPeakBytes')),
        millisecondsPerStep: mean(history.column('milliseconds')),
        ...Object.fromEntries(evaluations.filter((e) => e.metric !== 'loss').map((e) => [e.metric, e.value])),
      } as Record<string, unknown>;
    });
    const names = [...new Set(rows.flatMap((r) => Object.keys(r)))];
    return table(Object.fromEntries(names.map((n) => [n, rows.map((r) => r[n] ?? null)])) as never);
  }

  /** Loss by step. */
  loss(): Figure {
    return this.lines('Loss', 'loss', 'loss %{y:.4f}', (h) => h.column('loss'));
  }

  /** Learning rate by step. */
  learningRate(): Figure {
    return this.lines('Learning rate', 'learning rate', 'learning rate %{y:.2e}', (h) => h.column('learningRate'));
  }

  /** Bytes kept for backward by step; dashed, what plain fine-tuning keeps. */
  activationMemory(): Figure {
    const mib = (values: Float64Array) => values.map((v) => v / MIB);
    const plain = this.overSteps((h) => mib(h.column('fullActivationBytes')), '%{y:.2f} MiB in plain fine-tuning', 'dash').filter((t) => (t.y as number[]).some(Number.isFinite));
    return figureOfText({
      data: [...this.overSteps((h) => mib(h.column('activationBytes')), '%{y:.2f} MiB kept'), ...plain.slice(0, 1).map((t) => ({ ...t, name: 'plain fine-tuning', line: { color: COLOURS.grey, dash: 'dash' } }))],
      layout: baseLayout('Activations kept for backward', 'step', 'MiB', 360),
    });
  }

  /** Bytes kept in the last step, by part of the model. */
  activationMemoryByPart(): Figure {
    const data = this.runs.map(({ name, history, color }) => {
      const last = history.column('step')[history.length - 1];
      const parts = new Map<string, number>();
      for (const r of history.activations().objects() as { step: number; module: string; bytes: number }[])
        if (r.step === last) parts.set(modelPart(r.module), (parts.get(modelPart(r.module)) ?? 0) + r.bytes / MIB);
      return { type: 'bar', name, x: [...parts.keys()], y: [...parts.values()], marker: { color }, hovertemplate: `${asText(name)}, step ${last}<br>%{x}: %{y:.3f} MiB<extra></extra>` };
    });
    return figureOfText({ data, layout: { ...baseLayout('Activations kept for backward in the last step', '', 'MiB', 360), barmode: 'group' } });
  }

  /** Peak of the device memory within each step. */
  deviceMemory(): Figure {
    return this.lines('Device memory: peak within each step', 'MiB', 'peak %{y:.2f} MiB', (h) => h.column('totalPeakBytes').map((v) => v / MIB));
  }

  /** Tokens a second. */
  throughput(): Figure {
    return this.lines('Throughput', 'tokens / s', '%{y:,.0f} tokens a second', (h) => h.column('tokens').map((t, i) => (1000 * t) / h.column('milliseconds')[i]));
  }

  /** A metric by steps done. @param metric as the evaluation names it, or `loss` @throws InvalidArgumentError when no run has it */
  metric(metric: string): Figure {
    const data = this.runs.flatMap(({ name, history, color }) => {
      const rows = (history.evaluations().objects() as { step: number; metric: string; value: number }[]).filter((r) => r.metric === metric);
      return rows.length === 0 ? [] : [{ ...stepLine(name, rows.map((r) => r.step), rows.map((r) => r.value), color, `${asText(name)}: ${asText(metric)} %{y:.4f}`), mode: 'lines+markers' }];
    });
    if (data.length === 0) throw new InvalidArgumentError(`no run was evaluated for '${metric}': ${[...new Set(this.runs.flatMap((r) => Array.from(r.history.evaluations().array('metric') as string[])))].join(', ') || 'none was evaluated'}`);
    return figureOfText({ data, layout: baseLayout(`Evaluation: ${metric}`, 'steps done', metric, 340) });
  }

  /** Share of the steps in which each layer trained. */
  timesTrained(): Figure {
    return this.byLayer('How often each layer trained', '% of the steps', (h, layer) => (100 * h.trainingOf(layer).times) / h.length, 'trained in %{x:.1f} % of the steps');
  }

  /** Each layer's last update magnitude. */
  updateMagnitudes(): Figure {
    return this.byLayer('Last update magnitude of each layer', 'mean |ΔW/W|', (h, layer) => (h.trainingOf(layer).times > 0 ? h.magnitudesAfter(h.length - 1)[layer] : NaN), 'mean |ΔW/W| %{x:.2e}', 'log');
  }

  /** What Jupyter shows: the table. */
  [Symbol.for('Jupyter.display')](): Record<string, string> {
    return tableBundle(this.table());
  }

  private overSteps(values: (h: History) => Float64Array, hover: string, dash = 'solid'): Trace[] {
    return this.runs.map(({ name, history, color }) => {
      const columns = stepColumns(history);
      const all = values(history);
      return stepLine(name, columns.map((c) => c.step), columns.map((c) => columnMean(all, c)), color, `${asText(name)}: ${hover}`, { line: { dash } });
    });
  }

  private lines(title: string, unit: string, hover: string, values: (h: History) => Float64Array): Figure {
    return figureOfText({ data: this.overSteps(values, hover), layout: { ...baseLayout(title, 'step', unit, 340), showlegend: true } });
  }

  private byLayer(title: string, unit: string, value: (h: History, layer: number) => number, hover: string, type = 'linear'): Figure {
    const names = [...new Set(this.runs.flatMap((r) => layerNames(r.history.freezableLayers)))];
    const layout = withLayerRows(baseLayout(title, unit, '', rowsHeight(names.length)), names);
    return figureOfText({
      data: this.runs.map(({ name, history, color }) => {
        const shown = history.freezableLayers.map((l) => ({ l, v: value(history, l.index) })).filter(({ v }) => Number.isFinite(v));
        return { type: 'scatter', mode: 'markers', name, x: shown.map((s) => s.v), y: layerNames(shown.map((s) => s.l)), marker: { color, size: 7 }, hovertemplate: `${asText(name)}<br>%{y}<br>${hover}<extra></extra>` };
      }),
      layout: { ...layout, xaxis: { ...(layout.xaxis as object), type }, showlegend: true },
    });
  }
}

/**
 * Runs side by side: `compare(full, slim).loss()`. By itself it shows a table of them.
 * @param runs trainers, or histories (also from `loadHistory`); a trainer's `name` option names its run
 */
export function compare(...runs: readonly Run[]): RunComparison {
  return new RunComparison(runs);
}
