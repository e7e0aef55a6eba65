/** Tokenizers that tokenizer.json describes: a byte-level BPE like RoBERTa's, against Hugging Face's tokenizers in Python (fixtures/make.py). */
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { templatesOf } from '../../src/data/template';
import { TextDataset } from '../../src/data/textDataset';
import { Tokenizer } from '../../src/data/tokenizer';
import { CheckpointError, InvalidArgumentError, SequenceTooLongError } from '../../src/errors';

const FOLDER = path.join(__dirname, 'fixtures/bpe');
const tokenizer = () => Tokenizer.fromFolder(FOLDER);
interface Expected {
  readonly cases: readonly { readonly text: string; readonly pair?: string; readonly maxLength?: number | null; readonly ids: readonly number[] }[];
  readonly decoded: readonly { readonly ids: readonly number[]; readonly text: string }[];
}
const expected = JSON.parse(readFileSync(path.join(FOLDER, 'expected.json'), 'utf8')) as Expected;

/** A copy of the fixture with another tokenizer.json. */
function folderWith(change: (json: Record<string, unknown>) => void, settings = true): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-bpe-'));
  const json = JSON.parse(readFileSync(path.join(FOLDER, 'tokenizer.json'), 'utf8')) as Record<string, unknown>;
  change(json);
  writeFileSync(path.join(folder, 'tokenizer.json'), JSON.stringify(json));
  if (settings) cpSync(path.join(FOLDER, 'tokenizer_config.json'), path.join(folder, 'tokenizer_config.json'));
  return folder;
}

test('texts and pairs become the ids of Hugging Face’s library: any script, special tokens in the text, cut longest first', () => {
  const t = tokenizer();
  const kinds = { single: 0, pair: 0, cut: 0 };
  for (const { text, pair, maxLength, ids } of expected.cases) {
    const got = t.encode(text, pair, maxLength == null ? {} : { maxLength });
    assert.deepEqual(got.inputIds, ids, JSON.stringify([text, pair, maxLength]));
    assert.ok(got.tokenTypeIds.every((type) => type === 0) && got.tokenTypeIds.length === ids.length);
    kinds[pair === undefined ? 'single' : 'pair']++;
    if (ids.length === maxLength) kinds.cut++;
  }
  assert.ok(kinds.single > 80 && kinds.pair > 40 && kinds.cut > 30, JSON.stringify(kinds));
});

test('ids become the texts of Hugging Face’s library again', () => {
  const t = tokenizer();
  for (const { ids, text } of expected.decoded) assert.equal(t.decode(ids), text);
});

test('a pair is <s> a </s></s> b </s>, and the special tokens are RoBERTa’s', () => {
  const t = tokenizer();
  assert.deepEqual(t.encode('the', 'the').inputIds.map((id) => t.token(id)), ['<s>', 'the', '</s>', '</s>', 'the', '</s>']);
  assert.deepEqual([t.padTokenId, t.maskTokenId, [...t.specialIds].sort((x, y) => x - y)], [1, 4, [0, 1, 2, 3, 4]]);
  assert.throws(() => t.encode('the', 'dog', { maxLength: 3 }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes('are 4'));
  assert.throws(() => t.encode('the dog', undefined, { maxLength: 3, truncation: false }), SequenceTooLongError);
});

test('batches are filled up with RoBERTa’s padding token, whose id is not 0', () => {
  const data = new TextDataset([{ text: 'the', label: 0 }, { text: 'the', pair: 'dog', label: 1 }], tokenizer(), { maxLength: 8 });
  const { inputIds, attentionMask, tokenTypeIds } = data.batch([0, 1]);
  assert.deepEqual([...inputIds.subarray(3, 8)], [1, 1, 1, 1, 1]);
  assert.deepEqual([...attentionMask.subarray(0, 8)], [1, 1, 1, 0, 0, 0, 0, 0]);
  assert.ok(tokenTypeIds.every((type) => type === 0));
});

test('what is saved is read back, and needs no vocab.txt', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-bpe-'));
  tokenizer().save(folder);
  const again = Tokenizer.fromFolder(folder);
  for (const { text, pair, maxLength, ids } of expected.cases) assert.deepEqual(again.encode(text, pair, maxLength == null ? {} : { maxLength }).inputIds, ids);
  assert.deepEqual(JSON.parse(readFileSync(path.join(folder, 'tokenizer.json'), 'utf8')), JSON.parse(readFileSync(path.join(FOLDER, 'tokenizer.json'), 'utf8')));
  const settings = JSON.parse(readFileSync(path.join(folder, 'tokenizer_config.json'), 'utf8')) as Record<string, unknown>;
  assert.deepEqual([settings.tokenizer_class, settings.model_max_length, settings.cls_token, settings.mask_token], ['PreTrainedTokenizerFast', 12, '<s>', '<mask>']);
});

test('merges may be written as in older files, two tokens in one string', () => {
  const old = Tokenizer.fromFolder(
    folderWith((json) => {
      const model = json.model as { merges: (string | [string, string])[] };
      assert.ok(Array.isArray(model.merges[0]));
      model.merges = model.merges.map((m) => (m as [string, string]).join(' '));
    }),
  );
  for (const { text, ids } of expected.cases.slice(0, 25)) assert.deepEqual(old.encode(text).inputIds, ids);
});

test('special tokens are known by tokenizer_config.json, else by RoBERTa’s names; a vocabulary without them is refused', () => {
  assert.deepEqual(Tokenizer.fromFolder(folderWith(() => {}, false)).encode('the', 'dog'), tokenizer().encode('the', 'dog'));
  const folder = folderWith(() => {});
  const settings = path.join(folder, 'tokenizer_config.json');
  writeFileSync(settings, JSON.stringify({ ...JSON.parse(readFileSync(settings, 'utf8')), pad_token: { content: '<mask>' } }));
  assert.equal(Tokenizer.fromFolder(folder).padTokenId, 4);
  writeFileSync(settings, JSON.stringify({ pad_token: '<nothing>' }));
  assert.throws(() => Tokenizer.fromFolder(folder), (e: Error) => e instanceof CheckpointError && e.message.includes('[PAD]'));
});

test('a post_processor is followed whatever its form, and refused where it is not known', () => {
  const piece = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } });
  const text = (id: string, type_id: number) => ({ Sequence: { id, type_id } });
  const template = {
    type: 'TemplateProcessing',
    single: [piece('<s>', 0), text('A', 0), piece('</s>', 0)],
    pair: [piece('<s>', 0), text('A', 0), piece('</s>', 0), piece('</s>', 0), text('B', 0), piece('</s>', 0)],
    special_tokens: { '<s>': { id: '<s>', ids: [0], tokens: ['<s>'] }, '</s>': { id: '</s>', ids: [2], tokens: ['</s>'] } },
  };
  for (const post_processor of [template, { type: 'Sequence', processors: [{ type: 'ByteLevel' }, template] }])
    assert.deepEqual(Tokenizer.fromFolder(folderWith((json) => (json.post_processor = post_processor))).encode('the', 'dog'), tokenizer().encode('the', 'dog'));
  const bert = { inputIds: [0, 7, 2, 8, 2], tokenTypeIds: [0, 0, 0, 1, 1] };
  const laidOut = (p: unknown) => {
    const parts = templatesOf(p, 0, 2).pair.map((part) => ({ ids: 'ids' in part ? part.ids : [part.text === 'A' ? 7 : 8], type: part.type }));
    return { inputIds: parts.flatMap((part) => part.ids), tokenTypeIds: parts.flatMap((part) => part.ids.map(() => part.type)) };
  };
  assert.deepEqual(laidOut(null), bert);
  assert.deepEqual(laidOut({ type: 'BertProcessing', cls: ['<s>', 0], sep: ['</s>', 2] }), bert);
  for (const [bad, message] of [
    [{ type: 'Strange' }, /post_processor Strange/],
    [{ ...template, special_tokens: {} }, /no ids of <s>/],
    [{ ...template, single: [{}] }, /neither/],
    [{ type: 'Sequence', processors: [template, { type: 'BertProcessing' }] }, /TemplateProcessing, BertProcessing/],
  ] as const)
  {
    assert.throws(() => templatesOf(bad, 0, 2), (e: Error) => e instanceof CheckpointError && message.test(e.message), message.source);
    assert.throws(() => Tokenizer.fromFolder(folderWith((json) => (json.post_processor = bad))), (e: Error) => e instanceof CheckpointError && e.message.includes('tokenizer.json'));
  }
});
