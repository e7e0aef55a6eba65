/** trainer_state.json, of which every part that a run goes on from is looked at before anything is put back. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { CheckpointError } from '../../src/errors';
import { readTrainerState } from '../../src/training/checkpoint';
import { checkpointAt, damageOf } from '../../src/training/checkpointFolder';

const tensor = ($tensor: string) => ({ $tensor });
const slimfit = { engine: 'cpu', settings: { seed: '1' }, overruled: [[0, true]], rateFactor: 0.5, lossScale: { scale: 1024, finiteSteps: 7 }, policy: {}, optimizer: [['a', { m: tensor('a.m'), v: { codes: tensor('a.c'), scales: tensor('a.s') }, step: 1, idle: 0 }]], best: null };

test('a trainer_state.json whose parts are of wrong types is refused by file and field', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-state-'));
  const write = (json: unknown) => writeFileSync(path.join(folder, 'trainer_state.json'), JSON.stringify(json));
  write({ global_step: 3, slimfit });
  assert.equal(readTrainerState(folder).global_step, 3);
  write({ global_step: 3, slimfit: { ...slimfit, rateFactor: undefined } });
  assert.equal(readTrainerState(folder).slimfit.rateFactor, undefined);
  const moments = (state: unknown) => ({ optimizer: [['a', state]] });
  const damaged: readonly [unknown, RegExp][] = [
    [null, /no JSON object/],
    [{ global_step: '3', slimfit }, /global_step is "3"/],
    [{ global_step: 3, slimfit: [] }, /lacks what SlimFit wrote/],
    ...([{ overruled: [5] }, { overruled: [[0, 1]] }, { rateFactor: 0 }, { rateFactor: 2 }, { rateFactor: '1' }, { lossScale: 1024 }, { lossScale: { scale: 1000, finiteSteps: 0 } }, { lossScale: { scale: 1024, finiteSteps: -1 } }, { policy: null }, { settings: { seed: 1 } }, { best: {} }, { optimizer: {} }, moments(null), moments({ m: 1, v: 1, step: 1, idle: 0 }), moments({ m: tensor('a'), v: { codes: tensor('a') }, step: 1, idle: 0 })] as const).map(
      (part): [unknown, RegExp] => [{ global_step: 3, slimfit: { ...slimfit, ...part } }, new RegExp(`slimfit.${Object.keys(part)[0]} is `)],
    ),
  ];
  for (const [json, says] of damaged) {
    write(json);
    assert.throws(() => readTrainerState(folder), (e: Error) => e instanceof CheckpointError && e.message.includes('trainer_state.json') && says.test(e.message), String(says));
  }
  rmSync(folder, { recursive: true });
});

test('the step of a folder of another name is that of a whole manifest, or none', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-copied-'));
  const head = { format: 'slimfit-checkpoint', version: 1, step: 7, run: 'r', sequence: 0, files: {} };
  const write = (json: unknown) => writeFileSync(path.join(folder, 'manifest.json'), JSON.stringify(json));
  write(head);
  assert.equal(checkpointAt(folder).step, 7);
  for (const part of [{ step: 'seven' }, { step: -1 }, { files: [] }, { sequence: 1e300 }]) {
    write({ ...head, ...part });
    assert.deepEqual(checkpointAt(folder), { folder, step: NaN, manifest: undefined });
  }
  write({ ...head, files: { 'manifest.json': null } });
  assert.match((await damageOf(checkpointAt(folder), []))!, /says of manifest.json null/);
  rmSync(folder, { recursive: true });
});
