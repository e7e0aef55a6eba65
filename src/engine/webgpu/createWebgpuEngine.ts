/** A WebGPU engine for this machine. */
import type { Precision } from '../engine';
import { type AdapterKind, openDevice } from './dawn';
import { WebgpuEngine } from './webgpuEngine';

/** How a WebGPU engine is made. */
export interface WebgpuOptions {
  /** `hardware` by default, or what the environment variable SLIMFIT_WEBGPU_ADAPTER says; `software` computes on the CPU, slowly. */
  readonly adapter?: AdapterKind;
  /**
   * `mixed`: matrix products round their operands to float16 and sum in float32, on the GPU's matrix units; all else, and what is stored, stays float32. A device without such units computes in float32, which is said once on
   * stderr and shows in `engine.precision`. Default `float32`.
   */
  readonly precision?: Precision;
  /** Dawn's own options, for measurements: `backend=null` computes nothing. */
  readonly dawn?: readonly string[];
}

/** @throws EngineUnavailableError when the machine has no adapter of that kind */
export async function createWebgpuEngine({ adapter, precision, dawn }: WebgpuOptions = {}): Promise<WebgpuEngine> {
  return new WebgpuEngine(await openDevice(adapter, dawn, precision));
}
