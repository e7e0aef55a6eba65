/** Every kind of recipe from files to written predictions: tiny models, data made here; and from a hub on this machine's loopback. */
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { parquetWriteBuffer } from 'hyparquet-writer';
import sharp from 'sharp';
import { embeddedModel } from '../../src/data/embedded/embedded';
import { readImageProcessor } from '../../src/data/imageProcessor';
import { FileMissingError, InvalidArgumentError, UnknownTaskError, UnsupportedModelError } from '../../src/errors';
import { fromRecipe, type FromRecipeOptions } from '../../src/training/fromRecipe';
import { recipes } from '../../src/training/recipes';
import { FakeHub } from '../hub/fakeHub';
import { cpuEngine } from '../models/fixtures';

const root = mkdtempSync(path.join(tmpdir(), 'slimfit-recipes-'));
after(() => rmSync(root, { recursive: true, force: true }));
const write = (name: string, data: string | Uint8Array): string => {
  const file = path.join(root, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, data);
  return file;
};

const TEXT = { model_type: 'bert', vocab_size: 479, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 24, max_position_embeddings: 64 };
const IMAGE = { model_type: 'vit', image_size: 8, patch_size: 4, hidden_size: 12, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16 };
write('text/config.json', JSON.stringify(TEXT));
copyFileSync(path.join(embeddedModel(), 'vocab.txt'), path.join(root, 'text/vocab.txt'));
write('vit/config.json', JSON.stringify(IMAGE));

async function options(more: FromRecipeOptions = {}): Promise<FromRecipeOptions & { engine: Awaited<ReturnType<typeof cpuEngine>> }> {
  return { model: path.join(root, 'text'), fromScratch: true, engine: await cpuEngine(), onNotice: () => {}, ...more, trainer: { onWarning: () => {}, ...more.trainer } };
}

const SENTENCES = ['the dog sees a cat', 'a cat the sees', 'dogs see cats', 'cat dog a'];

test('GLUE: a recipe trains, evaluates, saves, and writes the server’s file from the test sentences', async () => {
  const rows = SENTENCES.map((s, i) => `src\t${(i + 1) % 2}\t\t${s}`).join('\n');
  write('glue/CoLA/train.tsv', `${rows}\n`);
  write('glue/CoLA/dev.tsv', `${rows}\n`);
  write('glue/CoLA/test.tsv', `index\tsentence\n${SENTENCES.map((s, i) => `${i}\t${s}`).join('\n')}\n`);
  const o = await options({ data: path.join(root, 'glue') });
  const before = o.engine.memory().tensors;
  const run = await fromRecipe({ ...recipes.glue.cola, batchSize: 2, maxLength: 12, schedule: 'glue' }, o);
  assert.deepEqual([run.trainer.totalSteps, run.trainer.batchSize, run.trainer.seed, run.train.size], [6, 2, 43, 4]);
  assert.equal(run.trainer.freezableLayers.length, 4 + 8 + 2);
  const record = await run.trainer.step();
  // floor(0.9·14) = 12, at the first of 7 steps of the authors' line.
  assert.equal(record.frozen.length, 12);
  assert.equal(record.learningRate, 8e-5);
  const { metrics } = await run.trainer.evaluate();
  assert.deepEqual(Object.keys(metrics), ['matthews', 'accuracy']);
  await run.save(path.join(root, 'out'));
  assert.ok(existsSync(path.join(root, 'out/vocab.txt')));
  const [file] = await run.writePredictions(path.join(root, 'out'));
  assert.match(readFileSync(file, 'utf8'), /^index\tprediction\n0\t[01]\n1\t[01]\n2\t[01]\n3\t[01]\n$/);
  run.dispose();
  assert.equal(o.engine.memory().tensors, before);
});

test('a regression task has one output, and its classifier trains in every step', async () => {
  const rows = `index\tsentence1\tsentence2\tscore\n0\tthe dog\ta cat\t2.5\n1\tdogs\tcats\t4\n`;
  write('stsb/train.tsv', rows);
  write('stsb/dev.tsv', rows);
  const o = await options({ data: path.join(root, 'stsb') });
  const run = await fromRecipe({ ...recipes.glue.stsb, batchSize: 2, maxLength: 12 }, o);
  assert.equal(run.trainer.freezableLayers.length, 13);
  assert.ok(!run.trainer.freezableLayers.some((l) => l.name === 'classifier.weight'));
  const before = (await run.model.weights()).get('classifier.weight')!.data.slice();
  await run.trainer.step();
  assert.notDeepEqual((await run.model.weights()).get('classifier.weight')!.data, before);
  run.dispose();
  assert.equal(o.engine.memory().tensors, 0);
});

const squad = JSON.stringify({
  data: [{ title: 'Pets', paragraphs: [{ context: 'the dog sees a cat', qas: [
    { id: 'q1', question: 'what sees a cat', is_impossible: false, answers: [{ text: 'dog', answer_start: 4 }] },
    { id: 'q2', question: 'who sees dogs', is_impossible: true, answers: [] },
  ] }] }],
});

test('SQuAD: a recipe trains on windows and writes the official script’s files', async () => {
  write('squad/train-v2.0.json', squad);
  write('squad/dev-v2.0.json', squad);
  const o = await options({ data: path.join(root, 'squad') });
  const run = await fromRecipe({ ...recipes.squadV2, batchSize: 2, maxLength: 24, docStride: 4 }, o);
  // Four embeddings, eight weights of the layer, the span head; no pooler.
  assert.equal(run.trainer.freezableLayers.length, 13);
  const record = await run.trainer.step();
  assert.equal(record.learningRate, 0, 'the authors’ schedule begins at 0');
  assert.deepEqual(Object.keys((await run.trainer.evaluate()).metrics), ['f1', 'exact', 'HasAns_f1', 'NoAns_f1', 'best_f1']);
  const files = await run.writePredictions(path.join(root, 'squad-out'));
  assert.deepEqual(Object.keys(JSON.parse(readFileSync(files[0], 'utf8'))), ['q1', 'q2']);
  run.dispose();
  assert.equal(o.engine.memory().tensors, 0);
});

test('images: folders of classes, resized as the checkpoint says, trained on and saved with their settings', async () => {
  for (const part of ['train', 'val'])
    for (const [c, colour] of [['cat', 40], ['dog', 200]] as const)
      for (let i = 0; i < 2; i++) write(`images/${part}/${c}/${i}.png`, await sharp({ create: { width: 10 + i, height: 12, channels: 3, background: { r: colour, g: colour, b: 10 * i } } }).png().toBuffer());
  const o = await options({ model: path.join(root, 'vit'), data: path.join(root, 'images'), workers: 1 });
  const run = await fromRecipe({ ...recipes.imagenet, batchSize: 2, imageSize: 12, numLabels: 2 }, o);
  assert.equal(run.trainer.freezableLayers.length, 3 + 8 + 1);
  assert.deepEqual((run.model as unknown as { config: { imageSize: number; id2label: object } }).config.imageSize, 12);
  const record = await run.trainer.step();
  assert.deepEqual([record.examples, record.tokens], [2, 2 * 10]);
  assert.ok((await run.trainer.evaluate()).metrics.accuracy >= 0);
  await run.save(path.join(root, 'vit-out'));
  assert.deepEqual(readImageProcessor(path.join(root, 'vit-out')).resize, { height: 12, width: 12 });
  assert.equal((JSON.parse(readFileSync(path.join(root, 'vit-out/config.json'), 'utf8')) as { id2label: Record<string, string> }).id2label[1], 'dog');
  await assert.rejects(run.writePredictions(root), InvalidArgumentError);
  run.dispose();
  assert.equal(o.engine.memory().tensors, 0);
});

test('CIFAR: the original binary files; the first so many of them when asked', async () => {
  const records = (n: number) => Buffer.from(Array.from({ length: n * 3073 }, (_, i) => (i % 3073 === 0 ? (i / 3073) % 10 : (i * 7) % 256)));
  write('cifar/data_batch_1.bin', records(3));
  write('cifar/data_batch_2.bin', records(4));
  write('cifar/test_batch.bin', records(5));
  const o = await options({ model: path.join(root, 'vit'), data: path.join(root, 'cifar'), maxEvalSamples: 2 });
  const run = await fromRecipe({ ...recipes.cifar10, batchSize: 4, imageSize: 8 }, o);
  assert.deepEqual([run.train.size, run.evaluation!.size], [7, 2]);
  assert.equal(run.trainer.freezableLayers.length, 11, 'the classifier always trains');
  await run.trainer.step();
  run.dispose();
  assert.equal(o.engine.memory().tensors, 0);
});

test('what is missing or does not fit is said before anything is on the device', async () => {
  const o = await options({ data: path.join(root, 'nowhere') });
  await assert.rejects(fromRecipe('colla', o), UnknownTaskError);
  await assert.rejects(fromRecipe('cola', o), (e: Error) => e instanceof FileMissingError && /CoLA/.test(e.message));
  await assert.rejects(fromRecipe('squad-v2', o), (e: Error) => e instanceof FileMissingError && /train-v2\.0\.json/.test(e.message));
  await assert.rejects(fromRecipe('imagenet', { ...o, model: path.join(root, 'vit') }), (e: Error) => e instanceof FileMissingError && /'train'/.test(e.message));
  await assert.rejects(fromRecipe('cifar10', { ...o, model: path.join(root, 'vit') }), FileMissingError);
  await assert.rejects(fromRecipe('cifar10', { ...o, data: path.join(root, 'cifar') }), (e: Error) => e instanceof UnsupportedModelError && /"bert"/.test(e.message));
  await assert.rejects(fromRecipe('cola', { ...o, model: path.join(root, 'no-model'), hub: { offline: true, cacheDir: path.join(root, 'cache') } }), FileMissingError);
  await assert.rejects(fromRecipe('cola', { ...o, data: path.join(root, 'glue'), maxTrainSamples: 0 }), InvalidArgumentError);
  assert.equal(o.engine.memory().tensors, 0);
});

test('without folders, checkpoint and data come from the hub: GLUE, SQuAD and CIFAR as Parquet', async () => {
  const fake = await FakeHub.start();
  try {
    const file = (name: string) => ({ data: readFileSync(path.join(embeddedModel(), name)) });
    fake.commit('models/owner/grammar', { 'config.json': file('config.json'), 'vocab.txt': file('vocab.txt'), 'model.safetensors': { ...file('model.safetensors'), lfs: true } });
    const parquet = (columnData: Parameters<typeof parquetWriteBuffer>[0]['columnData']) => ({ data: Buffer.from(parquetWriteBuffer({ columnData })), lfs: true });
    const cola = parquet([{ name: 'sentence', data: SENTENCES, type: 'STRING' }, { name: 'label', data: [1n, 0n, 1n, 0n], type: 'INT64' }]);
    fake.commit('datasets/nyu-mll/glue', { 'cola/train-00000-of-00001.parquet': cola, 'cola/validation-00000-of-00001.parquet': cola });
    const questions = parquet([
      { name: 'id', data: ['q1', 'q2'], type: 'STRING' },
      { name: 'title', data: ['Pets', 'Pets'], type: 'STRING' },
      { name: 'context', data: ['the dog sees a cat', 'the dog sees a cat'], type: 'STRING' },
      { name: 'question', data: ['what sees a cat', 'who sees dogs'], type: 'STRING' },
      { name: 'answers', data: [{ text: ['dog'], answer_start: [4] }, { text: [], answer_start: [] }], type: 'JSON' },
    ]);
    fake.commit('datasets/rajpurkar/squad_v2', { 'data/train-00000-of-00001.parquet': questions, 'data/validation-00000-of-00001.parquet': questions });
    const png = await sharp({ create: { width: 32, height: 32, channels: 3, background: '#345' } }).png().toBuffer();
    const images = parquet([{ name: 'img', data: [{ bytes: png, path: null }, { bytes: png, path: null }].map((v) => v.bytes), type: 'BYTE_ARRAY' }, { name: 'label', data: [3n, 0n], type: 'INT64' }]);
    fake.commit('datasets/uoft-cs/cifar10', { 'plain_text/train-00000-of-00001.parquet': images, 'plain_text/test-00000-of-00001.parquet': images });
    const hub = { endpoint: fake.endpoint, cacheDir: path.join(root, 'hub-cache'), token: false as const, progress: false as const };
    const o = await options({ model: 'owner/grammar', fromScratch: false, hub });
    const glue = await fromRecipe({ ...recipes.glue.cola, batchSize: 2, maxLength: 12 }, o);
    assert.deepEqual([glue.train.size, glue.evaluation!.size], [4, 4]);
    await glue.trainer.step();
    glue.dispose();
    const asking = await fromRecipe({ ...recipes.squadV2, batchSize: 2, maxLength: 24, docStride: 4 }, o);
    assert.equal(asking.train.size, 2);
    await asking.trainer.step();
    asking.dispose();
    const seeing = await fromRecipe({ ...recipes.cifar10, batchSize: 2, imageSize: 8, augmentation: 'none' }, { ...o, model: path.join(root, 'vit'), fromScratch: true });
    assert.deepEqual([seeing.train.size, seeing.trainer.freezableLayers.length], [2, 11]);
    await seeing.trainer.step();
    seeing.dispose();
    await assert.rejects(fromRecipe('imagenet', { ...o, model: path.join(root, 'vit') }), (e: Error) => e instanceof InvalidArgumentError && /name its folder with `data`/.test(e.message));
    assert.equal(o.engine.memory().tensors, 0);
  } finally {
    await fake.stop();
  }
});
