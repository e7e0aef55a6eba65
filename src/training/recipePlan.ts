/** What a recipe would run, before anything is downloaded or computed: steps, layers, and bytes from the shapes of its checkpoint. */
import { InterLayerScheduling } from '../freezing/ils';
import type { FreezePolicy, PolicyFactory } from '../freezing/policy';
import { parseTextConfig, type TextConfig } from '../hub/config';
import { parseViTConfig, type ViTConfig } from '../hub/vitConfig';
import { bertActivationBytes } from '../memory/activationBytes';
import type { TrainingSet } from '../memory/keptActivations';
import type { MemoryQuery } from '../memory/planner';
import { vitActivationBytes } from '../memory/vitActivationBytes';
import { checkAccumulation, microBatchSizes } from '../models/microBatches';
import { freezableLayersOf, type ParameterSpec } from '../models/model';
import { questionAnsweringSpecs } from '../models/questionAnswering';
import { sequenceClassificationSpecs } from '../models/sequenceClassification';
import { imageClassificationSpecs } from '../models/vit';
import { momentBytes } from '../optim/eightBit';
import type { ActivationMode, ActivationScheme } from '../tape/scheme';
import type { Recipe } from './recipes';

/** What would run. All bytes are of float32 and of one step. */
export interface RecipePlan {
  readonly recipe: Recipe;
  readonly trainExamples: number;
  readonly stepsPerEpoch: number;
  readonly totalSteps: number;
  /** Freezable layers, and how many of them are frozen in the first step: with inter-layer scheduling in every step. */
  readonly layers: number;
  readonly frozenLayers: number;
  readonly parameters: number;
  readonly weightBytes: number;
  /** Two moments of every weight, as full fine-tuning has them; a run with freezing comes there when every layer has trained once, unless the recipe's optimizer moves or releases those of frozen layers. */
  readonly momentBytes: number;
  /** Kept between forward and backward in the first step: by this recipe (its largest micro-batch), and by plain fine-tuning (everything trains, everything in float32). */
  readonly activationBytes: number;
  readonly fullActivationBytes: number;
  /** Whether a bias trains only with its layer. */
  readonly frozenBiases: boolean;
}

/** What of a recipe's run is changed. */
export interface RecipePlanOptions {
  readonly architecture?: Readonly<Record<string, unknown>>;
  readonly trainExamples?: number;
  readonly mode?: ActivationMode | ActivationScheme;
  readonly frozenBiases?: boolean;
  readonly policy?: PolicyFactory;
  readonly blockBytes?: number;
  readonly gradientAccumulationSteps?: number;
  readonly gradientCheckpointing?: boolean;
  readonly sparseEmbeddings?: boolean;
}

/**
 * Plans a recipe.
 * @param options `architecture`: config.json of another checkpoint; `trainExamples`: of other data; `mode`: how activations are kept, default `paper`; the others as for the trainer
 * @throws UnsupportedModelError for a config that is not of the recipe's kind; InvalidArgumentError for a policy whose budget the first step cannot meet
 */
export function planRecipe(
  recipe: Recipe,
  { architecture = recipe.architecture, trainExamples = recipe.trainExamples, mode = 'paper', frozenBiases: given, policy, gradientAccumulationSteps = 1, gradientCheckpointing }: Omit<RecipePlanOptions, 'blockBytes'> = {},
): RecipePlan {
  checkAccumulation(gradientAccumulationSteps, recipe.batchSize);
  const { specs, bytes } = shapesOf(recipe, architecture);
  const layers = freezableLayersOf(specs, recipe.alwaysTrain);
  const { freezeRate, seed, initialMagnitudeScale: initialScale } = recipe;
  const stepsPerEpoch = Math.ceil(trainExamples / recipe.batchSize);
  const totalSteps = Math.ceil(stepsPerEpoch * recipe.epochs);
  const chosen: FreezePolicy = policy?.(layers, { totalSteps, stepsPerEpoch, seed, initialScale }) ?? new InterLayerScheduling(layers, { freezeRate, seed, initialScale });
  // As the trainer has it.
  const { freezesBiases } = chosen;
  const frozenBiases = freezesBiases === true || (given ?? (freezesBiases === undefined && mode === 'tuned'));
  const keeps = (trained: ReadonlySet<number>) => {
    const names = new Set(layers.filter((l) => trained.has(l.index)).map((l) => l.name));
    const free = new Set(layers.map((l) => l.name));
    return bytes(mode, { trains: (name) => !free.has(name) || names.has(name), frozenBiases });
  };
  const frozen = new Set(chosen.select(0, keeps).map((i) => layers[i].name));
  const sizes = specs.map((s) => s.shape.reduce((a, b) => a * b, 1));
  const parameters = sizes.reduce((a, b) => a + b, 0);
  return {
    recipe,
    trainExamples,
    stepsPerEpoch,
    totalSteps,
    layers: layers.length,
    frozenLayers: frozen.size,
    parameters,
    weightBytes: 4 * parameters,
    momentBytes: sizes.reduce((sum, size) => sum + momentBytes(size, recipe.optimizer.moments), 0),
    activationBytes: bytes(mode, { trains: (name) => !frozen.has(name), frozenBiases, gradientCheckpointing }, microBatchSizes(recipe.batchSize, gradientAccumulationSteps)[0]),
    fullActivationBytes: bytes('exact', { trains: () => true }),
    frozenBiases,
  };
}

/**
 * The step of a recipe in the planner's words (memory/planner.ts).
 * @param options as of `planRecipe`; `blockBytes`: as for the trainer
 */
export function memoryQuery(
  recipe: Recipe,
  { architecture = recipe.architecture, mode = 'paper', frozenBiases = mode === 'tuned', blockBytes, gradientAccumulationSteps, gradientCheckpointing, sparseEmbeddings }: Omit<RecipePlanOptions, 'trainExamples' | 'policy'> = {},
): MemoryQuery {
  const { batchSize, freezeRate, alwaysTrain, optimizer } = recipe;
  const common = { batchSize, freezeRate, alwaysTrain, optimizer, mode, frozenBiases, gradientAccumulationSteps, gradientCheckpointing, sparseEmbeddings, ...(blockBytes !== undefined && { blockBytes }) };
  const json = withLabels(recipe, architecture);
  if (recipe.kind === 'image') return { ...common, kind: 'image-classification', config: parseViTConfig({ ...json, image_size: recipe.imageSize }), imageSize: recipe.imageSize };
  return { ...common, kind: recipe.kind === 'squad' ? 'question-answering' : 'sequence-classification', config: parseTextConfig(json), length: recipe.maxLength };
}

/** A config.json with a recipe's number of labels. */
function withLabels({ numLabels }: Recipe, architecture: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return { ...architecture, id2label: Object.fromEntries(Array.from({ length: numLabels }, (_, i) => [i, String(i)])) };
}

/** Parameters of a recipe's model, and the bytes that a step of it keeps. */
function shapesOf(recipe: Recipe, architecture: Readonly<Record<string, unknown>>): { specs: ParameterSpec[]; bytes: (mode: ActivationMode | ActivationScheme, training: TrainingSet, batchSize?: number) => number } {
  const json = withLabels(recipe, architecture);
  if (recipe.kind === 'image') {
    const config: ViTConfig = parseViTConfig({ ...json, image_size: recipe.imageSize });
    return { specs: imageClassificationSpecs(config), bytes: (mode, training, batchSize = recipe.batchSize) => vitActivationBytes({ ...training, config, batchSize, mode }).total };
  }
  const config: TextConfig = parseTextConfig(json);
  const [specs, head, dropout] = recipe.kind === 'squad' ? [questionAnsweringSpecs(config), 'question answering' as const, config.spanDropout] : [sequenceClassificationSpecs(config), 'sequence classification' as const, config.classifierDropout];
  return { specs, bytes: (mode, training, batchSize = recipe.batchSize) => bertActivationBytes({ ...training, config, batchSize, length: recipe.maxLength, mode, head, dropout: dropout > 0 }).total };
}
