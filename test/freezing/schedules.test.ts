/** Policies whose choice depends on the step alone: random layers, block by block, FreezeOut, BitFit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidArgumentError } from '../../src/errors';
import { BitFit } from '../../src/freezing/bitFit';
import { BlockCyclic } from '../../src/freezing/blockCyclic';
import { groupsOf } from '../../src/freezing/blocks';
import { FreezeOut } from '../../src/freezing/freezeOut';
import { RandomLayers } from '../../src/freezing/randomLayers';
import { bertLayers, trainingParts } from './bertLayers';

const layers = bertLayers(3);
const refuses = (make: () => unknown, text: string) => assert.throws(make, (e: Error) => e instanceof InvalidArgumentError && e.message.includes(text), text);
const course = (policy: { select(step: number): readonly number[] }, steps: number) => Array.from({ length: steps }, (_, s) => trainingParts(layers, policy.select(s)));

test('layers fall into embeddings, blocks and head, in model order', () => {
  assert.deepEqual(groupsOf(layers, 'block').map((g) => [g.name, g.part, g.layers.length]), [['embeddings', 'embeddings', 4], ['layer 0', 'encoder', 8], ['layer 1', 'encoder', 8], ['layer 2', 'encoder', 8], ['head', 'head', 2]]);
  assert.deepEqual(groupsOf(layers, 'weight').map((g) => g.layers), layers.map((l) => [l.index]));
});

test('random layers: embeddings and head always train, and γ blocks that change every K steps only', () => {
  const parts = course(new RandomLayers(layers, { activatedLayers: 2, intervalSteps: 4, seed: 5 }), 400);
  for (const p of parts) assert.match(p, /^E(01|02|12)H$/);
  parts.forEach((p, s) => assert.equal(p, parts[s - (s % 4)], `step ${s}`));
  // Each of the three pairs is drawn in about a third of the 100 intervals: 5 standard deviations of a binomial are 24.
  for (const pair of ['E01H', 'E02H', 'E12H']) {
    const n = parts.filter((p, s) => s % 4 === 0 && p === pair).length;
    assert.ok(n > 9 && n < 57, `${pair}: ${n}`);
  }
});

test('random layers by weight: γ weights of the encoder, each as likely as another', () => {
  const policy = new RandomLayers(layers, { activatedLayers: 3, intervalSteps: 1, granularity: 'weight' });
  const times = new Map<number, number>();
  for (let s = 0; s < 800; s++) {
    const frozen = new Set(policy.select(s));
    const active = layers.filter((l) => !frozen.has(l.index));
    assert.equal(active.filter((l) => l.name.includes('encoder')).length, 3);
    assert.equal(active.length, 3 + 6);
    for (const l of active) times.set(l.index, (times.get(l.index) ?? 0) + 1);
  }
  // 24 weights, 800·3/24 = 100 each, standard deviation 9.4.
  for (const l of layers.filter((x) => x.name.includes('encoder'))) assert.ok(Math.abs(times.get(l.index)! - 100) < 47, `${l.name}: ${times.get(l.index)}`);
});

test('random layers: equal seeds draw the same, others not; a K longer than the run draws once; γ may be all blocks', () => {
  const draw = (seed: number) => course(new RandomLayers(layers, { activatedLayers: 1, intervalSteps: 1, seed }), 30);
  assert.deepEqual(draw(1), draw(1));
  assert.notDeepEqual(draw(1), draw(2));
  assert.equal(new Set(course(new RandomLayers(layers, { activatedLayers: 1, intervalSteps: 10 ** 9 }), 50)).size, 1);
  assert.deepEqual(new Set(course(new RandomLayers(layers, { activatedLayers: 3 }), 50)), new Set(['E012H']));
});

test('block by block, ascending and descending: each block K steps, then the next, then again from the start', () => {
  const ascending = new BlockCyclic(layers, { switchBlockEvery: 2, switchMode: 'ascending' });
  assert.deepEqual(course(ascending, 12), ['E', 'E', '0', '0', '1', '1', '2', '2', 'H', 'H', 'E', 'E']);
  const descending = new BlockCyclic(layers, { switchBlockEvery: 1, switchMode: 'descending' });
  assert.deepEqual(course(descending, 7), ['H', '2', '1', '0', 'E', 'H', '2']);
  assert.deepEqual(new Set(course(new BlockCyclic(layers, { switchBlockEvery: 100, switchMode: 'ascending' }), 60)), new Set(['E']), 'a run shorter than one turn');
});

test('block by block in random order: every round has every block once, rounds differ, and the seed decides', () => {
  const rounds = (seed: number) => {
    const parts = course(new BlockCyclic(layers, { switchBlockEvery: 1, seed }), 100);
    return Array.from({ length: 20 }, (_, r) => parts.slice(5 * r, 5 * r + 5).join(' '));
  };
  for (const r of rounds(7)) assert.equal(r.split(' ').sort().join(' '), '0 1 2 E H');
  assert.ok(new Set(rounds(7)).size > 10);
  assert.deepEqual(rounds(7), rounds(7));
  assert.notDeepEqual(rounds(7), rounds(8));
});

test('FreezeOut, linear: five blocks stop at t0, evenly on, the last never', () => {
  const policy = new FreezeOut(layers, { totalSteps: 100, t0: 0.2, schedule: 'linear' });
  // 0.2 + 0.8·i/4.
  assert.deepEqual(policy.stops, [20, 40, 60, 80, Infinity]);
  const at = (s: number) => trainingParts(layers, policy.select(s));
  assert.deepEqual([0, 19, 20, 39, 40, 60, 79, 80, 100, 500].map(at), ['E012H', 'E012H', '012H', '012H', '12H', '2H', '2H', 'H', 'H', 'H']);
});

test('FreezeOut, cubic: the same times cubed', () => {
  // (0.5, 0.625, 0.75, 0.875)³ = 0.125, 0.2441, 0.4219, 0.6699, to the nearest step.
  assert.deepEqual(new FreezeOut(layers, { totalSteps: 1000, t0: 0.5 }).stops, [125, 244, 422, 670, Infinity]);
});

test('FreezeOut at its ends: t0 of 1 freezes nothing, of 0 the first block at once; one layer always trains', () => {
  assert.deepEqual(new FreezeOut(layers, { totalSteps: 10, t0: 1 }).select(9), []);
  assert.equal(trainingParts(layers, new FreezeOut(layers, { totalSteps: 100, t0: 0 }).select(0)), '012H');
  assert.deepEqual(new FreezeOut(layers.slice(0, 1), { totalSteps: 1, t0: 0 }).select(0), []);
});

test('BitFit freezes every weight but the classifier, the pooler among them, and no bias', () => {
  const bitfit = new BitFit(layers);
  assert.deepEqual(layers.filter((l) => !bitfit.select().includes(l.index)).map((l) => l.name), ['classifier.weight']);
  assert.equal(bitfit.freezesBiases, false);
  assert.equal(new BitFit(layers, { head: 'freeze' }).select().length, layers.length);
});

test('the policies that freeze whole blocks freeze their biases', () => {
  for (const p of [new RandomLayers(layers), new BlockCyclic(layers), new FreezeOut(layers, { totalSteps: 9 })]) assert.equal(p.freezesBiases, true, p.name);
});

test('options that can never work are refused by their value', () => {
  refuses(() => new RandomLayers(layers, { activatedLayers: 4 }), 'activatedLayers is 4, but the model has 3 freezable encoder blocks');
  refuses(() => new RandomLayers(layers, { activatedLayers: 0 }), 'activatedLayers is 0');
  refuses(() => new RandomLayers(layers, { intervalSteps: 1.5 }), 'intervalSteps is 1.5');
  refuses(() => new RandomLayers(layers.slice(0, 1), { activatedLayers: 1 }), 'the model has 0');
  refuses(() => new RandomLayers(layers, { granularity: 'layer' as 'block' }), "granularity is 'layer'");
  refuses(() => new BlockCyclic(layers, { switchBlockEvery: 0 }), 'switchBlockEvery is 0');
  refuses(() => new BlockCyclic(layers, { switchMode: 'up' as 'random' }), "switchMode is 'up'");
  refuses(() => new FreezeOut(layers, { totalSteps: 0 }), 'totalSteps is 0');
  refuses(() => new FreezeOut(layers, { totalSteps: 10, t0: 1.2 }), 't0 is 1.2');
  refuses(() => new FreezeOut(layers, { totalSteps: 10, t0: NaN }), 't0 is NaN');
  refuses(() => new FreezeOut(layers, { totalSteps: 10, schedule: 'square' as 'cubic' }), "schedule is 'square'");
  refuses(() => new BitFit(layers, { head: 'both' as 'train' }), "head is 'both'");
});
