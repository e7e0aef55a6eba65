/** Figures and tables of a run, and runs side by side: numbers computed here from the records. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CATEGORIES, type Category } from '../../src/engine/engine';
import { InvalidArgumentError } from '../../src/errors';
import type { FreezableLayer } from '../../src/freezing/layer';
import { parseBertConfig } from '../../src/hub/config';
import { compare } from '../../src/inspect/compare';
import type { Figure } from '../../src/inspect/figure';
import { freezeMapFigure, freezingSavesFigure, timesTrainedFigure } from '../../src/inspect/freezeFigures';
import { encodingErrorFigure, gradientErrorFigure } from '../../src/inspect/healthFigures';
import { updateMagnitudeByKindFigure, updateMagnitudeDistributionFigure, updateMagnitudeFigure } from '../../src/inspect/magnitudeFigures';
import { activationMemoryFigure, activationMemoryOverStepsFigure, deviceMemoryFigure, stepMemoryFigure } from '../../src/inspect/memoryFigures';
import { lossFigure, metricsFigure, throughputFigure } from '../../src/inspect/runFigures';
import { activationsTable, deviceMemoryTable, encodingErrorsTable, healthTable, layersTable } from '../../src/inspect/tables';
import { planMemory } from '../../src/memory/planner';
import { byteUnit, formatBytes } from '../../src/units';
import { GradientComparison } from '../../src/training/gradients';
import { History } from '../../src/training/history';
import type { StepRecord } from '../../src/training/stepRecord';

const MIB = 2 ** 20;
const layers: readonly FreezableLayer[] = [
  { index: 0, name: 'bert.embeddings.word_embeddings.weight', kind: 'embedding', shape: [5, 4], parameters: 20 },
  { index: 1, name: 'bert.encoder.layer.0.output.dense.weight', kind: 'linear', shape: [4, 8], parameters: 32 },
  { index: 2, name: 'bert.encoder.layer.0.output.LayerNorm.weight', kind: 'layer-norm', shape: [4], parameters: 4 },
];
const byCategory = (of: (i: number) => number) => Object.fromEntries(CATEGORIES.map((c, i) => [c, of(i)])) as Record<Category, number>;

function record(step: number, changes: Partial<StepRecord> = {}): StepRecord {
  const active = changes.active ?? [step % 3];
  return {
    step,
    epoch: 0,
    loss: 1 / (step + 1),
    learningRate: 1e-3,
    frozen: [0, 1, 2].filter((i) => !active.includes(i)),
    active,
    overruled: [],
    updateMagnitudes: Float64Array.of(0.5, 0.01 * (step + 1), 1e-3),
    activations: [
      { layer: 'bert.encoder.layer.0.output.dense', what: 'input', role: 'dynamic', encoding: 'q3.4', shape: [1], bytes: 2 * MIB, padding: 0 },
      { layer: 'bert.encoder.layer.0.attention.self', what: 'probabilities', role: 'static', encoding: 'q0.8', shape: [1], bytes: MIB, padding: 0 },
    ],
    activationBytes: 3 * MIB,
    fullActivations: { total: 12 * MIB, parts: { embeddings: 2 * MIB, 'layer 0': 10 * MIB } },
    freezingSaves: Float64Array.of(0, 2 * MIB, MIB),
    course: [
      { phase: 'forward', layer: 'bert.encoder.layer.0.attention.self', activationBytes: MIB, deviceBytes: 50 * MIB },
      { phase: 'forward', layer: 'bert.encoder.layer.0.output.dense', activationBytes: 3 * MIB, deviceBytes: 60 * MIB },
      { phase: 'backward', layer: 'bert.encoder.layer.0.output.dense', activationBytes: MIB, deviceBytes: 55 * MIB },
    ],
    encodingErrors: step % 10 === 0 ? [{ layer: 'bert.encoder.layer.0.attention.self', what: 'probabilities', encoding: 'q0.8', clipped: 0.25, zeroed: 0.5, relativeError: 0.125 }] : [],
    memory: { live: byCategory((i) => (i + 1) * MIB), peak: byCategory((i) => (i + 2) * MIB), totalLive: 15 * MIB, totalPeak: (40 + step) * MIB, tensors: 3 },
    milliseconds: 50,
    dataMilliseconds: 5,
    examples: 32,
    tokens: 1000,
    ...changes,
  };
}
function historyOf(steps: number, name = 'slim', change: (step: number) => Partial<StepRecord> = () => ({})): History {
  const history = new History(layers, name);
  for (let k = 0; k < steps; k++) history.append(record(k, change(k)));
  history.addEvaluation(steps, { loss: 0.25, accuracy: 0.75 });
  return history;
}
const rowsOf = (t: { objects(): object[] }) => t.objects().map((r) => ({ ...r }) as Record<string, unknown>);
const trace = (f: Figure, name: string) => f.data.find((t) => t.name === name)!;
const comparison = new GradientComparison(4, [
  { encodings: 'all encodings', parameter: 'classifier.weight', exactNorm: 2, norm: 2.5, relativeError: 0.5, cosine: 0.9 },
  { encodings: 'all encodings', parameter: 'classifier.bias', exactNorm: 1, norm: 1, relativeError: 0.25, cosine: 1 },
]);

const FIGURES: Readonly<Record<string, (h: History) => Figure>> = {
  updateMagnitudeFigure, updateMagnitudeByKindFigure, updateMagnitudeDistributionFigure, freezeMapFigure, timesTrainedFigure, freezingSavesFigure, activationMemoryFigure, activationMemoryOverStepsFigure,
  stepMemoryFigure, deviceMemoryFigure, encodingErrorFigure, lossFigure, metricsFigure, throughputFigure,
  gradientErrors: () => gradientErrorFigure(comparison),
  compareLoss: (h) => compare(h, h).loss(),
  compareLearningRate: (h) => compare(h, h).learningRate(),
  compareMemory: (h) => compare(h, h).activationMemory(),
  compareParts: (h) => compare(h, h).activationMemoryByPart(),
  compareDevice: (h) => compare(h, h).deviceMemory(),
  compareThroughput: (h) => compare(h, h).throughput(),
  compareMetric: (h) => compare(h, h).metric('accuracy'),
  compareTimes: (h) => compare(h, h).timesTrained(),
  compareMagnitudes: (h) => compare(h, h).updateMagnitudes(),
};

for (const [name, make] of Object.entries(FIGURES))
  test(`${name}: title, axis names, hover text, a whole picture; a history from disk and a trainer show the same; long runs stay small`, () => {
    const history = historyOf(7);
    const figure = make(history);
    const { title, xaxis, yaxis, yaxis2 } = figure.layout as Record<string, { text?: string; title?: { text: string }; tickvals?: unknown } | undefined>;
    assert.ok(title!.text!.length > 3);
    const categories = (axis: 'x' | 'y') => figure.data.some((t) => Array.from((t[axis] ?? []) as unknown[]).some((v) => typeof v === 'string'));
    assert.ok(xaxis!.title!.text || categories('x'), 'the x axis has a name, or names of its own');
    assert.ok(yaxis!.title!.text || categories('y'), 'the y axis has a name, or names of its own');
    if (figure.data.some((t) => t.yaxis === 'y2')) assert.ok(yaxis2!.title!.text);
    for (const t of figure.data.filter((d) => Array.from((d.x ?? []) as unknown[]).some((v) => v !== null))) assert.match(String(t.hovertemplate), /%\{[xyz]/);
    assert.doesNotMatch(figure.toSvg(), /NaN|undefined|Infinity/);
    const back = History.fromJSON(JSON.parse(JSON.stringify(history)));
    assert.deepEqual([make(back).data, make(back).layout], [figure.data, figure.layout]);
    assert.deepEqual(make({ history } as unknown as History).data, figure.data);
    const long = make(historyOf(1000));
    for (const t of long.data) if (!String(t.mode).includes('markers')) assert.ok((t.x as unknown[] | undefined)?.length === undefined || (t.x as unknown[]).length <= 240, `${(t.x as unknown[]).length} points`);
  });

test('before the first step a figure says what to do; a step that was not recorded is named', () => {
  const empty = new History(layers);
  for (const f of [lossFigure, freezeMapFigure, deviceMemoryTable, healthTable]) assert.throws(() => f(empty), (e: Error) => e instanceof InvalidArgumentError && /trainer\.step\(\)/.test(e.message));
  assert.throws(() => metricsFigure(empty), /evaluate/);
  assert.throws(() => activationMemoryFigure(historyOf(3), { step: 9 }), /step 9 was not recorded: the history has steps 0 to 2/);
  assert.throws(() => stepMemoryFigure(historyOf(150), { step: 3 }), /course of step 3 is not remembered: steps 50 to 149/);
  assert.throws(() => encodingErrorFigure(historyOf(12), { step: 5 }), /not measured in step 5: it was in steps 0, 10/);
  assert.throws(() => encodingErrorsTable(historyOf(2, 'x', () => ({ encodingErrors: [] }))), /not measured in this run/);
  assert.throws(() => compare(), /at least one run/);
  assert.throws(() => compare(historyOf(2)).metric('f1'), /'f1'.*loss, accuracy/);
});

test('the magnitudes are those of the layers that trained, as powers of ten', () => {
  const [t] = updateMagnitudeFigure(historyOf(4)).data;
  assert.deepEqual(t.z, [[Math.log10(0.5), null, null, Math.log10(0.5)], [null, Math.log10(0.02), null, null], [null, null, -3, null]]);
  const zero = updateMagnitudeFigure(historyOf(1, 'x', () => ({ active: [0, 1, 2], updateMagnitudes: Float64Array.of(0, NaN, Infinity) }))).data[0];
  assert.deepEqual(zero.z, [[null], [null], [null]]);
  const sorted = updateMagnitudeDistributionFigure(historyOf(2));
  assert.deepEqual((sorted.layout.yaxis as { categoryarray: string[] }).categoryarray, ['word embeddings', 'L0 MLP down', 'L0 MLP norm']);
  assert.deepEqual([trace(sorted, 'trained in step 1').y, trace(sorted, 'frozen').y, trace(sorted, 'not yet trained').y], [['L0 MLP down'], ['word embeddings'], ['L0 MLP norm']]);
});

test('the map tells of each decision what it saved or cost; of several steps in one column, the share', () => {
  const [t] = freezeMapFigure(historyOf(3)).data as [{ z: (number | null)[][]; text: string[][] }];
  assert.deepEqual(t.z, [[1, null, null], [null, 1, null], [null, null, 1]]);
  assert.deepEqual(t.text[1], ['frozen, saves 2.0 MiB', 'trained, freezing saves 2.0 MiB', 'frozen, saves 2.0 MiB']);
  const [many] = freezeMapFigure(historyOf(480)).data as unknown as [{ x: number[]; z: number[][] }];
  assert.deepEqual([many.x.slice(0, 3), many.z[0].slice(0, 3)], [[0, 2, 4], [0.5, 0.5, null]]);
  const saves = freezingSavesFigure(historyOf(3));
  const close = (a: unknown, b: number[]) => (a as number[]).forEach((v, i) => assert.ok(Math.abs(v - b[i]) < 1e-12));
  close(trace(saves, 'saved by freezing').x, [0, 4 / 3, 2 / 3]);
  close(trace(saves, 'kept for training').x, [0, 2 / 3, 1 / 3]);
  assert.deepEqual(timesTrainedFigure(historyOf(4)).data[0].x, [2, 1, 1]);
});

test('memory figures add up the bytes by part, kind and step, in MiB', () => {
  const byPart = activationMemoryFigure(historyOf(3));
  assert.deepEqual([trace(byPart, 'dynamic, q3.4').y, trace(byPart, 'static, q0.8').y, trace(byPart, 'plain fine-tuning').y], [[2], [1], [2, 10]]);
  const overSteps = activationMemoryOverStepsFigure(historyOf(3));
  assert.deepEqual([trace(overSteps, 'dynamic, q3.4').y, trace(overSteps, 'plain fine-tuning').y], [[2, 2, 2], [12, 12, 12]]);
  const course = stepMemoryFigure(historyOf(3));
  assert.deepEqual([trace(course, 'kept activations').y, trace(course, 'everything on the device').y], [[1, 3, 1], [50, 60, 55]]);
  assert.deepEqual([course.data[2].x, course.data[2].y], [[1], [3]], 'the peak is marked');
  assert.deepEqual(trace(deviceMemoryFigure(historyOf(2)), 'all together').y, [40, 41]);
});

test('a plan is drawn as a step that ran: its bytes by part and kind, its course, and the peak with temporaries in the title', () => {
  const plan = planMemory({ config: parseBertConfig({ model_type: 'bert', vocab_size: 50, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64 }), batchSize: 4, length: 16, freezeRate: 0.5 });
  const parts = activationMemoryFigure(plan);
  const drawn = parts.data.flatMap((t) => t.y as number[]).reduce((a, b) => a + b, 0);
  assert.ok(Math.abs(drawn - plan.activationBytes / MIB) < 1e-9);
  assert.deepEqual(trace(parts, 'static, q2.1').x, ['embeddings', 'layer 0', 'layer 1', 'head']);
  const deep = planMemory({ config: parseBertConfig({ model_type: 'bert', vocab_size: 50, hidden_size: 32, num_hidden_layers: 7, num_attention_heads: 2, intermediate_size: 64 }), batchSize: 4, length: 16 });
  assert.deepEqual(trace(activationMemoryFigure(deep), 'static, q2.1').x, ['embeddings', 'L0', 'L1', 'L2', 'L3', 'L4', 'L5', 'L6', 'head']);
  assert.deepEqual(trace(parts, 'static, q2.1').y, [0, 1, 1, 0].map((layers) => (layers * 4 * 16 * 64) / 2 / MIB));
  const course = stepMemoryFigure(plan);
  assert.deepEqual(trace(course, 'kept activations').y, plan.course.map((p) => p.activationBytes / MIB));
  assert.ok(Math.max(...(trace(course, 'kept activations').y as number[])) === plan.activationBytes / MIB);
  assert.match(JSON.stringify(course.layout.title), new RegExp(`as planned: peak ${formatBytes(plan.peakBytes).replace('.', '\\.')} with temporaries`));
});

test('the course of a step says what a layer that is run again keeps, and how many micro-batches there were', () => {
  const point = (phase: 'forward' | 'recompute' | 'backward', layer: string) => ({ phase, layer: `bert.encoder.layer.0${layer}`, activationBytes: MIB, deviceBytes: MIB });
  const one = [point('forward', ''), point('recompute', '.output.dense'), point('backward', '.output.dense'), point('backward', '')];
  const figure = (course: StepRecord['course']) => stepMemoryFigure(historyOf(1, 'x', () => ({ course })));
  assert.deepEqual(trace(figure(one), 'kept activations').text, ['forward: kept by L0', 'recompute: kept by L0 MLP down', 'backward: let go by L0 MLP down', 'backward: let go by L0']);
  const axis = (course: StepRecord['course']) => (figure(course).layout.xaxis as { title: { text: string } }).title.text;
  assert.match(axis(one), /^forward until 1, then backward: /);
  assert.match(axis([...one, ...one, ...one]), /^3 micro-batches, each forward and backward: /);
});

test('device memory is told now, at its peak and for plain fine-tuning, with the ratio', () => {
  const rows = rowsOf(deviceMemoryTable(historyOf(3)));
  const weights = (CATEGORIES.indexOf('weights') + 1) * MIB;
  const activations = CATEGORIES.indexOf('activations');
  assert.deepEqual(rows.find((r) => r.use === 'activations'), { use: 'activations', nowBytes: (activations + 1) * MIB, peakBytes: (activations + 2) * MIB, plainFineTuningBytes: 12 * MIB, timesLess: 12 / (activations + 2) });
  const all = rows.at(-1)!;
  assert.deepEqual([all.use, all.peakBytes, all.plainFineTuningBytes], ['all together', 42 * MIB, 4 * weights + 12 * MIB]);
  assert.equal(rows.find((r) => r.use === 'workspace')!.plainFineTuningBytes, null);
});

test('tables of layers, activations and encodings hold what was recorded', () => {
  const history = historyOf(4);
  const table = rowsOf(layersTable(layers, history, Float64Array.of(7, 8, 9), [1]));
  assert.deepEqual(table[0], { layer: 0, name: layers[0].name, kind: 'embedding', shape: '5×4', parameters: 20, activationRole: 'none (ids only)', updateMagnitude: 7, medianMagnitude: 0.5, timesTrained: 2, stepsSinceTrained: 0, frozenNext: false });
  assert.deepEqual([table[1].medianMagnitude, table[1].stepsSinceTrained, table[1].frozenNext, table[2].activationRole], [0.02, 2, true, 'quasi-static']);
  assert.deepEqual(rowsOf(activationsTable(history)), [
    { part: 'layer 0', layer: 'L0 MLP down', role: 'dynamic', encoding: 'q3.4', bytes: 2 * MIB, percent: 200 / 3 },
    { part: 'layer 0', layer: 'L0 attention', role: 'static', encoding: 'q0.8', bytes: MIB, percent: 100 / 3 },
  ]);
  assert.deepEqual(rowsOf(encodingErrorsTable(history)), [{ layer: 'L0 attention', keeps: 'probabilities', encoding: 'q0.8', clippedPercent: 25, lostToZeroPercent: 50, relativeErrorPercent: 12.5 }]);
});

test('the health table says why a layer always trains, never does, or never will again', () => {
  const why = (steps: number, change: (step: number) => Partial<StepRecord>) => Object.fromEntries(rowsOf(healthTable(historyOf(steps, 'x', change))).map((r) => [r.layer, [r.trains, r.why] as const]));
  const zero = why(6, (s) => ({ active: s === 0 ? [0, 1] : [1], learningRate: s === 0 ? 0 : 1e-3, updateMagnitudes: Float64Array.of(0, NaN, 1e10) }));
  assert.deepEqual(zero['word embeddings'], ['sometimes', 'it trained while the learning rate was 0 (step 0), so its magnitude is 0 and it stays frozen']);
  assert.deepEqual(zero['L0 MLP down'], ['always', 'its update magnitude is NaN: it holds a weight of exactly 0, so it always trains']);
  assert.deepEqual(zero['L0 MLP norm'], ['never', 'its turn has not come']);
  assert.equal(why(1, () => ({ active: [0] }))['L0 MLP norm'][1], 'the first sweep has not reached it yet');
  const user = why(4, () => ({ active: [1], overruled: [0, 1] }));
  assert.deepEqual([user['word embeddings'], user['L0 MLP down']], [['never', 'the user freezes it (freeze)'], ['always', 'the user trains it (thaw)']]);
  assert.equal(why(4, () => ({ active: [0, 1, 2] }))['L0 MLP norm'][1], 'nothing is frozen');
  assert.equal(why(4, () => ({ active: [1] }))['L0 MLP down'][1], 'the policy trained it in every step');
  // Under another policy than inter-layer scheduling a layer that has not trained has no magnitude, and one that always trains may have magnitude 0.
  const other = why(4, () => ({ active: [0], learningRate: 0, updateMagnitudes: Float64Array.of(0, NaN, NaN) }));
  assert.deepEqual([other['word embeddings'][1], other['L0 MLP norm'][1]], ['the policy trained it in every step', 'the policy has frozen it in every step']);
  assert.equal(why(9, () => ({}))['L0 MLP down'][1], '');
});

test('runs side by side: names apart, colours apart, means in the table', () => {
  const [a, b] = [historyOf(4), historyOf(2, 'slim', () => ({ loss: 3, activationBytes: 6 * MIB }))];
  const both = compare(a, { history: b });
  const rows = rowsOf(both.table());
  assert.deepEqual(rows[1], { run: 'slim (2)', steps: 2, finalLoss: 3, activationBytes: 6 * MIB, timesLessThanPlain: 2, devicePeakBytes: 41 * MIB, millisecondsPerStep: 50, accuracy: 0.75 });
  const loss = both.loss();
  assert.deepEqual(loss.data.map((t) => t.name), ['slim', 'slim (2)']);
  assert.equal(new Set(loss.data.map((t) => (t.line as { color: string }).color)).size, 2);
  assert.deepEqual(loss.data[1].y, [3, 3]);
  assert.deepEqual(both.activationMemory().data.map((t) => t.name), ['slim', 'slim (2)', 'plain fine-tuning']);
  assert.deepEqual(both.throughput().data[0].y, [20000, 20000, 20000, 20000]);
  assert.deepEqual(both.metric('accuracy').data.map((t) => [t.x, t.y]), [[[4], [0.75]], [[2], [0.75]]]);
  assert.deepEqual(both.timesTrained().data[0].x, [50, 25, 25]);
});

test('the error of the gradient is told of weights, and of all parameters together', () => {
  const figure = gradientErrorFigure(comparison);
  assert.deepEqual([figure.data[0].x, figure.data[0].y], [[50], ['classifier']]);
  const [row] = rowsOf(comparison.overall());
  assert.ok(Math.abs((row.relativeError as number) - Math.sqrt((1 + 0.0625) / 5)) < 1e-12);
  assert.ok(Math.abs((row.cosine as number) - (0.9 * 2 * 2.5 + 1) / Math.sqrt(5 * 7.25)) < 1e-12);
});

test('bytes are told in the largest unit that leaves one whole', () => {
  assert.deepEqual([0, 1023, 1024, 1020 * 1024, 1.5 * MIB, 3 * 2 ** 30, 2 ** 41].map(formatBytes), ['0 B', '1023 B', '1.0 KiB', '1020 KiB', '1.5 MiB', '3.0 GiB', '2.0 TiB']);
  assert.deepEqual(byteUnit(5 * MIB), { unit: 'MiB', size: MIB });
});

test('what an engine holds of the device is shown where it tells, and only there', () => {
  const memory = (step: number): Partial<StepRecord> => ({ memory: { ...record(step).memory, held: { buffers: 9, bytes: (80 - step) * MIB, idleBytes: MIB } } });
  const held = historyOf(3, 'webgpu', memory);
  assert.deepEqual(trace(deviceMemoryFigure(held), 'held by the engine').y, [80, 79, 78]);
  assert.deepEqual(rowsOf(deviceMemoryTable(held)).at(-1), { use: 'held by the engine', nowBytes: 78 * MIB, peakBytes: 80 * MIB, plainFineTuningBytes: null, timesLess: null });
  assert.deepEqual(rowsOf(held.steps()).map((r) => r.heldBytes), [80 * MIB, 79 * MIB, 78 * MIB]);
  const other = historyOf(3);
  assert.equal(trace(deviceMemoryFigure(other), 'held by the engine'), undefined);
  assert.equal(rowsOf(deviceMemoryTable(other)).at(-1)!.use, 'all together');
  assert.ok(!('heldBytes' in rowsOf(other.steps())[0]));
});
