import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { train } from '../../src/cli/train';
import { parseTrain } from '../../src/cli/trainOptions';
import { ResumeMismatchError } from '../../src/errors';
import { RECIPES } from '../../src/training/recipes';
import { formatBytes } from '../../src/units';
import { embeddedModel } from '../../src/data/embedded/embedded';

const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-train-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const out = path.join(folder, 'out');

const refused: readonly [what: string, args: readonly string[], says: RegExp][] = [
  ['an unknown task', ['--task', 'colaa'], /colaa/],
  ['an unknown recipe', ['--recipe', 'cola2'], /cola2.*cola, mrpc/],
  ['a recipe and a task', ['--recipe', 'cola', '--task', 'cola'], /not both/],
  ['an option of another kind of task', ['--recipe', 'cola', '--image-size', '32'], /--image-size has no meaning for cola/],
  ['a schedule that does not exist', ['--task', 'grammar', '--schedule', 'cosine'], /--schedule is 'cosine'.*linear/],
  ['warm-up of a schedule without', ['--task', 'grammar', '--schedule', 'glue', '--warmup-steps', '3'], /--warmup-steps/],
  ['a negative decay', ['--task', 'grammar', '--weight-decay=-1'], /--weight-decay is -1/],
  ['half an example', ['--task', 'grammar', '--max-train-samples', '1.5'], /--max-train-samples is 1\.5/],
  ['a freeze rate of 1', ['--task', 'grammar', '--freeze-rate', '1'], /freezeRate is 1.*\[0, 1\)/],
  ['a freeze rate below 0', ['--task', 'grammar', '--freeze-rate=-0.1'], /-0\.1/],
  ['a freeze rate that is no number', ['--task', 'grammar', '--freeze-rate', 'abc'], /--freeze-rate is 'abc'/],
  ['a batch of 0', ['--task', 'grammar', '--batch-size', '0'], /--batch-size is 0/],
  ['a block of nothing', ['--task', 'grammar', '--block-bytes', '0B'], /blockBytes is 0/],
  ['more micro-batches than examples of a step', ['--task', 'grammar', '--batch-size', '4', '--gradient-accumulation-steps', '5'], /gradientAccumulationSteps is 5, but a step has 4 examples/],
  ['a data set that is not in the cache, offline', ['--task', 'cola', '--offline'], /offline/i],
  ['a folder without the task', ['--task', 'cola', '--data', folder], /train\.tsv/],
  ['an unknown policy', ['--task', 'grammar', '--policy', 'ilss'], /'ilss'.*ils, none/],
  ['a freeze rate of a policy without', ['--task', 'grammar', '--policy', 'bitfit', '--freeze-rate', '0.5'], /bitfit has no freeze rate/],
  ['an option of a policy that has another', ['--task', 'grammar', '--policy', 'random', '--policy-option', 'gamma=1'], /'gamma'/],
  ['a rate said twice', ['--task', 'grammar', '--policy', 'random', '--policy-option', 'activatedLayers=1', '--freeze-rate', '0.5'], /--freeze-rate and --policy-option activatedLayers/],
  ['options without a policy', ['--task', 'grammar', '--policy-option', 'seed=1'], /with --policy only/],
  ['how many checkpoints to keep, of none', ['--task', 'grammar', '--save-total-limit', '2'], /--save-total-limit has a meaning with --save-steps N only/],
  ['a metric for checkpoints that are not written', ['--task', 'grammar', '--metric-for-best-model', 'loss'], /--metric-for-best-model/],
  ['a checkpoint after every 0 steps', ['--task', 'grammar', '--save-steps', '0'], /--save-steps is 0/],
  ['an unknown engine', ['--task', 'grammar', '--engine', 'cuda'], /--engine is 'cuda'.*tensorflow, webgpu, wasm, cpu/],
  ['an unknown magnitude', ['--task', 'grammar', '--magnitude', 'l1'], /--magnitude is 'l1'.*mean-relative, relative-l2, loss-change/],
  ['an unknown precision', ['--task', 'grammar', '--precision', 'bf16'], /--precision is 'bf16'.*float32, mixed/],
  ['neither recipe nor task', [], /--recipe NAME or --task NAME is missing/],
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

test('--engine and --precision choose as chooseEngine does, metrics.json tells what was got, and --magnitude goes to the trainer', async () => {
  const to = path.join(folder, 'engine');
  assert.equal(await train(['--task', 'grammar', '--engine', 'wasm', '--precision', 'mixed', '--steps', '1', '--batch-size', '4', '--max-length', '16', '--skip-first-evaluation', '--max-eval-samples', '8', '--out', to]), 0);
  const { engine, precision } = JSON.parse(readFileSync(path.join(to, 'metrics.json'), 'utf8')) as { engine: string; precision: string };
  assert.deepEqual([engine, precision], ['wasm', 'float32']);
  assert.equal(parseTrain(['--task', 'grammar', '--dry-run', '--magnitude', 'loss-change'])?.options.trainer?.magnitude, 'loss-change');
});

test('blocks reach the training: the engine’s peak is smaller by a temporary or two, and the loss is the same', async () => {
  const metricsOf = async (...more: string[]) => {
    const to = path.join(folder, `blocks${more.length}`);
    assert.equal(await train(['--task', 'grammar', '--steps', '2', '--batch-size', '64', '--max-length', '32', '--freeze-rate', '0', '--skip-first-evaluation', '--max-eval-samples', '64', '--out', to, ...more]), 0);
    return JSON.parse(readFileSync(path.join(to, 'metrics.json'), 'utf8')) as { peakBytes: number; after: { loss: number } };
  };
  const [whole, blocks] = [await metricsOf(), await metricsOf('--block-bytes', '64KiB')];
  assert.ok(blocks.peakBytes < whole.peakBytes - 2 ** 20, `${blocks.peakBytes} is not well below ${whole.peakBytes}`);
  assert.ok(Math.abs(blocks.after.loss - whole.after.loss) < 1e-3);
});

test('a run in micro-batches whose layers are run again keeps the layers’ inputs and has a lower peak', async () => {
  const run = async (name: string, ...levers: string[]) => {
    const to = path.join(folder, name);
    assert.equal(await train(['--task', 'grammar', '--steps', '2', '--batch-size', '32', '--max-length', '32', '--skip-first-evaluation', '--max-eval-samples', '8', '--out', to, ...levers]), 0);
    const { peakBytes } = JSON.parse(readFileSync(path.join(to, 'metrics.json'), 'utf8')) as { peakBytes: number };
    return { peakBytes, activations: readFileSync(path.join(to, 'activations.csv'), 'utf8') };
  };
  const plain = await run('plain');
  const both = await run('levers', '--gradient-accumulation-steps', '4', '--gradient-checkpointing');
  assert.ok(both.peakBytes < plain.peakBytes, `${both.peakBytes} of ${plain.peakBytes}`);
  assert.match(both.activations, /encoder\.layer\.0,static,float32/);
  assert.doesNotMatch(plain.activations, /encoder\.layer\.0,/);
});

test('--save-steps writes checkpoints, --resume goes on from the last one and makes what one run makes, and without it they are not written over', async () => {
  const args = ['--task', 'grammar', '--batch-size', '4', '--max-length', '16', '--max-train-samples', '30', '--max-eval-samples', '8', '--epochs', '1', '--save-steps', '2', '--save-total-limit', '2', '--metric-for-best-model', 'accuracy'];
  const [whole, parts] = ['whole', 'parts'].map((f) => path.join(folder, f));
  assert.equal(await train([...args, '--steps', '5', '--out', whole]), 0);
  // Nothing to go on from: begins.
  assert.equal(await train([...args, '--steps', '3', '--resume', '--out', parts]), 0);
  assert.ok(existsSync(path.join(parts, 'checkpoint-2', 'vocab.txt')));
  await assert.rejects(train([...args, '--steps', '5', '--out', parts]), /holds checkpoint-2 of an earlier run: go on from it with --resume/);
  const report = JSON.parse(await printed([...args, '--steps', '5', '--resume', '--out', parts])) as { before: { accuracy: number }; steps: number };
  assert.equal(report.steps, 5);
  assert.ok(report.before.accuracy >= 0);
  for (const file of ['model.safetensors', 'layers.csv', 'activations.csv', 'evaluations.csv']) assert.deepEqual(readFileSync(path.join(parts, file)), readFileSync(path.join(whole, file)), file);
  await assert.rejects(train([...args, '--seed', '44', '--resume', '--out', parts]), (e: Error) => e instanceof ResumeMismatchError && e.field === 'seed');
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

/** Runs the command and gives what it printed. */
async function printed(args: readonly string[]): Promise<string> {
  const write = process.stdout.write;
  let text = '';
  // The test runner's own messages, which are bytes, go on.
  process.stdout.write = ((chunk: string | Uint8Array) => (typeof chunk === 'string' ? ((text += chunk), true) : write.call(process.stdout, chunk))) as typeof process.stdout.write;
  try {
    assert.equal(await train(args), 0);
  } finally {
    process.stdout.write = write;
  }
  return text;
}

for (const { name, learningRate, batchSize, seed } of RECIPES)
  test(`--recipe ${name} --dry-run tells steps, layers and bytes, and writes nothing`, async () => {
    const text = await printed(['--recipe', name, '--dry-run', '--out', path.join(folder, 'dry')]);
    for (const line of [new RegExp(`learning rate +${learningRate.toExponential().replace('+', '\\+')}, `), new RegExp(`batch +${batchSize} × `), new RegExp(`seed +${seed}\n`), /freeze rate .* layers frozen in a step, \d+ train/, /kept for backward .*(MiB|GiB).* times as much/]) assert.match(text, line);
    assert.equal(existsSync(path.join(folder, 'dry')), false);
  });

test('every field of a recipe can be overridden, and the plan follows', async () => {
  const text = await printed(['--recipe', 'rte', '--dry-run', '--freeze-rate', '0.5', '--batch-size', '8', '--epochs', '1', '--steps', '7', '--learning-rate', '1e-3', '--max-length', '64', '--seed', '5', '--weight-decay', '0', '--schedule', 'constant', '--max-train-samples', '100', '--mode', 'exact', '--moments', '8-bit', '--idle-moments', 'host']);
  for (const line of [/freeze rate +0\.5: 51 of 102 layers frozen/, /batch +8 × 64 tokens/, /steps +the first 7 of 13 \(1 epochs of 13\)/, /learning rate +1e-3, constant/, /seed +5\n/, /weight decay 0\n/, /training examples +100/, /mode +exact/, /optimizer moments +2\d\d(\.\d)? MiB .*: 8-bit moments, those of frozen layers on the host\n/]) assert.match(text, line);
});

test('a policy by name trains, is told in metrics.json, and its dry run gives the bytes of its first step', async () => {
  const args = ['--task', 'grammar', '--policy', 'random', '--policy-option', 'interval-steps=2', '--freeze-rate', '0.75', '--batch-size', '8', '--max-length', '16'];
  const dry = await printed([...args, '--dry-run']);
  // 38 layers: of four blocks of eight, one trains, and the six of embeddings and head.
  for (const line of [/policy +random, freezeRate 0\.75, intervalSteps 2\n/, /first step +24 of 38 layers frozen, 14 train\n/, /mode +paper, biases freeze with their layer\n/]) assert.match(dry, line);
  const out = path.join(folder, 'random-out');
  const report = JSON.parse(await printed([...args, '--steps', '1', '--skip-first-evaluation', '--max-eval-samples', '8', '--out', out])) as { policy: string; freezeRate: number; intervalSteps: number };
  assert.deepEqual([report.policy, report.freezeRate, report.intervalSteps], ['random', 0.75, 2]);
  const [names, values] = readFileSync(path.join(out, 'steps.csv'), 'utf8').split('\n').map((l) => l.split(','));
  const step = (name: string) => Number(values[names.indexOf(name)]);
  assert.equal(step('frozenLayers'), 24);
  assert.equal(formatBytes(step('activationBytes')), /kept for backward +(.*) in the first/.exec(dry)![1]);
  const bitfit = await printed(['--recipe', 'cola', '--policy', 'bitfit', '--mode', 'tuned', '--dry-run']);
  assert.match(bitfit, /first step +101 of 102 layers frozen, 1 train/);
  assert.match(bitfit, /mode +tuned\n/);
});

test('micro-batches and layers run again are in the plan, and its bytes are those of the largest part', async () => {
  const text = await printed(['--recipe', 'rte', '--dry-run', '--batch-size', '10', '--gradient-accumulation-steps', '4', '--gradient-checkpointing']);
  for (const line of [/batch +10 × 128 tokens, in 4 micro-batches of up to 3\n/, /mode +paper, layers run again in backward\n/]) assert.match(text, line);
  const three = await printed(['--recipe', 'rte', '--dry-run', '--batch-size', '3', '--gradient-checkpointing']);
  const kept = (t: string) => /kept for backward +(.*?) in the first step/.exec(t)![1];
  assert.equal(kept(text), kept(three));
});

test('SQuAD and images train from the command line, and write predictions where there is a format for them', async () => {
  const at = (name: string, data: string | Uint8Array): string => {
    mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    writeFileSync(path.join(folder, name), data);
    return path.join(folder, path.dirname(name));
  };
  const squad = JSON.stringify({ data: [{ title: 'Pets', paragraphs: [{ context: 'the dog sees a cat', qas: [{ id: 'q1', question: 'what sees a cat', is_impossible: false, answers: [{ text: 'dog', answer_start: 4 }] }] }] }] });
  at('squad/train-v2.0.json', squad);
  const data = at('squad/dev-v2.0.json', squad);
  const small = { vocab_size: 479, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 24, max_position_embeddings: 64 };
  const text = at('bert/config.json', JSON.stringify({ model_type: 'bert', ...small }));
  const report = JSON.parse(await printed(['--task', 'squad', '--model', text, '--tokenizer', embeddedModel(), '--from-scratch', '--data', data, '--max-length', '32', '--steps', '2', '--predictions', '--skip-first-evaluation', '--out', path.join(folder, 'squad-out')])) as { steps: number; after: { f1: number }; before?: object; predictions: string[] };
  assert.deepEqual([report.steps, report.before, report.predictions], [2, undefined, ['predictions.json', 'null_odds.json']]);
  assert.ok(report.after.f1 >= 0);
  const vit = at('vit/config.json', JSON.stringify({ model_type: 'vit', image_size: 8, patch_size: 4, hidden_size: 12, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16 }));
  const records = Buffer.from(Array.from({ length: 6 * 3073 }, (_, i) => (i % 3073 === 0 ? (i / 3073) % 10 : (i * 7) % 256)));
  at('cifar/train.bin', records);
  const cifar = at('cifar/test.bin', records);
  const seen = JSON.parse(await printed(['--recipe', 'cifar10', '--model', vit, '--from-scratch', '--data', cifar, '--image-size', '8', '--batch-size', '2', '--steps', '2', '--max-eval-samples', '4', '--out', path.join(folder, 'cifar-out')])) as { steps: number; after: { accuracy: number }; waitingForData: number };
  assert.equal(seen.steps, 2);
  assert.ok(seen.waitingForData >= 0 && seen.waitingForData <= 1);
  for (const file of ['config.json', 'model.safetensors', 'preprocessor_config.json', 'steps.csv', 'metrics.json']) assert.ok(existsSync(path.join(folder, 'cifar-out', file)), file);
});
