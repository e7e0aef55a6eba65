/**
 * Biases only: BitFit (Ben Zaken et al. 2021, arXiv 2106.10199, §3). All weights are frozen, all biases train, and with them the head that the task brings (not the pooler, which is pre-trained).
 */
import { isTaskHead } from './blocks';
import type { FreezableLayer } from './layer';
import { checkWord } from './options';
import { TrackingPolicy } from './tracking';

/** Options of BitFit. */
export interface BitFitOptions {
  /** Whether the weights of the task's head train. Default `train`. */
  readonly head?: 'train' | 'freeze';
}

/** BitFit's policy. */
export class BitFit extends TrackingPolicy {
  readonly name = 'bitfit';
  readonly freezesBiases = false;
  readonly label: string;
  private readonly frozen: readonly number[];

  constructor(layers: readonly FreezableLayer[], { head = 'train' }: BitFitOptions = {}) {
    super(layers);
    checkWord('head', head, ['train', 'freeze']);
    this.frozen = layers.filter((l) => head === 'freeze' || !isTaskHead(l.name)).map((l) => l.index);
    this.label = head === 'train' ? 'BitFit' : 'BitFit, head frozen';
  }

  select(): readonly number[] {
    return this.frozen;
  }
}
