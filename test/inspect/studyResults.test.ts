/** Tables and figure of a study, against means and standard deviations computed by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromArrow } from 'arquero';
import { InvalidArgumentError } from '../../src/errors';
import { SERIES_COLOURS } from '../../src/inspect/palette';
import { studyFigure } from '../../src/inspect/studyFigure';
import { progressLines, StudyProgressView } from '../../src/inspect/studyProgress';
import { spreadOf, StudyResults, studyRunsTable, studyTable } from '../../src/inspect/studyResults';
import type { KernelApi } from '../../src/inspect/kernelApi';
import { recipes } from '../../src/training/recipes';
import type { StudyProgress } from '../../src/training/study';
import { type StudyDefinition, studyJobs } from '../../src/training/studyDefinition';
import type { StudyResult } from '../../src/training/studyFolder';

const MIB = 2 ** 20;
const definition: StudyDefinition = { task: { recipe: recipes.glue.cola }, policies: ['bitfit', 'ils'], freezeRates: [0.9, 0.5], seeds: [1, 2, 3] };
/** By policy and rate: accuracies, peak in MiB and kept MiB of seeds 1, 2, 3. */
const FOUND: Readonly<Record<string, { accuracy: number[]; peak: number[]; kept: number[] }>> = {
  'BitFit ': { accuracy: [0.5, 0.6, 0.7], peak: [10, 10, 10], kept: [1, 1, 1] },
  'ILS 0.9': { accuracy: [0.8, 0.8, 0.8], peak: [20, 22, 24], kept: [4, 5, 6] },
  'ILS 0.5': { accuracy: [0.9, 0.84, 0.96], peak: [30, 30, 33], kept: [8, 8, 8] },
};
function results(seeds = definition.seeds, changes: Partial<StudyDefinition> = {}, without: readonly string[] = []): StudyResults {
  const jobs = studyJobs({ ...definition, ...changes, seeds });
  const found = new Map<string, StudyResult>();
  for (const job of jobs) {
    const point = `${job.policy} ${job.freezeRate ?? ''}`;
    const { accuracy, peak, kept } = FOUND[point];
    const i = job.seed - 1;
    if (!without.includes(`${point} ${job.seed}`))
      found.set(job.id, {
        format: 'slimfit-study-run', version: 1, id: job.id, policy: job.policy, variant: job.variant, freezeRate: job.freezeRate ?? null, seed: job.seed, steps: 10, loss: 1 - accuracy[i], metrics: { accuracy: accuracy[i] },
        activationBytes: kept[i] * MIB, fullActivationBytes: 40 * MIB, peakBytes: peak[i] * MIB, secondsPerStep: 0.25, frozenShare: 0.5, seconds: 3, engine: 'cpu', device: 'none', finished: '2026-01-01T00:00:00.000Z',
      });
  }
  return new StudyResults('nowhere', jobs, found);
}
const near = (actual: unknown, expected: number) => assert.ok(Math.abs((actual as number) - expected) < 1e-12, `${String(actual)} is not ${expected}`);

test('mean and standard deviation are those of a sample', () => {
  // (0.9, 0.84, 0.96): mean 0.9, squares 0 + 0.0036 + 0.0036 = 0.0072, over 2: 0.0036.
  const { n, mean, sd } = spreadOf([0.9, 0.84, 0.96]);
  assert.equal(n, 3);
  near(mean, 0.9);
  near(sd, 0.06);
  assert.deepEqual(spreadOf([2]), { n: 1, mean: 2, sd: NaN });
});

test('the table has a row for each point of the grid: number of runs, means, standard deviations, MiB', () => {
  const rows = studyTable(results()).objects() as Record<string, number | string | null>[];
  assert.deepEqual(Object.keys(rows[0]), ['policy', 'freezeRate', 'runs', 'accuracy', 'accuracySd', 'activationMiB', 'peakMiB', 'timesLessThanPlain', 'frozenShare', 'secondsPerStep']);
  assert.deepEqual(rows.map((r) => [r.policy, r.freezeRate, r.runs]), [['BitFit', null, 3], ['ILS', 0.9, 3], ['ILS', 0.5, 3]]);
  [0.6, 0.8, 0.9].forEach((m, i) => near(rows[i].accuracy, m));
  [0.1, 0, 0.06].forEach((m, i) => near(rows[i].accuracySd, m));
  [10, 22, 31].forEach((m, i) => near(rows[i].peakMiB, m));
  [1, 5, 8].forEach((m, i) => near(rows[i].activationMiB, m));
  // (40/4 + 40/5 + 40/6)/3
  near(rows[1].timesLessThanPlain, (10 + 8 + 20 / 3) / 3);
});

test('what is not done is left out and counted below the table; of one seed there is no standard deviation', () => {
  const partly = results([1, 2], {}, ['ILS 0.5 1', 'ILS 0.5 2', 'ILS 0.9 2']);
  const rows = studyTable(partly).objects() as Record<string, unknown>[];
  assert.deepEqual(rows.map((r) => [r.policy, r.runs, r.accuracySd === null]), [['BitFit', 2, false], ['ILS', 1, true]]);
  assert.equal(partly.missing.length, 3);
  const shown = (partly as unknown as Record<symbol, () => Record<string, string>>)[Symbol.for('Jupyter.display')]();
  for (const text of Object.values(shown)) assert.match(text, /3 of 6 runs are not done/);
  assert.doesNotMatch(Object.values((results() as unknown as Record<symbol, () => Record<string, string>>)[Symbol.for('Jupyter.display')]()).join(), /not done/);
});

test('variants have a column of their own, where there are any', () => {
  const rows = studyTable(results([1, 2], { variants: { paper: {}, tuned: { mode: 'tuned' } } })).objects() as Record<string, unknown>[];
  assert.deepEqual(rows.map((r) => [r.policy, r.variant]), [['BitFit', 'paper'], ['BitFit', 'tuned'], ['ILS', 'paper'], ['ILS', 'tuned'], ['ILS', 'paper'], ['ILS', 'tuned']]);
});

test('every run is a row of the table of runs, and survives Arrow, missing rates too', () => {
  for (const changes of [{}, { policies: ['bitfit'] }] as Partial<StudyDefinition>[]) {
    const all = studyRunsTable(results([1, 2, 3], changes));
    assert.equal(all.numRows(), changes.policies ? 3 : 9);
    assert.deepEqual(fromArrow(all.toArrowIPC({ format: 'file' })).objects(), all.objects());
  }
  const [first, second] = studyRunsTable(results()).objects() as Record<string, unknown>[];
  assert.deepEqual([first.policy, first.freezeRate, first.seed, first.accuracy, first.peakBytes, second.freezeRate], ['BitFit', null, 1, 0.5, 10 * MIB, 0.9]);
});

interface Drawn {
  readonly name: string;
  readonly x: number[];
  readonly y: number[];
  readonly text: string[];
  readonly hovertext: string[];
  readonly error_x: { readonly array: number[] };
  readonly error_y: { readonly array: number[] };
  readonly marker: { readonly color: string; readonly symbol: string };
  readonly line: { readonly dash: string };
}

test('the figure has a point for each policy and rate, at its means, with bars of one standard deviation, its rate beside it', () => {
  const figure = studyFigure(results());
  const [bitfit, ils] = figure.data as unknown as Drawn[];
  assert.deepEqual([bitfit.name, ils.name], ['BitFit', 'ILS']);
  // By rate, so that the line runs through them.
  assert.deepEqual([ils.text, bitfit.text], [['0.5', '0.9'], ['']]);
  [31, 22].forEach((v, i) => near(ils.x[i], v));
  [0.9, 0.8].forEach((v, i) => near(ils.y[i], v));
  [Math.sqrt(3), 2].forEach((v, i) => near(ils.error_x.array[i], v));
  [0.06, 0].forEach((v, i) => near(ils.error_y.array[i], v));
  assert.equal(ils.hovertext[0], '<b>ILS</b><br>freeze rate 0.5<br>3 seeds, mean ± sd<br>accuracy 0.9000 ± 0.0600<br>peak memory 31.00 ± 1.73 MiB');
  assert.match(bitfit.hovertext[0], /no freeze rate.*0\.6000 ± 0\.1000/);
  assert.match(JSON.stringify(figure.layout), /MiB at the peak of a step.*accuracy \(mean ± sd, 3 seeds\)/);
});

test('memory may be what is kept for backward, the metric any that the task gives, or the loss', () => {
  const ils = studyFigure(results(), { memory: 'activations', metric: 'loss' }).data[1] as unknown as Drawn;
  [8, 5].forEach((v, i) => near(ils.x[i], v));
  [0.1, 0.2].forEach((v, i) => near(ils.y[i], v));
  assert.throws(() => studyFigure(results(), { metric: 'f1' }), (e: Error) => e instanceof InvalidArgumentError && /'f1'.*accuracy, loss/.test(e.message));
  assert.throws(() => studyFigure(results(), { memory: 'disk' as 'peak' }), /'disk'/);
  assert.throws(() => studyFigure(results([1], {}, ['BitFit  1', 'ILS 0.5 1', 'ILS 0.9 1'])), /no run of the study is done/);
});

test('no two policies share colour and marker; variants of one policy share its colour and differ in line and filling', () => {
  const entries = Array.from({ length: 12 }, (_, i) => ({ policy: 'bitfit' as const, label: `p${i}`, trainer: { batchSize: i + 1 } }));
  const jobs = studyJobs({ ...definition, policies: entries, variants: { a: {}, b: { mode: 'tuned' } }, seeds: [1] });
  const base = results().runs[0].result;
  const drawn = studyFigure(new StudyResults('', jobs, new Map(jobs.map((j) => [j.id, base])))).data as unknown as Drawn[];
  assert.equal(drawn.length, 24);
  assert.equal(new Set(drawn.map((t) => `${t.marker.color} ${t.marker.symbol}`)).size, 24);
  const [a, b] = drawn;
  assert.deepEqual([a.name, b.name, a.marker.color], ['p0, a', 'p0, b', b.marker.color]);
  assert.deepEqual([b.marker.symbol, a.line.dash, b.line.dash], [`${a.marker.symbol}-open`, 'solid', 'dash']);
  assert.ok(drawn.every((t) => SERIES_COLOURS.includes(t.marker.color)));
});

test('a policy keeps its colour while runs come in', () => {
  const colour = (r: StudyResults) => (studyFigure(r).data as unknown as Drawn[]).find((t) => t.name === 'ILS')!.marker;
  assert.deepEqual(colour(results([1], {}, ['BitFit  1'])), colour(results([1])));
});

test('the static picture has the markers, bars as long as the deviations, and the rates; all inside the frame', () => {
  const svg = studyFigure(results()).toSvg();
  const [, ils] = SERIES_COLOURS;
  const bars = [...svg.matchAll(new RegExp(`<path d="M([\\d.]+) ([\\d.]+)([HV])([\\d.]+)[^"]*" stroke="${ils}"`, 'g'))].map(([, x, y, way, to]) => ({ x: +x, y: +y, way, to: +to }));
  const across = bars.filter((b) => b.way === 'H');
  const up = bars.filter((b) => b.way === 'V');
  assert.deepEqual([across.length, up.length], [2, 1], 'no bar of length 0');
  // The bars of rate 0.5 and 0.9 are 2·√3 and 2·2 MiB long.
  assert.ok(Math.abs((across[0].to - across[0].x) / (across[1].to - across[1].x) - Math.sqrt(3) / 2) < 0.01);
  assert.ok(Math.abs(up[0].x - (across[0].x + across[0].to) / 2) < 0.2, 'they cross in the point');
  for (const b of [...across, ...up]) assert.ok(b.x > 64 && b.x < 736 && b.y > 64 && b.y < 372);
  assert.match(svg, />0\.5<\/text>/);
  assert.match(svg, />0\.9<\/text>/);
  // Square of ILS at its points and in the legend, circle of BitFit likewise.
  assert.equal([...svg.matchAll(new RegExp(`<polygon points="[^"]+" fill="${ils}"`, 'g'))].length, 3);
  assert.equal([...svg.matchAll(new RegExp(`<circle [^>]+fill="${SERIES_COLOURS[0]}"`, 'g'))].length, 2);
});

const progress = (more: Partial<StudyProgress> = {}): StudyProgress => ({ run: studyJobs(definition)[1], done: 3, total: 9, step: 20, steps: 60, stepsPerSecond: 2.5, secondsLeft: 75, state: 'running', ...more });

test('progress says how many runs, which one, how fast and how long still', () => {
  assert.deepEqual(progressLines(progress(), 8), ['3 of 9 runs', 'ILS, freeze rate 0.9, seed 1: step 20 of 60', '2.5 steps/s, 1:15 left']);
  assert.deepEqual(progressLines(progress({ state: 'done', done: 9, stepsPerSecond: 0.5 }), 65), ['9 of 9 runs', '', '2.0 s a step, done in 1:05']);
});

test('in a notebook progress is one output that is redrawn at most four times a second, and at the end; elsewhere lines of text', () => {
  const shown: { data: Record<string, unknown>; options: { displayId?: string; update?: boolean } }[] = [];
  const kernel = { display: (data: Record<string, unknown>, options: object) => void shown.push({ data, options }) } as unknown as KernelApi;
  let now = 0;
  const view = new StudyProgressView(kernel, undefined, () => now);
  for (; now < 1000; now += 50) view.update(progress());
  view.update(progress({ state: 'done', done: 9 }));
  assert.equal(shown.length, 5);
  assert.deepEqual(shown.map((s) => s.options.update), [false, true, true, true, true]);
  assert.equal(new Set(shown.map((s) => s.options.displayId)).size, 1);
  // (3 + 20/60)/9 of the way.
  assert.match(String(shown[0].data['text/html']), /width:37\.0%/);
  assert.match(String(shown[4].data['text/html']), /width:100\.0%/);
  let log = '';
  const lines = new StudyProgressView(undefined, { isTTY: false, write: (t) => (log += t) }, () => now);
  for (; now < 11_000; now += 1000) lines.update(progress());
  assert.equal(log.trim().split('\n').length, 2);
});
