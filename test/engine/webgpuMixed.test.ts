/** The kernels of mixed precision as Dawn reads them: on its null backend, which has the extension and computes nothing. What they compute is tested with an emulated unit (webgpu/mixed.ts). */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { createWebgpuEngine } from '../../src/engine/webgpu/createWebgpuEngine';
import { loadDawn, openDevice } from '../../src/engine/webgpu/dawn';
import { type Kernel, wgsl } from '../../src/engine/webgpu/kernel';
import { attentionGradKey, type AttentionGradKind, attentionKey, type OperandForm } from '../../src/engine/webgpu/kernels/attention';
import { mixedAttentionColumnsKernel, mixedAttentionFits, mixedAttentionKernel, mixedAttentionRowsKernel } from '../../src/engine/webgpu/kernels/attentionMixed';
import { matmulKey, type MatmulKind } from '../../src/engine/webgpu/kernels/matmul';
import { mixedMatmulKernel, mixedThreads, rectangleOf } from '../../src/engine/webgpu/kernels/matmulMixed';
import { type MatrixAdapter, type MatrixUnit, matrixUnitOf, MIXED_TOGGLES, subgroupMatrices } from '../../src/engine/webgpu/matrixUnit';
import { WebgpuEngine } from '../../src/engine/webgpu/webgpuEngine';
import { SHAPES } from './webgpu/emulatedUnit';

const FLAGS = ['backend=null', `enable-dawn-features=${MIXED_TOGGLES.join(',')}`];
const FEATURES = ['shader-f16', 'subgroups', 'subgroup-size-control', 'chromium-experimental-subgroup-matrix'] as const;

async function nullDevice(): Promise<GPUDevice> {
  const adapter = await (await loadDawn(FLAGS)).requestAdapter();
  assert.ok(adapter);
  return adapter.requestDevice({ requiredFeatures: FEATURES as unknown as GPUFeatureName[] });
}

/** The null backend has 16 KiB of workgroup memory, a device with matrix units 32 at least: that alone may be complained about. */
const NEEDS = /^The total use of workgroup storage \((\d+) bytes\) is larger than the maximum allowed \(16384 bytes\)/;

/** Likewise 8 buffers a kernel, which the engine heeds (webgpuEngine.ts, mostBuffers). What forms its operands have changes no kernel's workgroup memory. */
const BUFFERS = /^The number of storage buffers \((\d+)\) in the Compute stage exceeds the maximum per-stage limit \(8\)/;

/** What Dawn says of a kernel: of its text, and of the pipeline. */
async function complaints(device: GPUDevice, code: string): Promise<string[]> {
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  const text = await device.popErrorScope();
  const said = messages.map((m) => `${m.type} in line ${m.lineNum}: ${m.message}`);
  if (text) return [...said, text.message];
  device.pushErrorScope('validation');
  device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: 'main' } });
  const pipeline = await device.popErrorScope();
  const needs = Number(NEEDS.exec(pipeline?.message ?? '')?.[1] ?? Infinity);
  const buffers = Number(BUFFERS.exec(pipeline?.message ?? '')?.[1] ?? Infinity);
  return pipeline && needs > 32_768 && buffers > 12 ? [...said, pipeline.message] : said;
}

const bools = [false, true];
const KINDS: readonly MatmulKind[] = ([64, 128] as const).flatMap((tile) =>
  bools.flatMap((transposeA) => bools.flatMap((transposeB) => bools.flatMap((vectorA) => bools.flatMap((vectorB) => bools.flatMap((vectorOut) => bools.map((bias): MatmulKind => ({ tile, transposeA, transposeB, vectorA, vectorB, vectorOut, bias }))))))),
);

for (const [maker, shape] of Object.entries(SHAPES))
  test(`every kernel of mixed precision compiles for matrix units like those of ${maker}, without an error or a warning`, async () => {
    const device = await nullDevice();
    for (const pinned of bools) {
      const unit = subgroupMatrices(shape, pinned);
      for (const kind of KINDS) assert.deepEqual(await complaints(device, wgsl(mixedMatmulKernel(kind, unit))), [], `${matmulKey(kind)} ${maker}`);
    }
    device.destroy();
  });

/** Every kernel of attention on a unit. */
function* attentionKernels(unit: MatrixUnit, widths: readonly number[]): Generator<readonly [what: string, kernel: Kernel]> {
  const codes: OperandForm = { scale: 16, steps: false };
  const rowCodes: OperandForm = { scale: 1, steps: true };
  for (const d of widths)
    for (const mask of bools)
      for (const dropout of bools) {
        yield [`forward ${attentionKey({ d, mask, dropout })}`, mixedAttentionKernel({ d, mask, dropout }, unit)];
        for (const [q, k, v] of [['f32', 'f32', 'f32'], [codes, codes, codes], [rowCodes, rowCodes, 'f32'], ['f32', 'f32', undefined]] as const) {
          const kind: AttentionGradKind = { d, mask, dropout, q, k, v };
          // Of the gradient of values alone v is not read.
          const walks = v ? [[true, false], [true, true], [false, true]] : [[false, true]];
          for (const [gradient, statistics] of walks) yield [`rows ${gradient} ${statistics} ${attentionGradKey(kind)}`, mixedAttentionRowsKernel(kind, { gradient, statistics }, unit)];
          for (const [dk, dv] of v ? [[true, false], [true, true], [false, true]] : [[false, true]]) yield [`columns ${dk} ${dv} ${attentionGradKey(kind)}`, mixedAttentionColumnsKernel(kind, { dk, dv }, unit)];
        }
      }
}

for (const [maker, shape] of Object.entries(SHAPES))
  test(`every kernel of attention compiles for matrix units like those of ${maker}, without an error or a warning, and takes no more than 32 KiB of workgroup memory`, async () => {
    const device = await nullDevice();
    let kernels = 0;
    // Of 48 values a chunk is left over. A unit that is pinned has another attribute, and nothing else.
    for (const [pinned, widths] of [[false, [16, 32, 48, 64]], [true, [64]]] as const)
      for (const [what, kernel] of attentionKernels(subgroupMatrices(shape, pinned), widths)) {
        kernels++;
        assert.deepEqual(await complaints(device, wgsl(kernel)), [], `${what} ${maker}`);
        assert.equal(kernel.workgroup % shape.mostLanes, 0, what);
      }
    assert.equal(kernels, 5 * 4 * (1 + 3 * 6 + 2));
    device.destroy();
  });

test('a kernel whose text is wrong does not compile: in its types, its majorness, its control flow, and where the device was opened without the extension', async () => {
  const device = await nullDevice();
  const code = wgsl(mixedMatmulKernel(KINDS.at(-1)!, subgroupMatrices(SHAPES.nvidia, true)));
  const spoilt: readonly [RegExp, string][] = [
    [/subgroup_matrix_left<f16, 16, 16>/, 'subgroup_matrix_left<f16, 8, 16>'],
    [/row_major/, 'row_first'],
    [/array<Halves, /, 'array<vec4u, '],
    [/let row = sg/, 'let row = lid'],
    [/enable f16;/, ''],
  ];
  assert.deepEqual(await complaints(device, code), []);
  for (const [from, to] of spoilt) {
    assert.match(code, from);
    assert.notDeepEqual(await complaints(device, code.replace(from, to)), [], String(from));
  }
  device.destroy();
  const plain = (await openDevice('hardware', ['backend=null'])).device;
  assert.match((await complaints(plain, code)).join(), /not allowed/);
  plain.destroy();
});

test('a rectangle of a subgroup is a whole number of matrices, and the rectangles make up the tile', () => {
  for (const shape of Object.values(SHAPES))
    for (const tile of [64, 128]) {
      const { rows, columns } = rectangleOf(tile, shape)!;
      assert.ok(rows % shape.M === 0 && columns % shape.N === 0 && tile % rows === 0 && tile % columns === 0, `${tile} ${rows}×${columns}`);
      assert.equal((tile / rows) * (tile / columns), mixedThreads(tile) / shape.lanes);
    }
  assert.deepEqual(rectangleOf(128, SHAPES.nvidia), { rows: 64, columns: 32 });
});

const F16 = { componentType: 'f16', resultComponentType: 'f32' };
const NVIDIA: MatrixAdapter = {
  features: new Set<string>(FEATURES),
  limits: { maxComputeWorkgroupStorageSize: 49_152, maxComputeInvocationsPerWorkgroup: 1024 },
  info: { subgroupMinSize: 32, subgroupMaxSize: 32, subgroupMatrixConfigs: [{ ...F16, resultComponentType: 'f16', M: 16, N: 16, K: 16 }, { ...F16, M: 16, N: 8, K: 16 }, { ...F16, M: 16, N: 16, K: 16 }, { componentType: 'u8', resultComponentType: 'u32', M: 16, N: 16, K: 32 }] },
};

test('of an adapter’s matrix units the largest is taken that sums in float32, with the features that it needs; else the reason is told', () => {
  const found = matrixUnitOf(NVIDIA);
  assert.ok('unit' in found);
  const { M, N, K, lanes, attributes } = found.unit;
  assert.deepEqual([M, N, K, lanes, attributes], [16, 16, 16, 32, '']);
  assert.ok(!found.features.includes('subgroup-size-control'));
  const intel = matrixUnitOf({ ...NVIDIA, info: { subgroupMinSize: 16, subgroupMaxSize: 32, subgroupMatrixConfigs: [{ ...F16, M: 8, N: 16, K: 16 }] } });
  assert.ok('unit' in intel);
  assert.deepEqual([intel.unit.M, intel.unit.attributes, intel.features.includes('subgroup-size-control')], [8, '@subgroup_size(16)', true]);
  const apple = [{ componentType: 'f32', resultComponentType: 'f32', M: 8, N: 8, K: 8 }, { ...F16, resultComponentType: 'f16', M: 8, N: 8, K: 8 }];
  for (const [changes, why] of [
    [{ features: new Set(['subgroups']) }, /no shader-f16, chromium-experimental-subgroup-matrix/],
    [{ info: { ...NVIDIA.info, subgroupMatrixConfigs: apple } }, /8×8×8 f16→f16/],
    [{ info: { ...NVIDIA.info, subgroupMatrixConfigs: undefined } }, /names no sizes/],
    [{ features: new Set<string>(FEATURES.filter((f) => f !== 'subgroup-size-control')), info: { ...NVIDIA.info, subgroupMinSize: 16 } }, /16 to 32 threads/],
    [{ limits: { ...NVIDIA.limits, maxComputeWorkgroupStorageSize: 16_384 } }, /16 KiB/],
  ] as const) {
    const none = matrixUnitOf({ ...NVIDIA, ...changes });
    assert.ok('why' in none && why.test(none.why), JSON.stringify(none));
  }
});

test('a mixed engine records its products and the sums of their slices without a complaint of Dawn', async () => {
  const opened = { device: await nullDevice(), name: 'null', kind: 'hardware' as const, matrix: subgroupMatrices(SHAPES.nvidia, true) };
  const e = new WebgpuEngine(opened);
  assert.equal(e.precision, 'mixed');
  const [x, w, b] = [e.full([4096, 768], 1), e.full([64, 768], 1), e.full([64], 1)];
  const y = e.linear(x, w, b);
  const made = [y, e.linearGradWeight(y, x), e.matmul(w, x, { transposeB: true })];
  const before = e.counts().dispatches;
  e.free(e.linearGradWeight(y, x));
  assert.equal(e.counts().dispatches - before, 2, 'a product in slices, and their sum');
  await e.read(made[2]);
  e.free(x, w, b, ...made);
  assert.equal(e.memory().tensors, 0);
  e.dispose();
});

test('a mixed engine records attention, and all seven choices of its gradients from values and from codes, without a complaint of Dawn', async () => {
  const device = await nullDevice();
  // The null backend has less workgroup memory than these kernels take, and computes nothing: the cells of one matrix are enough for it.
  const create = device.createShaderModule.bind(device);
  device.createShaderModule = (d) => create({ ...d, code: d.code.replace(/(var<workgroup> cells: array<vec4f, )640>/, '$1160>') });
  const e = new WebgpuEngine({ device, name: 'null', kind: 'hardware', matrix: subgroupMatrices(SHAPES.nvidia, true) });
  const [B, T, A, d] = [2, 128, 3, 32];
  const [q, k, v, grad] = [1, 2, 3, 4].map((x) => e.full([B, T, A * d], x));
  const mask = e.full([B, 1, 1, T], 0);
  const settings = { heads: A, scale: 1 / 8, mask, dropout: { p: 0.1, key: { seed: 1, counter: 2 } } };
  const context = e.attention(q, k, v, settings);
  const codes = [q, k, v].map((x) => e.scope(() => e.encode(e.reshape(x, [B, T, A, d]), 'q3.4')));
  for (const [x, y, z] of [[q, k, v], codes])
    for (let bits = 1; bits <= 7; bits++) {
      const before = e.counts().dispatches;
      const got = e.attentionGrad(grad, x, y, bits === 4 ? undefined : z, settings, { dq: (bits & 1) > 0, dk: (bits & 2) > 0, dv: (bits & 4) > 0 });
      assert.equal(e.counts().dispatches - before, bits === 1 ? 1 : 2);
      e.free(...[got.dq, got.dk, got.dv].flatMap((t) => (t ? [t] : [])));
    }
  await e.read(context);
  e.free(q, k, v, grad, mask, context, ...codes.map((x) => x.words));
  assert.equal(e.memory().tensors, 0);
  e.dispose();
});

test('attention goes to matrix units where they divide its heads and blocks, and a sequence has a block of tokens', () => {
  for (const shape of Object.values(SHAPES)) {
    for (const d of [16, 32, 48, 64]) assert.ok(mixedAttentionFits(32, d, shape), `${d}`);
    for (const [T, d] of [[31, 64], [128, 65], [128, 80], [128, 128], [128, 4]]) assert.ok(!mixedAttentionFits(T, d, shape), `${T} ${d}`);
  }
  assert.ok(mixedAttentionFits(32, 24, SHAPES.apple) && !mixedAttentionFits(32, 24, SHAPES.nvidia));
  // Matrices too wide for a block of 16 columns or rows, and threads that make no whole rows.
  for (const change of [{ N: 32, M: 8 }, { K: 32, M: 8 }, { M: 32, N: 8 }, { lanes: 8 }, { lanes: 128, mostLanes: 128 }, { lanes: 16, mostLanes: 128 }]) assert.ok(!mixedAttentionFits(128, 64, { ...SHAPES.nvidia, ...change }), JSON.stringify(change));
});

test('a device without matrix units computes in float32, and says so once', () => {
  const root = path.resolve(__dirname, '../..');
  const script = `(async () => { const { createWebgpuEngine } = require(${JSON.stringify(path.join(root, 'src/engine/webgpu/createWebgpuEngine.ts'))});
    for (let i = 0; i < 2; i++) { const e = await createWebgpuEngine({ adapter: 'hardware', precision: 'mixed', dawn: ['backend=null'] }); console.log(e.precision, e.device); e.dispose(); } process.exit(0); })();`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', '-e', script], { cwd: root, encoding: 'utf8' });
  assert.match(stdout, /^(float32 GPU \(WebGPU, null-backend.*\)\n){2}$/, stderr);
  assert.match(stderr, /^slimfit: null-backend.* computes in float32, not in mixed precision, since its matrix units do not add products of float16 up in float32 \(it names no sizes\)\n$/);
});

test('a mixed engine is only made when it is asked for', async () => {
  const e = await createWebgpuEngine({ adapter: 'hardware', dawn: ['backend=null'] });
  assert.equal(e.precision, 'float32');
  e.dispose();
});
