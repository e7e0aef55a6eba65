/**
 * Linear: y = x·Wᵀ + b, x [..., K], W [O, K], b [O].
 * Backward: dx = g·W and db = Σg always; dW = gᵀ·x only when W trains. So x is a *dynamic* activation: kept only then (paper §3.1),
 * in float32 or, for the MLP's down projection, in 8 bits (load balancing, paper §3.3); in 8 bits everywhere in an encoder under `linearInput`.
 */
import type { CodeEncoding } from '../engine/engine';
import type { Parameter } from '../tape/parameter';
import type { Variable } from '../tape/tape';
import type { ForwardContext } from './context';

/** A linear map with bias. */
export class Linear {
  constructor(
    /** Module name: the weight's name without `.weight`. */
    readonly name: string,
    readonly weight: Parameter,
    readonly bias: Parameter,
  ) {}

  /** @param encoding how the input is kept when the weight trains. */
  forward(ctx: ForwardContext, x: Variable, encoding: CodeEncoding | 'float32' = 'float32'): Variable {
    const { engine, tape } = ctx;
    const { weight, bias } = this;
    const y = tape.variable(engine.linear(x.tensor, weight.data, bias.data), [x], [weight, bias]);
    if (!y.needsGrad) return y;
    const kept = weight.trains ? tape.keepShared(x.tensor, { layer: this.name, what: 'input', role: 'dynamic' }, encoding) : undefined;
    tape.record(y, [x], [weight, bias], (g) => {
      const dx = x.needsGrad ? engine.linearGradInput(g, weight.data) : undefined;
      if (bias.trains) tape.accumulate(bias, engine.biasGrad(g));
      if (kept) tape.accumulate(weight, engine.linearGradWeight(g, kept.load()));
      return [dx];
    });
    return y;
  }
}
