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

function run(steps: number, millisecondsEach: number, end: LiveRun['state']) {
  const history = new History(layers);
  const shown: { data: MimeBundle; id?: string; update?: boolean }[] = [];
  const kernel = { display: (data: MimeBundle, o: { displayId?: string; update?: boolean }) => shown.push({ data, id: o.displayId, update: o.update }) } as unknown as KernelApi;
  let clock = 0;
  const view = new LiveView({ history, fullActivationBytes: 4096 }, kernel, () => clock);
  const run: LiveRun = { first: 0, total: steps * 2, began: 0, state: 'running', ended: undefined };
  view.follow(run);
  for (let i = 0; i < steps; i++) {
    clock += millisecondsEach;
    history.append(record(i));
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
  const heights = run(10, 300, 'done').map(({ data }) => /min-height:(\d+)px/.exec(String(data['text/html']))?.[1]);
  assert.equal(new Set(heights).size, 1);
});
