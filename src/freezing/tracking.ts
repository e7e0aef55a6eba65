/** What most policies share: they remember how far each layer moved when it last trained, whether or not they go by it. */
import { InvalidArgumentError } from '../errors';
import type { FreezableLayer } from './layer';
import type { FreezePolicy, KeptBytes, PolicyState, StepObservation } from './policy';

/** A policy that keeps the magnitudes; what is frozen is up to `select`. NaN: has not trained yet. */
export abstract class TrackingPolicy implements FreezePolicy {
  abstract readonly name: string;
  private readonly seen: Float64Array;

  constructor(readonly layers: readonly FreezableLayer[]) {
    this.seen = new Float64Array(layers.length).fill(NaN);
  }

  get magnitudes(): Float64Array {
    return this.seen.slice();
  }

  abstract select(step: number, keeps?: KeptBytes): readonly number[];

  observe(_step: number, magnitudes: ReadonlyMap<number, number>, _more?: StepObservation): void {
    for (const [layer, d] of magnitudes) this.seen[layer] = d;
  }

  state(): PolicyState {
    return { magnitudes: textOf(this.seen) };
  }

  restore({ magnitudes }: PolicyState): void {
    this.seen.set(numbersOf(magnitudes, this.seen.length, this.name));
  }
}

/** Numbers as text, which keeps NaN, infinities and −0; JSON does not. */
export function textOf(values: ArrayLike<number>): string[] {
  return Array.from(values, (v) => (Object.is(v, -0) ? '-0' : String(v)));
}

/** The same back. @throws InvalidArgumentError unless it is a list of `length` */
export function numbersOf(stored: unknown, length: number, policy: string): Float64Array {
  if (!Array.isArray(stored) || stored.length !== length)
    throw new InvalidArgumentError(`this state is not of the policy ${policy} over ${length} values: it holds ${Array.isArray(stored) ? stored.length : 'none'}`);
  return Float64Array.from(stored, Number);
}
