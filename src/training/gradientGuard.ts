/**
 * Holds the gradients of a step until it is known that they can be applied, so that one NaN or infinity changes nothing. A gradient passes when Σ 0·g² is 0: 0·x is NaN for every x that is not finite, and g² is what Adam's second
 * moment gathers, which a value beyond 1.8e19 would make infinite for good.
 */
import type { DeviceTensor, Engine } from '../engine/engine';
import type { Parameter } from '../tape/parameter';
import type { GradientSink } from '../tape/tape';

/** The gradients of one step. Owns them until `release` or `dispose`. */
export class GradientGuard {
  private held: { readonly parameter: Parameter; readonly grad: DeviceTensor; readonly check: DeviceTensor }[] = [];

  constructor(private readonly engine: Engine) {}

  /** Takes a gradient in place of applying it. */
  readonly hold: GradientSink = (parameter, grad) => {
    const { engine } = this;
    const check = engine.scope(() => {
      const flat = engine.reshape(grad, [grad.size]);
      return engine.share(engine.sum(engine.affine(engine.mul(flat, flat), 0), 0, true), 'gradients');
    });
    this.held.push({ parameter, grad: engine.share(grad, 'gradients'), check });
  };

  /** Names of the parameters whose gradients cannot be applied, in the order of backward. One read-back. */
  async notFinite(): Promise<string[]> {
    if (this.held.length === 0) return [];
    const { engine } = this;
    const all = engine.concat(
      this.held.map((h) => h.check),
      0,
    );
    try {
      const values = await engine.read(all);
      return this.held.filter((_, i) => values[i] !== 0).map((h) => h.parameter.name);
    } finally {
      engine.free(all);
    }
  }

  /** Hands the gradients on, in the order in which they came, and frees each. */
  release(apply: GradientSink): void {
    while (this.held.length > 0) {
      const next = this.held.shift()!;
      try {
        // As on the tape, what the sink leaves in the workspace is freed.
        this.engine.scope(() => apply(next.parameter, next.grad));
      } finally {
        this.engine.free(next.grad, next.check);
      }
    }
  }

  /** Frees what was not handed on. */
  dispose(): void {
    for (const { grad, check } of this.held.splice(0)) this.engine.free(grad, check);
  }
}
