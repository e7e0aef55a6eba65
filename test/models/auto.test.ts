import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { CheckpointKeysError, FileMissingError, UnsupportedModelError } from '../../src/errors';
import { readSafetensors, writeSafetensors } from '../../src/hub/safetensors';
import { AutoModelForQuestionAnswering, AutoModelForSequenceClassification } from '../../src/models/auto';
import { BertForQuestionAnswering, BertForSequenceClassification } from '../../src/models/bert';
import { DistilBertForQuestionAnswering, DistilBertForSequenceClassification } from '../../src/models/distilbert';
import { RobertaForQuestionAnswering, RobertaForSequenceClassification } from '../../src/models/roberta';
import { cpuEngine } from './fixtures';

type Weights = Map<string, { shape: readonly number[]; data: Float32Array }>;

/** A copy of a fixture, its config and weights changed. */
async function folderOf(name: string, config: object = {}, change?: (w: Weights) => void): Promise<string> {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-auto-'));
  for (const file of ['config.json', 'model.safetensors']) cpSync(path.join(__dirname, 'fixtures', name, file), path.join(folder, file));
  const json = path.join(folder, 'config.json');
  writeFileSync(json, JSON.stringify({ ...JSON.parse(readFileSync(json, 'utf8')), ...config }));
  if (change) {
    const file = path.join(folder, 'model.safetensors');
    const weights = (await readSafetensors(file)) as unknown as Weights;
    change(weights);
    writeSafetensors(file, weights);
  }
  return folder;
}

test('the class is that of config.json’s model_type, and stays so when it is saved', async () => {
  const engine = await cpuEngine();
  for (const [fixture, modelType, className, classifier, answerer] of [
    ['bert', 'bert', 'Bert', BertForSequenceClassification, BertForQuestionAnswering],
    ['distilbert', 'distilbert', 'DistilBert', DistilBertForSequenceClassification, DistilBertForQuestionAnswering],
    ['roberta', 'roberta', 'Roberta', RobertaForSequenceClassification, RobertaForQuestionAnswering],
    ['roberta', 'xlm-roberta', 'XLMRoberta', RobertaForSequenceClassification, RobertaForQuestionAnswering],
    ['roberta', 'camembert', 'Camembert', RobertaForSequenceClassification, RobertaForQuestionAnswering],
  ] as const)
    for (const [auto, head, type, purpose] of [
      [AutoModelForSequenceClassification, 'classification', classifier, 'ForSequenceClassification'],
      [AutoModelForQuestionAnswering, 'answering', answerer, 'ForQuestionAnswering'],
    ] as const) {
      const folder = await folderOf(`${fixture}-${head}`, { model_type: modelType });
      for (const model of [await auto.fromPretrained(folder, { engine, onNotice: (t) => assert.fail(t) }), await auto.fromConfigFolder(folder, { engine })]) {
        assert.ok(model instanceof type);
        const out = mkdtempSync(path.join(tmpdir(), 'slimfit-auto-'));
        await model.savePretrained(out);
        const json = JSON.parse(readFileSync(path.join(out, 'config.json'), 'utf8')) as Record<string, unknown>;
        assert.deepEqual([json.model_type, json.architectures], [modelType, [`${className}${purpose}`]]);
        model.dispose();
      }
    }
  assert.equal(engine.memory().tensors, 0);
});

test('a folder of a kind that is not supported is refused with the kinds that are', async () => {
  const engine = await cpuEngine();
  for (const auto of [AutoModelForSequenceClassification, AutoModelForQuestionAnswering])
    for (const model_type of ['gpt2', undefined, 'constructor'])
      await assert.rejects(
        auto.fromPretrained(await folderOf('bert-answering', { model_type }), { engine }),
        (e: Error) => e instanceof UnsupportedModelError && e.message.includes(`model_type ${JSON.stringify(model_type)}`) && e.message.includes('supported: bert, distilbert, roberta, xlm-roberta, camembert'),
      );
  await assert.rejects(AutoModelForSequenceClassification.fromPretrained(mkdtempSync(path.join(tmpdir(), 'slimfit-auto-')), { engine }), FileMissingError);
  // A class of its own reads its own kind only.
  await assert.rejects(BertForSequenceClassification.fromPretrained(await folderOf('roberta-classification'), { engine }), (e: Error) => e instanceof UnsupportedModelError && /"roberta"; supported: bert$/.test(e.message));
  assert.equal(engine.memory().tensors, 0);
});

test('a checkpoint of the bare encoder, and one of another head, give their encoder; new labels replace the head', async () => {
  const engine = await cpuEngine();
  for (const [architecture, own, head] of [
    ['distilbert', ['pre_classifier', 'classifier'], ['vocab_transform.weight', 'vocab_layer_norm.bias', 'vocab_projector.weight']],
    ['roberta', ['classifier.dense', 'classifier.out_proj'], ['lm_head.dense.weight', 'lm_head.layer_norm.bias', 'lm_head.bias', 'roberta.pooler.dense.weight']],
  ] as const) {
    const said: string[] = [];
    const options = { engine, onNotice: (t: string) => said.push(t) };
    const tensor = { shape: [1], data: Float32Array.of(1) };
    const bare = await folderOf(`${architecture}-answering`, {}, (w) => {
      for (const [name, t] of [...w]) {
        w.delete(name);
        if (name.startsWith(`${architecture}.`)) w.set(name.slice(architecture.length + 1), t);
      }
      w.set('embeddings.position_ids', tensor);
    });
    const a = await AutoModelForSequenceClassification.fromPretrained(bare, options);
    for (const part of own) assert.match(said.join(), new RegExp(`afresh.*${part}\\.weight, ${part}\\.bias`));
    a.dispose();
    said.length = 0;
    const pretrained = await folderOf(`${architecture}-classification`, {}, (w) => head.forEach((n) => w.set(n, tensor)));
    const b = await AutoModelForQuestionAnswering.fromPretrained(pretrained, options);
    assert.match(said.join(), /afresh.*qa_outputs\.weight/);
    for (const n of head) assert.match(said.join(), new RegExp(`not used.*${n}`));
    b.dispose();
    const c = await AutoModelForSequenceClassification.fromPretrained(pretrained, { ...options, labels: ['a', 'b', 'c', 'd'] });
    assert.deepEqual([c.config.numLabels, c.config.id2label[3], [...c.parameters.get(`${own[1]}.weight`)!.shape]], [4, 'd', [4, 16]]);
    c.dispose();
    await assert.rejects(
      AutoModelForSequenceClassification.fromPretrained(await folderOf(`${architecture}-classification`, {}, (w) => void w.delete(`${architecture}.embeddings.LayerNorm.weight`)), options),
      (e: Error) => e instanceof CheckpointKeysError && e.missing.join() === `${architecture}.embeddings.LayerNorm.weight`,
    );
  }
  assert.equal(engine.memory().tensors, 0);
});
