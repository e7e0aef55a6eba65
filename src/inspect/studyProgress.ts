/** How a running study shows itself: in a notebook one output that is redrawn up to four times a second, elsewhere a line of text. */
import { randomUUID } from 'node:crypto';
import { formatDuration, type ProgressOutput } from '../progress';
import { describeJob } from '../training/studyDefinition';
import type { StudyProgress } from '../training/study';
import { type KernelApi, runningKernel } from './kernelApi';
import { COLOURS } from './palette';
import { escapeHtml } from './tableHtml';

/** Least milliseconds between two drawings: in a notebook, on a terminal, in a log. */
const NOTEBOOK_MS = 250;
const TERMINAL_MS = 100;
const LOG_MS = 5000;

const COLOUR: Readonly<Record<StudyProgress['state'], string>> = { running: COLOURS.blue, done: COLOURS.green, interrupted: COLOURS.vermilion, failed: COLOURS.vermilion };

/** The lines of a study's progress: how many runs, which one, how fast. */
export function progressLines(p: StudyProgress, seconds: number): readonly [runs: string, run: string, rate: string] {
  const rate = p.stepsPerSecond >= 1 ? `${p.stepsPerSecond.toFixed(1)} steps/s` : p.stepsPerSecond > 0 ? `${(1 / p.stepsPerSecond).toFixed(1)} s a step` : '';
  const time = p.state === 'running' ? (Number.isNaN(p.secondsLeft) ? '' : `${formatDuration(p.secondsLeft)} left`) : `${p.state} in ${formatDuration(seconds)}`;
  const run = p.state !== 'done' && p.run ? `${describeJob(p.run)}: step ${p.step} of ${p.steps}` : '';
  return [`${p.done} of ${p.total} runs`, run, [rate, time].filter(Boolean).join(', ')];
}

/** One progress output. */
export class StudyProgressView {
  private readonly displayId = `slimfit-study-${randomUUID()}`;
  private readonly began: number;
  private drawn = -Infinity;
  private shown = false;

  constructor(
    private readonly kernel: KernelApi | undefined = runningKernel(),
    private readonly output: ProgressOutput = process.stderr,
    private readonly now: () => number = () => performance.now(),
  ) {
    this.began = now();
  }

  update(p: StudyProgress): void {
    const now = this.now();
    const over = p.state !== 'running';
    if (!over && now - this.drawn < (this.kernel ? NOTEBOOK_MS : this.output.isTTY ? TERMINAL_MS : LOG_MS)) return;
    this.drawn = now;
    const lines = progressLines(p, (now - this.began) / 1000);
    const text = `study  ${lines.filter(Boolean).join('  ')}`;
    if (!this.kernel) {
      this.output.write(this.output.isTTY ? `\r\x1b[2K${text}${over ? '\n' : ''}` : `${text}\n`);
      return;
    }
    const share = Math.min(1, (p.done + (over || p.steps === 0 ? 0 : p.step / p.steps)) / p.total);
    const bar = `<div style="width:320px;height:8px;background:rgba(127,127,127,0.25)"><div style="width:${(100 * share).toFixed(1)}%;height:8px;background:${COLOUR[p.state]}"></div></div>`;
    const html = `<div style="font-variant-numeric:tabular-nums;min-height:4.5em"><strong>Study: ${escapeHtml(lines[0])}</strong>${bar}<div>${escapeHtml(lines[2])}</div><div>${escapeHtml(lines[1])}</div></div>`;
    this.kernel.display({ 'text/html': html, 'text/plain': text }, { displayId: this.displayId, update: this.shown });
    this.shown = true;
  }
}
