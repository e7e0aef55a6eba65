/**
 * Gradients of several backward passes, summed: what gradient accumulation holds between micro-batches. Float32, of what trains alone; each pass must weight its own loss (`lossWeight` of its context).
 * The last pass hands each sum over the moment it is complete, as a pass by itself hands over its gradients.
 */
import type { DeviceTensor, Engine } from '../engine/engine';
import type { Parameter } from './parameter';
import type { GradientSink } from './tape';

/** Sums of gradients by parameter, in category 'gradients'. `dispose` frees what is left. */
export class GradientSums {
  private readonly sums = new Map<Parameter, DeviceTensor>();

  constructor(private readonly engine: Engine) {}

  /** Takes the gradients of a pass that is not the last. */
  readonly add: GradientSink = (parameter, grad) => {
    const sum = this.sums.get(parameter);
    this.sums.set(parameter, sum ? this.plus(sum, grad) : this.engine.share(grad, 'gradients'));
    if (sum) this.engine.free(sum);
  };

  /** Takes the gradients of the last pass, and hands each sum to `sink`, which may not keep it. Without passes before, that is the gradient itself. */
  last(sink: GradientSink): GradientSink {
    return (parameter, grad) => {
      const sum = this.sums.get(parameter);
      if (!sum) return sink(parameter, grad);
      this.sums.delete(parameter);
      let total: DeviceTensor | undefined;
      try {
        total = this.plus(sum, grad);
      } finally {
        this.engine.free(sum);
      }
      this.handOver(parameter, total, sink);
    };
  }

  /** Hands over the sums of parameters that the last pass had no gradient of. */
  rest(sink: GradientSink): void {
    for (const [parameter, sum] of this.sums) {
      this.sums.delete(parameter);
      this.handOver(parameter, sum, sink);
    }
  }

  dispose(): void {
    this.engine.free(...this.sums.values());
    this.sums.clear();
  }

  private plus(sum: DeviceTensor, grad: DeviceTensor): DeviceTensor {
    return this.engine.scope(() => this.engine.share(this.engine.add(sum, grad), 'gradients'));
  }

  private handOver(parameter: Parameter, sum: DeviceTensor, sink: GradientSink): void {
    try {
      sink(parameter, sum);
    } finally {
      this.engine.free(sum);
    }
  }
}
