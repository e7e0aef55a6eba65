/** Policies that keep to a budget of activation bytes: by magnitude, and by knapsack. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { InvalidArgumentError } from '../../src/errors';
import { KnapsackFreezing, trainingCosts } from '../../src/freezing/knapsackFreezing';
import { MemoryBudget } from '../../src/freezing/memoryBudget';
import type { KeptBytes } from '../../src/freezing/policy';
import { bertActivationBytes } from '../../src/memory/activationBytes';
import { tinyConfig } from '../models/fixtures';
import { bertLayers, frozenSets } from './bertLayers';

const layers = bertLayers(1);
const config = tinyConfig({ num_hidden_layers: 1 });
/** What BERT keeps on 2 sequences of 6 tokens, by the formula that the trainer uses. */
const bertKeeps =
  (mode: 'paper' | 'exact' = 'paper'): KeptBytes =>
  (trained) => {
    const names = new Set(layers.filter((l) => trained.has(l.index)).map((l) => l.name));
    return bertActivationBytes({ config, batchSize: 2, length: 6, mode, trains: (n) => names.has(n) }).total;
  };
const keeps = bertKeeps();
const least = keeps(new Set());
const most = keeps(new Set(layers.keys()));
const indexOf = (part: string) => layers.find((l) => l.name.includes(part))!.index;
const [query, key, value, up, down] = ['query', 'key', 'value', 'intermediate.dense', '0.output.dense'].map(indexOf);
const trainedOf = (frozen: readonly number[]) => layers.map((l) => l.index).filter((i) => !frozen.includes(i));
/** 4NH, what an input of N = 12 tokens and H = 16 takes. */
const INPUT = 4 * 12 * 16;

test('the layers of largest magnitude train that fit; one that does not fit is passed over for the next', () => {
  const magnitudes = layers.map((l) => 1 / (2 + l.index));
  magnitudes[up] = 30;
  magnitudes[down] = 20;
  magnitudes[query] = 10;
  // Up costs 768 bytes, down NF = 384 codes; query does not fit any more, and no other input does.
  const policy = new MemoryBudget(layers, { budgetBytes: least + INPUT + 384 + 100, initialMagnitudes: magnitudes });
  const trained = trainedOf(policy.select(0, keeps));
  assert.ok(trained.includes(up) && trained.includes(down) && !trained.includes(query));
  assert.ok(['word_embeddings', 'position_embeddings', 'token_type'].every((t) => trained.includes(indexOf(t))), 'a table costs nothing');
  assert.ok(keeps(new Set(trained)) <= least + INPUT + 484);
});

test('key and value come for nothing beside the query', () => {
  const magnitudes = layers.map(() => 1);
  magnitudes[query] = 5;
  const policy = new MemoryBudget(layers, { budgetBytes: least + INPUT, initialMagnitudes: magnitudes });
  const trained = trainedOf(policy.select(0, keeps));
  assert.ok([query, key, value].every((i) => trained.includes(i)));
});

for (const [name, make] of [
  ['by magnitude', (budgetBytes: number) => new MemoryBudget(layers, { budgetBytes, seed: 3 })],
  ['by knapsack', (budgetBytes: number) => new KnapsackFreezing(layers, { budgetBytes, seed: 3 })],
] as const) {
  test(`${name}: a step never keeps more than the budget, and what is left over holds no layer more`, () => {
    for (const mode of ['paper', 'exact'] as const) {
      const bytes = bertKeeps(mode);
      const [low, high] = [bytes(new Set()), bytes(new Set(layers.keys()))];
      fc.assert(
        fc.property(fc.double({ min: 0, max: 1, noNaN: true }), (share) => {
          const budget = low + share * (high - low);
          const policy = make(budget);
          for (const frozen of frozenSets(policy, layers, 0, 4, bytes)) {
            const trained = trainedOf(frozen);
            assert.ok(bytes(new Set(trained)) <= budget);
            // Both leave out only what does not fit as things stand, at the least where a layer has a value.
            if (name === 'by magnitude') for (const f of frozen) assert.ok(bytes(new Set([...trained, f])) > budget, layers[f].name);
          }
        }),
        { numRuns: 25 },
      );
    }
  });

  test(`${name}: with room for all nothing is frozen; with room for none only what costs nothing trains, and biases`, () => {
    assert.deepEqual(make(most).select(0, keeps), []);
    const trained = trainedOf(make(least).select(0, keeps));
    assert.deepEqual(trained.map((i) => layers[i].name), layers.filter((l) => /(word|position|token_type)_embeddings|classifier/.test(l.name)).map((l) => l.name));
  });

  test(`${name}: a budget that a step without training layers exceeds is refused, naming the smallest that can be met`, () => {
    assert.throws(() => make(least - 1).select(0, keeps), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(`budgetBytes is ${least - 1}`) && e.message.endsWith(`is ${least}`));
    for (const budget of [0, -5, NaN, Infinity]) assert.throws(() => make(budget), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(`budgetBytes is ${budget}`));
    assert.throws(() => make(least).select(0), (e: Error) => e instanceof InvalidArgumentError && /predictActivations.*shape/.test(e.message));
  });

  test(`${name}: every layer that fits alone trains in its turn`, () => {
    // Room for one input at a time.
    const policy = make(least + INPUT);
    const trained = new Set(frozenSets(policy, layers, 0, 30, keeps).flatMap(trainedOf));
    assert.deepEqual(layers.filter((l) => !trained.has(l.index)).map((l) => l.name), []);
  });

  test(`${name}: a restored policy goes on as the first would have; the seed decides the first steps`, () => {
    const budget = least + 2 * INPUT;
    const first = make(budget);
    frozenSets(first, layers, 0, 5, keeps);
    const second = make(budget);
    second.restore(JSON.parse(JSON.stringify(first.state())));
    assert.deepEqual(frozenSets(second, layers, 5, 20, keeps), frozenSets(first, layers, 5, 20, keeps));
    assert.deepEqual(second.magnitudes, first.magnitudes);
    assert.throws(() => second.restore({ magnitudes: ['1'] }), InvalidArgumentError);
  });
}

test('what each layer costs is found from the bytes of a step alone, query, key and value as one', () => {
  const { groups, free } = trainingCosts(layers.length, keeps, () => 1);
  assert.deepEqual(free.map((i) => layers[i].name), ['bert.embeddings.word_embeddings.weight', 'bert.embeddings.position_embeddings.weight', 'bert.embeddings.token_type_embeddings.weight', 'classifier.weight']);
  const norm = INPUT - (8 * Math.floor(0.1 * 12 * 16) + 4 * 12);
  assert.deepEqual(
    groups.map((g) => [g.entry, g.items.map((i) => [i.id, i.cost])]),
    [
      [0, [[indexOf('embeddings.LayerNorm'), norm]]],
      [INPUT, [[query, 0], [key, 0], [value, 0]]],
      [0, [[indexOf('attention.output.dense'), INPUT]]],
      [0, [[indexOf('attention.output.LayerNorm'), norm]]],
      [0, [[up, INPUT]]],
      // 8-bit codes, F = 32.
      [0, [[down, 12 * 32]]],
      [0, [[indexOf('0.output.LayerNorm'), norm]]],
      // The first token's 4BH.
      [0, [[indexOf('pooler'), 4 * 2 * 16]]],
    ],
  );
});

test('the knapsack trains the set of largest expected progress of all that fit', () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0.01, max: 10, noNaN: true }), { minLength: layers.length, maxLength: layers.length }), fc.integer({ min: 0, max: 5 * INPUT }), (norms, room) => {
      const budget = least + room;
      const policy = new KnapsackFreezing(layers, { budgetBytes: budget });
      policy.observe(0, new Map(), { gradientNorms: new Map(norms.map((g, i) => [i, g])) });
      const worth = (set: readonly number[]) => set.reduce((s, i) => s + Math.sqrt(layers[i].parameters) * norms[i], 0);
      const trained = trainedOf(policy.select(1, keeps));
      assert.ok(keeps(new Set(trained)) <= budget);
      // Brute force over the ten layers that cost something.
      const costly = layers.filter((l) => !/(word|position|token_type)_embeddings|classifier/.test(l.name)).map((l) => l.index);
      const free = layers.map((l) => l.index).filter((i) => !costly.includes(i));
      let best = 0;
      for (let bits = 0; bits < 2 ** costly.length; bits++) {
        const set = [...free, ...costly.filter((_, k) => (bits >> k) & 1)];
        if (keeps(new Set(set)) <= budget) best = Math.max(best, worth(set));
      }
      assert.ok(Math.abs(worth(trained) - best) < 1e-9 * best, `${worth(trained)} is not ${best}`);
    }),
    { numRuns: 12 },
  );
});

test('the budget holds even where the bytes of a step are no sum: costs that rise with every layer', () => {
  const odd: KeptBytes = (trained) => 100 + 10 * trained.size ** 2;
  const policy = new KnapsackFreezing(layers, { budgetBytes: 200 });
  const trained = trainedOf(policy.select(0, odd));
  assert.ok(trained.length > 0 && odd(new Set(trained)) <= 200);
});
