/**
 * BERT (Devlin et al. 2019): post-norm encoder over word + position + token-type embeddings, with the heads that fine-tuning needs.
 * Parameter names are the Hugging Face Hub's. Dropout follows the scheme (see selfAttention.ts).
 */
import { chooseEngine } from '../engine/choose';
import type { DeviceTensor, Engine } from '../engine/engine';
import { InvalidArgumentError, LabelError, SequenceTooLongError, ShapeError } from '../errors';
import { type BertConfig, defaultLabels, parseBertConfig, serializeBertConfig } from '../hub/config';
import { readConfig, readWeights, writeFolder } from '../hub/folder';
import { type ActivationPrediction, bertActivationBytes, byPart } from '../memory/activationBytes';
import { add, dropout, gelu, tanh } from '../nn/activations';
import type { ForwardContext } from '../nn/context';
import { addPositions, Embedding } from '../nn/embedding';
import { LayerNorm } from '../nn/layerNorm';
import { Linear } from '../nn/linear';
import { crossEntropy, meanSquaredError } from '../nn/losses';
import { selectRows } from '../nn/select';
import { selfAttention } from '../nn/selfAttention';
import type { Variable } from '../tape/tape';
import { type ActivationPlan, type BatchShape, drawParameter, type HostWeights, initialWeights, Model, type ModelOutput, type ParameterSpec, type TextBatch, uploadMask } from './model';

/** Options of `fromPretrained`. */
export interface FromPretrainedOptions {
  /** Where the model lives. Default: the best engine of this machine. */
  readonly engine?: Engine;
  /** Outputs of the head. Default: what config.json says. A head of another size is replaced by a fresh one. */
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

/** A folder's config with the labels that the options ask for. */
function configOf(folder: string, options: FromPretrainedOptions): BertConfig {
  const stored = parseBertConfig(readConfig(folder));
  const numLabels = options.numLabels ?? options.labels?.length ?? stored.numLabels;
  if (!(Number.isInteger(numLabels) && numLabels >= 1)) throw new InvalidArgumentError(`numLabels is ${numLabels}; it must be a whole number of at least 1`);
  const names = options.labels ? Object.fromEntries(options.labels.map((l, i) => [i, l])) : numLabels === stored.numLabels ? stored.id2label : defaultLabels(numLabels);
  return { ...stored, numLabels, id2label: names };
}

/** Config and weights of a folder for one kind of head, everything checked. */
async function load(folder: string, specsOf: (c: BertConfig) => ParameterSpec[], options: FromPretrainedOptions): Promise<{ config: BertConfig; weights: HostWeights }> {
  const { seed = 43, onNotice = (t: string) => console.warn(`slimfit: ${t}`) } = options;
  const config = configOf(folder, options);
  const specs = specsOf(config);
  const isHead = (n: string) => /^(bert\.pooler|classifier|cls)\./.test(n);
  const { weights, fresh, ignored } = await readWeights(folder, specs, 'bert.', {
    isHead,
    isOtherHead: (n) => /^(bert\.pooler|pooler|classifier|cls|qa_outputs)\./.test(n),
    replaceHead: options.numLabels !== undefined || options.labels !== undefined,
  });
  for (const spec of specs) if (fresh.includes(spec.name)) weights.set(spec.name, { shape: spec.shape, data: drawParameter(spec, config.initializerRange, seed) });
  if (fresh.length > 0) onNotice(`drawn afresh, since ${folder} has none that fit: ${fresh.join(', ')}`);
  if (ignored.length > 0) onNotice(`of ${folder}, not used by this model: ${ignored.join(', ')}`);
  return { config, weights };
}

/** Label of a token that does not count in masked LM. */
export const IGNORED_LABEL = -100;

const weightAndBias = (name: string, out: number, inp: number): ParameterSpec[] => [
  { name: `${name}.weight`, shape: [out, inp], kind: 'linear', init: 'normal' },
  { name: `${name}.bias`, shape: [out], kind: 'bias', init: 'zeros' },
];
const normOf = (name: string, hidden: number): ParameterSpec[] => [
  { name: `${name}.weight`, shape: [hidden], kind: 'layer-norm', init: 'ones' },
  { name: `${name}.bias`, shape: [hidden], kind: 'bias', init: 'zeros' },
];

/** Parameters of the encoder without a head, in model order. */
function encoderSpecs(c: BertConfig): ParameterSpec[] {
  const H = c.hiddenSize;
  const table = (name: string, rows: number): ParameterSpec => ({
    name: `bert.embeddings.${name}.weight`,
    shape: [rows, H],
    kind: 'embedding',
    init: 'normal',
  });
  const specs = [
    table('word_embeddings', c.vocabSize),
    table('position_embeddings', c.maxPositionEmbeddings),
    table('token_type_embeddings', c.typeVocabSize),
    ...normOf('bert.embeddings.LayerNorm', H),
  ];
  for (let i = 0; i < c.numHiddenLayers; i++) {
    const layer = `bert.encoder.layer.${i}`;
    specs.push(
      ...weightAndBias(`${layer}.attention.self.query`, H, H),
      ...weightAndBias(`${layer}.attention.self.key`, H, H),
      ...weightAndBias(`${layer}.attention.self.value`, H, H),
      ...weightAndBias(`${layer}.attention.output.dense`, H, H),
      ...normOf(`${layer}.attention.output.LayerNorm`, H),
      ...weightAndBias(`${layer}.intermediate.dense`, c.intermediateSize, H),
      ...weightAndBias(`${layer}.output.dense`, H, c.intermediateSize),
      ...normOf(`${layer}.output.LayerNorm`, H),
    );
  }
  return specs;
}

/** Parameters of BERT with a sequence-classification (or regression) head. BERT-base: 102 freezable layers. */
export function sequenceClassificationSpecs(c: BertConfig): ParameterSpec[] {
  return [
    ...encoderSpecs(c),
    ...weightAndBias('bert.pooler.dense', c.hiddenSize, c.hiddenSize),
    ...weightAndBias('classifier', c.numLabels, c.hiddenSize),
  ];
}

/** Parameters of BERT with its masked-LM head; the decoder is tied to the word embeddings. */
export function maskedLmSpecs(c: BertConfig): ParameterSpec[] {
  return [
    ...encoderSpecs(c),
    ...weightAndBias('cls.predictions.transform.dense', c.hiddenSize, c.hiddenSize),
    ...normOf('cls.predictions.transform.LayerNorm', c.hiddenSize),
    { name: 'cls.predictions.bias', shape: [c.vocabSize], kind: 'bias', init: 'zeros' },
  ];
}

/** One encoder layer's parts. */
class BertLayer {
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly attentionOutput: Linear;
  readonly attentionNorm: LayerNorm;
  readonly up: Linear;
  readonly down: Linear;
  readonly outputNorm: LayerNorm;

  constructor(
    readonly name: string,
    linear: (name: string) => Linear,
    norm: (name: string) => LayerNorm,
    private readonly config: BertConfig,
  ) {
    this.query = linear(`${name}.attention.self.query`);
    this.key = linear(`${name}.attention.self.key`);
    this.value = linear(`${name}.attention.self.value`);
    this.attentionOutput = linear(`${name}.attention.output.dense`);
    this.attentionNorm = norm(`${name}.attention.output.LayerNorm`);
    this.up = linear(`${name}.intermediate.dense`);
    this.down = linear(`${name}.output.dense`);
    this.outputNorm = norm(`${name}.output.LayerNorm`);
  }

  /** x [B, T, H] → [B, T, H]; every temporary that backward does not need is freed as soon as it was used. */
  forward(ctx: ForwardContext, x: Variable, mask: DeviceTensor | undefined): Variable {
    const { engine, scheme } = ctx;
    const { config: c } = this;
    const attended = engine.scope(() => {
      const context = engine.scope(() =>
        selfAttention(ctx, this.query.forward(ctx, x), this.key.forward(ctx, x), this.value.forward(ctx, x), {
          name: `${this.name}.attention.self`,
          heads: c.numAttentionHeads,
          dropout: c.attentionProbsDropoutProb,
          mask,
        }),
      );
      const out = dropout(ctx, this.attentionOutput.forward(ctx, context), c.hiddenDropoutProb);
      return this.attentionNorm.forward(ctx, add(ctx, out, x));
    });
    const y = engine.scope(() => {
      const hidden = engine.scope(() => gelu(ctx, this.up.forward(ctx, attended), `${this.name}.intermediate`));
      const out = dropout(ctx, this.down.forward(ctx, hidden, scheme.downProjectionInput), c.hiddenDropoutProb);
      return this.outputNorm.forward(ctx, add(ctx, out, attended));
    });
    engine.free(attended.tensor);
    return y;
  }
}

/** What both heads share: embeddings and encoder. */
export abstract class BertModel extends Model<TextBatch> {
  private readonly words: Embedding;
  private readonly types: Embedding;
  private readonly embeddingNorm: LayerNorm;
  private readonly encoder: readonly BertLayer[];

  constructor(
    engine: Engine,
    readonly config: BertConfig,
    specs: readonly ParameterSpec[],
    weights: HostWeights,
  ) {
    super(engine, specs, weights);
    this.words = new Embedding(this.parameter('bert.embeddings.word_embeddings.weight'), config.padTokenId);
    this.types = new Embedding(this.parameter('bert.embeddings.token_type_embeddings.weight'));
    this.embeddingNorm = this.norm('bert.embeddings.LayerNorm');
    this.encoder = Array.from(
      { length: config.numHiddenLayers },
      (_, i) => new BertLayer(`bert.encoder.layer.${i}`, (n) => this.linear(n), (n) => this.norm(n), config),
    );
  }

  /** Name of the class in Hugging Face's library. */
  protected abstract readonly architecture: string;

  /** Writes a folder that Hugging Face's library loads: config.json, model.safetensors, and the tokenizer's files if one is given. */
  async savePretrained(folder: string, tokenizer?: SavesItself): Promise<void> {
    writeFolder(folder, serializeBertConfig(this.config, this.architecture), await this.weights());
    tokenizer?.save(folder);
  }

  countOf(batch: BatchShape<TextBatch>): { examples: number; tokens: number } {
    return { examples: batch.batchSize, tokens: batch.batchSize * batch.length };
  }

  protected linear(name: string): Linear {
    return new Linear(name, this.parameter(`${name}.weight`), this.parameter(`${name}.bias`));
  }

  protected norm(name: string): LayerNorm {
    return new LayerNorm(name, this.parameter(`${name}.weight`), this.parameter(`${name}.bias`), this.config.layerNormEps);
  }

  /** Last hidden states [B, T, H]. The uploaded ids live until the tape is disposed of. */
  protected encode(ctx: ForwardContext, batch: TextBatch): Variable {
    const { engine, tape } = ctx;
    const { batchSize: B, length: T } = batch;
    this.checkInputs(batch);
    const upload = (a: Int32Array) => {
      const t = engine.upload(a, [B, T]);
      tape.holdUntilBackward(t);
      return t;
    };
    const ids = upload(batch.inputIds);
    const types = upload(batch.tokenTypeIds);
    const mask = uploadMask(engine, batch.attentionMask, B, T);
    if (mask) tape.holdUntilBackward(mask);
    let x = engine.scope(() => {
      const sum = add(ctx, this.words.forward(ctx, ids), this.types.forward(ctx, types));
      const embedded = addPositions(ctx, sum, this.parameter('bert.embeddings.position_embeddings.weight'));
      return dropout(ctx, this.embeddingNorm.forward(ctx, embedded), this.config.hiddenDropoutProb);
    });
    for (const layer of this.encoder) {
      const y = layer.forward(ctx, x, mask);
      engine.free(x.tensor);
      x = y;
    }
    return x;
  }

  private checkInputs({ inputIds, tokenTypeIds, attentionMask, batchSize, length }: TextBatch): void {
    const { maxPositionEmbeddings, vocabSize, typeVocabSize } = this.config;
    if (length > maxPositionEmbeddings)
      throw new SequenceTooLongError(
        `sequences of ${length} tokens, but the model has ${maxPositionEmbeddings} positions: tokenize with maxLength <= ${maxPositionEmbeddings}`,
      );
    for (const [what, ids, limit] of [
      ['inputIds', inputIds, vocabSize],
      ['tokenTypeIds', tokenTypeIds, typeVocabSize],
      ['attentionMask', attentionMask, 2],
    ] as const) {
      if (ids.length !== batchSize * length || ids.length === 0)
        throw new ShapeError(`${what} has ${ids.length} values, expected batchSize·length = ${batchSize}·${length}, at least 1`);
      const bad = ids.findIndex((v) => !(v >= 0 && v < limit));
      if (bad >= 0)
        throw new ShapeError(`${what}[${bad}] is ${ids[bad]}, outside [0, ${limit}): is this the tokenizer of this model?`);
    }
  }
}

/** BERT with a linear head on the pooled first token: class indices (cross-entropy), or one score (squared error). */
export class BertForSequenceClassification extends BertModel {
  protected readonly architecture = 'BertForSequenceClassification';
  private readonly pooler: Linear;
  private readonly classifier: Linear;

  /**
   * Loads a Hugging Face folder. Parts of the head that the checkpoint lacks are drawn afresh, and `onNotice` is told.
   * @throws FileMissingError, CheckpointError, CheckpointKeysError, ShapeError, UnsupportedModelError; nothing is left on the device then
   */
  static async fromPretrained(folder: string, options: FromPretrainedOptions = {}): Promise<BertForSequenceClassification> {
    const { config, weights } = await load(folder, sequenceClassificationSpecs, options);
    return new BertForSequenceClassification(options.engine ?? (await chooseEngine()), config, weights);
  }

  /** A fresh model of the shape that a folder's config.json describes; its weights, if any, are not read. */
  static async fromConfigFolder(folder: string, options: FromPretrainedOptions = {}): Promise<BertForSequenceClassification> {
    const config = configOf(folder, options);
    return BertForSequenceClassification.fresh(options.engine ?? (await chooseEngine()), config, options.seed);
  }

  /** A fresh model: weights N(0, initializerRange²), biases 0, norms 1. */
  static fresh(engine: Engine, config: BertConfig, seed = 43): BertForSequenceClassification {
    return new BertForSequenceClassification(engine, config, initialWeights(sequenceClassificationSpecs(config), config.initializerRange, seed));
  }

  constructor(engine: Engine, config: BertConfig, weights: HostWeights) {
    super(engine, config, sequenceClassificationSpecs(config), weights);
    this.pooler = this.linear('bert.pooler.dense');
    this.classifier = this.linear('classifier');
  }

  /** Whether the head predicts one score instead of classes. */
  get isRegression(): boolean {
    return this.config.numLabels === 1;
  }

  override predictActivations({ batchSize, length }: BatchShape<TextBatch>, { mode, dropout, trains }: ActivationPlan): ActivationPrediction {
    return byPart(bertActivationBytes({ config: this.config, batchSize, length, mode, trains, dropout: dropout && this.config.hiddenDropoutProb > 0 }));
  }

  /** Logits [B, numLabels]. */
  forward(ctx: ForwardContext, batch: TextBatch): Variable {
    const { engine, tape } = ctx;
    const hidden = this.encode(ctx, batch);
    const first = engine.upload(Int32Array.from({ length: batch.batchSize }, (_, i) => i * batch.length), [batch.batchSize]);
    tape.holdUntilBackward(first);
    return engine.scope(() => {
      const cls = selectRows(ctx, hidden, first);
      engine.free(hidden.tensor);
      const pooled = tanh(ctx, this.pooler.forward(ctx, cls), 'bert.pooler');
      return this.classifier.forward(ctx, dropout(ctx, pooled, this.config.hiddenDropoutProb));
    });
  }

  forwardWithLoss(ctx: ForwardContext, batch: TextBatch): ModelOutput {
    const { numLabels } = this.config;
    const { labels, batchSize } = batch;
    if (labels.length !== batchSize) throw new LabelError(`${labels.length} labels for a batch of ${batchSize}`);
    const bad = labels.findIndex((l) => (this.isRegression ? !Number.isFinite(l) : !(Number.isInteger(l) && l >= 0 && l < numLabels)));
    if (bad >= 0)
      throw new LabelError(
        this.isRegression
          ? `label ${labels[bad]} at ${bad} of the batch is no finite score`
          : `label ${labels[bad]} at ${bad} of the batch is outside [0, ${numLabels}): load the model with a larger numLabels, or mend the data`,
      );
    const logits = this.forward(ctx, batch);
    const { engine } = ctx;
    const loss = engine.scope(() =>
      this.isRegression
        ? meanSquaredError(ctx, logits, engine.upload(Float32Array.from(labels), logits.tensor.shape))
        : crossEntropy(ctx, logits, engine.upload(Int32Array.from(labels), [batchSize])),
    );
    return { loss, logits };
  }
}

/**
 * BERT with its masked-LM head. Logits are computed at the labelled positions only: [n, vocabSize], n = number of labels that are
 * not −100, in order.
 */
export class BertForMaskedLM extends BertModel {
  protected readonly architecture = 'BertForMaskedLM';
  private readonly transform: Linear;
  private readonly transformNorm: LayerNorm;
  private readonly decoder: Linear;

  /**
   * Loads a Hugging Face folder. Parts of the head that the checkpoint lacks are drawn afresh, and `onNotice` is told.
   * @throws FileMissingError, CheckpointError, CheckpointKeysError, ShapeError, UnsupportedModelError; nothing is left on the device then
   */
  static async fromPretrained(folder: string, options: FromPretrainedOptions = {}): Promise<BertForMaskedLM> {
    const { config, weights } = await load(folder, maskedLmSpecs, options);
    return new BertForMaskedLM(options.engine ?? (await chooseEngine()), config, weights);
  }

  /** A fresh model: weights N(0, initializerRange²), biases 0, norms 1. */
  static fresh(engine: Engine, config: BertConfig, seed = 43): BertForMaskedLM {
    return new BertForMaskedLM(engine, config, initialWeights(maskedLmSpecs(config), config.initializerRange, seed));
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
