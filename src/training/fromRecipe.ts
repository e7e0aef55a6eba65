/**
 * `fromRecipe(recipes.glue.cola)`: checkpoint and data of a recipe, loaded, and a trainer with its settings. What differs by kind of task is in recipeParts.ts. A recipe is plain data: to change
 * a setting, spread it: `fromRecipe({ ...recipes.glue.cola, learningRate: 1e-4 })`.
 */
import { existsSync } from 'node:fs';
import { chooseEngine } from '../engine/choose';
import type { Engine } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import { hub } from '../hub/hub';
import type { HubOptions } from '../hub/settings';
import type { BatchSource, ImageBatch, LabelledBatch, Model, Predictions, TextBatch } from '../models/model';
import { glueParts, imageParts, type RecipeParts, squadParts } from './recipeParts';
import { type GlueRecipe, type ImageRecipe, type Recipe, recipeNamed, type SquadRecipe } from './recipes';
import { SlimFitTrainer, type TrainerOptions } from './trainer';

/** Where a recipe's checkpoint and data come from, and what of the trainer is changed. */
export interface FromRecipeOptions {
  /** Folder of the checkpoint, or its name on the hub. Default: the recipe's. */
  readonly model?: string;
  /** Folder or hub name of the tokenizer, if it is not the model's. */
  readonly tokenizer?: string;
  /** Folder of the data: GLUE's, SQuAD's, CIFAR's files, or folders `train` and `val` of images. Default: the recipe's data set on the hub. */
  readonly data?: string;
  /** Draws all weights afresh: only the checkpoint's config.json is read. Default false. */
  readonly fromScratch?: boolean;
  /** Default: the best engine of this machine. */
  readonly engine?: Engine;
  /** Uses the first so many examples (questions, images) only. Default: all. */
  readonly maxTrainSamples?: number;
  readonly maxEvalSamples?: number;
  /** Threads that decode images. Default: see ImageDataset. */
  readonly workers?: number;
  /** Token, cache and so on of the hub. */
  readonly hub?: HubOptions;
  /** Told what was drawn afresh or left out. Default: console.warn. */
  readonly onNotice?: (text: string) => void;
  /** Goes on from the last whole checkpoint in this folder (`SlimFitTrainer.resume`) instead of beginning anew. */
  readonly resumeFromCheckpoint?: string;
  /** Settings of the trainer over those of the recipe: `mode`, `totalSteps`, `policy`, `signal`, … */
  readonly trainer?: Partial<Omit<TrainerOptions, 'model' | 'train' | 'evaluation' | 'metrics' | 'processingClass'>>;
}

/** A recipe that is ready to run. */
export interface RecipeRun<Batch extends LabelledBatch = LabelledBatch> {
  readonly recipe: Recipe;
  readonly model: Model<Batch>;
  readonly train: BatchSource<Batch>;
  /** Undefined where the data have no such part. */
  readonly evaluation: BatchSource<Batch> | undefined;
  readonly trainer: SlimFitTrainer<Batch>;
  /** Turns predictions over `evaluation` into the task's official metrics. */
  readonly metrics: (predictions: Predictions) => Readonly<Record<string, number>>;
  /** Writes the model with its tokenizer or image settings, as Hugging Face's library loads it. */
  save(folder: string): Promise<void>;
  /** Writes predictions as the task's server or official script takes them: GLUE's test files, SQuAD's answers. @returns the files */
  writePredictions(folder: string): Promise<readonly string[]>;
  /** Frees the optimizer's moments and the weights, and ends the threads. */
  dispose(): void;
}

/**
 * Loads what a recipe names and makes its trainer.
 * @param recipe one of `recipes`, a changed copy of one, or a name such as 'cola', 'squad-v2', 'cifar10'
 * @throws UnknownTaskError, FileMissingError, DataRowError, DataEntryError, CheckpointError, UnsupportedModelError, InvalidArgumentError, what `hub` and `dataset` throw, and with
 *   `resumeFromCheckpoint` what `SlimFitTrainer.resume` throws; nothing is left on the device then
 */
export function fromRecipe(recipe: GlueRecipe | SquadRecipe, options?: FromRecipeOptions): Promise<RecipeRun<TextBatch>>;
export function fromRecipe(recipe: ImageRecipe, options?: FromRecipeOptions): Promise<RecipeRun<ImageBatch>>;
export function fromRecipe(recipe: Recipe | string, options?: FromRecipeOptions): Promise<RecipeRun<TextBatch> | RecipeRun<ImageBatch>>;
export async function fromRecipe(recipe: Recipe | string, options: FromRecipeOptions = {}): Promise<RecipeRun<TextBatch> | RecipeRun<ImageBatch>> {
  const of = typeof recipe === 'string' ? recipeNamed(recipe) : recipe;
  for (const name of ['maxTrainSamples', 'maxEvalSamples'] as const) {
    const n = options[name];
    if (n !== undefined && !(Number.isInteger(n) && n >= 1)) throw new InvalidArgumentError(`${name} is ${n}; it must be a whole number of at least 1`);
  }
  const engine = options.engine ?? (await chooseEngine());
  const place = { options, engine, checkpoint: await folderOf(options.model ?? of.checkpoint, options) };
  switch (of.kind) {
    case 'glue':
      return run(of, await glueParts(of, { ...place, tokenizer: await folderOf(options.tokenizer ?? place.checkpoint, options) }), options);
    case 'squad':
      return run(of, await squadParts(of, { ...place, tokenizer: await folderOf(options.tokenizer ?? place.checkpoint, options) }), options);
    case 'image':
      return run(of, await imageParts(of, place), options);
  }
}

/** A folder as it is, a name from the hub. */
async function folderOf(name: string, options: FromRecipeOptions): Promise<string> {
  return existsSync(name) ? name : hub(name, { ...options.hub, ...(options.onNotice && { onNotice: options.onNotice }) });
}

async function run<Batch extends LabelledBatch>(recipe: Recipe, parts: RecipeParts<Batch>, options: FromRecipeOptions): Promise<RecipeRun<Batch>> {
  const { model, train, evaluation, metrics, processingClass } = parts;
  const { batchSize, epochs, learningRate, schedule, freezeRate, seed, optimizer, initialMagnitudeScale, alwaysTrain } = recipe;
  try {
    const settings: TrainerOptions<Batch> = {
      model,
      train,
      ...(evaluation && { evaluation }),
      metrics,
      processingClass,
      batchSize,
      epochs,
      learningRate,
      schedule,
      freezeRate,
      seed,
      optimizer,
      initialMagnitudeScale,
      alwaysTrain,
      ...options.trainer,
    };
    const trainer = options.resumeFromCheckpoint === undefined ? new SlimFitTrainer<Batch>(settings) : await SlimFitTrainer.resume<Batch>(options.resumeFromCheckpoint, settings);
    return {
      recipe,
      model,
      train,
      evaluation,
      trainer,
      metrics,
      save: parts.save,
      writePredictions: parts.writePredictions,
      dispose() {
        trainer.dispose();
        model.dispose();
        parts.close();
      },
    };
  } catch (error) {
    model.dispose();
    parts.close();
    throw error;
  }
}
