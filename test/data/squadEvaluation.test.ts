import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SquadExample } from '../../src/data/squad';
import { evaluateSquad, normalizeAnswer, type SquadEvaluation } from '../../src/data/squadEvaluation';
import { InvalidArgumentError } from '../../src/errors';
import { Random } from '../../src/random';
import { noPython, official } from './officialSquad';

const example = (id: string, ...answers: string[]): SquadExample => ({ id, title: '', question: '', context: answers.join('\n'), answers: answers.map((text) => ({ text, start: 0 })), isImpossible: answers.length === 0 });

test('normalising takes away case, ASCII punctuation, articles and white space, as Python understands them', () => {
  assert.equal(normalizeAnswer('The  Norman-French, a "King"!'), 'normanfrench king');
  assert.equal(normalizeAnswer('the The THE an A'), '');
  // A mark is no letter to Python's \b: a decomposed á is an article and an accent. A digit, CJK or an underscore is part of a word, but the underscore is punctuation.
  assert.equal(normalizeAnswer('a\u0301 the日 2the a_b ｔｈｅ'), '\u0301 the日 2the ab ｔｈｅ');
  assert.equal(normalizeAnswer('x\u001cy\u0085z\u00a0w\ufeffv\u2019s'), 'x y z w\ufeffv\u2019s');
  assert.equal(normalizeAnswer('İ ΟΔΟΣ'), 'i\u0307 οδος');
});

test('a small case by hand', () => {
  const examples = [example('1', 'red big dog', 'a dog'), example('2'), example('3', 'Rome'), example('4')];
  const predictions = new Map([['1', 'The big cat dog'], ['2', ''], ['3', ''], ['4', 'x'], ['5', 'ignored']]);
  // Question 1: 'big cat dog' with 'red big dog': 2 of 3 and 2 of 3; with 'dog': 1 of 3 and 1 of 1 = 1/2.
  const want: SquadEvaluation = { exact: 25, f1: (100 * (2 / 3 + 1)) / 4, total: 4, HasAns_exact: 0, HasAns_f1: 100 / 3, HasAns_total: 2, NoAns_exact: 50, NoAns_f1: 50, NoAns_total: 2 };
  const got = evaluateSquad(examples, predictions);
  assert.deepEqual(Object.keys(got), Object.keys(want));
  for (const [k, v] of Object.entries(want)) assert.ok(Math.abs(got[k as keyof SquadEvaluation]! - v) < 1e-12, `${k}: ${got[k as keyof SquadEvaluation]} is not ${v}`);
  // From 2 of 4 right with no answer at all: question 1, at -3, adds 2/3; question 4, at 5, takes 1.
  const na = evaluateSquad(examples, predictions, { naScores: new Map([['4', 5], ['1', -3], ['2', 0], ['3', 1]]), threshold: 2 });
  assert.deepEqual([na.best_f1_thresh, na.best_exact_thresh, na.best_exact], [-3, 0, 50]);
  assert.ok(Math.abs(na.best_f1! - (100 * (2 + 2 / 3)) / 4) < 1e-12);
  assert.equal(na.NoAns_exact, 100, 'question 4 counts as unanswered above the threshold');
});

/** Texts that are hard to compare. */
const PIECES = [
  '', ' ', 'a', 'an', 'the', 'The the', 'THE', 'A', '.', ',', '!?', '—', '«Rome»', '’s', '“the”', 'İ', 'İstanbul', 'i\u0307', 'ß', 'SS', 'ẞ', 'Σ', 'ΟΔΟΣ', 'οδος', 'οδοσ', 'ﬁ', 'ＴＨＥ', 'ｔｈｅ', '１２', '12', '1,200', '1200', '½', '²', 'Ⅷ', '٣',
  'a\u0301', 'the\u0301', 'á', '\u0301a', 'naïve', 'nai\u0308ve', '日本', 'the日', '日the', 'a日', 'a_b', '_a_', 'a-b', 'the-a', '2the', 'x\u00a0y', 'x\u2003y', 'x\u200by', 'x\ufeffy', '\ufeff', 'x\u001cy', 'x\u0085y', 'x\u2028y', 'x\u3000y', 'x\ty\n', '😀', 'a😀', '😀the', '𝐚', '𝟏', 'नमस्ते', 'a\u0903', 'dog', 'dog dog', 'cat', 'big dog', 'Rome', 'rome', 'constructor', '__proto__', 'toString', '\\', '`', '~', '$5.00', '5', 'x',
];

test('a thousand random and adversarial predictions score as the published script scores them', { skip: noPython }, () => {
  const random = new Random(11);
  const pick = <T>(from: readonly T[]): T => from[random.int(from.length)];
  const phrase = (most: number) => Array.from({ length: random.int(most + 1) }, () => pick(PIECES)).join(pick(['', ' ', ' ', '  ', '-']));
  const cases = Array.from({ length: 40 }, (_, k) => {
    // Numbers as ids: an object would put them in another order.
    const ids = Array.from({ length: 25 }, (_, i) => (i % 3 === 0 ? `${1000 - i}` : `q${k}-${i}`));
    const answerable = k === 0 ? 0 : k === 1 ? 1 : 0.6;
    const examples = ids.map((id) => example(id, ...(random.uniform() < answerable ? Array.from({ length: 1 + random.int(4) }, () => phrase(4) || pick(PIECES.slice(1))) : [])));
    const preds = examples.map((e): [string, string] => [e.id, random.uniform() < 0.25 ? '' : random.uniform() < 0.5 && e.answers.length > 0 ? `${pick(['', 'the ', 'A '])}${pick(e.answers).text}${pick(['', '.', ' x', ' dog'])}` : phrase(4)]);
    // Few different values: most are tied, at the threshold too. The order is another than the predictions'; ids that are not asked for are among them.
    const na = [...ids, 'unasked'].map((id): [string, number] => [id, pick([-2, -1, 0, 0, 0.5, 1, 1, 3, random.normal()])]);
    for (let i = na.length - 1; i > 0; i--) {
      const j = random.int(i + 1);
      [na[i], na[j]] = [na[j], na[i]];
    }
    return { examples, preds, na: k % 4 === 3 ? null : na, threshold: pick([1, 0, -1, 0.5]) };
  });
  const want = official({ evaluate: cases.map((c) => ({ qas: c.examples.map((e) => ({ id: e.id, answers: e.answers.map((a) => a.text) })), preds: c.preds, na: c.na, threshold: c.threshold })) }).evaluate;
  let compared = 0;
  let perQuestion = 0;
  cases.forEach((c, k) => {
    const got = evaluateSquad(c.examples, new Map(c.preds), { threshold: c.threshold, ...(c.na && { naScores: new Map(c.na) }) });
    assert.deepEqual(Object.keys(got).sort(), Object.keys(want[k]).sort());
    for (const [name, value] of Object.entries(want[k])) {
      assert.ok(Math.abs(got[name as keyof SquadEvaluation]! - value) < 1e-9, `case ${k}, ${name}: ${got[name as keyof SquadEvaluation]} is not ${value}`);
      compared++;
    }
  });
  // One by one too, so that no error hides behind another.
  const single = cases.flatMap((c) => c.examples.map((e, i) => ({ e, pred: c.preds[i][1] })));
  const alone = official({ evaluate: single.map(({ e, pred }) => ({ qas: [{ id: e.id, answers: e.answers.map((a) => a.text) }], preds: [[e.id, pred]], na: null, threshold: 1 })) }).evaluate;
  single.forEach(({ e, pred }, i) => {
    const { exact, f1 } = evaluateSquad([e], new Map([[e.id, pred]]));
    assert.ok(Math.abs(exact - alone[i].exact) < 1e-9 && Math.abs(f1 - alone[i].f1) < 1e-9, `${JSON.stringify(pred)} for ${JSON.stringify(e.answers.map((a) => a.text))}: ${exact}, ${f1}`);
    perQuestion++;
  });
  assert.ok(compared > 400 && perQuestion === 1000);
  const partly = alone.filter((a) => a.f1 > 0 && a.f1 < 100).length;
  assert.ok(partly > 100, `only ${partly} predictions are partly right`);
});

test('a question without a prediction or a naScore is an error that names it', () => {
  assert.throws(() => evaluateSquad([example('1', 'x')], new Map()), (e: Error) => e instanceof InvalidArgumentError && e.message.includes("'1'"));
  assert.throws(() => evaluateSquad([example('1', 'x')], new Map([['1', 'x']]), { naScores: new Map() }), InvalidArgumentError);
  assert.throws(() => evaluateSquad([example('1', 'x')], new Map([['1', 'x']]), { naScores: new Map([['1', NaN]]) }), /NaN/);
  assert.throws(() => evaluateSquad([], new Map()), InvalidArgumentError);
});
