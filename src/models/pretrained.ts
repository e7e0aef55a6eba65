/** Loading text models from Hugging Face folders: the config with the labels that are asked for, the weights checked, what is missing drawn afresh and said. */
import type { Engine } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import type { TextConfig } from '../hub/config';
import { defaultLabels } from '../hub/configFields';
import { readConfig, readWeights } from '../hub/folder';
import { ANY_HEAD, TEXT_NAMES } from '../hub/textNames';
import { encoderSpecs } from './encoder';
import { drawParameter, type HostWeights, type ParameterSpec } from './model';

/** Options of `fromPretrained`. */
export interface FromPretrainedOptions {
  /** Where the model lives. Default: the best engine of this machine. */
  readonly engine?: Engine;
  /** Outputs of a classification head. Default: what config.json says. A head of another size is replaced by a fresh one. */
  readonly numLabels?: number;
  /** Names of the labels by index. Default: config.json's, or LABEL_0, … */
  readonly labels?: readonly string[];
  /** Seeds what must be drawn afresh. Default 43. */
  readonly seed?: number;
  /** Told what was drawn afresh or ignored. Default: console.warn. */
  readonly onNotice?: (text: string) => void;
}

/** Whatever can write a tokenizer's files beside a model. */
export interface SavesItself {
  save(folder: string): void;
}

/** A class of text models, as its static constructors need it. */
export interface TextModelClass<C extends TextConfig, M> {
  new (engine: Engine, config: C, weights: HostWeights): M;
  /** Reads config.json. @throws UnsupportedModelError */
  parseConfig(json: Readonly<Record<string, unknown>>): C;
  /** Parameters in model order. */
  specs(config: C): ParameterSpec[];
  /** Whether its head has one output per label. */
  readonly hasLabels: boolean;
}

/** A folder's config with the labels that the options ask for. */
export function configOf<C extends TextConfig>(folder: string, type: Pick<TextModelClass<C, unknown>, 'parseConfig' | 'hasLabels'>, options: FromPretrainedOptions): C {
  const stored = type.parseConfig(readConfig(folder));
  if (!type.hasLabels && (options.numLabels !== undefined || options.labels))
    throw new InvalidArgumentError(`${options.labels ? 'labels' : 'numLabels'} given for a head that has none: leave it out, or load a model for sequence classification`);
  const numLabels = options.numLabels ?? options.labels?.length ?? stored.numLabels;
  if (!(Number.isInteger(numLabels) && numLabels >= 1)) throw new InvalidArgumentError(`numLabels is ${numLabels}; it must be a whole number of at least 1`);
  const names = options.labels ? Object.fromEntries(options.labels.map((l, i) => [i, l])) : numLabels === stored.numLabels ? stored.id2label : defaultLabels(numLabels);
  return { ...stored, numLabels, id2label: names };
}

/** Config and weights of a folder for one kind of head, everything checked. */
export async function load<C extends TextConfig>(folder: string, type: TextModelClass<C, unknown>, options: FromPretrainedOptions): Promise<{ config: C; weights: HostWeights }> {
  const { seed = 43, onNotice = (t: string) => console.warn(`slimfit: ${t}`) } = options;
  const config = configOf(folder, type, options);
  const specs = type.specs(config);
  const encoder = new Set(encoderSpecs(config).map((s) => s.name));
  const { weights, fresh, ignored } = await readWeights(folder, specs, TEXT_NAMES[config.modelType].prefix, {
    isHead: (n) => !encoder.has(n),
    isOtherHead: (n) => ANY_HEAD.test(n),
    replaceHead: options.numLabels !== undefined || options.labels !== undefined,
  });
  for (const spec of specs) if (fresh.includes(spec.name)) weights.set(spec.name, { shape: spec.shape, data: drawParameter(spec, config.initializerRange, seed) });
  if (fresh.length > 0) onNotice(`drawn afresh, since ${folder} has none that fit: ${fresh.join(', ')}`);
  if (ignored.length > 0) onNotice(`of ${folder}, not used by this model: ${ignored.join(', ')}`);
  return { config, weights };
}
