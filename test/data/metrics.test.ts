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

/** The same numbers in Python and here: a linear congruential generator. */
function* stream(seed: number): Generator<number, never> {
  for (let s = seed; ; ) yield (s = (Math.imul(s, 1664525) + 1013904223) >>> 0) / 2 ** 32;
}

test('on thousands of random predictions, skewed ones too, accuracy, F1 and Matthews equal scikit-learn 1.7’s', () => {
  const recorded = [
    [1, 0.5, 0.845, 0.8475909537856441, 0.6908052901222805],
    [2, 0.9, 0.942, 0.9671201814058957, 0.7226548740098092],
    [3, 0.02, 0.993, 0.8, 0.7967775840729829],
    [4, 0.3, 0.888, 0.8055555555555556, 0.7273928628276362],
    [5, 0.99, 0.995, 0.9974811083123426, 0.66566234140462],
    [6, 0.6, 0.856, 0.8789915966386554, 0.7026415274033432],
  ];
  for (const [seed, share, ...want] of recorded) {
    const random = stream(seed);
    const next = () => random.next().value;
    const rows = Array.from({ length: 1000 }, () => {
      const [a, b, c] = [next(), next(), next()];
      const label = a < share ? 1 : 0;
      return [label, b < 0.7 ? label : c < share ? 1 : 0];
    });
    const [labels, predictions] = [0, 1].map((k) => rows.map((r) => r[k]));
    [accuracy, f1, matthewsCorrelation].forEach((metric, i) => near(metric(predictions, labels), want[i]));
  }
});

test('on thousands of random scores with ties, Pearson and Spearman equal SciPy 1.16’s', () => {
  const recorded = [
    [0.8333513408441705, 0.8385283113246605],
    [0.8298633733073438, 0.833976863272405],
    [0.8424325482191461, 0.8467614613241771],
    [0.8173433427251757, 0.822227464104115],
    [0.8362461318548111, 0.8403174037652562],
    [0.8287242910667938, 0.8319845029280685],
  ];
  recorded.forEach(([r, rho], i) => {
    const random = stream(101 + i);
    const rows = Array.from({ length: 1000 }, () => {
      const [a, b] = [random.next().value, random.next().value];
      return [Math.floor(50 * a) / 10, Math.floor(500 * (0.6 * a + 0.4 * b)) / 100];
    });
    const [x, y] = [0, 1].map((k) => rows.map((row) => row[k]));
    near(pearson(x, y), r);
    near(spearman(x, y), rho);
  });
});
