import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { alignBertText, bertWords, normalizeBertText, splitBertText } from '../../src/data/bertText';

const UNCASED = { cleanText: true, chineseChars: true, lowerCase: true, stripAccents: true };

test('characters newer than Rust’s Unicode tables are letters, as Hugging Face’s tokenizers 0.23 have them', () => {
  const words = (c: string) => splitBertText(normalizeBertText(`x${c}x`, UNCASED)).length;
  // A mark, a comma, a format character, a dash and a mark beyond the BMP: words of one piece, nothing dropped.
  for (const c of ['\u0897', '\u2e52', '\u0890', '\u2e5d', '\u{1e944}']) assert.deepEqual([words(c), normalizeBertText(c, UNCASED)], [1, c], c);
  // Their elders: punctuation, a stripped mark, a dropped format character.
  assert.deepEqual([words('\u2e42'), normalizeBertText('\u0301', UNCASED), normalizeBertText('\u200d', UNCASED)], [3, '', '']);
});

test('each unit of aligned text stands for the part of the original that makes it', () => {
  const { text, starts, ends } = alignBertText('É\u0000日\ud83d\ude00한\t', UNCASED);
  assert.equal(text, 'e 日 \ud83d\ude00\u1112\u1161\u11ab ');
  assert.deepEqual(starts, [0, 2, 2, 2, 3, 3, 5, 5, 5, 6]);
  assert.deepEqual(ends, [1, 3, 3, 3, 5, 5, 6, 6, 6, 7]);
});

test('text normalised with places is the text without, which is NFD without marks in lower case, whatever it is', () => {
  const hard = fc.constantFrom('a', 'É', '\u0301', '\u0323', '\u0344', '\u0f73', '\u302e', '\u{1d165}', '\u{1d16d}', 'ệ', '한', '\u1e9b\u0323', ' ', '😀');
  fc.assert(
    fc.property(fc.array(hard, { maxLength: 12 }).map((p) => p.join('')), (text) => {
      const aligned = alignBertText(text, UNCASED);
      assert.equal(aligned.text, normalizeBertText(text, UNCASED));
      assert.equal(aligned.text, text.normalize('NFD').replace(/\p{Mn}/gu, '').toLowerCase());
      assert.deepEqual([aligned.starts.length, aligned.ends.length], [aligned.text.length, aligned.text.length]);
      assert.deepEqual(bertWords(aligned.text).map(([b, e]) => aligned.text.slice(b, e)), splitBertText(aligned.text));
    }),
    { numRuns: 500 },
  );
});
