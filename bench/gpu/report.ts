/** The tables of the GPU benchmark, from the rows that were measured and those that were not. */
import { CATEGORIES } from '../../src/engine/engine';
import { fullStepFlops } from './flops';
import type { KernelFigures, Peak } from './kernels';
import type { PeerLine, PeerPeaks } from './peers';
import { counterpart, memoryCounterpart, type Precision, type RowPlan, rowName, type Setting } from './settings';
import type { TrainingFigures } from './training';

/** A row and what came of it. */
export type Row = RowPlan & { readonly figures?: TrainingFigures; readonly peerFigures?: PeerLine; readonly why?: string };

/** Everything that a run found. */
export interface Results {
  readonly started: string;
  readonly machine: string;
  /** Whether shapes are those of a rehearsal. */
  readonly tiny: boolean;
  /** PyTorch's version, or why there are no peers. */
  readonly peers: string;
  readonly peaks: readonly (Peak | { readonly precision: Precision; readonly why: string })[];
  /** GB/s of copies by Dawn. */
  readonly copy?: number;
  readonly peerPeaks?: PeerPeaks;
  readonly rows: readonly Row[];
  readonly kernels: readonly KernelFigures[];
  readonly notes: readonly string[];
}

const number = (x: number): string => (x === 0 ? '0' : x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x >= 0.01 ? x.toFixed(2) : x.toPrecision(2));
const mib = (bytes: number): string => number(bytes / 2 ** 20);

/** The numbers that a row has, whoever computed it. */
interface Common {
  readonly ms: number;
  readonly msMin: number;
  readonly msMax: number;
  readonly perSecond: number;
  readonly tflops?: number;
  readonly peakBytes?: number;
}

function common(row: Row): Common | undefined {
  if (row.figures) return row.figures;
  const p = row.peerFigures;
  if (!p || row.system !== 'pytorch') return undefined;
  const { kind, batch, tokens } = row.setting;
  const tflops = row.peer.mode === 'full' ? fullStepFlops(row.setting) / p.ms / 1e9 : undefined;
  return { ms: p.ms, msMin: p.ms_min, msMax: p.ms_max, perSecond: (1000 * batch * (kind === 'text' ? tokens : 1)) / p.ms, tflops, peakBytes: p.peak_bytes };
}

/** The fastest large product that anyone measured in a row's precision: TFLOP/s. */
export function peakFor(row: RowPlan, { peaks, peerPeaks }: Pick<Results, 'peaks' | 'peerPeaks'>): number | undefined {
  const own = (precision: Precision) => peaks.flatMap((p) => ('tflops' in p && p.precision === precision ? [p.tflops] : []));
  const theirs = (precision: keyof PeerPeaks) => (peerPeaks ? [peerPeaks[precision]] : []);
  const precision = row.system === 'slimfit' ? (row.precision === 'float32' ? 'fp32' : 'bf16') : row.peer.precision;
  const found = precision === 'fp32' ? [...own('float32'), ...theirs('fp32')] : precision === 'bf16' ? [...own('mixed'), ...theirs('bf16')] : theirs('tf32');
  return found.length > 0 ? Math.max(...found) : undefined;
}

function settingTable(setting: Setting, results: Results): string {
  const rows = results.rows.filter((r) => r.setting.name === setting.name);
  const named = (name: string | undefined) => rows.find((r) => rowName(r) === name);
  const lines = rows.map((row) => {
    const c = common(row);
    if (!c) return `| ${rowName(row)} | not run: ${(row.why ?? 'not reached').replaceAll('|', '/').replaceAll('\n', ' ')} |${' |'.repeat(13)}`;
    const peak = peakFor(row, results);
    const other = named(counterpart(row));
    const otherMs = other && common(other)?.ms;
    const fullBytes = named(memoryCounterpart(row));
    const most = fullBytes && common(fullBytes)?.peakBytes;
    const f = row.figures;
    const p = row.peerFigures;
    const bytes = f ? CATEGORIES.map((k) => mib(f.bytes[k])) : [mib(p!.weights_bytes + (p!.weight_copies_bytes ?? 0)), mib(p!.optimizer_bytes), '', '', ''];
    return `| ${[
      rowName(row),
      `${number(c.ms)} (${number(c.msMin)}–${number(c.msMax)})`,
      number(c.perSecond),
      c.tflops === undefined ? '' : number(c.tflops),
      c.tflops === undefined || peak === undefined ? '' : `${number((100 * c.tflops) / peak)} %`,
      otherMs === undefined ? '' : number(otherMs / c.ms),
      ...bytes,
      c.peakBytes === undefined ? '' : mib(c.peakBytes),
      f ? mib(f.poolBytes) : '',
      c.peakBytes === undefined || most === undefined ? '' : number((f ? f.poolBytes : c.peakBytes) / most),
      f ? `${f.dispatches}` : '',
    ].join(' | ')} |`;
  });
  const unit = setting.kind === 'text' ? 'tokens/s' : 'images/s';
  return `### ${setting.name}\n\n| | ms a step (least–most) | ${unit} | TFLOP/s | of peak | times as fast as PyTorch | weights MiB | optimizer | gradients | activations | workspace | peak | buffers | of PyTorch's peak | dispatches |\n|${'---|'.repeat(15)}\n${lines.join('\n')}\n`;
}

function kernelTable(kernels: readonly KernelFigures[]): string {
  const lines = kernels.map(
    (k) => `| ${[k.kernel, k.shape, k.precision, number(k.ms), number(k.gigabytesPerSecond), k.flops > 0 ? number(k.tflops) : '', k.boundBy, number(k.boundMs), `${number((100 * k.boundMs) / k.ms)} %`].join(' | ')} |`,
  );
  return `### Operations beside their bound\n\n| operation | shape | precision | ms | GB/s | TFLOP/s | bound by | bound ms | of bound |\n|${'---|'.repeat(9)}\n${lines.join('\n')}\n`;
}

/** All tables as Markdown, with what the run was. */
export function markdown(results: Results, settings: readonly Setting[]): string {
  const { started, machine, peers, tiny, peaks, copy, peerPeaks, kernels, notes } = results;
  const device = peaks.flatMap((p) => ('device' in p ? [p.device] : []))[0] ?? 'no device opened';
  const peak = (precision: Precision): string => {
    const p = peaks.find((x) => x.precision === precision);
    return !p ? 'not measured' : 'why' in p ? `not measured: ${p.why}` : `${number(p.tflops)} TFLOP/s at ${p.size}³`;
  };
  return [
    `${tiny ? '**Rehearsal with tiny shapes: its figures say nothing about a GPU.** ' : ''}${started}, ${device}; ${machine}. ${peers}.`,
    '',
    `Measured peaks: product float32 ${peak('float32')}, mixed ${peak('mixed')}; copy ${copy === undefined ? 'not measured' : `${number(copy)} GB/s`}${peerPeaks ? `; PyTorch's products fp32 ${number(peerPeaks.fp32)}, tf32 ${number(peerPeaks.tf32)}, bf16 ${number(peerPeaks.bf16)} TFLOP/s, copy ${number(peerPeaks.copy)} GB/s` : ''}.`,
    ...notes.map((n) => `\n${n}`),
    '',
    ...settings.map((s) => settingTable(s, results)),
    ...(kernels.length > 0 ? [kernelTable(kernels)] : []),
  ].join('\n');
}
