/**
 * SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018) from their official JSON. The file counts characters as Python does, in code points; here, as everywhere in
 * JavaScript, offsets are UTF-16 units.
 */
import { DataEntryError } from '../errors';
import { cut, shown } from '../shown';
import { readDataFile, utf8 } from './dataFile';

/** One answer: `context.slice(start, start + text.length) === text`. */
export interface SquadAnswer {
  readonly text: string;
  /** First UTF-16 unit of the context (the file's `answer_start` counts code points). */
  readonly start: number;
}

/** One question about one paragraph. */
export interface SquadExample {
  readonly id: string;
  /** Title of the article. */
  readonly title: string;
  readonly question: string;
  readonly context: string;
  /** Every annotator's answer, in the file's order; none if the question cannot be answered from the context. */
  readonly answers: readonly SquadAnswer[];
  readonly isImpossible: boolean;
}

/**
 * Every question of a file, in order. Strict: what is missing, of a wrong type, or contradicts itself is an error, as is an id that comes twice; so is an answer that does not
 * stand at its offset (nothing is searched for nearby: a wrong offset would become a wrong label).
 * @throws FileMissingError, DataEntryError with file, article, paragraph, question id and reason
 */
export function readSquad(file: string): SquadExample[] {
  return examplesIn(parsed(file), file);
}

/**
 * The questions of rows as the hub's data sets `squad` and `squad_v2` have them: id, title, context, question, answers { text, answer_start }. As strict as `readSquad`.
 * @param where what errors call the rows
 * @throws DataEntryError with row and reason
 */
export function squadExamples(rows: readonly Readonly<Record<string, unknown>>[], where: string): SquadExample[] {
  const data = rows.map(({ id, title, context, question, answers }) => {
    const { text, answer_start: starts } = (answers ?? {}) as { readonly text?: readonly unknown[]; readonly answer_start?: readonly unknown[] };
    const list = Array.isArray(text) && Array.isArray(starts) && text.length === starts.length ? text.map((t, i) => ({ text: t as unknown, answer_start: typeof starts[i] === 'bigint' ? Number(starts[i]) : (starts[i] as unknown) })) : undefined;
    return { title, paragraphs: [{ context, qas: [{ id, question, answers: list, is_impossible: list?.length === 0 }] }] };
  });
  return examplesIn({ data }, where);
}

function examplesIn(root: unknown, file: string): SquadExample[] {
  const bad: Bad = (entry, reason) => {
    throw new DataEntryError(file, entry, reason);
  };
  const examples: SquadExample[] = [];
  const placeOf = new Map<string, string>();
  isObject(root) || bad('the file', `${kindOf(root)} instead of an object with 'data'`);
  arrayIn(root as Json, 'data', 'the file', bad).forEach((article, a) => {
    const inArticle = `article ${a + 1}`;
    const title = stringIn(article, 'title', inArticle, bad);
    arrayIn(article, 'paragraphs', `${inArticle} '${cut(title)}'`, bad).forEach((paragraph, p) => {
      const inParagraph = `${inArticle} '${cut(title)}', paragraph ${p + 1}`;
      const context = stringIn(paragraph, 'context', inParagraph, bad);
      const unitOf = codePointOffsets(context);
      arrayIn(paragraph, 'qas', inParagraph, bad).forEach((qa, q) => {
        const id = stringIn(qa, 'id', `${inParagraph}, question ${q + 1}`, bad);
        const at = `${inParagraph}, question ${q + 1} (${cut(id)})`;
        if (id === '') bad(at, 'the id is empty');
        if (placeOf.has(id)) bad(at, `the id is that of ${placeOf.get(id)} too`);
        placeOf.set(id, `${inParagraph}, question ${q + 1}`);
        const question = stringIn(qa, 'question', at, bad);
        const impossible = qa.is_impossible ?? false;
        if (typeof impossible !== 'boolean') bad(at, `'is_impossible' is ${kindOf(impossible)} instead of true or false`);
        const answers = arrayIn(qa, 'answers', at, bad).map((answer, n) => answerIn(answer, context, unitOf, `${at}, answer ${n + 1}`, bad));
        if (impossible && answers.length > 0) bad(at, `is_impossible, but has ${answers.length} answers`);
        if (!impossible && answers.length === 0) bad(at, 'no answers, but not is_impossible');
        examples.push({ id, title, question, context, answers, isImpossible: impossible as boolean });
      });
    });
  });
  if (examples.length === 0) bad('the file', 'no questions');
  return examples;
}

type Json = Record<string, unknown>;
type Bad = (entry: string, reason: string) => never;

function parsed(file: string): unknown {
  const text = utf8(readDataFile(file, "download SQuAD's train-v2.0.json and dev-v2.0.json, or name the file"));
  if (text === undefined) throw new DataEntryError(file, 'the file', 'no UTF-8 text');
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new DataEntryError(file, 'the file', `no JSON: ${(cause as Error).message}`, { cause });
  }
}

function answerIn(answer: Json, context: string, unitOf: (codePoint: number) => number | undefined, at: string, bad: Bad): SquadAnswer {
  const text = stringIn(answer, 'text', at, bad);
  const { answer_start: offset } = answer;
  if (text === '') bad(at, 'the text is empty');
  if (!Number.isSafeInteger(offset) || (offset as number) < 0) bad(at, `'answer_start' is ${offset === undefined ? 'missing' : shown(offset)} instead of a whole number from 0`);
  const start = unitOf(offset as number);
  if (start === undefined || !context.startsWith(text, start))
    bad(at, `'${cut(text)}' does not stand at character ${String(offset)} of the context, where there is '${start === undefined ? '' : cut(context.slice(start, start + text.length))}': is 'answer_start' counted in code points?`);
  return { text, start: start! };
}

/** UTF-16 offset of a code point by its number; that of the end too, none beyond. */
function codePointOffsets(text: string): (codePoint: number) => number | undefined {
  if (!/[\ud800-\udfff]/.test(text)) return (i) => (i <= text.length ? i : undefined);
  const units: number[] = [];
  let at = 0;
  for (const c of text) {
    units.push(at);
    at += c.length;
  }
  units.push(at);
  return (i) => units[i];
}

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);
const kindOf = (value: unknown): string => (value === undefined ? 'missing' : value === null ? 'null' : Array.isArray(value) ? 'a list' : typeof value === 'object' ? 'an object' : `a ${typeof value}`);

function stringIn(of: Json, key: string, at: string, bad: Bad): string {
  const value = of[key];
  return typeof value === 'string' ? value : bad(at, `'${key}' is ${kindOf(value)} instead of a string`);
}

/** A list of objects. */
function arrayIn(of: Json, key: string, at: string, bad: Bad): Json[] {
  const value = of[key];
  if (!Array.isArray(value)) return bad(at, `'${key}' is ${kindOf(value)} instead of a list`);
  value.forEach((item, i) => isObject(item) || bad(at, `'${key}' holds ${kindOf(item)} at ${i + 1} instead of an object`));
  return value as Json[];
}
