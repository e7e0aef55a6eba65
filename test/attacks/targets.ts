/**
 * Every parser of the library, what it is attacked with, and what must hold of whatever it takes: the tests run a few inputs of each, `npm run bench:fuzz` as many as wanted. An input is either taken, and then its
 * value is what the parser promises, or refused by an error of SlimFit's own that names the file or the field; anything else is a crash.
 */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import sharp from 'sharp';
import { Wire, WireError } from '../../kernel/wire';
import { readCifar10, readCifar100 } from '../../src/data/cifar';
import { glueTask, readGlueFile } from '../../src/data/glue';
import { glueExamples } from '../../src/data/glueRows';
import { readImageProcessor } from '../../src/data/imageProcessor';
import { ImageRows } from '../../src/data/imageSource';
import { decodeBytes } from '../../src/data/pixels/decode';
import { readSquad, type SquadExample, squadExamples } from '../../src/data/squad';
import { Tokenizer } from '../../src/data/tokenizer';
import { SlimFitError } from '../../src/errors';
import { parseTextConfig } from '../../src/hub/config';
import { readConfig, readShardNames } from '../../src/hub/folder';
import { readParquetFile, readParquetInfo } from '../../src/hub/parquet';
import { readSafetensors, SafetensorsReader } from '../../src/hub/safetensors';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { checkpointAt, damageOf } from '../../src/training/checkpointFolder';
import { readTrainerState } from '../../src/training/checkpoint';
import { History } from '../../src/training/history';
import { loadHistory } from '../../src/training/historyFile';
import { studyJobs } from '../../src/training/studyDefinition';
import { readDefinition, readResult } from '../../src/training/studyFolder';
import { bpeFolder, cifarFile, craftedSafetensors, historyDocument, historyTensors, signedFrames, SQUAD, VOCABULARY } from './samples';
import { binaryFile, damaged, editedJson, hostileValue, jsonFile } from './mutations';

/** A parser under attack. */
export interface Target {
  readonly name: string;
  readonly inputs: fc.Arbitrary<unknown>;
  /** What a refusal names: one of these. */
  readonly names: readonly string[];
  /** Whether a library's own words may be part of an error. */
  readonly library?: boolean;
  /** Parses an input and looks at the value. @throws whatever the parser throws, AssertionError when the value is not what it promises */
  parse(input: unknown): void | Promise<void>;
}

/** What became of an input. */
export type Outcome = 'taken' | 'refused';

/** More bytes than this, a parser that was given a few thousand has no use for. */
const MOST_BYTES = 256 * 2 ** 20;

/** Runs one input. @throws AssertionError for a crash: another error, an error that names neither file nor field, memory out of proportion */
export async function attack(target: Target, input: unknown): Promise<Outcome> {
  const before = process.memoryUsage.rss();
  let outcome: Outcome = 'taken';
  try {
    await target.parse(input);
  } catch (error) {
    if (error instanceof assert.AssertionError) throw error;
    if (!(error instanceof SlimFitError || error instanceof WireError)) throw new assert.AssertionError({ message: `${target.name}: ${error instanceof Error ? error.stack : String(error)}` });
    const { message } = error;
    assert.ok(target.names.some((n) => message.toLowerCase().includes(n.toLowerCase())), `${target.name}: the error names none of ${target.names.join(', ')}: ${message.slice(0, 300)}`);
    assert.ok(target.library || !/Cannot read prop|is not a function|is not iterable|of undefined|of null|undefined \(reading|Invalid array length|call stack/.test(message), `${target.name}: an error of JavaScript in a typed one: ${message.slice(0, 300)}`);
    assert.ok(message.length < 4000, `${target.name}: the error is ${message.length} characters long`);
    outcome = 'refused';
  }
  const grown = process.memoryUsage.rss() - before;
  assert.ok(grown < MOST_BYTES, `${target.name}: took ${grown} bytes`);
  return outcome;
}

const isCount = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 0;
const isText = (v: unknown): boolean => typeof v === 'string';

/** All targets. Their files lie in a folder that the caller removes. */
export async function targets(folder: string): Promise<Target[]> {
  const fixture = (name: string): Buffer => readFileSync(path.join(__dirname, '../hub/fixtures', `${name}.parquet`));
  let folders = 0;
  /** A folder that holds these files, for as long as `use` takes. */
  async function withFiles<T>(files: Readonly<Record<string, Uint8Array | string>>, use: (folder: string) => T | Promise<T>, name = `f${folders++}`): Promise<T> {
    const at = path.join(folder, name);
    mkdirSync(path.join(at, 'runs'), { recursive: true });
    for (const [file, contents] of Object.entries(files)) writeFileSync(path.join(at, file), contents);
    try {
      return await use(at);
    } finally {
      rmSync(at, { recursive: true, force: true });
    }
  }

  const tensors = craftedSafetensors();
  const safetensors: Target = {
    name: 'safetensors, whole',
    inputs: fc.oneof(binaryFile(tensors.mixed, tensors.plain), tensors.attacks),
    names: ['x.safetensors'],
    parse: (input) =>
      withFiles({ 'x.safetensors': input as Uint8Array }, async (at) => {
        let bytes = 0;
        for (const [name, t] of await readSafetensors(path.join(at, 'x.safetensors'))) {
          assert.ok(isText(name) && t.shape.every(isCount) && (t.data instanceof Float32Array || t.data instanceof Int32Array));
          assert.equal(t.data.length, t.shape.reduce((a, b) => a * b, 1));
          bytes += t.data.byteLength;
        }
        assert.ok(bytes <= 2 * (input as Uint8Array).length, 'no more values than the file has, F16 as float32');
      }),
  };
  const reader: Target = {
    name: 'safetensors, by tensor',
    inputs: fc.oneof(binaryFile(tensors.raw, tensors.plain), tensors.attacks),
    names: ['x.safetensors'],
    parse: (input) =>
      withFiles({ 'x.safetensors': input as Uint8Array }, (at) => {
        const open = SafetensorsReader.open(path.join(at, 'x.safetensors'));
        try {
          for (const name of open.names) assert.equal(open.read(name).length, open.shapeOf(name)!.reduce((a, b) => a * b, 1));
        } finally {
          open.close();
        }
      }),
  };

  const BERT = { model_type: 'bert', hidden_size: 8, num_attention_heads: 2, num_hidden_layers: 2, intermediate_size: 16, vocab_size: 30, max_position_embeddings: 16, type_vocab_size: 2, layer_norm_eps: 1e-12, id2label: { 0: 'no', 1: 'yes' }, hidden_act: 'gelu', pad_token_id: 0 };
  const textConfigs = [BERT, { ...BERT, id2label: undefined, num_labels: 3 }, { model_type: 'distilbert', dim: 8, n_heads: 2, n_layers: 1, hidden_dim: 16, vocab_size: 30, dropout: 0.1 }, { ...BERT, model_type: 'roberta', pad_token_id: 1, bos_token_id: 0, eos_token_id: 2 }];
  const checkConfig = (config: object): void => {
    for (const [key, v] of Object.entries(config)) if (typeof v === 'number') assert.ok(Number.isFinite(v) && v >= 0, `${key} is ${v}`);
    const { numLabels, id2label, numHiddenLayers, hiddenSize, numAttentionHeads } = config as { numLabels: number; id2label: Record<number, string>; numHiddenLayers: number; hiddenSize: number; numAttentionHeads: number };
    assert.ok(numHiddenLayers <= 2 ** 14 && numLabels <= 2 ** 20 && hiddenSize % numAttentionHeads === 0);
    for (let i = 0; i < numLabels; i++) assert.ok(isText(id2label[i]));
  };
  const textConfig: Target = {
    name: 'config.json, text',
    inputs: jsonFile(...textConfigs),
    names: ['config.json'],
    parse: (input) => withFiles({ 'config.json': input as Uint8Array }, (at) => checkConfig(parseTextConfig(readConfig(at)))),
  };
  const imageConfig: Target = {
    name: 'config.json, image',
    inputs: jsonFile({ model_type: 'vit', image_size: 8, patch_size: 4, num_channels: 3, hidden_size: 8, num_attention_heads: 2, num_hidden_layers: 1, intermediate_size: 16, qkv_bias: true }, { model_type: 'deit', image_size: [8, 8], patch_size: [4, 4], hidden_size: 8, num_attention_heads: 2, num_labels: 4 }),
    names: ['config.json'],
    parse: (input) => withFiles({ 'config.json': input as Uint8Array }, (at) => checkConfig(parseViTConfig(readConfig(at)))),
  };
  const processor: Target = {
    name: 'preprocessor_config.json',
    inputs: jsonFile(
      { image_processor_type: 'ViTImageProcessor', do_resize: true, size: { height: 8, width: 8 }, resample: 2, do_rescale: true, rescale_factor: 1 / 255, do_normalize: true, image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] },
      { feature_extractor_type: 'DeiTFeatureExtractor', size: { shortest_edge: 8 }, crop_size: 8, do_center_crop: true, resample: 3 },
    ),
    names: ['preprocessor_config.json'],
    parse: (input) =>
      withFiles({ 'preprocessor_config.json': input as Uint8Array }, (at) => {
        const t = readImageProcessor(at);
        for (const v of [...t.mean, ...t.std, t.rescaleFactor]) assert.ok(Number.isFinite(v));
        for (const s of t.std) assert.ok(Number.isFinite(1 / s), `std ${s}`);
        assert.ok(['nearest', 'lanczos', 'bilinear', 'bicubic'].includes(t.resampling));
        for (const size of [t.resize, t.centerCrop]) if (size) for (const v of Object.values(size)) assert.ok(isCount(v) && v >= 1);
      }),
  };
  const shardIndex: Target = {
    name: 'model.safetensors.index.json',
    inputs: jsonFile({ metadata: { total_size: 8 }, weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors', c: 'model-00001-of-00002.safetensors' } }),
    names: ['model.safetensors.index.json'],
    parse: (input) =>
      withFiles({ 'model.safetensors.index.json': input as Uint8Array }, (at) => {
        for (const name of readShardNames(at)) assert.ok(path.basename(name) === name && name.endsWith('.safetensors'));
      }),
  };

  const checkTokenizer = (tokenizer: Tokenizer): void => {
    const isId = (id: unknown): boolean => isCount(id) && (id as number) < 2 ** 31;
    assert.ok([tokenizer.padTokenId, tokenizer.maskTokenId, tokenizer.clsTokenId, tokenizer.sepTokenId].every(isId));
    assert.ok(isCount(tokenizer.vocabSize) && [...tokenizer.specialIds].every(isId));
    for (const text of ['', 'a b', 'Ab é中 [MASK]<s> 😀\u0000', ' x'.repeat(20)])
      for (const pair of [undefined, 'b a']) {
        const { inputIds, tokenTypeIds } = tokenizer.encode(text, pair);
        assert.ok(inputIds.every(isId) && tokenTypeIds.every(isId), JSON.stringify({ inputIds, tokenTypeIds }));
        assert.equal(inputIds.length, tokenTypeIds.length);
        assert.ok(isText(tokenizer.decode(inputIds)));
      }
  };
  const wordPiece = JSON.parse(JSON.stringify((Tokenizer.fromVocabulary(VOCABULARY) as unknown as { json: unknown }).json)) as object;
  const bpe = bpeFolder();
  const tokenizerJson: Target = {
    name: 'tokenizer.json',
    inputs: fc.record({ tokenizer: jsonFile(wordPiece, bpe.tokenizer), config: fc.option(jsonFile({ do_lower_case: true, cls_token: '[CLS]', mask_token: { content: '[MASK]' } }), { freq: 3 }) }),
    names: ['tokenizer.json', 'tokenizer_config.json', 'the vocabulary'],
    library: true,
    parse: (input) => {
      const { tokenizer, config } = input as { tokenizer: Uint8Array; config: Uint8Array | null };
      return withFiles({ 'tokenizer.json': tokenizer, ...(config ? { 'tokenizer_config.json': config } : {}) }, (at) => checkTokenizer(Tokenizer.fromFolder(at)));
    },
  };
  const vocabTxt: Target = {
    name: 'vocab.txt',
    inputs: fc.record({ vocab: binaryFile(Buffer.from(`${VOCABULARY.join('\n')}\n`), Buffer.from(VOCABULARY.join('\r\n'))), config: fc.option(jsonFile({ do_lower_case: false }), { freq: 3 }) }),
    names: ['vocab.txt', 'tokenizer_config.json'],
    parse: (input) => {
      const { vocab, config } = input as { vocab: Uint8Array; config: Uint8Array | null };
      return withFiles({ 'vocab.txt': vocab, ...(config ? { 'tokenizer_config.json': config } : {}) }, (at) => checkTokenizer(Tokenizer.fromFolder(at)));
    },
  };
  const robertaFiles: Target = {
    name: 'vocab.json, merges.txt',
    inputs: fc.oneof(
      fc.record({ vocab: jsonFile(bpe.vocab), merges: fc.constant(Buffer.from(bpe.merges)), map: fc.constant(null), added: fc.constant(null) }),
      fc.record({ vocab: fc.constant(Buffer.from(JSON.stringify(bpe.vocab))), merges: binaryFile(Buffer.from(bpe.merges)), map: fc.constant(null), added: fc.constant(null) }),
      fc.record({
        vocab: fc.constant(Buffer.from(JSON.stringify(bpe.vocab))),
        merges: fc.constant(Buffer.from(bpe.merges)),
        map: jsonFile({ mask_token: { content: '<mask>', lstrip: true }, cls_token: '<s>', added_tokens_decoder: { 0: { content: '<s>', special: true } } }),
        added: fc.option(jsonFile({ '<extra>': 999 })),
      }),
    ),
    library: true,
    names: ['vocab.json', 'the vocabulary', 'merges.txt', 'special_tokens_map.json', 'added_tokens.json', 'tokenizer_config.json'],
    parse: (input) => {
      const { vocab, merges, map, added } = input as Record<'vocab' | 'merges' | 'map' | 'added', Uint8Array | null>;
      return withFiles({ 'vocab.json': vocab!, 'merges.txt': merges!, ...(map ? { 'special_tokens_map.json': map } : {}), ...(added ? { 'added_tokens.json': added } : {}) }, (at) => checkTokenizer(Tokenizer.fromFolder(at)));
    },
  };

  const TSV = {
    cola: 'gj04\t1\t\tIt works.\ngj04\t0\t*\tIt work.\n',
    stsb: 'index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n0\tg\tf\t2012\t1\ts\ts\tA plane.\tA "plane.\t5.000\n1\tg\tf\t2012\t1\ts\ts\tA.\tB.\t0.25\r\n',
    mnli: 'index\tsentence1\tsentence2\tgold_label\n0\tA.\tB.\tneutral\n',
  } as const;
  const tsvTargets = (Object.keys(TSV) as (keyof typeof TSV)[]).map(
    (name): Target => ({
      name: `GLUE TSV, ${name}`,
      inputs: binaryFile(Buffer.from(TSV[name]), Buffer.from(TSV[name].repeat(3))),
      names: ['x.tsv'],
      parse: (input) =>
        withFiles({ 'x.tsv': input as Uint8Array }, (at) => {
          const task = glueTask(name);
          const examples = readGlueFile(task, path.join(at, 'x.tsv'));
          assert.ok(examples.length > 0);
          for (const e of examples) {
            assert.ok(isText(e.text) && e.text !== '' && !/[\t\n]/.test(e.text) && (task.columns.pair === undefined ? e.pair === undefined : isText(e.pair) && e.pair !== ''));
            assert.ok(task.labels.length > 0 ? isCount(e.label) && e.label < task.labels.length : e.label >= 0 && e.label <= 5);
          }
        }),
    }),
  );

  /** Rows as Parquet gives them: JSON, and what only Parquet has. */
  const cell = fc.oneof(hostileValue, fc.constantFrom<unknown>(undefined, 1n, 2n ** 60n, -1n, new Date(0), new Date(NaN), Uint8Array.of(1, 2)));
  const rowsOf = (documents: readonly Readonly<Record<string, unknown>>[]) =>
    fc.array(
      fc.tuple(fc.constantFrom(...documents), fc.option(fc.tuple(fc.constantFrom(...Object.keys(documents[0])), cell), { freq: 2 })).map(([row, change]) => (change ? { ...row, [change[0]]: change[1] } : row)),
      { minLength: 1, maxLength: 3 },
    );
  type Rows = Readonly<Record<string, unknown>>[];
  const glueRows: Target = {
    name: 'GLUE rows',
    inputs: rowsOf([{ sentence1: 'A.', sentence2: 'B.', label: 1 }, { sentence1: 'C.', sentence2: 'D.', label: 0n }]),
    names: ['x.parquet'],
    parse: (input) => {
      const examples = glueExamples(glueTask('mrpc'), input as Rows, 'x.parquet');
      assert.equal(examples.length, (input as Rows).length);
      examples.forEach((e, i) => {
        const { label } = (input as Rows)[i];
        assert.ok(isText(e.text) && isText(e.pair) && (e.label === 0 || e.label === 1));
        assert.ok(typeof label === 'number' || typeof label === 'bigint', `a label of ${String(typeof label)} was taken`);
      });
    },
  };
  const imageRows: Target = {
    name: 'image rows',
    inputs: rowsOf([{ image: { bytes: Uint8Array.of(1), path: null }, label: 1 }, { image: Uint8Array.of(2), label: 0n }]),
    names: ['x.parquet'],
    parse: (input) => {
      const rows = new ImageRows(input as Rows, {}, 'x.parquet');
      assert.ok(rows.labels.every((l) => l >= 0 && l < rows.labelNames.length));
      for (let i = 0; i < rows.size; i++) assert.equal(rows.image(i).kind, 'encoded');
    },
  };
  const checkSquad = (examples: readonly SquadExample[]): void => {
    assert.ok(examples.length > 0 && new Set(examples.map((e) => e.id)).size === examples.length);
    for (const e of examples) {
      assert.ok([e.id, e.title, e.question, e.context].every(isText) && e.id !== '' && e.isImpossible === (e.answers.length === 0));
      for (const { text, start } of e.answers) assert.ok(isCount(start) && text !== '' && e.context.slice(start, start + text.length) === text);
    }
  };
  const squadFile: Target = {
    name: 'SQuAD JSON',
    inputs: jsonFile(SQUAD),
    names: ['x.json'],
    parse: (input) => withFiles({ 'x.json': input as Uint8Array }, (at) => checkSquad(readSquad(path.join(at, 'x.json')))),
  };
  const squadRows: Target = {
    name: 'SQuAD rows',
    inputs: fc.oneof(
      rowsOf([{ id: '1', title: 'T', context: 'Ann and 😀 Bob.', question: 'Who?', answers: { text: ['Bob'], answer_start: [10] } }]),
      fc.array(editedJson({ id: '1', title: 'T', context: 'Ann and Bob.', question: 'Who?', answers: { text: ['Bob', 'Ann'], answer_start: [8, 0] } }), { minLength: 1, maxLength: 2 }).filter((rows) => rows.every((r) => r !== null && typeof r === 'object')),
    ),
    names: ['x.parquet'],
    parse: (input) => {
      checkSquad(squadExamples(input as Rows, 'x.parquet'));
      for (const { answers } of input as { answers: { answer_start: unknown[] } }[]) assert.ok(answers.answer_start.every((n) => typeof n === 'number' || typeof n === 'bigint'), 'an offset that is no number was taken');
    },
  };

  const cifar = [10, 100].map(
    (classes): Target => ({
      name: `CIFAR-${classes}`,
      inputs: fc.record({ records: binaryFile(cifarFile(classes, 2), cifarFile(classes, 1)), names: fc.option(binaryFile(Buffer.from(Array.from({ length: classes }, (_, i) => `class ${i}\n`).join(''))), { freq: 3 }) }),
      names: ['x.bin', 'batches.meta.txt', 'fine_label_names.txt'],
      parse: (input) => {
        const { records, names } = input as { records: Uint8Array; names: Uint8Array | null };
        return withFiles({ 'x.bin': records, ...(names ? { 'batches.meta.txt': names, 'fine_label_names.txt': names } : {}) }, (at) => {
          const source = (classes === 10 ? readCifar10 : readCifar100)(path.join(at, 'x.bin'));
          assert.equal(source.size, records.length / (classes === 10 ? 3073 : 3074));
          assert.ok(source.labelNames.length === classes && source.labels.every((l) => l >= 0 && l < classes));
          const image = source.image(source.size - 1);
          assert.ok(image.kind === 'rgb' && image.image.data.length === 3072);
        });
      },
    }),
  );

  const parquetFiles = ['text-snappy', 'text-zstd', 'images', 'plain', 'empty'].map(fixture) as [Buffer, ...Buffer[]];
  const parquet: Target = {
    name: 'Parquet',
    inputs: binaryFile(...parquetFiles),
    names: ['x.parquet'],
    library: true,
    parse: (input) =>
      withFiles({ 'x.parquet': input as Uint8Array }, async (at) => {
        const file = path.join(at, 'x.parquet');
        const info = await readParquetInfo(file);
        const rows = await readParquetFile(file);
        assert.equal(rows.length, info.numRows);
        for (const row of rows) assert.deepEqual(Object.keys(row), info.columns);
        if (rows.length > 2) assert.equal((await readParquetFile(file, { from: 1, to: 2 })).length, 1);
      }),
  };

  const gradient = { create: { width: 9, height: 7, channels: 3, background: { r: 20, g: 180, b: 90 } } } as const;
  const encodings = await Promise.all([
    sharp(gradient).jpeg({ quality: 80 }).toBuffer(),
    sharp(gradient).jpeg({ progressive: true }).toBuffer(),
    sharp(gradient).png().toBuffer(),
    sharp(gradient).png({ palette: true }).toBuffer(),
    sharp(gradient).gif().toBuffer(),
    sharp(gradient).webp().toBuffer(),
    sharp(gradient).webp({ lossless: true }).toBuffer(),
    sharp(gradient).tiff({ compression: 'lzw' }).toBuffer(),
    sharp(gradient).toColourspace('cmyk').jpeg().toBuffer(),
    sharp(gradient).avif().toBuffer(),
  ]);
  const images: Target = {
    name: 'images',
    inputs: binaryFile(encodings[0], ...encodings.slice(1)),
    names: ['x.image'],
    parse: async (input) => {
      const { width, height, data } = await decodeBytes(input as Uint8Array, 'x.image');
      assert.ok(width >= 1 && height >= 1 && data.length === 3 * width * height);
    },
  };

  const checkpointName = 'checkpoint-7';
  const manifest: Target = {
    name: 'checkpoint manifest',
    inputs: jsonFile({ format: 'slimfit-checkpoint', version: 1, step: 7, run: 'r', sequence: 1, savedAt: '2026-01-01T00:00:00Z', files: { 'a.bin': { bytes: 3, sha256: 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad' } } }),
    names: ['manifest.json'],
    parse: async (input) => {
      for (const name of [checkpointName, 'copied'])
        await withFiles({ 'manifest.json': input as Uint8Array, 'a.bin': 'abc' }, async (at) => {
          const found = checkpointAt(at);
          assert.ok(typeof found.step === 'number');
          if (found.manifest) assert.ok(isCount(found.step) && isText(found.manifest.run) && isCount(found.manifest.sequence) && !Array.isArray(found.manifest.files));
          const damage = await damageOf(found, ['a.bin']);
          assert.ok(damage === undefined || (isText(damage) && damage.length < 4000));
        }, name);
    },
  };
  const trainerState: Target = {
    name: 'trainer_state.json',
    inputs: jsonFile({
      global_step: 7, epoch: 1.5, max_steps: 9, train_batch_size: 4, best_metric: 0.5, best_global_step: 5, best_model_checkpoint: 'checkpoint-5',
      slimfit: { engine: 'cpu, none', settings: { seed: '1' }, overruled: [[0, true]], rateFactor: 0.5, policy: { magnitudes: ['NaN', '1'] }, optimizer: [['a.weight', { m: { $tensor: 'a.weight.m' }, v: { $tensor: 'a.weight.v' }, step: 7, idle: 0 }], ['b.weight', { m: { codes: { $tensor: 'b.c' }, scales: { $tensor: 'b.s' } }, v: { codes: { $tensor: 'b.c' }, scales: { $tensor: 'b.s' } }, step: 7, idle: 0 }]], best: { metric: 'accuracy', value: '0.5', step: 5, folder: 'checkpoint-5' } },
    }),
    names: ['trainer_state.json'],
    parse: (input) =>
      withFiles({ 'trainer_state.json': input as Uint8Array }, (at) => {
        const { global_step: step, slimfit } = readTrainerState(at);
        assert.ok(isCount(step) && isText(slimfit.engine) && Object.values(slimfit.settings).every(isText));
        assert.ok(slimfit.rateFactor === undefined || (slimfit.rateFactor > 0 && slimfit.rateFactor <= 1));
        for (const [layer, frozen] of slimfit.overruled) assert.ok(isCount(layer) && typeof frozen === 'boolean');
        for (const [name, state] of slimfit.optimizer) assert.ok(isText(name) && isCount(state.step) && isCount(state.idle) && state.m && state.v);
        if (slimfit.best) assert.ok(isText(slimfit.best.metric) && isText(slimfit.best.folder) && isCount(slimfit.best.step));
      }),
  };
  const checkHistory = (h: History): void => {
    assert.ok(isText(h.name) && isCount(h.length));
    for (const table of [h.steps(), h.layers(), h.activations(), h.fullActivations(), h.encodingErrors(), h.evaluations()]) table.objects();
    for (const step of h.courseSteps) for (const p of h.course(step)!) assert.ok(isText(p.layer) && typeof p.deviceBytes === 'number');
    for (const l of h.freezableLayers) assert.ok(isText(l.name) && isCount(l.index) && l.shape.every(isCount));
    if (h.length > 0) h.trainedIn(h.length - 1);
    JSON.stringify(h);
  };
  const document = historyDocument();
  const historyJson: Target = {
    name: 'history.json',
    inputs: jsonFile(document),
    // Without columns it is taken for that of a checkpoint, whose columns are in the other file.
    names: ['history.json', 'history.safetensors'],
    parse: (input) => withFiles({ 'history.json': input as Uint8Array }, (at) => checkHistory(loadHistory(at))),
  };
  const stored = await historyTensors();
  const historyOfCheckpoint: Target = {
    name: 'history of a checkpoint',
    inputs: fc.oneof(fc.record({ head: jsonFile(stored.head), columns: fc.constant(stored.columns) }), fc.record({ head: fc.constant(Buffer.from(JSON.stringify(stored.head))), columns: damaged([stored.columns]) })),
    names: ['history.json', 'history.safetensors'],
    parse: (input) => {
      const { head, columns } = input as { head: Uint8Array; columns: Uint8Array };
      return withFiles({ 'history.json': head, 'history.safetensors': columns }, (at) => checkHistory(loadHistory(at)));
    },
  };

  const study: Target = {
    name: 'study.json',
    inputs: jsonFile(
      { format: 'slimfit-study', version: 1, task: { recipe: 'cola', options: {} }, policies: ['none', { policy: 'ils', options: {}, label: 'ILS', freezeRates: [0.5] }, { policy: 'random', trainer: { mode: 'exact' } }], freezeRates: [0.5, 0.9], seeds: [1, 2], variants: { a: { mode: 'paper' }, b: {} }, trainer: { learningRate: 0.001 }, steps: 5 },
      { format: 'slimfit-study', version: 1, task: { name: 'own', settings: {}, prepare: { function: 'sha256:00' } }, policies: [{ label: 'mine', policy: { function: 'sha256:00' }, freezeRates: [0.1] }], seeds: [1] },
    ),
    // What makes no study is told by the field.
    names: ['study', 'policy', 'policies', 'seed', 'steps', 'freezeRate', 'runs'],
    parse: (input) =>
      withFiles({ 'study.json': input as Uint8Array }, (at) => {
        const jobs = studyJobs(readDefinition(at));
        assert.ok(jobs.length > 0);
        for (const j of jobs) assert.ok(/^[0-9a-f]{16}$/.test(j.id) && isText(j.policy) && isText(j.variant) && isCount(j.seed) && (j.freezeRate === undefined || (j.freezeRate >= 0 && j.freezeRate < 1)));
      }),
  };
  const RESULT = { format: 'slimfit-study-run', version: 1, id: 'a1', policy: 'ILS', variant: '', freezeRate: 0.5, seed: 3, steps: 4, loss: 0.25, metrics: { accuracy: 'NaN', f1: 0.5 }, activationBytes: 100.5, fullActivationBytes: 'NaN', peakBytes: 200, secondsPerStep: 0.1, frozenShare: 0.5, seconds: 1, engine: 'cpu', device: 'none', finished: '2026-01-01T00:00:00.000Z' };
  const studyResult: Target = {
    name: 'result of a study’s run',
    inputs: jsonFile(RESULT, { ...RESULT, freezeRate: null }),
    names: ['a1.json'],
    parse: (input) =>
      withFiles({ 'runs/a1.json': input as Uint8Array }, (at) => {
        // Damage is told, not thrown.
        const { result, damage } = readResult(at, 'a1');
        assert.ok((result === undefined) !== (damage === undefined));
        if (damage !== undefined) assert.ok(isText(damage) && damage.length < 4000 && !/Cannot read|Cannot convert|not iterable|call stack/.test(damage), damage);
        if (!result) return;
        assert.ok([result.policy, result.variant, result.engine, result.device, result.finished].every(isText) && (result.freezeRate === null || typeof result.freezeRate === 'number'));
        assert.ok([result.seed, result.steps, result.loss, result.peakBytes, ...Object.values(result.metrics)].every((v) => typeof v === 'number'));
      }),
  };

  const wire: Target = {
    name: 'kernel messages',
    inputs: signedFrames(),
    names: ['message', 'signature'],
    parse: (input) => {
      const { header, content } = new Wire({ key: 'key' }).decode(input as Buffer[]);
      assert.ok(isText(header.msg_id) && isText(header.msg_type));
      for (const v of [header.session, header.username, header.date, header.version]) assert.ok(v === undefined || isText(v));
      assert.ok(content !== null && typeof content === 'object' && !Array.isArray(content));
    },
  };

  return [safetensors, reader, shardIndex, textConfig, imageConfig, processor, tokenizerJson, vocabTxt, robertaFiles, ...tsvTargets, glueRows, squadFile, squadRows, ...cifar, imageRows, parquet, images, manifest, trainerState, historyJson, historyOfCheckpoint, study, studyResult, wire];
}
