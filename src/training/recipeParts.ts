/** Model and data of a recipe, by its kind: GLUE, SQuAD, images; from folders, or from the hub where no folder is named. */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { readCifar10, readCifar100 } from '../data/cifar';
import { type Example, type GlueTask, glueTask, glueTaskFolder, loadGlue } from '../data/glue';
import { GRAMMAR_TASK, grammarExamples } from '../data/embedded/grammarTask';
import { glueExamples, glueSplits } from '../data/glueRows';
import { glueSubmission, readGlueTest, writeGlueSubmission } from '../data/glueSubmission';
import { ImageDataset } from '../data/imageDataset';
import { ImageFolder } from '../data/imageFolder';
import { type ImageTransform, readImageProcessor, VIT_TRANSFORM, writeImageProcessor } from '../data/imageProcessor';
import { ImageRows, type ImageSource } from '../data/imageSource';
import { accuracy, argmaxRows } from '../data/metrics';
import { type Augmentation, imagenetAugmentation, randomResizedCrop } from '../data/pixels/augmentation';
import { readSquad, type SquadExample, squadExamples } from '../data/squad';
import { SquadDataset } from '../data/squadDataset';
import { squadPredictions, writeSquadPredictions } from '../data/squadPredictions';
import { TextDataset } from '../data/textDataset';
import { Tokenizer } from '../data/tokenizer';
import type { Engine } from '../engine/engine';
import { FileMissingError, InvalidArgumentError } from '../errors';
import { dataset } from '../hub/dataset';
import { AutoModelForImageClassification, AutoModelForQuestionAnswering, AutoModelForSequenceClassification } from '../models/auto';
import type { BatchSource, ImageBatch, LabelledBatch, Model, Predictions, TextBatch } from '../models/model';
import type { SavesItself } from '../models/pretrained';
import type { FromRecipeOptions } from './fromRecipe';
import type { AugmentationName, GlueRecipe, ImageRecipe, Recipe, SquadRecipe } from './recipes';
import { predict } from './trainer';

/** What a recipe needs beside its settings. */
export interface RecipeParts<Batch extends LabelledBatch> {
  readonly model: Model<Batch>;
  readonly train: BatchSource<Batch>;
  readonly evaluation: BatchSource<Batch> | undefined;
  readonly metrics: (predictions: Predictions) => Readonly<Record<string, number>>;
  readonly save: (folder: string) => Promise<void>;
  /** Tokenizer or image settings. */
  readonly processingClass: SavesItself;
  readonly writePredictions: (folder: string) => Promise<readonly string[]>;
  readonly close: () => void;
}

/** The first of a list, if a number is given. */
const first = <T>(list: readonly T[], count = list.length): readonly T[] => list.slice(0, count);

/** The first images of a source. */
function firstImages(source: ImageSource, count = source.size): ImageSource {
  if (count >= source.size) return source;
  return { size: count, labels: source.labels.subarray(0, count), labelNames: source.labelNames, ...(source.imageSize && { imageSize: source.imageSize }), image: (i) => source.image(i) };
}

/** Where things are: folders of the checkpoint and of the tokenizer. */
interface Place {
  readonly options: FromRecipeOptions;
  readonly engine: Engine;
  readonly checkpoint: string;
}
interface TextPlace extends Place {
  readonly tokenizer: string;
}

const modelOptions = ({ options, engine }: Place, { seed }: Recipe) => ({ engine, seed, ...(options.onNotice && { onNotice: options.onNotice }) });

/** A GLUE task: texts or pairs with a class or a score. */
export async function glueParts(recipe: GlueRecipe, place: TextPlace): Promise<RecipeParts<TextBatch>> {
  const { options } = place;
  const task = recipe.task === GRAMMAR_TASK.name ? GRAMMAR_TASK : glueTask(recipe.task);
  const { train, dev } = task === GRAMMAR_TASK ? grammarExamples() : options.data === undefined ? await glueFromHub(task, recipe, options) : loadGlue(task, options.data);
  const tokenizer = Tokenizer.fromFolder(place.tokenizer);
  const data = (rows: readonly Example[]) => new TextDataset(rows, tokenizer, { maxLength: recipe.maxLength, regression: task.numLabels === 1 });
  const parts = { train: data(first(train, options.maxTrainSamples)), evaluation: data(first(dev, options.maxEvalSamples)) };
  const settings = { ...modelOptions(place, recipe), ...(task.labels.length > 0 ? { labels: task.labels } : { numLabels: 1 }) };
  const model = await (options.fromScratch ? AutoModelForSequenceClassification.fromConfigFolder(place.checkpoint, settings) : AutoModelForSequenceClassification.fromPretrained(place.checkpoint, settings));
  return {
    ...parts,
    model,
    metrics: task.metrics,
    save: (folder) => model.savePretrained(folder, tokenizer),
    processingClass: tokenizer,
    async writePredictions(folder) {
      if (options.data === undefined) throw new InvalidArgumentError(`predictions for GLUE's server need the test files of ${task.folder}: name their folder with \`data\``);
      const files: string[] = [];
      for (const { testFile, file } of task.submissions) {
        const test = readGlueTest(task, path.join(glueTaskFolder(task, options.data), testFile));
        const predictions = await predict(model, new TextDataset(test.examples, tokenizer, { maxLength: recipe.maxLength }), recipe.batchSize);
        files.push(writeGlueSubmission(folder, file, glueSubmission(task, test.ids, predictions)));
      }
      return files;
    },
    close: () => {},
  };
}

async function glueFromHub(task: GlueTask, recipe: GlueRecipe, options: FromRecipeOptions): Promise<{ train: Example[]; dev: Example[] }> {
  const splits = glueSplits(task);
  const { repo, config } = recipe.dataset;
  const rows = await dataset(repo, config, { ...options.hub, splits: [splits.train, splits.dev] });
  const of = async (split: string) => glueExamples(task, await rows.rows(split), `${repo} ${config} ${split}`);
  return { train: await of(splits.train), dev: await of(splits.dev) };
}

/** SQuAD: questions about a context. */
export async function squadParts(recipe: SquadRecipe, place: TextPlace): Promise<RecipeParts<TextBatch>> {
  const { options } = place;
  const { train, dev } = options.data === undefined ? await squadFromHub(recipe, options) : squadFromFolder(options.data);
  const tokenizer = Tokenizer.fromFolder(place.tokenizer);
  const { maxLength, docStride } = recipe;
  // The usual 64, but never more than half of a short window.
  const maxQueryLength = Math.min(64, maxLength >> 1);
  const data = (examples: readonly SquadExample[]) => new SquadDataset(examples, tokenizer, { maxLength, docStride, maxQueryLength });
  const evaluation = data(first(dev, options.maxEvalSamples));
  const parts = { train: data(first(train, options.maxTrainSamples)), evaluation };
  const settings = modelOptions(place, recipe);
  const model = await (options.fromScratch ? AutoModelForQuestionAnswering.fromConfigFolder(place.checkpoint, settings) : AutoModelForQuestionAnswering.fromPretrained(place.checkpoint, settings));
  return {
    ...parts,
    model,
    metrics: evaluation.metrics,
    save: (folder) => model.savePretrained(folder, tokenizer),
    processingClass: tokenizer,
    async writePredictions(folder) {
      writeSquadPredictions(folder, squadPredictions(evaluation, await predict(model, evaluation, recipe.batchSize)));
      return ['predictions.json', 'null_odds.json'].map((f) => path.join(folder, f));
    },
    close: () => {},
  };
}

/** train-v2.0.json and dev-v2.0.json, or whatever train….json and dev….json there is. */
function squadFromFolder(folder: string): { train: SquadExample[]; dev: SquadExample[] } {
  const find = (what: 'train' | 'dev'): string => {
    const found = (existsSync(folder) ? readdirSync(folder) : []).filter((f) => f.startsWith(what) && f.endsWith('.json')).sort();
    const official = found.find((f) => f === `${what}-v2.0.json`) ?? (found.length === 1 ? found[0] : undefined);
    if (!official) throw new FileMissingError(found.length === 0 ? `no ${what}-v2.0.json in ${folder}: download SQuAD 2.0` : `several files in ${folder} begin with ${what}: ${found.join(', ')}; keep one, or call it ${what}-v2.0.json`);
    return path.join(folder, official);
  };
  return { train: readSquad(find('train')), dev: readSquad(find('dev')) };
}

async function squadFromHub(recipe: SquadRecipe, options: FromRecipeOptions): Promise<{ train: SquadExample[]; dev: SquadExample[] }> {
  const { repo, config } = recipe.dataset;
  const rows = await dataset(repo, config, { ...options.hub, splits: ['train', 'validation'] });
  const of = async (split: string) => squadExamples(await rows.rows(split), `${repo} ${split}`);
  return { train: await of('train'), dev: await of('validation') };
}

const AUGMENTATIONS: Readonly<Record<AugmentationName, () => Augmentation | undefined>> = { none: () => undefined, 'crop-flip': () => randomResizedCrop(), imagenet: imagenetAugmentation };

/** Image classification. */
export async function imageParts(recipe: ImageRecipe, place: Place): Promise<RecipeParts<ImageBatch>> {
  const { options, checkpoint } = place;
  const { imageSize, seed } = recipe;
  const sources = options.data === undefined ? await imagesFromHub(recipe, options) : imagesFromFolder(recipe, options.data, options);
  const file = path.join(checkpoint, 'preprocessor_config.json');
  const transform = withSize(existsSync(file) ? readImageProcessor(checkpoint) : VIT_TRANSFORM, imageSize);
  const of = (source: ImageSource, augmentation?: Augmentation) => new ImageDataset(source, transform, { augmentation, seed, workers: options.workers });
  const train = of(firstImages(sources.train, options.maxTrainSamples), AUGMENTATIONS[recipe.augmentation]());
  const evaluation = sources.evaluation && of(firstImages(sources.evaluation, options.maxEvalSamples));
  const processor: SavesItself = { save: (folder) => writeImageProcessor(folder, transform) };
  const settings = { ...modelOptions(place, recipe), imageSize, labels: sources.train.labelNames };
  const model = await (options.fromScratch ? AutoModelForImageClassification.fromConfigFolder(checkpoint, settings) : AutoModelForImageClassification.fromPretrained(checkpoint, settings));
  return {
    model,
    train,
    evaluation,
    metrics: (p) => ({ accuracy: accuracy(argmaxRows(p.logits, p.numLabels), p.labels) }),
    save: (folder) => model.savePretrained(folder, processor),
    processingClass: processor,
    writePredictions: async () => {
      throw new InvalidArgumentError('image tasks have no official file of predictions: use `predict(run.model, run.evaluation)`');
    },
    close() {
      void train.close();
      void evaluation?.close();
    },
  };
}

/** A transform whose images come out as squares of a size; the part that a centre crop leaves stays the same. */
function withSize(t: ImageTransform, size: number): ImageTransform {
  const square = { height: size, width: size };
  if (!t.centerCrop) return { ...t, resize: square };
  const scale = size / t.centerCrop.height;
  const scaled = (n: number) => Math.round(n * scale);
  const resize = t.resize && ('shortestEdge' in t.resize ? { shortestEdge: scaled(t.resize.shortestEdge) } : { height: scaled(t.resize.height), width: scaled(t.resize.width) });
  return { ...t, resize, centerCrop: square };
}

interface Sources {
  readonly train: ImageSource;
  readonly evaluation: ImageSource | undefined;
}

/** Files of a CIFAR folder: the original batches, or one file for each part. */
function imagesFromFolder(recipe: ImageRecipe, folder: string, { onNotice = (t: string) => console.warn(`slimfit: ${t}`) }: FromRecipeOptions): Sources {
  if (recipe.images === 'folder') {
    const part = (names: readonly string[]) => names.map((n) => path.join(folder, n)).find((f) => existsSync(f));
    const folderOfTrain = part(['train']);
    if (!folderOfTrain) throw new FileMissingError(`no folder 'train' in ${folder}: images lie in train/CLASS/FILE and val/CLASS/FILE`);
    const train = ImageFolder.open(folderOfTrain);
    const evaluation = part(['val', 'validation', 'test']);
    if (!evaluation) onNotice(`${folder} has no val, validation or test: nothing can be evaluated`);
    return { train, evaluation: evaluation ? sameClasses(train, ImageFolder.open(evaluation)) : undefined };
  }
  const names = existsSync(folder) ? readdirSync(folder) : [];
  const batches = names.filter((n) => /^data_batch_\d+\.bin$/.test(n)).sort();
  const read = (files: readonly string[]) => (recipe.images === 'cifar10' ? readCifar10 : readCifar100)(files.map((f) => path.join(folder, f)));
  return batches.length > 0 ? { train: read(batches), evaluation: read(['test_batch.bin']) } : { train: read(['train.bin']), evaluation: read(['test.bin']) };
}

/** Evaluation must mean the same classes by the same numbers. */
function sameClasses(train: ImageFolder, evaluation: ImageFolder): ImageFolder {
  if (train.labelNames.join('\n') !== evaluation.labelNames.join('\n'))
    throw new InvalidArgumentError(`${evaluation.folder} has ${evaluation.labelNames.length} classes, ${train.folder} ${train.labelNames.length}: both need the same sub-folders`);
  return evaluation;
}

async function imagesFromHub(recipe: ImageRecipe, options: FromRecipeOptions): Promise<Sources> {
  if (recipe.images === 'folder') throw new InvalidArgumentError(`${recipe.dataset.repo} is too large to be held in memory: name its folder with \`data\``);
  const rows = await dataset(recipe.dataset.repo, recipe.dataset.config, { ...options.hub, splits: ['train', 'test'] });
  const labelNames = rows.classNames(recipe.images === 'cifar100' ? 'fine_label' : 'label');
  const of = async (split: string) => new ImageRows(await rows.rows(split), labelNames ? { labelNames } : {}, `${recipe.dataset.repo} ${split}`);
  return { train: await of('train'), evaluation: await of('test') };
}
