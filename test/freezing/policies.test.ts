/** Policies by name. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidArgumentError } from '../../src/errors';
import { AutoFreeze } from '../../src/freezing/autoFreeze';
import { BitFit } from '../../src/freezing/bitFit';
import { BlockCyclic } from '../../src/freezing/blockCyclic';
import { CkaFreezing } from '../../src/freezing/ckaFreezing';
import { FreezeOut } from '../../src/freezing/freezeOut';
import { InterLayerScheduling } from '../../src/freezing/ils';
import { KnapsackFreezing } from '../../src/freezing/knapsackFreezing';
import { MemoryBudget } from '../../src/freezing/memoryBudget';
import { NoFreezing } from '../../src/freezing/none';
import { parsePolicyOptions, POLICIES, POLICY_NAMES, policyOf, type PolicyName } from '../../src/freezing/policies';
import { RandomLayers } from '../../src/freezing/randomLayers';
import { bertLayers, trainingParts } from './bertLayers';

const layers = bertLayers(4);
const run = { totalSteps: 200, stepsPerEpoch: 50, seed: 7 };
const keeps = (trained: ReadonlySet<number>) => 1000 + 10 * trained.size;
const frozenBy = (name: PolicyName, options: object = {}, step = 0) => policyOf(name, options as never)(layers, run).select(step, keeps);

const CLASSES = { ils: InterLayerScheduling, none: NoFreezing, random: RandomLayers, 'block-cyclic': BlockCyclic, 'freeze-out': FreezeOut, 'auto-freeze': AutoFreeze, bitfit: BitFit, cka: CkaFreezing, 'memory-budget': MemoryBudget, knapsack: KnapsackFreezing } as const;

for (const name of POLICY_NAMES)
  test(`'${name}' is the policy ${CLASSES[name].name}, and has the options that it lists`, () => {
    const rate = POLICIES[name].hasRate ? { freezeRate: 0.5 } : {};
    const policy = policyOf(name, rate as never)(layers, run);
    assert.ok(policy instanceof CLASSES[name]);
    const examples: Readonly<Record<string, number>> = { freezeRate: 0.5, budgetBytes: 1e6, t0: 0.5, percentile: 20, threshold: 0.1, examples: 4, activatedLayers: 1 };
    for (const [option, kind] of Object.entries(POLICIES[name].options)) {
      const needed = option === 'budgetBytes' || option === 'activatedLayers' ? {} : rate;
      assert.doesNotThrow(() => policyOf(name, { ...needed, [option]: typeof kind === 'object' ? kind[0] : (examples[option] ?? 5) } as never)(layers, run).select(0, keeps), option);
    }
  });

test('length and seed come from the run where they are not given', () => {
  assert.deepEqual(frozenBy('ils', { freezeRate: 0.9 }), new InterLayerScheduling(layers, { freezeRate: 0.9, seed: 7 }).select());
  assert.deepEqual(frozenBy('ils'), frozenBy('ils', { freezeRate: 0.9, seed: 7 }), 'the trainer’s rate by default');
  assert.notDeepEqual(frozenBy('ils', { seed: 8 }), frozenBy('ils'));
  assert.deepEqual((policyOf('freeze-out')(layers, run) as FreezeOut).stops, new FreezeOut(layers, { totalSteps: 200 }).stops);
  assert.match(policyOf('auto-freeze')(layers, run).label!, /every 20 steps/);
  const scaled = policyOf('ils')(layers, { ...run, initialScale: 2 });
  assert.ok(Math.max(...scaled.magnitudes) < 2);
});

test('a freeze rate of random layers is the share of the encoder’s blocks that rests', () => {
  for (const [freezeRate, trains] of [[0, 4], [0.5, 2], [0.6, 2], [0.75, 1], [0.99, 1]] as const) {
    const parts = trainingParts(layers, frozenBy('random', { freezeRate }));
    assert.equal(parts.replace(/[EH]/g, '').length, trains, `${freezeRate}: ${parts}`);
    assert.match(parts, /^E.*H$/);
  }
  // 8 weights a block.
  const frozen = frozenBy('random', { freezeRate: 0.75, granularity: 'weight' });
  assert.equal(frozen.length, 24);
});

test('a freeze rate of a budget is the share that is saved of the bytes that training adds', () => {
  const n = layers.length;
  // Every layer costs 10 bytes: floor(0.25·n) of them fit in a quarter of 10·n.
  for (const name of ['memory-budget', 'knapsack'] as const) {
    assert.equal(n - frozenBy(name, { freezeRate: 0.75 }).length, Math.floor(0.25 * n), name);
    assert.equal(frozenBy(name, { freezeRate: 0 }).length, 0);
    assert.equal(n - frozenBy(name, { freezeRate: 0.999 }).length, 0);
    assert.equal(n - frozenBy(name, { budgetBytes: 1055 }).length, 5);
  }
  assert.match(policyOf('memory-budget', { freezeRate: 0.9 })(layers, run).label!, /^largest magnitudes in 10 % of training's bytes$/);
});

const refused: readonly [what: string, name: string, options: object, says: RegExp][] = [
  ['a name that does not exist', 'ilss', {}, /'ilss'.*ils, none, random/],
  ['a name of every object', 'constructor', {}, /'constructor'/],
  ['an option that it does not have', 'random', { gamma: 2 }, /random has no option 'gamma'.*activatedLayers/],
  ['a freeze rate where there is none', 'bitfit', { freezeRate: 0.5 }, /bitfit has no freeze rate/],
  ['a number that is a text', 'random', { intervalSteps: '5' }, /intervalSteps.*"5".*a number/],
  ['a word that it does not know', 'freeze-out', { schedule: 'cosine' }, /schedule.*cosine.*linear, cubic/],
  ['rate and count together', 'random', { freezeRate: 0.5, activatedLayers: 2 }, /freezeRate 0.5 and activatedLayers 2/],
  ['rate and budget together', 'knapsack', { freezeRate: 0.5, budgetBytes: 2 }, /freezeRate 0.5 and budgetBytes 2/],
];
for (const [what, name, options, says] of refused)
  test(`${what} is refused before a run begins`, () => {
    assert.throws(() => policyOf(name as PolicyName, options as never), (e: Error) => e instanceof InvalidArgumentError && says.test(e.message));
  });

test('a budget without bytes and without rate is refused when the policy is made', () => {
  for (const name of ['memory-budget', 'knapsack'] as const) assert.throws(() => policyOf(name)(layers, run), /`budgetBytes` or by `freezeRate`/);
  assert.throws(() => policyOf('memory-budget', { freezeRate: 1 })(layers, run), /freezeRate is 1/);
});

test('options are read from texts, under both forms of their names, bytes with units', () => {
  assert.deepEqual(parsePolicyOptions('random', ['interval-steps=10', 'granularity=weight']), { intervalSteps: 10, granularity: 'weight' });
  assert.deepEqual(parsePolicyOptions('knapsack', ['budgetBytes=2MiB', 'seed=3']), { budgetBytes: 2 * 2 ** 20, seed: 3 });
  assert.throws(() => parsePolicyOptions('random', ['intervalSteps']), /name=value/);
  assert.throws(() => parsePolicyOptions('random', ['intervalSteps=']), /intervalSteps.*a number/);
  assert.throws(() => parsePolicyOptions('random', ['__proto__=1']), InvalidArgumentError);
});
