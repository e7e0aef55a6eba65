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
const isControl = (c: string): boolean => /[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/u.test(c) && !isUnknown(c);
const isPunctuation = (c: string): boolean => /[!-/:-@[-`{-~\p{P}]/u.test(c) && !isUnknown(c);
const isSpace = (c: string): boolean => /\p{White_Space}/u.test(c);

/** Text as BERT's WordPiece sees it. */
export function normalizeBertText(text: string, { cleanText, chineseChars, lowerCase, stripAccents }: BertTextOptions): string {
  let out = text;
  if (cleanText) out = mapCharacters(out, cleaned);
  if (chineseChars) out = mapCharacters(out, (c) => (isChinese(c.codePointAt(0)!) ? ` ${c} ` : c));
  if (stripAccents) out = mapCharacters(out.normalize('NFD'), (c) => (/\p{Mn}/u.test(c) && !isUnknown(c) ? '' : c));
  if (lowerCase) out = mapCharacters(out, (c) => c.toLowerCase());
  return out;
}

function cleaned(c: string): string {
  if (c === '\t' || c === '\n' || c === '\r') return ' ';
  if (c === '\0' || c === '\ufffd' || isControl(c)) return '';
  return isSpace(c) ? ' ' : c;
}

/** Words and single punctuation characters. */
export function splitBertText(text: string): string[] {
  const out: string[] = [];
  let word = '';
  const end = () => {
    if (word) out.push(word);
    word = '';
  };
  for (const c of text) {
    if (isSpace(c)) end();
    else if (isPunctuation(c)) {
      end();
      out.push(c);
    } else word += c;
  }
  end();
  return out;
}

/** Each code point in turn. */
function mapCharacters(text: string, f: (c: string) => string): string {
  let out = '';
  for (const c of text) out += f(c);
  return out;
}
