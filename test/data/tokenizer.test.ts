import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { longestFirst, Tokenizer } from '../../src/data/tokenizer';
import { CheckpointError, FileMissingError, InvalidArgumentError, SequenceTooLongError, UnsupportedModelError } from '../../src/errors';

const SHARED = path.resolve(__dirname, '../../../shared/data');
const skip = existsSync(path.join(SHARED, 'checkpoints/vocab')) ? false : 'no ../shared/data/checkpoints/vocab';
const WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the', 'dog', '##s', 'bark', '.', 'a'];
const tiny = () => Tokenizer.fromVocabulary(WORDS);

/** Ids of Hugging Face's tokenizers 0.22 (Python) for texts that are hard to cut. */
const TEXTS: readonly string[] = ["Hello, World!", "na\u00efve caf\u00e9 d\u00e9j\u00e0 vu", "\u65e5\u672c\u8a9e text \u4e2d\u6587", "unaffable internationalization", "a\u0000b\u200bc\td", "emoji \ud83d\ude00 ok", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "don't stop-it (now)", "\u0391\u0392\u0393 \u00df \u0130stanbul", "  spaced   out  ", "e\u0301 combining", "$5.00 50% #tag", "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "[MASK] here [SEP]"];
const WANT: Readonly<Record<string, readonly (readonly number[])[]>> = {
  'bert-base-uncased': [[101, 7592, 1010, 2088, 999, 102], [101, 15743, 7668, 2139, 3900, 24728, 102], [101, 1864, 1876, 1950, 3793, 1746, 1861, 102], [101, 14477, 20961, 3468, 2248, 3989, 102], [101, 5925, 1040, 102], [101, 7861, 29147, 2072, 100, 7929, 102], [101, 100, 102], [101, 2123, 1005, 1056, 2644, 1011, 2009, 1006, 2085, 1007, 102], [101, 1155, 29720, 29721, 1096, 9960, 102], [101, 19835, 2041, 102], [101, 1041, 11566, 102], [101, 1002, 1019, 1012, 4002, 2753, 1003, 1001, 6415, 102], [101, 1266, 29799, 29792, 29800, 1259, 29792, 29799, 29800, 102], [101, 103, 2182, 102, 102]],
  'bert-base-cased': [[101, 8667, 117, 1291, 106, 102], [101, 9468, 28203, 2707, 20583, 173, 2744, 3361, 9183, 191, 1358, 102], [101, 1033, 1039, 100, 3087, 980, 1030, 102], [101, 8362, 9823, 8057, 2165, 1835, 2734, 102], [101, 170, 1830, 1665, 173, 102], [101, 9712, 1186, 3454, 100, 21534, 102], [101, 100, 102], [101, 1274, 112, 189, 1831, 118, 1122, 113, 1208, 114, 102], [101, 394, 28316, 28317, 245, 300, 13946, 27515, 102], [101, 22445, 1149, 102], [101, 174, 28310, 12459, 102], [101, 109, 126, 119, 3135, 1851, 110, 108, 9235, 102], [101, 557, 28456, 28450, 28457, 552, 28450, 28456, 28457, 102], [101, 103, 1303, 102, 102]],
};
/** SHA-256 over the ids of every line of seven GLUE dev files, from the same library. */
const GLUE_LINES = ['CoLA', 'SST-2', 'MRPC', 'RTE', 'QNLI', 'QQP', 'STS-B'];
const DIGEST: Readonly<Record<string, string>> = {
  'bert-base-uncased': 'fec71151ab1f5f37d088d2d69f37a06dda7c9ead0b40222ce51d572b8b9481d2',
  'bert-base-cased': '7b61c60ad0a6a7433878927f1e484dd3faf39cce86eb4a137d554c4617de2943',
};

for (const name of Object.keys(WANT)) {
  test(`${name}: hard texts are cut as Hugging Face cuts them`, { skip }, () => {
    const t = Tokenizer.fromFolder(path.join(SHARED, 'checkpoints/vocab', name));
    TEXTS.forEach((text, i) => assert.deepEqual([...t.encode(text).inputIds], WANT[name][i], JSON.stringify(text)));
  });

  test(`${name}: ten thousand lines of GLUE are cut as Hugging Face cuts them`, { skip }, () => {
    const t = Tokenizer.fromFolder(path.join(SHARED, 'checkpoints/vocab', name));
    const hash = createHash('sha256');
    for (const task of GLUE_LINES) {
      const lines = readFileSync(path.join(SHARED, 'glue', task, 'dev.tsv'), 'utf8').replace(/^\ufeff/, '').split('\n');
      if (lines.at(-1) === '') lines.pop();
      for (const line of lines) hash.update(`${t.ids(line.replace(/\r$/, '')).join()}\n`);
    }
    assert.equal(hash.digest('hex'), DIGEST[name]);
  });
}

test('a text is wrapped in [CLS] and [SEP], a pair is told apart by token types', () => {
  assert.deepEqual(tiny().encode('The dogs bark.'), { inputIds: [2, 5, 6, 7, 8, 9, 3], tokenTypeIds: [0, 0, 0, 0, 0, 0, 0] });
  assert.deepEqual(tiny().encode('the dog', 'a zebra'), { inputIds: [2, 5, 6, 3, 10, 1, 3], tokenTypeIds: [0, 0, 0, 0, 1, 1, 1] });
});

test('too long a text is cut, the longer of a pair first, or refused', () => {
  assert.deepEqual(tiny().encode('the dog bark .', undefined, { maxLength: 4 }).inputIds, [2, 5, 6, 3]);
  assert.deepEqual([longestFirst(10, 2, 8), longestFirst(2, 10, 8), longestFirst(10, 10, 7), longestFirst(3, 3, 8)], [[6, 2], [2, 6], [3, 4], [3, 3]]);
  assert.throws(() => tiny().encode('the dog bark .', undefined, { maxLength: 4, truncation: false }), SequenceTooLongError);
  assert.throws(() => tiny().encode('the', undefined, { maxLength: 1 }), InvalidArgumentError);
});

test('what is saved is read back, from tokenizer.json and from vocab.txt alone', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-tok-'));
  tiny().save(folder);
  const again = Tokenizer.fromFolder(folder);
  assert.deepEqual(again.encode('The dogs bark .', 'a dog'), tiny().encode('The dogs bark .', 'a dog'));
  const bare = mkdtempSync(path.join(tmpdir(), 'slimfit-tok-'));
  writeFileSync(path.join(bare, 'vocab.txt'), readFileSync(path.join(folder, 'vocab.txt')));
  assert.deepEqual(Tokenizer.fromFolder(bare).encode('The dogs bark .').inputIds, [2, 5, 6, 7, 8, 9, 3]);
  assert.equal(again.decode([2, 5, 6, 7, 3]), 'the dogs');
});

test('a folder without a vocabulary, or with another model’s, is refused', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-tok-'));
  assert.throws(() => Tokenizer.fromFolder(folder), FileMissingError);
  writeFileSync(path.join(folder, 'vocab.txt'), 'a\nb\n');
  assert.throws(() => Tokenizer.fromFolder(folder), CheckpointError);
  writeFileSync(path.join(folder, 'tokenizer.json'), '{ no json');
  assert.throws(() => Tokenizer.fromFolder(folder), CheckpointError);
});

/** Offsets of Hugging Face's tokenizers 0.23 (Python), from code points to UTF-16 units. */
const OFFSETS: readonly { readonly text: string; readonly uncased: readonly (readonly number[])[]; readonly cased: readonly (readonly number[])[] }[] = [
  { text: "\u0130stanbul", uncased: [[0, 8]], cased: [[0, 1], [1, 5], [5, 8]] },
  { text: "e\u0301 cafe\u0301s", uncased: [[0, 1], [3, 9]], cased: [[0, 1], [1, 2], [3, 7], [7, 8], [8, 9]] },
  { text: "a\u0301\u0323b", uncased: [[0, 4]], cased: [[0, 4]] },
  { text: "\ud83d\udc68\u200d\ud83d\udc69\u200d\ud83d\udc67 family", uncased: [[0, 8], [9, 15]], cased: [[0, 8], [9, 15]] },
  { text: "\u65e5\u672c\u8a9etext\u4e2d\u6587\ud840\udc00x", uncased: [[0, 1], [1, 2], [2, 3], [3, 7], [7, 8], [8, 9], [9, 11], [11, 12]], cased: [[0, 1], [1, 2], [2, 3], [3, 7], [7, 8], [8, 9], [9, 11], [11, 12]] },
  { text: "a\u200bb\u200d c", uncased: [[0, 3], [5, 6]], cased: [[0, 1], [2, 3], [5, 6]] },
  { text: "a\u0000b", uncased: [[0, 3]], cased: [[0, 1], [2, 3]] },
  { text: "\u0391\u03a3 \u039f\u0394\u039f\u03a3 \u00df \u1e9e \ufb01", uncased: [[0, 1], [1, 2], [3, 4], [4, 5], [5, 6], [6, 7], [8, 9], [10, 11], [12, 13]], cased: [[0, 1], [1, 2], [3, 4], [4, 5], [5, 6], [6, 7], [8, 9], [10, 11], [12, 13]] },
  { text: "\ud55c\uad6d\uc5b4 \uac01", uncased: [[0, 1], [0, 1], [0, 1], [1, 2], [1, 2], [1, 2], [2, 3], [2, 3], [4, 5], [4, 5], [4, 5]], cased: [[0, 3], [4, 5]] },
  { text: "[SEP] x [MASK]y[CLS][PAD]", uncased: [[0, 5], [6, 7], [8, 14], [14, 15], [15, 20], [20, 25]], cased: [[0, 5], [6, 7], [8, 14], [14, 15], [15, 20], [20, 25]] },
  { text: "\u0301abc", uncased: [[1, 4]], cased: [[0, 1], [1, 3], [3, 4]] },
  { text: "a\ufffdb", uncased: [[0, 3]], cased: [[0, 1], [2, 3]] },
  { text: "\u1ec7 e\u0302\u0323", uncased: [[0, 1], [2, 3]], cased: [[0, 1], [2, 5]] },
  { text: "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", uncased: [[0, 1], [1, 2], [2, 3], [4, 5], [7, 8], [9, 10], [10, 11], [11, 12], [12, 13]], cased: [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6], [7, 8], [8, 9], [9, 10], [10, 11], [11, 12], [12, 13]] },
  { text: "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd", uncased: [[0, 1], [3, 4], [4, 5], [6, 7]], cased: [[0, 7]] },
  { text: "\ud834\udd5e\ud834\udd65\ud834\udd6e\ud834\udd66z", uncased: [[0, 9]], cased: [[0, 9]] },
  { text: "don't U.S.A. $5.00", uncased: [[0, 3], [3, 4], [4, 5], [6, 7], [7, 8], [8, 9], [9, 10], [10, 11], [11, 12], [13, 14], [14, 15], [15, 16], [16, 18]], cased: [[0, 3], [3, 4], [4, 5], [6, 7], [7, 8], [8, 9], [9, 10], [10, 11], [11, 12], [13, 14], [14, 15], [15, 16], [16, 18]] },
  { text: "\ufeffbom", uncased: [[1, 3], [3, 4]], cased: [[1, 2], [2, 4]] },
  { text: "a\u00a0b\u3000c\u2028d\u0085e\u001cf\u000bg", uncased: [[0, 1], [2, 3], [4, 5], [6, 11], [12, 13]], cased: [[0, 1], [2, 3], [4, 5], [6, 11], [12, 13]] },
  { text: "\u2460\u2461\u00bd", uncased: [[0, 3]], cased: [[0, 3]] },
  { text: "", uncased: [], cased: [] },
  { text: "   ", uncased: [], cased: [] },
  { text: "\u0130\u0130 i\u0307", uncased: [[0, 2], [3, 4]], cased: [[0, 1], [1, 2], [3, 5]] },
  { text: "\u01c5 \u01c4", uncased: [[0, 1], [2, 3]], cased: [[0, 1], [2, 3]] },
  { text: "\u00e9\u0301\u0301", uncased: [[0, 1]], cased: [[0, 1], [1, 2], [2, 3]] },
];
/** SHA-256 over the ids and offsets of every context and question of both shared SQuAD files, from the same library. */
const SQUAD_DIGEST: Readonly<Record<string, string>> = {
  'bert-base-uncased': 'f772a48a2ae38bcdf67abbcaf932a5188093f8fd197af890bb53ebd6f752a749',
  'bert-base-cased': '3d34e0fed0c3bf70aa11024230d48a9d074b08c892211cf6ecef03dd0fcd4797',
};

for (const kind of ['uncased', 'cased'] as const) {
  const name = `bert-base-${kind}`;
  test(`${name}: tokens of hard texts stand where Hugging Face puts them, in UTF-16 units of the original text`, { skip }, () => {
    const t = Tokenizer.fromFolder(path.join(SHARED, 'checkpoints/vocab', name));
    for (const { text, [kind]: want } of OFFSETS) {
      const got = t.idsWithOffsets(text);
      assert.deepEqual([...got.ids], t.ids(text), JSON.stringify(text));
      assert.deepEqual(Array.from(got.starts, (s, i) => [s, got.ends[i]]), want, JSON.stringify(text));
    }
  });

  test(`${name}: every context and question of SQuAD has Hugging Face's ids and offsets`, { skip: skip || (existsSync(path.join(SHARED, 'squad')) ? false : 'no ../shared/data/squad') }, () => {
    const t = Tokenizer.fromFolder(path.join(SHARED, 'checkpoints/vocab', name));
    const hash = createHash('sha256');
    for (const file of ['dev-v2.0-part.json', 'train-v2.0-small.json']) {
      const { data } = JSON.parse(readFileSync(path.join(SHARED, 'squad', file), 'utf8')) as { data: { paragraphs: { context: string; qas: { question: string }[] }[] }[] };
      for (const { context, qas } of data.flatMap((article) => article.paragraphs))
        for (const text of [context, ...qas.map((q) => q.question)]) {
          const { ids, starts, ends } = t.idsWithOffsets(text);
          hash.update(`${ids.join()}|${Array.from(starts, (s, i) => `${s}-${ends[i]}`).join()}\n`);
        }
    }
    assert.equal(hash.digest('hex'), SQUAD_DIGEST[name]);
  });
}

test('offsets point into the text as given: accents, dropped characters, decompositions and special tokens before a token move it', () => {
  const t = Tokenizer.fromVocabulary([...WORDS, 'cafe', 'i', '##x', '\u65e5', '\ud840\udc00', '\u1112', '##\u1161', '##\u11ab']);
  const spans = (text: string) => {
    const { ids, starts, ends } = t.idsWithOffsets(text);
    return Array.from(ids, (id, i) => [t.token(id), text.slice(starts[i], ends[i])]);
  };
  assert.deepEqual(spans('Caf\u00e9 the'), [['cafe', 'Caf\u00e9'], ['the', 'the']]);
  // The stripped accent is of no token; the next one is in its place all the same.
  assert.deepEqual(spans('Cafe\u0301 the'), [['cafe', 'Cafe'], ['the', 'the']]);
  assert.deepEqual(spans('C\u0327afe\u0301 \u0000\u200bdog\u200d\u200bs.'), [['cafe', 'C\u0327afe'], ['dog', 'dog'], ['##s', 's'], ['.', '.']]);
  assert.deepEqual(spans('\u0130x \ud83d\udc68\u200d\ud83d\udc69 a'), [['i', '\u0130'], ['##x', 'x'], ['[UNK]', '\ud83d\udc68\u200d\ud83d\udc69'], ['a', 'a']]);
  assert.deepEqual(spans('a\u65e5\ud840\udc00the'), [['a', 'a'], ['\u65e5', '\u65e5'], ['\ud840\udc00', '\ud840\udc00'], ['the', 'the']]);
  assert.deepEqual(spans('\ud55c'), [['\u1112', '\ud55c'], ['##\u1161', '\ud55c'], ['##\u11ab', '\ud55c']]);
  assert.deepEqual(spans('\u00e9 [SEP]dog [MASK]'), [['[UNK]', '\u00e9'], ['[SEP]', '[SEP]'], ['dog', 'dog'], ['[MASK]', '[MASK]']]);
  assert.deepEqual(spans(' \u0301\u0000 '), []);
  // Two marks that NFD puts in the other order.
  assert.deepEqual(spans('\u302e\ud834\udd65 a'), [['[UNK]', '\u302e\ud834\udd65'], ['a', 'a']]);
});

test('ids with offsets are the ids without, and offsets never run backwards, whatever the text', () => {
  const t = Tokenizer.fromVocabulary([...WORDS, '##a', 'e', '##e', '\u65e5']);
  const hard = fc.constantFrom('a', 'e', 'the', ' ', '\u0301', '\u0323', '\u302e', '\ud834\udd65', '\u00e9', '\u0130', '\u65e5', '\ud55c', '\u200d', '\u0000', '\ud83d\ude00', '\ud83d', '.', '[SEP]', '\ufb01');
  fc.assert(
    fc.property(fc.array(fc.oneof(hard, fc.string({ unit: 'binary' }))), (parts) => {
      const text = parts.join('');
      const { ids, starts, ends } = t.idsWithOffsets(text);
      assert.deepEqual([...ids], t.ids(text));
      ids.forEach((_, i) => assert.ok(starts[i] < ends[i] && ends[i] <= text.length && (i === 0 || starts[i] >= starts[i - 1]), `${i}: ${starts[i]} to ${ends[i]}`));
    }),
  );
});

test('a tokenizer.json that prepares text otherwise has no offsets, and says so', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-tok-'));
  tiny().save(folder);
  const file = path.join(folder, 'tokenizer.json');
  const json = JSON.parse(readFileSync(file, 'utf8')) as { normalizer: object; added_tokens: object[] };
  writeFileSync(file, JSON.stringify({ ...json, normalizer: { type: 'Lowercase' } }));
  assert.throws(() => Tokenizer.fromFolder(folder).idsWithOffsets('the'), (e: Error) => e instanceof UnsupportedModelError && e.message.includes('BertNormalizer'));
  writeFileSync(file, JSON.stringify({ ...json, added_tokens: [...json.added_tokens, { id: 5, content: 'the', normalized: true }] }));
  assert.throws(() => Tokenizer.fromFolder(folder).idsWithOffsets('the'), (e: Error) => e instanceof UnsupportedModelError && e.message.includes("'the'"));
  writeFileSync(file, JSON.stringify({ ...json, added_tokens: [] }));
  assert.deepEqual([...Tokenizer.fromFolder(folder).idsWithOffsets('the dogs').starts], [0, 4, 7]);
});

test('a tokenizer.json or vocab.txt whose parts are of wrong types is refused by file and field', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-tokenizer-'));
  const tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a'];
  Tokenizer.fromVocabulary(tokens).save(folder);
  const file = path.join(folder, 'tokenizer.json');
  const good = JSON.parse(readFileSync(file, 'utf8')) as { model: { vocab: object }; added_tokens: object[]; post_processor: object };
  const damaged: readonly [unknown, RegExp][] = [
    [null, /no JSON object/],
    [[], /no JSON object/],
    [{ ...good, model: null }, /model is null/],
    [{ ...good, model: { ...good.model, vocab: { ...good.model.vocab, a: 'x' } } }, /id of "a" is "x"/],
    [{ ...good, model: { ...good.model, vocab: { ...good.model.vocab, a: 2 ** 40 } } }, /id of "a" is 1099511627776/],
    [{ ...good, model: { ...good.model, vocab: { ...good.model.vocab, a: 2 ** 31 - 1 } } }, /id of "a" is 2147483647/],
    [{ ...good, added_tokens: [null] }, /added_tokens\[0\] is null/],
    [{ ...good, added_tokens: {} }, /added_tokens is \{\}/],
    [{ ...good, normalizer: 5 }, /normalizer is 5/],
    [{ ...good, post_processor: { ...good.post_processor, single: [{ Sequence: { id: 'C', type_id: 0 } }] } }, /neither a special token nor a text/],
    [{ ...good, post_processor: { ...good.post_processor, single: [{ Sequence: { id: 'A', type_id: [0] } }] } }, /neither a special token nor a text/],
    [{ ...good, post_processor: { type: 'BertProcessing', cls: ['[CLS]', '2'], sep: ['[SEP]', 3] } }, /where a token and its id belong/],
  ];
  for (const [json, says] of damaged) {
    writeFileSync(file, JSON.stringify(json));
    assert.throws(() => Tokenizer.fromFolder(folder), (e: Error) => e instanceof CheckpointError && e.message.includes(file) && says.test(e.message), String(says));
  }
  rmSync(file);
  writeFileSync(path.join(folder, 'tokenizer_config.json'), '{"do_lower_case":"yes"}');
  assert.throws(() => Tokenizer.fromFolder(folder), /tokenizer_config.json: do_lower_case is "yes"/);
  rmSync(path.join(folder, 'tokenizer_config.json'));
  writeFileSync(path.join(folder, 'vocab.txt'), Buffer.from([0x61, 0xff]));
  assert.throws(() => Tokenizer.fromFolder(folder), /vocab.txt: no UTF-8 text/);
  writeFileSync(path.join(folder, 'vocab.txt'), 'a\n');
  assert.throws(() => Tokenizer.fromFolder(folder), /vocab.txt: the vocabulary has no \[PAD\]/);
  rmSync(folder, { recursive: true });
});
