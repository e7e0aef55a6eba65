/** What a forward pass carries along: where it computes, what it records, how activations are kept, which random draws dropout makes. */
import type { Engine, RandomKey } from '../engine/engine';
import type { ActivationScheme } from '../tape/scheme';
import { SCHEMES } from '../tape/scheme';
import { Tape, type TapeOptions } from '../tape/tape';

/** The context of one forward pass. */
export class ForwardContext {
  private draws = 0;
  private constructor(
    readonly engine: Engine,
    readonly tape: Tape,
    readonly scheme: ActivationScheme,
    private readonly dropoutSeed: { seed: number; step: number } | undefined,
  ) {}

  /** A pass that trains. `step` picks the random stream of dropout: equal steps of equal seeds draw equal masks. */
  static training(engine: Engine, scheme: ActivationScheme, seed: number, step: number, options: TapeOptions = {}): ForwardContext {
    return new ForwardContext(engine, new Tape(engine, options), scheme, { seed: seed >>> 0, step });
  }

  /** A pass that records but drops nothing: for gradients that can be compared. */
  static deterministic(engine: Engine, scheme: ActivationScheme, options: TapeOptions = {}): ForwardContext {
    return new ForwardContext(engine, new Tape(engine, options), scheme, undefined);
  }

  /** A pass that only computes: nothing is kept, quantized or dropped. */
  static evaluation(engine: Engine, options: Pick<TapeOptions, 'watch'> = {}): ForwardContext {
    return new ForwardContext(engine, new Tape(engine, { ...options, recording: false }), SCHEMES.exact, undefined);
  }

  /** The key of the next dropout, or undefined when this pass drops nothing. 4,096 draws a step are told apart. */
  nextDropout(): RandomKey | undefined {
    const d = this.dropoutSeed;
    return d && { seed: d.seed, counter: (d.step * 4096 + this.draws++) >>> 0 };
  }
}
