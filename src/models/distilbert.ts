/** DistilBERT (Sanh et al. 2019): BERT with half the layers, no token types and no pooler; its classification head has a ReLU. */
import { type DistilBertConfig, parseDistilBertConfig } from '../hub/config';
import { QuestionAnsweringModel } from './questionAnswering';
import { SequenceClassificationModel } from './sequenceClassification';

/** DistilBERT with a head on the first token: class indices (cross-entropy), or one score (squared error). */
export class DistilBertForSequenceClassification extends SequenceClassificationModel<DistilBertConfig> {
  static readonly parseConfig = parseDistilBertConfig;
}

/** DistilBERT with a span head on its last hidden states. */
export class DistilBertForQuestionAnswering extends QuestionAnsweringModel<DistilBertConfig> {
  static readonly parseConfig = parseDistilBertConfig;
}
