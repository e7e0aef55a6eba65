import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Engine, EngineName } from '../../src/engine/engine';
import { ENGINE_NAMES, firstOf, type Makers, startFirst, survey } from '../../src/engine/order';
import { EngineUnavailableError } from '../../src/errors';

/** What an engine finds on a made-up machine. */
type Finds = 'nothing' | 'CPU' | 'GPU';

/** Engines that start or not, and the list of those that are started and not given back. */
function machine(finds: Readonly<Record<EngineName, Finds>>): { makers: Makers; open: EngineName[]; tried: EngineName[] } {
  const open: EngineName[] = [];
  const tried: EngineName[] = [];
  const maker = (name: EngineName) => async (): Promise<Engine> => {
    tried.push(name);
    if (finds[name] === 'nothing') throw new EngineUnavailableError(`${name}\nis not there`);
    open.push(name);
    return { name, device: `${finds[name]} (made up)`, dispose: () => void open.splice(open.indexOf(name), 1) } as unknown as Engine;
  };
  return { makers: Object.fromEntries(ENGINE_NAMES.map((n) => [n, maker(n)])) as unknown as Makers, open, tried };
}

test('the order on every kind of machine: TensorFlow on a GPU, else WebGPU on a GPU, else TensorFlow, wasm, cpu; WebGPU on a CPU never', async () => {
  // Written down by hand: tensorflow, webgpu, wasm and cpu find …, and this one is taken.
  const table: [Finds, Finds, Finds, Finds, EngineName | undefined][] = [
    ['GPU', 'GPU', 'CPU', 'CPU', 'tensorflow'],
    ['GPU', 'CPU', 'CPU', 'CPU', 'tensorflow'],
    ['GPU', 'nothing', 'CPU', 'CPU', 'tensorflow'],
    ['CPU', 'GPU', 'CPU', 'CPU', 'webgpu'],
    ['nothing', 'GPU', 'CPU', 'CPU', 'webgpu'],
    ['nothing', 'GPU', 'nothing', 'nothing', 'webgpu'],
    ['CPU', 'CPU', 'CPU', 'CPU', 'tensorflow'],
    ['CPU', 'nothing', 'CPU', 'CPU', 'tensorflow'],
    ['nothing', 'CPU', 'CPU', 'CPU', 'wasm'],
    ['nothing', 'nothing', 'CPU', 'CPU', 'wasm'],
    ['nothing', 'CPU', 'nothing', 'CPU', 'cpu'],
    ['nothing', 'CPU', 'nothing', 'nothing', undefined],
    ['nothing', 'nothing', 'nothing', 'nothing', undefined],
  ];
  for (const [tensorflow, webgpu, wasm, cpu, taken] of table) {
    const told = `${tensorflow}, ${webgpu}, ${wasm}, ${cpu}`;
    const { makers, open, tried } = machine({ tensorflow, webgpu, wasm, cpu });
    assert.equal(firstOf(await survey(makers))?.name, taken, told);
    assert.deepEqual([open, tried], [[], ENGINE_NAMES], 'a survey starts every engine and gives it back');
    tried.length = 0;
    if (taken === undefined) {
      await assert.rejects(startFirst(makers), (e: Error) => e instanceof EngineUnavailableError && e.message.includes('tensorflow is not there'));
      assert.deepEqual(open, []);
      continue;
    }
    const { engine, missing } = await startFirst(makers);
    assert.equal(engine.name, taken, told);
    assert.deepEqual(open, [taken], `${told}: what was tried and not taken is given back`);
    assert.equal(missing, tensorflow === 'nothing' ? 'tensorflow is not there' : webgpu === 'nothing' && tensorflow !== 'GPU' ? 'webgpu is not there' : '');
    // Nothing is started that cannot be taken any more.
    const last = taken === 'tensorflow' && tensorflow === 'CPU' ? 'webgpu' : taken;
    assert.deepEqual(tried, ENGINE_NAMES.slice(0, ENGINE_NAMES.indexOf(last) + 1), told);
  }
});

test('the reason names a GPU where one computes, and says that none was found where none does', () => {
  const found = (tensorflow: string, webgpu: string) => firstOf([['tensorflow', tensorflow], ['webgpu', webgpu], ['wasm', 'CPU'], ['cpu', 'CPU']].map(([name, why]) => ({ name: name as EngineName, available: why !== '', why })))!;
  assert.deepEqual(found('GPU (a)', 'GPU (b)'), { name: 'tensorflow', because: 'it computes on a GPU' });
  assert.deepEqual(found('CPU (a)', 'GPU (b)'), { name: 'webgpu', because: 'it computes on a GPU, and tensorflow does not' });
  assert.deepEqual(found('CPU (a)', 'CPU (b)'), { name: 'tensorflow', because: 'no engine finds a GPU here, and on a CPU it is the fastest' });
  assert.deepEqual(found('', 'CPU (b)'), { name: 'wasm', because: 'no engine finds a GPU here, and on a CPU it is the fastest that starts' });
});
