/** A tiny BERT and batches for tests. */
import { chooseEngine } from '../../src/engine/choose';
import type { Engine } from '../../src/engine/engine';
import { type BertConfig, parseBertConfig } from '../../src/hub/config';
import { BertForSequenceClassification } from '../../src/models/bert';
import { sequenceClassificationSpecs } from '../../src/models/sequenceClassification';
import { initialWeights, type LabelledBatch, type Model, type TextBatch } from '../../src/models/model';
import type { ForwardContext } from '../../src/nn/context';
import { Random } from '../../src/random';

export const tinyConfig = (changes: Record<string, unknown> = {}): BertConfig =>
  parseBertConfig({
    model_type: 'bert',
    vocab_size: 31,
    hidden_size: 16,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    intermediate_size: 32,
    max_position_embeddings: 12,
    type_vocab_size: 2,
    hidden_act: 'gelu',
    layer_norm_eps: 1e-12,
    hidden_dropout_prob: 0,
    attention_probs_dropout_prob: 0,
    pad_token_id: 0,
    num_labels: 3,
    ...changes,
  });

export function tinyWeights(config: BertConfig, seed = 1): Map<string, { shape: readonly number[]; data: Float32Array }> {
  const weights = initialWeights(sequenceClassificationSpecs(config), 0.3, seed);
  const random = new Random(seed + 100);
  // Fresh biases are 0 and norms 1: nudge them, so that a test sees them.
  for (const { data } of weights.values()) data.forEach((v, i) => (data[i] = v + 0.05 * random.normal()));
  return weights;
}

export function tinyModel(engine: Engine, config = tinyConfig(), seed = 1): BertForSequenceClassification {
  return new BertForSequenceClassification(engine, config, tinyWeights(config, seed));
}

/** Random ids with padding at the end of every second sequence. */
export function tinyBatch(config: BertConfig, batchSize: number, length: number, seed = 1): TextBatch {
  const random = new Random(seed);
  const attentionMask = Int32Array.from({ length: batchSize * length }, (_, i) => (Math.floor(i / length) % 2 === 1 && i % length >= length - 2 ? 0 : 1));
  return {
    inputIds: attentionMask.map((m) => (m ? 1 + random.int(config.vocabSize - 1) : config.padTokenId)),
    tokenTypeIds: Int32Array.from({ length: batchSize * length }, (_, i) => (i % length > length / 2 ? 1 : 0)),
    attentionMask,
    labels: config.numLabels === 1 ? Float32Array.from({ length: batchSize }, () => random.normal()) : Int32Array.from({ length: batchSize }, () => random.int(config.numLabels)),
    batchSize,
    length,
  };
}

/** The plain JavaScript engine: everywhere available. */
export const cpuEngine = (): Promise<Engine> => chooseEngine('cpu');

/** Loss and gradients of one forward and backward pass, by parameter. */
export async function gradientsOf<Batch extends LabelledBatch>(model: Model<Batch>, ctx: ForwardContext, batch: Batch): Promise<{ grads: Map<string, Float32Array>; loss: number }> {
  const { engine } = ctx;
  const out = model.forwardWithLoss(ctx, batch);
  const pending: Promise<[string, Float32Array]>[] = [];
  ctx.tape.backward(out.loss, (p, g) => pending.push(engine.read(g).then((d) => [p.name, d as Float32Array])));
  const loss = (await engine.read(out.loss.tensor))[0];
  engine.free(out.loss.tensor, out.logits.tensor);
  return { grads: new Map(await Promise.all(pending)), loss };
}
