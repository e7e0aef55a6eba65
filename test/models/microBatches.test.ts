/** A batch in parts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { InvalidArgumentError } from '../../src/errors';
import { checkAccumulation, microBatches, microBatchSizes } from '../../src/models/microBatches';
import { tinyBatch, tinyConfig } from './fixtures';

test('parts are as equal as they can be, the larger ones first, and no more than examples', () => {
  assert.deepEqual(microBatchSizes(8, 4), [2, 2, 2, 2]);
  assert.deepEqual(microBatchSizes(10, 4), [3, 3, 2, 2]);
  assert.deepEqual(microBatchSizes(2, 4), [1, 1]);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 70 }), (n, k) => {
      const sizes = microBatchSizes(n, k);
      assert.equal(sizes.reduce((a, b) => a + b), n);
      assert.equal(sizes.length, Math.min(n, k));
      assert.equal(sizes[0], Math.ceil(n / sizes.length));
      assert.ok(sizes.at(-1)! >= 1 && sizes[0] - sizes.at(-1)! <= 1);
    }),
    { seed: 1 },
  );
});

test('the parts of a batch put together are the batch, and their weights are their shares of the terms', () => {
  const batch = { ...tinyBatch(tinyConfig(), 5, 4), labels: Int32Array.from({ length: 10 }, (_, i) => i), note: 'kept' };
  const parts = microBatches(batch, 2, (b) => b.batchSize);
  assert.deepEqual(parts.map((p) => [p.batch.batchSize, p.batch.length, p.batch.note, p.weight]), [[3, 4, 'kept', 3 / 5], [2, 4, 'kept', 2 / 5]]);
  for (const name of ['inputIds', 'tokenTypeIds', 'attentionMask', 'labels'] as const) {
    assert.deepEqual(parts.flatMap((p) => [...p.batch[name]]), [...batch[name]]);
    assert.equal(parts[1].batch[name].length, (batch[name].length / 5) * 2);
    assert.ok(parts[1].batch[name] instanceof Int32Array);
  }
  assert.deepEqual(microBatches(batch, 1, () => assert.fail()), [{ batch, weight: 1 }]);
});

test('a part without a term of the loss is left out; a batch without any is left to the model', () => {
  const batch = tinyBatch(tinyConfig(), 3, 4);
  const some = microBatches({ ...batch, labels: Int32Array.of(0, 0, 7) }, 3, (b) => (b.labels[0] === 7 ? 2 : 0));
  assert.deepEqual(some.map((p) => [p.batch.labels[0], p.weight]), [[7, 1]]);
  assert.deepEqual(microBatches(batch, 3, () => 0), [{ batch, weight: 1 }]);
});

test('what cannot be run in parts is refused by its name and value', () => {
  const batch = { ...tinyBatch(tinyConfig(), 3, 4), extra: new Float32Array(7) };
  assert.throws(() => microBatches(batch, 2, (b) => b.batchSize), (e: Error) => e instanceof InvalidArgumentError && e.message.includes('extra of the batch has 7 values'));
  for (const [steps, text] of [[0, 'is 0'], [1.5, 'is 1.5'], [9, 'is 9, but a step has 8 examples']] as const)
    assert.throws(() => checkAccumulation(steps, 8), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(`gradientAccumulationSteps ${text}`));
  checkAccumulation(8, 8);
});
