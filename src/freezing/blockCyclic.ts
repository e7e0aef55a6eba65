/**
 * One block at a time: BAdam (Luo et al. 2024, arXiv 2404.02827, Algorithm 1), block coordinate descent with Adam inside. One block trains for K steps, then the next, until all have had their turn; in a random
 * order, drawn anew for each round, or from input to output or back. Embeddings and head are blocks too. Frozen layers are frozen with their biases, so nothing is kept below the block that trains.
 * BAdam forgets the moments of a block when its turn ends; here a parameter keeps its moments, unless the optimizer's `idleMoments` is 'release'.
 */
import { Random } from '../random';
import { type Granularity, groupsOf, layersOutside, type LayerGroup } from './blocks';
import type { FreezableLayer } from './layer';
import { checkWhole, checkWord } from './options';
import { TrackingPolicy } from './tracking';

/** Order of the blocks in a round: drawn anew for each, from input to output, from output to input. */
export type SwitchMode = 'random' | 'ascending' | 'descending';

/** Options of block-cyclic training. */
export interface BlockCyclicOptions {
  /** Steps of a block's turn, K. Default 50. */
  readonly switchBlockEvery?: number;
  /** Default `random`. */
  readonly switchMode?: SwitchMode;
  /** What a block is: embeddings, an encoder block, the head; or a single weight. Default `block`. */
  readonly granularity?: Granularity;
  /** Of the random order. Default 43. */
  readonly seed?: number;
}

/** BAdam's policy. */
export class BlockCyclic extends TrackingPolicy {
  readonly name = 'block-cyclic';
  readonly label: string;
  readonly freezesBiases = true;
  private readonly groups: readonly LayerGroup[];
  private readonly every: number;
  private readonly mode: SwitchMode;
  private readonly seed: number;

  /** @throws InvalidArgumentError for a K below 1 or an unknown order */
  constructor(layers: readonly FreezableLayer[], { switchBlockEvery = 50, switchMode = 'random', granularity = 'block', seed = 43 }: BlockCyclicOptions = {}) {
    super(layers);
    checkWord('granularity', granularity, ['weight', 'block']);
    checkWord('switchMode', switchMode, ['random', 'ascending', 'descending']);
    checkWhole('switchBlockEvery', switchBlockEvery);
    this.groups = groupsOf(layers, granularity);
    this.every = switchBlockEvery;
    this.mode = switchMode;
    this.seed = seed;
    this.label = `${granularity} by ${granularity}, ${switchMode}, ${switchBlockEvery} steps each`;
  }

  select(step: number): readonly number[] {
    const { groups, mode } = this;
    const turn = Math.floor(step / this.every);
    const [round, place] = [Math.floor(turn / groups.length), turn % groups.length];
    const active =
      mode === 'ascending' ? place : mode === 'descending' ? groups.length - 1 - place : new Random(this.seed + 2 ** 32 * (1 + round)).permutation(groups.length)[place];
    return layersOutside(groups, (_, i) => i === active);
  }
}
