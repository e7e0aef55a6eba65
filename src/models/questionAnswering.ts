/**
 * A text encoder with a span head (Devlin et al. 2019, §4.2): one linear map gives each token a score to begin the answer and one to end it; the loss is the mean of both
 * cross-entropies over the tokens of a sequence.
 */
import type { Engine } from '../engine/engine';
import { LabelError } from '../errors';
import type { TextConfig } from '../hub/config';
import { defaultLabels } from '../hub/configFields';
import { type ActivationPrediction, bertActivationBytes, bertParts, byPart } from '../memory/activationBytes';
import { savedByFreezing } from '../memory/keptActivations';
import { dropout } from '../nn/activations';
import type { ForwardContext } from '../nn/context';
import type { Linear } from '../nn/linear';
import { crossEntropy } from '../nn/losses';
import { reshape, tokensLast } from '../nn/layout';
import type { Variable } from '../tape/tape';
import { encoderSpecs, weightAndBias } from './encoder';
import type { ActivationPlan, BatchShape, HostWeights, ModelOutput, ParameterSpec, TextBatch } from './model';
import { TextModel } from './textModel';

/** Parameters of a text encoder with a span head. BERT-base: 101 freezable layers (no pooler). */
export function questionAnsweringSpecs(c: TextConfig): ParameterSpec[] {
  return [...encoderSpecs(c), ...weightAndBias('qa_outputs', 2, c.hiddenSize)];
}

/** Any text encoder that finds answers in a text. */
export abstract class QuestionAnsweringModel<C extends TextConfig = TextConfig> extends TextModel<C> {
  protected readonly purpose = 'ForQuestionAnswering';
  private readonly spans: Linear;

  /** Parameters in model order. */
  static specs(config: TextConfig): ParameterSpec[] {
    return questionAnsweringSpecs(config);
  }

  constructor(engine: Engine, config: C, weights: HostWeights) {
    // Hugging Face takes the size of the span head from the number of labels.
    super(engine, config.numLabels === 2 ? config : { ...config, numLabels: 2, id2label: defaultLabels(2) }, questionAnsweringSpecs(config), weights);
    this.spans = this.linear('qa_outputs');
  }

  override predictActivations({ batchSize, length }: BatchShape<TextBatch>, plan: ActivationPlan): ActivationPrediction {
    return byPart(bertActivationBytes({ ...plan, config: this.config, batchSize, length, head: 'question answering' }));
  }

  override freezingSaves({ batchSize, length }: BatchShape<TextBatch>, plan: ActivationPlan, weights: readonly string[]): Float64Array {
    return savedByFreezing(bertParts({ config: this.config, batchSize, length, dropout: plan.dropout, head: 'question answering' }), plan.mode, plan, weights);
  }

  /** Logits [B, 2·T]: of each sequence the scores of its T tokens to begin the answer, then those to end it. Padding has scores too, as in Hugging Face's library. */
  forward(ctx: ForwardContext, batch: TextBatch): Variable {
    const { engine } = ctx;
    const hidden = this.encode(ctx, batch);
    return engine.scope(() => {
      const scores = this.spans.forward(ctx, dropout(ctx, hidden, this.config.spanDropout));
      engine.free(hidden.tensor);
      return tokensLast(ctx, scores);
    });
  }

  /**
   * `labels` [B, 2], row-major: the answer's first and last token of each sequence (where there is no answer, by custom 0 and 0: the first token). Hugging Face's library leaves a
   * position beyond the sequence out of the mean, and takes a negative one for 0; here both are refused, since a window that lacks the answer is labelled with its first token.
   * @throws LabelError, SequenceTooLongError; nothing was computed then
   */
  forwardWithLoss(ctx: ForwardContext, batch: TextBatch): ModelOutput {
    const { labels, batchSize, length } = batch;
    if (labels.length !== 2 * batchSize) throw new LabelError(`question answering needs a first and a last token per sequence: ${labels.length} labels for a batch of ${batchSize}`);
    const bad = labels.findIndex((l) => !(Number.isInteger(l) && l >= 0 && l < length));
    if (bad >= 0)
      throw new LabelError(
        `${bad % 2 === 0 ? 'first' : 'last'} token ${labels[bad]} of answer ${bad >> 1} of the batch is outside [0, ${length}): label a sequence that lacks its answer with 0 and 0`,
      );
    const logits = this.forward(ctx, batch);
    const { engine } = ctx;
    // Rows start, end, start, end, …: as many of one as of the other, so the mean over all is the mean of both.
    const loss = engine.scope(() => crossEntropy(ctx, reshape(ctx, logits, [2 * batchSize, length]), engine.upload(Int32Array.from(labels), [2 * batchSize])));
    return { loss, logits };
  }
}
