/** Studies: what a run finds, going on after a stop, several processes on one folder. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { fromArrow } from 'arquero';
import { embeddedModel } from '../../src/data/embedded/embedded';
import { InterruptedError, InvalidArgumentError, StudyChangedError, StudyRunError } from '../../src/errors';
import { InterLayerScheduling } from '../../src/freezing/ils';
import { TrackingPolicy } from '../../src/freezing/tracking';
import { studyRunsTable } from '../../src/inspect/studyResults';
import { recipes } from '../../src/training/recipes';
import { loadStudy, study, type StudyOptions, type StudyProgress } from '../../src/training/study';
import { SlimFitTrainer } from '../../src/training/trainer';
import { cpuEngine, tinyConfig, tinyModel } from '../models/fixtures';
import { TINY_SETTINGS, tinyData, tinyTask } from './studyTask';

const root = mkdtempSync(path.join(tmpdir(), 'slimfit-study-'));
after(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;

/** A study of the tiny task in a fresh folder; a line a begun run in `log`. */
async function tiny(changes: Partial<StudyOptions> = {}) {
  const folder = path.join(root, `s${folders++}`);
  const log = `${folder}.log`;
  const engine = await cpuEngine();
  const notices: string[] = [];
  const options: StudyOptions = { folder, task: tinyTask(log), policies: ['none', 'ils'], freezeRates: [0.5], seeds: [1, 2], trainer: TINY_SETTINGS, engine, onProgress: () => {}, onNotice: (t) => notices.push(t), ...changes };
  const begun = () => (existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n').length : 0);
  const files = () => readdirSync(path.join(folder, 'runs')).sort();
  return { folder, log, engine, notices, options, begun, files };
}

test('a run finds what a trainer of its settings finds: mean of the bytes kept, largest peak, median of the time, the evaluation', async () => {
  const { options, engine, folder, files } = await tiny({ policies: ['ils'], seeds: [5], onNotice: undefined });
  // Somebody else's tensor on the same engine does not count.
  const others = engine.upload(new Float32Array(1000), [1000], 'weights');
  const results = await study(options);
  engine.free(others);
  assert.equal(engine.memory().tensors, 0, 'tensors left');
  const [{ result }] = results.runs;
  const own = await cpuEngine();
  const model = tinyModel(own, tinyConfig(), 5);
  const trainer = new SlimFitTrainer({ model, train: tinyData(), evaluation: tinyData(2), ...TINY_SETTINGS, freezeRate: 0.5, seed: 5, measureEncodingsEvery: 0, onWarning: () => {} });
  const records = [];
  for await (const r of trainer.steps()) records.push(r);
  const { loss } = await trainer.evaluate();
  assert.equal(result.loss, loss);
  assert.equal(result.steps, 6);
  assert.equal(result.activationBytes, Math.round(records.reduce((s, r) => s + r.activationBytes, 0) / 6));
  assert.equal(result.fullActivationBytes, Math.round(records.reduce((s, r) => s + r.fullActivations!.total, 0) / 6));
  assert.equal(result.peakBytes, Math.max(...records.map((r) => r.memory.totalPeak)));
  assert.equal(result.frozenShare, new InterLayerScheduling(trainer.freezableLayers, { freezeRate: 0.5, seed: 5 }).frozenCount / trainer.freezableLayers.length);
  assert.ok(result.secondsPerStep > 0 && result.secondsPerStep * 3 < result.seconds);
  assert.deepEqual([result.engine, result.seed, result.freezeRate, result.policy, result.variant], ['cpu', 5, 0.5, 'ILS', '']);
  assert.deepEqual(files(), [`${result.id}.json`]);
  assert.deepEqual(loadStudy(folder).runs.map((r) => r.result), [result]);
  trainer.dispose();
  model.dispose();
  assert.equal(own.memory().tensors, 0);
});

test('a study that is done is not done again; more seeds do only what is new; a run that is repeated finds the same', async () => {
  const { options, engine, begun, files, folder, notices } = await tiny();
  const first = await study(options);
  assert.equal(begun(), 4);
  await study(options);
  assert.equal(begun(), 4);
  const more = await study({ ...options, seeds: [2, 3] });
  assert.equal(begun(), 6);
  assert.deepEqual(more.runs.map((r) => r.job.seed), [2, 2, 3, 3], 'results outside the grid are kept, but not shown');
  assert.equal(files().length, 6);
  const { id } = first.runs[1].result;
  writeFileSync(path.join(folder, 'runs', `${id}.json`), '{"format":');
  const again = await study(options);
  assert.equal(begun(), 7);
  assert.equal(notices.filter((n) => n.includes(id) && n.includes('damaged')).length, 1, notices.join('\n'));
  const of = (r: (typeof first.runs)[number]) => [r.result.loss, r.result.metrics, r.result.activationBytes, r.result.peakBytes];
  assert.deepEqual(again.runs.map(of), first.runs.map(of));
  assert.deepEqual(files().filter((f) => !f.endsWith('.json')), []);
  assert.equal(engine.memory().tensors, 0);
});

test('an abort stops at a step boundary: finished runs stay, nothing is claimed, and the next call goes on with the others', async () => {
  const stop = new AbortController();
  const { options, engine, begun, files } = await tiny({ signal: stop.signal, onProgress: (p) => p.done === 1 && p.step === 3 && stop.abort() });
  const states: string[] = [];
  await assert.rejects(study({ ...options, onProgress: (p) => (states.push(p.state), options.onProgress!(p)) }), InterruptedError);
  assert.equal(states.at(-1), 'interrupted');
  assert.equal(begun(), 2);
  assert.equal(files().length, 1);
  assert.equal(engine.memory().tensors, 0);
  const results = await study({ ...options, signal: undefined, onProgress: () => {} });
  assert.equal(begun(), 5, 'the interrupted run once more, the finished one not');
  assert.equal(results.missing.length, 0);
  assert.equal(engine.memory().tensors, 0);
  const aborted = await tiny({ signal: stop.signal });
  await assert.rejects(study(aborted.options), InterruptedError);
  assert.equal(aborted.begun(), 0);
});

test('what another process has done since the study began is not done again', async () => {
  const other = await tiny();
  await study(other.options);
  const { options, begun, folder } = await tiny();
  const results = await study({
    ...options,
    onProgress({ run, step }) {
      if (run!.number === 1 && step === 1) for (const f of other.files()) if (f !== `${run!.id}.json`) copyFileSync(path.join(other.folder, 'runs', f), path.join(folder, 'runs', f));
    },
  });
  assert.equal(begun(), 1);
  assert.equal(results.runs.length, 4);
  assert.equal(fromArrow(readFileSync(path.join(folder, 'runs.arrow'))).numRows(), 4);
});

test('progress tells every step of every run, the rate, the time left, and the end', async () => {
  const seen: StudyProgress[] = [];
  const { options } = await tiny({ onProgress: (p) => seen.push({ ...p }) });
  await study(options);
  const steps = seen.filter((p) => p.step > 0 && p.state === 'running');
  assert.deepEqual(steps.map((p) => [p.run!.number, p.step]), [1, 2, 3, 4].flatMap((n) => [1, 2, 3, 4, 5, 6].map((s) => [n, s])));
  assert.ok(steps.every((p) => p.steps === 6 && p.total === 4 && p.stepsPerSecond > 0 && p.secondsLeft >= 0));
  assert.ok(steps[0].secondsLeft > 0);
  const { state, done, secondsLeft } = seen.at(-1)!;
  assert.deepEqual([state, done, secondsLeft], ['done', 4, 0]);
});

test('another task, other settings or steps in the same folder are refused, and nothing is run', async () => {
  const { options, begun } = await tiny({ seeds: [1] });
  await study(options);
  const before = begun();
  const other = tinyTask();
  for (const changes of [{ trainer: { ...TINY_SETTINGS, learningRate: 0.02 } }, { steps: 3 }, { task: { ...options.task, settings: { length: 6 } } }, { task: { ...other, prepare: (run: Parameters<typeof other.prepare>[0]) => other.prepare(run) } }] as Partial<StudyOptions>[])
    await assert.rejects(study({ ...options, ...changes }), StudyChangedError);
  await assert.rejects(study({ ...options, policies: [] }), InvalidArgumentError);
  assert.equal(begun(), before);
});

test('a run that fails is named, the others are done, nothing is left, and the next call tries it again', async () => {
  let bad = true;
  const { options, engine, begun, files } = await tiny({ seeds: [1] });
  const failing = { label: 'mine', policy: (layers: ConstructorParameters<typeof InterLayerScheduling>[0]) => {
    if (bad) throw new InvalidArgumentError('no such luck');
    return new InterLayerScheduling(layers, { freezeRate: 0.5, seed: 1 });
  } };
  const run = () => study({ ...options, policies: [failing, 'none'] });
  await assert.rejects(run(), (e: Error) => e instanceof StudyRunError && /mine, seed 1.*no such luck/.test(e.message) && e.cause instanceof InvalidArgumentError && e.failures.length === 1);
  assert.deepEqual([begun(), files().length, engine.memory().tensors], [2, 1, 0]);
  bad = false;
  assert.equal((await run()).missing.length, 0);
  assert.equal(begun(), 3);
  const empty = tinyTask();
  await assert.rejects(study({ ...options, folder: `${options.folder}-none`, task: { ...empty, prepare: async (r) => ({ ...(await empty.prepare(r)), evaluation: undefined! }) }, policies: ['none'] }), /data to evaluate/);
  assert.equal(engine.memory().tensors, 0);
});

test('a policy of one’s own is told the rate of the grid; settings of a policy and of a variant reach the trainer', async () => {
  const told: (number | undefined)[] = [];
  class Share extends TrackingPolicy {
    readonly name = 'share';
    constructor(layers: ConstructorParameters<typeof InterLayerScheduling>[0], private readonly rate: number) {
      super(layers);
    }
    select() {
      return this.layers.slice(0, Math.floor(this.rate * this.layers.length)).map((l) => l.index);
    }
  }
  const { options, engine } = await tiny({ seeds: [1] });
  const results = await study({
    ...options,
    policies: [{ label: 'share', policy: (layers, { freezeRate }) => (told.push(freezeRate), new Share(layers, freezeRate!)), freezeRates: [0, 0.5] }, { policy: 'none', label: 'plain', trainer: { mode: 'exact' } }],
    variants: { paper: {}, short: { totalSteps: 2 } },
  });
  assert.deepEqual(told, [0, 0, 0.5, 0.5]);
  assert.deepEqual(results.runs.map((r) => [r.job.policy, r.job.variant, r.result.frozenShare, r.result.steps]), [['share', 'paper', 0, 6], ['share', 'short', 0, 2], ['share', 'paper', 0.5, 6], ['share', 'short', 0.5, 2], ['plain', 'paper', 0, 6], ['plain', 'short', 0, 2]].map((r) => (r[2] === 0.5 ? [r[0], r[1], Math.floor(0.5 * 22) / 22, r[3]] : r)));
  const plain = results.runs.at(-1)!.result;
  assert.equal(plain.activationBytes, plain.fullActivationBytes, 'plain fine-tuning keeps what plain fine-tuning keeps');
  assert.equal(engine.memory().tensors, 0);
});

test('a recipe is a task, with the model that SlimFit brings along; all runs stand in an Arrow file', async () => {
  const folder = path.join(root, 'recipe');
  const engine = await cpuEngine();
  const task = { recipe: { ...recipes.glue.cola, name: 'grammar', task: 'grammar', batchSize: 2, maxLength: 8 }, options: { model: 'slimfit:bert-grammar', maxTrainSamples: 4, maxEvalSamples: 2 } };
  const results = await study({ folder, task, policies: ['ils', 'none'], freezeRates: [0.9], seeds: [3], steps: 1, trainer: { dropout: false }, engine, onProgress: () => {}, onNotice: () => {} });
  assert.deepEqual(results.metrics, ['matthews', 'accuracy']);
  assert.deepEqual(results.runs.map((r) => [r.result.steps, r.result.seed]), [[1, 3], [1, 3]]);
  assert.ok(!readFileSync(path.join(folder, 'study.json'), 'utf8').includes(embeddedModel()), 'no path of this machine');
  assert.deepEqual(fromArrow(readFileSync(path.join(folder, 'runs.arrow'))).objects(), studyRunsTable(results).objects());
  assert.equal(engine.memory().tensors, 0);
});

const child = (folder: string, log: string, seeds: string, steps: number) =>
  spawn(process.execPath, ['--import', 'tsx', path.join(__dirname, 'studyChild.ts'), folder, log, seeds, String(steps)], { cwd: path.resolve(__dirname, '../..'), stdio: ['ignore', 'pipe', 'inherit'] });
const ended = (p: ChildProcess) => new Promise<number | null>((resolve) => p.on('exit', resolve));
const lines = (file: string) => (existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : []);

test('two processes on one folder do every run, and none twice', async () => {
  const folder = path.join(root, 'shared');
  const log = `${folder}.log`;
  const seeds = '1,2,3,4,5,6,7,8';
  assert.deepEqual(await Promise.all([child(folder, log, seeds, 40), child(folder, log, seeds, 40)].map(ended)), [0, 0]);
  const begun = lines(log).map((l) => l.split(' '));
  assert.deepEqual(begun.map(([seed]) => seed).sort(), seeds.split(','));
  assert.equal(new Set(begun.map(([, pid]) => pid)).size, 2, 'both worked');
  assert.equal(loadStudy(folder).missing.length, 0);
  assert.deepEqual(readdirSync(path.join(folder, 'runs')).filter((f) => !f.endsWith('.json')), []);
});

test('a process that is killed in the middle of a run leaves what was finished, and the next one goes on with that run', async () => {
  const folder = path.join(root, 'killed');
  const log = `${folder}.log`;
  const victim = child(folder, log, '1,2,3', 60);
  const gone = ended(victim);
  while (lines(log).length < 2) await new Promise((resolve) => setTimeout(resolve, 20));
  victim.kill('SIGKILL');
  await gone;
  const finished = loadStudy(folder).runs.map((r) => r.result);
  assert.deepEqual(finished.map((r) => r.seed), [1]);
  assert.equal(readdirSync(path.join(folder, 'runs')).filter((f) => f.endsWith('.claim')).length, 1);
  assert.equal(await ended(child(folder, log, '1,2,3', 60)), 0);
  assert.deepEqual(lines(log).map((l) => l.split(' ')[0]), ['1', '2', '2', '3']);
  assert.deepEqual(loadStudy(folder).runs[0].result, finished[0], 'the finished run was not touched');
  assert.deepEqual(loadStudy(folder).missing, []);
});
