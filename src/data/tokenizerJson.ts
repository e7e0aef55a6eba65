/** Looks at a tokenizer.json before it is used: Hugging Face's library takes what it is given, and a wrong type shows only in token ids that are none. */
import { CheckpointError } from '../errors';
import { cut, shown } from '../shown';

type Json = Readonly<Record<string, unknown>>;

export const isObject = (v: unknown): v is Json => typeof v === 'object' && v !== null && !Array.isArray(v);
/** No vocabulary comes near this (XLM-V has 2^20 tokens). The library keeps tokens in a list by id, and goes through all of it to count them: one id of 2^31 takes more than 20 s. */
const MOST_IDS = 2 ** 22;
/** Whether a value can be the id of a token or of a token type. */
export const isId = (v: unknown): v is number => Number.isInteger(v) && (v as number) >= 0 && (v as number) < MOST_IDS;

const FLAGS = ['single_word', 'lstrip', 'rstrip', 'normalized', 'special'] as const;
/** What prepares texts and puts them back together. */
const STEPS = ['normalizer', 'pre_tokenizer', 'post_processor', 'decoder'] as const;

/** @throws CheckpointError naming the field: a vocabulary whose ids are none, tokens that are no texts, steps without a type */
export function checkTokenizerJson(json: unknown): void {
  const check = (field: string, value: unknown, isRight: boolean): void => {
    if (!isRight) throw new CheckpointError(`tokenizer.json's ${field} is ${shown(value)}: the file is damaged; download it again`);
  };
  if (!isObject(json)) return check('contents', json, false);
  const { model, added_tokens: added } = json;
  if (!isObject(model)) return check('model', model, false);
  const { vocab, merges } = model;
  check('model.vocab', vocab, typeof vocab === 'object' && vocab !== null);
  if (Array.isArray(vocab)) vocab.forEach((v: unknown, i) => check(`model.vocab[${i}]`, v, Array.isArray(v) && typeof v[0] === 'string' && typeof v[1] === 'number'));
  else for (const [token, id] of Object.entries(vocab as object)) check(`id of ${shown(token)}`, id, isId(id));
  if (merges !== undefined) {
    const isMerge = (m: unknown): boolean => typeof m === 'string' || (Array.isArray(m) && m.length === 2 && m.every((t) => typeof t === 'string'));
    check('model.merges', merges, Array.isArray(merges) && merges.every(isMerge));
  }
  for (const key of ['unk_token', 'continuing_subword_prefix', 'end_of_word_suffix'] as const) check(`model.${key}`, model[key], model[key] == null || typeof model[key] === 'string');
  if (added != null) {
    if (!Array.isArray(added)) return check('added_tokens', added, false);
    added.forEach((t: unknown, i) => check(`added_tokens[${i}]`, t, isObject(t) && isId(t.id) && typeof t.content === 'string' && FLAGS.every((f) => t[f] === undefined || typeof t[f] === 'boolean')));
  }
  for (const step of STEPS) {
    const value = json[step];
    check(step, value, value == null || (isObject(value) && typeof value.type === 'string'));
  }
}

/** Texts of errors that Hugging Face's library throws at a tokenizer.json, which may repeat all of a value. */
export const reasonOf = (error: unknown): string => cut(error instanceof Error ? error.message : String(error));
