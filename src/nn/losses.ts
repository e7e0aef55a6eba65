/** Losses: each computes its gradient together with its value, so that backward keeps nothing but that small gradient. */
import type { DeviceTensor, LossResult } from '../engine/engine';
import type { Variable } from '../tape/tape';
import type { ForwardContext } from './context';

/** Mean cross-entropy of logits [n, C] against int32 labels [n]; rows labelled `ignoreIndex` do not count. */
export function crossEntropy(ctx: ForwardContext, logits: Variable, labels: DeviceTensor, ignoreIndex?: number): Variable {
  return lossOf(ctx, logits, ctx.engine.crossEntropy(logits.tensor, labels, ignoreIndex));
}

/** Mean squared error of x against float32 targets of the same shape. */
export function meanSquaredError(ctx: ForwardContext, x: Variable, target: DeviceTensor): Variable {
  return lossOf(ctx, x, ctx.engine.meanSquaredError(x.tensor, target));
}

/** A loss is where backward starts: the incoming gradient is 1, so its own gradient, times the pass's weight, passes on unchanged. */
function lossOf(ctx: ForwardContext, input: Variable, { loss, grad }: LossResult): Variable {
  const { engine, tape } = ctx;
  const out = tape.variable(loss, [input]);
  if (out.needsGrad) {
    const held = engine.scope(() => engine.share(ctx.lossWeight === 1 ? grad : engine.affine(grad, ctx.lossWeight), 'gradients'));
    tape.holdUntilBackward(held);
    tape.record(out, [input], [], () => [engine.share(held)]);
  }
  engine.free(grad);
  return out;
}
