import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { SquadExample } from '../../src/data/squad';
import { SquadDataset, type SquadDatasetOptions } from '../../src/data/squadDataset';
import { squadPredictions, writeSquadPredictions } from '../../src/data/squadPredictions';
import { Tokenizer } from '../../src/data/tokenizer';
import { InvalidArgumentError } from '../../src/errors';
import type { Predictions } from '../../src/models/model';
import { Random } from '../../src/random';
import { noPython, official } from './officialSquad';

const letters = [...'abcdefgh'];
const tokenizer = Tokenizer.fromVocabulary(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', ...letters, 'cafe']);
const T = 12;
const example = (id: string, context: string, answer?: string): SquadExample => ({
  id,
  title: 'T',
  question: 'a',
  context,
  answers: answer === undefined ? [] : [{ text: answer, start: context.indexOf(answer) }],
  isImpossible: answer === undefined,
});
const dataset = (examples: SquadExample[], options: SquadDatasetOptions = {}) => new SquadDataset(examples, tokenizer, { maxLength: T, maxQueryLength: 4, ...options });
/** Logits, -5 but where said: [start position, logit] and [end position, logit] of each feature. */
const logitsOf = (...features: { start: [number, number][]; end: [number, number][] }[]): Predictions => {
  const logits = new Float32Array(features.length * 2 * T).fill(-5);
  features.forEach(({ start, end }, i) => {
    for (const [p, v] of start) logits[i * 2 * T + p] = v;
    for (const [p, v] of end) logits[i * 2 * T + T + p] = v;
  });
  return { logits, numLabels: 2 * T, labels: new Int32Array(features.length * 2) };
};

test('the best span inside the context is the answer, cut out of the original text', () => {
  // [CLS] a [SEP] B  c . D: tokens at 3 to 6. The question and [SEP] count for nothing, however likely.
  const d = dataset([example('1', 'B  C d E', 'C')]);
  const [q] = squadPredictions(d, logitsOf({ start: [[4, 3], [1, 9], [2, 9], [0, -1]], end: [[5, 2], [3, 8], [11, 9], [7, 9], [0, -1]] })).questions;
  assert.deepEqual([q.text, q.nBest[0].start, q.nBest[0].end, q.nBest[0].startLogit, q.nBest[0].endLogit], ['C d', 3, 6, 3, 2]);
  assert.ok(q.nBest.every((c) => !c.text.includes('undefined') && c.start <= c.end));
});

test('none is predicted where its least score over the windows is above the best span’s by more than the threshold', () => {
  const d = dataset([example('1', 'b c d e'), example('2', 'c')]);
  // None: 2 + 2; the span: 1 + 1.5.
  const p = logitsOf({ start: [[0, 2], [4, 1]], end: [[0, 2], [4, 1.5]] }, { start: [[3, 1]], end: [[3, 1]] });
  const at = (nullThreshold?: number) => squadPredictions(d, p, { nullThreshold }).questions[0];
  assert.equal(at().scoreDifference, 1.5);
  assert.deepEqual([at().text, at(1.5).text, at(1.4).text, at(Infinity).text, at(-Infinity).text], ['', 'c', '', 'c', '']);
  assert.deepEqual([at().nBest[0].text, at().nBest[1].text], ['', 'c']);
  assert.ok(Math.abs(at().nBest[0].probability / at().nBest[1].probability - Math.exp(1.5)) < 1e-6);
  assert.equal(at().naProbability, at().nBest[0].probability);
  assert.ok(Math.abs(at().nBest.reduce((sum, c) => sum + c.probability, 0) - 1) < 1e-12);
  assert.ok(at(Infinity).nBest.every((c) => c.text !== ''));
  assert.equal(at(Infinity).naProbability, 0);
});

test('the least likely none of all windows counts', () => {
  const d = dataset([example('1', 'b c d e f g h b c d e f')], { docStride: 4 });
  assert.equal(d.size, 2);
  const [q] = squadPredictions(d, logitsOf({ start: [[0, 4], [3, 1]], end: [[0, 4], [3, 1]] }, { start: [[0, 0.5]], end: [[0, 0]] })).questions;
  assert.equal(q.scoreDifference, 0.5 - 2);
  assert.equal(q.text, 'b');
});

test('where no question is impossible every one is answered', () => {
  const d = dataset([example('1', 'b c d e', 'c')]);
  assert.equal(squadPredictions(d, logitsOf({ start: [[0, 9], [4, 1]], end: [[0, 9], [4, 1]] })).texts.get('1'), 'c');
});

test('an answer ends with the accents of its last letter, which the tokenizer drops', () => {
  const d = dataset([example('1', 'b Cafe\u0301. c', 'Cafe\u0301')]);
  assert.equal(squadPredictions(d, logitsOf({ start: [[4, 1]], end: [[4, 1]] })).texts.get('1'), 'Cafe\u0301');
});

test('where no span counts nothing is answered, and the difference is the score of none', () => {
  const d = dataset([example('1', 'b c'), example('2', ' ')]);
  const backwards = { start: [[4, 5]] as [number, number][], end: [[3, 5], [0, 1]] as [number, number][] };
  const { questions } = squadPredictions(d, logitsOf(backwards, { start: [[0, 1]], end: [[0, 2]] }), { nBestSize: 1 });
  assert.deepEqual(questions.map((q) => [q.text, q.scoreDifference, q.nBest.length]), [['', -4, 1], ['', 3, 1]]);
});

test('random logits of overlapping windows give the answers, scores and candidates of the published run_squad.py, ties included', { skip: noPython }, () => {
  const random = new Random(5);
  const cases = Array.from({ length: 300 }, (_, k) => {
    const context = Array.from({ length: 1 + random.int(30) }, () => letters[random.int(letters.length)]).join(random.int(2) ? ' ' : '  ');
    const version2 = k % 3 > 0;
    const options = { maxLength: T + random.int(8), docStride: 1 + random.int(8) };
    const decoding = { nBestSize: 1 + random.int(8), maxAnswerLength: 1 + random.int(6), nullThreshold: version2 ? random.int(3) - 1 : Infinity };
    const d = dataset([version2 ? example('1', context) : example('1', context, context[0])], options);
    const n = 2 * options.maxLength;
    // Whole and half numbers only: many are equal.
    const logits = Float32Array.from({ length: d.size * n }, () => (k % 2 ? Math.round(4 * random.normal()) / 2 : random.normal()));
    const { starts, ends } = d.tokensOf(d.examples[0]);
    const rows = Array.from({ length: d.size }, (_, f) => [0, 1].map((half) => Array.from(logits.subarray(f * n + half * options.maxLength, f * n + (half + 1) * options.maxLength))));
    const texts = Array.from(starts, (s) => Array.from(ends, (e) => context.slice(s, e)));
    const asked = { ...options, ...decoding, threshold: Number.isFinite(decoding.nullThreshold) ? decoding.nullThreshold : 0, version2, queryTokens: 1, tokens: starts.length, texts, logits: rows };
    return { asked, got: squadPredictions(d, { logits, numLabels: n, labels: new Int32Array(2 * d.size) }, decoding).questions[0] };
  });
  const want = official({ decode: cases.map((c) => c.asked) }).decode;
  const kinds = new Set<string>();
  cases.forEach(({ asked, got }, k) => {
    assert.equal(got.text, want[k].text, `case ${k}`);
    assert.ok(Math.abs(got.scoreDifference - want[k].scoreDifference) < 1e-9, `case ${k}: ${got.scoreDifference} is not ${want[k].scoreDifference}`);
    assert.deepEqual(got.nBest.map((c) => c.text), want[k].nBest.map(([text]) => text), `case ${k}`);
    got.nBest.forEach((c, i) => assert.ok(Math.abs(c.probability - want[k].nBest[i][1]) < 1e-9, `case ${k}, candidate ${i}`));
    kinds.add(`${asked.logits.length > 1 ? 'windows' : 'one window'}, ${got.text === '' ? 'none' : 'an answer'}`);
  });
  assert.deepEqual([...kinds].sort(), ['one window, an answer', 'one window, none', 'windows, an answer', 'windows, none']);
});

test('metrics are the official figures in percent, bound to their data set', () => {
  const d = dataset([example('1', 'b c d e', 'c d'), example('2', 'b c d e')]);
  const { metrics } = d;
  // 'c' for 'c d': 2·1·(1/2)/(1 + 1/2); none for none.
  const p = logitsOf({ start: [[4, 3]], end: [[4, 3]] }, { start: [[0, 3]], end: [[0, 3]] });
  const got = metrics(p);
  assert.deepEqual(Object.keys(got), ['f1', 'exact', 'HasAns_f1', 'NoAns_f1', 'best_f1']);
  for (const [k, v] of Object.entries({ f1: 250 / 3, exact: 50, HasAns_f1: 200 / 3, NoAns_f1: 100, best_f1: 250 / 3 })) assert.ok(Math.abs(got[k] - v) < 1e-9, `${k}: ${got[k]}`);
  assert.deepEqual(Object.keys(dataset([example('1', 'b c', 'c')]).metrics(logitsOf({ start: [[4, 3]], end: [[4, 3]] }))), ['f1', 'exact']);
});

test('logits that are not of this data set, or NaN, are refused', () => {
  const d = dataset([example('1', 'b c'), example('2', 'b c d')], { padding: 'longest' });
  const p = logitsOf({ start: [], end: [] }, { start: [], end: [] });
  assert.doesNotThrow(() => squadPredictions(d, p));
  assert.throws(() => squadPredictions(d, logitsOf({ start: [], end: [] })), (e: Error) => e instanceof InvalidArgumentError && e.message.includes("padding 'max'"));
  assert.throws(() => squadPredictions(d, { ...p, numLabels: 6, logits: new Float32Array(12) }), InvalidArgumentError, 'shorter than a feature');
  assert.throws(() => squadPredictions(d, { ...p, numLabels: 23, logits: new Float32Array(46) }), InvalidArgumentError);
  assert.throws(() => squadPredictions(d, { ...p, logits: p.logits.map((v, i) => (i === 7 ? NaN : v)) }), /NaN/);
  for (const options of [{ nBestSize: 0 }, { maxAnswerLength: 1.5 }, { nullThreshold: NaN }]) assert.throws(() => squadPredictions(d, p, options), InvalidArgumentError);
});

test('predictions.json and null_odds.json keep the order of the questions, whatever their ids, and every character', () => {
  const folder = path.join(mkdtempSync(path.join(tmpdir(), 'slimfit-squad-')), 'new', 'folder');
  const d = dataset([example('z"\\', 'b "😀\ud83d" c'), example('10', 'b'), example('2', 'b')]);
  const p = squadPredictions(d, logitsOf({ start: [[4, 1]], end: [[7, 1]] }, { start: [[3, 1]], end: [[3, 1]] }, { start: [[0, 2]], end: [[0, 2.25]] }));
  writeSquadPredictions(folder, p);
  assert.deepEqual(readdirSync(folder).sort(), ['null_odds.json', 'predictions.json']);
  const text = readFileSync(path.join(folder, 'predictions.json'), 'utf8');
  assert.ok(text.indexOf('z\\"\\\\') < text.indexOf('"10"') && text.indexOf('"10"') < text.indexOf('"2"'), text);
  assert.deepEqual(JSON.parse(text), { 'z"\\': p.texts.get('z"\\'), '10': 'b', '2': '' });
  assert.deepEqual(JSON.parse(readFileSync(path.join(folder, 'null_odds.json'), 'utf8')), Object.fromEntries(p.naScores));
  assert.equal(p.naScores.get('2'), 4.25 + 10);
  assert.ok(existsSync(folder));
});
