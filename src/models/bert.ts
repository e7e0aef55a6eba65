/** BERT (Devlin et al. 2019) with the heads that fine-tuning and pre-training need. */
import type { Engine } from '../engine/engine';
import { LabelError } from '../errors';
import { type BertConfig, parseBertConfig } from '../hub/config';
import { gelu } from '../nn/activations';
import type { ForwardContext } from '../nn/context';
import type { LayerNorm } from '../nn/layerNorm';
import { Linear } from '../nn/linear';
import { crossEntropy } from '../nn/losses';
import { selectRows } from '../nn/select';
import type { Variable } from '../tape/tape';
import { encoderSpecs, normOf, weightAndBias } from './encoder';
import type { HostWeights, ModelOutput, ParameterSpec, TextBatch } from './model';
import { QuestionAnsweringModel } from './questionAnswering';
import { SequenceClassificationModel } from './sequenceClassification';
import { TextModel } from './textModel';

/** BERT with a linear head on the pooled first token: class indices (cross-entropy), or one score (squared error). */
export class BertForSequenceClassification extends SequenceClassificationModel<BertConfig> {
  static readonly parseConfig = parseBertConfig;
}

/** BERT with a span head on its last hidden states; no pooler. */
export class BertForQuestionAnswering extends QuestionAnsweringModel<BertConfig> {
  static readonly parseConfig = parseBertConfig;
}

/** Label of a token that does not count in masked LM. */
export const IGNORED_LABEL = -100;

/** Parameters of BERT with its masked-LM head; the decoder is tied to the word embeddings. */
export function maskedLmSpecs(c: BertConfig): ParameterSpec[] {
  return [
    ...encoderSpecs(c),
    ...weightAndBias('cls.predictions.transform.dense', c.hiddenSize, c.hiddenSize),
    ...normOf('cls.predictions.transform.LayerNorm', c.hiddenSize),
    { name: 'cls.predictions.bias', shape: [c.vocabSize], kind: 'bias', init: 'zeros' },
  ];
}

/**
 * BERT with its masked-LM head. Logits are computed at the labelled positions only: [n, vocabSize], n = number of labels that are
 * not −100, in order.
 */
export class BertForMaskedLM extends TextModel<BertConfig> {
  protected readonly purpose = 'ForMaskedLM';
  private readonly transform: Linear;
  private readonly transformNorm: LayerNorm;
  private readonly decoder: Linear;

  static readonly parseConfig = parseBertConfig;

  /** Parameters in model order. */
  static specs(config: BertConfig): ParameterSpec[] {
    return maskedLmSpecs(config);
  }

  constructor(engine: Engine, config: BertConfig, weights: HostWeights) {
    super(engine, config, maskedLmSpecs(config), weights);
    this.transform = this.linear('cls.predictions.transform.dense');
    this.transformNorm = this.norm('cls.predictions.transform.LayerNorm');
    this.decoder = new Linear(
      'cls.predictions.decoder',
      this.parameter('bert.embeddings.word_embeddings.weight'),
      this.parameter('cls.predictions.bias'),
    );
  }

  forward(ctx: ForwardContext, batch: TextBatch): Variable {
    const { engine, tape } = ctx;
    if (batch.labels.length !== batch.batchSize * batch.length)
      throw new LabelError(`masked LM needs one label per token: ${batch.labels.length} labels for ${batch.batchSize}·${batch.length} tokens`);
    const positions = labelledPositions(batch.labels);
    if (positions.length === 0) throw new LabelError(`no token of the batch is labelled: all labels are ${IGNORED_LABEL}`);
    const bad = positions.findIndex((p) => !(batch.labels[p] >= 0 && batch.labels[p] < this.config.vocabSize));
    if (bad >= 0) throw new LabelError(`label ${batch.labels[positions[bad]]} is outside the vocabulary [0, ${this.config.vocabSize})`);
    const hidden = this.encode(ctx, batch);
    const at = engine.upload(positions, [positions.length]);
    tape.holdUntilBackward(at);
    return engine.scope(() => {
      const rows = selectRows(ctx, hidden, at);
      engine.free(hidden.tensor);
      const h = gelu(ctx, this.transform.forward(ctx, rows), 'cls.predictions.transform');
      return this.decoder.forward(ctx, this.transformNorm.forward(ctx, h));
    });
  }

  /** The decoder reads every row of the word embeddings. */
  override lookups(): ReadonlyMap<string, Int32Array> {
    return new Map();
  }

  /** Labelled tokens. */
  override lossTerms({ labels }: TextBatch): number {
    return labelledPositions(labels).length;
  }

  forwardWithLoss(ctx: ForwardContext, batch: TextBatch): ModelOutput {
    const { engine } = ctx;
    const logits = this.forward(ctx, batch);
    const labels = Int32Array.from(labelledPositions(batch.labels), (p) => batch.labels[p]);
    const loss = engine.scope(() => crossEntropy(ctx, logits, engine.upload(labels, [labels.length])));
    return { loss, logits };
  }
}

function labelledPositions(labels: Int32Array | Float32Array): Int32Array {
  const out: number[] = [];
  labels.forEach((l, i) => l !== IGNORED_LABEL && out.push(i));
  return Int32Array.from(out);
}
