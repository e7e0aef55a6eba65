/** Reads the fields of a Hugging Face `config.json` strictly: each error names the field, its value and what it must be. */
import { UnsupportedModelError } from '../errors';
import { shown } from '../shown';

/** Most labels: a model of more than a million is a lie, and would take their names' memory before anything is looked at. */
const MOST_LABELS = 2 ** 20;
/** Most layers of a model: the deepest transformers that were trained have a thousand. */
export const MOST_LAYERS = 2 ** 14;
/** No size of a tensor, and no number of them, is above this. */
const MOST = 2 ** 31 - 1;

/** The fields of one config. Every method throws UnsupportedModelError. */
export class ConfigFields {
  constructor(private readonly json: Readonly<Record<string, unknown>>) {}

  /** A number that `valid` accepts. @param what the words for that, such as 'positive' */
  number(key: string, fallback: number | undefined, valid: (v: number) => boolean, what: string): number {
    const v = this.json[key] ?? fallback;
    if (typeof v !== 'number' || !valid(v)) throw new UnsupportedModelError(`config.json has ${key} ${shown(this.json[key])}; it must be ${what}`);
    return v;
  }

  /** @param most what is above would only cost memory */
  count(key: string, fallback?: number, most = MOST): number {
    return this.number(key, fallback, (v) => Number.isInteger(v) && v >= 1 && v <= most, `a whole number of at least 1${most < MOST ? ` and at most ${most}` : ''}`);
  }

  /** A share in [0, 1). */
  share(key: string, fallback: number): number {
    return this.number(key, fallback, (v) => v >= 0 && v < 1, 'in [0, 1)');
  }

  positive(key: string, fallback: number): number {
    return this.number(key, fallback, (v) => v > 0 && v < Infinity, 'positive');
  }

  /** One of some words. */
  oneOf<T extends string>(key: string, words: readonly T[]): T {
    const v = this.json[key];
    if (!words.includes(v as T)) throw new UnsupportedModelError(`config.json has ${key} ${shown(v)}; supported: ${words.join(', ')}`);
    return v as T;
  }

  /** Refuses any other value than this one, which also stands for a missing field. */
  only(key: string, value: string | boolean, why: string): void {
    const v = this.json[key] ?? value;
    if (v !== value) throw new UnsupportedModelError(`config.json has ${key} ${shown(v)}; ${why}`);
  }

  /** Names of the labels by index: `id2label`, or LABEL_0, … for `num_labels` (2 if there is neither). */
  labels(): Record<number, string> {
    const { id2label, num_labels: n = 2 } = this.json;
    if (id2label && typeof id2label === 'object') {
      const labels = id2label as Record<number, string>;
      const count = Object.keys(labels).length;
      if (count >= 1 && Array.from({ length: count }, (_, i) => labels[i]).every((l) => typeof l === 'string')) return { ...labels };
      throw new UnsupportedModelError(`config.json has id2label ${shown(id2label)}; it must name every index from 0`);
    }
    if (!(Number.isInteger(n) && (n as number) >= 1 && (n as number) <= MOST_LABELS)) throw new UnsupportedModelError(`config.json has num_labels ${shown(n)}; it must be a whole number of at least 1 and at most ${MOST_LABELS}`);
    return defaultLabels(n as number);
  }
}

/** LABEL_0, LABEL_1, … as Hugging Face names them. */
export function defaultLabels(n: number): Record<number, string> {
  return Object.fromEntries(Array.from({ length: n }, (_, i) => [i, `LABEL_${i}`]));
}
