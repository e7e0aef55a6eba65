/** What one training step did: the row from which every table and figure is made. */
import type { MemoryReport } from '../engine/engine';
import type { ActivationPrediction } from '../memory/activationBytes';
import type { EncodingError } from '../tape/encodingError';
import type { CoursePoint, LedgerEntry } from '../tape/roles';

/** The record of one step. */
export interface StepRecord {
  /** Number of the step, from 0. */
  readonly step: number;
  /** Epoch that the batch belongs to, from 0. */
  readonly epoch: number;
  /** Loss before the update. */
  readonly loss: number;
  readonly learningRate: number;
  /** What the loss's gradient was multiplied by before backward (option `lossScale`); not there where it is 1. */
  readonly lossScale?: number;
  /** Indices of the layers frozen in this step, ascending. */
  readonly frozen: readonly number[];
  /** Indices of the layers that trained, ascending. */
  readonly active: readonly number[];
  /** Indices of the layers about which the user decided (`freeze`, `thaw`), not the policy, ascending. */
  readonly overruled: readonly number[];
  /**
   * Update magnitude mean(abs(ΔW/W)) of every layer after the step, by layer index; a frozen layer keeps its last one, a layer that has not trained yet has
   * its initial draw.
   */
  readonly updateMagnitudes: Float64Array;
  /** Everything kept between forward and backward; with gradient accumulation, by the micro-batch that keeps most. */
  readonly activations: readonly LedgerEntry[];
  /** Sum of `activations[].bytes`: bytes kept at the end of forward. */
  readonly activationBytes: number;
  /** Bytes that plain fine-tuning (everything trains, everything in float32) would have kept on this batch in one piece, by part of the model; undefined where the model has no formula. */
  readonly fullActivations: ActivationPrediction | undefined;
  /**
   * By layer index: bytes that freezing this layer saves in this step, all others being as they are: what was saved if it was frozen, what its training cost if not. NaN where the
   * model has no formula.
   */
  readonly freezingSaves: Float64Array;
  /** Bytes alive after each activation that forward (or a layer that is run again) kept and backward let go, in order; with gradient accumulation, of all micro-batches in turn. */
  readonly course: readonly CoursePoint[];
  /** What the encodings did to the values, in the steps in which it was measured (`measureEncodingsEvery`); else empty. */
  readonly encodingErrors: readonly EncodingError[];
  /** Device bytes by category, live at the end of the step and peak within it. */
  readonly memory: MemoryReport;
  /** Of a step that was skipped and changed nothing (option `onNonFinite: 'skip'` or `'lower-rate'`, or a dynamic `lossScale` that was too large), what was not finite: 'loss', or names of parameters; `active` is empty then. Else not there. */
  readonly nonFinite?: readonly string[];
  /** Wall time of the step in milliseconds. */
  readonly milliseconds: number;
  /** Of these, milliseconds spent waiting for the batch. */
  readonly dataMilliseconds: number;
  /** Examples in the batch, and tokens (padding included). */
  readonly examples: number;
  readonly tokens: number;
}
