/** How a machine's engines show themselves in a notebook: what each computes on, or why it does not start, which is taken, and WebGPU's adapters. */
import { type EngineChoice, engineChoice as choose } from '../engine/choose';
import { ADAPTER_FEATURES, type AdapterSummary } from '../engine/webgpu/adapters';
import { showing } from './cards';
import type { MimeBundle } from './kernelApi';
import { COLOURS } from './palette';
import { escapeHtml } from './tableHtml';
import { formatBytes } from '../units';

/** What `chooseEngine()` takes on this machine, out of what, and why; shows itself as two tables. Starts each engine in turn. */
export async function engineChoice(): Promise<EngineChoice> {
  return showing(await choose(), choiceBundle);
}

/** What is to be known of an adapter: names and values. */
export function adapterFacts({ maxBuffer, maxBinding, workgroupThreads, workgroupBytes, features, mixed }: AdapterSummary): readonly (readonly [name: string, value: string])[] {
  return [
    ['largest tensor', `${formatBytes(Math.min(maxBuffer, maxBinding))} (buffer ${formatBytes(maxBuffer)}, binding ${formatBytes(maxBinding)})`],
    ['workgroup', `${workgroupThreads} threads, ${formatBytes(workgroupBytes)} in common`],
    ...ADAPTER_FEATURES.map((f) => [f.endsWith('matrix') ? `${f} (tensor cores)` : f, features.includes(f) ? 'yes' : 'no'] as const),
    ['mixed precision', mixed],
  ];
}

/** A choice as data by mime type. */
export function choiceBundle({ chosen, because, reasons, adapters }: EngineChoice): MimeBundle {
  const verdict = `Trains on ${chosen ?? 'nothing'}: ${because}`;
  const left = 'text-align:left;vertical-align:top';
  const mark = (yes: boolean) => `<span style="color:${yes ? COLOURS.green : COLOURS.vermilion}">${yes ? '✓' : '✗'}</span>`;
  const engines = reasons.map((r) => `<tr><th style="${left}">${mark(r.available)} ${r.name}</th><td style="${left};max-width:60em">${escapeHtml(r.why)}</td></tr>`);
  const facts = adapters.map(adapterFacts);
  const adapterTable =
    adapters.length === 0
      ? ''
      : `<table><thead><tr><th style="${left}">WebGPU's adapters</th>${adapters.map((a) => `<th style="${left}">${escapeHtml(a.name)}<br>${a.kind}</th>`).join('')}</tr></thead><tbody>${facts[0]
          .map(([name], i) => `<tr><th style="${left}">${escapeHtml(name)}</th>${facts.map((f) => `<td style="${left}">${escapeHtml(f[i][1])}</td>`).join('')}</tr>`)
          .join('')}</tbody></table>`;
  const text = [
    verdict,
    ...reasons.map((r) => `  ${r.available ? '✓' : '✗'} ${r.name}: ${r.why}`),
    ...adapters.flatMap((a, i) => [`WebGPU adapter ${a.name} (${a.kind})`, ...facts[i].map(([name, value]) => `  ${name}: ${value}`)]),
  ];
  return { 'text/html': `<div><strong>${escapeHtml(verdict)}</strong><table><tbody>${engines.join('')}</tbody></table>${adapterTable}</div>`, 'text/plain': text.join('\n') };
}
