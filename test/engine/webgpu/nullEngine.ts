/** The WebGPU engine on Dawn's null device, which records everything, holds 512 MiB, and computes nothing: for what depends on no values. It needs no GPU and no driver. */
import type { DeviceTensor } from '../../../src/engine/engine';
import { type OpenedDevice, openDevice } from '../../../src/engine/webgpu/dawn';
import { WebgpuEngine } from '../../../src/engine/webgpu/webgpuEngine';
import { Random } from '../../../src/random';

/** What a null device gives back is no number: random ones from 0.5 to 1.5 take its place, so that losses are finite and a scheduler chooses other layers in every step. */
export class NullEngine extends WebgpuEngine {
  private readonly random = new Random(5);

  constructor(readonly opened: OpenedDevice) {
    super(opened);
  }

  override async read(tensor: DeviceTensor): Promise<Float32Array | Int32Array> {
    return (await super.read(tensor)).map(() => this.random.uniform() + 0.5);
  }
}

export const nullEngine = async (): Promise<NullEngine> => new NullEngine(await openDevice('hardware', ['backend=null']));
