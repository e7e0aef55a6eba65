/** A named weight on the device, and whether it trains in the current step. */
import type { DeviceTensor } from '../engine/engine';
import type { TouchedRows } from './touchedRows';

/** One parameter of a model. The model owns and frees `data`; the optimizer replaces its values in place. */
export class Parameter {
  /** Whether a gradient is wanted in this step. Set by the trainer from the policy's decision. */
  trains = true;
  /** The rows of a table that alone have a gradient in this step, which is then [n, H]; undefined where the gradient is of the parameter's own shape. */
  touched: TouchedRows | undefined;
  constructor(
    /** Hugging Face name. */
    readonly name: string,
    readonly data: DeviceTensor,
  ) {}

  get shape(): readonly number[] {
    return this.data.shape;
  }
  get size(): number {
    return this.data.size;
  }
}
