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

/**
 * Marks, punctuation and format characters that Unicode has had only since Rust's tables were made: plain letters to Hugging Face. Found by asking its tokenizers 0.23 for
 * every code point; Unicode 17 knows these as what they are.
 */
const UNKNOWN_TO_RUST = new RegExp(
  '[' +
    '\\u061d\\u07fd\\u0890\\u0891\\u0897-\\u089f\\u08ca-\\u08e2\\u09fd\\u09fe\\u0a76\\u0afa-\\u0aff\\u0b55\\u0c04\\u0c3c\\u0c77\\u0c84\\u0d00\\u0d3b\\u0d3c\\u0d81\\u0eba\\u0ece\\u180f\\u1885\\u1886' +
    '\\u1abf-\\u1add\\u1ae0-\\u1aeb\\u1b4e\\u1b4f\\u1b7d-\\u1b7f\\u1df6-\\u1dfb\\u2e43-\\u2e4f\\u2e52-\\u2e5d\\ua82c\\ua8c5\\ua8ff\\ua9bd\\u{10d24}-\\u{10d27}\\u{10d69}-\\u{10d6e}' +
    '\\u{10eab}-\\u{10ead}\\u{10ed0}\\u{10efa}-\\u{10eff}\\u{10f46}-\\u{10f50}\\u{10f55}-\\u{10f59}\\u{10f82}-\\u{10f89}\\u{11070}\\u{11073}\\u{11074}\\u{110c2}\\u{110cd}\\u{111c9}' +
    '\\u{111cf}\\u{1123e}\\u{11241}\\u{1133b}\\u{113bb}-\\u{113c0}\\u{113ce}\\u{113d0}\\u{113d2}\\u{113d4}\\u{113d5}\\u{113d7}\\u{113d8}\\u{113e1}\\u{113e2}\\u{11438}-\\u{1143f}' +
    '\\u{11442}-\\u{11444}\\u{11446}\\u{1144b}-\\u{1144f}\\u{1145a}\\u{1145b}\\u{1145d}\\u{1145e}\\u{11660}-\\u{1166c}\\u{116b9}\\u{1182f}-\\u{11837}\\u{11839}-\\u{1183b}' +
    '\\u{1193b}\\u{1193c}\\u{1193e}\\u{11943}-\\u{11946}\\u{119d4}-\\u{119d7}\\u{119da}\\u{119db}\\u{119e0}\\u{119e2}\\u{11a01}-\\u{11a0a}\\u{11a33}-\\u{11a38}\\u{11a3b}-\\u{11a47}' +
    '\\u{11a51}-\\u{11a56}\\u{11a59}-\\u{11a5b}\\u{11a8a}-\\u{11a96}\\u{11a98}-\\u{11a9c}\\u{11a9e}-\\u{11aa2}\\u{11b00}-\\u{11b09}\\u{11b60}\\u{11b62}-\\u{11b64}\\u{11b66}\\u{11be1}' +
    '\\u{11c30}-\\u{11c36}\\u{11c38}-\\u{11c3d}\\u{11c3f}\\u{11c41}-\\u{11c45}\\u{11c70}\\u{11c71}\\u{11c92}-\\u{11ca7}\\u{11caa}-\\u{11cb0}\\u{11cb2}\\u{11cb3}\\u{11cb5}\\u{11cb6}' +
    '\\u{11d31}-\\u{11d36}\\u{11d3a}\\u{11d3c}\\u{11d3d}\\u{11d3f}-\\u{11d45}\\u{11d47}\\u{11d90}\\u{11d91}\\u{11d95}\\u{11d97}\\u{11ef3}\\u{11ef4}\\u{11ef7}\\u{11ef8}\\u{11f00}\\u{11f01}' +
    '\\u{11f36}-\\u{11f3a}\\u{11f40}\\u{11f42}-\\u{11f4f}\\u{11f5a}\\u{11fff}\\u{12ff1}\\u{12ff2}\\u{13430}-\\u{13440}\\u{13447}-\\u{13455}\\u{1611e}-\\u{16129}\\u{1612d}-\\u{1612f}' +
    '\\u{16d6d}-\\u{16d6f}\\u{16e97}-\\u{16e9a}\\u{16f4f}\\u{16fe2}\\u{16fe4}\\u{1cf00}-\\u{1cf2d}\\u{1cf30}-\\u{1cf46}\\u{1e000}-\\u{1e006}\\u{1e008}-\\u{1e018}\\u{1e01b}-\\u{1e021}' +
    '\\u{1e023}\\u{1e024}\\u{1e026}-\\u{1e02a}\\u{1e08f}\\u{1e130}-\\u{1e136}\\u{1e2ae}\\u{1e2ec}-\\u{1e2ef}\\u{1e4ec}-\\u{1e4ef}\\u{1e5ee}\\u{1e5ef}\\u{1e5ff}\\u{1e6e3}\\u{1e6e6}' +
    '\\u{1e6ee}\\u{1e6ef}\\u{1e6f5}\\u{1e944}-\\u{1e94a}\\u{1e95e}\\u{1e95f}' +
    ']',
  'u',
);

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
