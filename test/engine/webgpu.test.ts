/** The WebGPU engine on a software driver, each suite in a process of its own, and on this machine's GPU where there is one. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { createWebgpuEngine } from '../../src/engine/webgpu/createWebgpuEngine';
import { noSoftwareVulkan, onSoftwareVulkan, outcomes, type Ran, runApart } from './webgpu/softwareVulkan';

const GOLDEN = path.resolve(__dirname, '../../../shared/golden');

/** Each test of a suite that ran apart, as a test of its own. */
async function report(t: TestContext, { out, err }: Ran, least: number): Promise<void> {
  const found = outcomes(out);
  assert.ok(found.length >= least, `${found.length} tests\n${out}${err}`);
  for (const { name, ok, detail } of found) await t.test(name, () => assert.ok(ok, detail));
}

for (const [suite, least] of [
  ['contract', 30],
  ['kernels', 19],
  ['memory', 9],
  ['steps', 4],
] as const)
  test(`WebGPU on SwiftShader: ${suite}`, { skip: noSoftwareVulkan }, (t) => report(t, onSoftwareVulkan(`test/engine/webgpu/${suite}.ts`), least));

test('golden values are reproduced by WebGPU on SwiftShader', { skip: noSoftwareVulkan || (existsSync(GOLDEN) ? false : 'no ../shared/golden') }, () => {
  const { code, out, err } = onSoftwareVulkan('test/parity/main.ts', GOLDEN, 'webgpu');
  const lines = out.trim().split('\n').map((l) => JSON.parse(l) as { engine: string; ok: boolean });
  assert.ok(lines.length >= 17, `${lines.length} lines\n${err}`);
  assert.deepEqual(lines.filter((l) => !l.ok || l.engine !== 'webgpu'), []);
  assert.equal(code, 0, err);
});

test('the doctor tells the software adapter, its limits and features, and SLIMFIT_ENGINE=webgpu trains on it', { skip: noSoftwareVulkan }, () => {
  const { out, err } = onSoftwareVulkan('src/cli/main.ts', 'doctor');
  assert.match(out, /^engine +✓ webgpu: CPU \(WebGPU, .*SwiftShader/m, err);
  assert.match(out, /^adapter +software .*SwiftShader.*: tensors up to 1(\.0)? GiB, workgroups of 256 threads and 32 KiB; .*timestamp-query/m);
  // A software adapter is never taken without being asked for.
  assert.doesNotMatch(out, /^trains on +webgpu/m);
});

test('WebGPU on the GPU of this machine: contract and kernels', async (t) => {
  try {
    (await createWebgpuEngine({ adapter: 'hardware' })).dispose();
  } catch (error) {
    return t.skip((error as Error).message);
  }
  for (const [suite, least] of [['contract', 30], ['kernels', 19]] as const) await report(t, runApart(`test/engine/webgpu/${suite}.ts`, [], { SLIMFIT_WEBGPU_ADAPTER: 'hardware' }), least);
});
