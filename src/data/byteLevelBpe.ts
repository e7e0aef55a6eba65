/**
 * Byte-level BPE with the place of each token, as Hugging Face's Rust tokenizers do it (tokenizers: pre_tokenizers/byte_level.rs, tokenizer/added_vocabulary.rs; Radford et
 * al. 2019, §2.2): added tokens first, then words by GPT-2's pattern, the bytes of a word as printable characters, merged by the library's BPE.
 *
 * The JavaScript library's own pattern takes U+FEFF for white space and U+0085 for none, and knows letters and digits that are newer than Rust's tables: other words, other ids.
 */
import type { BPE } from '@huggingface/tokenizers';
import { CheckpointError } from '../errors';

/** An added token of tokenizer.json, as far as it matters where it stands. */
export interface PlacedToken {
  readonly id: number;
  readonly content: string;
  /** Whether it takes the white space before, or behind it. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  /** Whether it is looked for only where none of the others was found. */
  readonly normalized: boolean;
}

/** Tokens, and the part [start, end) of the text that each stands for, in UTF-16 units. */
interface Placed {
  readonly ids: number[];
  readonly starts: number[];
  readonly ends: number[];
}

/** Letters and digits of Unicode 17: Rust has the tables of Unicode 16. Found by asking Hugging Face's tokenizers 0.23 for every code point. */
const NEW_LETTERS =
  '\\u088f\\u0c5c\\u0cdc\\ua7ce\\ua7cf\\ua7d2\\ua7d4\\ua7f1\\u{10940}-\\u{10959}\\u{10ec5}-\\u{10ec7}\\u{11db0}-\\u{11ddb}\\u{16ea0}-\\u{16eb8}\\u{16ebb}-\\u{16ed3}\\u{16ff2}\\u{16ff3}' +
  '\\u{187f8}-\\u{187ff}\\u{18d09}-\\u{18d1e}\\u{18d80}-\\u{18df2}\\u{1e6c0}-\\u{1e6de}\\u{1e6e0}-\\u{1e6e2}\\u{1e6e4}\\u{1e6e5}\\u{1e6e7}-\\u{1e6ed}\\u{1e6f0}-\\u{1e6f4}\\u{1e6fe}' +
  '\\u{1e6ff}\\u{2b73a}-\\u{2b73f}\\u{2cea2}-\\u{2cead}\\u{323b0}-\\u{33479}';
const NEW_DIGITS = '\\u{11de0}-\\u{11de9}\\u{16ff4}-\\u{16ff6}';
const LETTER = `[\\p{L}--[${NEW_LETTERS}]]`;
const DIGIT = `[\\p{N}--[${NEW_DIGITS}]]`;
const SPACE = '\\p{White_Space}';
const OTHER = `[[^${SPACE}\\p{L}\\p{N}]${NEW_LETTERS}${NEW_DIGITS}]`;
/** GPT-2's words: a blank belongs to the word behind it. */
const WORDS = new RegExp(`'s|'t|'re|'ve|'m|'ll|'d| ?${LETTER}+| ?${DIGIT}+| ?${OTHER}+|${SPACE}+(?!\\P{White_Space})|${SPACE}+`, 'gv');

const leadingSpace = (text: string): number => /^\p{White_Space}*/u.exec(text)![0].length;
function trailingSpace(text: string): number {
  // Not by a pattern: it would try every blank of a long text.
  let end = text.length;
  while (end > 0 && /\p{White_Space}/u.test(text[end - 1])) end--;
  return text.length - end;
}

/** Printable characters that stand for the 256 bytes: Latin-1's for themselves, the others from U+0100 on (GPT-2, encoder.py). */
const ALPHABET: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xff && b !== 0xad) ? b : next++));
})();
const BLANK = ALPHABET[0x20];
const UTF8 = new TextEncoder();
/** Words whose tokens are remembered, at most: some 20 MB. */
const MOST_WORDS = 100_000;

export class ByteLevelBpe {
  /** Those that are looked for first, and those that are looked for in the rest. */
  private readonly passes: readonly AddedTokens[];
  /** Tokens of words met so far, with places in the word. */
  private readonly words = new Map<string, Placed>();

  /** @throws CheckpointError when a merge makes a token that the vocabulary does not have */
  constructor(
    private readonly model: BPE,
    added: readonly PlacedToken[],
    private readonly addPrefixSpace: boolean,
  ) {
    const bad = model.merges.find(([a, b]) => !model.tokens_to_ids.has(a + b));
    if (bad) throw new CheckpointError(`'${bad.join(' ')}' is merged, but the vocabulary has no '${bad.join('')}'`);
    this.passes = [false, true].map((normalized) => new AddedTokens(added.filter((t) => t.normalized === normalized && t.content !== '')));
  }

  /** Whether a vocabulary has every byte, so that any text is made of its tokens. */
  static hasEveryByte(vocabulary: { has(token: string): boolean }): boolean {
    return ALPHABET.every((c) => vocabulary.has(c));
  }

  /**
   * Tokens of a text. A token that begins or ends inside a character has the whole character's place; blanks at a token's ends are not of its place (`trim_offsets`), so that
   * a token of blanks alone has an empty one. The blank that `add_prefix_space` puts first has no place.
   */
  tokens(text: string): Placed {
    const out: Placed = { ids: [], starts: [], ends: [] };
    this.place(text, 0, 0, out);
    return out;
  }

  private place(text: string, offset: number, pass: number, out: Placed): void {
    if (text === '') return;
    if (pass === this.passes.length) return this.placeWords(text, offset, out);
    let at = 0;
    for (const { token, start, end, before, behind } of this.passes[pass].find(text)) {
      this.place(text.slice(at, before), offset + at, pass + 1, out);
      const begin = Math.min(start + leadingSpace(token.content), end);
      out.ids.push(token.id);
      out.starts.push(offset + begin);
      out.ends.push(offset + Math.max(end - trailingSpace(token.content), begin));
      at = behind;
    }
    this.place(text.slice(at), offset + at, pass + 1, out);
  }

  private placeWords(text: string, offset: number, out: Placed): void {
    const added = this.addPrefixSpace && !text.startsWith(' ') ? 1 : 0;
    let at = offset - added;
    for (const [word] of (added ? ` ${text}` : text).matchAll(WORDS)) {
      const { ids, starts, ends } = this.wordTokens(word);
      for (let i = 0; i < ids.length; i++) {
        out.ids.push(ids[i]);
        out.starts.push(at + starts[i]);
        out.ends.push(at + ends[i]);
      }
      at += word.length;
    }
  }

  private wordTokens(word: string): Placed {
    const known = this.words.get(word);
    if (known) return known;
    let bytes = '';
    const starts: number[] = [];
    const ends: number[] = [];
    let at = 0;
    for (const character of word) {
      for (const byte of UTF8.encode(character)) {
        bytes += ALPHABET[byte];
        starts.push(at);
        ends.push(at + character.length);
      }
      at += character.length;
    }
    const made: Placed = { ids: [], starts: [], ends: [] };
    let from = 0;
    for (const token of this.model.encode([bytes])) {
      const to = from + token.length;
      let [first, last] = [from, to];
      while (first < last && bytes[first] === BLANK) first++;
      while (first < last && bytes[last - 1] === BLANK) last--;
      made.ids.push(this.model.tokens_to_ids.get(token)!);
      made.starts.push(first < last ? starts[first] : ends[to - 1]);
      made.ends.push(ends[(first < last ? last : to) - 1]);
      from = to;
    }
    if (this.words.size >= MOST_WORDS) this.words.clear();
    this.words.set(word, made);
    return made;
  }
}

/** Where added tokens stand in a text: the first, of several that begin there the longest. */
class AddedTokens {
  private readonly byContent: ReadonlyMap<string, PlacedToken>;
  private readonly pattern: RegExp;

  constructor(tokens: readonly PlacedToken[]) {
    this.byContent = new Map(tokens.map((t) => [t.content, t]));
    const contents = tokens.map((t) => t.content.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')).sort((x, y) => y.length - x.length);
    this.pattern = contents.length > 0 ? new RegExp(contents.join('|'), 'g') : /(?!)/g;
  }

  /** Places [start, end) of tokens, and [before, behind) with the white space that they take. */
  *find(text: string): Generator<{ readonly token: PlacedToken; readonly start: number; readonly end: number; readonly before: number; readonly behind: number }> {
    let done = 0;
    for (const match of text.matchAll(this.pattern)) {
      const token = this.byContent.get(match[0])!;
      const start = match.index!;
      const end = start + token.content.length;
      const before = token.lstrip && start > done ? start - trailingSpace(text.slice(done, start)) : start;
      const behind = token.rstrip ? end + leadingSpace(text.slice(end)) : end;
      yield { token, start, end, before, behind };
      done = behind;
    }
  }
}
