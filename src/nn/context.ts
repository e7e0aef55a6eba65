/** What a forward pass carries along: where it computes, what it records, how activations are kept, which random draws dropout makes. */
import type { Engine, RandomKey } from '../engine/engine';
import type { ActivationScheme } from '../tape/scheme';
import { SCHEMES } from '../tape/scheme';
import { Tape, type TapeOptions } from '../tape/tape';
import { checkBlockBytes } from './blocks';

/** Options of a forward pass. */
export interface ForwardOptions extends TapeOptions {
  /**
   * Most bytes that one temporary of attention or of the MLP may have: larger ones are computed block by block (blocks.ts). Default: no limit. A pass that is watched computes whole tensors, so that they
   * can be seen.
   */
  readonly blockBytes?: number;
  /** Whether of an encoder layer only its input is kept, and its forward run again in backward (checkpoint.ts). Default false. */
  readonly gradientCheckpointing?: boolean;
  /** What the loss's gradient is multiplied by: the share of a step's examples that this pass has. Default 1. */
  readonly lossWeight?: number;
}

/** The context of one forward pass. */
export class ForwardContext {
  readonly tape: Tape;
  /** Most bytes of one temporary of attention or of the MLP. */
  readonly blockBytes: number;
  /** Whether of an encoder layer only its input is kept, and its forward run again in backward. */
  readonly gradientCheckpointing: boolean;
  /** What the loss's gradient is multiplied by. */
  readonly lossWeight: number;
  private draws = 0;
  private constructor(
    readonly engine: Engine,
    readonly scheme: ActivationScheme,
    private readonly dropoutSeed: { seed: number; step: number } | undefined,
    options: ForwardOptions,
  ) {
    const { blockBytes = Infinity, gradientCheckpointing = false, lossWeight = 1 } = options;
    checkBlockBytes(blockBytes);
    this.tape = new Tape(engine, options);
    this.blockBytes = options.watch ? Infinity : blockBytes;
    this.gradientCheckpointing = gradientCheckpointing;
    this.lossWeight = lossWeight;
  }

  /** A pass that trains. `step` picks the random stream of dropout: equal steps of equal seeds draw equal masks. */
  static training(engine: Engine, scheme: ActivationScheme, seed: number, step: number, options: ForwardOptions = {}): ForwardContext {
    return new ForwardContext(engine, scheme, { seed: seed >>> 0, step }, options);
  }

  /** A pass that records but drops nothing: for gradients that can be compared. */
  static deterministic(engine: Engine, scheme: ActivationScheme, options: ForwardOptions = {}): ForwardContext {
    return new ForwardContext(engine, scheme, undefined, options);
  }

  /** A pass that only computes: nothing is kept, quantized or dropped. */
  static evaluation(engine: Engine, options: Pick<ForwardOptions, 'watch' | 'blockBytes'> = {}): ForwardContext {
    return new ForwardContext(engine, SCHEMES.exact, undefined, { ...options, recording: false });
  }

  /** The key of the next dropout, or undefined when this pass drops nothing. 4,096 draws a step are told apart. */
  nextDropout(): RandomKey | undefined {
    const d = this.dropoutSeed;
    return d && { seed: d.seed, counter: (d.step * 4096 + this.draws++) >>> 0 };
  }

  /** Makes passes over what comes next in this one, each on a tape of its own within this one's, all with the dropout that this one would draw from here on. */
  branches(): (options: Pick<TapeOptions, 'recording'>) => ForwardContext {
    const { engine, tape, scheme, dropoutSeed, draws, blockBytes } = this;
    return (options) => {
      const branch = new ForwardContext(engine, scheme, dropoutSeed, { ...options, within: tape, blockBytes });
      branch.draws = draws;
      return branch;
    };
  }

  /** Goes on behind what a branch went over: its draws of dropout are not made again. */
  skipTo(branch: ForwardContext): void {
    this.draws = branch.draws;
  }
}
