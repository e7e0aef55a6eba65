import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { train } from '../../src/cli/train';
import { embeddedModel } from '../../src/data/embedded/embedded';

const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-train-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const out = path.join(folder, 'out');

const refused: readonly [what: string, args: readonly string[], says: RegExp][] = [
  ['an unknown task', ['--task', 'colaa'], /colaa/],
  ['a freeze rate of 1', ['--task', 'grammar', '--freeze-rate', '1'], /freezeRate is 1.*\[0, 1\)/],
  ['a freeze rate below 0', ['--task', 'grammar', '--freeze-rate=-0.1'], /-0\.1/],
  ['a freeze rate that is no number', ['--task', 'grammar', '--freeze-rate', 'abc'], /--freeze-rate is 'abc'/],
  ['a batch of 0', ['--task', 'grammar', '--batch-size', '0'], /--batch-size is 0/],
  ['a task without its data', ['--task', 'cola'], /--data DIR is missing/],
  ['a folder without the task', ['--task', 'cola', '--data', folder], /train\.tsv/],
  ['no task', [], /--task NAME is missing/],
  ['an option that does not exist', ['--task', 'grammar', '--frozen', '3'], /--frozen/],
];
for (const [what, args, says] of refused)
  test(`${what} is refused before anything is written`, async () => {
    await assert.rejects(train([...args, '--out', out]), says);
    assert.equal(existsSync(out), false);
  });

test('without a folder to write to nothing starts', async () => {
  await assert.rejects(train(['--task', 'grammar']), /--out DIR is missing/);
});

test('an unreadable row is named with its file and line', async () => {
  const data = path.join(folder, 'CoLA');
  mkdirSync(data);
  writeFileSync(path.join(data, 'train.tsv'), 'gj04\t1\t\tOur friends won.\ngj04\tx\t\tOne more.\n');
  writeFileSync(path.join(data, 'dev.tsv'), 'gj04\t1\t\tOur friends won.\n');
  await assert.rejects(train(['--task', 'cola', '--data', folder, '--out', out]), /train\.tsv.*2/);
  assert.equal(existsSync(out), false);
});

test('a run writes checkpoint, metrics and a history of every step', async () => {
  assert.equal(await train(['--task', 'grammar', '--steps', '3', '--batch-size', '16', '--max-length', '16', '--out', out]), 0);
  const metrics = JSON.parse(readFileSync(path.join(out, 'metrics.json'), 'utf8')) as { steps: number; stopped: boolean; after: { accuracy: number } };
  assert.deepEqual([metrics.steps, metrics.stopped], [3, false]);
  assert.ok(metrics.after.accuracy > 0 && metrics.after.accuracy <= 1);
  assert.equal(readFileSync(path.join(out, 'steps.csv'), 'utf8').trim().split('\n').length, 4);
  for (const file of ['model.safetensors', 'config.json', 'vocab.txt', 'layers.csv', 'activations.csv', 'evaluations.csv']) assert.ok(existsSync(path.join(out, file)), file);
});

test('the model may be of another architecture, as its config.json says', async () => {
  const model = path.join(folder, 'distilbert');
  const saved = path.join(folder, 'distilbert-out');
  mkdirSync(model);
  writeFileSync(path.join(model, 'config.json'), JSON.stringify({ model_type: 'distilbert', vocab_size: 479, dim: 32, n_layers: 2, n_heads: 4, hidden_dim: 64, max_position_embeddings: 32 }));
  assert.equal(await train(['--task', 'grammar', '--model', model, '--tokenizer', embeddedModel(), '--from-scratch', '--steps', '1', '--max-length', '16', '--out', saved]), 0);
  const { model_type, architectures } = JSON.parse(readFileSync(path.join(saved, 'config.json'), 'utf8')) as Record<string, unknown>;
  assert.deepEqual([model_type, architectures], ['distilbert', ['DistilBertForSequenceClassification']]);
});
