/** The same values in another order or shape: the gradient goes back where the values came from. Nothing is kept. */
import type { Variable } from '../tape/tape';
import type { ForwardContext } from './context';

/** A view of x in another shape of equal size. */
export function reshape(ctx: ForwardContext, x: Variable, shape: readonly number[]): Variable {
  const { engine, tape } = ctx;
  const y = tape.variable(engine.reshape(x.tensor, shape), [x]);
  if (y.needsGrad) tape.record(y, [x], [], (g) => [engine.reshape(g, x.tensor.shape)]);
  return y;
}

/** Scores of tokens x [B, T, C] → [B, C·T]: all tokens' first score, then all tokens' second, … */
export function tokensLast(ctx: ForwardContext, x: Variable): Variable {
  const { engine, tape } = ctx;
  const [B, T, C] = x.tensor.shape;
  const y = tape.variable(
    engine.scope(() => engine.reshape(engine.transpose(x.tensor, [0, 2, 1]), [B, C * T])),
    [x],
  );
  if (y.needsGrad) tape.record(y, [x], [], (g) => [engine.transpose(engine.reshape(g, [B, C, T]), [0, 2, 1])]);
  return y;
}
