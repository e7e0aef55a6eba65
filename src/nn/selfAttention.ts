/**
 * Multi-head self-attention after the three projections: P = softmax(q·kᵀ/√d + mask), context = P·v.
 * Backward: dv = Pᵀ·g; dP = g·vᵀ; dS = P∘(dP − rowsum(dP∘P)); dq = dS·k/√d; dk = dSᵀ·q/√d. All four operands are *static*:
 * kept whatever is frozen; under SlimFit q, k, v as 8-bit Q3.4 and P as unsigned 8-bit Q0.8 (paper §3.2), or P not at all: `recompute` takes softmax over the kept q, k and the mask once more.
 * Only where a gradient stops at this layer is less kept: v is needed for dq and dk alone, q for dk, k for dq, all of which need P.
 */
import type { DeviceTensor } from '../engine/engine';
import type { Variable } from '../tape/tape';
import type { ForwardContext } from './context';

/** What attention needs beside its operands. */
export interface AttentionOptions {
  /** Module name that keeps the operands. */
  readonly name: string;
  readonly heads: number;
  /** Probability of attention dropout. */
  readonly dropout: number;
  /** Added to the scores: [B, 1, 1, T], 0 for a token to be seen, −10000 for padding. Must stay alive until backward. */
  readonly mask?: DeviceTensor;
}

/** q, k, v [B, T, H] → context [B, T, H]. */
export function selfAttention(ctx: ForwardContext, q: Variable, k: Variable, v: Variable, options: AttentionOptions): Variable {
  const { engine, tape, scheme } = ctx;
  const { name, heads, mask } = options;
  const hidden = q.tensor.shape[2];
  const scale = 1 / Math.sqrt(hidden / heads);
  const key = options.dropout > 0 ? ctx.nextDropout() : undefined;
  const drop = (t: DeviceTensor) => (key ? engine.dropout(t, options.dropout, key) : t);
  const dropValues = scheme.attentionDropout === 'values';
  const role = 'static' as const;

  return engine.scope(() => {
    const qh = engine.splitHeads(q.tensor, heads);
    const kh = engine.splitHeads(k.tensor, heads);
    const vRaw = engine.splitHeads(v.tensor, heads);
    const vh = dropValues ? drop(vRaw) : vRaw;
    const probs = engine.attentionProbs(qh, kh, scale, mask);
    const context = engine.mergeHeads(engine.matmul(dropValues ? probs : drop(probs), vh));
    const out = tape.variable(context, [q, k, v]);
    if (!out.needsGrad) return out;

    const again = scheme.attentionProbs === 'recompute';
    const operand = (t: DeviceTensor, what: string, wanted: boolean) => (wanted ? tape.keep(t, { layer: name, what, role }, scheme.attentionOperands) : undefined);
    const keptQ = operand(qh, 'query', again || k.needsGrad);
    const keptK = operand(kh, 'key', again || q.needsGrad);
    const keptP = scheme.attentionProbs === 'recompute' ? undefined : tape.keep(probs, { layer: name, what: 'probabilities', role }, scheme.attentionProbs);
    const keptV = operand(vh, 'value', q.needsGrad || k.needsGrad);
    tape.record(out, [q, k, v], [], (g) => {
      const gh = engine.splitHeads(g, heads);
      const p = keptP ? keptP.load() : engine.scope(() => engine.attentionProbs(keptQ!.load(), keptK!.load(), scale, mask));
      // A scope for each of the tensors of B·A·T² elements: where sequences are long, how many of them are alive at once sets the peak.
      const dv = v.needsGrad
        ? engine.scope(() => {
            const dvh = engine.scope(() => engine.matmul(dropValues ? p : drop(p), gh, { transposeA: true }));
            return engine.mergeHeads(dropValues ? drop(dvh) : dvh);
          })
        : undefined;
      const ds = keptV
        ? engine.scope(() => {
            const dp = engine.scope(() => {
              const product = engine.matmul(gh, keptV.load(), { transposeB: true });
              return dropValues ? product : drop(product);
            });
            return engine.softmaxGrad(dp, p);
          })
        : undefined;
      const dq = q.needsGrad ? engine.scope(() => engine.mergeHeads(engine.affine(engine.matmul(ds!, keptK!.load()), scale))) : undefined;
      const dk = k.needsGrad ? engine.scope(() => engine.mergeHeads(engine.affine(engine.matmul(ds!, keptQ!.load(), { transposeA: true }), scale))) : undefined;
      return [dq, dk, dv];
    });
    return out;
  });
}
