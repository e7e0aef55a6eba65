/**
 * LayerNorm: y = ŷ·w + b, ŷ = (x − mean(x))/sqrt(var(x) + eps), over the last dimension.
 * Backward, with h = g·w: dx = rstd·(h − mean(h) − mean(h·ŷ)·ŷ), dw = Σ g·ŷ, db = Σ g.
 * A *quasi-static* activation (paper §3.2): when w trains, x is kept in float32; when it is frozen, SlimFit keeps only the tenth of ŷ that
 * is largest by absolute value over the whole tensor (value and position) and 1/std of each row; the rest counts as 0. Under `normalizedValues` ŷ is kept in codes instead, frozen or not, with 1/std of each
 * row: of a scale of its own and without the affine, so that one code serves whatever w and b are, and a linear map behind, which reads ŷ·w + b, needs no other.
 */
import type { Parameter } from '../tape/parameter';
import type { Variable } from '../tape/tape';
import type { ForwardContext } from './context';

/** LayerNorm over the last dimension. */
export class LayerNorm {
  constructor(
    readonly name: string,
    readonly weight: Parameter,
    readonly bias: Parameter,
    readonly eps: number,
  ) {}

  forward(ctx: ForwardContext, x: Variable): Variable {
    const { engine, tape, scheme } = ctx;
    const { weight, bias, eps } = this;
    const out = tape.variable(engine.layerNorm(x.tensor, weight.data, bias.data, eps), [x], [weight, bias]);
    if (!out.needsGrad) return out;
    const reason = { layer: this.name, role: 'quasi-static' } as const;
    const { frozenLayerNormShare: share, normalizedValues: code } = scheme;
    const backwardEps = scheme.layerNormBackwardEps ?? eps;

    if (code !== undefined) {
      const { kept, rstd } = engine.scope(() => {
        const { encoded, rstd } = engine.normalizeEncoded(x.tensor, backwardEps, code);
        const kept = tape.keepEncoded(encoded, { ...reason, what: 'normalised values' }, () => engine.normalize(x.tensor, engine.rowStats(x.tensor, backwardEps)));
        return { kept, rstd: tape.keep(rstd, { ...reason, what: 'row statistics' }) };
      });
      // Backward comes to this LayerNorm after all that reads its output: w and b are still those of forward then.
      tape.offerCodes(out.tensor, kept, (y) => engine.decodeAffine(y, weight.data, bias.data));
      tape.record(out, [x], [weight, bias], (g) => {
        const y = weight.trains ? kept.load() : undefined;
        if (bias.trains) tape.accumulate(bias, engine.biasGrad(g));
        const gradInput = () => (y ? engine.layerNormGradInput(g, y, rstd.load(), weight.data) : engine.layerNormGradInputEncoded(g, kept.encoded, rstd.load(), weight.data));
        const dx = x.needsGrad ? gradInput() : undefined;
        if (y) tape.accumulate(weight, engine.layerNormGradWeight(g, y));
        return [dx];
      });
      return out;
    }

    if (share !== undefined && !weight.trains) {
      const { rstd, sparse } = engine.scope(() => {
        const stats = engine.rowStats(x.tensor, backwardEps);
        const count = Math.floor(share * x.tensor.size);
        const sparse = tape.keepLargest(engine.normalize(x.tensor, stats), count, { ...reason, what: 'largest normalised values' });
        return { rstd: tape.keep(stats.rstd, { ...reason, what: 'row statistics' }), sparse };
      });
      tape.record(out, [x], [bias], (g) => {
        if (bias.trains) tape.accumulate(bias, engine.biasGrad(g));
        return [x.needsGrad ? engine.layerNormGradInputSparse(g, sparse.sparse, rstd.load(), weight.data) : undefined];
      });
      return out;
    }

    const keptX = tape.keep(x.tensor, { ...reason, what: 'input' });
    // Plain fine-tuning keeps mean and 1/std beside x; the authors' LayerNorm computes them again from x.
    const keptStats =
      scheme.layerNormStatistics === 'kept'
        ? engine.scope(() => {
            const stats = engine.rowStats(x.tensor, backwardEps);
            return [
              tape.keep(stats.mean, { ...reason, what: 'row means' }),
              tape.keep(stats.rstd, { ...reason, what: 'row statistics' }),
            ] as const;
          })
        : undefined;
    tape.record(out, [x], [weight, bias], (g) => {
      const xs = keptX.load();
      const stats = keptStats ? { mean: keptStats[0].load(), rstd: keptStats[1].load() } : engine.rowStats(xs, backwardEps);
      const y = engine.normalize(xs, stats);
      const dx = x.needsGrad ? engine.layerNormGradInput(g, y, stats.rstd, weight.data) : undefined;
      if (bias.trains) tape.accumulate(bias, engine.biasGrad(g));
      if (weight.trains) tape.accumulate(weight, engine.layerNormGradWeight(g, y));
      return [dx];
    });
    return out;
  }
}
