/** Files of a study: whole or not at all, claims held by one process. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { FileMissingError, StudyChangedError, StudyFileError } from '../../src/errors';
import { recipes } from '../../src/training/recipes';
import type { StudyDefinition } from '../../src/training/studyDefinition';
import { Claim, isClaimed, readDefinition, readResult, readResults, STALE_MS, type StudyResult, writeDefinition, writeResult } from '../../src/training/studyFolder';

const root = mkdtempSync(path.join(tmpdir(), 'slimfit-study-'));
after(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;
function fresh(): string {
  const folder = path.join(root, `s${folders++}`);
  mkdirSync(path.join(folder, 'runs'), { recursive: true });
  return folder;
}

const RESULT: StudyResult = {
  format: 'slimfit-study-run', version: 1, id: 'a1', policy: 'ILS', variant: '', freezeRate: 0.5, seed: 3, steps: 4, loss: 0.25, metrics: { zeta: 0.5, accuracy: NaN },
  activationBytes: 100.5, fullActivationBytes: NaN, peakBytes: 200, secondsPerStep: 0.1, frozenShare: 0.5, seconds: 1, engine: 'cpu', device: 'none', finished: '2026-01-01T00:00:00.000Z',
};
/** Without what JSON lacks. */
const WHOLE = { ...RESULT, fullActivationBytes: 300, metrics: { f1: 1 } };
const definition: StudyDefinition = { task: { recipe: recipes.glue.cola }, policies: ['none'], seeds: [1], trainer: { learningRate: 0.001 } };

test('a result comes back as it was written, numbers that JSON lacks and the order of its metrics too, and leaves no other file', () => {
  const folder = fresh();
  writeResult(folder, RESULT);
  assert.deepEqual(readResult(folder, 'a1'), { result: RESULT });
  assert.deepEqual(Object.keys(readResult(folder, 'a1').result!.metrics), ['zeta', 'accuracy']);
  assert.deepEqual(readdirSync(path.join(folder, 'runs')), ['a1.json']);
  assert.deepEqual(readResult(folder, 'b2'), {});
});

test('a damaged result is no result, and is told by its file and what is wrong', () => {
  const folder = fresh();
  const file = path.join(folder, 'runs/a1.json');
  const job = { id: 'a1', number: 1, policy: 'ILS', variant: '', freezeRate: 0.5, seed: 3, entry: { policy: 'ils' as const }, settings: {} };
  const damaged: readonly [string, RegExp][] = [
    ['', /JSON/],
    [JSON.stringify(WHOLE).slice(0, 80), /JSON/],
    ['null', /no result of a run/],
    ['[]', /no result of a run/],
    [JSON.stringify({ ...WHOLE, version: 2 }), /no result of a run of version 1/],
    [JSON.stringify({ ...WHOLE, id: 'c3' }), /another run, c3/],
    [JSON.stringify({ ...WHOLE, loss: 'low' }), /loss is "low"/],
    [JSON.stringify({ ...WHOLE, peakBytes: undefined }), /peakBytes is undefined/],
    [JSON.stringify({ ...WHOLE, metrics: { f1: null } }), /f1 is null/],
  ];
  for (const [text, says] of damaged) {
    writeFileSync(file, text);
    const told: string[] = [];
    assert.equal(readResults(folder, [job], (t) => told.push(t)).size, 0, text);
    assert.equal(told.length, 1);
    assert.ok(told[0].includes(file) && says.test(told[0]), told[0]);
  }
});

test('the grid of a definition may change, what all runs share may not', () => {
  const folder = fresh();
  writeDefinition(folder, definition);
  assert.deepEqual(readDefinition(folder), JSON.parse(JSON.stringify(definition)));
  writeDefinition(folder, { ...definition, policies: ['none', 'ils'], freezeRates: [0.5], seeds: [1, 2], variants: { a: {} } });
  assert.deepEqual(readDefinition(folder).seeds, [1, 2]);
  const before = readFileSync(path.join(folder, 'study.json'), 'utf8');
  for (const [change, says] of [
    [{ trainer: { learningRate: 0.002 } }, ['trainer.learningRate: 0.001 → 0.002']],
    [{ steps: 9 }, ['steps: nothing → 9']],
    [{ task: { recipe: { ...recipes.glue.cola, maxLength: 64 } } }, ['task.recipe.maxLength: 128 → 64']],
  ] as const)
    assert.throws(() => writeDefinition(folder, { ...definition, ...change }), (e: Error) => e instanceof StudyChangedError && e.message.includes(says[0]) && assert.deepEqual(e.changes, says) === undefined);
  assert.equal(readFileSync(path.join(folder, 'study.json'), 'utf8'), before);
});

test('a definition that is not there or damaged is a typed error', () => {
  const folder = fresh();
  assert.throws(() => readDefinition(folder), FileMissingError);
  for (const text of ['{', '{}', 'null', '{"format":"slimfit-study","version":2}']) {
    writeFileSync(path.join(folder, 'study.json'), text);
    assert.throws(() => readDefinition(folder), StudyFileError, text);
    assert.throws(() => writeDefinition(folder, definition), StudyFileError);
  }
});

const claimFile = (folder: string) => path.join(folder, 'runs/a1.claim');

test('a run is claimed once until it is given back', () => {
  const folder = fresh();
  assert.equal(isClaimed(folder, 'a1'), false);
  const claim = Claim.take(folder, 'a1')!;
  assert.ok(isClaimed(folder, 'a1') && !isClaimed(folder, 'b2'));
  assert.equal(Claim.take(folder, 'a1'), undefined);
  claim.release();
  assert.equal(isClaimed(folder, 'a1'), false);
  Claim.take(folder, 'a1')!.release();
  assert.deepEqual(readdirSync(path.join(folder, 'runs')), []);
});

test('the claim of a process that is gone is taken over, that of a running one is not, nor that of another machine', () => {
  const folder = fresh();
  Claim.take(folder, 'a1');
  const own = JSON.parse(readFileSync(claimFile(folder), 'utf8')) as { place: string };
  assert.ok(own.place.startsWith(hostname()));
  const gone = spawnSync(process.execPath, ['-e', '']).pid;
  writeFileSync(claimFile(folder), JSON.stringify({ token: 'x', place: own.place, pid: process.ppid }));
  assert.equal(Claim.take(folder, 'a1'), undefined, 'running');
  writeFileSync(claimFile(folder), JSON.stringify({ token: 'x', place: 'elsewhere', pid: gone }));
  assert.equal(Claim.take(folder, 'a1'), undefined, 'another machine');
  writeFileSync(claimFile(folder), JSON.stringify({ token: 'x', place: own.place, pid: gone }));
  const claim = Claim.take(folder, 'a1');
  assert.ok(claim);
  assert.equal(Claim.take(folder, 'a1'), undefined);
  claim.release();
  assert.ok(!existsSync(claimFile(folder)));
});

test('a claim without a sign of life for long is taken over, and its first holder does not give back what is another’s', () => {
  const folder = fresh();
  const first = Claim.take(folder, 'a1')!;
  const age = (ms: number) => utimesSync(claimFile(folder), new Date(Date.now() - ms), new Date(Date.now() - ms));
  age(STALE_MS - 60_000);
  assert.equal(Claim.take(folder, 'a1'), undefined);
  age(STALE_MS + 60_000);
  const second = Claim.take(folder, 'a1');
  assert.ok(second);
  first.release();
  assert.ok(isClaimed(folder, 'a1'));
  second.release();
  assert.ok(!isClaimed(folder, 'a1'));
});

test('an empty claim, just being made by another process, is held; once old it is not', () => {
  const folder = fresh();
  writeFileSync(claimFile(folder), '');
  assert.equal(Claim.take(folder, 'a1'), undefined);
  utimesSync(claimFile(folder), 0, 0);
  assert.ok(Claim.take(folder, 'a1'));
});

test('of several that see a stale claim one takes it over; a take-over that was cut short does not block for ever', () => {
  const folder = fresh();
  writeFileSync(claimFile(folder), '');
  utimesSync(claimFile(folder), 0, 0);
  writeFileSync(`${claimFile(folder)}.takeover`, '');
  assert.equal(Claim.take(folder, 'a1'), undefined, 'another one takes it over');
  utimesSync(`${claimFile(folder)}.takeover`, 0, 0);
  assert.equal(Claim.take(folder, 'a1'), undefined, 'clears it');
  assert.ok(Claim.take(folder, 'a1'));
});

test('a definition whose parts are of wrong types, or nested without end, is refused by file and field', () => {
  const folder = fresh();
  const file = path.join(folder, 'study.json');
  writeDefinition(folder, definition);
  const good = JSON.parse(readFileSync(file, 'utf8')) as object;
  const deep = '@';
  for (const part of [{ task: null }, { task: {} }, { policies: 'none' }, { policies: [5] }, { policies: [{ policy: 'ils', freezeRates: ['0.5'] }] }, { seeds: ['1'] }, { seeds: undefined }, { variants: { a: null } }, { trainer: [] }, { trainer: { a: deep } }, { steps: '5' }]) {
    writeFileSync(file, JSON.stringify({ ...good, ...part }).replace('"@"', `${'['.repeat(50_000)}${']'.repeat(50_000)}`));
    assert.throws(() => readDefinition(folder), (e: Error) => e instanceof StudyFileError && e.message.includes(file) && e.message.includes(`'${Object.keys(part)[0]}'`), JSON.stringify(part));
  }
});

test('a result of which texts, metrics or rate are of another type is damaged', () => {
  const folder = fresh();
  for (const part of [{ policy: 5 }, { finished: null }, { metrics: undefined }, { metrics: ['a'] }, { freezeRate: 'high' }, { id: { toString: 1 } }]) {
    writeFileSync(path.join(folder, 'runs/a1.json'), JSON.stringify({ ...WHOLE, ...part }));
    const { result, damage } = readResult(folder, 'a1');
    assert.equal(result, undefined, JSON.stringify(part));
    assert.match(damage!, new RegExp(Object.keys(part)[0] === 'id' ? 'another run' : Object.keys(part)[0]));
  }
});
