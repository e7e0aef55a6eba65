import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEngine, type EngineChoice } from '../../src/engine/choose';
import type { AdapterSummary } from '../../src/engine/webgpu/adapters';
import { choiceBundle } from '../../src/inspect/engineCard';

const GIB = 2 ** 30;
const gpu: AdapterSummary = { kind: 'hardware', name: 'GPU <b>1</b>', maxBuffer: 16 * GIB, maxBinding: 4 * GIB, workgroupThreads: 1024, workgroupBytes: 48 * 1024, features: ['chromium-experimental-subgroup-matrix', 'shader-f16', 'subgroups'], mixed: 'matrix units of 16×16×16' };
const software: AdapterSummary = { ...gpu, kind: 'software', name: 'on the CPU', maxBuffer: GIB, maxBinding: 2 * GIB, workgroupThreads: 256, workgroupBytes: 32 * 1024, features: ['timestamp-query'], mixed: 'float32, since it has none' };
const choice: EngineChoice = {
  chosen: 'webgpu',
  because: 'it computes on a GPU, and tensorflow does not',
  reasons: [
    { name: 'tensorflow', available: true, why: 'CPU (TensorFlow)' },
    { name: 'webgpu', available: true, why: 'GPU (WebGPU, GPU <b>1</b>)' },
    { name: 'wasm', available: false, why: 'run `npm ci`' },
  ],
  adapters: [gpu, software],
};

test('a choice in a cell: the verdict, each engine with a mark and its reason, each adapter with the largest tensor and what it can', () => {
  const { 'text/plain': text, 'text/html': html } = choiceBundle(choice) as Record<string, string>;
  assert.deepEqual(text.split('\n'), [
    'Trains on webgpu: it computes on a GPU, and tensorflow does not',
    '  ✓ tensorflow: CPU (TensorFlow)',
    '  ✓ webgpu: GPU (WebGPU, GPU <b>1</b>)',
    '  ✗ wasm: run `npm ci`',
    'WebGPU adapter GPU <b>1</b> (hardware)',
    '  largest tensor: 4.0 GiB (buffer 16.0 GiB, binding 4.0 GiB)',
    '  workgroup: 1024 threads, 48.0 KiB in common',
    '  shader-f16: yes',
    '  subgroups: yes',
    '  chromium-experimental-subgroup-matrix (tensor cores): yes',
    '  timestamp-query: no',
    '  mixed precision: matrix units of 16×16×16',
    'WebGPU adapter on the CPU (software)',
    '  largest tensor: 1.0 GiB (buffer 1.0 GiB, binding 2.0 GiB)',
    '  workgroup: 256 threads, 32.0 KiB in common',
    '  shader-f16: no',
    '  subgroups: no',
    '  chromium-experimental-subgroup-matrix (tensor cores): no',
    '  timestamp-query: yes',
    '  mixed precision: float32, since it has none',
  ]);
  // What drivers call themselves is text, never markup.
  assert.ok(html.includes('GPU &#60;b&#62;1&#60;/b&#62;') && !html.includes('<b>'));
  assert.equal(html.match(/✓/g)!.length, 2);
  assert.equal(html.match(/✗/g)!.length, 1);
});

test('where nothing starts the card says so, and shows no table of adapters', () => {
  const { 'text/plain': text, 'text/html': html } = choiceBundle({ ...choice, chosen: undefined, because: 'no engine starts', adapters: [] }) as Record<string, string>;
  assert.match(text, /^Trains on nothing: no engine starts\n/);
  assert.doesNotMatch(html + text, /adapter/);
});

test('an engine in a cell tells what it computes on and its bytes by category; nothing of buffers where it keeps none', async () => {
  const engine = await chooseEngine('cpu');
  engine.full([256, 1024], 1, 'weights');
  engine.free(engine.full([256], 1));
  const shown = (engine as unknown as Record<symbol, () => Record<string, string>>)[Symbol.for('Jupyter.display')]();
  assert.deepEqual(shown['text/plain'].split('\n').map((l) => l.replace(/ +/g, ' ')), [
    'cpu on CPU (plain JavaScript): 1 tensor',
    ' now at most',
    'weights 1.0 MiB 1.0 MiB',
    'optimizer 0 B 0 B',
    'gradients 0 B 0 B',
    'activations 0 B 0 B',
    'workspace 0 B 1.0 KiB',
    'all together 1.0 MiB 1.0 MiB',
  ]);
  engine.dispose();
  assert.equal(engine.memory().tensors, 0);
});
