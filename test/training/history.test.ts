/** The history of a run: what goes in comes out, in every table, however long the run. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { CATEGORIES, type Category } from '../../src/engine/engine';
import { FileMissingError, InvalidArgumentError } from '../../src/errors';
import type { FreezableLayer } from '../../src/freezing/layer';
import type { LedgerEntry } from '../../src/tape/roles';
import { History, moduleOf } from '../../src/training/history';
import { historyContents, loadHistory, saveHistory } from '../../src/training/historyFile';
import type { StepRecord } from '../../src/training/stepRecord';

const layers: readonly FreezableLayer[] = [
  { index: 0, name: 'bert.embeddings.word_embeddings.weight', kind: 'embedding', shape: [5, 4], parameters: 20 },
  { index: 1, name: 'bert.encoder.layer.0.output.dense.weight', kind: 'linear', shape: [4, 8], parameters: 32 },
  { index: 2, name: 'bert.encoder.layer.0.output.LayerNorm.weight', kind: 'layer-norm', shape: [4], parameters: 4 },
];
const entry = (layer: string, role: LedgerEntry['role'], encoding: LedgerEntry['encoding'], bytes: number): LedgerEntry => ({ layer, what: 'input', role, encoding, shape: [bytes], bytes, padding: 0 });
const byCategory = (of: (i: number) => number) => Object.fromEntries(CATEGORIES.map((c, i) => [c, of(i)])) as Record<Category, number>;

/** A record in which every number is another, all following from the step. */
function record(step: number, changes: Partial<StepRecord> = {}): StepRecord {
  const active = [step % 3];
  const activations = [
    entry('bert.encoder.layer.0.output.dense', 'dynamic', 'q3.4', 100 + step),
    entry('bert.encoder.layer.0.output.LayerNorm', 'quasi-static', 'top10', 30),
    entry('bert.encoder.layer.0.output.LayerNorm', 'quasi-static', 'float32', 12),
    entry('bert.encoder.layer.0.attention.self', 'static', 'q3.4', 7),
    entry('bert.encoder.layer.0.attention.self', 'static', 'q3.4', 8),
    entry('bert.encoder.layer.0.attention.self', 'static', 'q0.8', 9),
  ];
  return {
    step,
    epoch: Math.floor(step / 10),
    loss: 1 / (step + 3),
    learningRate: 1e-3 - step * 1e-7,
    frozen: [0, 1, 2].filter((i) => !active.includes(i)),
    active,
    updateMagnitudes: Float64Array.of(step, step + 0.25, 1e10 + step),
    activations,
    activationBytes: activations.reduce((s, e) => s + e.bytes, 0),
    memory: { live: byCategory((i) => 1000 * i + step), peak: byCategory((i) => 5000 * i + step), totalLive: 1, totalPeak: 2 ** 40 + step, tensors: 3 },
    milliseconds: step + 0.5,
    dataMilliseconds: step / 4,
    overruled: step % 2 ? [2] : [],
    fullActivations: { total: 1000 + step, parts: { embeddings: 400, 'layer 0': 600 + step } },
    freezingSaves: Float64Array.of(10 + step, 20, NaN),
    course: [
      { phase: 'forward', layer: 'bert.encoder.layer.0.output.dense', activationBytes: 100 + step, deviceBytes: 5000 },
      { phase: 'backward', layer: 'bert.encoder.layer.0.output.dense', activationBytes: 0, deviceBytes: 4000 + step },
    ],
    encodingErrors: step % 10 === 0 ? [{ layer: 'bert.encoder.layer.0.attention.self', what: 'probabilities', encoding: 'q0.8', clipped: 0.25, zeroed: step / 1e4, relativeError: 0.125 }] : [],
    examples: 32,
    tokens: 4096 + step,
    ...changes,
  };
}

const historyOf = (steps: number): History => {
  const history = new History(layers);
  for (let k = 0; k < steps; k++) history.append(record(k));
  return history;
};

test('every number of every step comes back, over far more steps than fit at first', () => {
  const n = 1000;
  const history = historyOf(n);
  assert.equal(history.length, n);
  const rows = history.steps().objects() as Record<string, number>[];
  assert.equal(rows.length, n);
  rows.forEach((row, k) => {
    const r = record(k);
    const want: Record<string, number> = {
      step: k,
      epoch: r.epoch,
      loss: r.loss,
      learningRate: r.learningRate,
      trainedLayers: 1,
      frozenLayers: 2,
      activationBytes: r.activationBytes,
      fullActivationBytes: 1000 + k,
      totalPeakBytes: r.memory.totalPeak,
      milliseconds: r.milliseconds,
      dataMilliseconds: k / 4,
      examples: 32,
      tokens: r.tokens,
      tokensPerSecond: (1000 * r.tokens) / r.milliseconds,
    };
    CATEGORIES.forEach((c, i) => Object.assign(want, { [`${c}Bytes`]: 1000 * i + k, [`${c}PeakBytes`]: 5000 * i + k }));
    assert.deepEqual({ ...row }, want);
  });
  assert.deepEqual([...history.column('loss')], Array.from({ length: n }, (_, k) => 1 / (k + 3)));
  assert.deepEqual([...history.magnitudesAfter(777)], [777, 777.25, 1e10 + 777]);
  assert.deepEqual([...history.trainedIn(776)], [0, 0, 1]);
});

test('the layers’ table has one row per step and layer, steps first, with what the layer itself keeps', () => {
  const steps = 130;
  const rows = historyOf(steps).layers().objects() as Record<string, unknown>[];
  assert.equal(rows.length, steps * 3);
  rows.forEach((row, i) => {
    const [k, layer] = [Math.floor(i / 3), layers[i % 3]];
    assert.deepEqual({ ...row }, {
      step: k,
      layer: layer.index,
      name: layer.name,
      kind: layer.kind,
      trained: k % 3 === layer.index,
      overruled: k % 2 === 1 && layer.index === 2,
      updateMagnitude: [k, k + 0.25, 1e10 + k][layer.index],
      // Attention's operands belong to no weight; both forms of the LayerNorm's count.
      activationBytes: [0, 100 + k, 42][layer.index],
      freezingSavesBytes: [10 + k, 20, NaN][layer.index],
    });
  });
});

test('the activations’ table adds up entries of one module, role and encoding', () => {
  const rows = (historyOf(70).activations().objects() as Record<string, unknown>[]).filter((r) => r.step === 69).map((r) => [r.module, r.role, r.encoding, r.bytes]);
  assert.deepEqual(rows, [
    ['bert.encoder.layer.0.output.dense', 'dynamic', 'q3.4', 169],
    ['bert.encoder.layer.0.output.LayerNorm', 'quasi-static', 'top10', 30],
    ['bert.encoder.layer.0.output.LayerNorm', 'quasi-static', 'float32', 12],
    ['bert.encoder.layer.0.attention.self', 'static', 'q3.4', 15],
    ['bert.encoder.layer.0.attention.self', 'static', 'q0.8', 9],
  ]);
});

test('how often and when each layer last trained is counted, by the record’s own step number', () => {
  const history = new History(layers);
  assert.deepEqual([0, 1, 2].map((i) => history.trainingOf(i)), [0, 1, 2].map(() => ({ times: 0, last: -1 })));
  for (const [step, active] of [[4, [0, 2]], [5, [2]], [9, [0]]] as const) history.append(record(step, { active, frozen: [0, 1, 2].filter((i) => !(active as readonly number[]).includes(i)) }));
  assert.deepEqual([0, 1, 2].map((i) => history.trainingOf(i)), [{ times: 2, last: 9 }, { times: 0, last: -1 }, { times: 2, last: 5 }]);
  assert.deepEqual([...history.trainedIn(0)], [1, 0, 1]);
  assert.deepEqual([...history.column('trainedLayers')], [2, 1, 1]);
  assert.deepEqual([...history.column('step')], [4, 5, 9]);
});

test('what cannot be counted is kept as it is: magnitudes that are infinite or NaN, bytes beyond 2³²', () => {
  const history = new History(layers);
  const bytes = 2 ** 33 + 1;
  history.append(record(0, { updateMagnitudes: Float64Array.of(Infinity, NaN, 1e-300), activations: [entry('bert.encoder.layer.0.output.dense', 'dynamic', 'float32', bytes)], activationBytes: bytes }));
  assert.deepEqual([...history.magnitudesAfter(0)], [Infinity, NaN, 1e-300]);
  assert.deepEqual(Array.from(history.layers().array('activationBytes')), [0, bytes, 0]);
  assert.deepEqual(Array.from(history.activations().array('bytes')), [bytes]);
  assert.deepEqual(Array.from(history.steps().array('activationBytes')), [bytes]);
});

test('a record’s arrays stay the caller’s, and a table does not change with later steps', () => {
  const history = new History(layers);
  const magnitudes = Float64Array.of(1, 2, 3);
  history.append(record(0, { updateMagnitudes: magnitudes }));
  magnitudes.fill(9);
  assert.deepEqual([...history.magnitudesAfter(0)], [1, 2, 3]);
  const tables = [history.steps(), history.layers(), history.activations()];
  const sizes = tables.map((t) => t.numRows());
  const before = tables.map((t) => JSON.stringify(t.objects()));
  for (let k = 1; k < 5; k++) history.append(record(k));
  assert.deepEqual(tables.map((t) => t.numRows()), sizes);
  assert.deepEqual(tables.map((t) => JSON.stringify(t.objects())), before);
});

test('a record of other layers is refused by their number, and nothing of it is added', () => {
  const history = historyOf(2);
  assert.throws(() => history.append(record(2, { updateMagnitudes: Float64Array.of(1, 2) })), (e: Error) => e instanceof InvalidArgumentError && e.message.includes('2') && e.message.includes('3'));
  assert.equal(history.length, 2);
  assert.deepEqual([history.steps(), history.layers(), history.activations()].map((t) => t.numRows()), [2, 6, 10]);
});

test('evaluations have one row per metric, whichever each has, in order, and are copies', () => {
  const history = historyOf(1);
  const metrics = { loss: 0.5, accuracy: 0.75 };
  history.addEvaluation(0, metrics);
  metrics.loss = 99;
  history.addEvaluation(20, { loss: NaN });
  assert.deepEqual(history.evaluations().objects().map((r) => ({ ...r })), [
    { step: 0, metric: 'loss', value: 0.5 },
    { step: 0, metric: 'accuracy', value: 0.75 },
    { step: 20, metric: 'loss', value: NaN },
  ]);
});

test('a history without steps has tables without rows, with their columns', () => {
  const history = new History(layers);
  assert.equal(history.length, 0);
  assert.deepEqual([history.steps(), history.layers(), history.activations(), history.evaluations()].map((t) => t.numRows()), [0, 0, 0, 0]);
  assert.deepEqual(history.layers().columnNames(), ['step', 'layer', 'name', 'kind', 'trained', 'overruled', 'updateMagnitude', 'activationBytes', 'freezingSavesBytes']);
  assert.deepEqual(history.activations().columnNames(), ['step', 'module', 'role', 'encoding', 'bytes']);
  assert.deepEqual(history.evaluations().columnNames(), ['step', 'metric', 'value']);
  assert.equal(history.steps().columnNames().length, 14 + 2 * CATEGORIES.length);
});

const tablesOf = (h: History) => JSON.stringify([h.steps(), h.layers(), h.activations(), h.fullActivations(), h.encodingErrors(), h.evaluations()].map((t) => t.objects()), (_, v) => (typeof v === 'number' ? String(v) : (v as unknown)));

test('what plain fine-tuning keeps, what encodings lose and the course of a step come back by their names', () => {
  const history = historyOf(150);
  const full = history.fullActivations().objects() as Record<string, unknown>[];
  assert.deepEqual(full.slice(-2).map((r) => ({ ...r })), [{ step: 149, part: 'embeddings', bytes: 400 }, { step: 149, part: 'layer 0', bytes: 749 }]);
  const errors = history.encodingErrors().objects() as Record<string, unknown>[];
  assert.deepEqual(errors.map((r) => r.step), Array.from({ length: 15 }, (_, i) => 10 * i));
  assert.deepEqual({ ...errors[14] }, { step: 140, module: 'bert.encoder.layer.0.attention.self', what: 'probabilities', encoding: 'q0.8', clipped: 0.25, zeroed: 0.014, relativeError: 0.125 });
  assert.deepEqual(history.course(), record(149).course);
  assert.deepEqual(history.course(60), record(60).course);
  assert.equal(history.course(49), undefined, 'only of the latest hundred steps');
  assert.deepEqual(history.courseSteps, Array.from({ length: 100 }, (_, i) => 50 + i));
  assert.deepEqual([...history.overruledIn(1)], [0, 0, 1]);
  assert.deepEqual([...history.trainedIn(5)], [0, 0, 1]);
  assert.deepEqual([...history.overruledIn(5)], [0, 0, 1]);
  assert.deepEqual([...history.freezingSavesIn(7)], [17, 20, NaN]);
  assert.deepEqual([history.memory('activations', 'end')[3], history.memory('activations', 'peak')[3]], [1000 * CATEGORIES.indexOf('activations') + 3, 5000 * CATEGORIES.indexOf('activations') + 3]);
});

test('a shortened history is the history of the fewer steps', () => {
  const long = historyOf(140);
  long.addEvaluation(30, { loss: 1 });
  long.addEvaluation(90, { loss: 2 });
  long.truncate(45, 45);
  const short = historyOf(45);
  short.addEvaluation(30, { loss: 1 });
  assert.equal(tablesOf(long), tablesOf(short));
  assert.deepEqual([0, 1, 2].map((i) => long.trainingOf(i)), [0, 1, 2].map((i) => short.trainingOf(i)));
  assert.deepEqual(long.course(44), record(44).course);
  assert.equal(long.course(45), undefined);
  for (const h of [long, short]) h.append(record(45));
  assert.equal(tablesOf(long), tablesOf(short));
});

test('a history comes back from a folder whole: every table, course and number, also those that JSON cannot say', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-history-'));
  try {
    const history = new History(layers, 'mine');
    for (let k = 0; k < 130; k++) history.append(record(k, k === 7 ? { updateMagnitudes: Float64Array.of(Infinity, NaN, -0) } : {}));
    history.addEvaluation(20, { loss: NaN, accuracy: 0.5 });
    const files = saveHistory(history, folder);
    assert.deepEqual(files.map((f) => path.basename(f)), ['history.json', 'steps.csv', 'layers.csv', 'activations.csv', 'evaluations.csv']);
    const back = loadHistory(folder);
    assert.equal(tablesOf(back), tablesOf(history));
    assert.deepEqual([back.name, back.length, back.freezableLayers], ['mine', 130, layers]);
    assert.ok(Object.is(back.magnitudesAfter(7)[2], -0));
    assert.deepEqual(back.course(99), record(99).course);
    assert.deepEqual([0, 1, 2].map((i) => back.trainingOf(i)), [0, 1, 2].map((i) => history.trainingOf(i)));
    for (const h of [back, history]) h.append(record(130));
    assert.equal(tablesOf(back), tablesOf(history), 'a history that came back goes on');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('a missing, foreign or damaged history file is refused by name', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-history-'));
  try {
    assert.throws(() => loadHistory(folder), FileMissingError);
    saveHistory(historyOf(5), folder);
    const file = path.join(folder, 'history.json');
    const good = JSON.parse(readFileSync(file, 'utf8')) as { columns: Record<string, { type: string; base64: string }> } & Record<string, unknown>;
    const refused = (change: (o: typeof good) => void, pattern: RegExp) => {
      const bad = structuredClone(good);
      change(bad);
      writeFileSync(file, JSON.stringify(bad));
      assert.throws(() => loadHistory(file), (e: Error) => e instanceof InvalidArgumentError && pattern.test(e.message));
    };
    refused((o) => (o.format = 'x'), /no history/);
    refused((o) => (o.version = 2), /version 2/);
    refused((o) => delete o.columns['step.loss'], /lacks the column step\.loss/);
    refused((o) => (o.columns['step.loss'].base64 = o.columns['step.loss'].base64.slice(0, 20)), /damaged: .*15 bytes|damaged: column step\.loss/);
    refused((o) => (o.columns['layer.saves'] = o.columns['step.loss']), /column layer\.saves has 5 values, not 15/);
    refused((o) => (o.columns['kept.role'].type = 'uint8'), /damaged/);
    refused((o) => (o.words = { ...(o.words as object), role: [] }), /a role has no name/);
    // One from before engines told what they hold of the device is whole.
    const older = structuredClone(good);
    delete older.columns['step.heldBytes'];
    writeFileSync(file, JSON.stringify(older));
    assert.deepEqual(loadHistory(file).steps().objects(), historyOf(5).steps().objects());
    assert.deepEqual([...loadHistory(file).column('heldBytes')], Array(5).fill(NaN));
    writeFileSync(file, JSON.stringify(good).slice(0, 300));
    assert.throws(() => loadHistory(file), /is damaged/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('every number comes back to the bit, from the JSON file, from a checkpoint’s two files and from the tables as CSV, whatever a NaN carries', async () => {
  const history = new History(layers, 'odd');
  const carrying = new Float64Array(new BigUint64Array([0x7ff8dead_beef0001n]).buffer)[0];
  const odd = [NaN, carrying, Infinity, -Infinity, -0, 0, 1e-320, 0.1 + 0.2, 2 ** 53 - 1, Math.fround(1 / 3)];
  odd.forEach((v, i) => history.append(record(i, { loss: v, updateMagnitudes: Float64Array.of(v, -v, odd[(i + 1) % odd.length]) })));
  odd.forEach((v, i) => history.addEvaluation(i, { v }));
  const bits = (h: History) => [...h.parts().columns].map(([name, v]) => [name, Buffer.from(v.buffer, v.byteOffset, v.byteLength).toString('hex')]);
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-history-'));
  saveHistory(history, folder);
  const files = historyContents(history);
  const checkpoint = mkdtempSync(path.join(tmpdir(), 'slimfit-history-'));
  writeFileSync(path.join(checkpoint, 'history.json'), Buffer.concat([...files.head()]));
  const pieces: Uint8Array[] = [];
  for await (const p of files.columns()) pieces.push(p);
  writeFileSync(path.join(checkpoint, 'history.safetensors'), Buffer.concat(pieces));
  const empty = new History(layers, 'goes on');
  empty.resume(history.parts());
  for (const back of [loadHistory(folder), loadHistory(checkpoint), empty]) {
    assert.deepEqual(bits(back), bits(history));
    assert.deepEqual(odd.map((_, i) => back.metricsAt(i)!.v), odd.map((v) => v));
    assert.deepEqual(back.parts().head.courses, history.parts().head.courses);
    assert.equal(back.trainingOf(1).times, history.trainingOf(1).times);
  }
  assert.equal(empty.name, 'goes on');
  const [names, ...rows] = readFileSync(path.join(folder, 'steps.csv'), 'utf8').trim().split('\n').map((line) => line.split(','));
  rows.forEach((row, i) => assert.ok(Object.is(Number(row[names.indexOf('loss')]), odd[i]) || (odd[i] === 0 && Number(row[names.indexOf('loss')]) === 0), `${row}`));
  rmSync(folder, { recursive: true });
  rmSync(checkpoint, { recursive: true });
});

test('a history takes up one of its own layers, and only before it has steps', () => {
  const [a, b] = [new History(layers), new History(layers.slice(1))];
  a.append(record(0));
  assert.throws(() => b.resume(a.parts()), (e: Error) => e instanceof InvalidArgumentError && /3 layers in a run of 2/.test(e.message));
  assert.throws(() => a.resume(a.parts()), /1 steps/);
  assert.equal(a.metricsAt(0), undefined);
  a.addEvaluation(1, { loss: 2 });
  a.addEvaluation(1, { loss: 1 });
  assert.deepEqual([a.metricsAt(1), a.metricsAt(0)], [{ loss: 1 }, undefined]);
});

test('a module is called as its weight without `.weight`', () => {
  assert.equal(moduleOf('classifier.weight'), 'classifier');
  assert.equal(moduleOf('vit.embeddings.cls_token'), 'vit.embeddings.cls_token');
  assert.equal(moduleOf('a.weight.weight'), 'a.weight');
});

test('a damaged history is refused by file and field, and a run that was to take it up is as it was', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-history-'));
  const file = path.join(folder, 'history.json');
  const whole = new History(layers);
  whole.append(record(0));
  const good = JSON.parse(JSON.stringify(whole)) as Record<string, object>;
  const damaged: readonly [object, RegExp][] = [
    [{ ...good, layers: null }, /layers is null/],
    [{ ...good, layers: [null] }, /layers\[0\] is null/],
    [{ ...good, layers: [...(good.layers as object[])].reverse() }, /layers\[0\]/],
    [{ ...good, words: { ...good.words, module: ['a', 'a'] } }, /words.module is \["a","a"\]/],
    [{ ...good, words: undefined }, /words is undefined/],
    [{ ...good, courses: [{ step: 0, course: [null] }] }, /courses\[0\]/],
    [{ ...good, evaluations: [{ step: 0, metrics: { f1: { toString: 1 } } }] }, /evaluations\[0\]/],
    [{ ...good, columns: { ...good.columns, 'step.loss': null } }, /a column is null/],
    [{ ...good, columns: { ...good.columns, 'step.loss': { type: 'toString', base64: '' } } }, /a column is/],
    [{ ...good, columns: [] }, /columns are \[\]/],
    [{ ...good, version: { toString: 1 } }, /version \{"toString":1\}/],
  ];
  for (const [json, says] of damaged) {
    writeFileSync(file, JSON.stringify(json));
    assert.throws(() => loadHistory(folder), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(file) && says.test(e.message), String(says));
  }
  writeFileSync(file, JSON.stringify({ ...good, layers: layers.map((l) => ({ ...l, more: 1 })), courses: [{ step: 0, more: 1, course: [{ phase: 'forward', layer: 'x', activationBytes: 1, deviceBytes: 2, more: 1 }] }] }));
  assert.ok(!JSON.stringify(loadHistory(folder)).includes('more'), 'what does not belong there is left out');
  const fresh = new History(layers);
  const { head, columns } = whole.parts();
  assert.throws(() => fresh.resume({ head, columns: new Map([...columns, ['step.loss', new Float64Array(7)]]) }), /column step.loss has 7 values/);
  assert.equal(fresh.length, 0);
  fresh.resume({ head, columns });
  assert.equal(fresh.length, 1);
  rmSync(folder, { recursive: true });
});
