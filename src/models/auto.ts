/** Models by what a folder's config.json says they are, as Hugging Face's AutoModel classes. */
import { UnsupportedModelError } from '../errors';
import { TEXT_MODEL_TYPES, type TextConfig } from '../hub/config';
import { readConfig } from '../hub/folder';
import { BertForQuestionAnswering, BertForSequenceClassification } from './bert';
import { DistilBertForQuestionAnswering, DistilBertForSequenceClassification } from './distilbert';
import type { FromPretrainedOptions } from './pretrained';
import type { QuestionAnsweringModel } from './questionAnswering';
import { RobertaForQuestionAnswering, RobertaForSequenceClassification } from './roberta';
import type { SequenceClassificationModel } from './sequenceClassification';

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

/** A folder's `model_type`. @throws FileMissingError, CheckpointError, UnsupportedModelError naming the supported ones */
function modelTypeOf(folder: string): TextConfig['modelType'] {
  const { model_type } = readConfig(folder);
  const type = TEXT_MODEL_TYPES.find((t) => t === model_type);
  if (!type) throw new UnsupportedModelError(`config.json of ${folder} has model_type ${JSON.stringify(model_type)}; supported: ${TEXT_MODEL_TYPES.join(', ')}`);
  return type;
}

/** Text classifiers (or regression) of any supported architecture. */
export class AutoModelForSequenceClassification {
  /**
   * Loads a Hugging Face folder as the class that its config.json asks for; see that class's `fromPretrained`.
   * @throws FileMissingError, CheckpointError, CheckpointKeysError, ShapeError, UnsupportedModelError, InvalidArgumentError; nothing is left on the device then
   */
  static async fromPretrained(folder: string, options: FromPretrainedOptions = {}): Promise<SequenceClassificationModel> {
    return CLASSIFIERS[modelTypeOf(folder)].fromPretrained(folder, options);
  }

  /** A fresh model of the class and shape that a folder's config.json describes; its weights, if any, are not read. */
  static async fromConfigFolder(folder: string, options: FromPretrainedOptions = {}): Promise<SequenceClassificationModel> {
    return CLASSIFIERS[modelTypeOf(folder)].fromConfigFolder(folder, options);
  }
}

/** Models of any supported architecture that find the answer to a question in a text. */
export class AutoModelForQuestionAnswering {
  /**
   * Loads a Hugging Face folder as the class that its config.json asks for; see that class's `fromPretrained`.
   * @throws FileMissingError, CheckpointError, CheckpointKeysError, ShapeError, UnsupportedModelError, InvalidArgumentError; nothing is left on the device then
   */
  static async fromPretrained(folder: string, options: FromPretrainedOptions = {}): Promise<QuestionAnsweringModel> {
    return ANSWERERS[modelTypeOf(folder)].fromPretrained(folder, options);
  }

  /** A fresh model of the class and shape that a folder's config.json describes; its weights, if any, are not read. */
  static async fromConfigFolder(folder: string, options: FromPretrainedOptions = {}): Promise<QuestionAnsweringModel> {
    return ANSWERERS[modelTypeOf(folder)].fromConfigFolder(folder, options);
  }
}
