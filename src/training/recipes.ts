/**
 * The paper's settings, task by task: checkpoint, learning rate and its course, batch, epochs, length or image size, freeze rate, seed, decay (Ardakani et al. 2024, §4 and appendix; the published
 * scripts of the authors where the paper is silent). Every field can be overridden; `fromRecipe` makes a run of one.
 */
import { UnknownTaskError } from '../errors';
import type { AdamWSettings } from '../optim/adamw';
import type { Schedule, PaperSchedule } from '../optim/schedules';

/** What every recipe says. */
interface CommonSettings {
  /** Name on the command line: 'cola', 'squad-v2', … */
  readonly name: string;
  /** Where these numbers come from. */
  readonly source: string;
  /** Checkpoint on the Hugging Face Hub. */
  readonly checkpoint: string;
  /** Its config.json, as far as shapes depend on it: so that bytes are known before anything is downloaded. */
  readonly architecture: Readonly<Record<string, unknown>>;
  /** Data set on the hub, and its configuration. */
  readonly dataset: { readonly repo: string; readonly config?: string };
  /** Examples of the official training set. */
  readonly trainExamples: number;
  /** Outputs of the head; 1 is a score. */
  readonly numLabels: number;
  readonly learningRate: number;
  /** Course of the learning rate: one of the authors' forms, or as for the trainer. */
  readonly schedule: 'linear' | 'constant' | PaperSchedule | Schedule;
  readonly batchSize: number;
  readonly epochs: number;
  /** Share of the layers frozen in every step. */
  readonly freezeRate: number;
  readonly seed: number;
  readonly optimizer: AdamWSettings;
  /** Range of the initial distances of inter-layer scheduling. */
  readonly initialMagnitudeScale: number;
  /** Weights that the authors' code trains in every step, outside the schedule. */
  readonly alwaysTrain: readonly string[];
}

/** A GLUE task. */
export interface GlueRecipe extends CommonSettings {
  readonly kind: 'glue';
  readonly task: string;
  /** Tokens of a sequence; shorter ones are padded to it. */
  readonly maxLength: number;
}

/** Extractive question answering. */
export interface SquadRecipe extends CommonSettings {
  readonly kind: 'squad';
  readonly maxLength: number;
  /** Tokens between the beginnings of neighbouring windows over a context. */
  readonly docStride: number;
}

/** How training images are varied: not at all, by crops and mirroring, or by the authors' ImageNet recipe. */
export type AugmentationName = 'none' | 'crop-flip' | 'imagenet';

/** Image classification. */
export interface ImageRecipe extends CommonSettings {
  readonly kind: 'image';
  /** Which images: CIFAR's binary files, or a folder of folders. */
  readonly images: 'cifar10' | 'cifar100' | 'folder';
  /** Height and width in pixels. */
  readonly imageSize: number;
  readonly augmentation: AugmentationName;
}

/** The settings of one of the paper's tasks. */
export type Recipe = GlueRecipe | SquadRecipe | ImageRecipe;

const GLUE_SOURCE = 'SlimFit (arXiv 2305.18513), GLUE with BERT-base-cased';
const MOMENTS = { beta1: 0.9, beta2: 0.999, eps: 1e-6 };
/** The authors leave LayerNorm weights out of the decay in three tasks; in the others a typo lets them decay. */
const DECAY = { ...MOMENTS, weightDecay: 0.01, noDecay: ['bias'] };
const DECAY_WITHOUT_NORMS = { ...DECAY, noDecay: ['bias', 'LayerNorm.weight'] };

const BERT_BASE_CASED = { model_type: 'bert', vocab_size: 28_996 };
const BERT_BASE_UNCASED = { model_type: 'bert', vocab_size: 30_522 };
const VIT_BASE_224 = { model_type: 'vit', image_size: 224, patch_size: 16 };
const VIT_BASE_384 = { model_type: 'vit', image_size: 384, patch_size: 16 };

type GlueNumbers = Pick<GlueRecipe, 'trainExamples' | 'learningRate' | 'freezeRate'> & Partial<GlueRecipe>;

function glue(task: string, numbers: GlueNumbers): GlueRecipe {
  return {
    kind: 'glue',
    name: task,
    task,
    source: GLUE_SOURCE,
    checkpoint: 'bert-base-cased',
    architecture: BERT_BASE_CASED,
    dataset: { repo: 'glue', config: task },
    numLabels: 2,
    schedule: 'glue',
    batchSize: 32,
    epochs: 3,
    seed: 43,
    maxLength: 128,
    optimizer: DECAY,
    initialMagnitudeScale: 1e10,
    alwaysTrain: [],
    ...numbers,
  };
}

function cifar(name: 'cifar10' | 'cifar100', numbers: Pick<ImageRecipe, 'numLabels' | 'learningRate' | 'freezeRate'>): ImageRecipe {
  return {
    kind: 'image',
    name,
    images: name,
    source: `SlimFit (arXiv 2305.18513), ${name === 'cifar10' ? 'CIFAR-10' : 'CIFAR-100'} with ViT-Base`,
    checkpoint: 'google/vit-base-patch16-224-in21k',
    architecture: VIT_BASE_224,
    dataset: { repo: name },
    trainExamples: 50_000,
    schedule: 'vit',
    batchSize: 32,
    epochs: 3,
    seed: 43,
    imageSize: 224,
    augmentation: 'crop-flip',
    optimizer: { ...MOMENTS, weightDecay: 0, noDecay: [] },
    initialMagnitudeScale: 1e7,
    alwaysTrain: ['classifier.weight'],
    ...numbers,
  };
}

/** All recipes. `recipes.glue.cola`, `recipes.squadV2`, `recipes.cifar10`, … */
export const recipes = {
  glue: {
    mnli: glue('mnli', { trainExamples: 392_702, learningRate: 4e-5, freezeRate: 0.8, numLabels: 3, optimizer: DECAY_WITHOUT_NORMS }),
    qqp: glue('qqp', { trainExamples: 363_846, learningRate: 5e-5, freezeRate: 0.8, optimizer: DECAY_WITHOUT_NORMS }),
    qnli: glue('qnli', { trainExamples: 104_743, learningRate: 5e-5, freezeRate: 0.95 }),
    sst2: glue('sst2', { trainExamples: 67_349, learningRate: 8e-5, freezeRate: 0.95, seed: 44 }),
    cola: glue('cola', { trainExamples: 8_551, learningRate: 8e-5, freezeRate: 0.9, schedule: 'warm' }),
    mrpc: glue('mrpc', { trainExamples: 3_668, learningRate: 1.25e-4, freezeRate: 0.9 }),
    rte: glue('rte', { trainExamples: 2_490, learningRate: 1.2e-4, freezeRate: 0.9, batchSize: 16, seed: 47 }),
    stsb: glue('stsb', { trainExamples: 5_749, learningRate: 8e-5, freezeRate: 0.85, numLabels: 1, schedule: 'stsb', optimizer: DECAY_WITHOUT_NORMS, alwaysTrain: ['classifier.weight'] }),
  },
  squadV2: {
    kind: 'squad',
    name: 'squad-v2',
    source: 'SlimFit (arXiv 2305.18513), SQuAD 2.0 with BERT-base-uncased',
    checkpoint: 'bert-base-uncased',
    architecture: BERT_BASE_UNCASED,
    dataset: { repo: 'squad_v2' },
    trainExamples: 130_319,
    numLabels: 2,
    learningRate: 1.8e-4,
    schedule: 'warm',
    batchSize: 128,
    epochs: 3,
    freezeRate: 0.8,
    seed: 23,
    maxLength: 384,
    docStride: 128,
    optimizer: { ...MOMENTS, weightDecay: 0.01, noDecay: [] },
    initialMagnitudeScale: 1e10,
    alwaysTrain: [],
  } as SquadRecipe,
  cifar10: cifar('cifar10', { numLabels: 10, learningRate: 7.5e-5, freezeRate: 0.9 }),
  cifar100: cifar('cifar100', { numLabels: 100, learningRate: 5.5e-5, freezeRate: 0.75 }),
  imagenet: {
    kind: 'image',
    name: 'imagenet',
    images: 'folder',
    source: 'SlimFit (arXiv 2305.18513), ImageNet with ViT-Base at 384 pixels',
    checkpoint: 'google/vit-base-patch16-384',
    architecture: VIT_BASE_384,
    dataset: { repo: 'imagenet-1k' },
    trainExamples: 1_281_167,
    numLabels: 1000,
    learningRate: 5e-5,
    schedule: 'vit',
    batchSize: 128,
    epochs: 3,
    freezeRate: 0.95,
    seed: 43,
    imageSize: 384,
    augmentation: 'imagenet',
    // torch.optim.AdamW's defaults; its decay comes before the step and not after it, which differs by the rate times the decay, 5e-7, of each step.
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01, noDecay: [] },
    initialMagnitudeScale: 1e20,
    alwaysTrain: [],
  } as ImageRecipe,
} as const;

/** The twelve recipes in the paper's order. */
export const RECIPES: readonly Recipe[] = [...Object.values(recipes.glue), recipes.squadV2, recipes.cifar10, recipes.cifar100, recipes.imagenet];

/** A recipe by name; case, dash and underscore do not matter. @throws UnknownTaskError with the list */
export function recipeNamed(name: string): Recipe {
  const plain = (s: string) => s.toLowerCase().replace(/[-_]/g, '');
  const found = RECIPES.find((r) => plain(r.name) === plain(name));
  if (!found) throw new UnknownTaskError(`no recipe is called '${name}': choose one of ${RECIPES.map((r) => r.name).join(', ')}`);
  return found;
}
