import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KernelApi, MimeBundle } from '../../src/inspect/kernelApi';
import { type LiveRun, LiveView } from '../../src/inspect/live';
import { History } from '../../src/training/history';
import type { StepRecord } from '../../src/training/stepRecord';

const layers = ['a', 'b'].map((n, index) => ({ index, name: `bert.${n}.weight`, kind: 'linear' as const, shape: [2], parameters: 2 }));
const zero = { weights: 0, optimizer: 0, gradients: 0, activations: 0, workspace: 0 };
const record = (step: number): StepRecord => ({
  step,
  epoch: 0,
  loss: 1 / (step + 1),
  learningRate: 1e-4,
  frozen: [1],
  active: [0],
  updateMagnitudes: Float64Array.of(1, 2),
  activations: [],
  activationBytes: 1024,
  memory: { live: zero, peak: zero, totalLive: 0, totalPeak: 0, tensors: 0 },
  milliseconds: 10, dataMilliseconds: 0.5, overruled: [], fullActivations: undefined, freezingSaves: new Float64Array(2).fill(NaN), course: [], encodingErrors: [],
  examples: 1,
  tokens: 1,
});

const MIB = 2 ** 20;
/** The same on an engine that holds more than what is alive. */
const withMemory = (step: number): StepRecord => ({
  ...record(step),
  memory: {
    live: { weights: 8 * MIB, optimizer: 2 * MIB, gradients: 0, activations: 0, workspace: 0 },
    peak: { weights: 8 * MIB, optimizer: 2 * MIB, gradients: MIB, activations: 4 * MIB, workspace: 3 * MIB },
    totalLive: 10 * MIB, totalPeak: 16 * MIB, tensors: 5, held: { buffers: 7, bytes: 32 * MIB, idleBytes: 20 * MIB },
  },
});

function run(steps: number, millisecondsEach: number, end: LiveRun['state'], memory = false, recordOf = record) {
  const history = new History(layers);
  const shown: { data: MimeBundle; id?: string; update?: boolean }[] = [];
  const kernel = { display: (data: MimeBundle, o: { displayId?: string; update?: boolean }) => shown.push({ data, id: o.displayId, update: o.update }) } as unknown as KernelApi;
  let clock = 0;
  const view = new LiveView({ history, fullActivationBytes: 4096, memory }, kernel, () => clock);
  const run: LiveRun = { first: 0, total: steps * 2, began: 0, state: 'running', ended: undefined };
  view.follow(run);
  for (let i = 0; i < steps; i++) {
    clock += millisecondsEach;
    history.append(recordOf(i));
    view.update();
  }
  Object.assign(run, { state: end, ended: clock });
  view.end();
  return shown;
}

test('one output is redrawn at most four times a second', () => {
  const shown = run(100, 20, 'done');
  // 2 s of training: one at once, 8 drawings and the last.
  assert.ok(shown.length >= 8 && shown.length <= 11, `${shown.length}`);
  assert.equal(new Set(shown.map((s) => s.id)).size, 1);
  assert.deepEqual(shown.map((s) => s.update), shown.map((_, i) => i > 0));
});

test('it tells progress, rate, time left and the bytes kept, in text too', () => {
  const [, first] = run(30, 500, 'done');
  assert.match(String(first.data['text/plain']), /1 of 60 steps · 2\.0 steps\/s · 0:30 left/);
  assert.match(String(first.data['text/html']), /1\.0 KiB of 4\.0 KiB in plain fine-tuning/);
  assert.match(String(first.data['text/html']), /loss 1\.0000/);
});

test('while it runs it holds no script; it ends as interactive figures, red when interrupted', () => {
  const shown = run(10, 300, 'interrupted');
  for (const { data } of shown.slice(0, -1)) assert.doesNotMatch(String(data['text/html']), /<script/);
  const last = String(shown.at(-1)!.data['text/html']);
  assert.match(last, /10 of 20 steps .* interrupted/);
  assert.match(last, /color:#d55e00/);
  assert.match(last, /Which layers trained in which step/);
  assert.match(last, /<script/);
});

test('every drawing has the same least height, so that the page does not jump', () => {
  const heights = (memory: boolean) => [...new Set(run(10, 300, 'done', memory).map(({ data }) => /min-height:(\d+)px/.exec(String(data['text/html']))?.[1]))].map(Number);
  const [plain, more] = [heights(false), heights(true)];
  assert.deepEqual([plain.length, more.length], [1, 1]);
  assert.ok(more[0] > plain[0]);
});

test('on demand it shows the device’s bytes by category: the peak of the last step pale, what stays full, each in proportion to the largest', () => {
  const [, , third] = run(10, 300, 'done', true, withMemory);
  const html = String(third.data['text/html']);
  // Height 12 is that of these bars alone; width and opacity of each.
  const bars = [...html.matchAll(/width="([\d.]+)" height="12" fill="(#\w+)" fill-opacity="([\d.]+)"/g)].map((m) => [m[2], Number(m[1]) / 150, Number(m[3])]);
  const pairs: [string, number, number][] = [['#0072b2', 8, 8], ['#009e73', 2, 2], ['#cc79a7', 1, 0], ['#e69f00', 4, 0], ['#8c8c8c', 3, 0], ['#d55e00', 16, 10], ['#56b4e9', 32, 32]];
  assert.equal(bars.length, 14);
  pairs.forEach(([colour, peak, now], i) => {
    for (const [[c, share, opacity], mib, pale] of [[bars[2 * i], peak, 0.4], [bars[2 * i + 1], now, 1]] as const) {
      assert.deepEqual([c, opacity], [colour, pale]);
      assert.ok(Math.abs((share as number) - mib / 32) < 1e-3, `${colour}: ${share}`);
    }
  });
  for (const text of ['weights', 'optimizer', 'gradients', 'activations', 'workspace', 'all together', 'held', '8.0 MiB', '16.0 MiB', 'up to 32.0 MiB']) assert.ok(html.includes(text), text);
  assert.match(String(run(10, 300, 'done', true, withMemory).at(-1)!.data['text/html']), /Device memory: peak within each step/);
});

test('without that wish no bytes by category are shown, and of an engine that tells nothing of what it holds none are', () => {
  for (const { data } of run(10, 300, 'done')) assert.doesNotMatch(String(data['text/html']), /optimizer/);
  const html = String(run(10, 300, 'done', true)[2].data['text/html']);
  assert.match(html, />optimizer</);
  assert.doesNotMatch(html, />held</);
});
