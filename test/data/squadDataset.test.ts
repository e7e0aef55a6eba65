import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { readSquad, type SquadExample } from '../../src/data/squad';
import { SquadDataset } from '../../src/data/squadDataset';
import { squadPredictions } from '../../src/data/squadPredictions';
import { Tokenizer } from '../../src/data/tokenizer';
import { InvalidArgumentError, UnsupportedModelError } from '../../src/errors';
import type { Predictions } from '../../src/models/model';

const SHARED = path.resolve(__dirname, '../../../shared/data');
const skip = existsSync(path.join(SHARED, 'squad')) && existsSync(path.join(SHARED, 'checkpoints/vocab')) ? false : 'no ../shared/data/squad or no vocabulary';
const letters = [...'abcdefghijklmnop'];
const tokenizer = Tokenizer.fromVocabulary(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', ...letters, ...letters.map((c) => `##${c}`), '.', '日']);
const id = (token: string) => tokenizer.ids(token)[0];
const example = (question: string, context: string, answer?: string, at = answer === undefined ? 0 : context.indexOf(answer)): SquadExample => ({
  id: `${question}/${context}/${answer}/${at}`,
  title: 'T',
  question,
  context,
  answers: answer === undefined ? [] : [{ text: answer, start: at }],
  isImpossible: answer === undefined,
});
const labelsOf = (d: SquadDataset) => d.features.map((f) => [f.startLabel, f.endLabel]);

test('a question and its context stand in one row, the context with token type 1, padded to the full length', () => {
  const d = new SquadDataset([example('a b', 'c d. e', 'd.')], tokenizer, { maxLength: 12, maxQueryLength: 4 });
  const b = d.batch([0]);
  assert.deepEqual([...b.inputIds], [2, id('a'), id('b'), 3, id('c'), id('d'), id('.'), id('e'), 3, 0, 0, 0]);
  assert.deepEqual([...b.tokenTypeIds], [0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0]);
  assert.deepEqual([...b.attentionMask], [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]);
  assert.deepEqual(b.labels, Int32Array.of(5, 6));
  assert.deepEqual([b.batchSize, b.length], [1, 12]);
});

test('a long context is cut in windows that start docStride tokens apart; only a window that holds the whole answer is labelled with it', () => {
  // Room for 6 tokens beside 'p': windows a–f, d–i, g–k (the last one shorter).
  const d = new SquadDataset([example('p', 'a b c d e f g h i j k', 'e f'), example('p', 'a b c d e f g h i j k')], tokenizer, { maxLength: 10, maxQueryLength: 4, docStride: 3 });
  assert.deepEqual(d.features.map((f) => [f.example, f.firstToken, f.tokenCount]), [[0, 0, 6], [0, 3, 6], [0, 6, 5], [1, 0, 6], [1, 3, 6], [1, 6, 5]]);
  assert.deepEqual(labelsOf(d), [[7, 8], [4, 5], [0, 0], [0, 0], [0, 0], [0, 0]]);
  const rows = d.batch([1, 2, 3]);
  assert.deepEqual([...rows.labels], [4, 5, 0, 0, 0, 0]);
  assert.deepEqual([...rows.inputIds.subarray(0, 10)], [2, id('p'), 3, ...'defghi'.split('').map(id), 3]);
  assert.deepEqual([...rows.inputIds.subarray(10, 20)], [2, id('p'), 3, ...'ghijk'.split('').map(id), 3, 0]);
});

test('an answer that a window cuts in two is no answer there', () => {
  const d = new SquadDataset([example('p', 'a b c d e f g h i j k', 'f g')], tokenizer, { maxLength: 10, maxQueryLength: 4, docStride: 3 });
  assert.deepEqual(labelsOf(d), [[0, 0], [5, 6], [0, 0]]);
});

test('a stride longer than the window leaves no token out', () => {
  const d = new SquadDataset([example('p', 'a b c d e f g')], tokenizer, { maxLength: 8, maxQueryLength: 4, docStride: 100 });
  assert.deepEqual(d.features.map((f) => [f.firstToken, f.tokenCount]), [[0, 4], [4, 3]]);
});

test('a long question is cut off, and leaves more room when it is short', () => {
  const d = new SquadDataset([example('a b c d e', 'f g'), example('a', 'f g h i j k')], tokenizer, { maxLength: 10, maxQueryLength: 3 });
  assert.deepEqual([...d.batch([0]).inputIds], [2, id('a'), id('b'), id('c'), 3, id('f'), id('g'), 3, 0, 0]);
  assert.equal(d.size, 2);
  assert.equal(d.features[1].length, 10);
});

test('labels are the tokens that hold any of the answer: part of a word, a pair of units, blanks at its ends', () => {
  const labels = (context: string, answer: string, at?: number) => labelsOf(new SquadDataset([example('p', context, answer, at)], tokenizer, { maxLength: 20, maxQueryLength: 4 }))[0];
  assert.deepEqual(labels('a bcd e', 'bcd'), [4, 6]);
  assert.deepEqual(labels('a bcd e', 'c'), [5, 5]);
  assert.deepEqual(labels('a bcd e', ' bcd '), [4, 6]);
  assert.deepEqual(labels('a 😀 日b', '😀'), [4, 4]);
  assert.deepEqual(labels('a 😀 日b', '日'), [5, 5]);
  assert.deepEqual(labels('a  b', '  '), [0, 0], 'white space is in no token');
});

test('of several annotators’ answers the first is the label', () => {
  const e = example('p', 'a b c', 'c');
  assert.deepEqual(labelsOf(new SquadDataset([{ ...e, answers: [...e.answers, { text: 'a', start: 0 }] }], tokenizer)), [[5, 5]]);
});

test('a batch can be as long as its longest feature, and tells its shape beforehand', () => {
  const examples = [example('a b', 'c d. e', 'd.'), example('a', 'b')];
  const longest = new SquadDataset(examples, tokenizer, { padding: 'longest' });
  assert.deepEqual(longest.shape([1]), { batchSize: 1, length: 5 });
  assert.deepEqual(longest.shape([1, 0]), { batchSize: 2, length: 9 });
  assert.equal(longest.batch([0, 1]).inputIds.length, 18);
  assert.deepEqual(new SquadDataset(examples, tokenizer).shape([1]), { batchSize: 1, length: 384 });
});

test('a context without tokens has one window, so that its question is answered too', () => {
  const d = new SquadDataset([example('a', ' ')], tokenizer);
  assert.deepEqual([...d.batch([0]).inputIds.subarray(0, 5)], [2, id('a'), 3, 3, 0]);
});

test('lengths that leave no room, and features that are not there, are refused', () => {
  const make = (options: object) => () => new SquadDataset([example('a', 'b')], tokenizer, options);
  assert.throws(make({ maxLength: 67 }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes('68 or more'));
  assert.doesNotThrow(make({ maxLength: 68 }));
  for (const options of [{ docStride: 0 }, { docStride: 1.5 }, { maxQueryLength: 0 }, { maxLength: NaN }]) assert.throws(make(options), InvalidArgumentError);
  const d = make({})();
  for (const i of [1, -1, 0.5, NaN]) assert.throws(() => d.batch([i]), InvalidArgumentError);
  assert.throws(() => d.tokensOf(example('a', 'another')), InvalidArgumentError);
});

/** Words and separators that are hard to place. */
const part = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('a', 'bc', 'dép', 'É', 'e\u0301', 'o\u0308n', 'İ', '日', '𠀀', '😀', '👨\u200d👩\u200d👧', '한', 'x', '.', '[MASK]') },
  { weight: 6, arbitrary: fc.constantFrom(' ', '  ', '\n', '\u00a0', '\u200b', '\u0000', '\u3000') },
);
const text = fc.array(part, { minLength: 1, maxLength: 40 }).map((p) => p.join(''));
const options = fc.record({ maxLength: fc.integer({ min: 9, max: 30 }), docStride: fc.integer({ min: 1, max: 12 }), maxQueryLength: fc.integer({ min: 1, max: 5 }) });
/** Logits that are sure of the labels of every feature. */
const gold = (d: SquadDataset): Predictions => {
  const logits = new Float32Array(d.size * 2 * d.maxLength);
  const labels = new Int32Array(d.size * 2);
  d.features.forEach((f, i) => {
    const row = i * 2 * d.maxLength;
    logits[row + f.startLabel] += 10;
    logits[row + d.maxLength + f.endLabel] += 10;
    labels.set([f.startLabel, f.endLabel], 2 * i);
  });
  return { logits, numLabels: 2 * d.maxLength, labels };
};

test('whatever the context, the part of it that a window shows has the tokens of the window', () => {
  let compared = 0;
  fc.assert(
    fc.property(text, options, (context, o) => {
      const d = new SquadDataset([example('a', context)], tokenizer, o);
      const { ids, starts, ends } = d.tokensOf(d.examples[0]);
      const continues = (token: number) => token < ids.length && tokenizer.token(ids[token])!.startsWith('##');
      let covered = 0;
      d.features.forEach((f, i) => {
        assert.ok(f.firstToken <= covered, 'a gap between windows');
        const end = f.firstToken + f.tokenCount;
        covered = end;
        const row = d.batch([i]).inputIds.subarray(f.contextBegin, f.contextBegin + f.tokenCount);
        assert.deepEqual(row, ids.subarray(f.firstToken, end));
        if (f.tokenCount === 0 || continues(f.firstToken) || continues(end)) return;
        assert.deepEqual(tokenizer.ids(context.slice(starts[f.firstToken], ends[end - 1])), [...row]);
        compared++;
      });
      assert.equal(covered, ids.length);
    }),
    { numRuns: 300 },
  );
  assert.ok(compared > 100, `${compared} windows compared`);
});

test('whatever the context, an answer of whole tokens that a window holds is recovered to the letter from its labels', () => {
  let recovered = 0;
  fc.assert(
    fc.property(text, options, fc.nat(), fc.nat(), (context, o, a, b) => {
      const { starts, ends } = new SquadDataset([example('a', context)], tokenizer, o).tokensOf(example('a', context));
      if (starts.length === 0) return;
      const from = a % starts.length;
      const to = from + (b % Math.min(4, starts.length - from));
      // The end of a token with the accents that the tokenizer drops.
      const end = ends[to] + /^\p{M}*/u.exec(context.slice(ends[to]))![0].length;
      const answer = context.slice(starts[from], end);
      const d = new SquadDataset([example('a', context, answer, starts[from]), example('a', context)], tokenizer, o);
      const windows = d.features.filter((f) => f.example === 0);
      const holding = windows.filter((f) => starts[from] >= starts[f.firstToken] && ends[to] <= ends[f.firstToken + f.tokenCount - 1] && f.startLabel > 0);
      // The first token of the answer counts only in its best window, which must hold the rest.
      const reach = (f: (typeof windows)[number]) => Math.min(from - f.firstToken, f.firstToken + f.tokenCount - 1 - from) + 0.01 * f.tokenCount;
      const showing = windows.filter((f) => from >= f.firstToken && from < f.firstToken + f.tokenCount);
      const best = showing.reduce((x, f) => (reach(f) > reach(x) ? f : x));
      // Two tokens of one character (a syllable) have one place: what is labelled is all of it.
      if (!holding.includes(best)) return;
      const got = squadPredictions(d, gold(d), { nullThreshold: Infinity }).questions[0];
      assert.deepEqual([got.text, got.nBest[0].start, got.nBest[0].end], [answer, starts[from], end]);
      recovered++;
    }),
    { numRuns: 300 },
  );
  assert.ok(recovered > 100, `${recovered} answers recovered`);
});

test('the shared SQuAD: every answer lies in a window and comes back from its labels, and gold logits score 100 but for answers that begin or end inside a token', { skip }, () => {
  const t = Tokenizer.fromFolder(path.join(SHARED, 'checkpoints/vocab/bert-base-uncased'));
  const examples = readSquad(path.join(SHARED, 'squad/dev-v2.0-part.json'));
  const d = new SquadDataset(examples, t);
  assert.equal(new Set(d.features.map((f) => f.example)).size, examples.length);
  const { questions } = squadPredictions(d, gold(d), { maxAnswerLength: 384 });
  let inside = 0;
  questions.forEach((q, i) => {
    const e = examples[i];
    if (e.isImpossible) return assert.equal(q.text, '', q.id);
    const [{ text, start }] = e.answers;
    const { starts, ends } = d.tokensOf(e);
    const [best] = q.nBest;
    if (starts.includes(start) && ends.includes(start + text.length)) assert.deepEqual([q.text, best.start], [text, start], q.id);
    else {
      inside++;
      assert.ok(best.start <= start && best.end >= start + text.length, `${q.id}: ${q.text} does not hold ${text}`);
    }
  });
  assert.ok(inside < 0.01 * examples.length, `${inside} answers begin or end inside a token`);
  const { f1, exact, NoAns_f1 } = d.metrics(gold(d));
  assert.ok(exact > 99 && f1 > 99 && NoAns_f1 === 100, `${exact}, ${f1}, ${NoAns_f1}`);
});

const BPE_FOLDER = path.join(__dirname, 'fixtures/bpe');
const roberta = Tokenizer.fromFolder(BPE_FOLDER);

test('RoBERTa’s questions and contexts stand between <s>, two </s> and one, all of token type 0, and are padded with <pad>', () => {
  // In vocabulary: the, Ġdog as two tokens, a, Ġthe, '.'.
  const d = new SquadDataset([example('the dog', 'a the. dog', 'the')], roberta, { maxLength: 16, maxQueryLength: 4 });
  const tokens = (row: Int32Array) => Array.from(row, (i) => roberta.token(i));
  const b = d.batch([0]);
  assert.deepEqual(tokens(b.inputIds), ['<s>', 'the', 'Ġd', 'og', '</s>', '</s>', 'a', 'Ġthe', '.', 'Ġd', 'og', '</s>', '<pad>', '<pad>', '<pad>', '<pad>']);
  assert.deepEqual([...b.tokenTypeIds], Array(16).fill(0));
  assert.deepEqual([...b.attentionMask], [...Array(12).fill(1), ...Array(4).fill(0)]);
  assert.deepEqual([b.labels, d.features[0].contextBegin, d.features[0].length], [Int32Array.of(7, 7), 6, 12]);
  assert.deepEqual([...b.inputIds.subarray(0, 12)], roberta.encode('the dog', 'a the. dog').inputIds);
});

test('RoBERTa’s four special tokens leave one less for the context than BERT’s three', () => {
  // Room for 5 tokens beside 'p', of 21.
  const d = new SquadDataset([example('p', 'a.b.c.d.e.f.g.h.i.j.k', 'c')], roberta, { maxLength: 10, maxQueryLength: 4, docStride: 4 });
  assert.deepEqual(d.features.map((f) => [f.firstToken, f.tokenCount, f.length]), [[0, 5, 10], [4, 5, 10], [8, 5, 10], [12, 5, 10], [16, 5, 10]]);
  assert.deepEqual(labelsOf(d), [[8, 8], [4, 4], [0, 0], [0, 0], [0, 0]]);
  const make = (maxLength: number) => () => new SquadDataset([example('a', 'b')], roberta, { maxLength });
  assert.throws(make(68), (e: Error) => e instanceof InvalidArgumentError && e.message.includes('69 or more'));
  assert.doesNotThrow(make(69));
});

test('RoBERTa’s labels are the tokens that hold any of the answer: parts of an emoji, never blanks alone', () => {
  const labels = (context: string, answer: string, at?: number) => labelsOf(new SquadDataset([example('a', context, answer, at)], roberta, { maxLength: 30, maxQueryLength: 4 }))[0].map((p) => p - 4);
  const { starts, ends } = roberta.idsWithOffsets('the  👨\u200d👩 the');
  const man = starts.indexOf(5);
  assert.ok(man === 2 && ends.lastIndexOf(7) > man, 'the blank alone is token 1, and the man several');
  assert.deepEqual(labels('the  👨\u200d👩 the', '👨'), [man, ends.lastIndexOf(7)]);
  assert.deepEqual(labels('a  b', 'b'), [2, 2]);
  assert.deepEqual(labels('a   b', ' b', 3), [3, 3]);
  assert.deepEqual(labels('a   b', 'a  '), [0, 0]);
  assert.deepEqual(labels('a   b', '  ', 1), [-4, -4], 'no answer');
});

test('whatever the context, RoBERTa’s labels are the fewest tokens with the whole answer in their places', () => {
  let labelled = 0;
  fc.assert(
    fc.property(text, fc.nat(), fc.nat(), (context, a, b) => {
      const characters = [...context];
      const from = a % characters.length;
      const answer = characters.slice(from, from + 1 + (b % 4)).join('');
      fc.pre(!/^\p{White_Space}|\p{White_Space}$/u.test(answer));
      const start = characters.slice(0, from).join('').length;
      const e = example('a', context, answer, start);
      const d = new SquadDataset([e], roberta, { maxLength: 1000, maxQueryLength: 4 });
      const { starts, ends } = d.tokensOf(e);
      const [first, last] = labelsOf(d)[0].map((p) => p - d.features[0].contextBegin);
      assert.ok(starts[first] <= start && ends[last] >= start + answer.length, JSON.stringify([context, answer, start, first, last]));
      assert.ok(ends.subarray(0, first).every((end) => end <= start) && starts.subarray(last + 1).every((s) => s >= start + answer.length));
      labelled++;
    }),
  );
  assert.ok(labelled > 50);
});

test('RoBERTa’s answers come back from their labels as they stand in the context, and blanks are no answer', () => {
  const d = new SquadDataset([example('a', 'the  dog', 'dog'), example('a', 'the  dog', 'the'), example('a', 'the 👍🏽the', '👍🏽'), example('a', 'the')], roberta, { maxLength: 24, maxQueryLength: 4 });
  assert.deepEqual([...squadPredictions(d, gold(d)).texts.values()], ['dog', 'the', '👍🏽', '']);
  const { logits } = gold(d);
  // The blank alone between 'the' and ' dog' is likeliest by far.
  const blank = d.features[0].contextBegin + 1;
  logits[blank] = logits[24 + blank] = 99;
  const [q] = squadPredictions(d, { logits, numLabels: 48, labels: new Int32Array(8) }).questions;
  assert.ok(q.text.trim() !== '' && q.nBest.every((c) => c.text.trim() !== '' || (c.text === '' && c.startLogit < 99)), JSON.stringify(q));
});

test('a tokenizer whose pairs do not begin with [CLS], or have the context first, is refused', () => {
  const token = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
  const sequence = (id: string) => ({ Sequence: { id, type_id: 0 } });
  for (const pair of [[sequence('A'), token('<s>'), sequence('B')], [token('<s>'), sequence('B'), sequence('A')], [token('</s>'), sequence('A'), sequence('B')], []]) {
    const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-squad-'));
    const json = JSON.parse(readFileSync(path.join(BPE_FOLDER, 'tokenizer.json'), 'utf8')) as object;
    const special_tokens = { '<s>': { ids: [0] }, '</s>': { ids: [2] } };
    writeFileSync(path.join(folder, 'tokenizer.json'), JSON.stringify({ ...json, post_processor: { type: 'TemplateProcessing', single: [token('<s>'), sequence('A')], pair, special_tokens } }));
    assert.throws(() => new SquadDataset([example('a', 'b')], Tokenizer.fromFolder(folder)), (e: Error) => e instanceof UnsupportedModelError && e.message.includes('post_processor'));
  }
});
