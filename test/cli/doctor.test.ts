import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { missingLibraries } from '../../src/cli/doctor';

const ROOT = path.resolve(__dirname, '../..');
const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-doctor-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** A machine without a GPU for WebGPU: no Vulkan driver, and on other systems no software adapter. */
const NO_GPU = { VK_DRIVER_FILES: '/nonexistent.json', VK_ICD_FILENAMES: '', SLIMFIT_WEBGPU_ADAPTER: 'software' };

/** `slimfit doctor` with an environment and arguments for node. @returns its exit code, and its report: values by name */
function doctor(env: Record<string, string>, ...node: string[]) {
  const r = spawnSync(process.execPath, ['--import', 'tsx', ...node, path.join(ROOT, 'src/cli/main.ts'), 'doctor'], { cwd: ROOT, encoding: 'utf8', env: { ...process.env, SLIMFIT_ENGINE: '', ...env } });
  const report = new Map<string, string[]>();
  for (const line of r.stdout.trimEnd().split('\n')) {
    const name = line.slice(0, 10).trimEnd();
    report.set(name, [...(report.get(name) ?? []), line.slice(11)]);
  }
  return { code: r.status, report, err: r.stderr };
}

/** The value of a name that comes once. */
function one(report: Map<string, string[]>, name: string): string {
  assert.equal(report.get(name)?.length, 1, `${name} comes once`);
  assert.notEqual(report.get(name)![0], '', name);
  return report.get(name)![0];
}

test('the doctor tells versions, every engine with its device, what it trains on and why', () => {
  const { code, report, err } = doctor({});
  assert.equal(code, 0, err);
  assert.equal(one(report, 'Node'), `${process.version} (${process.execPath})`);
  assert.equal(one(report, 'npm'), spawnSync('npm', ['--version'], { encoding: 'utf8' }).stdout.trim());
  assert.match(one(report, 'Python'), /^(Python 3\.\d+|not found)/);
  assert.match(one(report, 'Jupyter'), /^JupyterLab \d|slimfit setup/);
  assert.match(one(report, 'kernel'), /kernels.slimfit$|slimfit setup/);
  assert.match(one(report, 'GPU'), /driver/);
  const engines = (report.get('engine') ?? []).map((line) => /^([✓✗]) (\w+): (.+)$/.exec(line)!);
  assert.deepEqual(engines.map((e) => e[2]), ['tensorflow', 'webgpu', 'wasm', 'cpu']);
  for (const [line, mark, , why] of engines) assert.match(why, mark === '✓' ? /^(CPU|GPU)\b/ : /npm ci|slimfit setup|install|driver/, line);
  const starts = engines.filter((e) => e[1] === '✓');
  const best = (starts.find((e) => e[3].startsWith('GPU')) ?? starts.find((e) => e[2] !== 'webgpu')!)[2];
  assert.match(one(report, 'trains on'), new RegExp(`^${best}: `));
});

test('the engine that SLIMFIT_ENGINE asks for is the one, and the doctor says who asked', () => {
  const { code, report, err } = doctor({ SLIMFIT_ENGINE: 'cpu' });
  assert.equal(code, 0, err);
  assert.match(one(report, 'trains on'), /^cpu: .*SLIMFIT_ENGINE/);
  // What would make it faster is within reach: the variable, where a better engine starts.
  if (report.get('engine')!.some((line) => line.startsWith('✓ tensorflow'))) assert.match(one(report, 'faster'), /SLIMFIT_ENGINE/);
});

test('an engine that is asked for and not there leaves nothing to train on: exit code 1, and its name', () => {
  const { code, report } = doctor({ SLIMFIT_ENGINE: 'webgpu', ...NO_GPU });
  assert.equal(code, 1);
  assert.match(one(report, 'trains on'), /^nothing: .*webgpu/);
});

test('where no engine starts the exit code is 1, and each engine has its reason', () => {
  // A process that does not find any of TensorFlow's packages.
  const hook = path.join(folder, 'withoutTensorflow.cjs');
  writeFileSync(
    hook,
    `const Module = require('node:module');
const resolve = Module._resolveFilename;
Module._resolveFilename = function (request, ...rest) {
  if (request.startsWith('@tensorflow/')) throw new Error("Cannot find module '" + request + "'");
  return resolve.call(this, request, ...rest);
};
`,
  );
  const { code, report, err } = doctor(NO_GPU, '--require', hook);
  assert.equal(code, 1, err);
  assert.deepEqual((report.get('engine') ?? []).map((line) => line.split(':')[0]), ['✗ tensorflow', '✗ webgpu', '✗ wasm', '✗ cpu']);
  for (const line of report.get('engine')!) assert.match(line, line.startsWith('✗ webgpu') ? /Vulkan|adapter/ : /@tensorflow.*npm ci/);
  assert.match(one(report, 'adapter'), /^none: the line of webgpu/);
  assert.match(one(report, 'trains on'), /^nothing/);
  assert.doesNotMatch(err, /\n\s+at /);
});

test('the CUDA libraries that no folder holds are told by name', () => {
  const [a, b] = ['a', 'b'].map((name) => path.join(folder, name));
  mkdirSync(a);
  mkdirSync(b);
  writeFileSync(path.join(a, 'libcudart.so.12'), '');
  writeFileSync(path.join(b, 'libcudnn.so'), '');
  // Neither a longer name nor a static library is the library.
  writeFileSync(path.join(b, 'libcublasLt.so.12'), '');
  writeFileSync(path.join(b, 'libcufft.a'), '');
  const wanted = ['libcudart', 'libcublas', 'libcudnn', 'libcufft'];
  assert.deepEqual(missingLibraries(wanted, [a, path.join(folder, 'none'), b]), ['libcublas', 'libcufft']);
  assert.deepEqual(missingLibraries(wanted, [a]), ['libcublas', 'libcudnn', 'libcufft']);
  assert.deepEqual(missingLibraries(wanted, []), wanted);
  assert.deepEqual(missingLibraries(['libcudart'], [a]), []);
});
