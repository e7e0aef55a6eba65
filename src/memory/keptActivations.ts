/**
 * What the parts of a transformer keep between forward and backward, from shapes alone. Written apart from the tape, so that each can check the other, entry by entry. N = B·T tokens, H hidden, F MLP
 * width, A heads. With biases that always train, an encoder layer keeps 32NH + 8NF + 4BAT² + 16N in plain fine-tuning; under SlimFit 3NH + BAT² + NF/2, plus what its training layers add (paper
 * §3.2–3.3, Table 1). With biases that freeze with their weight, nothing is kept below the lowest weight that trains: each part says whether its output still needs a gradient.
 */
import { type CodeEncoding, codesOf, FIXED_POINT, ROW_SCALED } from '../engine/engine';
import type { ActivationEncoding, ActivationRole } from '../tape/roles';
import { type ActivationMode, type ActivationScheme, schemeOf } from '../tape/scheme';

/** One activation that a step will keep: an entry of the ledger, foreseen. */
export interface PlannedActivation {
  /** 'embeddings', 'layer 0', …, 'head'. */
  readonly part: string;
  /** Hugging Face module name that keeps it. */
  readonly layer: string;
  readonly what: string;
  readonly role: ActivationRole;
  readonly encoding: ActivationEncoding;
  readonly bytes: number;
}

/** Which weights train, what that means for biases, and whether layers are run again. */
export interface TrainingSet {
  /** Whether a weight, by Hugging Face name, trains. */
  readonly trains: (name: string) => boolean;
  /** Whether a bias trains only when its weight does; default false: every bias trains, as in the paper, so that backward runs down to the embeddings. */
  readonly frozenBiases?: boolean;
  /** Whether of an encoder layer only its input is kept, 4NH, and that only if its output needs a gradient (nn/checkpoint.ts); default false. */
  readonly gradientCheckpointing?: boolean;
}

/** Attention's modules and sizes. */
export interface PlannedAttention {
  /** Modules of the three projections. */
  readonly query: string;
  readonly key: string;
  readonly value: string;
  /** Module that keeps the operands. */
  readonly attention: string;
  readonly batchSize: number;
  readonly tokens: number;
  readonly hiddenSize: number;
  readonly heads: number;
}

/** A tensor that several parts may keep: in each encoding it counts for the first of them. */
export class PlannedTensor {
  constructor(
    /** Elements. */
    readonly size: number,
    /** Elements of a row. */
    readonly width: number,
    /** Whether a gradient flows into it. */
    readonly needsGrad: boolean,
    /** Encodings in which it is kept already. */
    readonly kept = new Set<CodeEncoding | 'float32'>(),
  ) {}

  copy(): PlannedTensor {
    return new PlannedTensor(this.size, this.width, this.needsGrad, new Set(this.kept));
  }

  /** Whether what reads the one keeps what it would keep of the other. */
  like({ needsGrad, kept }: PlannedTensor): boolean {
    return needsGrad === this.needsGrad && kept.size === this.kept.size && [...kept].every((e) => this.kept.has(e));
  }
}

/** Codes are packed into whole 32-bit words. */
const words = (bytes: number): number => 4 * Math.ceil(bytes / 4);

/** Bytes of so many elements in an encoding, in rows of `width`. */
export function encodedBytes(size: number, width: number, encoding: CodeEncoding | 'float32'): number {
  if (encoding === 'float32') return 4 * size;
  const steps = encoding in ROW_SCALED ? 4 * (size / width) : 0;
  return words(Math.ceil((size * FIXED_POINT[codesOf(encoding)].bits) / 8)) + steps;
}

/** A part of a model, 'embeddings', 'layer 0', … or 'head': notes what it keeps; x [N, H] → [N, H], nothing for the first. */
export type PlannedPart = (kept: KeptActivations, x: PlannedTensor) => PlannedTensor;

/** Runs all parts of a model in turn. */
export function keptBy(parts: readonly PlannedPart[], mode: ActivationMode | ActivationScheme, training: TrainingSet): KeptActivations {
  const kept = new KeptActivations(mode, training);
  parts.reduce((x, part) => part(kept, x), NOTHING);
  return kept;
}

/** What the first part reads. */
const NOTHING = new PlannedTensor(0, 1, false);

/**
 * Of each of these weights, bytes that freezing it saves, all others being as they are: |bytes kept were it otherwise − bytes kept|. Only the part that asks whether the weight trains is run again, and those
 * behind it as long as what they read is no longer the same, so that all weights of BERT-base together take about as long as ten predictions.
 */
export function savedByFreezing(parts: readonly PlannedPart[], mode: ActivationMode | ActivationScheme, training: TrainingSet, weights: readonly string[]): Float64Array {
  let flipped: string | undefined;
  let running = 0;
  /** First and last part that asks about a weight. Of one that none asks about nothing depends, as long as the others are as they are. */
  const asked = new Map<string, { readonly first: number; last: number }>();
  const trains = (name: string): boolean => {
    if (flipped !== undefined) return training.trains(name) !== (name === flipped);
    const known = asked.get(name);
    if (known) known.last = running;
    else asked.set(name, { first: running, last: running });
    return training.trains(name);
  };
  const kept = new KeptActivations(mode, { ...training, trains });
  const run = (part: number, x: PlannedTensor) => {
    running = part;
    kept.entries.length = 0;
    const y = parts[part](kept, x.copy());
    return { y, bytes: kept.bytes() };
  };
  const inputs = [NOTHING];
  const bytes = parts.map((_, i) => {
    const { y, bytes: own } = run(i, inputs[i]);
    inputs.push(y);
    return own;
  });
  return Float64Array.from(weights, (name) => {
    const at = asked.get(name);
    if (!at) return 0;
    flipped = name;
    let change = 0;
    let x = inputs[at.first];
    for (let i = at.first; i < parts.length && (i <= at.last || !x.like(inputs[i])); i++) {
      const { y, bytes: own } = run(i, x);
      change += own - bytes[i];
      x = y;
    }
    return Math.abs(change);
  });
}

/** Gathers what a model keeps, part by part in the order of forward. */
export class KeptActivations {
  readonly scheme: ActivationScheme;
  readonly entries: PlannedActivation[] = [];
  private part = 'embeddings';

  constructor(
    mode: ActivationMode | ActivationScheme,
    private readonly training: TrainingSet,
  ) {
    this.scheme = schemeOf(mode);
  }

  /** What follows belongs to this part of the model. */
  begin(part: string): void {
    this.part = part;
  }

  /** An encoder layer: `parts` says what its parts keep; with gradient checkpointing that is not kept but the layer's input. */
  layer(index: number, module: string, x: PlannedTensor, parts: (x: PlannedTensor) => PlannedTensor): PlannedTensor {
    this.begin(`layer ${index}`);
    if (!this.training.gradientCheckpointing) return parts(x);
    const before = this.entries.length;
    const y = parts(new PlannedTensor(x.size, x.width, x.needsGrad));
    this.entries.length = before;
    if (y.needsGrad) this.keep(module, 'layer input', 'static', 'float32', x);
    return y;
  }

  /** Whether a weight trains. */
  trains(name: string): boolean {
    return this.training.trains(name);
  }

  /** Whether a module's bias trains, or its weight. */
  moves(module: string): boolean {
    return !this.training.frozenBiases || this.trains(`${module}.weight`);
  }

  /** x [N, K] → [N, width]; the input is *dynamic*. */
  linear(module: string, x: PlannedTensor, width: number, encoding: CodeEncoding | 'float32' = 'float32', what = 'input'): PlannedTensor {
    if (this.trains(`${module}.weight`)) this.keep(module, what, 'dynamic', encoding, x);
    return new PlannedTensor((x.size / x.width) * width, width, x.needsGrad || this.moves(module));
  }

  /** A LayerNorm over the rows of x: *quasi-static*. */
  layerNorm(module: string, x: PlannedTensor, alwaysTrains = false): PlannedTensor {
    const trains = alwaysTrains || this.trains(`${module}.weight`);
    const y = new PlannedTensor(x.size, x.width, x.needsGrad || alwaysTrains || this.moves(module));
    if (!y.needsGrad) return y;
    const { frozenLayerNormShare: share, layerNormStatistics, normalizedValues } = this.scheme;
    const role = 'quasi-static';
    const rows = 4 * (x.size / x.width);
    if (normalizedValues !== undefined) {
      this.keep(module, 'normalised values', role, normalizedValues, y);
      this.add(module, 'row statistics', role, 'float32', rows);
      return y;
    }
    if (share !== undefined && !trains) {
      this.add(module, 'largest normalised values', role, 'top10', 8 * Math.floor(share * x.size));
      this.add(module, 'row statistics', role, 'float32', rows);
      return y;
    }
    this.keep(module, 'input', role, 'float32', x);
    if (layerNormStatistics === 'kept') for (const what of ['row means', 'row statistics']) this.add(module, what, role, 'float32', rows);
    return y;
  }

  /** The three projections of x [B·T, H] and attention over them. */
  attention({ query, key, value, attention, batchSize: B, tokens: T, hiddenSize: H, heads: A }: PlannedAttention, x: PlannedTensor): PlannedTensor {
    const { attentionOperands, attentionProbs } = this.scheme;
    const [q, k, v] = [query, key, value].map((module) => this.linear(module, x, H, this.scheme.linearInput).needsGrad);
    const operand = (what: string) => this.keep(attention, what, 'static', attentionOperands, new PlannedTensor(x.size, H / A, true));
    const again = attentionProbs === 'recompute';
    if (q || k || v) {
      // Where a gradient stops here, v serves those of q and k only, k that of q, q that of k.
      if (again || k) operand('query');
      if (again || q) operand('key');
      if (!again) this.keep(attention, 'probabilities', 'static', attentionProbs, new PlannedTensor(B * A * T * T, T, true));
      if (q || k) operand('value');
    }
    return new PlannedTensor(x.size, H, q || k || v);
  }

  /** The MLP, F wide: its activation's input is *static*, those of its linear maps are *dynamic*; or its own input is *static*, and no other is kept. */
  mlp({ mlp, up, down }: { readonly mlp: string; readonly up: string; readonly down: string }, x: PlannedTensor, F: number): PlannedTensor {
    const { geluInput, linearInput, downProjectionInput } = this.scheme;
    const inner = x.needsGrad || this.moves(up);
    if (geluInput === 'recompute') {
      if (inner || this.trains(`${down}.weight`)) this.keep(mlp, 'MLP input', 'static', linearInput, x);
      return new PlannedTensor(x.size, x.width, inner || this.moves(down));
    }
    const a = this.linear(up, x, F, linearInput);
    if (inner) this.keep(mlp, 'GELU input', 'static', geluInput, a);
    return this.linear(down, new PlannedTensor(a.size, F, inner), x.width, downProjectionInput);
  }

  /** An activation whose derivative is a function of its output (tanh, ReLU): that is *static*, in float32. */
  fromOutput(module: string, what: string, x: PlannedTensor): PlannedTensor {
    const y = new PlannedTensor(x.size, x.width, x.needsGrad);
    if (x.needsGrad) this.keep(module, what, 'static', 'float32', y);
    return y;
  }

  /** A fresh tensor: a sum, or what dropout left. */
  sum(a: PlannedTensor, b: PlannedTensor = a): PlannedTensor {
    return new PlannedTensor(a.size, a.width, a.needsGrad || b.needsGrad);
  }

  /** Bytes of a part, or of all. */
  bytes(part?: string): number {
    return this.entries.reduce((sum, e) => (part === undefined || e.part === part ? sum + e.bytes : sum), 0);
  }

  private keep(layer: string, what: string, role: ActivationRole, encoding: CodeEncoding | 'float32', x: PlannedTensor): void {
    const shared = x.kept.has(encoding);
    x.kept.add(encoding);
    this.add(layer, what, role, encoding, shared ? 0 : encodedBytes(x.size, x.width, encoding));
  }

  private add(layer: string, what: string, role: ActivationRole, encoding: ActivationEncoding, bytes: number): void {
    this.entries.push({ part: this.part, layer, what, role, encoding, bytes });
  }
}
