/** The words of `slimfit train`: a recipe or a task, and what is changed of it. Everything that can be wrong is looked at before anything is loaded or written. */
import { parseArgs } from 'node:util';
import { embeddedModel } from '../data/embedded/embedded';
import { GRAMMAR_TASK } from '../data/embedded/grammarTask';
import { GLUE_TASKS } from '../data/glue';
import { type EngineName, type Precision, UPDATE_MAGNITUDES, type UpdateMagnitude } from '../engine/engine';
import { ENGINE_NAMES } from '../engine/order';
import { InvalidArgumentError, UnknownTaskError } from '../errors';
import { checkFreezeRate } from '../freezing/ils';
import { parsePolicyOptions, POLICIES, POLICY_NAMES, policyEntry, type PolicyName, policyOf, type PolicySettings } from '../freezing/policies';
import { checkBlockBytes } from '../nn/blocks';
import { checkAccumulation } from '../models/microBatches';
import type { FromRecipeOptions } from '../training/fromRecipe';
import { type AugmentationName, type GlueRecipe, type Recipe, recipeNamed, recipes, RECIPES } from '../training/recipes';
import { type ActivationMode, SCHEMES } from '../tape/scheme';
import { parseBytes } from '../units';

const TASKS = [...Object.keys(GLUE_TASKS), GRAMMAR_TASK.name, 'squad', 'cifar10', 'cifar100', 'images'];

export const HELP = `slimfit train --recipe NAME --out DIR [options]      the paper's settings
slimfit train --task NAME --out DIR [options]        usual settings: learning rate 5e-5, linear, batch 32, 3 epochs, freeze rate 0.9, seed 43

  --recipe NAME           ${RECIPES.map((r) => r.name).join(', ')}
  --task NAME             ${TASKS.join(', ')}
  --dry-run               print what would run, and its bytes; load and write nothing
  --out DIR               where checkpoint, metrics.json and the history's CSV files go

  --model DIR|NAME        Hugging Face folder, or a model on the hub; default: the recipe's checkpoint, for --task of texts the small BERT that SlimFit brings along
  --tokenizer DIR|NAME    of the vocabulary, if not the model's
  --from-scratch          draw all weights afresh: only config.json of --model is read
  --data DIR              GLUE's, SQuAD's or CIFAR's files, or folders train and val of images; default: the data set on the hub
  --max-train-samples N   use the first N examples only; --max-eval-samples N likewise
  --offline               use only what the hub's cache has

  --engine NAME           ${ENGINE_NAMES.join(', ')}; default what SLIMFIT_ENGINE says, else the first that uses a GPU, else the fastest that starts
  --precision NAME        float32 or mixed (float16 products on the GPU's matrix units, with engine webgpu); default what SLIMFIT_PRECISION says, else float32

  --freeze-rate F         share of the layers frozen in a step, in [0, 1)
  --policy NAME           which layers rest: ${POLICY_NAMES.join(', ')}; default ils.
                          --freeze-rate is for ${POLICY_NAMES.filter((n) => POLICIES[n].hasRate).join(', ')}: of random the share of the blocks, of the last two of the bytes that training adds
  --policy-option K=V     an option of the policy, such as intervalSteps=10 or budgetBytes=2GiB; may be given several times
  --magnitude NAME        ${UPDATE_MAGNITUDES.join(', ')}: what inter-layer scheduling goes by; default relative-l2 in mode tuned, else mean-relative
  --mode NAME             paper, exact or tuned: how activations are kept; default paper
  --frozen-biases         biases train only with their layer: nothing is kept below the lowest layer that trains; in mode tuned always
  --block-bytes BYTES     such as 64MiB: larger temporaries of attention and MLP are computed in blocks; default 64MiB in mode tuned, else no limit
  --epochs N              passes over the data
  --steps N               stop after so many steps
  --batch-size N          examples a step
  --gradient-accumulation-steps N
                          run a step's examples in so many micro-batches and apply the sum of their gradients once: less memory, the same result
  --gradient-checkpointing
                          keep only the input of an encoder layer and run it again in backward: less memory, the same result, more time
  --learning-rate R       its peak
  --schedule NAME         linear, constant, or the authors' glue, stsb, warm, vit
  --warmup-steps N        of linear warm-up; default 0
  --weight-decay W        of AdamW
  --moments FORM          float32 or 8-bit: how its moments are stored
  --sparse-embeddings     update only the rows of the word embeddings that a step looks up: less memory, other rows stand still
  --idle-moments WHAT     moments of frozen layers: keep, host (they wait there) or release (forgotten)
  --max-length N          tokens of a sequence
  --doc-stride N          tokens between windows over a context (SQuAD)
  --image-size N          pixels
  --augmentation NAME     none, crop-flip, imagenet
  --workers N             threads that decode images
  --seed N
  --save-steps N          write DIR/checkpoint-STEP after every N steps and after the last one
  --save-total-limit N    keep the latest N of them, and the best one by --metric-for-best-model
  --metric-for-best-model NAME   a metric that evaluation gives, such as loss or accuracy: evaluate before each checkpoint
  --resume                go on from the last whole checkpoint in DIR, to the bit as if training had never stopped; where there is none, begin
  --skip-first-evaluation do not evaluate before training
  --predictions           write predictions for GLUE's server (test files) or SQuAD's script into DIR as well
`;

const OPTIONS = {
  help: { type: 'boolean', short: 'h' },
  recipe: { type: 'string' },
  task: { type: 'string' },
  'dry-run': { type: 'boolean' },
  out: { type: 'string' },
  model: { type: 'string' },
  tokenizer: { type: 'string' },
  'from-scratch': { type: 'boolean' },
  data: { type: 'string' },
  'max-train-samples': { type: 'string' },
  'max-eval-samples': { type: 'string' },
  offline: { type: 'boolean' },
  engine: { type: 'string' },
  precision: { type: 'string' },
  'freeze-rate': { type: 'string' },
  policy: { type: 'string' },
  'policy-option': { type: 'string', multiple: true },
  magnitude: { type: 'string' },
  mode: { type: 'string', default: 'paper' },
  'frozen-biases': { type: 'boolean' },
  'block-bytes': { type: 'string' },
  epochs: { type: 'string' },
  steps: { type: 'string' },
  'batch-size': { type: 'string' },
  'gradient-accumulation-steps': { type: 'string' },
  'gradient-checkpointing': { type: 'boolean' },
  'sparse-embeddings': { type: 'boolean' },
  'learning-rate': { type: 'string' },
  schedule: { type: 'string' },
  'warmup-steps': { type: 'string' },
  'weight-decay': { type: 'string' },
  moments: { type: 'string' },
  'idle-moments': { type: 'string' },
  'max-length': { type: 'string' },
  'doc-stride': { type: 'string' },
  'image-size': { type: 'string' },
  augmentation: { type: 'string' },
  workers: { type: 'string' },
  seed: { type: 'string' },
  'save-steps': { type: 'string' },
  'save-total-limit': { type: 'string' },
  'metric-for-best-model': { type: 'string' },
  resume: { type: 'boolean' },
  'skip-first-evaluation': { type: 'boolean' },
  predictions: { type: 'boolean' },
} as const;

/** What was asked for. */
export interface TrainRequest {
  readonly recipe: Recipe;
  readonly options: FromRecipeOptions;
  /** As `chooseEngine` takes them: undefined where the environment decides. */
  readonly engine: EngineName | undefined;
  readonly precision: Precision | undefined;
  readonly mode: ActivationMode;
  readonly magnitude: UpdateMagnitude | undefined;
  /** Undefined where none was named: inter-layer scheduling at the recipe's rate. */
  readonly policy: { readonly name: PolicyName; readonly options: PolicySettings } | undefined;
  readonly frozenBiases: boolean;
  readonly blockBytes: number | undefined;
  readonly gradientAccumulationSteps: number;
  readonly gradientCheckpointing: boolean;
  readonly sparseEmbeddings: boolean;
  readonly dryRun: boolean;
  readonly out: string | undefined;
  readonly steps: number | undefined;
  readonly resume: boolean;
  readonly skipFirstEvaluation: boolean;
  readonly predictions: boolean;
}

/** Reads the words. @returns undefined when help was asked for @throws InvalidArgumentError, UnknownTaskError */
export function parseTrain(argv: readonly string[]): TrainRequest | undefined {
  const { values } = parseArgs({ args: [...argv], options: OPTIONS });
  if (values.help) return undefined;
  const number = (name: keyof typeof OPTIONS, valid: (n: number) => boolean, what: string): number | undefined => {
    const text = values[name] as string | undefined;
    if (text === undefined) return undefined;
    const n = Number(text);
    if (text.trim() === '' || Number.isNaN(n)) throw new InvalidArgumentError(`--${name} is '${text}', no number`);
    if (!valid(n)) throw new InvalidArgumentError(`--${name} is ${text}; it must be ${what}`);
    return n;
  };
  const count = (name: keyof typeof OPTIONS) => number(name, (n) => Number.isInteger(n) && n >= 1, 'a whole number of at least 1');
  const positive = (name: keyof typeof OPTIONS) => number(name, (n) => n > 0 && Number.isFinite(n), 'positive');
  const whole = (name: keyof typeof OPTIONS) => number(name, (n) => Number.isSafeInteger(n) && n >= 0, 'a whole number, 0 or more');
  const word = <T extends string>(name: 'engine' | 'precision' | 'magnitude' | 'mode' | 'augmentation' | 'schedule' | 'moments' | 'idle-moments', words: readonly T[]): T | undefined => {
    const text = values[name];
    if (text !== undefined && !words.includes(text as T)) throw new InvalidArgumentError(`--${name} is '${text}'; it must be one of ${words.join(', ')}`);
    return text as T | undefined;
  };
  const { recipe: recipeName, task, out, model, tokenizer, data } = values;
  if ((recipeName === undefined) === (task === undefined)) throw new InvalidArgumentError(`${recipeName ? 'name a --recipe or a --task, not both' : '--recipe NAME or --task NAME is missing'}\n\n${HELP}`);
  if (!out && !values['dry-run']) throw new InvalidArgumentError(`--out DIR is missing\n\n${HELP}`);
  const base = recipeName !== undefined ? recipeNamed(recipeName) : taskDefaults(task!);

  const freezeRate = number('freeze-rate', () => true, '');
  if (freezeRate !== undefined) checkFreezeRate(freezeRate);
  const epochs = positive('epochs');
  const learningRate = positive('learning-rate');
  const batchSize = count('batch-size');
  const seed = whole('seed');
  const weightDecay = number('weight-decay', (n) => n >= 0, '0 or more');
  const engine = word('engine', ENGINE_NAMES);
  const precision = word('precision', ['float32', 'mixed'] as const);
  const magnitude = word('magnitude', UPDATE_MAGNITUDES);
  const moments = word('moments', ['float32', '8-bit'] as const);
  const idleMoments = word('idle-moments', ['keep', 'host', 'release'] as const);
  const schedule = word('schedule', ['linear', 'constant', 'glue', 'stsb', 'warm', 'vit'] as const);
  const lengths = { 'max-length': count('max-length'), 'doc-stride': count('doc-stride'), 'image-size': count('image-size') };
  const augmentation = word('augmentation', ['none', 'crop-flip', 'imagenet'] as const satisfies readonly AugmentationName[]);
  const misplaced = (name: string, kinds: readonly Recipe['kind'][]) => {
    if (values[name as keyof typeof OPTIONS] !== undefined && !kinds.includes(base.kind)) throw new InvalidArgumentError(`--${name} has no meaning for ${base.name}`);
  };
  misplaced('max-length', ['glue', 'squad']);
  misplaced('doc-stride', ['squad']);
  for (const name of ['image-size', 'augmentation', 'workers']) misplaced(name, ['image']);
  const warmupSteps = whole('warmup-steps');
  if (warmupSteps && (schedule ?? base.schedule) !== 'linear') throw new InvalidArgumentError(`--warmup-steps has a meaning with --schedule linear only, not ${String(schedule ?? base.schedule)}`);
  // The small BERT reads so many tokens.
  const usesEmbedded = recipeName === undefined && model === undefined && base.kind === 'glue';
  const embeddedLength = usesEmbedded ? (base.task === GRAMMAR_TASK.name ? 32 : 64) : undefined;
  const common = defined({ freezeRate, epochs, learningRate, batchSize, seed, schedule });
  const recipe = {
    ...base,
    ...common,
    ...defined({ maxLength: lengths['max-length'] ?? embeddedLength, docStride: lengths['doc-stride'], imageSize: lengths['image-size'], augmentation }),
    optimizer: { ...base.optimizer, ...defined({ weightDecay, moments, idleMoments }) },
  } as Recipe;
  const blockBytes = values['block-bytes'] === undefined ? undefined : parseBytes(values['block-bytes']);
  if (blockBytes !== undefined) checkBlockBytes(blockBytes);
  const policy = policyAsked(values.policy, values['policy-option'], freezeRate, base);
  const saveSteps = count('save-steps');
  const saveTotalLimit = count('save-total-limit');
  const metricForBestModel = values['metric-for-best-model'];
  if (saveSteps === undefined && (saveTotalLimit ?? metricForBestModel) !== undefined) throw new InvalidArgumentError(`--${saveTotalLimit ? 'save-total-limit' : 'metric-for-best-model'} has a meaning with --save-steps N only`);
  const checkpoints = saveSteps !== undefined && out !== undefined ? { dir: out, saveSteps, ...defined({ saveTotalLimit, metricForBestModel }) } : undefined;
  const mode = word('mode', Object.keys(SCHEMES) as ActivationMode[])!;
  const gradientAccumulationSteps = count('gradient-accumulation-steps') ?? 1;
  checkAccumulation(gradientAccumulationSteps, recipe.batchSize);
  const gradientCheckpointing = values['gradient-checkpointing'] === true;
  const sparseEmbeddings = values['sparse-embeddings'] === true;
  const options: FromRecipeOptions = {
    ...defined({
      model: usesEmbedded ? embeddedModel() : model,
      tokenizer,
      data,
      maxTrainSamples: count('max-train-samples'),
      maxEvalSamples: count('max-eval-samples'),
      workers: whole('workers'),
    }),
    fromScratch: values['from-scratch'] === true,
    hub: defined({ offline: values.offline }),
    trainer: { mode, gradientAccumulationSteps, gradientCheckpointing, sparseEmbeddings, ...defined({ warmupSteps, magnitude, frozenBiases: values['frozen-biases'], policy: policy && policyOf(policy.name, policy.options as never), blockBytes, checkpoints }) },
  };
  return { recipe, options, engine, precision, mode, magnitude, policy, frozenBiases: values['frozen-biases'] ?? mode === 'tuned', blockBytes, gradientAccumulationSteps, gradientCheckpointing, sparseEmbeddings, dryRun: values['dry-run'] === true, out, steps: count('steps'), resume: values.resume === true, skipFirstEvaluation: values['skip-first-evaluation'] === true, predictions: values.predictions === true };
}

/** The policy that was named. Its freeze rate is the one given, or the recipe's, unless an option says the same in other words. */
function policyAsked(name: string | undefined, texts: readonly string[] | undefined, freezeRate: number | undefined, recipe: Recipe): TrainRequest['policy'] {
  if (name === undefined) {
    if (texts) throw new InvalidArgumentError('--policy-option has a meaning with --policy only');
    return undefined;
  }
  const { hasRate, insteadOfRate } = policyEntry(name);
  const options = parsePolicyOptions(name, texts ?? []);
  if (!hasRate && freezeRate !== undefined) throw new InvalidArgumentError(`the policy ${name} has no freeze rate: leave --freeze-rate out`);
  const said = ['freezeRate', insteadOfRate].find((o) => o !== undefined && options[o] !== undefined);
  if (said !== undefined && freezeRate !== undefined) throw new InvalidArgumentError(`--freeze-rate and --policy-option ${said}=… say the same of the policy ${name}: give one of them`);
  return { name: name as PolicyName, options: hasRate && said === undefined ? { freezeRate: freezeRate ?? recipe.freezeRate, ...options } : options };
}

/** Without the fields that are undefined. */
function defined<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, v]) => v !== undefined)) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

/** Usual settings for any task, whether the paper has it or not. */
function taskDefaults(name: string): Recipe {
  const usual = { source: 'usual settings', learningRate: 5e-5, schedule: 'linear' as const, batchSize: 32, epochs: 3, freezeRate: 0.9, seed: 43, optimizer: {}, alwaysTrain: [] };
  const plain = name.toLowerCase().replace(/[-_]/g, '');
  if (plain === 'squad' || plain === 'squadv2') return { ...recipes.squadV2, ...usual, name: 'squad' };
  if (plain === 'cifar10' || plain === 'cifar100') return { ...recipes[plain], ...usual };
  if (plain === 'images') return { ...recipes.imagenet, ...usual, name: 'images', imageSize: 224, augmentation: 'crop-flip' };
  const task = plain === GRAMMAR_TASK.name ? GRAMMAR_TASK : GLUE_TASKS[plain];
  if (!task) throw new UnknownTaskError(`no task is called '${name}': choose one of ${TASKS.join(', ')}`);
  const known = (recipes.glue as Readonly<Record<string, GlueRecipe>>)[plain] ?? recipes.glue.cola;
  return { ...known, ...usual, name: task.name, task: task.name, numLabels: task.numLabels, dataset: { repo: 'glue', config: task.name } };
}
