/**
 * `vocab.json` and `merges.txt`, the files of RoBERTa's first tokenizers, as the tokenizer.json that Hugging Face's library makes of them (transformers:
 * convert_slow_tokenizer.py, RobertaConverter; tokenization_roberta.py for the special tokens).
 */
import { CheckpointError } from '../errors';

/** What tokenizer_config.json and special_tokens_map.json say of a token: its text, or that and how it is looked for. */
type Said = string | { readonly content?: string; readonly lstrip?: boolean; readonly rstrip?: boolean; readonly single_word?: boolean; readonly normalized?: boolean; readonly special?: boolean };

const ROLES = { bos: '<s>', cls: '<s>', pad: '<pad>', eos: '</s>', sep: '</s>', unk: '<unk>', mask: '<mask>' } as const;

/** What such a folder's files hold. */
export interface RobertaFiles {
  /** vocab.json: ids by token. */
  readonly vocabulary: Readonly<Record<string, number>>;
  /** merges.txt, as it is. */
  readonly merges: string;
  /** added_tokens.json: ids of further tokens. */
  readonly added?: Readonly<Record<string, number>>;
  /** tokenizer_config.json, with special_tokens_map.json in it. */
  readonly settings?: Readonly<Record<string, unknown>>;
}

/** @throws CheckpointError when a special token has no id, or merges.txt has a line that is no merge */
export function robertaTokenizerJson({ vocabulary, merges, added = {}, settings = {} }: RobertaFiles): Record<string, unknown> {
  const ids = new Map([...Object.entries(vocabulary), ...Object.entries(added)]);
  const tokens = new Map<number, object>();
  const add = (content: string, id: number, said: Said, special: boolean, lstrip = false) => {
    const flags = typeof said === 'string' ? {} : said;
    tokens.set(id, { id, content, single_word: flags.single_word ?? false, lstrip: flags.lstrip ?? lstrip, rstrip: flags.rstrip ?? false, normalized: flags.normalized ?? !special, special });
  };
  for (const [content, id] of Object.entries(added)) add(content, id, content, false);
  const role = (name: keyof typeof ROLES): [string, number] => {
    const said = (settings[`${name}_token`] as Said | null | undefined) ?? ROLES[name];
    const content = (typeof said === 'string' ? said : said.content) ?? ROLES[name];
    const id = ids.get(content);
    if (id === undefined) throw new CheckpointError(`vocab.json has no ${content}: is it RoBERTa's?`);
    // The mask takes the blank before it, as the word would that it stands for.
    add(content, id, said, true, name === 'mask');
    return [content, id];
  };
  const [sep, cls] = [role('sep'), role('cls')];
  for (const name of ['bos', 'eos', 'unk', 'pad', 'mask'] as const) role(name);
  // Newer folders list every added token with its id.
  for (const [id, said] of Object.entries((settings.added_tokens_decoder as Record<string, Exclude<Said, string>> | undefined) ?? {}))
    if (said.content !== undefined) add(said.content, Number(id), said, said.special ?? false);
  const addPrefixSpace = settings.add_prefix_space === true;
  const byteLevel = { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [...tokens].sort(([x], [y]) => x - y).map(([, token]) => token),
    normalizer: null,
    pre_tokenizer: { ...byteLevel, add_prefix_space: addPrefixSpace },
    post_processor: { type: 'RobertaProcessing', sep, cls, trim_offsets: true, add_prefix_space: addPrefixSpace },
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: '',
      end_of_word_suffix: '',
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: vocabulary,
      merges: mergesOf(merges),
    },
  };
}

/** Pairs of tokens, most wanted first. */
function mergesOf(text: string): [string, string][] {
  const out: [string, string][] = [];
  text.split(/\r?\n/).forEach((line, i) => {
    // The first line tells a version; other lines may begin with # too.
    if (line === '' || line.startsWith('#version')) return;
    const [a, b, ...more] = line.split(' ');
    if (!a || !b || more.length > 0) throw new CheckpointError(`merges.txt, line ${i + 1}: '${line}' is no pair of tokens`);
    out.push([a, b]);
  });
  return out;
}
