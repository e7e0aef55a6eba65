/** Choosing WebGPU on a machine that has a software adapter alone, and what its engine tells of its memory; run by test/engine/webgpu.test.ts in a process that finds SwiftShader. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEngine } from '../../../src/engine/choose';
import { EngineUnavailableError } from '../../../src/errors';
import { engineChoice } from '../../../src/inspect/engineCard';

delete process.env.SLIMFIT_ENGINE;
const DISPLAY = Symbol.for('Jupyter.display');
const shownBy = (value: object) => (value as Record<symbol, () => Record<string, string>>)[DISPLAY]();

/** Runs `fn` with a value of SLIMFIT_WEBGPU_ADAPTER, or none. */
async function under(value: string | undefined, fn: () => Promise<void>): Promise<void> {
  const before = process.env.SLIMFIT_WEBGPU_ADAPTER;
  const set = (v: string | undefined) => (v === undefined ? delete process.env.SLIMFIT_WEBGPU_ADAPTER : (process.env.SLIMFIT_WEBGPU_ADAPTER = v));
  set(value);
  await fn().finally(() => set(before));
}

test('a software adapter is not taken without a wish, not even when webgpu is asked for by name', () =>
  under(undefined, async () => {
    await assert.rejects(chooseEngine('webgpu'), (e: Error) => e instanceof EngineUnavailableError && /SwiftShader.*\(software\).*SLIMFIT_WEBGPU_ADAPTER=software/.test(e.message));
    const engine = await chooseEngine();
    assert.notEqual(engine.name, 'webgpu');
    engine.dispose();
  }));

test('a software adapter is taken when it is asked for in a cell, over the environment variable', () =>
  under('hardware', async () => {
    const engine = await chooseEngine('webgpu', { adapter: 'software' });
    assert.match(engine.device, /^CPU \(WebGPU, .*SwiftShader/);
    engine.dispose();
  }));

test('the adapters are told whatever is chosen, with limits and features', () =>
  under(undefined, async () => {
    const { chosen, reasons, adapters } = await engineChoice();
    assert.notEqual(chosen, 'webgpu');
    assert.equal(reasons.find((r) => r.name === 'webgpu')?.available, false);
    assert.equal(adapters.length, 1);
    const { kind, name, maxBuffer, maxBinding, workgroupThreads, workgroupBytes, features } = adapters[0];
    assert.deepEqual({ kind, maxBuffer, maxBinding, workgroupThreads, workgroupBytes }, { kind: 'software', maxBuffer: 2 ** 30, maxBinding: 2 ** 30, workgroupThreads: 256, workgroupBytes: 32768 });
    assert.match(name, /SwiftShader/);
    assert.ok(features.includes('subgroups') && features.includes('timestamp-query'));
  }));

test('a choice shows itself in a cell: the verdict, every engine with its reason, and the adapters', async () => {
  const { 'text/plain': text, 'text/html': html } = shownBy(await engineChoice());
  assert.match(text, /^Trains on \w+: no engine finds a GPU here/);
  for (const shown of [text, html]) for (const name of ['tensorflow', 'webgpu', 'wasm', 'cpu', 'SwiftShader', 'largest tensor', 'tensor cores']) assert.ok(shown.includes(name), name);
  assert.match(text, /^ {2}✓ webgpu: CPU \(WebGPU, .*SwiftShader/m);
  assert.match(text, /^ {2}shader-f16: (yes|no)$/m);
});

test('the engine holds at least what is alive, tells what waits, shows both in a cell, and holds nothing once it is disposed of', async () => {
  const engine = await chooseEngine('webgpu', { adapter: 'software' });
  const [weights, work] = [engine.full([1000, 1000], 1, 'weights'), engine.full([512, 512], 0)];
  const before = engine.memory();
  assert.equal(before.totalLive, 4 * (1_000_000 + 262_144));
  assert.ok(before.held && before.held.bytes >= before.totalLive && before.held.bytes < 1.07 * before.totalLive, JSON.stringify(before.held));
  assert.equal(before.held.idleBytes, 0);
  engine.free(work);
  const after = engine.memory();
  assert.deepEqual(after.held, { ...before.held, idleBytes: 4 * 262_144 });
  const text = shownBy(engine)['text/plain'];
  assert.match(text, /^webgpu on CPU \(WebGPU, .*SwiftShader.*: 1 tensor$/m);
  assert.match(text, /^weights +3\.8 MiB +3\.8 MiB$/m);
  assert.match(text, /^workspace +0 B +1\.0 MiB$/m);
  assert.match(text, /^It holds 4\.\d MiB of the device in 3 buffers; 1\.0 MiB wait for tensors to come\.$/m);
  engine.free(weights);
  engine.dispose();
  assert.deepEqual(engine.memory().held, { buffers: 0, bytes: 0, idleBytes: 0 });
});
