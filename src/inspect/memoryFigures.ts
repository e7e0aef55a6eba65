/** Figures of memory: what is kept for backward, by whom and in which encoding, over the model, over the steps and within one step, of steps that ran and of plans; and the whole device. */
import { CATEGORIES, type Category } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import type { MemoryPlan } from '../memory/planner';
import type { CoursePoint } from '../tape/roles';
import type { History } from '../training/history';
import { columnMean, historyOf, type Run, type StepColumn, stepColumns, stepLine } from './axes';
import { type Figure, figureOfText } from './figure';
import { modelPart, shortLayerName } from './layerNames';
import { asText } from './markup';
import { baseLayout, COLOURS } from './palette';
import type { Trace } from './staticSvg';
import { formatBytes, MIB } from '../units';

/** Colours of roles and encodings, so that the same kind has the same colour in every figure. */
const KIND_COLOURS: Readonly<Record<string, string>> = {
  'static, q3.4': COLOURS.blue,
  'static, q0.8': COLOURS.sky,
  'static, q8-row': COLOURS.blue,
  'static, u8-row': COLOURS.sky,
  'static, q2.1': COLOURS.green,
  'static, q4-row': COLOURS.green,
  'static, float32': '#004466',
  'dynamic, float32': COLOURS.vermilion,
  'dynamic, q3.4': COLOURS.orange,
  'dynamic, q8-row': COLOURS.orange,
  'quasi-static, top10': COLOURS.purple,
  'quasi-static, float32': '#882255',
  'quasi-static, q8-row': COLOURS.purple,
};
const kindColour = (kind: string): string => KIND_COLOURS[kind] ?? COLOURS.grey;

/** What a figure of one step is drawn from: a run, or a plan of a step that has not run. */
export type RunOrPlan = Run | MemoryPlan;

const isPlan = (of: RunOrPlan): of is MemoryPlan => 'peakBytes' in of && 'course' in of && Array.isArray(of.course);

interface KeptRow {
  readonly module: string;
  readonly role: string;
  readonly encoding: string;
  readonly bytes: number;
}
const kindOf = (r: KeptRow): string => `${r.role}, ${r.encoding}`;
const sum = (rows: readonly { readonly bytes: number }[]): number => rows.reduce((s, r) => s + r.bytes, 0);

function keptRows(history: History): readonly (KeptRow & { readonly step: number })[] {
  return history.activations().objects() as (KeptRow & { step: number })[];
}

/** Groups rows by a key, in order of first appearance. */
function grouped<R>(rows: readonly R[], key: (row: R) => string): Map<string, R[]> {
  const out = new Map<string, R[]>();
  for (const row of rows) {
    const group = out.get(key(row));
    if (group) group.push(row);
    else out.set(key(row), [row]);
  }
  return out;
}

/** Number of a recorded step: the given one, or the last. @throws InvalidArgumentError when it was not recorded */
export function recordedStep(history: History, step: number | undefined): number {
  const steps = history.column('step');
  const chosen = step ?? steps[steps.length - 1];
  if (!steps.includes(chosen)) throw new InvalidArgumentError(`step ${chosen} was not recorded: the history has steps ${steps[0]} to ${steps[steps.length - 1]}`);
  return chosen;
}

/**
 * Bytes that a step kept for backward, or of a plan will keep, by part of the model, stacked by role and encoding; the marks are what plain fine-tuning keeps (of steps that ran).
 * @param options `step`, of a run: default the last
 */
export function activationMemoryFigure(of: RunOrPlan, options: { readonly step?: number } = {}): Figure {
  if (isPlan(of)) return keptFigure(of.activations.map(({ layer, role, encoding, bytes }) => ({ module: layer, role, encoding, bytes })), 'as planned', 'Activations that a step will keep for backward');
  const history = historyOf(of);
  const step = recordedStep(history, options.step);
  const full = (history.fullActivations().objects() as { step: number; part: string; bytes: number }[]).filter((row) => row.step === step);
  return keptFigure(keptRows(history).filter((row) => row.step === step), `step ${step}`, `Activations kept for backward in step ${step}`, full);
}

function keptFigure(rows: readonly KeptRow[], when: string, title: string, full: readonly { readonly part: string; readonly bytes: number }[] = []): Figure {
  const byPart = grouped(rows, (row) => modelPart(row.module));
  const parts = [...byPart.keys()];
  // The names of many would run into each other.
  const label = (part: string) => (parts.length > 8 ? part.replace(/^layer /, 'L') : part);
  const slim = [...grouped(rows, kindOf).keys()].map((kind) => ({
    type: 'bar',
    name: kind,
    x: parts.map(label),
    y: parts.map((p) => sum(byPart.get(p)!.filter((row) => kindOf(row) === kind)) / MIB),
    marker: { color: kindColour(kind) },
    hovertemplate: `%{x}, ${when}<br>${asText(kind)}: %{y:.3f} MiB<extra></extra>`,
  }));
  const beside: Trace[] =
    full.length === 0
      ? []
      : [
          {
            type: 'scatter',
            mode: 'markers',
            name: 'plain fine-tuning',
            x: full.map((r) => label(r.part)),
            y: full.map((r) => r.bytes / MIB),
            marker: { color: COLOURS.grey, symbol: 'line-ew-open', size: 22, line: { width: 3, color: COLOURS.grey } },
            hovertemplate: `%{x}, ${when}<br>plain fine-tuning: %{y:.3f} MiB<extra></extra>`,
          },
        ];
  const layout = baseLayout(`${title}: ${formatBytes(sum(rows))}`, '', 'MiB', 400);
  return figureOfText({ data: [...slim, ...beside], layout: { ...layout, barmode: 'stack' } });
}

/** Bytes kept for backward in each step, stacked by role and encoding, under the line of plain fine-tuning. */
export function activationMemoryOverStepsFigure(run: Run): Figure {
  const history = historyOf(run);
  const columns = stepColumns(history);
  const x = columns.map((c) => c.step);
  const steps = history.column('step');
  const columnOf = new Map<number, StepColumn>();
  for (const c of columns) for (let i = c.from; i < c.to; i++) columnOf.set(steps[i], c);
  const place = new Map(columns.map((c, i) => [c, i]));
  const bars = [...grouped(keptRows(history), kindOf)].map(([kind, rows]) => {
    const y = columns.map(() => 0);
    for (const row of rows) {
      const c = columnOf.get(row.step)!;
      y[place.get(c)!] += row.bytes / MIB / (c.to - c.from);
    }
    return { type: 'bar', name: kind, x, y, marker: { color: kindColour(kind), line: { width: 0 } }, hovertemplate: `step %{x}<br>${asText(kind)}: %{y:.3f} MiB<extra></extra>` };
  });
  const full = columns.map((c) => columnMean(history.column('fullActivationBytes'), c) / MIB);
  const line = full.some(Number.isFinite) ? [stepLine('plain fine-tuning', x, full, COLOURS.grey, 'plain fine-tuning: %{y:.3f} MiB', { line: { dash: 'dash' } })] : [];
  const layout = baseLayout('Activations kept for backward', 'step', 'MiB', 400);
  return figureOfText({ data: [...bars, ...line], layout: { ...layout, barmode: 'stack', bargap: 0 } });
}

/**
 * Memory over the course of one step that ran, or of a plan: forward keeps, backward lets go; the peak is marked. Kept activations and everything on the device.
 * @param options `step`, of a run: one of the latest hundred; default the last
 * @throws InvalidArgumentError when the course of that step is not remembered
 */
export function stepMemoryFigure(of: RunOrPlan, options: { readonly step?: number } = {}): Figure {
  if (isPlan(of)) return courseFigure(of.course, 'as planned', `Memory over the course of a step, as planned: peak ${formatBytes(of.peakBytes)} with temporaries`);
  const history = historyOf(of);
  const step = recordedStep(history, options.step);
  const course = history.course(step);
  if (!course) throw new InvalidArgumentError(`the course of step ${step} is not remembered: steps ${history.courseSteps[0]} to ${history.courseSteps.at(-1)} are`);
  return courseFigure(course, `step ${step}`, `Memory over the course of step ${step}`);
}

function courseFigure(course: readonly CoursePoint[], when: string, title: string): Figure {
  const x = course.map((_, i) => i);
  const labels = course.map((p) => `${p.phase}: ${p.phase === 'backward' ? 'let go by' : 'kept by'} ${shortLayerName(p.layer)}`);
  const turn = course.findIndex((p) => p.phase !== 'forward');
  const rounds = course.filter((p, i) => p.phase === 'forward' && course[i - 1]?.phase !== 'forward').length;
  const line = (name: string, key: 'activationBytes' | 'deviceBytes', color: string) => ({
    type: 'scatter',
    mode: 'lines',
    name,
    x,
    y: course.map((p) => p[key] / MIB),
    text: labels,
    line: { color, shape: 'hv' },
    hovertemplate: `${when}, %{text}<br>${name}: %{y:.3f} MiB<extra></extra>`,
  });
  const peakAt = course.reduce((best, p, i) => (p.activationBytes > course[best].activationBytes ? i : best), 0);
  const peak = course[peakAt].activationBytes;
  const layout = baseLayout(title, `${rounds > 1 ? `${rounds} micro-batches, each forward and` : `forward until ${turn < 0 ? course.length : turn}, then`} backward: activations kept and let go, in order`, 'MiB', 380);
  return figureOfText({
    data: [
      line('kept activations', 'activationBytes', COLOURS.orange),
      line('everything on the device', 'deviceBytes', COLOURS.blue),
      {
        type: 'scatter',
        mode: 'markers+text',
        name: `peak of the activations, ${formatBytes(peak)}`,
        x: [peakAt],
        y: [peak / MIB],
        marker: { color: COLOURS.vermilion, size: 9, symbol: 'diamond' },
        hovertemplate: `${when}, ${asText(labels[peakAt])}<br>peak: %{y:.3f} MiB<extra></extra>`,
      },
    ],
    layout: { ...layout, yaxis: { ...(layout.yaxis as object), rangemode: 'tozero' } },
  });
}

/** Colours of what device memory is for. */
export const CATEGORY_COLOURS: Readonly<Record<Category, string>> = { weights: COLOURS.blue, optimizer: COLOURS.green, gradients: COLOURS.purple, activations: COLOURS.orange, workspace: COLOURS.grey };

/** Peak of the device memory within each step, by category and all together; of an engine that keeps buffers for the tensors to come (webgpu), what it holds too. */
export function deviceMemoryFigure(run: Run): Figure {
  const history = historyOf(run);
  const columns = stepColumns(history);
  const x = columns.map((c) => c.step);
  const mean = (values: Float64Array) => columns.map((c) => columnMean(values, c) / MIB);
  const held = history.column('heldBytes');
  return figureOfText({
    data: [
      ...CATEGORIES.map((c) => stepLine(c, x, mean(history.memory(c, 'peak')), CATEGORY_COLOURS[c], `${c}: peak %{y:.2f} MiB`)),
      stepLine('all together', x, mean(history.column('totalPeakBytes')), COLOURS.vermilion, 'peak of all %{y:.2f} MiB', { line: { dash: 'dash' } }),
      ...(held.some(Number.isFinite) ? [stepLine('held by the engine', x, mean(held), COLOURS.sky, 'the engine holds %{y:.2f} MiB', { line: { dash: 'dot' } })] : []),
    ],
    layout: baseLayout('Device memory: peak within each step', 'step', 'MiB', 380),
  });
}
