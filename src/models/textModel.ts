/** What the text models share: embeddings, encoder, loading and saving. Parameter names are the Hugging Face Hub's. */
import { chooseEngine } from '../engine/choose';
import type { Engine } from '../engine/engine';
import { SequenceTooLongError, ShapeError } from '../errors';
import { serializeTextConfig, type TextConfig } from '../hub/config';
import { writeFolder } from '../hub/folder';
import { embeddingName, TEXT_NAMES, type TextNames } from '../hub/textNames';
import { add, dropout } from '../nn/activations';
import { checkpoint } from '../nn/checkpoint';
import type { ForwardContext } from '../nn/context';
import { addPositions, Embedding } from '../nn/embedding';
import { LayerNorm } from '../nn/layerNorm';
import { Linear } from '../nn/linear';
import type { Variable } from '../tape/tape';
import { EncoderLayer } from './encoder';
import { type BatchShape, type HostWeights, initialWeights, Model, type ParameterSpec, type TextBatch, uploadMask } from './model';
import { configOf, type FromPretrainedOptions, load, type SavesItself, type TextModelClass } from './pretrained';

/** A text encoder with a head. */
export abstract class TextModel<C extends TextConfig = TextConfig> extends Model<TextBatch> {
  /** Whether the head has one output per label. */
  static readonly hasLabels: boolean = false;
  protected readonly names: TextNames;
  private readonly words: Embedding;
  /** Where every position has an id of its own (RoBERTa). */
  private readonly positions: Embedding;
  private readonly types: Embedding | undefined;
  private readonly embeddingNorm: LayerNorm;
  private readonly encoder: readonly EncoderLayer[];

  /**
   * Loads a Hugging Face folder. Parts of the head that the checkpoint lacks are drawn afresh, and `onNotice` is told; so it is of other heads, which are ignored.
   * @throws FileMissingError, CheckpointError, CheckpointKeysError, ShapeError, UnsupportedModelError, InvalidArgumentError; nothing is left on the device then
   */
  static async fromPretrained<C extends TextConfig, M>(this: TextModelClass<C, M>, folder: string, options: FromPretrainedOptions = {}): Promise<M> {
    const { config, weights } = await load(folder, this, options);
    return new this(options.engine ?? (await chooseEngine()), config, weights);
  }

  /** A fresh model of the shape that a folder's config.json describes; its weights, if any, are not read. */
  static async fromConfigFolder<C extends TextConfig, M>(this: TextModelClass<C, M>, folder: string, options: FromPretrainedOptions = {}): Promise<M> {
    const config = configOf(folder, this, options);
    const weights = initialWeights(this.specs(config), config.initializerRange, options.seed ?? 43);
    return new this(options.engine ?? (await chooseEngine()), config, weights);
  }

  /** A fresh model: weights N(0, initializerRange²), biases 0, norms 1. */
  static fresh<C extends TextConfig, M>(this: TextModelClass<C, M>, engine: Engine, config: C, seed = 43): M {
    return new this(engine, config, initialWeights(this.specs(config), config.initializerRange, seed));
  }

  constructor(
    engine: Engine,
    readonly config: C,
    specs: readonly ParameterSpec[],
    weights: HostWeights,
  ) {
    super(engine, specs, weights);
    this.names = TEXT_NAMES[config.modelType];
    const table = (part: Parameters<typeof embeddingName>[1]) => this.parameter(`${embeddingName(this.names, part)}.weight`);
    this.words = new Embedding(table('word_embeddings'), config.padTokenId);
    this.positions = new Embedding(table('position_embeddings'), this.names.positionsAfterPadding ? config.padTokenId : undefined);
    this.types = config.typeVocabSize > 0 ? new Embedding(table('token_type_embeddings')) : undefined;
    this.embeddingNorm = this.norm(embeddingName(this.names, 'LayerNorm'));
    this.encoder = Array.from({ length: config.numHiddenLayers }, (_, i) => new EncoderLayer(i, (n) => this.linear(n), (n) => this.norm(n), config));
  }

  /** What the class is for, as Hugging Face's class names say it: 'ForSequenceClassification'. */
  protected abstract readonly purpose: string;

  /** Most tokens of a sequence. */
  get maxLength(): number {
    const { maxPositionEmbeddings, padTokenId } = this.config;
    return maxPositionEmbeddings - (this.names.positionsAfterPadding ? padTokenId + 1 : 0);
  }

  /** Writes a folder that Hugging Face's library loads: config.json, model.safetensors, and the tokenizer's files if one is given. */
  async savePretrained(folder: string, tokenizer?: SavesItself): Promise<void> {
    await writeFolder(folder, this.configJson(), this.specs, (name) => this.readWeight(name));
    tokenizer?.save(folder);
  }

  configJson(): Readonly<Record<string, unknown>> {
    return serializeTextConfig(this.config, `${this.names.className}${this.purpose}`);
  }

  countOf(batch: BatchShape<TextBatch>): { examples: number; tokens: number } {
    return { examples: batch.batchSize, tokens: batch.batchSize * batch.length };
  }

  override lookups({ inputIds }: TextBatch): ReadonlyMap<string, Int32Array> {
    return new Map([[this.words.weight.name, inputIds]]);
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
    const types = this.types && upload(batch.tokenTypeIds);
    const positions = this.names.positionsAfterPadding ? upload(positionsAfterPadding(batch, this.config.padTokenId)) : undefined;
    const mask = uploadMask(engine, batch.attentionMask, B, T);
    if (mask) tape.holdUntilBackward(mask);
    let x = engine.scope(() => {
      let sum = this.words.forward(ctx, ids, batch.inputIds);
      if (this.types && types) sum = add(ctx, sum, this.types.forward(ctx, types));
      const embedded = positions ? add(ctx, sum, this.positions.forward(ctx, positions)) : addPositions(ctx, sum, this.positions.weight);
      return dropout(ctx, this.embeddingNorm.forward(ctx, embedded), this.config.hiddenDropoutProb);
    });
    for (const [i, layer] of this.encoder.entries()) {
      const name = `${this.names.layers}.${i}`;
      const y = checkpoint(ctx, x, { name, parameters: this.parametersOf(name), forward: (c, v) => layer.forward(c, v, mask) });
      engine.free(x.tensor);
      x = y;
    }
    return x;
  }

  private checkInputs({ inputIds, tokenTypeIds, attentionMask, batchSize, length }: TextBatch): void {
    const { vocabSize, typeVocabSize } = this.config;
    if (length > this.maxLength)
      throw new SequenceTooLongError(`sequences of ${length} tokens, but the model has ${this.maxLength} positions: tokenize with maxLength <= ${this.maxLength}`);
    for (const [what, ids, limit] of [
      ['inputIds', inputIds, vocabSize],
      // A model without token types does not look at them.
      ['tokenTypeIds', tokenTypeIds, typeVocabSize || Infinity],
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

/** RoBERTa's positions: the n-th token of a row that is no padding has `pad` + n, n from 1; padding has `pad`. */
function positionsAfterPadding({ inputIds, length }: TextBatch, pad: number): Int32Array {
  let seen = 0;
  return inputIds.map((id, i) => {
    if (i % length === 0) seen = 0;
    return id === pad ? pad : pad + ++seen;
  });
}
