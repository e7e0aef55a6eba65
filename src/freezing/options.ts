/** Checks of options that several policies have. */
import { InvalidArgumentError } from '../errors';

/** @throws InvalidArgumentError unless it is a whole number of at least `least` */
export function checkWhole(name: string, value: number, least = 1): void {
  if (!(Number.isInteger(value) && value >= least)) throw new InvalidArgumentError(`${name} is ${value}; it must be a whole number of at least ${least}`);
}

/** @throws InvalidArgumentError unless `from` ≤ value ≤ `to` */
export function checkRange(name: string, value: number, from: number, to: number): void {
  if (!(value >= from && value <= to)) throw new InvalidArgumentError(`${name} is ${value}; it must lie in [${from}, ${to}]`);
}

/** @throws InvalidArgumentError unless it is one of these words */
export function checkWord<W extends string>(name: string, value: W, words: readonly W[]): void {
  if (!words.includes(value)) throw new InvalidArgumentError(`${name} is '${value}'; it must be one of ${words.join(', ')}`);
}
