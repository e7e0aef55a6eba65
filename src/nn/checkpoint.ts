/**
 * Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174, with a segment for each encoder layer): of a layer only its input x is kept, 4NH bytes; backward runs the layer's forward again from x and then
 * its backward at once, so that the activations of one layer only are alive at a time. Costs one more forward of every layer that a gradient flows through. The recomputation makes the same operations on the
 * same numbers, dropout's draws among them, so the gradients are those of keeping everything to the bit, under every scheme; but one: linear maps that read the layer's input find no codes of the LayerNorm
 * before (scheme option `normalizedValues`) and take codes of x itself.
 */
import type { Parameter } from '../tape/parameter';
import type { Variable } from '../tape/tape';
import type { ForwardContext } from './context';

/** A part of a model that can be run again. */
export interface CheckpointedPart {
  /** Hugging Face module name. */
  readonly name: string;
  /** All that `forward` uses. */
  readonly parameters: readonly Parameter[];
  /** Runs the part on a context and an input; must do the same when it is called again. What it needs beside its input must stay alive until backward. */
  readonly forward: (ctx: ForwardContext, x: Variable) => Variable;
}

/** Runs a part, and keeps only its input if the context says so. Where no gradient flows through the part, nothing is kept. */
export function checkpoint(ctx: ForwardContext, x: Variable, { name, parameters, forward }: CheckpointedPart): Variable {
  if (!ctx.gradientCheckpointing) return forward(ctx, x);
  const { engine, tape } = ctx;
  const branch = ctx.branches();
  // Recorded only where encodings are measured: what it keeps is let go at once.
  const first = branch({ recording: tape.measuring });
  let tensor: Variable['tensor'];
  try {
    ({ tensor } = forward(first, x));
  } finally {
    first.tape.dispose();
  }
  ctx.skipTo(first);
  const y = tape.variable(tensor, [x], parameters);
  if (!y.needsGrad) return y;
  const kept = tape.keep(x.tensor, { layer: name, what: 'layer input', role: 'static' });
  tape.record(y, [x], parameters, (g) => {
    const again = branch({ recording: true });
    try {
      const input: Variable = { tensor: kept.load(), needsGrad: x.needsGrad };
      const output = forward(again, input);
      engine.free(output.tensor);
      return [again.tape.backwardFrom(output, g, input, (p, grad) => tape.accumulate(p, grad))];
    } finally {
      again.tape.dispose();
    }
  });
  return y;
}
