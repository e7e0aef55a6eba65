/** What a forward pass carries along: where it computes, what it records, how activations are kept, which random draws dropout makes. */
import type { Engine, RandomKey } from '../engine/engine';
import type { ActivationScheme } from '../tape/scheme';
import { SCHEMES } from '../tape/scheme';
import { Tape, type TapeOptions } from '../tape/tape';

/** Options of a forward pass that records. */
export interface ForwardOptions extends TapeOptions {
  /** Whether of an encoder layer only its input is kept, and its forward run again in backward (checkpoint.ts). Default false. */
  readonly gradientCheckpointing?: boolean;
  /** What the loss's gradient is multiplied by: the share of a step's examples that this pass has. Default 1. */
  readonly lossWeight?: number;
}

/** The context of one forward pass. */
export class ForwardContext {
  /** Whether of an encoder layer only its input is kept, and its forward run again in backward. */
  readonly gradientCheckpointing: boolean;
  /** What the loss's gradient is multiplied by. */
  readonly lossWeight: number;
  private draws = 0;
  private constructor(
    readonly engine: Engine,
    readonly tape: Tape,
    readonly scheme: ActivationScheme,
    private readonly dropoutSeed: { seed: number; step: number } | undefined,
    { gradientCheckpointing = false, lossWeight = 1 }: ForwardOptions = {},
  ) {
    this.gradientCheckpointing = gradientCheckpointing;
    this.lossWeight = lossWeight;
  }

  /** A pass that trains. `step` picks the random stream of dropout: equal steps of equal seeds draw equal masks. */
  static training(engine: Engine, scheme: ActivationScheme, seed: number, step: number, options: ForwardOptions = {}): ForwardContext {
    return new ForwardContext(engine, new Tape(engine, options), scheme, { seed: seed >>> 0, step }, options);
  }

  /** A pass that records but drops nothing: for gradients that can be compared. */
  static deterministic(engine: Engine, scheme: ActivationScheme, options: ForwardOptions = {}): ForwardContext {
    return new ForwardContext(engine, new Tape(engine, options), scheme, undefined, options);
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

  /** Makes passes over what comes next in this one, each on a tape of its own within this one's, all with the dropout that this one would draw from here on. */
  branches(): (options: Pick<TapeOptions, 'recording'>) => ForwardContext {
    const { engine, tape, scheme, dropoutSeed, draws } = this;
    return (options) => {
      const branch = new ForwardContext(engine, new Tape(engine, { ...options, within: tape }), scheme, dropoutSeed);
      branch.draws = draws;
      return branch;
    };
  }

  /** Goes on behind what a branch went over: its draws of dropout are not made again. */
  skipTo(branch: ForwardContext): void {
    this.draws = branch.draws;
  }
}
