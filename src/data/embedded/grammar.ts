/**
 * A small grammar of English-like sentences, our own, for the task that SlimFit brings along: is this sentence acceptable? (in the manner of CoLA).
 *
 *   S  → NP(n) VP(n) .          n: singular or plural, shared: subject and verb agree, also across what stands between them
 *   NP → Det(n) Adj* N(n) [PP | Rel(n)]
 *   PP → P NP        Rel(n) → that VT(n) NP
 *   VP → VI(n) [Adv] [PP] | VT(n) NP [Adv] | VL(n) Adj
 *
 * Unacceptable sentences break it in one place: a verb or a determiner of the wrong number, two words in the wrong order, or a word missing.
 */
import { Random } from '../../random';
import type { Example } from '../glue';

type Number_ = 0 | 1;

const NOUNS = 'artist baker bird boat book bottle boy bridge camel captain carpet castle cat chair child city cloud coat cook cousin crow dancer doctor dog door dragon driver duck eagle farmer fence field fisher flower forest fox friend garden gate girl goat guard guest hammer hill horse hunter island judge kettle king kite ladder lake lamp lawyer letter lion mirror monkey mountain nurse owl painter parrot pilot pirate planet poet prince queen rabbit ring river road robot rope sailor scholar shark ship singer sister soldier song spider star stone stranger student table teacher tiger tower train tree uncle village wagon wall whale window wizard wolf writer'.split(' ');
const ADJECTIVES = 'ancient angry blue bold brave bright broken busy calm careful clever cold curious dark empty famous fast friendly gentle golden great green happy heavy hidden honest hungry kind large lazy lonely loud lucky modern narrow noisy old patient pretty proud quiet rich round sad sharp shy silent silver simple slow small smooth strange strong tall thin tired tiny warm wild wise wooden young'.split(' ');
const TRANSITIVE = 'admire answer attack blame bring build call carry chase clean cover draw fear feed find follow forget greet guide hear help hide hold invite know lead leave like love meet miss move need notice paint praise pull push remember see sell serve surprise teach thank trust visit want warn watch'.split(' ');
const INTRANSITIVE = 'arrive cough dance disappear dream fall grow jump laugh listen live move rest return rise run shine shout sing sit sleep smile speak stand stay swim travel wait walk whisper work'.split(' ');
const LINKING = ['seem', 'look', 'appear', 'remain'];
const PREPOSITIONS = 'above behind below beside near under with without'.split(' ');
const ADVERBS = 'again alone carefully gladly loudly often quickly quietly rarely slowly together today'.split(' ');
const DETERMINERS: readonly [singular: string, plural: string][] = [
  ['this', 'these'],
  ['that', 'those'],
  ['every', 'many'],
  ['a', 'some'],
  ['each', 'several'],
  ['the', 'the'],
];

const plural = (noun: string): string => (noun === 'child' ? 'children' : noun === 'wolf' ? 'wolves' : /[^aeou]y$/.test(noun) ? `${noun.slice(0, -1)}ies` : /(s|x|ch|sh)$/.test(noun) ? `${noun}es` : `${noun}s`);
const thirdPerson = (verb: string): string => (/[^aeou]y$/.test(verb) ? `${verb.slice(0, -1)}ies` : /(s|x|ch|sh)$/.test(verb) ? `${verb}es` : `${verb}s`);
const nounOf = (noun: string, n: Number_): string => (n === 0 ? noun : plural(noun));
const verbOf = (verb: string, n: Number_): string => (n === 0 ? thirdPerson(verb) : verb);
const article = (det: string, next: string): string => (det === 'a' && /^[aeiou]/.test(next) ? 'an' : det);

/** Every word of the grammar, sorted. */
export const GRAMMAR_WORDS: readonly string[] = [
  ...new Set([
    ...NOUNS.flatMap((n) => [n, plural(n)]),
    ...ADJECTIVES,
    ...[...TRANSITIVE, ...INTRANSITIVE, ...LINKING].flatMap((v) => [v, thirdPerson(v)]),
    ...PREPOSITIONS,
    ...ADVERBS,
    ...DETERMINERS.flat(),
    'an',
    'that',
    '.',
  ]),
].sort();

/** A word and what may be broken about it. */
interface Word {
  readonly text: string;
  /** The same word of the other number, when that makes the sentence ungrammatical. */
  readonly wrongNumber?: string;
  /** Whether the sentence is ungrammatical without it. */
  readonly needed?: boolean;
  /** Whether it may not change places with the next word. */
  readonly beforeNext?: boolean;
}

class Writer {
  readonly words: Word[] = [];
  constructor(private readonly random: Random) {}

  private pick<T>(from: readonly T[]): T {
    return from[this.random.int(from.length)];
  }
  private chance(p: number): boolean {
    return this.random.uniform() < p;
  }

  nounPhrase(n: Number_, depth: number): void {
    const det = this.pick(DETERMINERS);
    const adjectives = Array.from({ length: this.chance(0.35) ? (this.chance(0.25) ? 2 : 1) : 0 }, () => this.pick(ADJECTIVES));
    const noun = this.pick(NOUNS);
    const head = nounOf(noun, n);
    const next = adjectives[0] ?? head;
    const own = article(det[n], next);
    const other = article(det[1 - n], next);
    // "the" goes with both numbers. A bare plural is English, so only a singular's determiner is needed.
    this.words.push({ text: own, wrongNumber: own === other ? undefined : other, needed: n === 0, beforeNext: true });
    for (const a of adjectives) this.words.push({ text: a, beforeNext: true });
    this.words.push({ text: head, needed: true });
    if (depth === 0) return;
    if (this.chance(0.2)) this.prepositional(depth - 1);
    else if (this.chance(0.12)) {
      this.words.push({ text: 'that', beforeNext: true });
      this.verb(this.pick(TRANSITIVE), n);
      this.nounPhrase(this.number(), 0);
    }
  }

  private prepositional(depth: number): void {
    this.words.push({ text: this.pick(PREPOSITIONS), needed: true, beforeNext: true });
    this.nounPhrase(this.number(), depth);
  }

  private verb(verb: string, n: Number_, needed = true): void {
    this.words.push({ text: verbOf(verb, n), wrongNumber: verbOf(verb, (1 - n) as Number_), needed, beforeNext: true });
  }

  private number(): Number_ {
    return this.chance(0.5) ? 1 : 0;
  }

  sentence(): void {
    const n = this.number();
    this.nounPhrase(n, 1);
    const kind = this.random.uniform();
    if (kind < 0.4) {
      this.verb(this.pick(INTRANSITIVE), n);
      if (this.chance(0.4)) this.words.push({ text: this.pick(ADVERBS) });
      if (this.chance(0.4)) this.prepositional(0);
    } else if (kind < 0.85) {
      this.verb(this.pick(TRANSITIVE), n);
      this.nounPhrase(this.number(), 1);
      if (this.chance(0.3)) this.words.push({ text: this.pick(ADVERBS) });
    } else {
      this.verb(this.pick(LINKING), n);
      this.words.push({ text: this.pick(ADJECTIVES), needed: true });
    }
    this.words.push({ text: '.' });
  }

  /** Breaks the sentence in one place. */
  broken(): string[] {
    const texts = this.words.map((w) => w.text);
    const at = (test: (w: Word, i: number) => boolean): number => this.pick(this.words.flatMap((w, i) => (test(w, i) ? [i] : [])));
    const kind = this.random.uniform();
    if (kind < 0.5) {
      const i = at((w) => w.wrongNumber !== undefined);
      if (i !== undefined) texts[i] = this.words[i].wrongNumber!;
    } else if (kind < 0.75) {
      const i = at((w, k) => w.beforeNext === true && this.words[k + 1]?.needed === true);
      [texts[i], texts[i + 1]] = [texts[i + 1], texts[i]];
    } else texts.splice(at((w) => w.needed === true), 1);
    return texts;
  }
}

/** Acceptable sentences, all different. */
export function generateText(count: number, seed: number): string[] {
  const random = new Random(seed);
  const seen = new Set<string>();
  while (seen.size < count) {
    const w = new Writer(random);
    w.sentence();
    seen.add(w.words.map((x) => x.text).join(' '));
  }
  return [...seen];
}

/** Sentences with label 1 (acceptable) or 0 (broken in one place), half each, in random order, all different. */
export function generateAcceptability(count: number, seed: number): Example[] {
  const random = new Random(seed + 2 ** 32);
  const seen = new Set<string>();
  const examples: Example[] = [];
  while (examples.length < count) {
    const label = examples.length % 2;
    const w = new Writer(random);
    w.sentence();
    const good = w.words.map((x) => x.text);
    const text = (label === 1 ? good : w.broken()).join(' ');
    if (text === good.join(' ') && label === 0) continue;
    if (seen.has(text)) continue;
    seen.add(text);
    examples.push({ text, label });
  }
  return Array.from(random.permutation(count), (i) => examples[i]);
}
