/**
 * BERT's WordPiece tokenizer, and those of other models as their tokenizer.json describes them (RoBERTa's byte-level BPE), by Hugging Face's own library. This file reads and
 * writes the folder's files, and puts sequences together: [CLS] a [SEP] or [CLS] a [SEP] b [SEP], or as tokenizer.json says (RoBERTa: <s> a </s></s> b </s>), truncated
 * longest first, padded.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { BPE, Normalizer, PreTokenizer, Tokenizer as WordPiece, WordPiece as WordPieceModel } from '@huggingface/tokenizers';
import { CheckpointError, FileMissingError, InvalidArgumentError, SequenceTooLongError, UnsupportedModelError } from '../errors';
import { refuseRemoteCode } from '../hub/remoteCode';
import { alignBertText, type BertTextOptions, bertWords, normalizeBertText, splitBertText } from './bertText';
import { ByteLevelBpe } from './byteLevelBpe';
import { shown } from '../shown';
import { readDataFile, utf8 } from './dataFile';
import { robertaTokenizerJson } from './robertaVocabulary';
import { type TemplatePart, templatesOf, type Templates } from './template';
import { checkTokenizerJson, isObject, reasonOf } from './tokenizerJson';

/** Token ids of one text or pair, with special tokens. */
export interface Encoding {
  readonly inputIds: readonly number[];
  readonly tokenTypeIds: readonly number[];
}

/** Token ids of one text, without special tokens, and the part [start, end) of the text that each stands for, in UTF-16 units: `text.slice(start, end)`. */
export interface TokenOffsets {
  readonly ids: Int32Array;
  readonly starts: Int32Array;
  readonly ends: Int32Array;
}

/** How long sequences are treated. */
export interface EncodeOptions {
  /** Most tokens, special ones included. Default: no limit. */
  readonly maxLength?: number;
  /** Whether longer sequences are cut (the longer text first); else they are an error. Default true. */
  readonly truncation?: boolean;
}

/** Which token is which: BERT's names stand for what they do. */
const SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'] as const;
type Special = (typeof SPECIAL)[number];

/** What RoBERTa calls them. */
const OTHER_NAMES: Readonly<Record<Special, string>> = { '[PAD]': '<pad>', '[UNK]': '<unk>', '[CLS]': '<s>', '[SEP]': '</s>', '[MASK]': '<mask>' };
/** What continuation tokens begin with. */
const CONTINUATION = '##';
/** Words whose pieces are remembered, at most: some 20 MB. */
const MOST_WORDS = 100_000;

/** Options of a tokenizer that is made from a vocabulary. */
export interface VocabularyOptions {
  /** Whether text is lower-cased and stripped of accents (uncased models). Default true. */
  readonly lowerCase?: boolean;
}

/** Text to token ids and back. */
export class Tokenizer {
  private readonly special: Readonly<Record<Special, number>>;
  private readonly templates: Templates;
  /** WordPieces of words met so far: ids, and where each ends in the word. */
  private readonly pieces = new Map<string, { readonly ids: readonly number[]; readonly ends: readonly number[] }>();
  /** RoBERTa's way, where tokenizer.json asks for it. */
  private readonly bytes: ByteLevelBpe | undefined;
  private plainly?: { readonly options: BertTextOptions; readonly addedTokens: RegExp };

  private constructor(
    private readonly wordPiece: WordPiece,
    private readonly json: Record<string, unknown>,
    private readonly lowerCase: boolean,
    private readonly settings: Readonly<Record<string, unknown>> = {},
  ) {
    const ids = SPECIAL.map((t) => [t, wordPiece.token_to_id(specialToken(t, settings, wordPiece))] as const);
    const missing = ids.filter(([, id]) => id === undefined);
    if (missing.length > 0) throw new CheckpointError(`the vocabulary has no ${missing.map(([t]) => t).join(', ')}: is it BERT's?`);
    if (wordPiece.normalizer && typeOf(json.normalizer) === 'BertNormalizer') wordPiece.normalizer = new BertTextNormalizer(json.normalizer as BertNormalizerJson);
    if (typeOf(json.pre_tokenizer) === 'BertPreTokenizer') wordPiece.pre_tokenizer = new BertTextSplitter();
    this.special = Object.fromEntries(ids) as Record<Special, number>;
    this.bytes = byteLevelBpe(json, wordPiece);
    this.templates = templatesOf(json.post_processor, this.special['[CLS]'], this.special['[SEP]']);
  }

  /**
   * Reads `tokenizer.json`, else `vocab.txt` (with `do_lower_case` of `tokenizer_config.json`), else RoBERTa's `vocab.json` and `merges.txt`.
   * @throws FileMissingError, CheckpointError, UnsupportedModelError when it wants code of its repository run
   */
  static fromFolder(folder: string): Tokenizer {
    const file = (name: string) => path.join(folder, name);
    const settings = existsSync(file('tokenizer_config.json')) ? readJson(file('tokenizer_config.json')) : {};
    refuseRemoteCode(settings, file('tokenizer_config.json'));
    if (existsSync(file('tokenizer.json'))) {
      const json = readJson(file('tokenizer.json'));
      return Tokenizer.tried(file('tokenizer.json'), () => json, settings);
    }
    if (!existsSync(file('vocab.txt'))) {
      if (existsSync(file('vocab.json')) && existsSync(file('merges.txt'))) return Tokenizer.fromRobertaFiles(folder, settings);
      throw new FileMissingError(`neither tokenizer.json nor vocab.txt nor vocab.json with merges.txt in ${folder}`);
    }
    const text = utf8(readDataFile(file('vocab.txt'), 'it is a vocabulary'));
    if (text === undefined) throw new CheckpointError(`${file('vocab.txt')}: no UTF-8 text`);
    const tokens = text.split(/\r?\n/);
    if (tokens.at(-1) === '') tokens.pop();
    // A vocabulary with capitals is a cased model's, when nothing else says so.
    const cased = tokens.some((t) => /^\p{Lu}\p{Ll}+$/u.test(t));
    const lowerCase = settings.do_lower_case ?? !cased;
    if (typeof lowerCase !== 'boolean') throw new CheckpointError(`${file('tokenizer_config.json')}: do_lower_case is ${shown(lowerCase)}, neither true nor false`);
    try {
      return Tokenizer.fromVocabulary(tokens, { lowerCase });
    } catch (cause) {
      throw new CheckpointError(`${file('vocab.txt')}: ${reasonOf(cause)}`, { cause });
    }
  }

  /** A tokenizer of a tokenizer.json that may be damaged. @throws CheckpointError naming where it is from, also when it cannot take apart and put together a simple text */
  private static tried(from: string, makeJson: () => Record<string, unknown>, settings: Readonly<Record<string, unknown>>): Tokenizer {
    try {
      const json = makeJson();
      checkTokenizerJson(json);
      const lowerCase = (json.normalizer as { lowercase?: unknown } | null | undefined)?.lowercase ?? true;
      const tokenizer = new Tokenizer(new WordPiece(json, settings), json, lowerCase === true, settings);
      const { inputIds } = tokenizer.encode('A b, c.', 'd');
      // A template without parts makes no tokens; what needs pairs refuses it by its name.
      if (inputIds.length > 0) tokenizer.decode(inputIds);
      return tokenizer;
    } catch (cause) {
      throw new CheckpointError(`${from}: ${reasonOf(cause)}`, { cause });
    }
  }

  private static fromRobertaFiles(folder: string, config: Readonly<Record<string, unknown>>): Tokenizer {
    const read = (name: string) => (existsSync(path.join(folder, name)) ? readJson(path.join(folder, name)) : {});
    const settings = { ...config, ...read('special_tokens_map.json') };
    const merges = utf8(readDataFile(path.join(folder, 'merges.txt'), 'it belongs to vocab.json'));
    if (merges === undefined) throw new CheckpointError(`${path.join(folder, 'merges.txt')}: no UTF-8 text`);
    const [vocabulary, added] = [read('vocab.json') as Record<string, number>, read('added_tokens.json') as Record<string, number>];
    return Tokenizer.tried(`${path.join(folder, 'vocab.json')} with merges.txt`, () => robertaTokenizerJson({ vocabulary, merges, added, settings }), settings);
  }

  /** A tokenizer of a list of tokens, by id. Continuations begin with `##`. */
  static fromVocabulary(tokens: readonly string[], { lowerCase = true }: VocabularyOptions = {}): Tokenizer {
    const id = (t: string): number => {
      const i = tokens.indexOf(t);
      if (i < 0) throw new CheckpointError(`the vocabulary has no ${t}: is it BERT's?`);
      return i;
    };
    const json = {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: SPECIAL.map((content) => ({ id: id(content), content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true })),
      normalizer: { type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true, strip_accents: null, lowercase: lowerCase },
      pre_tokenizer: { type: 'BertPreTokenizer' },
      post_processor: {
        type: 'TemplateProcessing',
        single: [special('[CLS]', 0), sequence('A', 0), special('[SEP]', 0)],
        pair: [special('[CLS]', 0), sequence('A', 0), special('[SEP]', 0), sequence('B', 1), special('[SEP]', 1)],
        special_tokens: Object.fromEntries((['[CLS]', '[SEP]'] as const).map((t) => [t, { id: t, ids: [id(t)], tokens: [t] }])),
      },
      decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
      model: {
        type: 'WordPiece',
        unk_token: '[UNK]',
        continuing_subword_prefix: '##',
        max_input_chars_per_word: 100,
        vocab: Object.fromEntries(tokens.map((t, i) => [t, i])),
      },
    };
    return new Tokenizer(new WordPiece(json, {}), json, lowerCase);
  }

  get vocabSize(): number {
    return this.wordPiece.get_vocab().size;
  }
  get padTokenId(): number {
    return this.special['[PAD]'];
  }
  get maskTokenId(): number {
    return this.special['[MASK]'];
  }
  get clsTokenId(): number {
    return this.special['[CLS]'];
  }
  get sepTokenId(): number {
    return this.special['[SEP]'];
  }
  /** Ids that stand for no text of their own. */
  get specialIds(): ReadonlySet<number> {
    return new Set(Object.values(this.special));
  }

  /** What a pair of texts becomes: special tokens and the places of both texts, in order. */
  get pairTemplate(): readonly TemplatePart[] {
    return this.templates.pair;
  }

  /** Ids of a text alone, without special tokens. */
  ids(text: string): number[] {
    if (this.bytes) return this.bytes.tokens(text).ids;
    const { ids } = this.wordPiece.encode(text, { add_special_tokens: false });
    if ((ids as unknown[]).includes(undefined)) throw new CheckpointError(`the vocabulary has no token for a part of ${shown(text)}, and none for what is unknown`);
    return ids;
  }

  /**
   * The same with the place of each token in the text (Hugging Face's `return_offsets_mapping`, in UTF-16 units instead of code points).
   *
   * BERT: an unknown word is one token as long as the word; two tokens made of one character (a Korean syllable) both have its place; an accent that was stripped belongs to no
   * token, unless between two of its word. Byte-level BPE: tokens that are parts of one character (an emoji) all have its place; blanks at a token's ends are not of its place
   * (`trim_offsets`, whatever tokenizer.json says of it), and a token of blanks alone has an empty one.
   * @throws UnsupportedModelError when tokenizer.json's way of preparing text is neither BERT's nor RoBERTa's
   */
  idsWithOffsets(text: string): TokenOffsets {
    if (this.bytes) {
      const { ids, starts, ends } = this.bytes.tokens(text);
      return { ids: Int32Array.from(ids), starts: Int32Array.from(starts), ends: Int32Array.from(ends) };
    }
    const { options, addedTokens } = this.plain;
    const ids: number[] = [];
    const starts: number[] = [];
    const ends: number[] = [];
    let offset = 0;
    // Special tokens that the text spells out stand for themselves: odd parts of the split are theirs.
    text.split(addedTokens).forEach((part, i) => {
      if (i % 2 === 1) {
        ids.push(this.wordPiece.token_to_id(part)!);
        starts.push(offset);
        ends.push(offset + part.length);
      } else {
        const aligned = alignBertText(part, options);
        for (const [begin, end] of bertWords(aligned.text)) {
          const pieces = this.piecesOf(aligned.text.slice(begin, end));
          let from = begin;
          pieces.ids.forEach((id, k) => {
            const to = begin + pieces.ends[k];
            ids.push(id);
            // Not merely the first and the last: marks may have changed places.
            starts.push(offset + Math.min(...aligned.starts.slice(from, to)));
            ends.push(offset + Math.max(...aligned.ends.slice(from, to)));
            from = to;
          });
        }
      }
      offset += part.length;
    });
    return { ids: Int32Array.from(ids), starts: Int32Array.from(starts), ends: Int32Array.from(ends) };
  }

  /** Token of an id. */
  token(id: number): string | undefined {
    return this.wordPiece.id_to_token(id);
  }

  /** Text of ids, special tokens left out. */
  decode(ids: readonly number[]): string {
    return this.wordPiece.decode([...ids], { skip_special_tokens: true });
  }

  /** A text or a pair with special tokens. @throws SequenceTooLongError when it is too long and may not be cut */
  encode(text: string, pair?: string, { maxLength = Infinity, truncation = true }: EncodeOptions = {}): Encoding {
    let a = this.ids(text);
    let b = pair === undefined ? undefined : this.ids(pair);
    const template = b ? this.templates.pair : this.templates.single;
    const specials = template.reduce((n, p) => n + ('ids' in p ? p.ids.length : 0), 0);
    if (maxLength < specials) throw new InvalidArgumentError(`maxLength is ${maxLength}; the special tokens alone are ${specials}`);
    const length = a.length + (b?.length ?? 0) + specials;
    if (length > maxLength) {
      if (!truncation) throw new SequenceTooLongError(`${length} tokens, but maxLength is ${maxLength}: allow truncation, or a longer maxLength ("${text.slice(0, 40)}…")`);
      const [n, m] = longestFirst(a.length, b?.length ?? 0, maxLength - specials);
      a = a.slice(0, n);
      b = b?.slice(0, m);
    }
    const parts = template.map((p) => ({ ids: 'ids' in p ? p.ids : p.text === 'A' ? a : b!, type: p.type }));
    return { inputIds: parts.flatMap((p) => p.ids), tokenTypeIds: parts.flatMap((p) => p.ids.map(() => p.type)) };
  }

  /** WordPiece of one normalised word. */
  private piecesOf(word: string): { readonly ids: readonly number[]; readonly ends: readonly number[] } {
    const known = this.pieces.get(word);
    if (known) return known;
    const tokens = this.wordPiece.model!.encode([word]);
    const unknown = tokens.length === 1 && tokens[0] === this.wordPiece.model!.unk_token;
    let end = 0;
    const made = {
      ids: tokens.map((t) => this.wordPiece.token_to_id(t)!),
      ends: tokens.map((t, i) => (end = unknown ? word.length : end + t.length - (i > 0 ? CONTINUATION.length : 0))),
    };
    if (this.pieces.size >= MOST_WORDS) this.pieces.clear();
    this.pieces.set(word, made);
    return made;
  }

  /** How text is prepared, and the added tokens that stand between its parts, if both are as BERT has them. */
  private get plain(): { readonly options: BertTextOptions; readonly addedTokens: RegExp } {
    if (this.plainly) return this.plainly;
    const { normalizer, pre_tokenizer, model } = this.wordPiece;
    if (!(normalizer instanceof BertTextNormalizer && pre_tokenizer instanceof BertTextSplitter && model instanceof WordPieceModel))
      throw new UnsupportedModelError(
        'offsets of tokens are known for BertNormalizer, BertPreTokenizer and WordPiece, and for ByteLevel and BPE with every byte in the vocabulary, no normalizer and no single_word tokens; ' +
          "tokenizer.json asks for others: use BERT's vocab.txt, or RoBERTa's vocab.json and merges.txt, in its place",
      );
    const added = [...this.wordPiece.get_added_tokens_decoder().values()].filter((t) => t.content !== '');
    const strange = added.find((t) => t.normalized || t.lstrip || t.rstrip || t.single_word);
    if (strange) throw new UnsupportedModelError(`offsets of tokens are known for plain added tokens only, and tokenizer.json's '${strange.content}' is normalized, stripped or a single word`);
    // Where several begin, the longest counts.
    const contents = added.map((t) => t.content.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')).sort((x, y) => y.length - x.length);
    return (this.plainly = { options: normalizer.options, addedTokens: contents.length > 0 ? new RegExp(`(${contents.join('|')})`) : /(?!)/ });
  }

  /** Writes `tokenizer.json`, `tokenizer_config.json` and, of a WordPiece tokenizer, `vocab.txt`, as Hugging Face's tokenizers read them. */
  save(folder: string): void {
    if (typeOf(this.json.model) !== 'WordPiece') {
      const names = Object.fromEntries(SPECIAL.map((t) => [`${t.slice(1, -1).toLowerCase()}_token`, this.token(this.special[t])]));
      writeFileSync(path.join(folder, 'tokenizer.json'), `${JSON.stringify(this.json)}\n`);
      writeFileSync(path.join(folder, 'tokenizer_config.json'), `${JSON.stringify({ tokenizer_class: 'PreTrainedTokenizerFast', ...this.settings, ...names }, null, 2)}\n`);
      return;
    }
    const byId = [...this.wordPiece.get_vocab()].sort((x, y) => x[1] - y[1]).map(([t]) => t);
    writeFileSync(path.join(folder, 'vocab.txt'), `${byId.join('\n')}\n`);
    writeFileSync(path.join(folder, 'tokenizer.json'), `${JSON.stringify(this.json)}\n`);
    const settings = {
      tokenizer_class: 'BertTokenizer',
      do_lower_case: this.lowerCase,
      ...Object.fromEntries(SPECIAL.map((t) => [`${t.slice(1, -1).toLowerCase()}_token`, t])),
    };
    writeFileSync(path.join(folder, 'tokenizer_config.json'), `${JSON.stringify(settings, null, 2)}\n`);
  }
}

/** `normalizer` of tokenizer.json. */
interface BertNormalizerJson {
  readonly type: 'BertNormalizer';
  readonly clean_text?: boolean;
  readonly handle_chinese_chars?: boolean;
  /** null: as `lowercase`. */
  readonly strip_accents?: boolean | null;
  readonly lowercase?: boolean;
}

/** RoBERTa's way of making tokens, if tokenizer.json asks for just that. */
function byteLevelBpe(json: Readonly<Record<string, unknown>>, { model }: WordPiece): ByteLevelBpe | undefined {
  const settings = json.model as Readonly<Record<string, unknown>>;
  const before = json.pre_tokenizer as { readonly use_regex?: boolean; readonly add_prefix_space?: boolean } | null | undefined;
  if (!(model instanceof BPE && before && typeOf(before) === 'ByteLevel' && before.use_regex !== false && json.normalizer == null)) return undefined;
  if (settings.continuing_subword_prefix || settings.end_of_word_suffix || !ByteLevelBpe.hasEveryByte(model.tokens_to_ids)) return undefined;
  const added = (json.added_tokens as readonly Partial<AddedTokenJson>[]).map((t) => ({ id: t.id!, content: t.content!, lstrip: false, rstrip: false, normalized: false, ...t }));
  return added.some((t) => t.single_word) ? undefined : new ByteLevelBpe(model, added, before.add_prefix_space ?? false);
}

/** One of tokenizer.json's `added_tokens`. */
interface AddedTokenJson {
  readonly id: number;
  readonly content: string;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly normalized: boolean;
  readonly single_word: boolean;
}

const typeOf = (part: unknown): unknown => (part as { type?: unknown } | null | undefined)?.type;

class BertTextNormalizer extends Normalizer {
  readonly options: BertTextOptions;

  constructor(json: BertNormalizerJson) {
    super(json as unknown as ConstructorParameters<typeof Normalizer>[0]);
    const lowerCase = json.lowercase ?? true;
    this.options = { cleanText: json.clean_text ?? true, chineseChars: json.handle_chinese_chars ?? true, lowerCase, stripAccents: json.strip_accents ?? lowerCase };
  }

  normalize(text: string): string {
    return normalizeBertText(text, this.options);
  }
}

class BertTextSplitter extends PreTokenizer {
  pre_tokenize_text(text: string): string[] {
    return splitBertText(text);
  }
}

/** The token that does what BERT's does: as tokenizer_config.json says, else BERT's, else RoBERTa's. */
function specialToken(role: Special, settings: Readonly<Record<string, unknown>>, vocabulary: WordPiece): string {
  const said = settings[`${role.slice(1, -1).toLowerCase()}_token`] as string | { readonly content?: string } | null | undefined;
  const name = typeof said === 'string' ? said : said?.content;
  return name ?? (vocabulary.token_to_id(role) === undefined ? OTHER_NAMES[role] : role);
}

const special = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } });
const sequence = (id: string, type_id: number) => ({ Sequence: { id, type_id } });

/** Hugging Face's `longest_first`: how many tokens of each text stay (tokenizers, utils/truncation.rs). */
export function longestFirst(a: number, b: number, limit: number): [number, number] {
  if (a + b <= limit) return [a, b];
  let short = Math.min(a, b);
  let long = short > limit ? short : Math.max(short, limit - short);
  if (short + long > limit) {
    short = Math.floor(limit / 2);
    long = short + (limit % 2);
  }
  return a <= b ? [short, long] : [long, short];
}

function readJson(file: string): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new CheckpointError(`${file}: no JSON: ${(cause as Error).message}`, { cause });
  }
  if (!isObject(json)) throw new CheckpointError(`${file}: no JSON object`);
  return json as Record<string, unknown>;
}
