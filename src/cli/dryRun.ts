/** `slimfit train --dry-run`: what would run, a line each, with the bytes of a step. */
import { existsSync } from 'node:fs';
import { readConfig } from '../hub/folder';
import { momentsInWords } from '../memory/fit';
import { microBatchSizes } from '../models/microBatches';
import { formatBytes } from '../units';
import { planRecipe, type RecipePlan } from '../training/recipePlan';
import type { TrainRequest } from './trainOptions';

/** The lines of a plan, of equal width up to their values. */
export function dryRun({ recipe, options, mode, policy, gradientAccumulationSteps, gradientCheckpointing, sparseEmbeddings, steps }: TrainRequest): string {
  const { model = recipe.checkpoint } = options;
  const known = existsSync(model) ? readConfig(model) : recipe.architecture;
  const trainExamples = Math.min(recipe.trainExamples, options.maxTrainSamples ?? Infinity);
  const plan = planRecipe(recipe, { architecture: known, trainExamples, mode, frozenBiases: options.trainer?.frozenBiases, policy: options.trainer?.policy, gradientAccumulationSteps, gradientCheckpointing });
  const rows: readonly (readonly [string, string])[] = [
    [recipe.kind === 'image' ? 'images' : 'task', `${recipe.name} (${recipe.source})`],
    ['checkpoint', `${model}${options.fromScratch ? ', weights drawn afresh' : ''}`],
    ['data', options.data ?? (recipe.kind === 'image' && recipe.images === 'folder' ? `${recipe.dataset.repo}, in a folder: name it with --data` : `${[recipe.dataset.repo, recipe.dataset.config].filter(Boolean).join(' ')} on the hub`)],
    ['training examples', `${trainExamples.toLocaleString('en-US')}${options.data ? ' in the official data; yours are counted when they are read' : ''}${recipe.kind === 'squad' ? '; a long context gives several windows, and so a few more steps' : ''}`],
    ['steps', stepsText(plan, steps)],
    ['batch', `${recipe.batchSize} × ${recipe.kind === 'image' ? `${recipe.imageSize}×${recipe.imageSize} pixels, augmentation ${recipe.augmentation}` : `${recipe.maxLength} tokens`}${recipe.kind === 'squad' ? `, windows ${recipe.docStride} tokens apart` : ''}${microBatchText(recipe.batchSize, gradientAccumulationSteps)}`],
    ['learning rate', `${recipe.learningRate.toExponential()}, ${typeof recipe.schedule === 'string' ? recipe.schedule : 'a function of the step'}`],
    ['optimizer', optimizerText(recipe.optimizer)],
    ...(policy ? [['policy', [policy.name, ...Object.entries(policy.options).map(([k, v]) => `${k} ${v}`)].join(', ')] as const] : []),
    [policy ? 'first step' : 'freeze rate', `${policy ? '' : `${recipe.freezeRate}: `}${plan.frozenLayers} of ${plan.layers} layers frozen${policy ? '' : ' in a step'}, ${plan.layers - plan.frozenLayers} train${recipe.alwaysTrain.length > 0 ? `; ${recipe.alwaysTrain.join(', ')} always trains` : ''}`],
    ['seed', String(recipe.seed)],
    ['mode', modeText(mode, plan.frozenBiases, gradientCheckpointing, sparseEmbeddings)],
    ['weights', `${formatBytes(plan.weightBytes)} (${(plan.parameters / 1e6).toFixed(1)} M)`],
    ['optimizer moments', `${formatBytes(plan.momentBytes)} once every layer has trained: ${momentsInWords(recipe.optimizer)}`],
    ['kept for backward', `${formatBytes(plan.activationBytes)} in the first step; plain fine-tuning ${formatBytes(plan.fullActivationBytes)}, ${(plan.fullActivationBytes / plan.activationBytes).toFixed(2)} times as much`],
  ];
  const width = Math.max(...rows.map(([name]) => name.length)) + 2;
  return `${rows.map(([name, text]) => name.padEnd(width) + text).join('\n')}\n`;
}

/** How activations are kept. */
export function modeText(mode: string, frozenBiases: boolean | undefined, gradientCheckpointing: boolean | undefined, sparseEmbeddings: boolean | undefined): string {
  return `${mode}${frozenBiases ? ', biases freeze with their layer' : ''}${gradientCheckpointing ? ', layers run again in backward' : ''}${sparseEmbeddings ? ', word embeddings by the rows of a step' : ''}`;
}

/** In which parts a batch is run; nothing if in one. */
export function microBatchText(batchSize: number, accumulationSteps = 1): string {
  return accumulationSteps > 1 ? `, in ${accumulationSteps} micro-batches of up to ${microBatchSizes(batchSize, accumulationSteps)[0]}` : '';
}

function stepsText({ recipe, totalSteps, stepsPerEpoch }: RecipePlan, steps: number | undefined): string {
  const all = `${totalSteps.toLocaleString('en-US')} (${recipe.epochs} epochs of ${stepsPerEpoch.toLocaleString('en-US')})`;
  return steps === undefined || steps >= totalSteps ? all : `the first ${steps.toLocaleString('en-US')} of ${all}`;
}

function optimizerText({ weightDecay = 0.01, noDecay = ['bias', 'LayerNorm.weight'], beta1 = 0.9, beta2 = 0.999, eps = 1e-6 }: TrainRequest['recipe']['optimizer']): string {
  return `AdamW, betas ${beta1} and ${beta2}, eps ${eps.toExponential()}, weight decay ${weightDecay}${weightDecay > 0 && noDecay.length > 0 ? ` but for ${noDecay.join(', ')}` : ''}`;
}
