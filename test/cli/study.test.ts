/** `slimfit study`. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { chosen, study as command } from '../../src/cli/study';
import { SlimFitError } from '../../src/errors';
import { study } from '../../src/training/study';
import type { StudyJob } from '../../src/training/studyDefinition';
import { cpuEngine } from '../models/fixtures';
import { TINY_SETTINGS, tinyTask } from '../training/studyTask';

const ROOT = path.resolve(__dirname, '../..');
const root = mkdtempSync(path.join(tmpdir(), 'slimfit-study-cli-'));
after(() => rmSync(root, { recursive: true, force: true }));

const words = (args: readonly string[]) => ['--import', 'tsx', path.join(ROOT, 'src/cli/main.ts'), 'study', ...args];
process.env.SLIMFIT_ENGINE = 'cpu';

/** Runs the command in this process. What it says of what went wrong stands in `err`. */
async function slimfit(...args: string[]) {
  const text = { stdout: '', stderr: '' };
  const written = (['stdout', 'stderr'] as const).map((name) => {
    const { write } = process[name];
    // The test runner's own messages, which are bytes, go on.
    process[name].write = ((chunk: string | Uint8Array) => (typeof chunk === 'string' ? ((text[name] += chunk), true) : write.call(process[name], chunk))) as typeof write;
    return () => (process[name].write = write);
  });
  const { warn } = console;
  console.warn = () => {};
  let code: number;
  try {
    code = await command(args);
  } catch (error) {
    if (!(error instanceof SlimFitError)) throw error;
    text.stderr += error.message;
    code = 1;
  } finally {
    for (const back of written) back();
    console.warn = warn;
  }
  return { code, out: text.stdout, err: text.stderr };
}

const TASK = ['--task', 'grammar', '--batch-size', '2', '--max-length', '8', '--max-train-samples', '4', '--max-eval-samples', '2', '--steps', '1'];
const grid = (folder: string, ...more: string[]) => ['init', folder, ...TASK, '--policies', 'none,ils,random:interval-steps=2', '--freeze-rates', '0.5', ...more];

test('a study is defined, done share by share, listed, and shown as table and figure', async () => {
  const folder = path.join(root, 'study');
  const made = await slimfit(...grid(folder, '--seeds', '1,2'));
  assert.equal(made.code, 0, made.err);
  assert.match(made.out, /6 runs of grammar/);
  assert.match((await slimfit('status', folder)).out, /^0 of 6 runs done, 0 running, 6 open\n$/);
  const one = await slimfit('run', folder, '--job', '2');
  assert.equal(one.code, 0, one.err);
  assert.match((await slimfit('list', folder)).out, /1 {2}open .*no freezing, seed 1\n2 {2}done .*ILS, freeze rate 0\.5, seed 1\n3 {2}open .*random layers \(intervalSteps 2\), freeze rate 0\.5, seed 1\n/);
  const partly = await slimfit('table', folder);
  assert.match(partly.out, /policy +freezeRate +runs +matthews.*\nILS +0\.5/);
  assert.match(partly.err, /5 of 6 runs are not done/);
  assert.equal((await slimfit('run', folder, '--job', '2/3')).code, 0);
  assert.match((await slimfit('status', folder)).out, /^2 of 6/);
  const rest = await slimfit('run', folder);
  assert.match(rest.out, /6 of 6 runs are done/, rest.err);
  const csv = (await slimfit('table', folder, '--runs', '--csv')).out.trim().split('\n');
  assert.equal(csv.length, 7);
  assert.match(csv[0], /^run,policy,freezeRate,seed,steps,matthews,accuracy,loss,activationBytes/);
  const drawn = await slimfit('figure', folder, '--metric', 'accuracy', '--memory', 'activations');
  assert.equal(drawn.code, 0, drawn.err);
  assert.match(readFileSync(path.join(folder, 'study.svg'), 'utf8'), /^<svg.*accuracy against activation memory/);
  assert.match(readFileSync(path.join(folder, 'study.html'), 'utf8'), /^<!doctype html>.*Plotly/s);
  assert.deepEqual(readdirSync(folder).sort(), ['runs', 'runs.arrow', 'study.html', 'study.json', 'study.svg']);
  // The grid may grow, the settings not.
  assert.equal((await slimfit(...grid(folder, '--seeds', '1,2,3'))).code, 0);
  assert.match((await slimfit('status', folder)).out, /^6 of 9/);
  const changed = await slimfit(...grid(folder, '--learning-rate', '1'));
  assert.equal(changed.code, 1);
  assert.match(changed.err, /task\.recipe\.learningRate: 0\.00005 → 1/);
  writeFileSync(path.join(folder, 'runs', readdirSync(path.join(folder, 'runs'))[0]), '');
  assert.match((await slimfit('status', folder)).out, /^5 of 9 runs done, 0 running, 3 open, 1 damaged/);
});

test('a study stopped by a signal ends with 130 and leaves no claim', async () => {
  const folder = path.join(root, 'stopped');
  assert.equal((await slimfit('init', folder, ...TASK.slice(0, -2), '--epochs', '5000', '--policies', 'none')).code, 0);
  const child = spawn(process.execPath, words(['run', folder]), { cwd: ROOT, stdio: ['ignore', 'ignore', 'pipe'] });
  let err = '';
  await new Promise<void>((resolve) => child.stderr.on('data', (d) => /step \d+ of/.test((err += String(d))) && resolve()));
  child.kill('SIGTERM');
  assert.equal(await new Promise((resolve) => child.on('exit', resolve)), 130);
  assert.match(err, /finished runs are kept/);
  assert.deepEqual(readdirSync(path.join(folder, 'runs')), []);
});

const refused: readonly [what: string, args: readonly string[], says: RegExp][] = [
  ['no policies', TASK, /--policies LIST is missing/],
  ['an unknown policy', [...TASK, '--policies', 'ilss'], /'ilss'/],
  ['an unknown option of a policy', [...TASK, '--policies', 'random:gamma=1'], /'gamma'/],
  ['no rate where one is needed', [...TASK, '--policies', 'ils'], /ils has a freeze rate/],
  ['a rate that is no number', [...TASK, '--policies', 'ils', '--freeze-rates', '0.5,x'], /--freeze-rates has 'x'/],
  ['an unknown mode', [...TASK, '--policies', 'none', '--modes', 'paper,fast'], /'fast'/],
  ['mode and modes', [...TASK, '--policies', 'none', '--modes', 'paper', '--mode', 'exact'], /not both/],
  ['one seed of `slimfit train`', [...TASK, '--policies', 'none', '--seed', '3'], /--seed is no option of a study/],
  ['a folder to write to', [...TASK, '--policies', 'none', '--out', 'x'], /--out is no option of a study/],
];
for (const [what, args, says] of refused)
  test(`${what}: refused, and nothing is written`, async () => {
    const folder = path.join(root, 'refused');
    const { code, err } = await slimfit('init', folder, ...args);
    assert.equal(code, 1);
    assert.match(err, says);
    assert.ok(!existsSync(folder));
  });

test('modes are variants of a study', async () => {
  const folder = path.join(root, 'modes');
  assert.equal((await slimfit('init', folder, ...TASK, '--policies', 'none', '--modes', 'exact,tuned', '--seeds', '4')).code, 0);
  assert.match((await slimfit('list', folder)).out, /no freezing, exact, seed 4\n2 .*no freezing, tuned, seed 4\n/);
});

test('a study of a function is left to the code that has the function; an unknown word or a missing folder is said', async () => {
  const folder = path.join(root, 'function');
  await study({ folder, task: tinyTask(), policies: ['none'], seeds: [1], trainer: TINY_SETTINGS, engine: await cpuEngine(), onProgress: () => {}, onNotice: () => {} });
  const { code, err } = await slimfit('run', folder);
  assert.equal(code, 1);
  assert.match(err, /is a function: go on with it where it was defined/);
  assert.match((await slimfit('table', folder)).out, /no freezing/);
  assert.match((await slimfit('walk', folder)).err, /no 'walk': it has init, run, list/);
  assert.match((await slimfit('run')).err, /name the study's folder/);
  assert.match((await slimfit('status', path.join(root, 'nowhere'))).err, /study\.json.*slimfit study init/);
  assert.equal((await slimfit('--help')).code, 0);
});

test('a job is one run of the list, or a share of it; shares have every run once', () => {
  const jobs = Array.from({ length: 7 }, (_, i) => ({ number: i + 1 }) as StudyJob);
  const numbers = (text?: string) => chosen(jobs, text).map((j) => j.number);
  assert.deepEqual(numbers('3'), [3]);
  assert.deepEqual(numbers('1/3'), [1, 4, 7]);
  assert.deepEqual([1, 2, 3].flatMap((i) => numbers(`${i}/3`)).sort(), numbers());
  assert.deepEqual(numbers('7/9'), [7]);
  assert.deepEqual(numbers('9/9'), []);
  for (const bad of ['0', '8', '0/3', '4/3', '1/0', 'x', '1.5', '-1', '']) assert.throws(() => chosen(jobs, bad), /--job is/);
});
