/** The WebGPU engine in the precision that is asked for, or the reason why there is none: a figure of float32 must not stand in a row of mixed precision. */
import { createWebgpuEngine, type WebgpuOptions } from '../../src/engine/webgpu/createWebgpuEngine';
import type { WebgpuEngine } from '../../src/engine/webgpu/webgpuEngine';
import { EngineUnavailableError } from '../../src/errors';
import type { Precision } from './settings';

/** @throws EngineUnavailableError when there is no adapter, or it lacks mixed precision and that was asked for */
export async function openEngine(precision: Precision): Promise<WebgpuEngine> {
  const options: WebgpuOptions & { readonly precision: Precision } = { precision };
  const engine = await createWebgpuEngine(options);
  const given = (engine as { readonly precision?: string }).precision ?? 'float32';
  if (given === precision) return engine;
  const { device } = engine;
  engine.dispose();
  throw new EngineUnavailableError(`${device} computes in ${given}, not in ${precision} precision`);
}
