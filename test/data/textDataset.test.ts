import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MaskedLmDataset } from '../../src/data/maskedLm';
import { TextDataset } from '../../src/data/textDataset';
import { Tokenizer } from '../../src/data/tokenizer';
import { InvalidArgumentError } from '../../src/errors';

const tokenizer = Tokenizer.fromVocabulary(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'b', 'c', 'd']);
const examples = [
  { text: 'a b c', label: 1 },
  { text: 'd', pair: 'a', label: 0 },
];

test('a batch is padded to the full length, or to its longest sequence', () => {
  const full = new TextDataset(examples, tokenizer, { maxLength: 7 }).batch([1, 0]);
  assert.deepEqual([...full.inputIds], [2, 8, 3, 5, 3, 0, 0, 2, 5, 6, 7, 3, 0, 0]);
  assert.deepEqual([...full.tokenTypeIds], [0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  assert.deepEqual([...full.attentionMask], [1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0]);
  assert.deepEqual(full.labels, Int32Array.of(0, 1));
  assert.equal(new TextDataset(examples, tokenizer, { maxLength: 7, padding: 'longest' }).batch([0, 1]).length, 5);
});

test('scores stay scores', () => {
  assert.deepEqual(new TextDataset([{ text: 'a', label: 2.5 }], tokenizer).batch([0]).labels, Float32Array.of(2.5));
  assert.deepEqual(new TextDataset([{ text: 'a', label: 2 }], tokenizer, { regression: true }).batch([0]).labels, Float32Array.of(2));
});

test('an example that is not there is refused', () => {
  assert.throws(() => new TextDataset(examples, tokenizer).batch([2]), InvalidArgumentError);
});

test('masked LM asks for 15 % of the tokens, mostly hidden, never special ones, and the same for the same seed', () => {
  const texts = Array.from({ length: 200 }, () => Array.from({ length: 20 }, (_, i) => 'abcd'[i % 4]).join(' '));
  const all = Array.from({ length: 200 }, (_, i) => i);
  const make = () => new MaskedLmDataset(texts, tokenizer, 22, 5).batch(all);
  const b = make();
  assert.deepEqual(make(), b);
  const asked = [...(b.labels as Int32Array)].flatMap((l, i) => (l === -100 ? [] : [i]));
  assert.equal(asked.length, 200 * 3);
  for (const i of asked) assert.ok(i % 22 !== 0 && i % 22 !== 21, 'a special token is asked for');
  const hidden = asked.filter((i) => b.inputIds[i] === tokenizer.maskTokenId).length / asked.length;
  assert.ok(Math.abs(hidden - 0.8) < 0.06, `${hidden} hidden`);
  const untouched = Array.from(b.inputIds).filter((_, i) => b.labels[i] === -100);
  assert.equal(untouched.includes(tokenizer.maskTokenId), false);
});
