import assert from 'node:assert/strict';
import { test } from 'node:test';
import { previewBundle, recordBundle, showing } from '../../src/inspect/cards';
import { fitBundle, planBundle } from '../../src/inspect/planCards';
import type { MemoryFit } from '../../src/memory/fit';
import { planMemory } from '../../src/memory/planner';
import { parseBertConfig } from '../../src/hub/config';
import { formatBytes } from '../../src/units';
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

test('a plan shows itself: each kind of bytes, the peak, and what is kept by role and encoding', () => {
  const plan = planMemory({ config: parseBertConfig({ model_type: 'bert', vocab_size: 50, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64 }), batchSize: 4, length: 16, freezeRate: 0.5 });
  const shown = (plan as unknown as Record<symbol, () => Record<string, string>>)[Symbol.for('Jupyter.display')]();
  assert.deepEqual(shown, planBundle(plan));
  for (const [name, bytes] of [['weights', plan.weightBytes], ['optimizer moments', plan.momentBytes], ['kept for backward', plan.activationBytes], ['peak', plan.peakBytes]] as const) assert.ok(shown['text/plain'].includes(`  ${name}: ${formatBytes(bytes)}`), name);
  assert.match(shown['text/plain'], new RegExp(`trains: ${plan.trains.length} of ${plan.layers} layers`));
  assert.match(shown['text/html'], /static, q2\.1<\/td><td>2<\/td>/);
});

test('what fits shows what was changed for it, and what each lever saves or adds and costs', () => {
  const plan = { batchSize: 8, trains: [], layers: 2, weightBytes: 1024, momentBytes: 2048, gradientBytes: 1, activationBytes: 1, activations: [], temporaryBytes: 1, peakBytes: 2 ** 20, course: [] };
  const lever = (name: string, savesBytes: number) => ({ name, changes: {}, peakBytes: 2 ** 20 - savesBytes, savesBytes, costs: `costs of <${name}>` });
  const fit: MemoryFit = { plan, changes: { blockBytes: 2 ** 16, optimizer: { moments: '8-bit' }, mode: { name: 'mine' } as never }, levers: [lever('less', 2048), lever('more', -1024), lever('none', 0)] };
  const { 'text/html': html, 'text/plain': text } = fitBundle(fit) as Record<string, string>;
  assert.match(text, /changed for it: blockBytes: 64\.0 KiB, optimizer: \{"moments":"8-bit"\}, mode: mine\n/);
  assert.match(text, /less: −2\.0 KiB; costs of <less>\n {2}more: \+1\.0 KiB; costs of <more>\n {2}none: nothing; costs of <none>$/);
  assert.match(html, /<td[^>]*>less<\/td><td[^>]*>1022 KiB<\/td><td[^>]*>−2\.0 KiB<\/td><td[^>]*>costs of &(lt|#60);less/);
  assert.match(String(fitBundle({ ...fit, changes: {}, levers: [] })['text/plain']), /changed for it: nothing/);
});

test('showing hides its method from loops and comparisons', () => {
  const value = showing({ a: 1 }, (v) => ({ 'text/plain': String(v.a) }));
  assert.deepEqual(value, { a: 1 });
  const shown = (value as unknown as Record<symbol, () => unknown>)[Symbol.for('Jupyter.display')];
  assert.deepEqual(shown(), { 'text/plain': '1' });
});
