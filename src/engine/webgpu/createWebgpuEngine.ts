/** A WebGPU engine for this machine. */
import type { EngineOptions } from './adapters';
import { openDevice } from './dawn';
import { WebgpuEngine } from './webgpuEngine';

/** The same, and what measurements need. */
export interface WebgpuOptions extends EngineOptions {
  /** Dawn's own options, for measurements: `backend=null` computes nothing. */
  readonly dawn?: readonly string[];
}

/** @throws EngineUnavailableError when the machine has no adapter of that kind */
export async function createWebgpuEngine({ adapter, precision, dawn }: WebgpuOptions = {}): Promise<WebgpuEngine> {
  return new WebgpuEngine(await openDevice(adapter, dawn, precision));
}
