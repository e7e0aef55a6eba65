import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { readSquad, squadExamples } from '../../src/data/squad';
import { DataEntryError, FileMissingError } from '../../src/errors';

const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-squad-'));
const SHARED = path.resolve(__dirname, '../../../shared/data/squad');
let files = 0;
const fileOf = (content: unknown): string => {
  const file = path.join(folder, `${files++}.json`);
  writeFileSync(file, typeof content === 'string' || content instanceof Uint8Array ? content : JSON.stringify(content));
  return file;
};
const article = (context: unknown, qas: unknown, title: unknown = 'T') => ({ data: [{ title, paragraphs: [{ context, qas }] }] });
const qa = (more: object = {}) => ({ id: 'q', question: 'Who?', answers: [{ text: 'Ann', answer_start: 0 }], is_impossible: false, ...more });

test('questions come in the file’s order, with article, context and every answer; plausible answers are left aside', () => {
  const none = { id: '2', question: 'Where?', answers: [], is_impossible: true, plausible_answers: [{ text: 'Ann', answer_start: 0 }] };
  const two = { id: '1', question: 'Who?', answers: [{ text: 'Bob', answer_start: 8 }, { text: 'Ann', answer_start: 0 }], is_impossible: false };
  assert.deepEqual(readSquad(fileOf(article('Ann and Bob.', [two, none]))), [
    { id: '1', title: 'T', question: 'Who?', context: 'Ann and Bob.', answers: [{ text: 'Bob', start: 8 }, { text: 'Ann', start: 0 }], isImpossible: false },
    { id: '2', title: 'T', question: 'Where?', context: 'Ann and Bob.', answers: [], isImpossible: true },
  ]);
});

test('SQuAD 1.1, which does not say is_impossible, has an answer to everything', () => {
  const [e] = readSquad(fileOf({ version: '1.1', ...article('Ann', [{ id: 'q', question: 'Who?', answers: [{ text: 'Ann', answer_start: 0 }] }]) }));
  assert.equal(e.isImpossible, false);
});

test('offsets in code points become UTF-16 units: characters beyond the BMP before, in and after the answer', () => {
  // Counted by hand: 😀 is one code point and two units.
  const starts = (context: string, text: string, answer_start: number) => readSquad(fileOf(article(context, [qa({ answers: [{ text, answer_start }] })])))[0].answers[0].start;
  assert.equal(starts('😀😀 Ann', 'Ann', 3), 5);
  assert.equal(starts('Ann 😀Bob😀 x', '😀Bob😀', 4), 4);
  assert.equal(starts('a😀b 𠀀𠀀', '𠀀', 5), 7);
  assert.equal(starts('Ann 😀', 'Ann', 0), 0);
  assert.throws(() => starts('😀😀 Ann', 'Ann', 5), DataEntryError, 'an offset in UTF-16 units is not taken');
});

test('whatever the text, an answer cut out by code points is found again by units', () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 1 }), fc.constantFrom('😀', 'a', 'é', '𠀀', '\u200d', '\ud83d')), { minLength: 1, maxLength: 20 }), fc.nat(), fc.nat(), (parts, a, b) => {
      const points = Array.from(parts.join(''));
      const from = a % points.length;
      const to = from + 1 + (b % (points.length - from));
      const text = points.slice(from, to).join('');
      // A lone surrogate cannot be told from half a pair where two meet.
      if (Array.from(points.join('')).length !== points.length) return;
      const file = fileOf(article(points.join(''), [qa({ answers: [{ text, answer_start: from }] })]));
      const [e] = readSquad(file);
      assert.equal(e.answers[0].start, points.slice(0, from).join('').length);
      assert.equal(e.context.slice(e.answers[0].start, e.answers[0].start + text.length), text);
    }),
    { numRuns: 50 },
  );
});

test('a file that is not SQuAD is refused by file, entry and reason', () => {
  const bad = (content: unknown, entry: RegExp, reason: RegExp) => {
    const file = fileOf(content);
    assert.throws(
      () => readSquad(file),
      (e: Error) => e instanceof DataEntryError && e.code === 'data-entry' && e.file === file && entry.test(e.entry) && reason.test(e.reason) && e.message.includes(file),
      `${entry.source} ${reason.source}`,
    );
  };
  bad('{ "data": [', /the file/, /no JSON/);
  bad(Uint8Array.of(0x22, 0xff, 0x22), /the file/, /UTF-8/);
  bad([], /the file/, /a list instead of an object/);
  bad({}, /the file/, /'data' is missing instead of a list/);
  bad({ data: [] }, /the file/, /no questions/);
  bad({ data: [7] }, /the file/, /'data' holds a number at 1/);
  bad(article('c', [], 3), /^article 1$/, /'title' is a number/);
  bad({ data: [{ title: 'T', paragraphs: {} }] }, /article 1 'T'/, /'paragraphs' is an object/);
  bad(article(null, []), /article 1 'T', paragraph 1$/, /'context' is null/);
  bad(article('c', [null]), /paragraph 1$/, /'qas' holds null at 1/);
  bad(article('Ann', [qa({ id: 5 })]), /question 1$/, /'id' is a number/);
  bad(article('Ann', [qa({ id: '' })]), /question 1 \(\)/, /id is empty/);
  bad(article('Ann', [qa(), qa()]), /question 2 \(q\)/, /that of article 1 'T', paragraph 1, question 1/);
  bad(article('Ann', [qa({ question: undefined })]), /\(q\)/, /'question' is missing/);
  bad(article('Ann', [qa({ is_impossible: 'no' })]), /\(q\)/, /'is_impossible' is a string/);
  bad(article('Ann', [qa({ answers: undefined })]), /\(q\)/, /'answers' is missing/);
  bad(article('Ann', [qa({ answers: [] })]), /\(q\)/, /no answers, but not is_impossible/);
  bad(article('Ann', [qa({ is_impossible: true })]), /\(q\)/, /is_impossible, but has 1 answers/);
  bad(article('Ann', [qa({ answers: [{ text: '', answer_start: 0 }] })]), /answer 1/, /text is empty/);
  for (const answer_start of [-1, 0.5, '0', null, undefined]) bad(article('Ann', [qa({ answers: [{ text: 'Ann', answer_start }] })]), /answer 1/, /'answer_start' is .+ instead of a whole number/);
  for (const answer_start of [1, 3, 4, 1000]) bad(article('Ann', [qa({ answers: [{ text: 'Ann', answer_start }] })]), /\(q\), answer 1/, new RegExp(`'Ann' does not stand at character ${answer_start} `));
  assert.throws(() => readSquad(path.join(folder, 'none.json')), FileMissingError);
});

test('the shared files have the counts of their README', { skip: existsSync(SHARED) ? false : 'no ../shared/data/squad' }, () => {
  const counts = (name: string) => {
    const examples = readSquad(path.join(SHARED, name));
    for (const e of examples) for (const a of e.answers) assert.equal(e.context.slice(a.start, a.start + a.text.length), a.text);
    return [new Set(examples.map((e) => e.title)).size, new Set(examples.map((e) => `${e.title}\n${e.context}`)).size, examples.length, examples.filter((e) => e.isImpossible).length];
  };
  assert.deepEqual(counts('dev-v2.0-part.json'), [17, 690, 6576, 3376]);
  assert.deepEqual(counts('train-v2.0-small.json'), [10, 694, 4719, 348]);
});

test('an offset of a row is a number, not what can be made one', () => {
  const row = (answer_start: unknown) => [{ id: '1', title: 'T', context: 'Ann and Bob.', question: 'Who?', answers: { text: ['Ann'], answer_start: [answer_start] } }];
  assert.equal(squadExamples(row(0n), 'rows')[0].answers[0].start, 0);
  for (const offset of [null, undefined, '0', [0], false, new Date(0), { valueOf: 1, toString: 1 }]) assert.throws(() => squadExamples(row(offset), 'rows'), (e: Error) => e instanceof DataEntryError && /answer_start/.test(e.message));
});

test('an offset that is a list without end, a text of megabytes and a folder are refused in few words', () => {
  const text = JSON.stringify(article('Ann', [qa({ answers: [{ text: 'x'.repeat(1e6), answer_start: 0 }] })]));
  const deep = JSON.stringify(article('Ann', [qa({ answers: [{ text: 'Ann', answer_start: '@' }] })])).replace('"@"', `${'['.repeat(100_000)}${']'.repeat(100_000)}`);
  for (const content of [text, deep]) assert.throws(() => readSquad(fileOf(content)), (e: Error) => e instanceof DataEntryError && e.message.length < 1000);
  assert.throws(() => readSquad(folder), FileMissingError);
});
