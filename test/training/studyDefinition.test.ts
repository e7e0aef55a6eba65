/** The grid of a study, and what makes two runs the same. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runInNewContext } from 'node:vm';
import { InvalidArgumentError } from '../../src/errors';
import { BitFit } from '../../src/freezing/bitFit';
import { describeJob, differences, hasFunctions, plainForm, type StudyDefinition, studyJobs, type StudyPolicy } from '../../src/training/studyDefinition';
import { recipes } from '../../src/training/recipes';

const recipe = { recipe: recipes.glue.cola };
const base: StudyDefinition = { task: recipe, policies: ['none', 'ils', 'bitfit', { policy: 'random', freezeRates: [0.25] }], freezeRates: [0.5, 0.9], seeds: [1, 2], trainer: { totalSteps: 10 } };
const ids = (d: StudyDefinition) => studyJobs(d).map((j) => j.id);

test('every policy has a run for each of its rates and each seed; one without a rate has one a seed', () => {
  const jobs = studyJobs(base);
  assert.deepEqual(
    jobs.map(describeJob),
    [1, 2].flatMap((s) => ['no freezing', 'ILS, freeze rate 0.5', 'ILS, freeze rate 0.9', 'BitFit', 'random layers, freeze rate 0.25'].map((t) => `${t}, seed ${s}`)),
  );
  assert.deepEqual(jobs.map((j) => j.number), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assert.equal(new Set(ids(base)).size, 10);
});

test('variants multiply the grid, and their settings come before those of the policy, these before those of the study', () => {
  const jobs = studyJobs({ ...base, policies: ['bitfit', { policy: 'none', label: 'plain', trainer: { mode: 'exact', batchSize: 3 } }], seeds: [1], trainer: { mode: 'paper', learningRate: 1 }, variants: { a: {}, b: { mode: 'tuned' } } });
  assert.deepEqual(jobs.map((j) => [j.policy, j.variant, j.settings.mode, j.settings.batchSize, j.settings.learningRate]), [
    ['BitFit', 'a', 'paper', undefined, 1],
    ['BitFit', 'b', 'tuned', undefined, 1],
    ['plain', 'a', 'exact', 3, 1],
    ['plain', 'b', 'tuned', 3, 1],
  ]);
});

test('a run’s id is a function of all that decides its result, and of nothing else', () => {
  const [id] = ids(base);
  assert.match(id, /^[0-9a-f]{16}$/);
  assert.equal(ids({ ...base, policies: ['ils', 'none'] }).at(2 * 1), id, 'not of the rest of the grid');
  assert.equal(ids({ ...base, trainer: {}, variants: { x: { totalSteps: 10 } } })[0], id, 'not of where a setting stands');
  assert.equal(ids({ ...base, task: { options: undefined, ...recipe } })[0], id, 'not of the order of keys');
  assert.equal(ids({ ...base, policies: [{ policy: 'none', label: 'another name' }] })[0], id, 'not of a label');
  const others: Partial<StudyDefinition>[] = [
    { seeds: [3] },
    { steps: 5 },
    { trainer: { totalSteps: 11 } },
    { trainer: { totalSteps: 10, mode: 'exact' } },
    { task: { recipe: { ...recipes.glue.cola, learningRate: 1 } } },
    { task: { ...recipe, options: { maxTrainSamples: 9 } } },
    { policies: [{ policy: 'bitfit' }] },
    { policies: [{ policy: 'bitfit', options: { head: 'freeze' } }] },
    { policies: ['ils'] },
  ];
  const found = others.map((o) => ids({ ...base, ...o })[0]);
  assert.equal(new Set([id, ...found]).size, others.length + 1);
});

test('functions count by their text', () => {
  const parts = { model: null!, train: null!, evaluation: null!, metrics: null! };
  const of = (prepare: () => never, policy?: StudyPolicy) => ids({ ...base, task: { name: 't', prepare }, policies: [policy ?? 'none'] })[0];
  const one = of(() => parts as never);
  assert.equal(of(() => parts as never), one);
  assert.notEqual(of(() => ({ ...parts }) as never), one);
  const own = (label: string): StudyPolicy => ({ label, policy: (layers) => new BitFit(layers) });
  assert.notEqual(of(() => parts as never, own('a')), of(() => parts as never, own('b')));
  assert.ok(hasFunctions(plainForm({ a: [{ prepare: () => 1 }] })) && !hasFunctions(plainForm({ a: [{ function: 'x' }] })));
});

const refused: readonly [what: string, changes: Partial<StudyDefinition>, says: RegExp][] = [
  ['no policy', { policies: [] }, /at least one policy/],
  ['no seed', { seeds: [] }, /one seed/],
  ['half a seed', { seeds: [0.5] }, /0\.5/],
  ['a seed twice', { seeds: [1, 1] }, /the same: no freezing, seed 1, and no freezing, seed 1/],
  ['a rate twice', { freezeRates: [0.5, 0.5] }, /the same/],
  ['variants that do not differ', { variants: { a: {}, b: {} } }, /the same: no freezing, a, seed 1, and no freezing, b, seed 1/],
  ['a rate of 1', { freezeRates: [1] }, /freezeRate is 1/],
  ['no rate for a policy that has one', { freezeRates: undefined }, /ils has a freeze rate/],
  ['rates of a policy without', { policies: [{ policy: 'none', freezeRates: [0.5] }] }, /none has no freeze rate/],
  ['a rate among the options', { policies: [{ policy: 'ils', options: { freezeRate: 0.5 } }] }, /belongs into freezeRates/],
  ['an unknown policy', { policies: ['ilss' as 'ils'] }, /'ilss'/],
  ['an unknown option', { policies: [{ policy: 'random', options: { gamma: 1 } as object }] }, /'gamma'/],
  ['two policies of one label', { policies: [{ policy: 'freeze-out', options: { t0: 0.1 } }, { policy: 'freeze-out', options: { t0: 0.2 } }] }, /'FreezeOut': give each a label/],
  ['no rate in a policy of one’s own', { policies: [{ label: 'mine', policy: () => { throw new Error(); }, freezeRates: [] }] }, /needs a run/],
  ['no step', { steps: 0 }, /steps is 0/],
  ['settings that are no plain data', { trainer: { optimizer: new Map() as object } }, /definition\.trainer\.optimizer of a study is a Map/],
];
for (const [what, changes, says] of refused)
  test(`${what}: refused`, () => {
    assert.throws(() => studyJobs({ ...base, ...changes }), (e: Error) => e instanceof InvalidArgumentError && says.test(e.message));
  });

test('a budget in bytes needs no rate', () => {
  assert.deepEqual(studyJobs({ ...base, freezeRates: undefined, seeds: [1], policies: [{ policy: 'memory-budget', options: { budgetBytes: 1e6 } }] }).map((j) => j.freezeRate), [undefined]);
});

test('differences are named by their path, objects of another realm are plain data too', () => {
  assert.deepEqual(differences({ a: { b: 1, c: [1, 2] } }, { a: { b: 2, c: [1, 2] }, d: 'x' }), ['a.b: 1 → 2', 'd: nothing → "x"']);
  assert.deepEqual(differences(plainForm({ f: () => 1 }), plainForm({ f: () => 2 })), ['the text of f']);
  assert.deepEqual(plainForm(runInNewContext('({ b: [NaN, 1], a: undefined })')), { b: ['NaN', 1] });
});
