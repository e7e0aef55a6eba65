/**
 * How BERT prepares text before WordPiece, exactly as Hugging Face's Rust tokenizers do (tokenizers: normalizers/bert.rs, pre_tokenizers/bert.rs).
 *
 * The JavaScript library differs from it in three ways that change token ids: it sees no CJK character outside the Basic Multilingual Plane, it lower-cases whole strings
 * (so that a final Σ becomes ς where Rust, character by character, writes σ), and it classifies characters by the JavaScript engine's Unicode tables, which are
 * newer than Rust's. `Tokenizer` puts these functions in the place of the library's.
 */

/** The settings of tokenizer.json's `BertNormalizer`. */
export interface BertTextOptions {
  /** Drop control characters, make every white space a blank. */
  readonly cleanText: boolean;
  /** Blanks around CJK characters, so that each is a word. */
  readonly chineseChars: boolean;
  readonly lowerCase: boolean;
  readonly stripAccents: boolean;
}

/** CJK ideographs by code point, first and last (Devlin et al., tokenization.py). */
const CHINESE: readonly (readonly [number, number])[] = [
  [0x4e00, 0x9fff],
  [0x3400, 0x4dbf],
  [0x20000, 0x2a6df],
  [0x2a700, 0x2b73f],
  [0x2b740, 0x2b81f],
  [0x2b920, 0x2ceaf],
  [0xf900, 0xfaff],
  [0x2f800, 0x2fa1f],
];

/** Marks, punctuation and format characters that Unicode has had only since Rust's tables were made: plain letters to Hugging Face. */
const UNKNOWN_TO_RUST = /(?!)/u;

const isUnknown = (c: string): boolean => c > '\u061c' && UNKNOWN_TO_RUST.test(c);
const isChinese = (code: number): boolean => code >= 0x3400 && CHINESE.some(([first, last]) => code >= first && code <= last);
const isAscii = (c: string): boolean => c < '\u0080';
const isControl = (c: string): boolean => /[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/u.test(c) && !isUnknown(c);
const isPunctuation = (c: string): boolean => (isAscii(c) ? /[!-/:-@[-`{-~]/.test(c) : /\p{P}/u.test(c) && !isUnknown(c));
const isSpace = (c: string): boolean => (isAscii(c) ? /[\t-\r ]/.test(c) : /\p{White_Space}/u.test(c));
const isMark = (c: string): boolean => !isAscii(c) && /\p{M}/u.test(c);
const isNonspacing = (c: string): boolean => /\p{Mn}/u.test(c) && !isUnknown(c);

/** Text as BERT's WordPiece sees it. */
export function normalizeBertText(text: string, options: BertTextOptions): string {
  return joined(normalizedCharacters(text, options).characters);
}

/** Normalised text, and of each of its UTF-16 units which part [start, end) of the text as given it stands for. */
export interface AlignedText {
  readonly text: string;
  readonly starts: readonly number[];
  readonly ends: readonly number[];
}

/**
 * The same, each character knowing where it came from: all characters of a decomposition, and the blanks around a CJK character, come from the one they were made of;
 * what was dropped belongs to none (Rust's alignments, tokenizers: tokenizer/normalizer.rs). Offsets count UTF-16 units of the text as given.
 */
export function alignBertText(text: string, options: BertTextOptions): AlignedText {
  const { characters, starts, ends } = normalizedCharacters(text, options);
  const unitStarts: number[] = [];
  const unitEnds: number[] = [];
  characters.forEach((c, i) => {
    for (let u = 0; u < c.length; u++) {
      unitStarts.push(starts[i]);
      unitEnds.push(ends[i]);
    }
  });
  return { text: joined(characters), starts: unitStarts, ends: unitEnds };
}

/** Code points with their places in the text as given. */
class Characters {
  readonly characters: string[] = [];
  readonly starts: number[] = [];
  readonly ends: number[] = [];

  push(character: string, start: number, end: number): void {
    this.characters.push(character);
    this.starts.push(start);
    this.ends.push(end);
  }
}

function normalizedCharacters(text: string, { cleanText, chineseChars, lowerCase, stripAccents }: BertTextOptions): Characters {
  let out = new Characters();
  let at = 0;
  for (const c of text) {
    const kept = cleanText ? cleaned(c) : c;
    const end = at + c.length;
    if (kept !== '') {
      const alone = chineseChars && isChinese(c.codePointAt(0)!);
      if (alone) out.push(' ', at, end);
      out.push(kept, at, end);
      if (alone) out.push(' ', at, end);
    }
    at = end;
  }
  if (stripAccents) out = withoutAccents(out);
  if (lowerCase) out = lowerCased(out);
  return out;
}

/** NFD without nonspacing marks. Marks may change places in NFD, so it is taken of a character together with all the marks behind it. */
function withoutAccents({ characters, starts, ends }: Characters): Characters {
  const out = new Characters();
  for (let i = 0; i < characters.length; ) {
    let next = i + 1;
    while (next < characters.length && isMark(characters[next])) next++;
    if (next === i + 1 && isAscii(characters[i])) out.push(characters[i], starts[i], ends[i]);
    else {
      const parts = new Characters();
      for (let k = i; k < next; k++) for (const c of characters[k].normalize('NFD')) parts.push(c, starts[k], ends[k]);
      for (const c of joined(characters.slice(i, next)).normalize('NFD')) {
        // The first of equal ones that is left: canonical order keeps equal marks in place.
        const k = parts.characters.indexOf(c);
        if (!isNonspacing(c)) out.push(c, parts.starts[k], parts.ends[k]);
        parts.characters[k] = '';
      }
    }
    i = next;
  }
  return out;
}

/** Character by character, whatever stands beside it; one may become two. */
function lowerCased({ characters, starts, ends }: Characters): Characters {
  const out = new Characters();
  characters.forEach((c, i) => {
    for (const lower of c.toLowerCase()) out.push(lower, starts[i], ends[i]);
  });
  return out;
}

function cleaned(c: string): string {
  if (c === '\t' || c === '\n' || c === '\r') return ' ';
  if (c === '\0' || c === '\ufffd' || isControl(c)) return '';
  return isSpace(c) ? ' ' : c;
}

/** Words and single punctuation characters. */
export function splitBertText(text: string): string[] {
  return bertWords(text).map(([begin, end]) => text.slice(begin, end));
}

/** The same as places [begin, end) in UTF-16 units. */
export function bertWords(text: string): [begin: number, end: number][] {
  const out: [number, number][] = [];
  let begin = 0;
  let at = 0;
  const end = () => {
    if (at > begin) out.push([begin, at]);
  };
  for (const c of text) {
    const next = at + c.length;
    if (isSpace(c)) {
      end();
      begin = next;
    } else if (isPunctuation(c)) {
      end();
      out.push([at, next]);
      begin = next;
    }
    at = next;
  }
  end();
  return out;
}

const joined = (characters: readonly string[]): string => characters.join('');
