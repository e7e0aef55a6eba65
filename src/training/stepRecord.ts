/** What one training step did: the row from which every table and figure is made. */
import type { MemoryReport } from '../engine/engine';
import type { LedgerEntry } from '../tape/roles';

/** The record of one step. */
export interface StepRecord {
  /** Number of the step, from 0. */
  readonly step: number;
  /** Epoch that the batch belongs to, from 0. */
  readonly epoch: number;
  /** Loss before the update. */
  readonly loss: number;
  readonly learningRate: number;
  /** Indices of the layers frozen in this step, ascending. */
  readonly frozen: readonly number[];
  /** Indices of the layers that trained, ascending. */
  readonly active: readonly number[];
  /**
   * Update magnitude mean(abs(ΔW/W)) of every layer after the step, by layer index; a frozen layer keeps its last one, a layer that has not trained yet has
   * its initial draw.
   */
  readonly updateMagnitudes: Float64Array;
  /** Everything kept between forward and backward. */
  readonly activations: readonly LedgerEntry[];
  /** Sum of `activations[].bytes`: bytes kept at the end of forward. */
  readonly activationBytes: number;
  /** Device bytes by category, live at the end of the step and peak within it. */
  readonly memory: MemoryReport;
  /** Wall time of the step in milliseconds. */
  readonly milliseconds: number;
  /** Examples in the batch, and tokens (padding included). */
  readonly examples: number;
  readonly tokens: number;
}
