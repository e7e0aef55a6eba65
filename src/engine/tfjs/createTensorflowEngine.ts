/** TensorFlow's engine for this machine: with fused kernels on a CPU where they are built, else with TensorFlow's own operations. */
import type { Engine } from '../engine';
import { FusedEngine } from './fusedEngine';
import { fusedKernels, loadTensorflow } from './tensorflowBinding';
import { TensorflowEngine } from './tensorflowEngine';

/**
 * @param options `fused: false`: TensorFlow's own operations alone, as on a GPU
 * @throws EngineUnavailableError when the addon is not built or does not load
 */
export async function createTensorflowEngine({ fused = true } = {}): Promise<Engine> {
  const binding = loadTensorflow();
  return fused && fusedKernels().loaded ? new FusedEngine(binding) : new TensorflowEngine(binding);
}
