/** How a plan of memory, and what fits in a budget, show themselves in a notebook: before anything is run, the lines of a step's record. */
import type { MemoryChanges, MemoryFit, MemoryLever } from '../memory/fit';
import type { MemoryPlan } from '../memory/planner';
import { formatBytes } from '../units';
import { keptTable, type Line, linesHtml, linesText } from './cards';
import type { MimeBundle } from './kernelApi';
import { escapeHtml } from './tableHtml';

const planLines = (p: MemoryPlan): Line[] => [
  ['batch', String(p.batchSize)],
  ['trains', `${p.trains.length} of ${p.layers} layers`],
  ['weights', formatBytes(p.weightBytes)],
  ['optimizer moments', formatBytes(p.momentBytes)],
  ['kept for backward', formatBytes(p.activationBytes)],
  ['gradients, temporaries', `${formatBytes(p.temporaryBytes)} at the peak; gradients at most ${formatBytes(p.gradientBytes)} at a time`],
  ['peak', formatBytes(p.peakBytes)],
];

/** What a step will take. */
export function planBundle(plan: MemoryPlan): MimeBundle {
  const title = 'Memory of a training step';
  return { 'text/html': linesHtml(title, planLines(plan), keptTable(plan.activations)), 'text/plain': linesText(title, planLines(plan)) };
}

/** 'blockBytes: 64.0 MiB, mode: tuned'. */
function changesText(changes: MemoryChanges): string {
  const value = (v: unknown): string => (typeof v === 'object' && v !== null ? ('name' in v ? String(v.name) : JSON.stringify(v)) : String(v));
  return Object.entries(changes).map(([name, v]) => `${name}: ${name === 'blockBytes' ? formatBytes(Number(v)) : value(v)}`).join(', ') || 'nothing';
}

/** How much less a lever's peak is, as '−1.2 GiB'. */
export const savesText = ({ savesBytes }: MemoryLever): string => (savesBytes > 0 ? `−${formatBytes(savesBytes)}` : savesBytes < 0 ? `+${formatBytes(-savesBytes)}` : 'nothing');

/** What fits, and what more could be done. */
export function fitBundle({ plan, changes, levers }: MemoryFit): MimeBundle {
  const title = 'What fits';
  const lines: Line[] = [['changed for it', changesText(changes)], ...planLines(plan)];
  const left = (text: string) => `<td style="text-align:left">${escapeHtml(text)}</td>`;
  const right = (text: string) => `<td style="white-space:nowrap">${escapeHtml(text)}</td>`;
  const rows = levers.map((l) => `<tr>${left(l.name)}${right(formatBytes(l.peakBytes))}${right(savesText(l))}${left(l.costs)}</tr>`);
  const heads = `<thead><tr><th style="text-align:left">lever, by itself</th><th>peak</th><th>change</th><th style="text-align:left">costs</th></tr></thead>`;
  const table = levers.length > 0 ? `<table style="font-variant-numeric:tabular-nums">${heads}<tbody>${rows.join('')}</tbody></table>` : '';
  const more = levers.map((l) => `  ${l.name}: ${savesText(l)}; ${l.costs}`);
  return { 'text/html': linesHtml(title, lines, table), 'text/plain': [linesText(title, lines), ...(more.length > 0 ? ['each lever by itself', ...more] : [])].join('\n') };
}
