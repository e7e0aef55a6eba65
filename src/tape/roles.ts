import type { CodeEncoding } from '../engine/engine';

/**
 * Why an activation is kept (SlimFit paper §3): a *dynamic* one only when its layer trains (a linear's input), a *static* one
 * whatever is frozen (GELU input, attention operands), a *quasi-static* one in full when its LayerNorm trains and pruned when it
 * is frozen.
 */
export type ActivationRole = 'dynamic' | 'static' | 'quasi-static';

/** How a kept activation is stored. `top10` is the pruned form: the largest tenth of the elements with their positions. */
export type ActivationEncoding = 'float32' | 'int32' | CodeEncoding | 'top10';

/** One kept tensor in the ledger. */
export interface LedgerEntry {
  /** Hugging Face module name that keeps it, such as `bert.encoder.layer.0.intermediate.dense`. */
  readonly layer: string;
  /** What it is: 'input', 'gelu input', 'query', 'probabilities', 'row statistics', … */
  readonly what: string;
  readonly role: ActivationRole;
  readonly encoding: ActivationEncoding;
  /** Shape before encoding. */
  readonly shape: readonly number[];
  /** Bytes on the device; 0 when another entry already counts the same storage. */
  readonly bytes: number;
  /** Of these, bytes that only fill up the last 32-bit word. */
  readonly padding: number;
}

/** Where the memory of a step stands after one more activation was kept (forward, or the recomputation of a layer within backward) or let go (backward). */
export interface CoursePoint {
  readonly phase: 'forward' | 'recompute' | 'backward';
  /** Module whose activation it was. */
  readonly layer: string;
  /** Bytes of kept activations alive. */
  readonly activationBytes: number;
  /** Bytes of everything alive on the device: weights, moments, gradients and workspace too. */
  readonly deviceBytes: number;
}
