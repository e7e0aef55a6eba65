/**
 * The paper's twelve tasks: the memory of a training step under full fine-tuning, as the paper trains, and in mode `tuned`, from the planner. Markdown on standard output: `npm run bench:paper`.
 *
 * Total: the most bytes alive at one moment of a step, temporaries included, once every layer has its moments. Full fine-tuning stands there twice: as this engine runs it, which applies and frees each gradient
 * as soon as it is complete, and as PyTorch keeps it: weights, a gradient of every weight, two moments, what autograd keeps. The ratios are to the first, the smaller.
 */
import { type MemoryPlan, type MemoryQuery, planMemory } from '../src/memory/planner';
import { memoryQuery } from '../src/training/recipePlan';
import { RECIPES } from '../src/training/recipes';

const MIB = 2 ** 20;
const mib = (bytes: number) => Math.round(bytes / MIB).toLocaleString('en');
const mean = (x: readonly number[]) => x.reduce((s, v) => s + v, 0) / x.length;

interface Row {
  readonly task: string;
  readonly size: string;
  readonly rate: number;
  readonly full: MemoryPlan;
  readonly paper: MemoryPlan;
  readonly tuned: MemoryPlan;
}

const rowOf = (query: MemoryQuery, task: string): Row => ({
  task,
  size: query.length === undefined ? `${query.imageSize} px` : `${query.length} tokens`,
  rate: query.freezeRate!,
  full: planMemory({ ...query, mode: 'exact', freezeRate: 0, frozenBiases: false }),
  paper: planMemory({ ...query, mode: 'paper', frozenBiases: false }),
  tuned: planMemory({ ...query, mode: 'tuned', frozenBiases: true }),
});

function table(rows: readonly Row[]): string {
  const ratio = (r: Row, p: MemoryPlan) => r.full.peakBytes / p.peakBytes;
  const pytorch = ({ full }: Row) => 2 * full.weightBytes + full.momentBytes + full.activationBytes;
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`;
  const of = (p: MemoryPlan) => `${mib(p.peakBytes)} (${mib(p.activationBytes)})`;
  return [
    line(['task', 'size', 'batch', 'freeze rate', 'full', 'as PyTorch keeps it', 'paper', 'ratio', 'tuned', 'ratio']),
    line(Array(10).fill('---')),
    ...rows.map((r) => line([r.task, r.size, r.full.batchSize, r.rate, of(r.full), mib(pytorch(r)), of(r.paper), ratio(r, r.paper).toFixed(2), of(r.tuned), ratio(r, r.tuned).toFixed(2)])),
    line(['mean', '', '', '', '', '', '', mean(rows.map((r) => ratio(r, r.paper))).toFixed(2), '', mean(rows.map((r) => ratio(r, r.tuned))).toFixed(2)]),
  ].join('\n');
}

const queries = RECIPES.map((r) => [memoryQuery(r), r.name] as const);
const rowsAt = (batchSize?: number) => table(queries.map(([q, name]) => rowOf({ ...q, ...(batchSize !== undefined && { batchSize }) }, name)));
process.stdout.write(`Total MiB, in brackets what is kept for backward; the paper's batch\n\n${rowsAt()}\n\nBatch 32\n\n${rowsAt(32)}\n\nBatch 128\n\n${rowsAt(128)}\n`);
