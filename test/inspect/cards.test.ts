import assert from 'node:assert/strict';
import { test } from 'node:test';
import { previewBundle, recordBundle, showing } from '../../src/inspect/cards';
import type { StepRecord } from '../../src/training/stepRecord';

const layers = Array.from({ length: 20 }, (_, index) => ({ index, name: `bert.encoder.layer.${index}.attention.self.query.weight`, kind: 'linear' as const, shape: [2], parameters: 2 }));
const zero = { weights: 0, optimizer: 0, gradients: 0, activations: 0, workspace: 0 };
const kept = (role: 'static' | 'dynamic', encoding: 'q3.4' | 'float32', bytes: number) => ({ layer: 'x<y', what: 'input', role, encoding, shape: [2], bytes, padding: 0 });

test('a record tells loss, trained layers and bytes by role and encoding', () => {
  const record: StepRecord = {
    step: 7, epoch: 1, loss: 0.4321, learningRate: 5e-5, frozen: [1], active: [0, 3], updateMagnitudes: new Float64Array(20),
    activations: [kept('static', 'q3.4', 1024), kept('static', 'q3.4', 1024), kept('dynamic', 'float32', 512)],
    activationBytes: 2560, memory: { live: zero, peak: zero, totalLive: 0, totalPeak: 2 ** 20, tensors: 0 }, milliseconds: 12.3, dataMilliseconds: 0.5, overruled: [], fullActivations: undefined, freezingSaves: new Float64Array(20).fill(NaN), course: [], encodingErrors: [], examples: 2, tokens: 64,
  };
  const { 'text/html': html, 'text/plain': text } = recordBundle(record, layers) as Record<string, string>;
  assert.match(text, /Step 7 \(epoch 1\)\n {2}loss: 0\.4321/);
  assert.match(text, /2 of 20 layers: L0 query, L3 query/);
  assert.match(text, /kept for backward: 2\.5 KiB/);
  assert.match(html, /static, q3\.4<\/td><td>2<\/td><td style="white-space:nowrap">2\.0 KiB.*dynamic, float32<\/td><td>1<\/td>/s);
});

test('a preview tells what trains, what it keeps and what plain fine-tuning would; long lists are cut', () => {
  const preview = { step: 0, epoch: 0, learningRate: 1e-4, frozen: [], active: layers, trainedShare: 0.125, activationBytes: 1024, fullActivationBytes: 4096 };
  const text = String(previewBundle(preview)['text/plain']);
  assert.match(text, /trains: 20 of 20 layers, 12\.5 % of their weights: L0 query, .*L11 query and 8 more/);
  assert.match(text, /will keep: 1\.0 KiB for backward; plain fine-tuning 4\.0 KiB \(4\.0 times as much\)/);
  assert.doesNotMatch(String(previewBundle({ ...preview, activationBytes: undefined })['text/plain']), /will keep/);
});

test('showing hides its method from loops and comparisons', () => {
  const value = showing({ a: 1 }, (v) => ({ 'text/plain': String(v.a) }));
  assert.deepEqual(value, { a: 1 });
  const shown = (value as unknown as Record<symbol, () => unknown>)[Symbol.for('Jupyter.display')];
  assert.deepEqual(shown(), { 'text/plain': '1' });
});
