import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEngine, engineChoice } from '../../src/engine/choose';
import type { EngineName } from '../../src/engine/engine';
import { EngineUnavailableError, InvalidArgumentError } from '../../src/errors';
import { loadTensorflow } from '../../src/engine/tfjs/tensorflowBinding';

/** Runs `fn` under a value of SLIMFIT_ENGINE, and gives what it wrote to stderr. */
async function under(value: string | undefined, fn: () => Promise<void>): Promise<string> {
  const before = process.env.SLIMFIT_ENGINE;
  const write = process.stderr.write;
  let said = '';
  if (value === undefined) delete process.env.SLIMFIT_ENGINE;
  else process.env.SLIMFIT_ENGINE = value;
  process.stderr.write = ((text: string) => ((said += text), true)) as typeof write;
  try {
    await fn();
  } finally {
    process.stderr.write = write;
    if (before === undefined) delete process.env.SLIMFIT_ENGINE;
    else process.env.SLIMFIT_ENGINE = before;
  }
  return said;
}

let noTensorflow: string | false = false;
try {
  loadTensorflow();
} catch (error) {
  noTensorflow = (error as Error).message;
}

test('the engine that is asked for by name is the one that is given, without a word', async () => {
  for (const name of ['wasm', 'cpu'] as const) {
    const said = await under('tensorflow', async () => {
      const engine = await chooseEngine(name);
      assert.equal(engine.name, name);
      engine.dispose();
    });
    assert.equal(said, '');
  }
});

test('SLIMFIT_ENGINE chooses when no name is given, and an empty one asks for nothing', async () => {
  await under('cpu', async () => {
    assert.equal((await chooseEngine()).name, 'cpu');
    const { chosen, because } = await engineChoice();
    assert.deepEqual({ chosen, because }, { chosen: 'cpu', because: 'SLIMFIT_ENGINE asks for it' });
  });
  await under('', async () => assert.equal((await chooseEngine()).name, (await engineChoice()).chosen));
});

test('an unknown engine is refused with the names there are, and says when it came from SLIMFIT_ENGINE', async () => {
  for (const name of ['gpu', 'toString', 'constructor'])
    await assert.rejects(chooseEngine(name as EngineName), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(`'${name}'`) && /tensorflow, webgpu, wasm, cpu/.test(e.message));
  await under('gpu', () => assert.rejects(chooseEngine(), (e: Error) => e instanceof InvalidArgumentError && e.message.includes('SLIMFIT_ENGINE')));
});

test('an adapter is chosen for webgpu alone, and is hardware or software', async () => {
  for (const name of ['tensorflow', 'wasm', 'cpu'] as const) await assert.rejects(chooseEngine(name, { adapter: 'software' }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(name) && e.message.includes('webgpu'));
  for (const name of ['webgpu', undefined] as const)
    await assert.rejects(chooseEngine(name, { adapter: 'fast' as 'hardware' }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes("'fast'") && /hardware or software/.test(e.message));
});

test('mixed precision on an engine that has none is said once, and float32 it is; an unknown precision is refused, by argument and by SLIMFIT_PRECISION', async () => {
  const said = await under('cpu', async () => {
    for (let i = 0; i < 2; i++) {
      const engine = await chooseEngine('cpu', { precision: 'mixed' });
      assert.equal(engine.precision, 'float32');
      engine.dispose();
    }
  });
  assert.match(said, /^slimfit: the cpu engine computes in float32: .*webgpu.*\n$/);
  await assert.rejects(chooseEngine('cpu', { precision: 'half' as 'mixed' }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes("'half'"));
  process.env.SLIMFIT_PRECISION = 'tf32';
  try {
    await assert.rejects(chooseEngine('cpu'), (e: Error) => e instanceof InvalidArgumentError && /SLIMFIT_PRECISION.*'tf32'/.test(e.message));
  } finally {
    delete process.env.SLIMFIT_PRECISION;
  }
});

test('an engine that does not start is unavailable, by argument and by environment, and never replaced', async () => {
  // No Vulkan, and on other systems no software adapter.
  const before = { ...process.env };
  Object.assign(process.env, { VK_DRIVER_FILES: '/nonexistent.json', VK_ICD_FILENAMES: '', SLIMFIT_WEBGPU_ADAPTER: 'software' });
  try {
    await assert.rejects(chooseEngine('webgpu'), (e: Error) => e instanceof EngineUnavailableError && /Vulkan|adapter/.test(e.message));
    await under('webgpu', async () => {
      await assert.rejects(chooseEngine(), EngineUnavailableError);
      const { chosen, because, adapters } = await engineChoice();
      assert.deepEqual({ chosen, because, adapters }, { chosen: undefined, because: 'SLIMFIT_ENGINE asks for webgpu, which is not available', adapters: [] });
    });
  } finally {
    for (const name of ['VK_DRIVER_FILES', 'VK_ICD_FILENAMES', 'SLIMFIT_WEBGPU_ADAPTER']) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
});

test('without a wish the first engine on a GPU is chosen, else the first but webgpu, and each has its reason', async () => {
  const said = await under(undefined, async () => {
    const { chosen, reasons } = await engineChoice();
    assert.deepEqual(reasons.map((r) => r.name), ['tensorflow', 'webgpu', 'wasm', 'cpu']);
    assert.ok(reasons.every((r) => r.why.length > 0));
    assert.equal(reasons[0].available, noTensorflow === false);
    const gpu = reasons.find((r) => r.available && r.why.startsWith('GPU'));
    assert.equal(chosen, gpu?.name ?? (noTensorflow ? 'wasm' : 'tensorflow'));
    assert.equal((await chooseEngine()).name, chosen);
  });
  if (!noTensorflow) assert.equal(said, '');
});
