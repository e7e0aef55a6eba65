/**
 * The loss scale of mixed precision (Micikevicius et al., "Mixed Precision Training", ICLR 2018, §3.2; the numbers are those of PyTorch's GradScaler). Gradients below 6·10⁻⁸ are 0 in float16, and many of a
 * transformer are: the loss's gradient is multiplied by a large power of two before backward, and each weight gradient divided by it after. Backward is linear in the loss's gradient and powers of two multiply
 * exactly, so that in float32 nothing changes.
 *
 * Dynamic: a step whose gradients are not finite was scaled too much. It is left out, and the scale halved; after 2,000 steps in a row that were finite it is doubled.
 */
import type { Engine } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import type { GradientSink } from '../tape/tape';

/** `dynamic`, a fixed power of two, or 1 for none. */
export type LossScaling = 'dynamic' | number;

/** What a checkpoint holds of a dynamic scale. */
export interface LossScaleState {
  readonly scale: number;
  /** Steps in a row whose gradients were finite. */
  readonly finiteSteps: number;
}

/** A run's loss scale. */
export class LossScale {
  static readonly INITIAL = 2 ** 16;
  static readonly GROWTH_INTERVAL = 2000;
  readonly dynamic: boolean;
  /** What the loss's gradient is multiplied by. */
  scale: number;
  private finiteSteps = 0;

  /** @throws InvalidArgumentError for a number that is no power of two in float32's range */
  constructor(scaling: LossScaling) {
    const exponent = Math.log2(scaling === 'dynamic' ? LossScale.INITIAL : scaling);
    if (!(Number.isInteger(exponent) && Math.abs(exponent) <= 126)) throw new InvalidArgumentError(`lossScale is ${String(scaling)}; it must be 'dynamic' or a power of two, such as 1024, so that scaling rounds nothing`);
    this.dynamic = scaling === 'dynamic';
    this.scale = 2 ** exponent;
  }

  /** After a step whose gradients were applied. */
  grow(): void {
    if (!this.dynamic || ++this.finiteSteps < LossScale.GROWTH_INTERVAL) return;
    this.finiteSteps = 0;
    // Beyond this the loss's own gradient would overflow float32 in steps that float32 has no trouble with.
    this.scale = Math.min(2 * this.scale, 2 ** 32);
  }

  /** After a step whose gradients were not finite. @returns whether a smaller scale may help: at 1 the gradients themselves overflow */
  backOff(): boolean {
    if (!this.dynamic || this.scale <= 1) return false;
    this.finiteSteps = 0;
    this.scale /= 2;
    return true;
  }

  /** Undefined for a scale that never changes. */
  get state(): LossScaleState | undefined {
    return this.dynamic ? { scale: this.scale, finiteSteps: this.finiteSteps } : undefined;
  }

  /** Goes on from a state, where both are dynamic. */
  restore(state: LossScaleState | undefined): void {
    if (!this.dynamic || !state) return;
    this.scale = state.scale;
    this.finiteSteps = state.finiteSteps;
  }
}

/** Divides gradients by the loss scale before anything sees them. */
export function unscaled(engine: Engine, sink: GradientSink, scale: number): GradientSink {
  if (scale === 1) return sink;
  return (parameter, grad) => {
    const own = engine.affine(grad, 1 / scale);
    try {
      sink(parameter, own);
    } finally {
      engine.free(own);
    }
  };
}
