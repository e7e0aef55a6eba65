import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fusedKernels, loadTensorflow } from '../../src/engine/tfjs/tensorflowBinding';
import { createTensorflowEngine } from '../../src/engine/tfjs/createTensorflowEngine';
import { createTfjsEngine } from '../../src/engine/tfjs/tfjsEngine';
import { OutOfMemoryError } from '../../src/errors';
import type { FixedPoint } from '../../src/engine/engine';
import { Random } from '../../src/random';
import { conformance } from './conformance';

let skip: string | false = false;
try {
  loadTensorflow();
} catch (error) {
  skip = (error as Error).message;
}

conformance('tensorflow', createTensorflowEngine, skip || (!fusedKernels().loaded && fusedKernels().why));
conformance('tensorflow without fused kernels', () => createTensorflowEngine({ fused: false }), skip);

test('codes and decoded values agree to the bit between engines', { skip }, async () => {
  const engines = await Promise.all([createTensorflowEngine(), createTfjsEngine('wasm'), createTfjsEngine('cpu')]);
  const r = new Random(9);
  const x = Float32Array.from({ length: 1001 }, () => 4 * r.normal());
  for (const encoding of ['q3.4', 'q0.8', 'q2.1'] as FixedPoint[]) {
    const results = await Promise.all(
      engines.map(async (e) => {
        const packed = e.scope(() => e.encode(e.upload(x, [1001]), encoding));
        const decoded = e.decode(packed);
        const out = [await e.read(packed.words), await e.read(decoded)];
        e.free(packed.words, decoded);
        return out;
      }),
    );
    assert.deepEqual(results[1], results[0], encoding);
    assert.deepEqual(results[2], results[0], encoding);
  }
  for (const e of engines) e.dispose();
});

test('a tensor that no memory holds is an OutOfMemoryError with its bytes, and the engine works on', { skip }, async () => {
  for (const fused of [true, false]) {
    const engine = await createTensorflowEngine({ fused });
    const [tall, wide] = [engine.full([2 ** 21, 1], 1), engine.full([1, 2 ** 22], 1)];
    const isIt = (e: Error) => e instanceof OutOfMemoryError && e.bytes === 4 * 2 ** 43 && /\[2097152,4194304\], 32\.0 TiB.*slimfit plan/.test(e.message);
    assert.throws(() => engine.full([2 ** 21, 2 ** 22], 1), isIt);
    assert.throws(() => engine.scope(() => engine.mul(tall, wide)), isIt);
    assert.throws(() => engine.scope(() => engine.matmul(tall, wide)), isIt);
    assert.equal(engine.memory().tensors, 2);
    const sum = engine.sum(wide, 1);
    assert.deepEqual([...(await engine.read(sum))], [2 ** 22]);
    engine.free(tall, wide, sum);
    assert.equal(engine.memory().tensors, 0);
    engine.dispose();
  }
});

test('TensorFlow itself holds no more tensors after a thousand rounds', { skip }, async () => {
  const binding = loadTensorflow();
  const e = await createTensorflowEngine();
  const x = e.upload(Float32Array.from({ length: 64 }, (_, i) => i / 8 - 4), [8, 8]);
  const round = () =>
    e.scope(() => {
      const packed = e.encode(x, 'q2.1');
      e.geluGradEncoded(x, packed);
      e.densify(e.topK(x, 6));
      e.dropout(e.softmax(e.linear(x, x)), 0.1, { seed: 1, counter: 1 });
    });
  round();
  const before = binding.getNumOfTensors();
  for (let i = 0; i < 1000; i++) round();
  assert.equal(binding.getNumOfTensors(), before);
  e.dispose();
});
