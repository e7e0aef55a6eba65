/** `slimfit plan`: the memory of a training step before anything is downloaded or computed, and what fits in a budget. */
import { existsSync } from 'node:fs';
import type { Kernels } from '../engine/shapeEngine';
import { InvalidArgumentError } from '../errors';
import { readConfig } from '../hub/folder';
import { savesText } from '../inspect/planCards';
import { fitMemory, type MemoryFit, type MemoryLever, memoryLevers, momentsInWords } from '../memory/fit';
import { type MemoryPlan, planMemory } from '../memory/planner';
import { blockBytesOf } from '../nn/blocks';
import { memoryQuery } from '../training/recipePlan';
import { formatBytes, parseBytes } from '../units';
import { microBatchText, modeText } from './dryRun';
import { parseTrain } from './trainOptions';

const HELP = `slimfit plan --recipe NAME [options]      the memory of a training step; options as of \`slimfit train\`, and

  --budget BYTES          such as 8GiB, 500MB: the largest batch that fits, or with --batch-size (or where not even one example fits) the smallest change that makes it fit
  --levers                what each way of making the step smaller saves by itself, and costs; with --budget always
  --kernels NAME          whose temporaries count: fused (TensorFlow on a CPU, default), tensorflow (a GPU), webgpu, composed (wasm, cpu)
`;

/** @returns the exit code */
export async function plan(argv: readonly string[]): Promise<number> {
  process.stdout.write(planText(argv));
  return 0;
}

/** What the command prints. @throws InvalidArgumentError, MemoryBudgetError, and as `slimfit train` */
export function planText(argv: readonly string[]): string {
  const rest = [...argv];
  if (rest.includes('--help') || rest.includes('-h')) return HELP;
  const budgetText = take(rest, '--budget');
  const withLevers = flag(rest, '--levers');
  const kernels = (take(rest, '--kernels') ?? 'fused') as Kernels;
  const request = parseTrain([...rest, '--dry-run'])!;
  const { recipe, options, mode, frozenBiases, blockBytes, gradientAccumulationSteps, gradientCheckpointing, sparseEmbeddings, magnitude } = request;
  if (request.policy) throw new InvalidArgumentError('slimfit plan plans inter-layer scheduling only: of another --policy, `slimfit train --dry-run` tells the bytes of the first step');
  const architecture = options.model !== undefined && existsSync(options.model) ? readConfig(options.model) : recipe.architecture;
  const query = { ...memoryQuery(recipe, { architecture, mode, frozenBiases, blockBytes, gradientAccumulationSteps, gradientCheckpointing, sparseEmbeddings }), magnitude, kernels };
  const title = `${recipe.name} (${recipe.source})`;
  if (budgetText === undefined) return report(title, { plan: planMemory(query), changes: {} }, query) + (withLevers ? leversText(memoryLevers(query)) : '');
  const { batchSize, ...open } = query;
  const isBatchGiven = rest.some((a) => a === '--batch-size' || a.startsWith('--batch-size='));
  const budget = parseBytes(budgetText);
  const fit = fitMemory({ ...open, budget, ...(isBatchGiven && { batchSize }) });
  return report(title, fit, query, budget) + leversText(fit.levers);
}

/** Takes an option and its value out of the words. */
function take(words: string[], option: string): string | undefined {
  const at = words.findIndex((w) => w === option || w.startsWith(`${option}=`));
  if (at < 0) return undefined;
  const joined = words[at].startsWith(`${option}=`);
  const value = joined ? words[at].slice(option.length + 1) : words[at + 1];
  if (value === undefined || value === '' || value.startsWith('--')) throw new InvalidArgumentError(`${option} needs a value`);
  words.splice(at, joined ? 1 : 2);
  return value;
}

/** Takes an option without a value out of the words. */
function flag(words: string[], option: string): boolean {
  const at = words.indexOf(option);
  if (at >= 0) words.splice(at, 1);
  return at >= 0;
}

function leversText(levers: readonly MemoryLever[]): string {
  return `\nwhat each lever by itself makes of the peak, and costs\n${table(levers.map((l) => [`  ${l.name}`, `${formatBytes(l.peakBytes)} (${savesText(l)})`.padEnd(24) + l.costs]))}`;
}

function report(title: string, { plan: p, changes }: Pick<MemoryFit, 'plan' | 'changes'>, query: ReturnType<typeof memoryQuery>, budget?: number): string {
  const mode = changes.mode ?? query.mode ?? 'paper';
  const blockBytes = blockBytesOf(changes.blockBytes ?? query.blockBytes, mode);
  const { frozenBiases, gradientAccumulationSteps, gradientCheckpointing, sparseEmbeddings, optimizer = {} } = { ...query, ...changes };
  const changed = Object.keys(changes).length > 0 ? ' (changed to fit)' : '';
  const rows: readonly (readonly [string, string])[] = [
    ['task', title],
    ...(budget === undefined ? [] : [['budget', `${formatBytes(budget)}${changed}`] as const]),
    ['batch', `${p.batchSize} × ${query.length === undefined ? `${query.imageSize}×${query.imageSize} pixels` : `${query.length} tokens`}${microBatchText(p.batchSize, gradientAccumulationSteps)}`],
    ['mode', modeText(typeof mode === 'string' ? mode : mode.name, frozenBiases, gradientCheckpointing, sparseEmbeddings)],
    ['freeze rate', `${changes.freezeRate ?? query.freezeRate}: ${p.layers - p.trains.length} of ${p.layers} layers frozen, here those that leave the costliest to train`],
    ['weights', formatBytes(p.weightBytes)],
    ['optimizer moments', `${formatBytes(p.momentBytes)} ${(optimizer.idleMoments ?? 'keep') === 'keep' ? 'once every layer has trained' : 'at most'}: ${momentsInWords(optimizer)}`],
    ['kept for backward', formatBytes(p.activationBytes)],
    ['gradients, temporaries', `${formatBytes(p.temporaryBytes)} at the peak, of gradients at most ${formatBytes(p.gradientBytes)} at a time`],
    ...(blockBytes < Infinity ? [['temporaries', `of attention and MLP in blocks of ${formatBytes(blockBytes)}`] as const] : []),
    ['peak', `${formatBytes(p.peakBytes)}, without what ${query.kernels === 'composed' ? 'the engine’s library' : query.kernels === 'webgpu' ? 'Dawn' : 'TensorFlow'} takes below the engine`],
  ];
  return `${table(rows)}\nkept for backward, by role and encoding\n${table(sums(p, (a) => `${a.role}, ${a.encoding}`))}\nkept for backward, by part of the model\n${table(sums(p, (a) => a.part))}`;
}

function table(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(0, ...rows.map(([name]) => name.length)) + 2;
  return rows.map(([name, text]) => `${name.padEnd(width)}${text}\n`).join('');
}

function sums({ activations }: MemoryPlan, of: (a: MemoryPlan['activations'][number]) => string): [string, string][] {
  const groups = new Map<string, number>();
  for (const a of activations) groups.set(of(a), (groups.get(of(a)) ?? 0) + a.bytes);
  return [...groups].map(([name, bytes]) => [`  ${name}`, formatBytes(bytes)]);
}
