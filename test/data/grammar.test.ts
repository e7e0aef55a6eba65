import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generateAcceptability, generateText, GRAMMAR_WORDS } from '../../src/data/embedded/grammar';

const accepted = new Set(generateText(4000, 11));

test('every word of every sentence is in the vocabulary', () => {
  const words = new Set(GRAMMAR_WORDS);
  for (const { text } of generateAcceptability(2000, 3)) for (const w of text.split(' ')) assert.ok(words.has(w), w);
  for (const text of accepted) for (const w of text.split(' ')) assert.ok(words.has(w), w);
});

test('the classes are equal in size, the sentences all different, and the same for the same seed', () => {
  const a = generateAcceptability(1000, 5);
  assert.equal(a.filter((e) => e.label === 1).length, 500);
  assert.equal(new Set(a.map((e) => e.text)).size, 1000);
  assert.deepEqual(generateAcceptability(1000, 5), a);
  assert.notDeepEqual(generateAcceptability(1000, 6), a);
});

test('acceptable sentences agree in number, broken ones do not all', () => {
  // A plural determiner is followed, after adjectives, by a plural noun: seen on the words that the grammar calls so.
  const singular = new Set(['this', 'that', 'every', 'a', 'an', 'each']);
  const plural = new Set(['these', 'those', 'many', 'some', 'several']);
  const nouns = new Map([['dog', 0], ['dogs', 1], ['child', 0], ['children', 1], ['city', 0], ['cities', 1], ['fox', 0], ['foxes', 1], ['king', 0], ['kings', 1]]);
  let wrong = 0;
  let checked = 0;
  const check = (text: string): boolean => {
    const words = text.split(' ');
    return words.every((w, i) => {
      const n = nouns.get(words[i + 1]);
      if (n === undefined || (w === 'that' && i > 0 && nouns.has(words[i - 1]))) return true;
      checked++;
      return !((n === 1 && singular.has(w) && w !== 'that') || (n === 0 && plural.has(w)));
    });
  };
  for (const text of accepted) assert.ok(check(text), text);
  for (const { text, label } of generateAcceptability(6000, 2)) if (label === 0 && !check(text)) wrong++;
  assert.ok(checked > 500);
  assert.ok(wrong > 5, `${wrong} broken sentences with a wrong determiner`);
});
