import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { CheckpointError, CheckpointKeysError, FileMissingError, ShapeError, UnsupportedModelError } from '../../src/errors';
import { parseBertConfig } from '../../src/hub/config';
import { readSafetensors, writeSafetensors } from '../../src/hub/safetensors';
import { BertForMaskedLM, BertForSequenceClassification } from '../../src/models/bert';
import { ForwardContext } from '../../src/nn/context';
import { cpuEngine, tinyBatch, tinyConfig, tinyModel } from './fixtures';

const newFolder = () => mkdtempSync(path.join(tmpdir(), 'slimfit-model-'));
type Weights = Map<string, { shape: readonly number[]; data: Float32Array }>;

/** A saved model, its weights changed by `change`. */
async function folderWith(change: (w: Weights) => void = () => {}, config: object = {}): Promise<string> {
  const engine = await cpuEngine();
  const model = tinyModel(engine);
  const folder = newFolder();
  await model.savePretrained(folder);
  model.dispose();
  const file = path.join(folder, 'model.safetensors');
  const weights = (await readSafetensors(file)) as unknown as Weights;
  change(weights);
  writeSafetensors(file, weights);
  const json = path.join(folder, 'config.json');
  writeFileSync(json, JSON.stringify({ ...JSON.parse(readFileSync(json, 'utf8')), ...config }));
  return folder;
}

test('a saved model is loaded with the same weights, config and logits', async () => {
  const engine = await cpuEngine();
  const folder = newFolder();
  const model = tinyModel(engine);
  await model.savePretrained(folder);
  const again = await BertForSequenceClassification.fromPretrained(folder, { engine, onNotice: (t) => assert.fail(t) });
  assert.deepEqual(await again.weights(), await model.weights());
  assert.deepEqual(again.config, model.config);
  const logits = async (m: BertForSequenceClassification) => {
    const ctx = ForwardContext.evaluation(engine);
    const { tensor } = m.forward(ctx, tinyBatch(tinyConfig(), 2, 6));
    const data = await engine.read(tensor);
    engine.free(tensor);
    ctx.tape.dispose();
    return data;
  };
  assert.deepEqual(await logits(again), await logits(model));
  model.dispose();
  again.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('a head that is missing or of another size is drawn afresh, and that is said', async () => {
  const engine = await cpuEngine();
  const said: string[] = [];
  const options = { engine, onNotice: (t: string) => said.push(t) };
  const bare = await folderWith((w) => {
    for (const n of [...w.keys()]) {
      const t = w.get(n)!;
      w.delete(n);
      if (!/^(classifier|bert\.pooler)/.test(n)) w.set(n.replace(/^bert\./, ''), t);
    }
  });
  const a = await BertForSequenceClassification.fromPretrained(bare, options);
  assert.match(said.join(), /afresh.*bert\.pooler\.dense\.weight.*classifier\.bias/);
  a.dispose();
  const b = await BertForSequenceClassification.fromPretrained(await folderWith(), { ...options, labels: ['x', 'y', 'z', 'u', 'v'] });
  assert.deepEqual([...b.parameters.get('classifier.weight')!.shape], [5, 16]);
  assert.equal(b.config.id2label[4], 'v');
  b.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('a masked LM’s folder gives its encoder to a classifier', async () => {
  const engine = await cpuEngine();
  const lm = BertForMaskedLM.fresh(engine, tinyConfig(), 3);
  const folder = newFolder();
  await lm.savePretrained(folder);
  const model = await BertForSequenceClassification.fromPretrained(folder, { engine, onNotice: () => {} });
  const name = 'bert.encoder.layer.1.output.dense.weight';
  assert.deepEqual((await model.weights()).get(name), (await lm.weights()).get(name));
  lm.dispose();
  model.dispose();
});

test('old names of LayerNorm, and stored positions, are understood', async () => {
  const engine = await cpuEngine();
  const folder = await folderWith((w) => {
    const old = 'bert.embeddings.LayerNorm.gamma';
    w.set(old, w.get('bert.embeddings.LayerNorm.weight')!);
    w.delete('bert.embeddings.LayerNorm.weight');
    w.set('bert.embeddings.position_ids', { shape: [1, 2], data: Float32Array.of(0, 1) });
  });
  const model = await BertForSequenceClassification.fromPretrained(folder, { engine, onNotice: () => {} });
  model.dispose();
});

test('a folder that does not fit is refused by name, and leaves nothing on the device', async () => {
  const engine = await cpuEngine();
  const gone = 'bert.encoder.layer.0.attention.self.key.weight';
  const refuses = async (folder: string, type: new (...a: never[]) => Error, text: RegExp) => {
    await assert.rejects(BertForSequenceClassification.fromPretrained(folder, { engine }), (e: Error) => e instanceof type && text.test(e.message), text.source);
    assert.equal(engine.memory().tensors, 0);
  };
  const missing = await folderWith((w) => void w.delete(gone));
  await refuses(missing, CheckpointKeysError, /missing: bert\.encoder\.layer\.0\.attention\.self\.key\.weight/);
  await assert.rejects(BertForSequenceClassification.fromPretrained(missing, { engine }), (e: CheckpointKeysError) => e.missing.join() === gone && e.unexpected.length === 0);
  await refuses(await folderWith((w) => void w.set('bert.encoder.layer.7.odd', { shape: [1], data: new Float32Array(1) })), CheckpointKeysError, /unexpected: bert\.encoder\.layer\.7\.odd/);
  await refuses(await folderWith((w) => void w.set(gone, { shape: [16, 8], data: new Float32Array(128) })), ShapeError, /key\.weight has shape \[16,8\], the model wants \[16,16\]/);
  await refuses(await folderWith((w) => void w.set('classifier.weight', { shape: [9, 16], data: new Float32Array(144) })), ShapeError, /numLabels/);
  await refuses(await folderWith(() => {}, { model_type: 'gpt2' }), UnsupportedModelError, /gpt2.*supported: bert/);
  await refuses(await folderWith(() => {}, { hidden_act: 'relu' }), UnsupportedModelError, /relu/);
  await refuses(newFolder(), FileMissingError, /config\.json/);
  const pickled = await folderWith();
  writeFileSync(path.join(pickled, 'config.json'), '{');
  await refuses(pickled, CheckpointError, /config\.json/);
});

test('a config that cannot be is refused by field', () => {
  for (const [field, value] of [['hidden_size', 0], ['num_attention_heads', 5], ['num_hidden_layers', 1.5], ['layer_norm_eps', 0], ['hidden_dropout_prob', 1], ['num_labels', 0], ['id2label', { 1: 'x' }]] as const)
    assert.throws(() => parseBertConfig({ model_type: 'bert', hidden_size: 16, num_attention_heads: 4, [field]: value }), (e: Error) => e instanceof UnsupportedModelError && (e.message.includes(field) || e.message.includes('heads')), field);
});
