/** How a step's record and preview show themselves in a notebook: a few lines of text, and a table of what was kept. Plans of memory (planCards.ts) are laid out the same way. */
import type { FreezableLayer } from '../freezing/layer';
import type { LedgerEntry } from '../tape/roles';
import type { StepPreview } from '../training/trainer';
import type { StepRecord } from '../training/stepRecord';
import { formatBytes } from '../units';
import type { MimeBundle } from './kernelApi';
import { shortLayerName } from './layerNames';
import { COLOURS } from './palette';
import { escapeHtml, formatNumber } from './tableHtml';

/** Layers named before the rest is only counted. */
const NAMED = 12;

/** Gives an object a way to show itself that no loop and no comparison sees. */
export function showing<T extends object>(value: T, bundle: (value: T) => MimeBundle): T {
  return Object.defineProperty(value, Symbol.for('Jupyter.display'), { value: () => bundle(value), enumerable: false });
}

/** 'L0 query, L3 MLP up and 4 more'. */
function nameList(layers: readonly FreezableLayer[]): string {
  const names = layers.slice(0, NAMED).map((l) => shortLayerName(l.name)).join(', ');
  return layers.length > NAMED ? `${names} and ${layers.length - NAMED} more` : names || 'none';
}

/** A name and what is said of it. */
export type Line = readonly [name: string, value: string];

/** Lines as a table under a title, and HTML below it. */
export function linesHtml(title: string, lines: readonly Line[], below = ''): string {
  const rows = lines.map(([k, v]) => `<tr><th style="text-align:left;white-space:nowrap">${escapeHtml(k)}</th><td style="text-align:left">${escapeHtml(v)}</td></tr>`);
  return `<div><strong>${escapeHtml(title)}</strong><table><tbody>${rows.join('')}</tbody></table>${below}</div>`;
}
export const linesText = (title: string, lines: readonly Line[]): string => [title, ...lines.map(([k, v]) => `  ${k}: ${v}`)].join('\n');

/** An entry of the ledger, or of a plan. */
type KeptEntry = Pick<LedgerEntry, 'role' | 'encoding' | 'bytes'>;

/** Bytes by role and encoding, largest first. */
function keptGroups(entries: readonly KeptEntry[]): { kind: string; tensors: number; bytes: number }[] {
  const groups = new Map<string, { kind: string; tensors: number; bytes: number }>();
  for (const { role, encoding, bytes } of entries) {
    const kind = `${role}, ${encoding}`;
    const group = groups.get(kind) ?? { kind, tensors: 0, bytes: 0 };
    group.tensors++;
    group.bytes += bytes;
    groups.set(kind, group);
  }
  return [...groups.values()].sort((a, b) => b.bytes - a.bytes);
}

/** What is kept, by role and encoding, as a table with bars. */
export function keptTable(entries: readonly KeptEntry[]): string {
  const groups = keptGroups(entries);
  const most = Math.max(1, ...groups.map((g) => g.bytes));
  const bar = (bytes: number) => `<div style="background:${COLOURS.blue};height:0.7em;width:${((120 * bytes) / most).toFixed(0)}px"></div>`;
  const rows = groups.map((g) => `<tr><td style="text-align:left">${escapeHtml(g.kind)}</td><td>${g.tensors}</td><td style="white-space:nowrap">${formatBytes(g.bytes)}</td><td>${bar(g.bytes)}</td></tr>`);
  return `<table style="font-variant-numeric:tabular-nums"><thead><tr><th style="text-align:left">role, encoding</th><th>tensors</th><th>bytes</th><th></th></tr></thead><tbody>${rows.join('')}</tbody></table>`;
}

/** What a step did. */
export function recordBundle(record: StepRecord, layers: readonly FreezableLayer[]): MimeBundle {
  const title = `Step ${record.step} (epoch ${record.epoch})`;
  const lines: Line[] = [
    ['loss', formatNumber(record.loss)],
    ['learning rate', formatNumber(record.learningRate)],
    ['time', `${record.milliseconds.toFixed(0)} ms for ${formatNumber(record.tokens)} tokens`],
    ['trained', `${record.active.length} of ${layers.length} layers: ${nameList(record.active.map((i) => layers[i]))}`],
    ['kept for backward', formatBytes(record.activationBytes)],
    ['device peak', formatBytes(record.memory.totalPeak)],
  ];
  return { 'text/html': linesHtml(title, lines, keptTable(record.activations)), 'text/plain': linesText(title, lines) };
}

/** What the next step will do. */
export function previewBundle(preview: StepPreview): MimeBundle {
  const { active, frozen, activationBytes, fullActivationBytes } = preview;
  const title = `Next: step ${preview.step} (epoch ${preview.epoch})`;
  const lines: Line[] = [
    ['learning rate', formatNumber(preview.learningRate)],
    ['trains', `${active.length} of ${active.length + frozen.length} layers, ${(100 * preview.trainedShare).toFixed(1)} % of their weights: ${nameList(active)}`],
    ['freezes', `${frozen.length} layers`],
  ];
  if (activationBytes !== undefined && fullActivationBytes !== undefined)
    lines.push(['will keep', `${formatBytes(activationBytes)} for backward; plain fine-tuning ${formatBytes(fullActivationBytes)} (${(fullActivationBytes / activationBytes).toFixed(1)} times as much)`]);
  return { 'text/html': linesHtml(title, lines), 'text/plain': linesText(title, lines) };
}
