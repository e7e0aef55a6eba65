/**
 * ViT (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021) for image classification: a pre-norm encoder over the patches of an image, with a linear head on the class token. Parameter names are the
 * Hugging Face Hub's. In the paper's count the class token, the positions, the patch projection and, per encoder layer, eight weights are freezable, then the classifier: 100 for ViT-Base. The final
 * LayerNorm always trains.
 */
import { chooseEngine } from '../engine/choose';
import type { DeviceTensor, Engine } from '../engine/engine';
import { InvalidArgumentError, ShapeError } from '../errors';
import { defaultLabels } from '../hub/configFields';
import { readConfig, readWeights, writeFolder } from '../hub/folder';
import { parseViTConfig, serializeViTConfig, type ViTConfig, vitTokens } from '../hub/vitConfig';
import { type ActivationPrediction, byPart } from '../memory/activationBytes';
import { savedByFreezing } from '../memory/keptActivations';
import { vitActivationBytes, vitParts } from '../memory/vitActivationBytes';
import { add, dropout } from '../nn/activations';
import { checkpoint } from '../nn/checkpoint';
import type { ForwardContext } from '../nn/context';
import { LayerNorm } from '../nn/layerNorm';
import { Linear } from '../nn/linear';
import { mlp } from '../nn/mlp';
import { addToEach, cutPatches, PatchProjection, prependTokens } from '../nn/patchEmbedding';
import { selectRows } from '../nn/select';
import { selfAttention } from '../nn/selfAttention';
import type { Parameter } from '../tape/parameter';
import type { Variable } from '../tape/tape';
import { checkLabels, labelledLoss } from './classificationHead';
import { type ActivationPlan, type BatchShape, drawParameter, type HostWeights, type ImageBatch, initialWeights, Model, type ModelOutput, type ParameterSpec } from './model';
import { resizePositions } from './positions';
import type { FromPretrainedOptions, SavesItself } from './pretrained';

/** Options of `ViTForImageClassification.fromPretrained`. */
export interface ViTFromPretrainedOptions extends FromPretrainedOptions {
  /** Height and width of the images. Default: the checkpoint's. For another size its position embeddings are interpolated, and `onNotice` is told. */
  readonly imageSize?: number;
}

/** Parameters of ViT (or DeiT) with a classification head, in model order. */
export function imageClassificationSpecs(c: ViTConfig): ParameterSpec[] {
  const { hiddenSize: H, intermediateSize: F, patchSize: P, modelType: base } = c;
  const linear = (name: string, out: number, inp: number): ParameterSpec[] => [
    { name: `${name}.weight`, shape: [out, inp], kind: 'linear', init: 'normal' },
    { name: `${name}.bias`, shape: [out], kind: 'bias', init: 'zeros' },
  ];
  const norm = (name: string, alwaysTrains = false): ParameterSpec[] => [
    { name: `${name}.weight`, shape: [H], kind: 'layer-norm', init: 'ones', alwaysTrains },
    { name: `${name}.bias`, shape: [H], kind: 'bias', init: 'zeros' },
  ];
  const token = (name: string, count: number): ParameterSpec => ({ name: `${base}.embeddings.${name}`, shape: [1, count, H], kind: 'embedding', init: 'normal' });
  const projection = `${base}.embeddings.patch_embeddings.projection`;
  const layer = (i: number): ParameterSpec[] => {
    const p = `${base}.encoder.layer.${i}`;
    return [
      ...['query', 'key', 'value'].flatMap((n) => linear(`${p}.attention.attention.${n}`, H, H)),
      ...linear(`${p}.attention.output.dense`, H, H),
      ...linear(`${p}.intermediate.dense`, F, H),
      ...linear(`${p}.output.dense`, H, F),
      ...norm(`${p}.layernorm_before`),
      ...norm(`${p}.layernorm_after`),
    ];
  };
  return [
    token('cls_token', 1),
    ...(base === 'deit' ? [token('distillation_token', 1)] : []),
    token('position_embeddings', vitTokens(c)),
    { name: `${projection}.weight`, shape: [H, c.numChannels, P, P], kind: 'patch-projection', init: 'normal' },
    { name: `${projection}.bias`, shape: [H], kind: 'bias', init: 'zeros' },
    ...Array.from({ length: c.numHiddenLayers }, (_, i) => layer(i)).flat(),
    ...norm(`${base}.layernorm`, true),
    ...linear('classifier', c.numLabels, H),
  ];
}

/** One encoder layer's parts: each half normalises first and adds its input afterwards. */
class ViTLayer {
  private readonly query: Linear;
  private readonly key: Linear;
  private readonly value: Linear;
  private readonly attentionOutput: Linear;
  private readonly up: Linear;
  private readonly down: Linear;
  private readonly before: LayerNorm;
  private readonly after: LayerNorm;

  constructor(
    private readonly name: string,
    linear: (name: string) => Linear,
    norm: (name: string) => LayerNorm,
    private readonly config: ViTConfig,
  ) {
    this.query = linear(`${name}.attention.attention.query`);
    this.key = linear(`${name}.attention.attention.key`);
    this.value = linear(`${name}.attention.attention.value`);
    this.attentionOutput = linear(`${name}.attention.output.dense`);
    this.up = linear(`${name}.intermediate.dense`);
    this.down = linear(`${name}.output.dense`);
    this.before = norm(`${name}.layernorm_before`);
    this.after = norm(`${name}.layernorm_after`);
  }

  /** x [B, T, H] → [B, T, H]; every temporary that backward does not need is freed as soon as it was used. */
  forward(ctx: ForwardContext, x: Variable): Variable {
    const { engine } = ctx;
    const { config: c } = this;
    const { linearInput } = ctx.scheme;
    const attended = engine.scope(() => {
      const context = engine.scope(() => {
        const [q, k, v] = engine.scope(() => {
          const h = this.before.forward(ctx, x);
          return [this.query, this.key, this.value].map((projection) => projection.forward(ctx, h, linearInput));
        });
        return selfAttention(ctx, q, k, v, {
          name: `${this.name}.attention.attention`,
          heads: c.numAttentionHeads,
          dropout: c.attentionProbsDropoutProb,
        });
      });
      return add(ctx, dropout(ctx, this.attentionOutput.forward(ctx, context, linearInput), c.hiddenDropoutProb), x);
    });
    const y = engine.scope(() => {
      const out = engine.scope(() => mlp(ctx, this.after.forward(ctx, attended), { name: `${this.name}.intermediate`, up: this.up, down: this.down }));
      return add(ctx, dropout(ctx, out, c.hiddenDropoutProb), attended);
    });
    engine.free(attended.tensor);
    return y;
  }
}

/** ViT or DeiT with a linear head on the class token: class indices (cross-entropy), or one score (squared error). */
export class ViTForImageClassification extends Model<ImageBatch> {
  private readonly tokens: readonly Parameter[];
  private readonly positions: Parameter;
  private readonly projection: PatchProjection;
  private readonly encoder: readonly ViTLayer[];
  private readonly finalNorm: LayerNorm;
  private readonly classifier: Linear;

  /**
   * Loads a Hugging Face folder of `model_type` vit or deit. A head that the checkpoint lacks, or of another size than `numLabels` or `labels` ask for, is drawn afresh, and `onNotice` is told.
   * @throws FileMissingError, CheckpointError, CheckpointKeysError, ShapeError, UnsupportedModelError; nothing is left on the device then
   */
  static async fromPretrained(folder: string, options: ViTFromPretrainedOptions = {}): Promise<ViTForImageClassification> {
    const { seed = 43, onNotice = (t: string) => console.warn(`slimfit: ${t}`) } = options;
    const stored = parseViTConfig(readConfig(folder));
    const config = withOptions(stored, options);
    const specs = imageClassificationSpecs(config);
    const positions = `${config.modelType}.embeddings.position_embeddings`;
    let resized = false;
    const { weights, fresh, ignored } = await readWeights(folder, specs, `${config.modelType}.`, {
      isHead: (n) => n.startsWith('classifier.'),
      isOtherHead: (n) => /^((vit|deit)\.)?pooler\.|^(cls|distillation)_classifier\.|^decoder\./.test(n),
      replaceHead: options.numLabels !== undefined || options.labels !== undefined,
      adapt: (name, { shape, data }) => {
        if (name !== positions || shape.length !== 3 || shape[2] !== config.hiddenSize || config.imageSize === stored.imageSize) return undefined;
        resized = true;
        return resizePositions(Float32Array.from(data), config.hiddenSize, vitTokens(config) - (config.imageSize / config.patchSize) ** 2, config.imageSize / config.patchSize);
      },
    });
    for (const spec of specs) if (fresh.includes(spec.name)) weights.set(spec.name, { shape: spec.shape, data: drawParameter(spec, config.initializerRange, seed) });
    if (resized) onNotice(`position embeddings of ${folder} interpolated from ${stored.imageSize} to ${config.imageSize} pixels`);
    if (fresh.length > 0) onNotice(`drawn afresh, since ${folder} has none that fit: ${fresh.join(', ')}`);
    if (ignored.length > 0) onNotice(`of ${folder}, not used by this model: ${ignored.join(', ')}`);
    return new ViTForImageClassification(options.engine ?? (await chooseEngine()), config, weights);
  }

  /** A fresh model of the shape that a folder's config.json describes; its weights, if any, are not read. */
  static async fromConfigFolder(folder: string, options: ViTFromPretrainedOptions = {}): Promise<ViTForImageClassification> {
    const config = withOptions(parseViTConfig(readConfig(folder)), options);
    return ViTForImageClassification.fresh(options.engine ?? (await chooseEngine()), config, options.seed);
  }

  /** A fresh model: weights, tokens and positions N(0, initializerRange²), biases 0, norms 1. */
  static fresh(engine: Engine, config: ViTConfig, seed = 43): ViTForImageClassification {
    return new ViTForImageClassification(engine, config, initialWeights(imageClassificationSpecs(config), config.initializerRange, seed));
  }

  constructor(
    engine: Engine,
    readonly config: ViTConfig,
    weights: HostWeights,
  ) {
    super(engine, imageClassificationSpecs(config), weights);
    const base = config.modelType;
    const linear = (name: string) => new Linear(name, this.parameter(`${name}.weight`), this.parameter(`${name}.bias`));
    const norm = (name: string) => new LayerNorm(name, this.parameter(`${name}.weight`), this.parameter(`${name}.bias`), config.layerNormEps);
    const projection = `${base}.embeddings.patch_embeddings.projection`;
    this.tokens = ['cls_token', ...(base === 'deit' ? ['distillation_token'] : [])].map((n) => this.parameter(`${base}.embeddings.${n}`));
    this.positions = this.parameter(`${base}.embeddings.position_embeddings`);
    this.projection = new PatchProjection(projection, this.parameter(`${projection}.weight`), this.parameter(`${projection}.bias`));
    this.encoder = Array.from({ length: config.numHiddenLayers }, (_, i) => new ViTLayer(`${base}.encoder.layer.${i}`, linear, norm, config));
    this.finalNorm = norm(`${base}.layernorm`);
    this.classifier = linear('classifier');
  }

  /** Whether the head predicts one score instead of classes. */
  get isRegression(): boolean {
    return this.config.numLabels === 1;
  }

  override countOf({ batchSize }: BatchShape<ImageBatch>): { examples: number; tokens: number } {
    return { examples: batchSize, tokens: batchSize * vitTokens(this.config) };
  }

  override predictActivations({ batchSize }: BatchShape<ImageBatch>, { mode, trains, frozenBiases, gradientCheckpointing }: ActivationPlan): ActivationPrediction {
    return byPart(vitActivationBytes({ config: this.config, batchSize, mode, trains, frozenBiases, gradientCheckpointing }));
  }

  override freezingSaves({ batchSize }: BatchShape<ImageBatch>, plan: ActivationPlan, weights: readonly string[]): Float64Array {
    return savedByFreezing(vitParts({ config: this.config, batchSize }), plan.mode, plan, weights);
  }

  /** Writes a folder that Hugging Face's library loads: config.json, model.safetensors, and the image processor's settings if they are given. */
  async savePretrained(folder: string, processor?: SavesItself): Promise<void> {
    await writeFolder(folder, this.configJson(), this.specs, (name) => this.readWeight(name));
    processor?.save(folder);
  }

  configJson(): Readonly<Record<string, unknown>> {
    return serializeViTConfig(this.config, this.config.modelType === 'deit' ? 'DeiTForImageClassification' : 'ViTForImageClassification');
  }

  /** Logits [B, numLabels] of images [B, channels, imageSize, imageSize]. @throws ShapeError */
  forward(ctx: ForwardContext, batch: ImageBatch): Variable {
    const { engine, tape } = ctx;
    const { config: c } = this;
    const { batchSize: B, channels, height, width } = batch;
    if (channels !== c.numChannels || height !== c.imageSize || width !== c.imageSize)
      throw new ShapeError(`images of ${channels}×${height}×${width}, but the model takes ${c.numChannels}×${c.imageSize}×${c.imageSize}: resize them, or load the model with imageSize`);
    let x = engine.scope(() => {
      const embedded = addToEach(ctx, prependTokens(ctx, this.tokens, this.projection.forward(ctx, this.uploadPatches(batch))), this.positions);
      return dropout(ctx, embedded, c.hiddenDropoutProb);
    });
    for (const [i, layer] of this.encoder.entries()) {
      const name = `${c.modelType}.encoder.layer.${i}`;
      const y = checkpoint(ctx, x, { name, parameters: this.parametersOf(name), forward: (again, v) => layer.forward(again, v) });
      engine.free(x.tensor);
      x = y;
    }
    const first = engine.upload(Int32Array.from({ length: B }, (_, i) => i * vitTokens(c)), [B]);
    tape.holdUntilBackward(first);
    // The head sees the class token only, so the rest need not be normalised.
    return engine.scope(() => {
      const token = selectRows(ctx, x, first);
      engine.free(x.tensor);
      return this.classifier.forward(ctx, this.finalNorm.forward(ctx, token));
    });
  }

  /** The images' patches on the device, [B, n, C·P·P]. @throws ShapeError */
  protected uploadPatches({ pixelValues, batchSize: B, channels, height, width }: ImageBatch): DeviceTensor {
    if (B < 1 || pixelValues.length !== B * channels * height * width)
      throw new ShapeError(`pixelValues has ${pixelValues.length} values, expected ${B}·${channels}·${height}·${width}, of at least 1 image`);
    const { patchSize: P } = this.config;
    return this.engine.upload(cutPatches(pixelValues, [B, channels, height, width], P), [B, (height / P) * (width / P), channels * P ** 2]);
  }

  forwardWithLoss(ctx: ForwardContext, batch: ImageBatch): ModelOutput {
    checkLabels(batch, this.config.numLabels);
    const logits = this.forward(ctx, batch);
    return { loss: labelledLoss(ctx, logits, batch), logits };
  }
}

/** A checkpoint's config with the labels and the image size that the options ask for. */
function withOptions(stored: ViTConfig, options: ViTFromPretrainedOptions): ViTConfig {
  const { labels, imageSize = stored.imageSize } = options;
  const numLabels = options.numLabels ?? labels?.length ?? stored.numLabels;
  if (!(Number.isInteger(numLabels) && numLabels >= 1)) throw new InvalidArgumentError(`numLabels is ${numLabels}; it must be a whole number of at least 1`);
  if (!(Number.isInteger(imageSize) && imageSize >= 1 && imageSize % stored.patchSize === 0))
    throw new InvalidArgumentError(`imageSize is ${imageSize}; it must be a multiple of the patches' ${stored.patchSize} pixels`);
  const id2label = labels ? Object.fromEntries(labels.map((l, i) => [i, l])) : numLabels === stored.numLabels ? stored.id2label : defaultLabels(numLabels);
  return { ...stored, imageSize, numLabels, id2label };
}
