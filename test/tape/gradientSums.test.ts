/** Gradients of several passes, summed by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DeviceTensor } from '../../src/engine/engine';
import { GradientSums } from '../../src/tape/gradientSums';
import { Parameter } from '../../src/tape/parameter';
import { cpuEngine } from '../models/fixtures';

const vector = async (...values: number[]) => (await engine).upload(Float32Array.from(values), [values.length], 'gradients');
const engine = cpuEngine();

test('the last pass hands over the sums of all passes, each once, then what it had no gradient of; the gradients themselves stay the caller’s', async () => {
  const e = await engine;
  const [a, b, c] = await Promise.all(['a', 'b', 'c'].map(async (n) => new Parameter(n, await vector(0, 0))));
  const sums = new GradientSums(e);
  const got: [string, number[]][] = [];
  const pending: Promise<void>[] = [];
  const sink = (p: Parameter, g: DeviceTensor) => void pending.push(e.read(g).then((v) => void got.push([p.name, [...v]])));
  const give = async (to: (p: Parameter, g: DeviceTensor) => void, p: Parameter, ...values: number[]) => {
    const g = await vector(...values);
    to(p, g);
    assert.ok(!g.freed);
    e.free(g);
  };
  await give(sums.add, a, 1, 2);
  await give(sums.add, b, 10, 20);
  assert.equal(e.memory().live.gradients, 8 * 5);
  await give(sums.add, a, 0.5, 0.25);
  assert.equal(e.memory().live.gradients, 8 * 5, 'a sum takes no more than its first gradient');
  await give(sums.last(sink), a, -4, 0);
  await give(sums.last(sink), c, 7, 8);
  sums.rest(sink);
  await Promise.all(pending);
  assert.deepEqual(got, [['a', [-2.5, 2.25]], ['c', [7, 8]], ['b', [10, 20]]]);
  e.free(a.data, b.data, c.data);
  assert.equal(e.memory().tensors, 0);
});

test('a sink that throws, and sums that are given up, leave nothing on the device', async () => {
  const e = await engine;
  const p = new Parameter('p', await vector(0));
  const g = await vector(1);
  const fail = () => {
    throw new Error('sink');
  };
  const sums = new GradientSums(e);
  sums.add(p, g);
  assert.throws(() => sums.last(fail)(p, g), /sink/);
  sums.add(p, g);
  assert.throws(() => sums.rest(fail), /sink/);
  sums.add(p, g);
  sums.dispose();
  e.free(g, p.data);
  assert.equal(e.memory().tensors, 0);
});
