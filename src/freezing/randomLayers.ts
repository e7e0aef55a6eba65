/**
 * Random layers every K steps: LISA (Pan et al. 2024, arXiv 2403.17919, Algorithm 1). Embeddings and head always train; of the blocks between them γ are drawn at random, all equally likely, every
 * K steps. LISA draws whole transformer blocks; `granularity: 'weight'` draws single weights. Frozen layers are frozen with their biases; but since the embeddings always train, backward still runs
 * through the whole model.
 */
import { InvalidArgumentError } from '../errors';
import { Random } from '../random';
import { type Granularity, groupsOf, layersOutside, type LayerGroup } from './blocks';
import type { FreezableLayer } from './layer';
import { checkWhole, checkWord } from './options';
import { TrackingPolicy } from './tracking';

/** Options of random layers. */
export interface RandomLayersOptions {
  /** Blocks (or weights) that train beside embeddings and head, γ. Default 2. */
  readonly activatedLayers?: number;
  /** Steps until others are drawn, K. Default 20. */
  readonly intervalSteps?: number;
  /** What is drawn: whole encoder blocks, or single weights of them. Default `block`. */
  readonly granularity?: Granularity;
  /** Default 43. */
  readonly seed?: number;
}

/** LISA's policy. */
export class RandomLayers extends TrackingPolicy {
  readonly name = 'random-layers';
  readonly label: string;
  readonly freezesBiases = true;
  private readonly groups: readonly LayerGroup[];
  /** Places in `groups` of those that are drawn from. */
  private readonly between: readonly number[];
  private readonly activated: number;
  private readonly interval: number;
  private readonly seed: number;

  /** @throws InvalidArgumentError for a γ below 1 or above the number of blocks, a K below 1 */
  constructor(layers: readonly FreezableLayer[], { activatedLayers = 2, intervalSteps = 20, granularity = 'block', seed = 43 }: RandomLayersOptions = {}) {
    super(layers);
    checkWord('granularity', granularity, ['weight', 'block']);
    checkWhole('activatedLayers', activatedLayers);
    checkWhole('intervalSteps', intervalSteps);
    this.groups = groupsOf(layers, granularity);
    this.between = this.groups.flatMap((g, i) => (g.part === 'encoder' ? [i] : []));
    const what = granularity === 'block' ? 'encoder blocks' : 'weights in its encoder';
    if (activatedLayers > this.between.length) throw new InvalidArgumentError(`activatedLayers is ${activatedLayers}, but the model has ${this.between.length} freezable ${what}`);
    this.activated = activatedLayers;
    this.interval = intervalSteps;
    this.seed = seed;
    this.label = `${activatedLayers} random ${granularity}${activatedLayers === 1 ? '' : 's'} every ${intervalSteps} steps`;
  }

  select(step: number): readonly number[] {
    // A stream for each interval, so that the draw is a function of seed and step.
    const random = new Random(this.seed + 2 ** 32 * (1 + Math.floor(step / this.interval)));
    const drawn = new Set(Array.from(random.permutation(this.between.length).slice(0, this.activated), (i) => this.between[i]));
    return layersOutside(this.groups, (g, i) => g.part !== 'encoder' || drawn.has(i));
  }
}
