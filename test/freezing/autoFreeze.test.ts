import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidArgumentError } from '../../src/errors';
import { AutoFreeze, percentileOf } from '../../src/freezing/autoFreeze';
import { bertLayers, trainingParts } from './bertLayers';

const layers = bertLayers(4);
/** One step whose gradients have these norms in blocks 0 … 3, all in the block's query; a block that does not train has none. */
function step(policy: AutoFreeze, at: number, norms: readonly (number | undefined)[]): string {
  const query = (b: number) => layers.find((l) => l.name.includes(`layer.${b}.attention.self.query`))!.index;
  policy.observe(at, new Map(), { gradientNorms: new Map(norms.flatMap((g, b) => (g === undefined ? [] : [[query(b), g] as const]))) });
  return trainingParts(layers, policy.select());
}

test('percentiles are NumPy’s', () => {
  // numpy.percentile([3, 1, 2, 10], [0, 25, 50, 90, 100]) = 1, 1.75, 2.5, 7.9, 10
  assert.deepEqual([0, 25, 50, 90, 100].map((p) => Number(percentileOf([3, 1, 2, 10], p).toFixed(12))), [1, 1.75, 2.5, 7.9, 10]);
  assert.equal(percentileOf([4], 50), 4);
  assert.equal(percentileOf([1, Infinity], 0), 1);
});

test('from the front, blocks whose gradients changed less than the median are frozen, and the embeddings with them', () => {
  const policy = new AutoFreeze(layers, { evaluateEvery: 1 });
  assert.equal(trainingParts(layers, policy.select()), 'E0123H');
  assert.equal(step(policy, 0, [10, 10, 10, 10]), 'E0123H', 'the first interval has none before it');
  // η = 0.1, 0.2, 0.3, 0.4: median 0.25, so 0 and 1 are below it.
  assert.equal(step(policy, 1, [9, 8, 7, 6]), '23H');
  // Of those left, η = |7 − 7.7|/7 = 0.1 and |6 − 3|/6 = 0.5: median 0.3.
  assert.equal(step(policy, 2, [undefined, undefined, 7.7, 3]), '3H');
  // One block is its own median: it stays.
  assert.equal(step(policy, 3, [undefined, undefined, undefined, 3]), '3H');
});

test('the first block that still changes ends the frozen front, however little those behind it change', () => {
  const policy = new AutoFreeze(layers, { evaluateEvery: 1 });
  step(policy, 0, [10, 10, 10, 10]);
  assert.equal(step(policy, 1, [5, 10, 10, 10]), 'E0123H');
  const other = new AutoFreeze(layers, { evaluateEvery: 1, percentile: 100 });
  step(other, 0, [10, 10, 10, 10]);
  assert.equal(step(other, 1, [9, 5, 10, 10]), '123H', 'below the largest change');
});

test('norms are those of whole blocks over whole intervals: the root of the mean square over the steps', () => {
  const policy = new AutoFreeze(layers, { evaluateEvery: 2 });
  step(policy, 0, [3, 1, 1, 1]);
  step(policy, 1, [5, 7, 1, 1]);
  // √17, 5, 1, 1. Next √(8.5 + 8.5) = √17 (η 0), 5 (η 0), then 2 (η 1) and 3 (η 2): median 0.5.
  const even = Math.sqrt(17);
  assert.equal(step(policy, 2, [even, 5, 2, 3]), 'E0123H', 'in the middle of an interval');
  assert.equal(step(policy, 3, [even, 5, 2, 3]), '23H');
  const [a, b] = layers.filter((l) => l.name.includes('layer.0.'));
  const joint = new AutoFreeze(layers, { evaluateEvery: 1 });
  const rest = layers.filter((l) => /layer\.[123]\.attention\.self\.query/.test(l.name)).map((l) => l.index);
  const observe = (first: number, second: number, others: number) => joint.observe(0, new Map(), { gradientNorms: new Map([[a.index, first], [b.index, second], ...rest.map((i) => [i, others] as const)]) });
  observe(3, 4, 1);
  observe(5, 0, 2);
  assert.equal(trainingParts(layers, joint.select()), '123H', '3 and 4 are as much as 5');
});

test('percentile 0 freezes nothing, an interval longer than the run neither', () => {
  for (const policy of [new AutoFreeze(layers, { evaluateEvery: 1, percentile: 0 }), new AutoFreeze(layers, { evaluateEvery: 100 })])
    for (let s = 0; s < 20; s++) assert.equal(step(policy, s, [1 + s, 2, 3, 4 - s / 10]), 'E0123H');
});

test('a restored policy goes on as the first would have, also from the middle of an interval', () => {
  const norms = (s: number) => [0, 1, 2, 3].map((b) => 2 + (Math.sin(s) * (b + 1)) / 8);
  const first = new AutoFreeze(layers, { evaluateEvery: 3 });
  for (let s = 0; s < 7; s++) step(first, s, norms(s));
  const second = new AutoFreeze(layers, { evaluateEvery: 3 });
  second.restore(JSON.parse(JSON.stringify(first.state())));
  for (let s = 7; s < 30; s++) assert.equal(step(second, s, norms(s)), step(first, s, norms(s)));
  assert.deepEqual(second.state(), first.state());
  assert.notEqual(trainingParts(layers, first.select()), 'E0123H', 'something was frozen at all');
});

test('what can never work is refused', () => {
  for (const options of [{ evaluateEvery: 0 }, { evaluateEvery: 2.5 }, { evaluateEvery: 1, percentile: 101 }, { evaluateEvery: 1, percentile: NaN }])
    assert.throws(() => new AutoFreeze(layers, options), InvalidArgumentError);
  const policy = new AutoFreeze(layers, { evaluateEvery: 1 });
  step(policy, 0, [1, 1, 1, 1]);
  const before = policy.state();
  assert.throws(() => policy.restore({ magnitudes: [] }), InvalidArgumentError);
  assert.throws(() => policy.restore({ ...before, magnitudes: ['1'] }), InvalidArgumentError);
  assert.deepEqual(policy.state(), before);
});
