/** Products and attention in mixed precision, and long sums in slices, on a device without matrix units: what a unit computes is emulated (emulatedUnit.ts), all else is the kernel's own text. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { AttentionOperand, AttentionSettings, CodeEncoding } from '../../../src/engine/engine';
import { dropoutMask } from '../../../src/engine/randomBits';
import type { Slot } from '../../../src/engine/webgpu/bufferPool';
import { type OpenedDevice, openDevice } from '../../../src/engine/webgpu/dawn';
import { Gpu } from '../../../src/engine/webgpu/gpu';
import { matmulKernel, matmulKey, type MatmulKind, matmulPlan } from '../../../src/engine/webgpu/kernels/matmul';
import { mixedMatmulKernel, mixedPlan } from '../../../src/engine/webgpu/kernels/matmulMixed';
import type { MatrixShape, MatrixUnit } from '../../../src/engine/webgpu/matrixUnit';
import { WebgpuEngine } from '../../../src/engine/webgpu/webgpuEngine';
import { Random } from '../../../src/random';
import { half } from '../half';
import { attention, map, matmul, random, type Ref } from '../reference';
import { emulatedUnit, SHAPES } from './emulatedUnit';

// Where the device has matrix units of its own, they are tested too.
let opened: Promise<OpenedDevice> | undefined;
const device = () => (opened ??= openDevice(undefined, [], 'mixed'));
let gpu: Gpu | undefined;
after(async () => (await device()).device.destroy());

const close = (got: ArrayLike<number>, want: readonly number[], tolerance: number, what = '') => {
  assert.equal(got.length, want.length);
  const scale = want.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-6);
  want.forEach((w, i) => assert.ok(Math.abs(got[i] - w) <= tolerance * scale, `${what} element ${i}: ${got[i]} is not ${w}`));
};

/** One product by one kernel, slices apart: [batches, slices, M, N]. */
async function product(a: Ref, b: Ref, sizes: readonly [M: number, N: number, K: number, batches: number], kind: MatmulKind, cut: { slices: number; chunk: number }, unit: MatrixUnit | undefined, bias?: Ref): Promise<Float32Array> {
  gpu ??= new Gpu(await device());
  const g = gpu;
  const [M, N, K, batches] = sizes;
  const slotOf = (t: Ref): Slot => {
    const slot = g.pool.take(4 * t.data.length);
    g.upload(slot, Float32Array.from(t.data));
    return slot;
  };
  const reads = [a, b, ...(bias ? [bias] : [])].map(slotOf);
  const bytes = 4 * batches * cut.slices * M * N;
  const out = g.pool.take(bytes);
  const make = () => (unit ? mixedMatmulKernel(kind, unit) : matmulKernel(kind));
  // A grid of fewer workgroups than there are products, so that some compute two.
  g.run(`${JSON.stringify(unit)} ${matmulKey(kind)}`, make, reads, [out], [M, N, K, batches, cut.slices, cut.chunk], Math.ceil(N / kind.tile), Math.ceil(M / kind.tile), Math.max(1, batches * cut.slices - 1));
  const values = new Float32Array(await g.read(out, bytes));
  for (const s of [...reads, out]) g.pool.give(s);
  return values;
}

const four = (n: number) => n % 4 === 0;
const kindOf = (tile: MatmulKind['tile'], M: number, N: number, K: number, transposeA: boolean, transposeB: boolean, bias: boolean): MatmulKind => ({
  tile,
  transposeA,
  transposeB,
  vectorA: four(transposeA ? M : K),
  vectorB: four(transposeB ? K : N),
  vectorOut: four(N),
  bias,
});

/** The part of an operand that slice s of K sees. */
function slice(x: Ref, along: 0 | 1, first: number, end: number): Ref {
  const [rows, columns] = x.shape.slice(-2);
  const data = x.data.filter((_, i) => {
    const k = along === 1 ? i % columns : Math.floor(i / columns) % rows;
    return k >= first && k < end;
  });
  const lead = x.shape.slice(0, -2);
  return { shape: along === 1 ? [...lead, rows, end - first] : [...lead, end - first, columns], data };
}

/** A whole tile and edges, with rows of whole vec4, or without. */
const sizesOf = (tile: number) => ({ four: [tile + 24, tile + 12, 72], odd: [tile + 17, tile + 5, 75] }) as const;
type Case = readonly [sizes: 'four' | 'odd', transposeA: boolean, transposeB: boolean];
/** Either operand along K and across it, in whole vec4 and not. */
const ALL: readonly Case[] = [['four', false, false], ['odd', false, false], ['four', true, true], ['odd', true, true]];

/** A unit's products, and the sums of slices and biases, against float64 products of the rounded operands. */
async function check(unit: MatrixUnit | undefined, tile: MatmulKind['tile'], cases: readonly Case[], tolerance = 1e-6): Promise<void> {
  const r = new Random(7);
  for (const [i, [sizes, transposeA, transposeB]] of cases.entries()) {
    const [M, N, K] = sizesOf(tile)[sizes];
    const a = random(r, [2, ...(transposeA ? [K, M] : [M, K])]);
    const b = random(r, [2, ...(transposeB ? [N, K] : [K, N])]);
    const [ra, rb] = unit ? [map(a, half), map(b, half)] : [a, b];
    const name = `${[M, N, K]} ${transposeA} ${transposeB}`;
    const exact = matmul(ra, rb, transposeA, transposeB);
    if (unit) {
      const unrounded = matmul(a, b, transposeA, transposeB);
      assert.ok(Math.max(...exact.data.map((v, j) => Math.abs(v - unrounded.data[j]))) > 1e-3, 'rounding shows');
    }
    // Three slices of 32, the last one shorter or empty; of the first of all cases the whole of K too, with biases.
    const sliced = await product(a, b, [M, N, K, 2], kindOf(tile, M, N, K, transposeA, transposeB, false), { slices: 3, chunk: 32 }, unit);
    const parts = [0, 1, 2].map((s) => matmul(slice(ra, transposeA ? 0 : 1, 32 * s, Math.min(K, 32 * s + 32)), slice(rb, transposeB ? 1 : 0, 32 * s, Math.min(K, 32 * s + 32)), transposeA, transposeB));
    close(sliced, [0, 1].flatMap((batch) => parts.flatMap((p) => p.data.slice(batch * M * N, (batch + 1) * M * N))), tolerance, `${name} slices`);
    if (i > 0 || cases !== ALL) continue;
    const bias = random(r, [N], 3);
    const biased = await product(a, b, [M, N, K, 2], kindOf(tile, M, N, K, transposeA, transposeB, true), { slices: 1, chunk: 96 }, unit, bias);
    close(biased, exact.data.map((v, j) => v + bias.data[j % N]), tolerance, `${name} bias`);
  }
}

// A software driver takes seconds to compile one of these: every case for one unit, one for each of the others.
for (const [what, shape, tile, cases] of [
  ['16×16×16 of 32 threads', SHAPES.nvidia, 64, ALL],
  ['16×16×16 of 32 threads', SHAPES.nvidia, 128, [['four', true, false]]],
  ['16×16×16 of 64 threads', SHAPES.amd, 64, [['four', false, true]]],
  ['8×16×16 of 16 threads', SHAPES.intel, 64, [['odd', true, true]]],
  ['8×8×8 of 32 threads', SHAPES.apple, 64, [['odd', true, false]]],
  ['float32', undefined, 64, ALL],
  ['float32', undefined, 128, [['four', true, false]]],
] as readonly (readonly [string, MatrixShape | undefined, MatmulKind['tile'], readonly Case[]])[])
  test(`${what}, tiles of ${tile}: whole tiles and edges, transposes, batches, slices of K and biases are those of a float64 product of the rounded operands`, () => check(shape && emulatedUnit(shape), tile, cases));

test('this device’s own matrix units compute what the emulated ones do, and beyond 65,504 an operand is infinite', async (t) => {
  const { matrix } = await device();
  if (!matrix) return t.skip('this device has no matrix units');
  // Matrix units may round their sums towards zero.
  for (const tile of [64, 128] as const) await check(matrix, tile, [...ALL, ['four', false, true], ['odd', true, false]], 2e-5);
  const e = new WebgpuEngine(await device());
  const [x, w] = [e.full([4096, 64], 65_520), e.full([64, 64], 1)];
  const y = e.linear(x, w);
  assert.ok((await e.read(y)).every((v) => v === Infinity));
  e.free(x, w, y);
  for (const given of [{ sizes: [2, 384, 2, 64], mask: hiding(2, 384), dropped: 0.1 }, { sizes: [1, 197, 3, 32] }, { sizes: [2, 70, 2, 64], encoding: 'q8-row' }] as const) await checkAttention(e, 'this device', given);
});

test('the plan cuts weight gradients along K, leaves what fills a GPU whole, and is made of whole steps', () => {
  assert.deepEqual(matmulPlan(768, 768, 4096, 1), { tile: 128, slices: 8, chunk: 512 });
  assert.deepEqual(matmulPlan(3072, 768, 49_152, 1), { tile: 128, slices: 2, chunk: 24_576 });
  assert.deepEqual(matmulPlan(4096, 768, 768, 1), { tile: 128, slices: 1, chunk: 768 });
  assert.equal(matmulPlan(128, 128, 64, 384).slices, 1);
  assert.deepEqual(matmulPlan(2, 768, 49_152, 1).tile, 32);
  for (const [M, N, K, batches] of [[768, 768, 5000, 1], [70, 70, 9999, 3], [1, 1, 100_000, 1], [5, 7, 0, 2]] as const) {
    const { slices, chunk } = matmulPlan(M, N, K, batches);
    assert.ok(chunk % 32 === 0 && slices >= 1 && slices * chunk >= K && (slices - 1) * chunk < Math.max(1, K), `${[M, N, K]}`);
  }
  // Too small for a matrix unit.
  assert.equal(mixedPlan(2, 768, 49_152, 1), undefined);
  assert.equal(mixedPlan(768, 768, 16, 1), undefined);
});

for (const matrix of [undefined, emulatedUnit(SHAPES.nvidia)])
  test(`on an engine ${matrix ? 'in mixed precision' : 'in float32'} a weight gradient of few tiles over many tokens is right, with biases in slices too, and equal to the bit every time`, async () => {
    const e = new WebgpuEngine({ ...(await device()), matrix });
    assert.equal(e.precision, matrix ? 'mixed' : 'float32');
    assert.equal(/mixed precision/.test(e.device), matrix !== undefined);
    const r = new Random(3);
    const [tokens, O, I] = [2100, 260, 68];
    assert.ok(matmulPlan(O, I, tokens, 1).slices > 1);
    const [g, x] = [random(r, [tokens, O]), random(r, [tokens, I])];
    const [G, X] = [g, x].map((t) => e.upload(Float32Array.from(t.data), t.shape));
    const grads = [0, 1].map(() => e.linearGradWeight(G, X));
    const [first, second] = await Promise.all(grads.map((t) => e.read(t)));
    assert.deepEqual(first, second);
    const mixed = matrix && mixedPlan(O, I, tokens, 1);
    assert.equal(mixed !== undefined, matrix !== undefined);
    close(first, matmul(mixed ? map(g, half) : g, mixed ? map(x, half) : x, true, false).data, 2e-6);
    e.free(...grads, G, X);
    // The forward pass of a long K with a bias.
    const [w, b, y] = [random(r, [70, 1100]), random(r, [70], 5), random(r, [300, 1100])];
    assert.ok(matmulPlan(300, 70, 1100, 1).slices > 1);
    const [W, B, Y] = [w, b, y].map((t) => e.upload(Float32Array.from(t.data), t.shape));
    const out = e.linear(Y, W, B);
    const used = matrix && mixedPlan(300, 70, 1100, 1) ? half : (v: number) => v;
    close(await e.read(out), matmul(map(y, used), map(w, used), false, true).data.map((v, i) => v + b.data[i % 70]), 2e-6);
    e.free(out, W, B, Y);
    assert.equal(e.memory().tensors, 0, 'tensors left alive');
  });

/** Attention of [B, T, A·d] in mixed precision on a unit, beside float64 from the rounded operands. */
interface Attention {
  readonly sizes: readonly [B: number, T: number, A: number, d: number];
  readonly scale?: number;
  readonly mask?: Ref;
  readonly dropped?: number;
  readonly encoding?: CodeEncoding;
  /** Changes the operands. */
  readonly change?: (x: Ref, name: 'q' | 'k' | 'v' | 'grad') => Ref;
}

const ALL_THREE = { dq: true, dk: true, dv: true };
/**
 * An element's error beside the largest. Rounding P and dS to 11 bits makes at most 2⁻¹¹ of the sum of an element's absolute terms, less where their errors differ; 1.0 to 3.5e-4 was seen. Unrounded operands make it two to seven times
 * as much.
 */
const ATTENTION_OFF = 6e-4;

async function attentionCase(e: WebgpuEngine, { sizes: [B, T, A, d], scale = 1 / Math.sqrt(d), mask, dropped = 0, encoding, change = (x) => x }: Attention) {
  const r = new Random(5);
  const H = A * d;
  const [q, k, v, grad] = (['q', 'k', 'v', 'grad'] as const).map((name) => change(random(r, [B, T, H]), name));
  const [tq, tk, tv, tg] = [q, k, v, grad].map((x) => e.upload(Float32Array.from(x.data), x.shape));
  const tm = mask && e.upload(Float32Array.from(mask.data), mask.shape);
  const key = { seed: 77, counter: 5, offset: 3 };
  const settings: AttentionSettings = { heads: A, scale, ...(tm && { mask: tm }), ...(dropped > 0 && { dropout: { p: dropped, key } }) };
  const drawn = dropped > 0 ? dropoutMask(B * A * T * T, dropped, key.seed, key.counter, key.offset) : undefined;
  const codes = encoding && [tq, tk, tv].map((x) => e.scope(() => e.encode(e.reshape(x, [B, T, A, d]), encoding)));
  const kept: Ref[] = [];
  for (const x of codes ?? []) {
    const back = e.decode(x);
    kept.push({ shape: [B, T, H], data: Array.from(await e.read(back)) });
    e.free(back);
  }
  const reference = (rounded: boolean, [x, y, z]: readonly Ref[]) => {
    const [a, b, c, g] = [x, y, z, grad].map((o) => (rounded ? map(o, half) : o));
    return attention({ q: a, k: b, v: c, grad: g, heads: A, scale, drawn, mask });
  };
  return {
    forward: reference(true, [q, k, v]).context,
    unrounded: reference(false, [q, k, v]).context,
    backward: reference(true, codes ? kept : [q, k, v]),
    context: () => e.attention(tq, tk, tv, settings),
    gradients: (wanted: Readonly<Record<'dq' | 'dk' | 'dv', boolean>>) => {
      const [x, y, z]: readonly AttentionOperand[] = codes ?? [tq, tk, tv];
      return e.attentionGrad(tg, x, y, wanted.dq || wanted.dk ? z : undefined, settings, wanted);
    },
    free: () => {
      e.free(tq, tk, tv, tg, ...(tm ? [tm] : []), ...(codes ?? []).flatMap((x) => (x.steps ? [x.words, x.steps] : [x.words])));
      assert.equal(e.memory().tensors, 0, 'tensors left alive');
    },
  };
}

/** The context and all gradients of a case are right, twice the same, and not those of float32. */
async function checkAttention(e: WebgpuEngine, what: string, given: Attention): Promise<void> {
  const c = await attentionCase(e, given);
  const [first, again] = [c.context(), c.context()];
  const context = await e.read(first);
  assert.deepEqual(await e.read(again), context);
  close(context, c.forward.data, ATTENTION_OFF, `${what} context`);
  const largest = Math.max(...c.unrounded.data.map(Math.abs));
  assert.ok(c.unrounded.data.some((w, i) => Math.abs(context[i] - w) > 1e-4 * largest), 'rounding shows');
  const [got, twice] = [c.gradients(ALL_THREE), c.gradients(ALL_THREE)];
  for (const of of ['dq', 'dk', 'dv'] as const) {
    const values = await e.read(got[of]!);
    close(values, c.backward[of].data, ATTENTION_OFF, `${what} ${of}`);
    assert.deepEqual(await e.read(twice[of]!), values, of);
  }
  e.free(first, again, ...[got, twice].flatMap((x) => [x.dq!, x.dk!, x.dv!]));
  c.free();
}

const engineOn = async (matrix: MatrixUnit): Promise<WebgpuEngine> => new WebgpuEngine({ ...(await device()), matrix });
/** The first tokens of each sequence are hidden too, so that blocks begin with them. */
const hiding = (B: number, T: number): Ref => ({ shape: [B, 1, 1, T], data: Array.from({ length: B * T }, (_, i) => (i % T < 3 || i % 5 === 0 ? -10000 : 0)) });

for (const [maker, d, T, more] of [
  ['nvidia', 64, 70, {}],
  // Of 48 values a chunk of 16 is left over, and so are threads that fetch.
  ['amd', 48, 37, {}],
  ['intel', 32, 70, { encoding: 'q8-row' }],
  ['apple', 16, 70, { encoding: 'q3.4' }],
] as const)
  test(`attention of ${T} tokens in heads of ${d} with a mask and dropout${'encoding' in more ? `, backward from ${more.encoding}` : ''}, on units like those of ${maker}: the context and all gradients are those of float64 from rounded operands, and equal to the bit every time`, async () => {
    await checkAttention(await engineOn(emulatedUnit(SHAPES[maker])), maker, { sizes: [2, T, 2, d], mask: hiding(2, T), dropped: 0.1, ...more });
  });

test('a sequence of hidden tokens alone, by −10,000 or by the lowest float32, is seen as if none were hidden, and gives no NaN', async () => {
  const [B, T] = [3, 70];
  // Of −10,000 scores are rounded to 2⁻¹⁰.
  const mask: Ref = { shape: [B, 1, 1, T], data: Array.from({ length: B * T }, (_, i) => [-10000, -3.4028234663852886e38, 0][Math.floor(i / T)]) };
  const e = await engineOn(emulatedUnit(SHAPES.nvidia));
  const c = await attentionCase(e, { sizes: [B, T, 1, 64], mask, dropped: 0.1 });
  const { dq, dk, dv } = c.gradients(ALL_THREE);
  const context = c.context();
  for (const [t, want] of [[context, c.forward], [dq, c.backward.dq], [dk, c.backward.dk], [dv, c.backward.dv]] as const) close(await e.read(t!), want.data, 1e-3);
  e.free(context, dq!, dk!, dv!);
  c.free();
});

test('every choice of gradients of attention in mixed precision gives those that were asked for, each the same whatever else is asked for', async () => {
  const e = await engineOn(emulatedUnit(SHAPES.nvidia));
  const c = await attentionCase(e, { sizes: [1, 45, 2, 32] });
  const all = c.gradients(ALL_THREE);
  for (let bits = 1; bits <= 7; bits++) {
    const wanted = { dq: (bits & 1) > 0, dk: (bits & 2) > 0, dv: (bits & 4) > 0 };
    const got = c.gradients(wanted);
    for (const of of ['dq', 'dk', 'dv'] as const) {
      const t = got[of];
      assert.equal(t !== undefined, wanted[of], `${bits} ${of}`);
      if (!t) continue;
      const values = await e.read(t);
      close(values, c.backward[of].data, ATTENTION_OFF, `${bits} ${of}`);
      assert.deepEqual(values, await e.read(all[of]!), `${bits} ${of}`);
      e.free(t);
    }
  }
  e.free(all.dq!, all.dk!, all.dv!);
  c.free();
});

test('attention in mixed precision: scores that grow from block to block by hundreds, a NaN in one query, key or value, and few tokens, which stay float32', async () => {
  const e = await engineOn(emulatedUnit(SHAPES.nvidia));
  const sizes = [1, 110, 1, 32] as const;
  const scaled = (x: Ref, by: (token: number) => number): Ref => map(x, (v, i) => v * by(Math.floor(i / 32)));
  // Later keys outweigh all before, for every query, or for a few.
  for (const change of [(x: Ref, name: string) => (name === 'k' ? scaled(x, (t) => 1 + t) : x), (x: Ref, name: string) => (name === 'q' ? scaled(x, (t) => (t % 40 === 0 ? 30 : 1)) : x)]) {
    const c = await attentionCase(e, { sizes, change });
    const context = c.context();
    close(await e.read(context), c.forward.data, ATTENTION_OFF, 'growing');
    e.free(context);
    c.free();
  }
  for (const where of ['q', 'k', 'v'] as const) {
    const c = await attentionCase(e, { sizes, change: (x, name) => (name === where ? map(x, (v, i) => (i === 7 * 32 + 5 ? NaN : v)) : x) });
    const got = c.gradients(ALL_THREE);
    const context = c.context();
    for (const [t, want] of [[context, c.forward], [got.dq, c.backward.dq], [got.dk, c.backward.dk], [got.dv, c.backward.dv]] as const)
      assert.deepEqual([...(await e.read(t!))].map(Number.isNaN), want.data.map(Number.isNaN), where);
    e.free(context, got.dq!, got.dk!, got.dv!);
    c.free();
  }
  const few = await attentionCase(e, { sizes: [1, 31, 1, 32] });
  const context = few.context();
  close(await e.read(context), few.unrounded.data, 2e-6, 'few tokens');
  e.free(context);
  few.free();
});
