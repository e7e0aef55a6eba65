import assert from 'node:assert/strict';
import Module from 'node:module';
import { test } from 'node:test';
import { chooseEngine, engineChoice } from '../../src/engine/choose';
import { EngineUnavailableError } from '../../src/errors';

// This file's process has no TensorFlow: its package is not found.
const loader = Module as unknown as { _resolveFilename(request: string, ...rest: unknown[]): string };
const resolve = loader._resolveFilename;
loader._resolveFilename = function (request, ...rest) {
  if (request.startsWith('@tensorflow/tfjs-node-gpu')) throw new Error(`Cannot find module '${request}'`);
  return resolve.call(this, request, ...rest);
};
delete process.env.SLIMFIT_ENGINE;
// Nor a GPU by WebGPU.
process.env.VK_DRIVER_FILES = '/nonexistent.json';
process.env.SLIMFIT_WEBGPU_ADAPTER = 'software';

test('without TensorFlow the wasm engine takes over, and one line says so, what it costs and why', async () => {
  const write = process.stderr.write;
  let said = '';
  process.stderr.write = ((text: string) => ((said += text), true)) as typeof write;
  try {
    assert.equal((await chooseEngine()).name, 'wasm');
    assert.equal((await chooseEngine()).name, 'wasm');
  } finally {
    process.stderr.write = write;
  }
  assert.equal(said.split('\n').length, 2, said);
  assert.match(said, /^slimfit: falling back to the wasm engine, .*6 times slower.*17 instead of 105 GFLOP\/s.*because .*tfjs-node-gpu.*\n$/);
});

test('without TensorFlow an explicit wish for it is an error that says what to do, never another engine', async () => {
  await assert.rejects(chooseEngine('tensorflow'), (e: Error) => e instanceof EngineUnavailableError && /npm ci|slimfit setup/.test(e.message));
  const { chosen, reasons } = await engineChoice();
  assert.equal(chosen, 'wasm');
  assert.equal(reasons[0].available, false);
  assert.match(reasons[0].why, /npm ci|slimfit setup/);
});
