/** `config.json` of a ViT or DeiT checkpoint, as Hugging Face writes it. Read strictly: a model that would compute something else is refused. */
import { UnsupportedModelError } from '../errors';
import { shown } from '../shown';
import { ConfigFields, MOST_LAYERS } from './configFields';

/** A vision transformer's shape and settings; Hugging Face's ViTConfig in camel case. */
export interface ViTConfig {
  /** `deit`: a distillation token stands behind the class token, and `deit.` before every name. */
  readonly modelType: 'vit' | 'deit';
  /** Height and width of the images in pixels. */
  readonly imageSize: number;
  /** Height and width of a patch in pixels; divides `imageSize`. */
  readonly patchSize: number;
  readonly numChannels: number;
  readonly hiddenSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly intermediateSize: number;
  readonly layerNormEps: number;
  readonly hiddenDropoutProb: number;
  readonly attentionProbsDropoutProb: number;
  /** Standard deviation of fresh weights. */
  readonly initializerRange: number;
  /** Outputs of the classification head; 1 is regression. */
  readonly numLabels: number;
  /** Name of each label, by index. */
  readonly id2label: Readonly<Record<number, string>>;
}

/** Every `model_type` that `parseViTConfig` reads. */
export const IMAGE_MODEL_TYPES = ['vit', 'deit'] as const;

/** Tokens of a sequence: the patches and the learned tokens before them. */
export function vitTokens(c: Pick<ViTConfig, 'imageSize' | 'patchSize' | 'modelType'>): number {
  return (c.imageSize / c.patchSize) ** 2 + (c.modelType === 'deit' ? 2 : 1);
}

/** Reads a Hugging Face config. @throws UnsupportedModelError naming the field */
export function parseViTConfig(json: Readonly<Record<string, unknown>>): ViTConfig {
  const fields = new ConfigFields(json);
  const modelType = fields.oneOf('model_type', IMAGE_MODEL_TYPES);
  fields.only('hidden_act', 'gelu', 'only the exact gelu is supported');
  fields.only('qkv_bias', true, 'projections without bias are not supported');
  const square = (key: string, fallback: number): number => {
    const v = json[key];
    if (Array.isArray(v) && v.length === 2 && v[0] === v[1]) return new ConfigFields({ [key]: v[0] }).count(key);
    if (Array.isArray(v)) throw new UnsupportedModelError(`config.json has ${key} ${shown(v)}; only squares are supported`);
    return fields.count(key, fallback);
  };
  const id2label = fields.labels();
  const config: ViTConfig = {
    modelType,
    imageSize: square('image_size', 224),
    patchSize: square('patch_size', 16),
    numChannels: fields.count('num_channels', 3),
    hiddenSize: fields.count('hidden_size', 768),
    numHiddenLayers: fields.count('num_hidden_layers', 12, MOST_LAYERS),
    numAttentionHeads: fields.count('num_attention_heads', 12),
    intermediateSize: fields.count('intermediate_size', 3072),
    layerNormEps: fields.positive('layer_norm_eps', 1e-12),
    hiddenDropoutProb: fields.share('hidden_dropout_prob', 0),
    attentionProbsDropoutProb: fields.share('attention_probs_dropout_prob', 0),
    initializerRange: fields.positive('initializer_range', 0.02),
    numLabels: Object.keys(id2label).length,
    id2label,
  };
  if (config.hiddenSize % config.numAttentionHeads !== 0)
    throw new UnsupportedModelError(`config.json has hidden_size ${config.hiddenSize}, which ${config.numAttentionHeads} attention heads do not divide`);
  if (config.imageSize % config.patchSize !== 0)
    throw new UnsupportedModelError(`config.json has image_size ${config.imageSize}, which patches of ${config.patchSize} do not divide`);
  return config;
}

/** Writes a Hugging Face config. @param architecture class name such as `ViTForImageClassification` */
export function serializeViTConfig(c: ViTConfig, architecture: string): Record<string, unknown> {
  return {
    architectures: [architecture],
    model_type: c.modelType,
    image_size: c.imageSize,
    patch_size: c.patchSize,
    num_channels: c.numChannels,
    hidden_size: c.hiddenSize,
    num_hidden_layers: c.numHiddenLayers,
    num_attention_heads: c.numAttentionHeads,
    intermediate_size: c.intermediateSize,
    hidden_act: 'gelu',
    qkv_bias: true,
    layer_norm_eps: c.layerNormEps,
    hidden_dropout_prob: c.hiddenDropoutProb,
    attention_probs_dropout_prob: c.attentionProbsDropoutProb,
    initializer_range: c.initializerRange,
    encoder_stride: c.patchSize,
    id2label: c.id2label,
    label2id: Object.fromEntries(Object.entries(c.id2label).map(([i, l]) => [l, Number(i)])),
    ...(c.numLabels === 1 ? { problem_type: 'regression' } : {}),
    torch_dtype: 'float32',
  };
}
