/** Device memory of the WebGPU engine: found again, given back, refused by name; and the device itself, when it is gone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BufferPool, sizeClass } from '../../../src/engine/webgpu/bufferPool';
import { createWebgpuEngine } from '../../../src/engine/webgpu/createWebgpuEngine';
import { openDevice } from '../../../src/engine/webgpu/dawn';
import { WebgpuEngine } from '../../../src/engine/webgpu/webgpuEngine';
import { DeviceLostError, EngineUnavailableError, InvalidArgumentError, OutOfMemoryError } from '../../../src/errors';
import { BertForSequenceClassification } from '../../../src/models/bert';
import { SlimFitTrainer } from '../../../src/training/trainer';
import { tinyBatch, tinyConfig } from '../../models/fixtures';

test('size classes hold what is asked for, in steps of 256 bytes, and waste no more than a sixteenth of large ones', () => {
  for (const bytes of [0, 1, 255, 256, 257, 4095, 4097, 70_001, 2 ** 20, 2 ** 20 + 4, 123_456_788, 2 ** 31 - 4, 2 ** 31, 2 ** 32 - 4]) {
    const size = sizeClass(bytes);
    assert.ok(size >= bytes && size >= 256 && size % 256 === 0, `${bytes} → ${size}`);
    assert.equal(sizeClass(size), size);
    if (bytes > 4096) assert.ok(size <= bytes * 1.0626, `${bytes} → ${size}`);
  }
});

test('a freed buffer is the next of its size, and sizes that come no more are given back', async () => {
  const { device } = await openDevice();
  const gone: number[] = [];
  const pool = new BufferPool(device, (slot) => {
    gone.push(slot.id);
    slot.buffer.destroy();
  });
  const a = pool.take(1000);
  pool.give(a);
  assert.equal(pool.take(1010), a);
  assert.equal(pool.counts().made, 1);
  pool.give(a);
  // 64 MiB are in use at most; of 70 sizes of 8 MiB and more, one at a time, few may wait.
  for (let i = 0; i < 70; i++) pool.give(pool.take((8 + i / 2) * 2 ** 20));
  const { bytes, idleBytes } = pool.counts();
  assert.equal(bytes, idleBytes);
  assert.ok(bytes <= 45 * 1.25 * 2 ** 20 + 32 * 2 ** 20, `${bytes} bytes wait`);
  assert.ok(gone.length > 30);
  pool.trim(Infinity);
  assert.deepEqual({ ...pool.counts(), made: 0 }, { buffers: 0, bytes: 0, idleBytes: 0, made: 0 });
  device.destroy();
});

test('values that are uploaded into a buffer that commands under way still read do not reach them', async () => {
  const e = await createWebgpuEngine();
  const a = e.upload(Float32Array.of(1, 2, 3), [3]);
  const sum = e.add(a, a);
  e.free(a);
  const b = e.upload(Float32Array.of(7, 8, 9), [3]);
  const c = e.add(sum, b);
  e.write(b, Float32Array.of(0, 0, 0));
  assert.deepEqual(await e.read(c), Float32Array.of(9, 12, 15));
  assert.deepEqual(await e.read(b), new Float32Array(3));
  e.dispose();
});

test('a step after the first makes no buffer and no bind group, whatever it keeps, and everything is given back', async () => {
  const engine = await createWebgpuEngine();
  const config = tinyConfig({ hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1 });
  for (const mode of ['exact', 'tuned'] as const) {
    const model = BertForSequenceClassification.fresh(engine, config, 1);
    const batch = tinyBatch(config, 4, 8);
    const trainer = new SlimFitTrainer({ model, train: { size: 4, batch: () => batch }, batchSize: 4, freezeRate: 0, mode, totalSteps: 100, seed: 1, onWarning: () => {} });
    for (let i = 0; i < 3; i++) await trainer.step();
    const before = { ...engine.counts(), ...engine.memory() };
    for (let i = 0; i < 6; i++) await trainer.step();
    const now = { ...engine.counts(), ...engine.memory() };
    for (const count of ['tensors', 'totalLive', 'buffers', 'bytes', 'made', 'pipelines', 'bindGroups', 'bindGroupsMade', 'stagingBuffers'] as const) assert.equal(now[count], before[count], `${mode}: ${count}`);
    assert.ok(now.dispatches > before.dispatches + 6 * 100);
    // A step submits a batch of commands at a time, not each by itself.
    assert.ok((now.dispatches - before.dispatches) / (now.submissions - before.submissions) > 15, `${(now.dispatches - before.dispatches) / (now.submissions - before.submissions)} dispatches a submission`);
    trainer.dispose();
    model.dispose();
    assert.equal(engine.memory().tensors, 0);
  }
  engine.dispose();
});

test('a tensor that no buffer can hold is refused by name, and the engine works on', async () => {
  const e = await createWebgpuEngine();
  const a = e.full([2], 3);
  assert.throws(() => e.full([2 ** 20, 2 ** 12], 0), (error: Error) => error instanceof OutOfMemoryError && error.code === 'out-of-memory' && error.bytes === 2 ** 34 && error.message.includes(`${2 ** 34} bytes`));
  assert.throws(() => e.scope(() => e.matmul(e.full([2 ** 17, 1], 1), e.full([1, 2 ** 17], 1))), OutOfMemoryError);
  assert.equal(e.memory().tensors, 1);
  const b = e.add(a, a);
  assert.deepEqual(await e.read(b), Float32Array.of(6, 6));
  e.dispose();
});

test('a device that runs out of memory says so at the next read, gives back what waits, and goes on', async () => {
  // Dawn's null device computes nothing, and has 512 MiB.
  const e = new WebgpuEngine(await openDevice('hardware', ['backend=null']));
  const small = e.full([4], 1);
  await e.read(small);
  const parts = [1, 2, 3, 4, 5].map(() => e.full([2 ** 25], 1));
  await assert.rejects(e.read(small), (error: Error) => error instanceof OutOfMemoryError && error.bytes === 2 ** 27);
  e.free(...parts);
  assert.equal((await e.read(small)).length, 4);
  const again = e.full([2 ** 25], 1);
  // Reading it takes as much again, and the first try gives back what waits.
  await assert.rejects(e.read(again), (error: Error) => error instanceof OutOfMemoryError && /read/.test(error.message));
  assert.equal((await e.read(again)).length, 2 ** 25);
  e.free(again, small);
  assert.equal(e.memory().tensors, 0);
  assert.ok(e.counts().bytes <= 2 ** 29, `${e.counts().bytes}`);
  e.dispose();
});

test('no weight is updated from a gradient that was lost with a tensor that found no memory', async () => {
  const opened = await openDevice();
  const { device } = opened;
  const e = new WebgpuEngine(opened);
  const weight = e.full([3], 1, 'weights');
  const [m, v] = [e.full([3], 0, 'optimizer'), e.full([3], 0, 'optimizer')];
  const options = { lr: 0.5, beta1: 0.9, beta2: 0.999, eps: 0, weightDecay: 0, step: 1, magnitude: undefined };
  assert.deepEqual(await e.read(weight), Float32Array.of(1, 1, 1));
  // The device refuses buffers of 1 MiB: they are gone at once, and their error scope says so.
  const [create, pop] = [device.createBuffer.bind(device), device.popErrorScope.bind(device)];
  let refused = false;
  device.createBuffer = ((d: GPUBufferDescriptor) => {
    const buffer = create(d);
    refused = d.size === 2 ** 20;
    if (refused) buffer.destroy();
    return buffer;
  }) as typeof device.createBuffer;
  device.popErrorScope = (async () => {
    const now = refused;
    const error = await pop();
    return now ? { message: 'no memory' } : error;
  }) as typeof device.popErrorScope;
  const gradient = () => e.scope(() => e.affine(weight, 0, 7));
  const big = e.full([2 ** 18], 1);
  const grad = gradient();
  // The update comes in a later batch than the gradient, which was dropped with the large tensor's.
  e.scope(() => {
    for (let i = 0; i < 80; i++) e.abs(weight);
  });
  e.adamwStep({ weight, m, v }, grad, options);
  await assert.rejects(e.read(grad), OutOfMemoryError);
  e.free(big, grad);
  for (const [t, want] of [[weight, 1], [m, 0], [v, 0]] as const) assert.deepEqual(await e.read(t), new Float32Array(3).fill(want));
  const good = gradient();
  e.adamwStep({ weight, m, v }, good, options);
  assert.deepEqual(await e.read(good), new Float32Array(3).fill(7));
  assert.ok((await e.read(weight)).every((x) => Math.abs(x - 0.5) < 1e-5), `${await e.read(weight)}`);
  e.dispose();
});

test('a device that is gone is named, in reads and in operations', async () => {
  const opened = await openDevice();
  const e = new WebgpuEngine(opened);
  const a = e.full([2], 1);
  opened.device.destroy();
  await assert.rejects(e.read(a), (error: Error) => error instanceof DeviceLostError && error.code === 'device-lost' && error.message.includes(opened.name));
  assert.throws(() => e.add(a, a), DeviceLostError);
  await assert.rejects(e.read(a), DeviceLostError);
});

test('a kind of adapter that is not there is refused with those that are, and an unknown kind too', async () => {
  await assert.rejects(createWebgpuEngine({ adapter: 'hardware' }), (e: Error) => e instanceof EngineUnavailableError && /SwiftShader.*\(software\).*SLIMFIT_WEBGPU_ADAPTER=software/.test(e.message));
  process.env.SLIMFIT_WEBGPU_ADAPTER = 'fast';
  await assert.rejects(createWebgpuEngine(), (e: Error) => e instanceof InvalidArgumentError && e.message.includes("'fast'"));
  process.env.SLIMFIT_WEBGPU_ADAPTER = 'software';
});
