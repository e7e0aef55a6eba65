/**
 * How far the gradient of a step is from the one that exact activations would give: two backward passes over one batch, the same layers training, the same dropout; only what
 * backward reads differs (paper §3.2). Compared on the device, parameter by parameter.
 */
import { type ColumnTable, table } from 'arquero';
import type { DeviceTensor, Engine } from '../engine/engine';
import { type MicroBatch, microBatches } from '../models/microBatches';
import type { LabelledBatch, Model } from '../models/model';
import type { ForwardContext } from '../nn/context';
import { GradientSums } from '../tape/gradientSums';
import { type ActivationScheme, SCHEMES } from '../tape/scheme';
import { unscaled } from './lossScale';

/** The gradient of one parameter under one scheme, against the exact one. */
export interface GradientError {
  /** Which encodings act. */
  readonly encodings: string;
  /** Hugging Face name of the parameter. */
  readonly parameter: string;
  /** ‖g‖ of the exact gradient. */
  readonly exactNorm: number;
  /** ‖g'‖ of the gradient under the encodings. */
  readonly norm: number;
  /** ‖g' − g‖ / ‖g‖. */
  readonly relativeError: number;
  /** Cosine of the angle between both: 1, the same direction. */
  readonly cosine: number;
}

/** The exact scheme, with dropout where another scheme has it, so that both see the same values. */
function exactBeside(scheme: ActivationScheme): ActivationScheme {
  return { ...SCHEMES.exact, attentionDropout: scheme.attentionDropout };
}

/** Each encoding of a scheme by itself, all else exact. */
export function singleEncodings(scheme: ActivationScheme): Readonly<Record<string, ActivationScheme>> {
  const exact = exactBeside(scheme);
  const { attentionOperands, attentionProbs, geluInput, downProjectionInput, linearInput, normalizedValues, frozenLayerNormShare, layerNormBackwardEps } = scheme;
  const again = geluInput === 'recompute';
  return {
    'query, key, value': { ...exact, attentionOperands },
    'attention probabilities': { ...exact, attentionProbs },
    // What is computed again is as near as what it is computed from.
    ...(again ? { 'MLP input': { ...exact, geluInput, linearInput } } : { 'GELU input': { ...exact, geluInput }, 'MLP down input': { ...exact, downProjectionInput } }),
    ...(linearInput !== 'float32' && { 'linear inputs': { ...exact, linearInput } }),
    ...(normalizedValues ? { 'normalised values': { ...exact, normalizedValues, layerNormBackwardEps } } : { 'pruned LayerNorm': { ...exact, frozenLayerNormShare, layerNormBackwardEps } }),
  };
}

/** Result of `trainer.compareGradients()`. */
export class GradientComparison {
  constructor(
    /** Step whose batch and frozen layers were used. */
    readonly step: number,
    /** One per encoding and parameter. */
    readonly errors: readonly GradientError[],
  ) {}

  /** One row per encoding and parameter. */
  table(): ColumnTable {
    return toTable(this.errors);
  }

  /** One row per encoding: all parameters together as one vector. */
  overall(): ColumnTable {
    const names = [...new Set(this.errors.map((e) => e.encodings))];
    return toTable(
      names.map((encodings) => {
        const rows = this.errors.filter((e) => e.encodings === encodings);
        const sum = (of: (e: GradientError) => number) => rows.reduce((s, e) => s + (Number.isFinite(of(e)) ? of(e) : 0), 0);
        return errorOf(encodings, `all ${rows.length} together`, {
          difference: sum((e) => (e.relativeError * e.exactNorm) ** 2),
          exact: sum((e) => e.exactNorm ** 2),
          approximate: sum((e) => e.norm ** 2),
          dot: sum((e) => e.cosine * e.norm * e.exactNorm),
        });
      }),
    );
  }
}

/** What is summed over the elements of one gradient. */
interface Sums {
  /** Σ (g' − g)². */
  readonly difference: number;
  /** Σ g². */
  readonly exact: number;
  /** Σ g'². */
  readonly approximate: number;
  /** Σ g'·g. */
  readonly dot: number;
}

function errorOf(encodings: string, parameter: string, { difference, exact, approximate, dot }: Sums): GradientError {
  return {
    encodings,
    parameter,
    exactNorm: Math.sqrt(exact),
    norm: Math.sqrt(approximate),
    relativeError: exact > 0 ? Math.sqrt(difference / exact) : NaN,
    cosine: exact > 0 && approximate > 0 ? dot / Math.sqrt(exact * approximate) : NaN,
  };
}

function toTable(errors: readonly GradientError[]): ColumnTable {
  const column = <K extends keyof GradientError>(k: K) => errors.map((e) => e[k]);
  return table({ encodings: column('encodings'), parameter: column('parameter'), exactNorm: column('exactNorm'), norm: column('norm'), relativeError: column('relativeError'), cosine: column('cosine') } as never);
}

/**
 * Gradients of the parameters that are marked as training, under each of some schemes and exactly, on one batch. Changes nothing; while it runs the device holds one more set of
 * gradients.
 * @param contextOf a forward pass under a scheme that draws the same dropout each time; told which part of the batch it is for, and that part's weight
 * @param schemes by name; all must drop attention at the same place
 * @param accumulationSteps parts in which the batch is run
 * @param lossScale what backward multiplies its gradients by, which are told without it
 */
export async function gradientErrors<Batch extends LabelledBatch>(
  model: Model<Batch>,
  batch: Batch,
  contextOf: (scheme: ActivationScheme, part: number, lossWeight: number) => ForwardContext,
  schemes: Readonly<Record<string, ActivationScheme>>,
  accumulationSteps = 1,
  lossScale = 1,
): Promise<GradientError[]> {
  const { engine } = model;
  const entries = Object.entries(schemes);
  if (entries.length === 0) return [];
  const parts = microBatches(batch, accumulationSteps, (b) => model.lossTerms(b));
  const exact = new Map<string, DeviceTensor>();
  const sums: { readonly encodings: string; readonly parameter: string; readonly tensor: DeviceTensor }[] = [];
  try {
    runBackward(model, parts, lossScale, (i, weight) => contextOf(exactBeside(entries[0][1]), i, weight), (name, g) => exact.set(name, engine.share(g, 'gradients')));
    for (const [encodings, scheme] of entries)
      runBackward(model, parts, lossScale, (i, weight) => contextOf(scheme, i, weight), (parameter, g) =>
        sums.push({ encodings, parameter, tensor: engine.scope(() => engine.share(sumsOf(engine, g, exact.get(parameter)!), 'gradients')) }),
      );
    const all = engine.concat(
      sums.map((s) => s.tensor),
      0,
    );
    const values = await engine.read(all);
    engine.free(all);
    return sums.map(({ encodings, parameter }, i) => {
      const [difference, exactSum, approximate, dot] = values.subarray(4 * i, 4 * i + 4);
      return errorOf(encodings, parameter, { difference, exact: exactSum, approximate, dot });
    });
  } finally {
    engine.free(...exact.values(), ...sums.map((s) => s.tensor));
  }
}

function runBackward<Batch extends LabelledBatch>(
  model: Model<Batch>,
  parts: readonly MicroBatch<Batch>[],
  lossScale: number,
  contextOf: (part: number, lossWeight: number) => ForwardContext,
  sink: (name: string, grad: DeviceTensor) => void,
): void {
  const { engine } = model;
  const sums = new GradientSums(engine);
  const take = unscaled(engine, (p, g) => sink(p.name, g), lossScale);
  try {
    for (const [i, { batch, weight }] of parts.entries()) {
      const ctx = contextOf(i, weight * lossScale);
      try {
        const out = model.forwardWithLoss(ctx, batch);
        engine.free(out.logits.tensor, out.loss.tensor);
        ctx.tape.backward(out.loss, i === parts.length - 1 ? sums.last(take) : sums.add);
      } finally {
        ctx.tape.dispose();
      }
    }
    sums.rest(take);
  } finally {
    sums.dispose();
  }
}

/** float32 [4], in the order of `Sums`. */
function sumsOf(engine: Engine, approximate: DeviceTensor, exact: DeviceTensor): DeviceTensor {
  const flat = (t: DeviceTensor) => engine.reshape(t, [t.size]);
  const [a, e] = [flat(approximate), flat(exact)];
  const d = engine.sub(a, e);
  return engine.concat([[d, d], [e, e], [a, a], [a, e]].map(([x, y]) => engine.sum(engine.mul(x, y), 0, true)), 0);
}
