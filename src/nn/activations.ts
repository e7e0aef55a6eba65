/** Element-wise parts: GELU, tanh, dropout, residual addition. */
import type { KeptEncoded, Variable } from '../tape/tape';
import type { ForwardContext } from './context';

/**
 * GELU: y = x·Φ(x), exact; dx = g·(Φ(x') + x'·φ(x')), x' the kept input: in 4 bits under SlimFit (*static*: its derivative is smooth and saturates, paper §3.2).
 */
export function gelu(ctx: ForwardContext, x: Variable, layer: string): Variable {
  const { engine, tape, scheme } = ctx;
  const y = tape.variable(engine.gelu(x.tensor), [x]);
  if (!y.needsGrad) return y;
  const kept = tape.keep(x.tensor, { layer, what: 'GELU input', role: 'static' }, scheme.geluInput);
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
