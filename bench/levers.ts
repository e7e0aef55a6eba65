/**
 * What each lever of an activation scheme saves and costs: bytes kept by a step, and the error of its gradient against exact activations, on a tiny BERT and a tiny ViT, one row a lever.
 * `npm run bench:levers`; a minute on two cores.
 */
import { chooseEngine } from '../src/engine/choose';
import { embeddedModel } from '../src/data/embedded/embedded';
import { parseViTConfig } from '../src/hub/vitConfig';
import { AutoModelForSequenceClassification } from '../src/models/auto';
import { type ImageBatch, type LabelledBatch, type Model, type TextBatch, weightOfBias } from '../src/models/model';
import { ViTForImageClassification } from '../src/models/vit';
import { ForwardContext } from '../src/nn/context';
import { Random } from '../src/random';
import { type ActivationScheme, SCHEMES } from '../src/tape/scheme';
import { GradientComparison, gradientErrors } from '../src/training/gradients';

const { exact, paper, tuned } = SCHEMES;
const LEVERS: readonly (readonly [string, ActivationScheme, boolean])[] = [
  ['exact', exact, false],
  ['exact + recompute', { ...exact, attentionProbs: 'recompute' }, false],
  ['paper', paper, false],
  ['paper + recompute', { ...paper, attentionProbs: 'recompute' }, false],
  ['paper + u8-row probabilities', { ...paper, attentionProbs: 'u8-row' }, false],
  ['paper + q8-row operands', { ...paper, attentionOperands: 'q8-row' }, false],
  ['paper + q8-row operands, recompute', { ...paper, attentionOperands: 'q8-row', attentionProbs: 'recompute' }, false],
  ['paper + q8-row down input', { ...paper, downProjectionInput: 'q8-row' }, false],
  ['paper + whole LayerNorms', { ...paper, frozenLayerNormShare: undefined }, false],
  ['paper + q4-row GELU input', { ...paper, geluInput: 'q4-row' }, false],
  ['paper + q8-row GELU input', { ...paper, geluInput: 'q8-row' }, false],
  ['paper + q8-row LayerNorms', { ...paper, normalizedValues: 'q8-row' }, false],
  ['paper + q8-row LayerNorms and inputs', { ...paper, normalizedValues: 'q8-row', linearInput: 'q8-row' }, false],
  ['… + MLP computed again', { ...paper, normalizedValues: 'q8-row', linearInput: 'q8-row', geluInput: 'recompute' }, false],
  ['paper + frozen biases', paper, true],
  ['tuned, biases train', tuned, false],
  ['tuned', tuned, true],
];

/** Only the operands and probabilities are coded, so that the attention levers are seen by themselves. */
const ATTENTION: readonly (readonly [string, ActivationScheme])[] = [
  ['q3.4 operands, q0.8 probabilities', { ...exact, attentionOperands: 'q3.4', attentionProbs: 'q0.8' }],
  ['q3.4 operands, recompute', { ...exact, attentionOperands: 'q3.4', attentionProbs: 'recompute' }],
  ['q8-row operands, u8-row probabilities', { ...exact, attentionOperands: 'q8-row', attentionProbs: 'u8-row' }],
  ['q8-row operands, recompute', { ...exact, attentionOperands: 'q8-row', attentionProbs: 'recompute' }],
];

/** Rows of a model on a batch, with the upper tenth of its layers training (what frozen biases are for) or a random fifth. */
async function rows<B extends LabelledBatch>(name: string, model: Model<B>, batch: B): Promise<void> {
  const { engine } = model;
  const layers = model.layers.map((l) => l.name);
  const random = new Random(5);
  const sets = { 'a random fifth': layers.filter(() => random.uniform() < 0.2), 'the top tenth': layers.slice(Math.floor(0.9 * layers.length)) };
  for (const [what, trained] of Object.entries(sets))
    for (const [lever, scheme, frozenBiases] of [...LEVERS, ...ATTENTION.map(([n, s]) => [n, s, false] as const)]) {
      const of = (n: string) => (frozenBiases ? weightOfBias(n) : n);
      for (const p of model.parameters.values()) p.trains = !layers.includes(of(p.name)) || trained.includes(of(p.name));
      const context = (s: ActivationScheme) => ForwardContext.training(engine, s, 7, 2);
      const ctx = context(scheme);
      const out = model.forwardWithLoss(ctx, batch);
      const bytes = ctx.tape.ledger.totalBytes;
      engine.free(out.logits.tensor, out.loss.tensor);
      ctx.tape.dispose();
      const errors = (await gradientErrors(model, batch, context, { [lever]: scheme })).filter((e) => trained.includes(e.parameter));
      const [all] = new GradientComparison(0, errors).overall().objects() as { relativeError: number; cosine: number }[];
      process.stdout.write(`${name.padEnd(6)} ${what.padEnd(15)} ${lever.padEnd(40)} ${String(bytes).padStart(9)} bytes   error ${all.relativeError.toExponential(2)}   cosine ${all.cosine.toFixed(6)}\n`);
    }
}

async function main(): Promise<void> {
  const engine = await chooseEngine();
  const random = new Random(3);
  const bert = await AutoModelForSequenceClassification.fromPretrained(embeddedModel(), { engine, onNotice: () => {} });
  const [B, T] = [8, 32];
  const ids = Int32Array.from({ length: B * T }, (_, i) => (i % T === 0 ? 2 : 5 + random.int(bert.config.vocabSize - 5)));
  const text: TextBatch = { inputIds: ids, tokenTypeIds: new Int32Array(B * T), attentionMask: new Int32Array(B * T).fill(1), labels: Int32Array.from({ length: B }, (_, i) => i % 2), batchSize: B, length: T };
  await rows('BERT', bert, text);
  const vit = ViTForImageClassification.fresh(engine, parseViTConfig({ model_type: 'vit', image_size: 48, patch_size: 4, hidden_size: 48, num_hidden_layers: 3, num_attention_heads: 4, intermediate_size: 192, num_labels: 10, initializer_range: 0.1 }));
  const image: ImageBatch = { pixelValues: Float32Array.from({ length: 4 * 3 * 48 ** 2 }, () => random.normal()), labels: Int32Array.of(1, 2, 3, 4), batchSize: 4, channels: 3, height: 48, width: 48 };
  await rows('ViT', vit, image);
  bert.dispose();
  vit.dispose();
  engine.dispose();
}

void main();
