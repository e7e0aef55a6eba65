import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { GLUE_TASKS, glueTask, loadGlue, readGlueFile } from '../../src/data/glue';
import { glueSubmission, readGlueTest, writeGlueSubmission } from '../../src/data/glueSubmission';
import { TextDataset } from '../../src/data/textDataset';
import { Tokenizer } from '../../src/data/tokenizer';
import { embeddedModel } from '../../src/data/embedded/embedded';
import { DataRowError, InvalidArgumentError, LabelError, UnsafeFileNameError } from '../../src/errors';
import { predict } from '../../src/training/trainer';
import { ForwardContext } from '../../src/nn/context';
import { cpuEngine, tinyConfig, tinyModel } from '../models/fixtures';

const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-submission-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const file = (name: string, text: string): string => {
  writeFileSync(path.join(folder, name), text);
  return path.join(folder, name);
};

test('test files are read by their headers, in every task', () => {
  assert.deepEqual(readGlueTest(GLUE_TASKS.cola, file('a', 'index\tsentence\n0\tBill "whistled.\n1\tB.\n')), { ids: ['0', '1'], examples: [{ text: 'Bill "whistled.' }, { text: 'B.' }] });
  assert.deepEqual(readGlueTest(GLUE_TASKS.qqp, file('b', 'id\tquestion1\tquestion2\n7\tA?\tB?\n')), { ids: ['7'], examples: [{ text: 'A?', pair: 'B?' }] });
  assert.deepEqual(readGlueTest(GLUE_TASKS.mrpc, file('c', '\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String\n3\t1\t2\tA\tB\n')).ids, ['3']);
  assert.throws(() => readGlueTest(GLUE_TASKS.sst2, file('d', 'index\tlabel\n0\t1\n')), (e: Error) => e instanceof DataRowError && /no column 'sentence'/.test(e.message));
});

test('a submission has the classes as the server wants them: numbers, names, or scores within 0 and 5', () => {
  const two = { logits: Float32Array.of(1, 2, 3, -1), numLabels: 2 };
  assert.equal(glueSubmission(GLUE_TASKS.cola, ['4', '5'], two), 'index\tprediction\n4\t1\n5\t0\n');
  assert.equal(glueSubmission(GLUE_TASKS.rte, ['0', '1'], two), 'index\tprediction\n0\tnot_entailment\n1\tentailment\n');
  assert.equal(glueSubmission(GLUE_TASKS.mnli, ['0'], { logits: Float32Array.of(0, 1, 2), numLabels: 3 }), 'index\tprediction\n0\tcontradiction\n');
  assert.equal(glueSubmission(GLUE_TASKS.stsb, ['a', 'b', 'c'], { logits: Float32Array.of(2.34567, -1, 5.5), numLabels: 1 }), 'index\tprediction\na\t2.346\nb\t0.000\nc\t5.000\n');
  assert.throws(() => glueSubmission(GLUE_TASKS.cola, ['4'], two), InvalidArgumentError);
  assert.throws(() => glueSubmission(GLUE_TASKS.mnli, ['4', '5'], two), InvalidArgumentError);
  assert.deepEqual(Object.values(GLUE_TASKS).flatMap((t) => t.submissions.map((s) => s.file)), ['CoLA.tsv', 'SST-2.tsv', 'MRPC.tsv', 'RTE.tsv', 'STS-B.tsv', 'QNLI.tsv', 'QQP.tsv', 'MNLI-m.tsv', 'MNLI-mm.tsv', 'WNLI.tsv']);
  assert.equal(readFileSync(writeGlueSubmission(path.join(folder, 'out'), 'CoLA.tsv', 'x'), 'utf8'), 'x');
});

test('a submission stays in its folder, whatever its file is called', () => {
  const before = readdirSync(folder).sort();
  const inner = path.join(folder, 'inner');
  for (const name of ['../CoLA.tsv', '/tmp/CoLA.tsv', 'sub/CoLA.tsv', '..\\CoLA.tsv', 'C:CoLA.tsv', 'CON', '']) assert.throws(() => writeGlueSubmission(inner, name, 'index\tprediction\n'), UnsafeFileNameError);
  assert.deepEqual(readdirSync(folder).sort(), before);
});

test('MNLI has a second development file, read where it is there', () => {
  const row = 'sentence1\tsentence2\tgold_label\na\tb\tneutral\n';
  file('train.tsv', row);
  file('dev_matched.tsv', row);
  assert.equal(loadGlue('mnli', folder).devMismatched, undefined);
  file('dev_mismatched.tsv', row.replace('neutral', 'entailment'));
  assert.deepEqual(loadGlue('mnli', folder).devMismatched, [{ text: 'a', pair: 'b', label: 0 }]);
  assert.deepEqual(readGlueFile(glueTask('mnli'), path.join(folder, 'train.tsv'))[0].label, 1);
});

test('texts without label are predicted in order, whatever the batch, and cannot be trained on', async () => {
  const engine = await cpuEngine();
  const tokenizer = Tokenizer.fromFolder(embeddedModel());
  const config = tinyConfig({ vocab_size: tokenizer.vocabSize });
  const model = tinyModel(engine, config);
  const data = new TextDataset(['the dog sees a cat .', 'a cat', 'dogs'].map((text) => ({ text })), tokenizer, { maxLength: 8 });
  const idle = engine.memory().tensors;
  const all = await predict(model, data, 2);
  assert.deepEqual([all.numLabels, all.logits.length], [3, 9]);
  const one = await predict(model, { size: 1, batch: () => data.batch([2]) }, 2);
  one.logits.forEach((v, i) => assert.ok(Math.abs(v - all.logits[6 + i]) < 1e-5));
  assert.throws(() => model.forwardWithLoss(ForwardContext.evaluation(engine), data.batch([0])), LabelError);
  assert.equal(engine.memory().tensors, idle);
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});
