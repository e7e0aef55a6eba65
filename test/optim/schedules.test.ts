import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidArgumentError } from '../../src/errors';
import { constantSchedule, linearSchedule, paperSchedule } from '../../src/optim/schedules';

const near = (a: number, b: number) => assert.ok(Math.abs(a - b) <= 1e-12, `${a} is not ${b}`);

test('linear warm-up rises from 0 to the peak, then falls to 0 at the end', () => {
  const lr = linearSchedule(1, 10, 4);
  [0, 0.25, 0.5, 0.75, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0].forEach((want, k) => near(lr(k), want));
});

test('the authors’ schedules have the values of their formulas', () => {
  near(paperSchedule('glue', 13, 12)(0), 13);
  near(paperSchedule('glue', 13, 12)(5), 8);
  near(paperSchedule('vit', 13, 12)(0), 12);
  near(paperSchedule('stsb', 12, 12)(3), 9);
  assert.equal(paperSchedule('warm', 8e-5, 100)(0), 0);
  near(paperSchedule('warm', 99.9, 100)(1), 99);
});

test('a constant schedule is constant', () => {
  assert.deepEqual([0, 7, 1e6].map(constantSchedule(0.3)), [0.3, 0.3, 0.3]);
});

test('a schedule without steps, or with a warm-up longer than itself, is refused', () => {
  assert.throws(() => linearSchedule(1, 0), InvalidArgumentError);
  assert.throws(() => linearSchedule(1, 10, 10), InvalidArgumentError);
  assert.throws(() => paperSchedule('glue', 1, 2.5), InvalidArgumentError);
});
