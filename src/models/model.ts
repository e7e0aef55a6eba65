/** What every model is to those above it: named parameters on an engine, freezable layers, and a forward pass. */
import type { DeviceTensor, Engine } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import type { FreezableLayer, LayerKind } from '../freezing/layer';
import type { ForwardContext } from '../nn/context';
import type { ActivationPrediction } from '../memory/activationBytes';
import type { TrainingSet } from '../memory/keptActivations';
import { Parameter } from '../tape/parameter';
import type { ActivationMode, ActivationScheme } from '../tape/scheme';
import type { Variable } from '../tape/tape';
import { Random } from '../random';

/** One parameter of an architecture: its Hugging Face name, shape, and how a fresh one is drawn. */
export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
  /** `bias`: never frozen in paper mode, with its weight where the trainer has `frozenBiases`; the others are freezable layers unless `alwaysTrains`. */
  readonly kind: LayerKind | 'bias';
  readonly init: 'normal' | 'ones' | 'zeros' | 'sinusoid';
  /** Not among the freezable layers although it is a weight (ViT's final LayerNorm). */
  readonly alwaysTrains?: boolean;
}

/** A batch of any kind: what evaluation needs of it. */
export interface LabelledBatch {
  readonly labels: Int32Array | Float32Array;
  readonly batchSize: number;
}

/** The numbers of a batch without its contents: of a TextBatch `batchSize` and `length`, of an ImageBatch `batchSize`, `channels`, `height` and `width`. */
export type BatchShape<Batch> = { readonly [K in keyof Batch as Batch[K] extends number ? K : never]: Batch[K] };

/** Tokenized text on the host; every array is row-major [batchSize, length]. */
export interface TextBatch extends LabelledBatch {
  readonly inputIds: Int32Array;
  readonly tokenTypeIds: Int32Array;
  /** 1 for a real token, 0 for padding. */
  readonly attentionMask: Int32Array;
  /**
   * Class indices [batchSize]; scores (Float32Array) for regression; token ids [batchSize, length] with −100 elsewhere for masked LM; first and last token of the answer
   * [batchSize, 2] for question answering.
   */
  readonly labels: Int32Array | Float32Array;
  readonly batchSize: number;
  readonly length: number;
}

/** Images on the host, ready for the model. */
export interface ImageBatch extends LabelledBatch {
  /** float32 [batchSize, channels, height, width], row-major, resized and normalised. */
  readonly pixelValues: Float32Array;
  /** Class indices [batchSize]; scores (Float32Array) for regression. */
  readonly labels: Int32Array | Float32Array;
  readonly batchSize: number;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

/** Examples that can be made into batches by their numbers. */
export interface BatchSource<Batch> {
  /** Number of examples. */
  readonly size: number;
  /**
   * Makes the batch of these examples, now or when it is decoded.
   * @param epoch pass over the data, from 0: what is drawn at random (augmentation) depends on the example and this alone, so that a run repeats; undefined in evaluation
   */
  batch(indices: ArrayLike<number>, epoch?: number): Batch | Promise<Batch>;
  /** The shape that this batch will have, without making it. Without this method `peek()` makes the batch. */
  shape?(indices: ArrayLike<number>): BatchShape<Batch>;
  /** Told which batch will be asked for next, so that decoding runs ahead of training. */
  prefetch?(indices: ArrayLike<number>, epoch?: number): void;
}

/** What `evaluate` hands to the metric. */
export interface Predictions {
  /** [examples, numLabels], row-major. */
  readonly logits: Float32Array;
  readonly numLabels: number;
  readonly labels: Int32Array | Float32Array;
}

/** Result of a forward pass with labels. The caller frees both tensors. */
export interface ModelOutput {
  readonly loss: Variable;
  readonly logits: Variable;
}

/** What decides how many bytes a step keeps, beside the shapes. */
export interface ActivationPlan extends TrainingSet {
  readonly mode: ActivationMode | ActivationScheme;
  readonly dropout: boolean;
}

/** Float32 values by parameter name. */
export type HostWeights = ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: Float32Array }>;

/** The freezable layers of an architecture, in model order. @param alwaysTrain weights that a run trains in every step, by name */
export function freezableLayersOf(specs: readonly ParameterSpec[], alwaysTrain: readonly string[] = []): FreezableLayer[] {
  return specs
    .filter((s) => s.kind !== 'bias' && !s.alwaysTrains && !alwaysTrain.includes(s.name))
    .map((s, index) => ({ index, name: s.name, kind: s.kind as LayerKind, shape: s.shape, parameters: s.shape.reduce((a, b) => a * b, 1) }));
}

/** Name of the weight that a bias belongs to; another name stays as it is. */
export function weightOfBias(name: string): string {
  return name.replace(/\.bias$/, '.weight');
}

/** A model: parameters on one engine, and forward passes over batches of one kind. Owns its weights: `dispose` frees them. */
export abstract class Model<Batch extends LabelledBatch = TextBatch> {
  readonly parameters: ReadonlyMap<string, Parameter>;
  /** Parameters of the modules that were asked for: every forward pass asks. */
  private readonly byModule = new Map<string, readonly Parameter[]>();
  /** All freezable layers in model order. */
  readonly layers: readonly FreezableLayer[];

  constructor(
    readonly engine: Engine,
    readonly specs: readonly ParameterSpec[],
    weights: HostWeights,
  ) {
    const parameters = new Map<string, Parameter>();
    try {
      for (const { name, shape } of specs) {
        const w = weights.get(name);
        if (!w) throw new InvalidArgumentError(`no weights for parameter ${name}`);
        parameters.set(name, new Parameter(name, engine.upload(w.data, shape, 'weights')));
      }
    } catch (error) {
      for (const p of parameters.values()) engine.free(p.data);
      throw error;
    }
    this.parameters = parameters;
    this.layers = freezableLayersOf(specs);
  }

  /** Class logits (or scores) of a batch. @throws SequenceTooLongError */
  abstract forward(ctx: ForwardContext, batch: Batch): Variable;

  /** Logits and mean loss of a labelled batch. @throws LabelError, SequenceTooLongError; nothing was computed then. */
  abstract forwardWithLoss(ctx: ForwardContext, batch: Batch): ModelOutput;

  /** How many terms the mean loss of a batch is over, which is its weight beside other micro-batches of a step: here its examples. */
  lossTerms(batch: Batch): number {
    return batch.batchSize;
  }

  /** Tables that are looked up by id and used in no other way, by parameter name, with the ids that a batch looks up: their gradients are of these rows alone (`markTouchedRows`). None by default. */
  lookups(_batch: Batch): ReadonlyMap<string, Int32Array> {
    return new Map();
  }

  /** What `config.json` says of this model, as Hugging Face's library reads it. */
  abstract configJson(): Readonly<Record<string, unknown>>;

  /** Examples and tokens (padding included) of a batch. */
  abstract countOf(batch: BatchShape<Batch>): { examples: number; tokens: number };

  /**
   * Bytes that a training step on a batch of this shape would keep between forward and backward, from shapes alone; undefined for an architecture whose formula is not written.
   * @param plan how activations are kept, whether dropout acts, which weights (by Hugging Face name) train, whether biases freeze with them, and whether layers are run again in backward
   */
  predictActivations(_shape: BatchShape<Batch>, _plan: ActivationPlan): ActivationPrediction | undefined {
    return undefined;
  }

  /**
   * Bytes that freezing each of these weights saves in such a step, the others being as `plan` says: what is saved if it is frozen, what its training costs if not; undefined where `predictActivations` is.
   * @param weights Hugging Face names
   */
  freezingSaves(shape: BatchShape<Batch>, plan: ActivationPlan, weights: readonly string[]): Float64Array | undefined {
    const now = this.predictActivations(shape, plan)?.total;
    if (now === undefined) return undefined;
    return Float64Array.from(weights, (weight) => Math.abs(this.predictActivations(shape, { ...plan, trains: (name) => plan.trains(name) !== (name === weight) })!.total - now));
  }

  /** Copies one parameter's values to the host. @throws InvalidArgumentError for a name that is none's */
  async readWeight(name: string): Promise<Float32Array> {
    return (await this.engine.read(this.parameter(name).data)) as Float32Array;
  }

  /** Copies all weights to the host. */
  async weights(): Promise<Map<string, { shape: readonly number[]; data: Float32Array }>> {
    const out = new Map<string, { shape: readonly number[]; data: Float32Array }>();
    for (const p of this.parameters.values()) out.set(p.name, { shape: p.shape, data: await this.readWeight(p.name) });
    return out;
  }

  /** Frees the weights. The model cannot be used afterwards. */
  dispose(): void {
    for (const p of this.parameters.values()) if (!p.data.freed) this.engine.free(p.data);
  }

  /** All parameters of a module. */
  protected parametersOf(module: string): readonly Parameter[] {
    let own = this.byModule.get(module);
    if (!own) this.byModule.set(module, (own = [...this.parameters.values()].filter((p) => p.name.startsWith(`${module}.`))));
    return own;
  }

  protected parameter(name: string): Parameter {
    const p = this.parameters.get(name);
    if (!p) throw new InvalidArgumentError(`this model has no parameter ${name}`);
    return p;
  }
}

/** Draws fresh weights: N(0, std²), ones, zeros or a sinusoid, by a seeded stream of each parameter's own, so that adding one changes no other. */
export function initialWeights(specs: readonly ParameterSpec[], std: number, seed: number): Map<string, { shape: readonly number[]; data: Float32Array }> {
  return new Map(specs.map((s) => [s.name, { shape: s.shape, data: drawParameter(s, std, seed) }]));
}

/** One fresh parameter. */
export function drawParameter(spec: ParameterSpec, std: number, seed: number): Float32Array {
  const data = new Float32Array(spec.shape.reduce((a, b) => a * b, 1));
  if (spec.init === 'ones') data.fill(1);
  if (spec.init === 'sinusoid') {
    // sin and cos of pos/10000^(2·floor(j/2)/H) in turn (Vaswani et al. 2017, §3.5).
    const H = spec.shape[1];
    for (let i = 0; i < data.length; i++) {
      const j = i % H;
      const angle = Math.floor(i / H) / 10000 ** ((2 * Math.floor(j / 2)) / H);
      data[i] = j % 2 === 0 ? Math.sin(angle) : Math.cos(angle);
    }
  }
  if (spec.init === 'normal') {
    let h = seed >>> 0;
    for (const ch of spec.name) h = (Math.imul(h ^ ch.charCodeAt(0), 0x01000193) + 0x9e3779b9) >>> 0;
    const random = new Random(h);
    for (let i = 0; i < data.length; i++) data[i] = std * random.normal();
  }
  return data;
}

/** Additive attention mask [B, 1, 1, T]: 0 for a real token, −10000 for padding; undefined when no token is padding. */
export function uploadMask(engine: Engine, attentionMask: Int32Array, batchSize: number, length: number): DeviceTensor | undefined {
  if (attentionMask.every((m) => m === 1)) return undefined;
  return engine.upload(Float32Array.from(attentionMask, (m) => (1 - m) * -10000), [batchSize, 1, 1, length]);
}
