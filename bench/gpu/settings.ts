/** What the GPU benchmark runs: shapes, modes and precisions, of SlimFit and of its peers, in the order of their weight. */
import type { ActivationMode } from '../../src/tape/scheme';

export type Precision = 'float32' | 'mixed';

/** A model and a batch. */
export interface Setting {
  readonly name: string;
  /** What bench_torch.py calls the model. */
  readonly model: string;
  readonly kind: 'text' | 'image';
  readonly batch: number;
  /** Tokens of a sequence, the class token among them. */
  readonly tokens: number;
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly intermediate: number;
  readonly labels: number;
  /** Of texts: words. Of images: pixels of a side, of the whole and of a patch. */
  readonly vocabulary: number;
  readonly image: number;
  readonly patch: number;
  /** On hidden values and attention probabilities, as the model's authors train it. */
  readonly dropout: number;
}

const BASE = { hidden: 768, layers: 12, heads: 12, intermediate: 3072 };
const bert = (batch: number, tokens: number): Setting => ({ ...BASE, name: `BERT-base ${batch} × ${tokens} tokens`, model: 'bert-base', kind: 'text', batch, tokens, labels: 2, vocabulary: 30522, image: 0, patch: 0, dropout: 0.1 });
const vit = (batch: number): Setting => ({ ...BASE, name: `ViT-Base/16 ${batch} × 224 px`, model: 'vit-base', kind: 'image', batch, tokens: 197, labels: 1000, vocabulary: 0, image: 224, patch: 16, dropout: 0 });

/** The settings of the published table, the most telling first. */
export const SETTINGS: readonly Setting[] = [bert(32, 128), vit(32), bert(128, 384), vit(128)];

/** The same table with shapes that a software driver computes in seconds: for rehearsals. */
export const TINY_SETTINGS: readonly Setting[] = [
  { ...bert(1, 8), name: 'BERT-tiny 1 × 8 tokens', model: 'bert-tiny', hidden: 128, layers: 2, heads: 2, intermediate: 512 },
  { ...vit(1), name: 'ViT-128×4 1 × 32 px', model: 'vit-128x4', tokens: 65, hidden: 128, layers: 4, heads: 4, intermediate: 256, labels: 10, image: 32, patch: 4 },
];

/** How SlimFit trains. */
export interface Mode {
  readonly name: 'full' | 'paper' | 'tuned';
  readonly scheme: ActivationMode;
  readonly freezeRate: number;
}

export const MODES: readonly Mode[] = [
  { name: 'full', scheme: 'exact', freezeRate: 0 },
  { name: 'paper', scheme: 'paper', freezeRate: 0.9 },
  { name: 'tuned', scheme: 'tuned', freezeRate: 0.95 },
];

/** How a peer trains: a script and its arguments beside the setting's. */
export interface PeerRun {
  readonly name: string;
  readonly mode: 'full' | 'authors';
  readonly script: 'bench_torch.py' | 'slim_bf16.py';
  readonly precision: 'fp32' | 'tf32' | 'bf16';
  readonly compiled: boolean;
}

const full = (precision: PeerRun['precision'], compiled = false): PeerRun => ({ name: `PyTorch ${compiled ? 'torch.compile' : 'eager'} ${precision}`, mode: 'full', script: 'bench_torch.py', precision, compiled });
const authors = (precision: PeerRun['precision']): PeerRun => ({ name: `the authors' scheme in PyTorch ${precision}`, mode: 'authors', script: precision === 'bf16' ? 'slim_bf16.py' : 'bench_torch.py', precision, compiled: false });

/** Freeze rate of the authors' scheme, that of mode `paper`. */
export const AUTHORS_RATE = 0.9;

/** One row of the table. */
export type RowPlan = { readonly setting: Setting } & ({ readonly system: 'slimfit'; readonly mode: Mode; readonly precision: Precision } | { readonly system: 'pytorch'; readonly peer: PeerRun });

/** What a row is called. */
export function rowName(row: RowPlan): string {
  return row.system === 'pytorch' ? row.peer.name : `SlimFit ${row.mode.name}${row.mode.freezeRate > 0 ? ` ${row.mode.freezeRate}` : ''} ${row.precision}`;
}

/** SlimFit and what it is compared with in turn, in one setting. */
export function rowsOf(setting: Setting): RowPlan[] {
  const ours = (mode: Mode, precision: Precision): RowPlan => ({ setting, system: 'slimfit', mode, precision });
  const theirs = (peer: PeerRun): RowPlan => ({ setting, system: 'pytorch', peer });
  const [exact, paper, tuned] = MODES;
  return [
    ours(exact, 'float32'), theirs(full('fp32')), ours(exact, 'mixed'), theirs(full('bf16')),
    ours(paper, 'float32'), theirs(authors('fp32')), ours(paper, 'mixed'), theirs(authors('bf16')),
    ours(tuned, 'float32'), theirs(full('tf32')), ours(tuned, 'mixed'), theirs(authors('tf32')),
  ];
}

/** `torch.compile` takes a minute of compiling for each row: last. */
export function compiledRowsOf(setting: Setting): RowPlan[] {
  return (['fp32', 'tf32', 'bf16'] as const).map((precision) => ({ setting, system: 'pytorch', peer: full(precision, true) }));
}

/** The rows that a row's time is measured against: SlimFit's in float32 against PyTorch's, its mixed precision against bf16. */
export function counterpart(row: RowPlan): string | undefined {
  if (row.system === 'pytorch') return undefined;
  const precision = row.precision === 'float32' ? 'fp32' : 'bf16';
  return (row.mode.name === 'paper' ? authors(precision) : full(precision)).name;
}

/** The row that a row's bytes are measured against: PyTorch's full fine-tuning in the same precision. */
export function memoryCounterpart(row: RowPlan): string {
  return full(row.system === 'slimfit' ? (row.precision === 'float32' ? 'fp32' : 'bf16') : row.peer.precision).name;
}
