/**
 * Front to back on a schedule: FreezeOut (Brock et al. 2017, arXiv 1706.04983, §2). Of n blocks in model order, block i trains until t_i = t₀ + (1 − t₀)·i/(n − 1) of the run, i from 0, and is frozen for
 * good then; the cubic schedule takes t_i³ (t₀ is given before cubing, as in the authors' code). The last block trains to the end. Frozen layers are frozen with their biases, so backward ends at
 * the lowest block that trains. FreezeOut also brings the learning rate of each block to 0 by a cosine until t_i; here the run's schedule goes for all.
 */
import { type Granularity, groupsOf, layersOutside, type LayerGroup } from './blocks';
import type { FreezableLayer } from './layer';
import { checkRange, checkWhole, checkWord } from './options';
import { TrackingPolicy } from './tracking';

/** Options of FreezeOut. */
export interface FreezeOutOptions {
  /** Steps of the run. */
  readonly totalSteps: number;
  /** Share of the run after which the first block is frozen, in [0, 1], before cubing. Default 0.5. */
  readonly t0?: number;
  /** Default `cubic`. */
  readonly schedule?: 'linear' | 'cubic';
  /** What is frozen at one time. Default `block`. */
  readonly granularity?: Granularity;
}

/** FreezeOut's policy. */
export class FreezeOut extends TrackingPolicy {
  readonly name = 'freeze-out';
  readonly label: string;
  readonly freezesBiases = true;
  private readonly groups: readonly LayerGroup[];
  /** First step in which each group is frozen, ascending. */
  readonly stops: readonly number[];

  /** @throws InvalidArgumentError for a t₀ outside [0, 1], a run of no steps, an unknown schedule */
  constructor(layers: readonly FreezableLayer[], { totalSteps, t0 = 0.5, schedule = 'cubic', granularity = 'block' }: FreezeOutOptions) {
    super(layers);
    checkWhole('totalSteps', totalSteps);
    checkRange('t0', t0, 0, 1);
    checkWord('schedule', schedule, ['linear', 'cubic']);
    checkWord('granularity', granularity, ['weight', 'block']);
    this.groups = groupsOf(layers, granularity);
    const last = this.groups.length - 1;
    this.stops = this.groups.map((_, i) => {
      const t = i === last ? 1 : t0 + ((1 - t0) * i) / last;
      // Whoever trains to the end of the schedule goes on after it.
      return t >= 1 ? Infinity : Math.round((schedule === 'cubic' ? t ** 3 : t) * totalSteps);
    });
    this.label = `FreezeOut, ${schedule}, t0 ${t0}`;
  }

  select(step: number): readonly number[] {
    return layersOutside(this.groups, (_, i) => step < this.stops[i]);
  }
}
