/**
 * What fits in a budget of bytes, and what each way of making a step smaller saves and costs. A step's peak comes from the planner (planner.ts), so that what is proposed is what will be run.
 */
import { InvalidArgumentError, MemoryBudgetError } from '../errors';
import { showing } from '../inspect/cards';
import { fitBundle } from '../inspect/planCards';
import { checkAccumulation } from '../models/microBatches';
import { blockBytesOf, TUNED_BLOCK_BYTES } from '../nn/blocks';
import type { AdamWSettings } from '../optim/adamw';
import { schemeOf } from '../tape/scheme';
import { formatBytes, parseBytes } from '../units';
import { type MemoryPlan, type MemoryQuery, plannerOf, planMemory, readsText } from './planner';

/** What is to fit, and in what. */
export interface FitQuery extends Omit<MemoryQuery, 'batchSize'> {
  /** What the peak may have: bytes, or a text such as '8GiB' or '32GB'. */
  readonly budget: number | string;
  /** Examples of a step. With it, the smallest change is looked for that makes it fit; without it, the largest batch, and nothing is changed as long as a batch of 1 fits. */
  readonly batchSize?: number;
  /** Largest batch that is looked for. Default 1024. */
  readonly largestBatchSize?: number;
}

/** What is changed of a step, in the words of `MemoryQuery`. */
export type MemoryChanges = Partial<Pick<MemoryQuery, 'blockBytes' | 'gradientAccumulationSteps' | 'gradientCheckpointing' | 'mode' | 'sparseEmbeddings' | 'optimizer' | 'frozenBiases' | 'freezeRate'>>;

/** One way of making a step smaller, by itself. */
export interface MemoryLever {
  /** Its name: 'gradient checkpointing'. */
  readonly name: string;
  readonly changes: MemoryChanges;
  /** Peak of the step with it alone, in bytes. */
  readonly peakBytes: number;
  /** How much less that is; negative where the step becomes larger. */
  readonly savesBytes: number;
  /** What it costs, for people. The times are of bench/README.md. */
  readonly costs: string;
}

/** A plan that fits. A cell shows it, with what each lever would save. */
export interface MemoryFit {
  readonly plan: MemoryPlan;
  /** What was changed for it; empty if nothing. */
  readonly changes: MemoryChanges;
  /** What each lever would save of this step, and cost. Worked out when it is read: a second or so each for a model of the size of BERT-base. */
  readonly levers: readonly MemoryLever[];
}

/** A lever of a query: how it adds to changes made before. */
interface Lever {
  readonly name: string;
  /** Of two levers of one kind the later stands for both. */
  readonly kind: string;
  readonly costs: string;
  readonly add: (before: MemoryChanges) => MemoryChanges;
}

/** Changes that may make a step smaller, least harm first: the first ones cost time and change no result. */
function leversOf(q: Omit<MemoryQuery, 'batchSize'> & { readonly batchSize?: number }): Lever[] {
  const scheme = schemeOf(q.mode ?? 'paper');
  const list: Lever[] = [];
  const lever = (name: string, costs: string, change: MemoryChanges) => list.push({ name, kind: Object.keys(change)[0], costs, add: (before) => ({ ...before, ...change }) });
  const moments = (name: string, costs: string, change: AdamWSettings) => list.push({ name, kind: Object.keys(change)[0], costs, add: (before) => ({ ...before, optimizer: { ...(before.optimizer ?? q.optimizer), ...change } }) });
  const { batchSize = 1, gradientAccumulationSteps = 1 } = q;
  if (blockBytesOf(q.blockBytes, q.mode) > TUNED_BLOCK_BYTES) lever(`blocks of ${formatBytes(TUNED_BLOCK_BYTES)}`, 'about 1 % more time; same result up to rounding', { blockBytes: TUNED_BLOCK_BYTES });
  for (let steps = 2 * gradientAccumulationSteps; steps <= batchSize; steps *= 2) lever(`${steps} micro-batches`, 'time, where a part is too small to keep the device busy; same result up to rounding', { gradientAccumulationSteps: steps });
  if (!q.gradientCheckpointing) lever('gradient checkpointing', 'a third more time: layers run again in backward; same result', { gradientCheckpointing: true });
  if (scheme.attentionProbs !== 'recompute')
    lever('probabilities recomputed', 'hardly any time; they come from the kept operands, rounded as these are', { mode: { ...scheme, name: `${scheme.name}, probabilities recomputed`, attentionProbs: 'recompute' } });
  // On a CPU the host's memory is the device's.
  if ((q.optimizer?.idleMoments ?? 'keep') === 'keep' && (q.kernels === 'tensorflow' || q.kernels === 'webgpu') && q.moments !== 'every parameter')
    moments('moments of frozen layers on the host', 'copies when a layer begins and ends to train; same result', { idleMoments: 'host' });
  if (q.optimizer?.moments !== '8-bit') moments('8-bit moments', 'about 15 % more time on a CPU; moments are rounded', { moments: '8-bit' });
  if (!q.sparseEmbeddings && readsText(q.config)) lever('word embeddings by the rows of a step', 'no time; rows that a step does not look up stand still', { sparseEmbeddings: true });
  if (scheme.name !== 'tuned') lever('mode tuned', 'about 15 % more time than paper; other rounding of what is kept: the gradient is off by about 1 %, under paper by 10 to 20 %', { mode: 'tuned', frozenBiases: q.frozenBiases ?? false });
  if (!(q.frozenBiases ?? q.mode === 'tuned')) lever('frozen biases', 'biases of frozen layers stand still', { frozenBiases: true });
  if (!q.frozen) for (const freezeRate of [0.5, 0.75, 0.9, 0.95]) if (freezeRate > (q.freezeRate ?? 0.9)) lever(`freeze rate ${freezeRate}`, 'accuracy: fewer layers train in a step', { freezeRate });
  return list;
}

/**
 * What each way of making a step smaller would save by itself, and cost, in the order in which `fitMemory` tries them. Takes a second or so for each of a dozen levers of BERT-base.
 * @throws InvalidArgumentError, SequenceTooLongError as `planMemory`
 */
export function memoryLevers(query: MemoryQuery): MemoryLever[] {
  const whole = planMemory(query).peakBytes;
  const { gradientAccumulationSteps = 1 } = query;
  return leversOf(query).flatMap(({ name, costs, add }) => {
    const changes = add({});
    // Of the many micro-batches that a large batch can have, the first two tell.
    if (changes.gradientAccumulationSteps !== undefined && changes.gradientAccumulationSteps > 4 * gradientAccumulationSteps) return [];
    const { peakBytes } = planMemory({ ...query, ...changes });
    return [{ name, changes, peakBytes, savesBytes: whole - peakBytes, costs }];
  });
}

/**
 * For a given batch, the smallest change that makes it fit in a budget; without one, the largest batch that fits unchanged, or, where not even the smallest does, that one with the smallest change. Changes in order: temporaries in
 * blocks, then gradient accumulation in 2, 4, … micro-batches, then gradient checkpointing, then probabilities recomputed, then (on a GPU, kernels `tensorflow` or `webgpu`) moments of frozen layers on the host, then 8-bit moments, then
 * word embeddings by the rows of a step, then mode `tuned`, then frozen biases, then higher freeze rates; each on top of those before it that made the step smaller.
 * @throws MemoryBudgetError when nothing fits, naming the smallest that would; InvalidArgumentError as `planMemory`
 */
export function fitMemory(query: FitQuery): MemoryFit {
  const { budget: asked, batchSize, largestBatchSize = 1024, ...rest } = query;
  const budget = typeof asked === 'string' ? parseBytes(asked) : asked;
  if (!(budget > 0)) throw new InvalidArgumentError(`budget is ${asked}; it must be a positive number of bytes`);
  if (!(Number.isInteger(largestBatchSize) && largestBatchSize >= 1)) throw new InvalidArgumentError(`largestBatchSize is ${largestBatchSize}; it must be a whole number of at least 1`);
  // A step has an example for each micro-batch.
  const least = query.gradientAccumulationSteps ?? 1;
  checkAccumulation(least, batchSize ?? largestBatchSize);
  if (batchSize === undefined) {
    const plan = largestBatch(plannerOf(rest), budget, least, largestBatchSize);
    if (plan) return fitOf(rest, plan, {});
  }
  const examples = batchSize ?? least;
  let smallest: { readonly plan: MemoryPlan; readonly changes: MemoryChanges; readonly how: ReadonlyMap<string, string> } | undefined;
  for (const lever of [undefined, ...leversOf({ ...rest, batchSize: examples })]) {
    const changes = lever?.add(smallest!.changes) ?? {};
    const plan = planMemory({ ...rest, ...changes, batchSize: examples });
    if (plan.peakBytes <= budget) return fitOf(rest, plan, changes);
    if (!smallest || plan.peakBytes < smallest.plan.peakBytes) smallest = { plan, changes, how: new Map([...(smallest?.how ?? []), ...(lever ? [[lever.kind, lever.name] as const] : [])]) };
  }
  const { plan, how } = smallest!;
  throw new MemoryBudgetError(
    `a budget of ${formatBytes(budget)} does not hold a batch of ${examples}: the smallest step that was found takes ${formatBytes(plan.peakBytes)} (${plan.peakBytes} bytes)${how.size > 0 ? ` with ${[...how.values()].join(', ')}` : ''}, of which weights and moments ${formatBytes(plan.weightBytes + plan.momentBytes)}`,
    plan.peakBytes,
  );
}

function fitOf(query: Omit<MemoryQuery, 'batchSize'>, plan: MemoryPlan, changes: MemoryChanges): MemoryFit {
  let levers: readonly MemoryLever[] | undefined;
  const fit: MemoryFit = {
    plan,
    changes,
    get levers() {
      return (levers ??= memoryLevers({ ...query, ...changes, batchSize: plan.batchSize }));
    },
  };
  return showing(fit, fitBundle);
}

/** Where moments are and in which form, for people: 'float32', '8-bit, those of frozen layers on the host'. */
export function momentsInWords({ moments = 'float32', idleMoments = 'keep', idleAfter = 0 }: AdamWSettings): string {
  const idle = idleMoments === 'keep' ? '' : `, those of frozen layers ${idleMoments === 'host' ? 'on the host' : 'released'}${idleAfter > 0 ? ` after ${idleAfter} steps` : ''}`;
  return `${moments} moments${idle}`;
}

/** The plan of the largest batch that fits; the peak grows with the batch, so doubling and then halving the gap finds it. */
function largestBatch(planOf: (batchSize: number) => MemoryPlan, budget: number, least: number, most: number): MemoryPlan | undefined {
  let fits: MemoryPlan | undefined;
  let low = least - 1;
  let high = least;
  for (;;) {
    const plan = planOf(high);
    if (plan.peakBytes > budget) break;
    fits = plan;
    low = high;
    if (high === most) return fits;
    high = Math.min(2 * high, most);
  }
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    const plan = planOf(middle);
    if (plan.peakBytes <= budget) {
      fits = plan;
      low = middle;
    } else high = middle;
  }
  return fits;
}
