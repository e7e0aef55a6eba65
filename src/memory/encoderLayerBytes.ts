/**
 * Bytes that one encoder layer of a transformer keeps between forward and backward, from its shapes alone. N = B·T tokens, H hidden, F MLP width, A heads. Plain fine-tuning keeps
 * 32NH + 8NF + 4BAT² + 16N per layer; SlimFit 3NH + BAT² + NF/2, plus what its training layers add (paper §3.2–3.3, Table 1); nothing in parts below the lowest that trains, bias included. Written apart from the tape, so that each can check the other.
 */
import { type ActivationMode, SCHEMES } from '../tape/scheme';

/** Shapes of one layer and how it is kept. */
export interface EncoderLayerShape {
  readonly batchSize: number;
  /** T. */
  readonly tokens: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly heads: number;
  readonly mode: ActivationMode;
}

/** Which weights of a layer train. */
export interface EncoderLayerTraining {
  /** Any of query, key and value: they share their input. */
  readonly projections: boolean;
  readonly attentionOutput: boolean;
  readonly up: boolean;
  readonly down: boolean;
  readonly norms: readonly [boolean, boolean];
}

/** Codes are packed into whole 32-bit words. */
const words = (bytes: number): number => 4 * Math.ceil(bytes / 4);

/** Bytes that a LayerNorm over N rows of H keeps. */
export function layerNormBytes(N: number, H: number, mode: ActivationMode, trains: boolean): number {
  if (mode === 'exact') return 4 * N * H + 8 * N;
  return trains ? 4 * N * H : 8 * Math.floor(SCHEMES.paper.frozenLayerNormShare! * N * H) + 4 * N;
}

/** The parts of an encoder layer, each with what it keeps of its own. */
export type EncoderPart = 'projections' | 'attentionOutput' | 'firstNorm' | 'up' | 'down' | 'secondNorm';

/** A part of a model on the way of forward: what it keeps when a gradient flows into or starts in it, and whether one starts in it. */
export interface KeepingPart {
  readonly bytes: number;
  /** Whether a weight or bias of it trains. */
  readonly trains: boolean;
}

/** Bytes of each part that are kept: none below the first in which a gradient starts. @param parts in the order of forward */
export function keptFromLowest(parts: readonly KeepingPart[]): number[] {
  const lowest = parts.findIndex((p) => p.trains);
  return parts.map((p, i) => (lowest >= 0 && i >= lowest ? p.bytes : 0));
}

/** Bytes that the parts of one encoder layer keep when backward runs through all of it. */
export function encoderPartBytes({ batchSize: B, tokens: T, hiddenSize: H, intermediateSize: F, heads: A, mode }: EncoderLayerShape, trains: EncoderLayerTraining): Record<EncoderPart, number> {
  const N = B * T;
  const NH = N * H;
  const probs = B * A * T * T;
  const paper = mode === 'paper';
  return {
    // Query, key, value and probabilities, whatever is frozen.
    projections: (paper ? 3 * words(NH) + words(probs) : 3 * 4 * NH + 4 * probs) + (trains.projections ? 4 * NH : 0),
    attentionOutput: trains.attentionOutput ? 4 * NH : 0,
    firstNorm: layerNormBytes(N, H, mode, trains.norms[0]),
    // The input of the GELU, whatever is frozen.
    up: (paper ? words(Math.ceil((N * F) / 2)) : 4 * N * F) + (trains.up ? 4 * NH : 0),
    down: trains.down ? (paper ? words(N * F) : 4 * N * F) : 0,
    secondNorm: layerNormBytes(N, H, mode, trains.norms[1]),
  };
}
