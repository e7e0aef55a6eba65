import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accuracy, argmaxRows, f1, matthewsCorrelation, pearson, spearman } from '../../src/data/metrics';
import { InvalidArgumentError } from '../../src/errors';

const near = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-12, `${a} is not ${b}`);
const p = [1, 0, 1, 1, 0, 1, 0, 0, 1, 1];
const l = [1, 0, 0, 1, 0, 1, 1, 0, 1, 0];

test('accuracy, F1 and Matthews correlation equal scikit-learn’s', () => {
  near(accuracy(p, l), 0.7);
  near(f1(p, l), 0.7272727272727273);
  near(matthewsCorrelation(p, l), 0.408248290463863);
});

test('Pearson and Spearman correlation equal SciPy’s, ties included', () => {
  const x = [1.5, 2.0, 2.0, 0.1, 4.9, 3.3, 2.0];
  const y = [1.0, 2.5, 2.5, 0.0, 5.0, 2.5, 4.0];
  near(pearson(x, y), 0.8417144865594252);
  near(spearman(x, y), 0.8461538461538463);
});

test('one class alone gives 0, not NaN, as scikit-learn has it', () => {
  assert.equal(matthewsCorrelation([1, 1, 1], [1, 0, 1]), 0);
  assert.equal(f1([0, 0], [1, 0]), 0);
});

test('the largest of a row is its class, the first of equals', () => {
  assert.deepEqual([...argmaxRows(Float32Array.of(1, 3, 2, 5, 5, 0), 3)], [1, 0]);
});

test('lists of different length are refused', () => {
  assert.throws(() => accuracy([1], [1, 0]), InvalidArgumentError);
  assert.throws(() => pearson([], []), InvalidArgumentError);
});
