/** Models by what a folder's config.json says they are, as Hugging Face's AutoModel classes. */
import { UnsupportedModelError } from '../errors';
import { TEXT_MODEL_TYPES, type TextConfig } from '../hub/config';
import { readConfig } from '../hub/folder';
import { IMAGE_MODEL_TYPES } from '../hub/vitConfig';
import { BertForQuestionAnswering, BertForSequenceClassification } from './bert';
import { DistilBertForQuestionAnswering, DistilBertForSequenceClassification } from './distilbert';
import type { FromPretrainedOptions } from './pretrained';
import type { QuestionAnsweringModel } from './questionAnswering';
import { RobertaForQuestionAnswering, RobertaForSequenceClassification } from './roberta';
import type { SequenceClassificationModel } from './sequenceClassification';
import { ViTForImageClassification, type ViTFromPretrainedOptions } from './vit';

/** What the classes below are asked for. */
interface Loads<M> {
  fromPretrained(folder: string, options: FromPretrainedOptions): Promise<M>;
  fromConfigFolder(folder: string, options: FromPretrainedOptions): Promise<M>;
}

const CLASSIFIERS: Readonly<Record<TextConfig['modelType'], Loads<SequenceClassificationModel>>> = {
  bert: BertForSequenceClassification,
  distilbert: DistilBertForSequenceClassification,
  roberta: RobertaForSequenceClassification,
  'xlm-roberta': RobertaForSequenceClassification,
  camembert: RobertaForSequenceClassification,
};

const ANSWERERS: Readonly<Record<TextConfig['modelType'], Loads<QuestionAnsweringModel>>> = {
  bert: BertForQuestionAnswering,
  distilbert: DistilBertForQuestionAnswering,
  roberta: RobertaForQuestionAnswering,
  'xlm-roberta': RobertaForQuestionAnswering,
  camembert: RobertaForQuestionAnswering,
};

/** A folder's `model_type`, if it is one of these. @throws FileMissingError, CheckpointError, UnsupportedModelError naming the supported ones */
function modelTypeOf<T extends string>(folder: string, types: readonly T[]): T {
  const { model_type } = readConfig(folder);
  const type = types.find((t) => t === model_type);
  if (!type) throw new UnsupportedModelError(`config.json of ${folder} has model_type ${JSON.stringify(model_type)}; supported: ${types.join(', ')}`);
  return type;
}

/** Text classifiers (or regression) of any supported architecture. */
export class AutoModelForSequenceClassification {
  /**
   * Loads a Hugging Face folder as the class that its config.json asks for; see that class's `fromPretrained`.
   * @throws FileMissingError, CheckpointError, CheckpointKeysError, ShapeError, UnsupportedModelError, InvalidArgumentError; nothing is left on the device then
   */
  static async fromPretrained(folder: string, options: FromPretrainedOptions = {}): Promise<SequenceClassificationModel> {
    return CLASSIFIERS[modelTypeOf(folder, TEXT_MODEL_TYPES)].fromPretrained(folder, options);
  }

  /** A fresh model of the class and shape that a folder's config.json describes; its weights, if any, are not read. */
  static async fromConfigFolder(folder: string, options: FromPretrainedOptions = {}): Promise<SequenceClassificationModel> {
    return CLASSIFIERS[modelTypeOf(folder, TEXT_MODEL_TYPES)].fromConfigFolder(folder, options);
  }
}

/** Models of any supported architecture that find the answer to a question in a text. */
export class AutoModelForQuestionAnswering {
  /**
   * Loads a Hugging Face folder as the class that its config.json asks for; see that class's `fromPretrained`.
   * @throws FileMissingError, CheckpointError, CheckpointKeysError, ShapeError, UnsupportedModelError, InvalidArgumentError; nothing is left on the device then
   */
  static async fromPretrained(folder: string, options: FromPretrainedOptions = {}): Promise<QuestionAnsweringModel> {
    return ANSWERERS[modelTypeOf(folder, TEXT_MODEL_TYPES)].fromPretrained(folder, options);
  }

  /** A fresh model of the class and shape that a folder's config.json describes; its weights, if any, are not read. */
  static async fromConfigFolder(folder: string, options: FromPretrainedOptions = {}): Promise<QuestionAnsweringModel> {
    return ANSWERERS[modelTypeOf(folder, TEXT_MODEL_TYPES)].fromConfigFolder(folder, options);
  }
}

/** Image classifiers of any supported architecture. */
export class AutoModelForImageClassification {
  /**
   * Loads a Hugging Face folder as the class that its config.json asks for; see that class's `fromPretrained`.
   * @throws FileMissingError, CheckpointError, CheckpointKeysError, ShapeError, UnsupportedModelError, InvalidArgumentError; nothing is left on the device then
   */
  static async fromPretrained(folder: string, options: ViTFromPretrainedOptions = {}): Promise<ViTForImageClassification> {
    modelTypeOf(folder, IMAGE_MODEL_TYPES);
    return ViTForImageClassification.fromPretrained(folder, options);
  }

  /** A fresh model of the class and shape that a folder's config.json describes; its weights, if any, are not read. */
  static async fromConfigFolder(folder: string, options: ViTFromPretrainedOptions = {}): Promise<ViTForImageClassification> {
    modelTypeOf(folder, IMAGE_MODEL_TYPES);
    return ViTForImageClassification.fromConfigFolder(folder, options);
  }
}
