/**
 * The encoder of BERT (Devlin et al. 2019) and of the architectures that compute the same under other names: post-norm layers of self-attention and MLP. Which name a part has, and
 * the little that differs, is in hub/textNames.ts. Dropout follows the scheme (see selfAttention.ts).
 */
import type { DeviceTensor } from '../engine/engine';
import type { TextConfig } from '../hub/config';
import { embeddingName, TEXT_NAMES } from '../hub/textNames';
import { add, dropout } from '../nn/activations';
import type { ForwardContext } from '../nn/context';
import type { LayerNorm } from '../nn/layerNorm';
import type { Linear } from '../nn/linear';
import { mlp } from '../nn/mlp';
import { selfAttention } from '../nn/selfAttention';
import type { Variable } from '../tape/tape';
import type { ParameterSpec } from './model';

/** Weight [out, inp] and bias of a linear map. */
export const weightAndBias = (name: string, out: number, inp: number): ParameterSpec[] => [
  { name: `${name}.weight`, shape: [out, inp], kind: 'linear', init: 'normal' },
  { name: `${name}.bias`, shape: [out], kind: 'bias', init: 'zeros' },
];

/** Weight and bias of a LayerNorm. */
export const normOf = (name: string, hidden: number): ParameterSpec[] => [
  { name: `${name}.weight`, shape: [hidden], kind: 'layer-norm', init: 'ones' },
  { name: `${name}.bias`, shape: [hidden], kind: 'bias', init: 'zeros' },
];

/** Parameters of embeddings and encoder without a head, in model order. */
export function encoderSpecs(c: TextConfig): ParameterSpec[] {
  const H = c.hiddenSize;
  const names = TEXT_NAMES[c.modelType];
  const table = (part: Parameters<typeof embeddingName>[1], rows: number, init: ParameterSpec['init'] = 'normal'): ParameterSpec => ({
    name: `${embeddingName(names, part)}.weight`,
    shape: [rows, H],
    kind: 'embedding',
    init,
  });
  const specs = [
    table('word_embeddings', c.vocabSize),
    table('position_embeddings', c.maxPositionEmbeddings, c.modelType === 'distilbert' && c.sinusoidalPosEmbds ? 'sinusoid' : 'normal'),
    ...(c.typeVocabSize > 0 ? [table('token_type_embeddings', c.typeVocabSize)] : []),
    ...normOf(embeddingName(names, 'LayerNorm'), H),
  ];
  for (let i = 0; i < c.numHiddenLayers; i++) {
    const at = (part: string) => `${names.layers}.${i}.${part}`;
    const { layer } = names;
    specs.push(
      ...weightAndBias(at(layer.query), H, H),
      ...weightAndBias(at(layer.key), H, H),
      ...weightAndBias(at(layer.value), H, H),
      ...weightAndBias(at(layer.attentionOutput), H, H),
      ...normOf(at(layer.attentionNorm), H),
      ...weightAndBias(at(layer.up), c.intermediateSize, H),
      ...weightAndBias(at(layer.down), H, c.intermediateSize),
      ...normOf(at(layer.outputNorm), H),
    );
  }
  return specs;
}

/** One encoder layer's parts. */
export class EncoderLayer {
  private readonly query: Linear;
  private readonly key: Linear;
  private readonly value: Linear;
  private readonly attentionOutput: Linear;
  private readonly attentionNorm: LayerNorm;
  private readonly up: Linear;
  private readonly down: Linear;
  private readonly outputNorm: LayerNorm;
  /** Modules that keep the operands of attention, and the GELU's input. */
  private readonly attention: string;
  private readonly mlp: string;
  private readonly attentionOutputDropout: number;

  constructor(
    index: number,
    linear: (name: string) => Linear,
    norm: (name: string) => LayerNorm,
    private readonly config: TextConfig,
  ) {
    const { layers, layer, attentionOutputDropout } = TEXT_NAMES[config.modelType];
    const at = (part: string) => `${layers}.${index}.${part}`;
    this.query = linear(at(layer.query));
    this.key = linear(at(layer.key));
    this.value = linear(at(layer.value));
    this.attentionOutput = linear(at(layer.attentionOutput));
    this.attentionNorm = norm(at(layer.attentionNorm));
    this.up = linear(at(layer.up));
    this.down = linear(at(layer.down));
    this.outputNorm = norm(at(layer.outputNorm));
    this.attention = at(layer.attention);
    this.mlp = at(layer.mlp);
    this.attentionOutputDropout = attentionOutputDropout ? config.hiddenDropoutProb : 0;
  }

  /** x [B, T, H] → [B, T, H]; every temporary that backward does not need is freed as soon as it was used. */
  forward(ctx: ForwardContext, x: Variable, mask: DeviceTensor | undefined): Variable {
    const { engine } = ctx;
    const { config: c } = this;
    const { linearInput } = ctx.scheme;
    const attended = engine.scope(() => {
      const sum = engine.scope(() => {
        const context = engine.scope(() =>
          selfAttention(ctx, this.query.forward(ctx, x, linearInput), this.key.forward(ctx, x, linearInput), this.value.forward(ctx, x, linearInput), {
            name: this.attention,
            heads: c.numAttentionHeads,
            dropout: c.attentionProbsDropoutProb,
            mask,
          }),
        );
        return add(ctx, dropout(ctx, this.attentionOutput.forward(ctx, context, linearInput), this.attentionOutputDropout), x);
      });
      return this.attentionNorm.forward(ctx, sum);
    });
    const y = engine.scope(() => {
      const sum = engine.scope(() => add(ctx, dropout(ctx, mlp(ctx, attended, { name: this.mlp, up: this.up, down: this.down }), c.hiddenDropoutProb), attended));
      return this.outputNorm.forward(ctx, sum);
    });
    engine.free(attended.tensor);
    return y;
  }
}
