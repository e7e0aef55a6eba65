/** Reads the fields of a Hugging Face `config.json` strictly: each error names the field, its value and what it must be. */
import { UnsupportedModelError } from '../errors';

/** The fields of one config. Every method throws UnsupportedModelError. */
export class ConfigFields {
  constructor(private readonly json: Readonly<Record<string, unknown>>) {}

  /** A number that `valid` accepts. @param what the words for that, such as 'positive' */
  number(key: string, fallback: number | undefined, valid: (v: number) => boolean, what: string): number {
    const v = this.json[key] ?? fallback;
    if (typeof v !== 'number' || !valid(v)) throw new UnsupportedModelError(`config.json has ${key} ${JSON.stringify(this.json[key])}; it must be ${what}`);
    return v;
  }

  count(key: string, fallback?: number): number {
    return this.number(key, fallback, (v) => Number.isInteger(v) && v >= 1, 'a whole number of at least 1');
  }

  /** A share in [0, 1). */
  share(key: string, fallback: number): number {
    return this.number(key, fallback, (v) => v >= 0 && v < 1, 'in [0, 1)');
  }

  positive(key: string, fallback: number): number {
    return this.number(key, fallback, (v) => v > 0, 'positive');
  }

  /** One of some words. */
  oneOf<T extends string>(key: string, words: readonly T[]): T {
    const v = this.json[key];
    if (!words.includes(v as T)) throw new UnsupportedModelError(`config.json has ${key} ${JSON.stringify(v)}; supported: ${words.join(', ')}`);
    return v as T;
  }

  /** Refuses any other value than this one, which also stands for a missing field. */
  only(key: string, value: string | boolean, why: string): void {
    const v = this.json[key] ?? value;
    if (v !== value) throw new UnsupportedModelError(`config.json has ${key} ${JSON.stringify(v)}; ${why}`);
  }

  /** Names of the labels by index: `id2label`, or LABEL_0, … for `num_labels` (2 if there is neither). */
  labels(): Record<number, string> {
    const { id2label, num_labels: n = 2 } = this.json;
    if (id2label && typeof id2label === 'object') {
      const labels = id2label as Record<number, string>;
      const count = Object.keys(labels).length;
      if (count >= 1 && Array.from({ length: count }, (_, i) => labels[i]).every((l) => typeof l === 'string')) return { ...labels };
      throw new UnsupportedModelError(`config.json has id2label ${JSON.stringify(id2label)}; it must name every index from 0`);
    }
    if (!(Number.isInteger(n) && (n as number) >= 1)) throw new UnsupportedModelError(`config.json has num_labels ${JSON.stringify(n)}; it must be a whole number of at least 1`);
    return defaultLabels(n as number);
  }
}

/** LABEL_0, LABEL_1, … as Hugging Face names them. */
export function defaultLabels(n: number): Record<number, string> {
  return Object.fromEntries(Array.from({ length: n }, (_, i) => [i, `LABEL_${i}`]));
}
