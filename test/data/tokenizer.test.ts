import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { longestFirst, Tokenizer } from '../../src/data/tokenizer';
import { CheckpointError, FileMissingError, InvalidArgumentError, SequenceTooLongError } from '../../src/errors';

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
