/** Picking rows out of a sequence: y = x[rows]; the gradient goes back to those rows, the others get 0. */
import type { DeviceTensor } from '../engine/engine';
import type { Variable } from '../tape/tape';
import type { ForwardContext } from './context';

/**
 * Rows of x [B, T, H], seen as [B·T, H], at int32 positions [n] → [n, H]. A copy, so that whoever keeps it keeps n rows and not the
 * whole sequence (PyTorch's `x[:, 0]` is a view that pins all of x). The positions must stay alive until backward.
 */
export function selectRows(ctx: ForwardContext, x: Variable, positions: DeviceTensor): Variable {
  const { engine, tape } = ctx;
  const [B, T, H] = x.tensor.shape;
  const y = tape.variable(
    engine.scope(() => engine.gather(engine.reshape(x.tensor, [B * T, H]), positions)),
    [x],
  );
  if (y.needsGrad) tape.record(y, [x], [], (g) => [engine.reshape(engine.scatterAdd(g, positions, B * T), [B, T, H])]);
  return y;
}
