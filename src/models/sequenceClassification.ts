/**
 * A text encoder with a classification head on the first token: [dropout,] dense, tanh or ReLU, dropout, linear (hub/textNames.ts). Class indices (cross-entropy), or one score
 * (squared error).
 */
import type { Engine } from '../engine/engine';
import type { TextConfig } from '../hub/config';
import { TEXT_NAMES } from '../hub/textNames';
import { type ActivationPrediction, bertActivationBytes, bertParts, byPart } from '../memory/activationBytes';
import { savedByFreezing } from '../memory/keptActivations';
import { dropout, relu, tanh } from '../nn/activations';
import type { ForwardContext } from '../nn/context';
import type { Linear } from '../nn/linear';
import { selectRows } from '../nn/select';
import type { Variable } from '../tape/tape';
import { checkLabels, labelledLoss } from './classificationHead';
import { encoderSpecs, weightAndBias } from './encoder';
import type { ActivationPlan, BatchShape, HostWeights, ModelOutput, ParameterSpec, TextBatch } from './model';
import { TextModel } from './textModel';

/** Parameters of a text encoder with a sequence-classification (or regression) head. BERT-base: 102 freezable layers. */
export function sequenceClassificationSpecs(c: TextConfig): ParameterSpec[] {
  const { dense, out } = TEXT_NAMES[c.modelType].classifier;
  return [...encoderSpecs(c), ...weightAndBias(dense, c.hiddenSize, c.hiddenSize), ...weightAndBias(out, c.numLabels, c.hiddenSize)];
}

/** Any text encoder that classifies sequences. */
export abstract class SequenceClassificationModel<C extends TextConfig = TextConfig> extends TextModel<C> {
  static override readonly hasLabels: boolean = true;
  protected readonly purpose = 'ForSequenceClassification';
  private readonly dense: Linear;
  private readonly out: Linear;

  /** Parameters in model order. */
  static specs(config: TextConfig): ParameterSpec[] {
    return sequenceClassificationSpecs(config);
  }

  constructor(engine: Engine, config: C, weights: HostWeights) {
    super(engine, config, sequenceClassificationSpecs(config), weights);
    this.dense = this.linear(this.names.classifier.dense);
    this.out = this.linear(this.names.classifier.out);
  }

  /** Whether the head predicts one score instead of classes. */
  get isRegression(): boolean {
    return this.config.numLabels === 1;
  }

  override predictActivations({ batchSize, length }: BatchShape<TextBatch>, plan: ActivationPlan): ActivationPrediction {
    return byPart(bertActivationBytes({ ...plan, config: this.config, batchSize, length }));
  }

  override freezingSaves({ batchSize, length }: BatchShape<TextBatch>, plan: ActivationPlan, weights: readonly string[]): Float64Array {
    return savedByFreezing(bertParts({ config: this.config, batchSize, length, dropout: plan.dropout }), plan.mode, plan, weights);
  }

  /** Logits [B, numLabels]. */
  forward(ctx: ForwardContext, batch: TextBatch): Variable {
    const { engine, tape } = ctx;
    const { classifierDropout: p } = this.config;
    const { activation, activationModule, dropsFirst } = this.names.classifier;
    const hidden = this.encode(ctx, batch);
    const first = engine.upload(Int32Array.from({ length: batch.batchSize }, (_, i) => i * batch.length), [batch.batchSize]);
    tape.holdUntilBackward(first);
    return engine.scope(() => {
      const cls = selectRows(ctx, hidden, first);
      engine.free(hidden.tensor);
      const pooled = (activation === 'relu' ? relu : tanh)(ctx, this.dense.forward(ctx, dropsFirst ? dropout(ctx, cls, p) : cls), activationModule);
      return this.out.forward(ctx, dropout(ctx, pooled, p));
    });
  }

  forwardWithLoss(ctx: ForwardContext, batch: TextBatch): ModelOutput {
    checkLabels(batch, this.config.numLabels);
    const logits = this.forward(ctx, batch);
    return { loss: labelledLoss(ctx, logits, batch), logits };
  }
}
