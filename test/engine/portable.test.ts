import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import * as tf from '@tensorflow/tfjs-core';
import { createTfjsEngine } from '../../src/engine/tfjs/tfjsEngine';

test('engines that start at the same time each get their own backend', async () => {
  const [wasm, cpu] = await Promise.all([createTfjsEngine('wasm'), createTfjsEngine('cpu')]);
  for (const e of [cpu, wasm]) {
    const a = e.upload(Float32Array.of(1, 2, 3, 4), [2, 2]);
    const b = e.matmul(a, a);
    assert.deepEqual([...(await e.read(b))], [7, 10, 15, 22], e.name);
    e.dispose();
  }
});

test('a view is made on its own engine’s backend, whichever worked last', async () => {
  const wasm = await createTfjsEngine('wasm');
  const cpu = await createTfjsEngine('cpu');
  const a = wasm.upload(Float32Array.of(1, 2, 3, 4, 5, 6), [2, 3]);
  const onWasm = tf.findBackend('wasm') as unknown as { numDataIds(): number };
  const before = onWasm.numDataIds();
  cpu.free(cpu.full([2], 1));
  const view = wasm.reshape(a, [3, 2]);
  assert.equal(onWasm.numDataIds(), before, 'the tensor moved to another backend');
  wasm.free(a);
  assert.deepEqual([...(await wasm.read(view))], [1, 2, 3, 4, 5, 6]);
  wasm.dispose();
  cpu.dispose();
});

for (const backend of ['wasm', 'cpu'] as const)
  test(`TensorFlow.js itself holds no more tensors after fifty rounds on ${backend}`, async () => {
    const e = await createTfjsEngine(backend);
    const x = e.upload(Float32Array.from({ length: 64 }, (_, i) => i / 8 - 4), [8, 8]);
    const state = { weight: e.full([8, 8], 1, 'weights'), m: e.full([8, 8], 0, 'optimizer'), v: e.full([8, 8], 0, 'optimizer') };
    const round = () =>
      e.scope(() => {
        e.geluGradEncoded(x, e.encode(x, 'q2.1'));
        e.densify(e.topK(x, 6));
        e.dropout(e.softmax(e.linear(x, x)), 0.1, { seed: 1, counter: 1 });
        e.adamwStep(state, x, { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-6, weightDecay: 0.1, step: 1, magnitude: 'mean-relative' });
      });
    round();
    const before = tf.memory();
    for (let i = 0; i < 50; i++) round();
    assert.equal(tf.memory().numTensors, before.numTensors);
    assert.equal(tf.memory().numDataBuffers, before.numDataBuffers);
    e.dispose();
  });

test('starting an engine prints nothing', () => {
  const engine = path.resolve(__dirname, '../../src/engine/tfjs/tfjsEngine.ts');
  for (const backend of ['wasm', 'cpu']) {
    const script = `require(${JSON.stringify(engine)}).createTfjsEngine('${backend}').then((e) => e.read(e.full([2], 1)))`;
    assert.equal(execFileSync(process.execPath, ['--import', 'tsx', '-e', `${script}.catch((x) => console.log(x))`], { cwd: path.resolve(__dirname, '../..'), encoding: 'utf8', stdio: 'pipe' }), '');
  }
});
