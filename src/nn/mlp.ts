/**
 * The MLP of an encoder layer: y = GELU(x·W1ᵀ + b1)·W2ᵀ + b2, W1 [F, H], W2 [H, F]. Its two linear maps and its GELU (linear.ts, activations.ts), or, where a tensor of N·F elements is larger than a block
 * may be, all three over a block of tokens at a time, so that no temporary has N·F elements. Backward of a block, h the down projection's kept input, a GELU's:
 * dW2 += gᵀ·h; da = (g·W2)∘GELU'(a); dW1 += daᵀ·x; db1 += Σda; dx = da·W1. What is kept is the same: GELU's input *static*, the inputs of both linear maps *dynamic*, with one piece for each block.
 * Under `geluInput: 'recompute'` x alone is kept (*static*), and backward computes a = x·W1ᵀ + b1 and h = GELU(a) of each block again.
 */
import type { DeviceTensor } from '../engine/engine';
import type { Parameter } from '../tape/parameter';
import type { KeptEncoded, Variable } from '../tape/tape';
import { gelu } from './activations';
import { joined, part, plus, ranges, rowsOfBlock } from './blocks';
import type { ForwardContext } from './context';
import type { Linear } from './linear';

/** The parts of an MLP. */
export interface MlpParts {
  /** Module name that keeps GELU's input. */
  readonly name: string;
  readonly up: Linear;
  readonly down: Linear;
}

/** x [..., H] → [..., H]. */
export function mlp(ctx: ForwardContext, x: Variable, { name, up, down }: MlpParts): Variable {
  const { engine, tape, scheme } = ctx;
  const [F, H] = up.weight.shape;
  const N = x.tensor.size / H;
  /** Whether a gradient flows through GELU. */
  const inner = tape.needsGrad([x], [up.weight, up.bias]);
  const parameters = [up.weight, up.bias, down.weight, down.bias];
  const needed = tape.needsGrad([x], parameters);
  const keepsHidden = needed && down.weight.trains;
  const again = scheme.geluInput === 'recompute';
  const geluInput = inner && scheme.geluInput !== 'recompute' ? scheme.geluInput : undefined;
  const hiddenInput = keepsHidden && !again ? scheme.downProjectionInput : undefined;
  const rows = rowsOfBlock(N, F, [geluInput, hiddenInput], ctx.blockBytes);
  if (rows >= N && !again) return engine.scope(() => down.forward(ctx, engine.scope(() => gelu(ctx, up.forward(ctx, x, scheme.linearInput), name)), scheme.downProjectionInput));

  const reason = again ? ({ layer: name, what: 'MLP input', role: 'static' } as const) : ({ layer: up.name, what: 'input', role: 'dynamic' } as const);
  const keptX = (again ? inner || keepsHidden : inner && up.weight.trains) ? tape.keepShared(x.tensor, reason, scheme.linearInput) : undefined;
  const shape = [...x.tensor.shape.slice(0, -1), F];
  const keptA = geluInput && tape.keepPieces({ layer: name, what: 'GELU input', role: 'static' }, geluInput, shape);
  const keptH = hiddenInput && tape.keepPieces({ layer: down.name, what: 'input', role: 'dynamic' }, hiddenInput, shape);
  const blocks = ranges(N, rows);
  const y = engine.scope(() => {
    const flat = engine.reshape(x.tensor, [N, H]);
    const parts = blocks.map((block) =>
      engine.scope(() => {
        const h = engine.scope(() => {
          const a = engine.linear(part(engine, flat, 0, block), up.weight.data, up.bias.data);
          keptA?.add(a);
          return engine.gelu(a);
        });
        keptH?.add(h);
        return engine.linear(h, down.weight.data, down.bias.data);
      }),
    );
    return engine.reshape(joined(engine, parts, 0), x.tensor.shape);
  });
  const out = tape.variable(y, [x], parameters);
  if (!out.needsGrad) return out;

  const backwardOf = (g: DeviceTensor, flat: DeviceTensor | undefined, index: number) => {
    const gs = part(engine, g, 0, blocks[index]);
    const xs = flat && part(engine, flat, 0, blocks[index]);
    const a = again && xs ? engine.linear(xs, up.weight.data, up.bias.data) : undefined;
    const dw2 = keepsHidden ? engine.scope(() => engine.linearGradWeight(gs, a ? engine.gelu(a) : keptH!.piece(index).load())) : undefined;
    keptH?.release(index);
    if (!inner) return { dw2 };
    const kept = keptA?.piece(index);
    const da = engine.scope(() => {
      const dh = engine.linearGradInput(gs, down.weight.data);
      return kept && 'encoded' in kept ? engine.geluGradEncoded(dh, (kept as KeptEncoded).encoded) : engine.geluGrad(dh, a ?? kept!.load());
    });
    keptA?.release(index);
    if (a) engine.free(a);
    return {
      dw2,
      dw1: up.weight.trains ? engine.scope(() => engine.linearGradWeight(da, xs!)) : undefined,
      db1: up.bias.trains ? engine.biasGrad(da) : undefined,
      dx: x.needsGrad ? engine.linearGradInput(da, up.weight.data) : undefined,
    };
  };
  tape.record(out, [x], parameters, (grad) => {
    const g = engine.reshape(grad, [N, H]);
    const flat = keptX && engine.reshape(keptX.load(), [N, H]);
    const sums: Record<'dw2' | 'dw1' | 'db1', DeviceTensor | undefined> = { dw2: undefined, dw1: undefined, db1: undefined };
    const dxs: DeviceTensor[] = [];
    for (const index of blocks.keys()) {
      const got: Partial<Record<'dw2' | 'dw1' | 'db1' | 'dx', DeviceTensor | undefined>> = engine.scope(() => backwardOf(g, flat, index));
      for (const of of ['dw2', 'dw1', 'db1'] as const) sums[of] = plus(engine, sums[of], got[of]);
      if (got.dx) dxs.push(got.dx);
    }
    const dx = x.needsGrad ? engine.reshape(joined(engine, dxs, 0), x.tensor.shape) : undefined;
    const hand = (parameter: Parameter, sum: DeviceTensor | undefined) => {
      if (!sum) return;
      tape.accumulate(parameter, sum);
      engine.free(sum);
    };
    hand(down.bias, down.bias.trains ? engine.biasGrad(g) : undefined);
    hand(down.weight, sums.dw2);
    hand(up.bias, sums.db1);
    hand(up.weight, sums.dw1);
    return [dx];
  });
  return out;
}
