/** Tokenizers that tokenizer.json describes: a byte-level BPE like RoBERTa's, against Hugging Face's tokenizers in Python (fixtures/make.py). */
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { templatesOf } from '../../src/data/template';
import { TextDataset } from '../../src/data/textDataset';
import { Tokenizer } from '../../src/data/tokenizer';
import { CheckpointError, FileMissingError, InvalidArgumentError, SequenceTooLongError, UnsupportedModelError } from '../../src/errors';

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

interface PlacedText {
  readonly text: string;
  readonly ids: readonly number[];
  readonly places: readonly (readonly [number, number])[];
}
interface ExpectedPlaces {
  readonly cases: readonly PlacedText[];
  readonly edges: { readonly merges: readonly (readonly [string, string])[]; readonly cases: readonly PlacedText[] };
  readonly prefixed: readonly PlacedText[];
}
const places = JSON.parse(readFileSync(path.join(FOLDER, 'offsets.json'), 'utf8')) as ExpectedPlaces;
function checkPlaces(t: Tokenizer, cases: readonly PlacedText[]): void {
  for (const { text, ids, places } of cases) {
    const got = t.idsWithOffsets(text);
    assert.deepEqual([...got.ids], ids, JSON.stringify(text));
    assert.deepEqual(t.ids(text), ids, JSON.stringify(text));
    assert.deepEqual(Array.from(got.starts, (start, i) => [start, got.ends[i]]), places, JSON.stringify(text));
  }
}
interface ModelJson {
  vocab: Record<string, number>;
  merges: (readonly [string, string])[];
  [name: string]: unknown;
}

test('tokens stand where Hugging Face puts them, in UTF-16 units: parts of an emoji, blanks of every kind, marks, special tokens', () => {
  assert.ok(places.cases.length > 100);
  checkPlaces(tokenizer(), places.cases);
});

test('words end where Hugging Face ends them at characters that JavaScript takes for something else', () => {
  const folder = folderWith((json) => {
    const { vocab, merges } = json.model as ModelJson;
    for (const [a, b] of places.edges.merges) {
      vocab[a + b] = Object.keys(vocab).length;
      merges.push([a, b]);
    }
  });
  checkPlaces(Tokenizer.fromFolder(folder), places.edges.cases);
});

test('the blank that add_prefix_space puts first has no place, the text’s own is trimmed, and no letter is', () => {
  const t = Tokenizer.fromFolder(folderWith((json) => ((json.pre_tokenizer as { add_prefix_space: boolean }).add_prefix_space = true)));
  checkPlaces(t, places.prefixed);
  const spans = (text: string) => {
    const { ids, starts, ends } = t.idsWithOffsets(text);
    return Array.from(ids, (id, i) => [t.token(id), text.slice(starts[i], ends[i])]);
  };
  // Hugging Face's own trimming keeps the first blank here, and cuts the 't' off there.
  assert.deepEqual(spans(' the'), [['Ġthe', 'the']]);
  assert.deepEqual(spans('a<mask>the'), [['Ġa', 'a'], ['<mask>', '<mask>'], ['Ġthe', 'the']]);
});

test('whatever the text, tokens are its bytes, and each stands for the whole characters that it has a part of, less blanks at its ends', () => {
  const t = tokenizer();
  // GPT-2's table of printable bytes, the other way round.
  const byteOf = new Map<string, number>();
  let next = 0x100;
  for (let b = 0; b < 256; b++) byteOf.set(String.fromCharCode((b > 32 && b < 127) || (b > 160 && b !== 173) ? b : next++), b);
  const hard = fc.constantFrom('the', ' dog', ' ', '  ', '\n', '\u0301', '日本語', '한', '\u200d', '😀', '👍🏽', '\ud83d', '\ude00', "'s", '12', '\u00a0', '\u0085', '\ufeff');
  fc.assert(
    fc.property(fc.array(fc.oneof(hard, fc.string({ unit: 'binary' }))), (parts) => {
      const text = parts.join('');
      fc.pre(!/<(s|pad|\/s|unk|mask)>/.test(text));
      const { ids, starts, ends } = t.idsWithOffsets(text);
      const bytes = Array.from(ids, (id) => [...t.token(id)!].map((c) => byteOf.get(c)!));
      assert.deepEqual(Buffer.from(bytes.flat()), Buffer.from(text));
      const owner = [...text].flatMap((c, k, all) => Array.from(Buffer.from(c), () => ({ start: all.slice(0, k).join('').length, length: c.length })));
      let at = 0;
      bytes.forEach((token, i) => {
        const own = owner.slice(at, (at += token.length)).filter((_, k) => k >= token.findIndex((b) => b !== 32) && k <= token.findLastIndex((b) => b !== 32));
        if (token.every((b) => b === 32)) assert.equal(starts[i], ends[i]);
        else assert.deepEqual([starts[i], ends[i]], [own[0].start, own.at(-1)!.start + own.at(-1)!.length]);
      });
      ids.forEach((_, i) => assert.ok(0 <= starts[i] && ends[i] <= text.length && (i === 0 || starts[i] >= starts[i - 1]), `${i}: ${starts[i]} to ${ends[i]}`));
    }),
  );
});

test('added tokens are found as Hugging Face finds them: with the white space that they take, normalized ones only in what the others leave', () => {
  const added = { single_word: false, rstrip: false, lstrip: false, normalized: false, special: false };
  const t = Tokenizer.fromFolder(
    folderWith((json) => {
      (json.added_tokens as object[]).push({ ...added, id: 380, content: '<new>', rstrip: true }, { ...added, id: 381, content: 'x<ma', normalized: true }, { ...added, id: 382, content: 'x<m', normalized: true });
    }),
  );
  const spans = (text: string) => {
    const { ids, starts, ends } = t.idsWithOffsets(text);
    return Array.from(ids, (id, i) => [t.token(id), starts[i], ends[i]]);
  };
  assert.deepEqual(spans('a<new>  the'), [['a', 0, 1], ['<new>', 1, 6], ['the', 8, 11]]);
  assert.deepEqual(spans('a \n<mask>'), [['a', 0, 1], ['<mask>', 3, 9]]);
  assert.deepEqual(spans('<new> <mask>'), [['<new>', 0, 5], ['<mask>', 6, 12]]);
  assert.deepEqual(spans('x<mask>'), [['x', 0, 1], ['<mask>', 1, 7]]);
  assert.deepEqual(spans('x<max<m'), [['x<ma', 0, 4], ['x<m', 4, 7]]);
});

test('a tokenizer.json that prepares text in some other way has ids, but no places; one whose merges make tokens that are not there is refused', () => {
  for (const change of [
    (json: Record<string, unknown>) => (json.normalizer = { type: 'NFC' }),
    (json: Record<string, unknown>) => ((json.pre_tokenizer as { use_regex: boolean }).use_regex = false),
    (json: Record<string, unknown>) => ((json.added_tokens as { single_word: boolean }[])[4].single_word = true),
    (json: Record<string, unknown>) => ((json.model as ModelJson).end_of_word_suffix = '</w>'),
    (json: Record<string, unknown>) => delete (json.model as ModelJson).vocab['Ń'],
  ]) {
    const t = Tokenizer.fromFolder(folderWith(change));
    assert.ok(t.ids('the').length > 0);
    assert.throws(() => t.idsWithOffsets('the'), (e: Error) => e instanceof UnsupportedModelError && e.message.includes('ByteLevel'));
  }
  const folder = folderWith((json) => (json.model as ModelJson).merges.push(['z', 'z']));
  assert.throws(() => Tokenizer.fromFolder(folder), (e: Error) => e instanceof CheckpointError && e.message.includes("'z z'"));
});

/** The fixture as older folders have it: vocab.json and merges.txt, and whatever else is given. */
function oldFolder(others: Readonly<Record<string, object>> = {}, change: (model: ModelJson) => void = () => {}): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-bpe-'));
  const { model } = JSON.parse(readFileSync(path.join(FOLDER, 'tokenizer.json'), 'utf8')) as { model: ModelJson };
  change(model);
  writeFileSync(path.join(folder, 'vocab.json'), JSON.stringify(model.vocab));
  writeFileSync(path.join(folder, 'merges.txt'), `#version: 0.2\n${model.merges.map((m) => `${m.join(' ')}\n`).join('')}`);
  for (const [name, json] of Object.entries(others)) writeFileSync(path.join(folder, name), JSON.stringify(json));
  return folder;
}
function savedJson(t: Tokenizer): Record<string, unknown> {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-bpe-'));
  t.save(folder);
  return JSON.parse(readFileSync(path.join(folder, 'tokenizer.json'), 'utf8')) as Record<string, unknown>;
}

test('vocab.json and merges.txt alone are the tokenizer.json that Hugging Face’s library makes of them', () => {
  const t = Tokenizer.fromFolder(oldFolder());
  const want = JSON.parse(readFileSync(path.join(FOLDER, 'tokenizer.json'), 'utf8')) as { model: ModelJson };
  // '' and null both mean none.
  assert.deepEqual(savedJson(t), { ...want, model: { ...want.model, continuing_subword_prefix: '', end_of_word_suffix: '' } });
  for (const { text, pair, maxLength, ids } of expected.cases) assert.deepEqual(t.encode(text, pair, maxLength == null ? {} : { maxLength }).inputIds, ids);
  checkPlaces(t, places.cases);
});

test('what the files beside say is heeded: other special tokens, a prefix space, tokens that were added, and how they are found', () => {
  const mask = { content: '[M]', lstrip: false, rstrip: true, normalized: true, single_word: false };
  const t = Tokenizer.fromFolder(
    oldFolder({
      'tokenizer_config.json': { add_prefix_space: true, model_max_length: 512, mask_token: '[M]', added_tokens_decoder: { 382: { content: '<late>', lstrip: true, special: true } } },
      'special_tokens_map.json': { mask_token: mask, pad_token: '<unk>' },
      'added_tokens.json': { '[M]': 380, '<new>': 381 },
    }),
  );
  const json = savedJson(t) as { added_tokens: { id: number; content: string; lstrip: boolean; rstrip: boolean; special: boolean; normalized: boolean }[]; pre_tokenizer: { add_prefix_space: boolean }; post_processor: object };
  assert.deepEqual(
    json.added_tokens.map((a) => [a.id, a.content, a.lstrip, a.rstrip, a.special, a.normalized]),
    [
      [0, '<s>', false, false, true, false],
      [2, '</s>', false, false, true, false],
      [3, '<unk>', false, false, true, false],
      [380, '[M]', false, true, true, true],
      [381, '<new>', false, false, false, true],
      [382, '<late>', true, false, true, false],
    ],
  );
  assert.deepEqual([json.pre_tokenizer.add_prefix_space, json.post_processor], [true, { type: 'RobertaProcessing', sep: ['</s>', 2], cls: ['<s>', 0], trim_offsets: true, add_prefix_space: true }]);
  assert.deepEqual([t.maskTokenId, t.padTokenId], [380, 3]);
  assert.deepEqual(t.ids('the [M] the<new>'), [365, t.ids(' ')[0], 380, 365, 381]);
});

test('files that are no RoBERTa’s, or not whole, are refused by name', () => {
  const failsWith = (folder: string, kind: new (...args: never[]) => Error, message: string) => assert.throws(() => Tokenizer.fromFolder(folder), (e: Error) => e instanceof kind && e.message.includes(message), message);
  const half = oldFolder();
  rmSync(path.join(half, 'merges.txt'));
  failsWith(half, FileMissingError, 'vocab.json with merges.txt');
  failsWith(oldFolder({}, ({ vocab }) => delete vocab['<mask>']), CheckpointError, 'no <mask>');
  failsWith(oldFolder({ 'tokenizer_config.json': { cls_token: '[CLS]' } }), CheckpointError, 'no [CLS]');
  failsWith(oldFolder({}, ({ merges }) => merges.push(['z', 'z'])), CheckpointError, "'z z'");
  failsWith(oldFolder({}, ({ merges }) => merges.push(['z', 'z z'])), CheckpointError, 'line 121');
});
