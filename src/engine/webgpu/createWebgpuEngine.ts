/** A WebGPU engine for this machine. */
import { type AdapterKind, openDevice } from './dawn';
import { WebgpuEngine } from './webgpuEngine';

/** How a WebGPU engine is made. */
export interface WebgpuOptions {
  /** `hardware` by default, or what the environment variable SLIMFIT_WEBGPU_ADAPTER says; `software` computes on the CPU, slowly. */
  readonly adapter?: AdapterKind;
  /** Dawn's own options, for measurements: `backend=null` computes nothing. */
  readonly dawn?: readonly string[];
}

/** @throws EngineUnavailableError when the machine has no adapter of that kind */
export async function createWebgpuEngine({ adapter, dawn }: WebgpuOptions = {}): Promise<WebgpuEngine> {
  return new WebgpuEngine(await openDevice(adapter, dawn));
}
