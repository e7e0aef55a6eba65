/** Full fine-tuning as a policy: nothing is ever frozen. The yardstick for every other one. */
import { InvalidArgumentError } from '../errors';
import type { FreezableLayer } from './layer';
import type { FreezePolicy, PolicyState } from './policy';

/** Freezes nothing; still records how far each layer moved. */
export class NoFreezing implements FreezePolicy {
  readonly name = 'none';
  private readonly seen: Float64Array;

  constructor(layers: readonly FreezableLayer[]) {
    this.seen = new Float64Array(layers.length).fill(NaN);
  }

  get magnitudes(): Float64Array {
    return this.seen.slice();
  }

  select(): readonly number[] {
    return [];
  }

  observe(_step: number, magnitudes: ReadonlyMap<number, number>): void {
    for (const [layer, d] of magnitudes) this.seen[layer] = d;
  }

  state(): PolicyState {
    return { magnitudes: Array.from(this.seen, String) };
  }

  restore({ magnitudes }: PolicyState): void {
    if (!Array.isArray(magnitudes) || magnitudes.length !== this.seen.length)
      throw new InvalidArgumentError(`this policy state is not of ${this.seen.length} layers`);
    this.seen.set(magnitudes.map(Number));
  }
}
