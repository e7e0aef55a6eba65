/**
 * Multi-head self-attention after the three projections: P = softmax(q·kᵀ/√d + mask), context = P·v.
 * Backward: dv = Pᵀ·g; dP = g·vᵀ; dS = P∘(dP − rowsum(dP∘P)); dq = dS·k/√d; dk = dSᵀ·q/√d. All four operands are *static*:
 * kept whatever is frozen; under SlimFit q, k, v as 8-bit Q3.4 and P as unsigned 8-bit Q0.8 (paper §3.2), or P not at all: `recompute` takes softmax over the kept q, k and the mask once more.
 * Only where a gradient stops at this layer is less kept: v is needed for dq and dk alone, q for dk, k for dq, all of which need P.
 *
 * Where P need not be kept, an engine may have all of it in one operation that never writes P out (`Engine.streamsAttention`); elsewhere it is composed in blocks.
 */
import type { AttentionOperand, AttentionSettings, CodeEncoding, DeviceTensor, Engine, RandomKey } from '../engine/engine';
import type { Kept, KeptEncoded, KeptPieces, Variable } from '../tape/tape';
import { attentionBlock, joined, part, plus, type Range, ranges } from './blocks';
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

/** q, k, v [B, T, H] → context [B, T, H], in blocks of at most `ctx.blockBytes` of the probabilities. */
export function selfAttention(ctx: ForwardContext, q: Variable, k: Variable, v: Variable, options: AttentionOptions): Variable {
  const { engine, tape, scheme } = ctx;
  const { name, heads, mask } = options;
  const [B, T, hidden] = q.tensor.shape;
  const scale = 1 / Math.sqrt(hidden / heads);
  const key = options.dropout > 0 ? ctx.nextDropout() : undefined;
  /** Dropout of a part of the whole draw. */
  const drop = (t: DeviceTensor, offset: number) => (key ? engine.dropout(t, options.dropout, { ...key, offset }) : t);
  const dropValues = scheme.attentionDropout === 'values';
  const again = scheme.attentionProbs === 'recompute';
  const needed = tape.needsGrad([q, k, v]);
  if ((again || !needed) && !(key && dropValues) && engine.streamsAttention(hidden / heads)) return streamed(ctx, q, k, v, options, scale, key);
  const keep = (what: string, wanted: boolean, encoding: CodeEncoding | 'float32', shape: readonly number[]) =>
    needed && wanted ? tape.keepPieces({ layer: name, what, role: 'static' }, encoding, shape) : undefined;
  const operand = (what: string, wanted: boolean) => keep(what, wanted, scheme.attentionOperands, [B, heads, T, hidden / heads]);
  const keptQ = operand('query', again || k.needsGrad);
  const keptK = operand('key', again || q.needsGrad);
  const keptP = scheme.attentionProbs === 'recompute' ? undefined : keep('probabilities', true, scheme.attentionProbs, [B, heads, T, T]);
  const keptV = operand('value', q.needsGrad || k.needsGrad);
  const operands = needed ? scheme.attentionOperands : undefined;
  const probs = needed && scheme.attentionProbs !== 'recompute' ? scheme.attentionProbs : undefined;
  const block = attentionBlock({ batchSize: B, heads, tokens: T, hidden, operands, probs }, ctx.blockBytes);
  const ofExamples = ranges(B, block.examples);
  const ofHeads = ranges(heads, block.heads);
  const ofQueries = ranges(T, block.queries);
  const pieces = ofHeads.length * ofQueries.length;
  const cut = (x: DeviceTensor, axis: number, range: Range) => part(engine, x, axis, range);
  const headsOf = (x: DeviceTensor, examples: Range) => engine.scope(() => engine.splitHeads(cut(x, 0, examples), heads));

  const forwardOf = (examples: Range): DeviceTensor => {
    const [qh, kh] = [q, k].map((x) => headsOf(x.tensor, examples));
    const vh = engine.scope(() => (dropValues ? drop(headsOf(v.tensor, examples), examples[0] * T * hidden) : headsOf(v.tensor, examples)));
    const masked = mask && cut(mask, 0, examples);
    const context = ofHeads.map((some) =>
      engine.scope(() => {
        const [ks, vs] = [kh, vh].map((x) => cut(x, 1, some));
        const rows = ofQueries.map((queries) =>
          engine.scope(() => {
            const p = engine.attentionProbs(cut(cut(qh, 1, some), 2, queries), ks, scale, masked);
            keptP?.add(p);
            return engine.matmul(dropValues ? p : drop(p, ((examples[0] * heads + some[0]) * T + queries[0]) * T), vs);
          }),
        );
        return joined(engine, rows, 2);
      }),
    );
    keptQ?.add(qh);
    keptK?.add(kh);
    keptV?.add(vh);
    return engine.mergeHeads(joined(engine, context, 1));
  };

  const out = tape.variable(
    engine.scope(() => {
      const contexts = ofExamples.map((examples) => engine.scope(() => forwardOf(examples)));
      return joined(engine, contexts, 0);
    }),
    [q, k, v],
  );
  if (!needed) return out;

  /** Gradients of one block of queries, by head; those of keys and values are a summand. A scope for each of the tensors of T² elements a head: how many of them are alive at once sets the peak. */
  const ofBlock = (gh: DeviceTensor, masked: DeviceTensor | undefined, index: number, examples: Range, some: Range, queries: Range): Gradients => {
    const load = (kept: KeptPieces) => cut(kept.piece(index).load(), 1, some);
    const loadQ = () => cut(load(keptQ!), 2, queries);
    const g = cut(cut(gh, 1, some), 2, queries);
    const at = index * pieces + (some[0] / block.heads) * ofQueries.length + queries[0] / block.queries;
    const offset = ((examples[0] * heads + some[0]) * T + queries[0]) * T;
    const p = keptP ? keptP.piece(at).load() : engine.scope(() => engine.attentionProbs(loadQ(), load(keptK!), scale, masked));
    const dv = v.needsGrad ? engine.scope(() => engine.matmul(dropValues ? p : drop(p, offset), g, { transposeA: true })) : undefined;
    const ds = keptV
      ? engine.scope(() => {
          const dp = engine.scope(() => {
            const product = engine.matmul(g, load(keptV), { transposeB: true });
            return dropValues ? product : drop(product, offset);
          });
          return engine.softmaxGrad(dp, p);
        })
      : undefined;
    const dq = q.needsGrad ? engine.scope(() => engine.affine(engine.matmul(ds!, load(keptK!)), scale)) : undefined;
    const dk = k.needsGrad ? engine.scope(() => engine.affine(engine.matmul(ds!, loadQ(), { transposeA: true }), scale)) : undefined;
    keptP?.release(at);
    return { dq, dk, dv };
  };

  const backwardOf = (grad: DeviceTensor, index: number): Gradients => {
    const examples = ofExamples[index];
    const gh = headsOf(grad, examples);
    const masked = mask && cut(mask, 0, examples);
    const byHead = ofHeads.map((some) => {
      let dk: DeviceTensor | undefined;
      let dv: DeviceTensor | undefined;
      const dq = ofQueries.map((queries) => {
        const got = engine.scope(() => ofBlock(gh, masked, index, examples, some, queries));
        dk = plus(engine, dk, got.dk);
        dv = plus(engine, dv, got.dv);
        return got.dq;
      });
      return { dq: together(engine, dq, 2), dk, dv };
    });
    engine.free(gh);
    for (const kept of [keptQ, keptK, keptV]) kept?.release(index);
    const merged = (of: keyof Gradients, after = (x: DeviceTensor) => x) => {
      const whole = together(engine, byHead.map((h) => h[of]), 1);
      if (!whole) return undefined;
      const x = engine.scope(() => engine.mergeHeads(after(whole)));
      engine.free(whole);
      return x;
    };
    return { dq: merged('dq'), dk: merged('dk'), dv: merged('dv', (x) => (dropValues ? drop(x, examples[0] * T * hidden) : x)) };
  };

  tape.record(out, [q, k, v], [], (grad) => {
    const byExample = ofExamples.map((_, index) => engine.scope(() => backwardOf(grad, index)));
    return (['dq', 'dk', 'dv'] as const).map((of) => together(engine, byExample.map((e) => e[of]), 0));
  });
  return out;
}

/** The same in one operation each way, without the probabilities in memory. */
function streamed({ engine, tape, scheme }: ForwardContext, q: Variable, k: Variable, v: Variable, { name, heads, dropout, mask }: AttentionOptions, scale: number, key: RandomKey | undefined): Variable {
  const [B, T, hidden] = q.tensor.shape;
  const settings: AttentionSettings = { heads, scale, mask, ...(key && { dropout: { p: dropout, key } }) };
  const out = tape.variable(engine.attention(q.tensor, k.tensor, v.tensor, settings), [q, k, v]);
  if (!out.needsGrad) return out;
  // A row of codes is a token of one head.
  const keep = ({ tensor }: Variable, what: string) =>
    engine.scope(() => tape.keep(engine.reshape(tensor, [B, T, heads, hidden / heads]), { layer: name, what, role: 'static' }, scheme.attentionOperands));
  const [keptQ, keptK, keptV] = [keep(q, 'query'), keep(k, 'key'), q.needsGrad || k.needsGrad ? keep(v, 'value') : undefined];
  const operand = (kept: Kept | KeptEncoded): AttentionOperand => ('encoded' in kept ? kept.encoded : kept.load());
  tape.record(out, [q, k, v], [], (grad) => {
    const wanted = { dq: q.needsGrad, dk: k.needsGrad, dv: v.needsGrad };
    const { dq, dk, dv } = engine.scope(() => engine.attentionGrad(grad, operand(keptQ), operand(keptK), keptV && operand(keptV), settings, wanted));
    return [dq, dk, dv];
  });
  return out;
}

/** Gradients of attention's operands, where they are asked for. */
type Gradients = Readonly<Record<'dq' | 'dk' | 'dv', DeviceTensor | undefined>>;

/** `joined`, of what may not be there. */
function together(engine: Engine, parts: readonly (DeviceTensor | undefined)[], axis: number): DeviceTensor | undefined {
  const there = parts.filter((p): p is DeviceTensor => p !== undefined);
  return there.length > 0 ? joined(engine, there, axis) : undefined;
}
