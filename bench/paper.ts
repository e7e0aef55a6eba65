/**
 * The paper's twelve tasks: the memory of a training step under full fine-tuning, as the paper trains, and in mode `tuned` with 8-bit moments, those of frozen layers on the host, and word embeddings by
 * the rows of a step (as many as its tokens, were they all different), from the planner.
 * Markdown on standard output: `npm run bench:paper`; a few minutes.
 *
 * Total: the most bytes alive at one moment of a step, temporaries included, once every layer has its moments. Full fine-tuning stands there twice: as this engine runs it, which applies and frees each gradient
 * as soon as it is complete, and as PyTorch keeps it: weights, a gradient of every weight, two moments, what autograd keeps. The ratios are to the first, which is the smaller but for the largest batches.
 */
import { type MemoryPlan, type MemoryQuery, planMemory } from '../src/memory/planner';
import { memoryQuery } from '../src/training/recipePlan';
import { RECIPES } from '../src/training/recipes';

const mib = (bytes: number) => Math.round(bytes / 2 ** 20).toLocaleString('en');
const mean = (x: readonly number[]) => x.reduce((s, v) => s + v, 0) / x.length;

/** What is compared with full fine-tuning, by the heading of its columns. */
const WAYS: Readonly<Record<string, (q: MemoryQuery) => MemoryQuery>> = {
  paper: (q) => ({ ...q, mode: 'paper', frozenBiases: false }),
  tuned: (q) => ({ ...q, mode: 'tuned', frozenBiases: true, optimizer: { ...q.optimizer, moments: '8-bit', idleMoments: 'host' }, sparseEmbeddings: q.length !== undefined }),
  'tuned, layers run again': (q) => ({ ...WAYS.tuned(q), gradientCheckpointing: true }),
};

function table(queries: readonly (readonly [string, MemoryQuery])[]): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`;
  const of = (p: MemoryPlan) => `${mib(p.peakBytes)} (${mib(p.activationBytes)})`;
  const ratios = Object.keys(WAYS).map((): number[] => []);
  const rows = queries.map(([task, q]) => {
    const full = planMemory({ ...q, mode: 'exact', freezeRate: 0, frozenBiases: false });
    const pytorch = 2 * full.weightBytes + full.momentBytes + full.activationBytes;
    const ways = Object.values(WAYS).flatMap((way, i) => {
      const plan = planMemory(way(q));
      ratios[i].push(full.peakBytes / plan.peakBytes);
      return [of(plan), ratios[i].at(-1)!.toFixed(2)];
    });
    return line([task, q.length === undefined ? `${q.imageSize} px` : `${q.length} tokens`, q.batchSize, q.freezeRate!, of(full), mib(pytorch), ...ways]);
  });
  const heads = ['task', 'size', 'batch', 'freeze rate', 'full', 'as PyTorch keeps it', ...Object.keys(WAYS).flatMap((w) => [w, 'ratio'])];
  return [line(heads), line(heads.map(() => '---')), ...rows, line(['mean', '', '', '', '', '', ...ratios.flatMap((r) => ['', mean(r).toFixed(2)])])].join('\n');
}

const queriesAt = (batchSize?: number) => RECIPES.map((r) => [r.name, { ...memoryQuery(r), ...(batchSize !== undefined && { batchSize }) }] as const);
process.stdout.write('Total MiB, in brackets what is kept for backward.\n');
for (const [title, batchSize] of [['The paper’s batches', undefined], ['Batch 32', 32], ['Batch 128', 128]] as const) process.stdout.write(`\n${title}\n\n${table(queriesAt(batchSize))}\n`);
