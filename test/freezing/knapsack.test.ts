import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type KnapsackGroup, solveKnapsack } from '../../src/freezing/knapsack';

/** Cost and value of a choice, from the statement of the problem. */
function weigh(groups: readonly KnapsackGroup[], chosen: ReadonlySet<number>): { cost: number; value: number } {
  let [cost, value] = [0, 0];
  for (const { entry, items } of groups) {
    const taken = items.filter((i) => chosen.has(i.id));
    if (taken.length > 0) cost += entry;
    for (const i of taken) [cost, value] = [cost + i.cost, value + i.value];
  }
  return { cost, value };
}

/** The best value of all 2ⁿ choices. */
function bruteForce(groups: readonly KnapsackGroup[], budget: number): number {
  const ids = groups.flatMap((g) => g.items.map((i) => i.id));
  let best = 0;
  for (let bits = 0; bits < 2 ** ids.length; bits++) {
    const { cost, value } = weigh(groups, new Set(ids.filter((_, k) => (bits >> k) & 1)));
    if (cost <= budget) best = Math.max(best, value);
  }
  return best;
}

const problem = fc
  .array(fc.record({ entry: fc.integer({ min: 0, max: 12 }), items: fc.array(fc.record({ cost: fc.integer({ min: 0, max: 15 }), value: fc.integer({ min: 0, max: 40 }) }), { minLength: 1, maxLength: 3 }) }), { maxLength: 5 })
  .map((groups) => {
    let id = 0;
    return groups.map((g) => ({ entry: g.entry, items: g.items.map((i) => ({ ...i, id: id++ })) }));
  })
  .filter((groups) => groups.flatMap((g) => g.items).length <= 12);

test('no choice of all is worth more within the budget, whatever items share', () => {
  fc.assert(
    fc.property(problem, fc.integer({ min: 0, max: 80 }), (groups, budget) => {
      const chosen = solveKnapsack(groups, budget);
      const { cost, value } = weigh(groups, new Set(chosen));
      assert.equal(new Set(chosen).size, chosen.length);
      assert.ok(cost <= budget, `${cost} of ${budget}`);
      assert.equal(value, bruteForce(groups, budget));
    }),
    { numRuns: 300 },
  );
});

test('a shared price is paid once: all three of query, key and value for the price of one', () => {
  const shared: KnapsackGroup = { entry: 10, items: [0, 1, 2].map((id) => ({ id, cost: 0, value: 4 })) };
  const single: KnapsackGroup = { entry: 0, items: [{ id: 3, cost: 10, value: 11 }] };
  assert.deepEqual(solveKnapsack([shared, single], 10), [0, 1, 2]);
  assert.deepEqual(solveKnapsack([shared, single], 20), [0, 1, 2, 3]);
  assert.deepEqual(solveKnapsack([shared, single], 9), []);
});

test('the best choice is not the one that is best by value, nor by value for its cost', () => {
  const of = (...items: [number, number][]): KnapsackGroup[] => items.map(([cost, value], id) => ({ entry: 0, items: [{ id, cost, value }] }));
  // 60 for 6 beats the 70 of 10 and, by density, leaves 4 empty beside 3·13 for 9.
  assert.deepEqual(solveKnapsack(of([10, 70], [6, 60], [4, 20]), 10), [1, 2]);
  assert.deepEqual(solveKnapsack(of([6, 60], [5, 45], [5, 45]), 10), [1, 2]);
});

test('more undominated states than are kept: the budget still holds, and little is lost', () => {
  // Costs 2^k + 1/3 make every subset its own state.
  const groups: KnapsackGroup[] = Array.from({ length: 17 }, (_, k) => ({ entry: 0, items: [{ id: k, cost: 2 ** k + 1 / 3, value: 2 ** k }] }));
  const budget = 2 ** 17 * 0.77;
  const { cost, value } = weigh(groups, new Set(solveKnapsack(groups, budget)));
  assert.ok(cost <= budget);
  // The bound Σ value ≤ budget holds for every choice, since no item is worth more than its cost.
  assert.ok(value > 0.999 * budget, `${value} of ${budget}`);
});

test('nothing to choose, or no budget', () => {
  assert.deepEqual(solveKnapsack([], 10), []);
  assert.deepEqual(solveKnapsack([{ entry: 1, items: [{ id: 5, cost: 0, value: 9 }] }], 0), []);
});
