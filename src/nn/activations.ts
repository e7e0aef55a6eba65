/** Element-wise parts: GELU, tanh, ReLU, dropout, residual addition. */
import type { KeptEncoded, Variable } from '../tape/tape';
import type { ForwardContext } from './context';

/**
 * GELU: y = x·Φ(x), exact; dx = g·(Φ(x') + x'·φ(x')), x' the kept input: in 4 bits under SlimFit (*static*: its derivative is smooth and saturates, paper §3.2). Only an MLP (mlp.ts) can compute x' again.
 */
export function gelu(ctx: ForwardContext, x: Variable, layer: string): Variable {
  const { engine, tape, scheme } = ctx;
  const y = tape.variable(engine.gelu(x.tensor), [x]);
  if (!y.needsGrad) return y;
  const kept = tape.keep(x.tensor, { layer, what: 'GELU input', role: 'static' }, scheme.geluInput === 'recompute' ? scheme.linearInput : scheme.geluInput);
  tape.record(y, [x], [], (g) => [
    'encoded' in kept ? engine.geluGradEncoded(g, (kept as KeptEncoded).encoded) : engine.geluGrad(g, kept.load()),
  ]);
  return y;
}

/** tanh: dx = g·(1 − y²), y kept in float32. */
export function tanh(ctx: ForwardContext, x: Variable, layer: string): Variable {
  const { engine, tape } = ctx;
  const y = tape.variable(engine.tanh(x.tensor), [x]);
  if (!y.needsGrad) return y;
  const kept = tape.keep(y.tensor, { layer, what: 'tanh output', role: 'static' });
  tape.record(y, [x], [], (g) => [engine.tanhGrad(g, kept.load())]);
  return y;
}

/** The smallest normal float32. */
const TINY = 2 ** -126;

/**
 * ReLU: y = max(x, 0) = (x + |x|)/2, exact in float32; dx = g where y > 0, else 0. y is kept in float32 (*static*, like tanh's output: the paper has no ReLU), since the linear above
 * reads the same tensor. The step y > 0 is y/(y + 2⁻¹²⁶): 0 for 0, and exactly 1 from 2⁻¹⁰² up, where the sum is y itself.
 */
export function relu(ctx: ForwardContext, x: Variable, layer: string): Variable {
  const { engine, tape } = ctx;
  const y = tape.variable(
    engine.scope(() => engine.affine(engine.add(x.tensor, engine.abs(x.tensor)), 0.5)),
    [x],
  );
  if (!y.needsGrad) return y;
  const kept = tape.keep(y.tensor, { layer, what: 'ReLU output', role: 'static' });
  tape.record(y, [x], [], (g) => {
    const values = kept.load();
    return [engine.mul(g, engine.div(values, engine.affine(values, 1, TINY)))];
  });
  return y;
}

/** Dropout: x·mask/(1 − p). The mask is drawn again in backward from the same key: nothing is kept. */
export function dropout(ctx: ForwardContext, x: Variable, p: number): Variable {
  const key = p > 0 ? ctx.nextDropout() : undefined;
  if (!key) return x;
  const { engine, tape } = ctx;
  const y = tape.variable(engine.dropout(x.tensor, p, key), [x]);
  if (y.needsGrad) tape.record(y, [x], [], (g) => [engine.dropout(g, p, key)]);
  return y;
}

/** a + b, equal shapes: the gradient flows to both. */
export function add(ctx: ForwardContext, a: Variable, b: Variable): Variable {
  const { engine, tape } = ctx;
  const y = tape.variable(engine.add(a.tensor, b.tensor), [a, b]);
  if (y.needsGrad)
    tape.record(y, [a, b], [], (g) => [a.needsGrad ? engine.share(g) : undefined, b.needsGrad ? engine.share(g) : undefined]);
  return y;
}
