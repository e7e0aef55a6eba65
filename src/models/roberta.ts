/**
 * RoBERTa (Liu et al. 2019): BERT whose positions count from `padTokenId + 1`, with a head of two linear maps. XLM-RoBERTa and CamemBERT are RoBERTas by other names, and
 * keep theirs when they are saved.
 */
import { parseRobertaConfig, type RobertaConfig } from '../hub/config';
import { QuestionAnsweringModel } from './questionAnswering';
import { SequenceClassificationModel } from './sequenceClassification';

/** RoBERTa with a head on the first token: class indices (cross-entropy), or one score (squared error). */
export class RobertaForSequenceClassification extends SequenceClassificationModel<RobertaConfig> {
  static readonly parseConfig = parseRobertaConfig;
}

/** RoBERTa with a span head on its last hidden states. */
export class RobertaForQuestionAnswering extends QuestionAnsweringModel<RobertaConfig> {
  static readonly parseConfig = parseRobertaConfig;
}
