/** What WebGPU's adapters are to those above the engine, and how an engine on one is asked for. No type here is WebGPU's own: a notebook's cell knows none of them. */
import type { Precision } from '../engine';

/** Which kind of adapter computes: a GPU, or a driver that emulates one on the CPU. */
export type AdapterKind = 'hardware' | 'software';

/** One adapter that Dawn sees. */
export interface AdapterSummary {
  readonly kind: AdapterKind;
  /** 'NVIDIA H100 PCIe', 'SwiftShader', … */
  readonly name: string;
  /** Largest buffer, bytes; no tensor can be larger than it or `maxBinding`. */
  readonly maxBuffer: number;
  /** Largest part of a buffer that a kernel sees, bytes. */
  readonly maxBinding: number;
  /** Threads of a workgroup at most, and the memory that they share, bytes. */
  readonly workgroupThreads: number;
  readonly workgroupBytes: number;
  /** WebGPU's names of all that it can. */
  readonly features: readonly string[];
  /** What `precision: 'mixed'` computes on ('matrix units of 16×16×16'), or why it would be float32. */
  readonly mixed: string;
}

/** The features that matter here: products in 16 bits, subgroups, tensor cores, the device's own clock. */
export const ADAPTER_FEATURES = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix', 'timestamp-query'] as const;

/** How an engine is made. */
export interface EngineOptions {
  /** What `webgpu` computes on: `hardware`, a GPU, by default, or what the environment variable SLIMFIT_WEBGPU_ADAPTER says; `software` is a driver that computes on the CPU, slowly. */
  readonly adapter?: AdapterKind;
  /**
   * `mixed`: matrix products of float16 summed in float32, on a GPU's matrix units, which the `webgpu` engine alone has; another engine, or a device without such units, computes in float32, and that is said once on stderr and
   * shows in `engine.precision`. Default of `chooseEngine`: what the environment variable SLIMFIT_PRECISION says, else `float32`.
   */
  readonly precision?: Precision;
}
