/** The WebGPU engine on a software driver, each suite in a process of its own, and on this machine's GPU where there is one. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { createWebgpuEngine } from '../../src/engine/webgpu/createWebgpuEngine';
import { noSoftwareVulkan, onSoftwareVulkan, outcomes, type Ran, runApart, SOFTWARE_VULKAN } from './webgpu/softwareVulkan';

const GOLDEN = path.resolve(__dirname, '../../../shared/golden');

/** Each test of a suite that ran apart, as a test of its own. */
async function report(t: TestContext, { out, err }: Ran, least: number): Promise<void> {
  const found = outcomes(out);
  assert.ok(found.length >= least, `${found.length} tests\n${out}${err}`);
  for (const { name, ok, detail } of found) await t.test(name, () => assert.ok(ok, detail));
}

for (const [suite, least] of [
  ['contract', 31],
  ['kernels', 19],
  ['memory', 9],
  ['choice', 5],
  ['mixed', 18],
  ['steps', 5],
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
  const { code, out, err } = onSoftwareVulkan('src/cli/main.ts', 'doctor');
  assert.equal(code, 0, err);
  assert.match(out, /^engine +✓ webgpu: CPU \(WebGPU, .*SwiftShader/m, err);
  assert.match(out, /^adapter +software .*SwiftShader.*; largest tensor: 1\.0 GiB \(buffer 1\.0 GiB, binding 1\.0 GiB\); workgroup: 256 threads, 32\.0 KiB in common; shader-f16: (yes|no); subgroups: yes; chromium-experimental-subgroup-matrix \(tensor cores\): (yes|no); timestamp-query: yes; mixed precision: .+$/m);
  // A software adapter is never taken without being asked for.
  assert.match(out, /^trains on +(tensorflow|wasm|cpu): no engine finds a GPU here/m);
  const asked = runApart('src/cli/main.ts', ['doctor'], { ...SOFTWARE_VULKAN, SLIMFIT_WEBGPU_ADAPTER: 'software', SLIMFIT_ENGINE: 'webgpu' });
  assert.equal(asked.code, 0, asked.err);
  assert.match(asked.out, /^trains on +webgpu: SLIMFIT_ENGINE asks for it$/m);
  // Not asked for, it is seen and told of, and is no engine.
  const unasked = runApart('src/cli/main.ts', ['doctor'], { ...SOFTWARE_VULKAN, SLIMFIT_WEBGPU_ADAPTER: '' });
  assert.match(unasked.out, /^engine +✗ webgpu: WebGPU finds no hardware adapter, only .*SwiftShader.* \(software\): install the GPU's driver, or set SLIMFIT_WEBGPU_ADAPTER=software/m);
  assert.match(unasked.out, /^adapter +software .*SwiftShader/m);
});

test('where Dawn does not load the doctor says why and what to do, and another engine trains', { skip: noSoftwareVulkan }, () => {
  const hooks = 'export const resolve = (name, context, next) => { if (name === "webgpu") throw new Error("no prebuilt file for this platform"); return next(name, context); };';
  const register = `import { register } from 'node:module'; register('data:text/javascript,${encodeURIComponent(hooks)}');`;
  const { code, out, err } = runApart('src/cli/main.ts', ['doctor'], { ...SOFTWARE_VULKAN, NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(register)}` });
  assert.equal(code, 0, err);
  assert.match(out, /^engine +✗ webgpu: WebGPU does not load \(no prebuilt file for this platform\): run `npm ci`, or choose another engine$/m);
  assert.match(out, /^adapter +none/m);
  assert.match(out, /^trains on +(tensorflow|wasm|cpu): /m);
});

test('WebGPU on the GPU of this machine: contract, kernels and mixed precision', async (t) => {
  try {
    (await createWebgpuEngine({ adapter: 'hardware' })).dispose();
  } catch (error) {
    return t.skip((error as Error).message);
  }
  for (const [suite, least] of [['contract', 31], ['kernels', 19], ['mixed', 18]] as const) await report(t, runApart(`test/engine/webgpu/${suite}.ts`, [], { SLIMFIT_WEBGPU_ADAPTER: 'hardware' }), least);
});
