import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { GLUE_TASKS, glueTask, loadGlue, readGlueFile } from '../../src/data/glue';
import { glueExamples } from '../../src/data/glueRows';
import { DataRowError, FileMissingError, UnknownTaskError } from '../../src/errors';

const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-glue-'));
const file = (text: string | Uint8Array): string => {
  const p = path.join(folder, `${Math.random()}.tsv`);
  writeFileSync(p, text);
  return p;
};
const SHARED = path.resolve(__dirname, '../../../shared/data/glue');

test('CoLA has no header; quotes are ordinary characters; the last line may lack its end', () => {
  const rows = readGlueFile(GLUE_TASKS.cola, file('gj04\t1\t\tHe said "go.\ngj04\t0\t*\tThe "dogs barks.\r\nx\t1\t\tLast'));
  assert.deepEqual(rows, [
    { text: 'He said "go.', label: 1 },
    { text: 'The "dogs barks.', label: 0 },
    { text: 'Last', label: 1 },
  ]);
});

test('columns are found by name, behind a byte-order mark too', () => {
  const rows = readGlueFile(GLUE_TASKS.mrpc, file('\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tA b\tC d\n'));
  assert.deepEqual(rows, [{ text: 'A b', pair: 'C d', label: 1 }]);
});

test('label names become class indices, scores stay numbers', () => {
  assert.equal(readGlueFile(GLUE_TASKS.rte, file('index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n'))[0].label, 1);
  assert.equal(readGlueFile(GLUE_TASKS.stsb, file('sentence1\tsentence2\tscore\na\tb\t3.25\n'))[0].label, 3.25);
  assert.equal(readGlueFile(GLUE_TASKS.mnli, file('sentence1\tsentence2\tgold_label\na\tb\tcontradiction\n'))[0].label, 2);
});

test('a bad row is named by file, line and reason', () => {
  const bad = (task: string, text: string | Uint8Array, line: number, reason: RegExp) =>
    assert.throws(() => readGlueFile(glueTask(task), file(text)), (e: Error) => e instanceof DataRowError && e.line === line && reason.test(e.message), reason.source);
  bad('cola', 'a\t1\t\tok\na\t1\tshort\n', 2, /3 columns instead of 4/);
  bad('cola', 'a\t2\t\tx\n', 1, /label '2' is none of 0, 1/);
  bad('cola', 'a\t1\t\t\n', 1, /no text/);
  bad('cola', '', 1, /no rows/);
  bad('stsb', 'sentence1\tsentence2\tscore\na\tb\t7\n', 2, /score '7'/);
  bad('sst2', 'text\tlabel\na\t1\n', 1, /no column 'sentence' among 'text', 'label'/);
  bad('cola', Uint8Array.of(0x61, 0xff, 0xfe), 1, /UTF-8/);
  assert.throws(() => readGlueFile(GLUE_TASKS.cola, path.join(folder, 'none.tsv')), FileMissingError);
});

test('a task goes by any usual spelling; an unknown one is answered with the list', () => {
  assert.equal(glueTask('SST-2'), GLUE_TASKS.sst2);
  assert.equal(glueTask('STS_B'), GLUE_TASKS.stsb);
  assert.throws(() => glueTask('colla'), (e: Error) => e instanceof UnknownTaskError && e.message.includes('cola, sst2'));
});

test('all nine tasks read the shared files, every row', { skip: existsSync(SHARED) ? false : 'no ../shared/data/glue' }, () => {
  const rows: Record<string, [number, number]> = { cola: [8551, 1043], sst2: [67349, 872], mrpc: [3668, 408], rte: [2490, 277], stsb: [5749, 1500], qnli: [4999, 4999], qqp: [4999, 1000], mnli: [4999, 1000], wnli: [635, 71] };
  for (const [task, [train, dev]] of Object.entries(rows)) {
    const data = loadGlue(task, SHARED);
    assert.deepEqual([data.train.length, data.dev.length], [train, dev], task);
  }
  assert.equal(loadGlue('cola', SHARED).train.filter((e) => e.label === 1).length, 6023);
  assert.equal(loadGlue('rte', path.join(SHARED, 'RTE')).dev.filter((e) => e.label === 0).length, 146);
});

test('a score is written as a decimal number, a column is named once, and a folder is no file', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-glue-'));
  const file = path.join(folder, 'x.tsv');
  for (const score of ['0x3', ' 3', '3e0', '.5', '5.1', 'NaN', '-0']) {
    writeFileSync(file, `sentence1\tsentence2\tscore\na\tb\t${score}\n`);
    assert.throws(() => readGlueFile(glueTask('stsb'), file), (e: Error) => e instanceof DataRowError && e.message.includes(`score '${score}'`), score);
  }
  writeFileSync(file, 'sentence\tlabel\tlabel\na\t0\t1\n');
  assert.throws(() => readGlueFile(glueTask('sst2'), file), /two columns are called 'label'/);
  assert.throws(() => readGlueFile(glueTask('sst2'), folder), (e: Error) => e instanceof FileMissingError && /is no file/.test(e.message));
  rmSync(folder, { recursive: true });
});

test('a row’s label is a number, not what can be made one', () => {
  for (const label of [[1], true, '1', null, undefined, new Date(1), { valueOf: 1, toString: 1 }, NaN, 2n ** 60n])
    assert.throws(() => glueExamples(glueTask('mrpc'), [{ sentence1: 'a', sentence2: 'b', label }], 'rows'), (e: Error) => e instanceof DataRowError && /^rows:1: label /.test(e.message));
  assert.deepEqual(glueExamples(glueTask('mrpc'), [{ sentence1: 'a', sentence2: 'b', label: 1n }], 'rows'), [{ text: 'a', pair: 'b', label: 1 }]);
});
