/** What the conformance suite's small shapes do not reach: every tile of the matrix product, reductions in parts, many blocks of topK, codes and masks to the bit, and functions at their ends. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { FIXED_POINT, type FixedPoint, ROW_SCALED, type RowScaled } from '../../../src/engine/engine';
import { largestPositions, packCodes, roundHalfEven, unpackCodes } from '../../../src/engine/codes';
import { dropoutMask } from '../../../src/engine/randomBits';
import { createWebgpuEngine } from '../../../src/engine/webgpu/createWebgpuEngine';
import { matmulPlan } from '../../../src/engine/webgpu/kernels/matmul';
import type { WebgpuEngine } from '../../../src/engine/webgpu/webgpuEngine';
import { Random } from '../../../src/random';
import { erf } from '../../models/referenceBert';
import { attention, map, matmul, random, type Ref } from '../reference';

let engine: WebgpuEngine;
after(() => engine.dispose());

/** A test that leaves no tensor. */
function it(what: string, fn: (e: WebgpuEngine, r: Random) => Promise<void>): void {
  test(what, async () => {
    engine ??= await createWebgpuEngine();
    await fn(engine, new Random(5));
    assert.equal(engine.memory().tensors, 0, 'tensors left alive');
  });
}
const up = (e: WebgpuEngine, a: Ref) => e.upload(Float32Array.from(a.data), a.shape);
const close = (got: ArrayLike<number>, want: readonly number[], tolerance: number) => {
  assert.equal(got.length, want.length);
  const scale = Math.max(1e-6, want.reduce((m, v) => Math.max(m, Math.abs(v)), 0));
  want.forEach((w, i) => assert.ok(Math.abs(got[i] - w) <= tolerance * scale, `element ${i}: ${got[i]} is not ${w}`));
};

for (const tile of [32, 64, 128] as const)
  it(`matrix products by tiles of ${tile}, all transposes, whatever is a multiple of 4`, async (e, r) => {
    const [batches, M, N] = { 32: [1, 37, 68], 64: [32, 36, 35], 128: [128, 65, 68] }[tile];
    assert.equal(matmulPlan(M, N, 20, batches).tile, tile);
    // The last tile alone is looked at in float64, or the reference would take long.
    const kinds = tile === 128 ? [[20, false, true]] : [[20, true, true], [19, false, false]];
    for (const [K, ta, tb] of kinds as [number, boolean, boolean][]) {
      const one = (shape: number[]) => random(r, [batches, ...shape]);
      const [a, b] = [one(ta ? [K, M] : [M, K]), one(tb ? [N, K] : [K, N])];
      const [x, y] = [up(e, a), up(e, b)];
      const z = e.matmul(x, y, { transposeA: ta, transposeB: tb });
      const got = await e.read(z);
      const last = (m: Ref): Ref => ({ shape: m.shape.slice(1), data: m.data.slice(-m.data.length / batches) });
      close(got.slice(-M * N), matmul(last(a), last(b), ta, tb).data, 1e-6);
      const first = (m: Ref): Ref => ({ shape: m.shape.slice(1), data: m.data.slice(0, m.data.length / batches) });
      close(got.slice(0, M * N), matmul(first(a), first(b), ta, tb).data, 1e-6);
      e.free(x, y, z);
    }
  });

it('long reductions in parts, along rows and columns, of either kind, and infinities', async (e, r) => {
  for (const shape of [[3, 9000], [5000, 7], [2, 700, 33]]) {
    const a = random(r, shape);
    const t = up(e, a);
    for (const axis of [0, shape.length - 1, 1]) {
      const n = shape[axis];
      const inner = shape.slice(axis + 1).reduce((p, q) => p * q, 1);
      const by: number[][] = [];
      a.data.forEach((v, i) => (by[Math.floor(i / (n * inner)) * inner + (i % inner)] ??= []).push(v));
      const [sum, max, mean] = [e.sum(t, axis), e.max(t, axis), e.mean(t, axis)];
      close(await e.read(sum), by.map((c) => c.reduce((p, q) => p + q, 0)), 2e-6);
      assert.deepEqual([...(await e.read(max))], by.map((c) => Math.max(...c)));
      close(await e.read(mean), by.map((c) => c.reduce((p, q) => p + q, 0) / n), 2e-6);
      e.free(sum, max, mean);
    }
    e.free(t);
  }
  for (const n of [3, 40, 900]) {
    const least = e.full([2, n], -Infinity);
    const top = e.max(least, 1);
    assert.deepEqual([...(await e.read(top))], [-Infinity, -Infinity]);
    e.free(least, top);
  }
});

it('tensors of many dimensions broadcast, are transposed, cut and put together', async (e, r) => {
  const shape = [2, 3, 2, 3, 2, 3];
  const a = random(r, shape);
  const b = random(r, [3, 1, 3, 1, 3]);
  const [x, y] = [up(e, a), up(e, b)];
  const at = (i: number) => [108, 36, 18, 6, 3, 1].map((step, d) => Math.floor(i / step) % shape[d]);
  const sum = e.add(x, y);
  close(await e.read(sum), a.data.map((v, i) => { const p = at(i); return v + b.data[(p[1] * 3 + p[3]) * 3 + p[5]]; }), 1e-7);
  const turned = e.transpose(x, [5, 1, 3, 0, 4, 2]);
  const back = e.transpose(turned, [3, 1, 5, 2, 4, 0]);
  assert.deepEqual(await e.read(back), await e.read(x));
  const [left, right] = [e.slice(x, [0, 0, 0, 0, 0, 0], [2, 3, 2, 1, 2, 3]), e.slice(x, [0, 0, 0, 1, 0, 0], [2, 3, 2, 2, 2, 3])];
  const whole = e.concat([left, right], 3);
  assert.deepEqual(await e.read(whole), await e.read(x));
  const ids = e.upload(Int32Array.of(1, -2, 3, 4), [2, 2]);
  const column = e.slice(ids, [0, 1], [2, 1]);
  assert.deepEqual(await e.read(column), Int32Array.of(-2, 4));
  e.free(x, y, sum, turned, back, left, right, whole, ids, column);
});

it('topK over many blocks with ties, infinities and NaN is the host’s selection', async (e, r) => {
  const data = Float32Array.from({ length: 5000 }, (_, i) => (i === 4321 ? NaN : i === 77 ? -Infinity : Math.round(4 * r.normal()) / 4));
  const t = e.upload(data, [50, 100]);
  for (const count of [1, 2, 999, 2500, 5000]) {
    const s = e.topK(t, count);
    const want = largestPositions(data, count);
    assert.deepEqual(await e.read(s.indices), want, `${count}`);
    assert.deepEqual(await e.read(s.values), Float32Array.from(want, (i) => data[i]));
    const dense = e.densify(s);
    const kept = new Set(want);
    assert.deepEqual(await e.read(dense), data.map((v, i) => (kept.has(i) ? v : 0)));
    e.free(s.values, s.indices, dense);
  }
  e.free(t);
});

it('rows that share an id are added up in their order, to the bit', async (e, r) => {
  const [n, width, rows] = [300, 70, 9];
  const ids = Int32Array.from({ length: n }, () => r.int(rows - 1));
  const data = Float32Array.from({ length: n * width }, () => r.normal());
  const want = new Float32Array(rows * width);
  ids.forEach((id, i) => {
    for (let c = 0; c < width; c++) want[id * width + c] += data[i * width + c];
  });
  const [x, i] = [e.upload(data, [n, width]), e.upload(ids, [n])];
  const y = e.scatterAdd(x, i, rows);
  assert.deepEqual(await e.read(y), want);
  e.free(x, i, y);
});

it('dropout masks are those of every other engine, to the bit', async (e) => {
  const ones = e.full([3000], 1);
  for (const [p, seed, counter] of [[0.1, 7, 3], [0.5, 0xffffffff, 0x80000001], [0.999, 1, 2 ** 31]] as const) {
    const y = e.dropout(ones, p, { seed, counter });
    assert.deepEqual(await e.read(y), dropoutMask(3000, p, seed, counter));
    e.free(y);
  }
  e.free(ones);
});

it('fixed-point codes are those of the host, to the bit', async (e, r) => {
  const data = Float32Array.from({ length: 1001 }, () => 4 * r.normal());
  const t = e.upload(data, [7, 143]);
  for (const encoding of Object.keys(FIXED_POINT) as FixedPoint[]) {
    const packed = e.encode(t, encoding);
    const back = e.decode(packed);
    const words = packCodes(data, encoding);
    assert.deepEqual(await e.read(packed.words), words, encoding);
    assert.deepEqual(await e.read(back), unpackCodes(words, 1001, encoding), encoding);
    e.free(packed.words, back);
  }
  e.free(t);
});

it('row-scaled codes come of divisions that are rounded as IEEE 754 has it, whatever the scale of a row', async (e, r) => {
  const rows = 120;
  // Words that hold codes of two rows; rows of whole words, several or one to a workgroup.
  for (const [encoding, width] of (Object.keys(ROW_SCALED) as RowScaled[]).flatMap((e) => [61, 64, 2052].map((w) => [e, w] as const))) {
    const { codes, hi } = ROW_SCALED[encoding];
    // Rows from 2⁻⁹⁰ to 2⁹⁰; of every third the step is a power of two, and values lie halfway between two codes.
    const data = Float32Array.from({ length: rows * width }, (_, i) => {
      const row = Math.floor(i / width);
      const scale = 2 ** (1.5 * row - 90) * (row % 3 === 0 ? 2 ** (row % 2 ? -0.5 : 0) : r.uniform() + 0.5);
      return i % width === 0 ? hi * scale : scale * (row % 3 === 0 ? r.int(2 * hi) - hi + 0.5 : hi * (2 * r.uniform() - 1));
    });
    const given = encoding === 'u8-row' ? data.map(Math.abs) : data;
    const t = e.upload(given, [rows, width]);
    const packed = e.encode(t, encoding);
    const back = e.decode(packed);
    const steps = Float32Array.from({ length: rows }, (_, row) => given.slice(row * width, (row + 1) * width).reduce((m, v) => Math.max(m, Math.abs(v)), 0) / hi);
    assert.deepEqual(await e.read(packed.steps!), steps);
    const ratio = given.map((v, i) => Math.fround(v / Math.fround(steps[Math.floor(i / width)] + 2 ** -126)));
    const words = packCodes(ratio, codes);
    assert.deepEqual(await e.read(packed.words), words, encoding);
    assert.ok(ratio.some((x) => Math.abs(x % 1) === 0.5 && roundHalfEven(x) !== Math.round(x)), 'a tie is among them');
    const values = unpackCodes(words, rows * width, codes);
    assert.deepEqual(await e.read(back), values.map((v, i) => v * steps[Math.floor(i / width)]));
    e.free(t, packed.words, packed.steps!, back);
  }
});

it('exp, log, tanh and erf are right to a few units in the last place over all their range, and at infinity, 0 and NaN', async (e, r) => {
  const many = (scale: number) => ({ shape: [2000], data: Array.from({ length: 2000 }, () => Math.fround(scale * r.normal())) });
  const relative = async (fn: 'exp' | 'log' | 'tanh' | 'erf', x: Ref, exact: (v: number) => number, tolerance: number) => {
    const want = (v: number) => Math.fround(exact(v));
    const t = up(e, x);
    const y = e[fn](t);
    const got = await e.read(y);
    x.data.forEach((v, i) => assert.ok(got[i] === want(v) || Math.abs(got[i] - want(v)) <= tolerance * Math.abs(want(v)) + 1.2e-38, `${fn}(${v}) is ${want(v)}, not ${got[i]}`));
    e.free(t, y);
  };
  await relative('exp', many(25), Math.exp, 2e-7);
  await relative('exp', many(1), Math.exp, 2e-7);
  await relative('log', map(many(2), (v) => Math.max(2 ** -126, Math.fround(Math.exp(20 * v)))), Math.log, 2e-7);
  await relative('tanh', many(2), Math.tanh, 4e-7);
  await relative('tanh', many(1e-3), Math.tanh, 4e-7);
  await relative('erf', many(1.5), erf, 4e-7);
  const ends = e.upload(Float32Array.of(Infinity, -Infinity, NaN, 0, 1000, -1000), [6]);
  for (const [fn, want] of [
    ['exp', [Infinity, 0, NaN, 1, Infinity, 0]],
    ['log', [Infinity, NaN, NaN, -Infinity, Math.fround(Math.log(1000)), NaN]],
    ['tanh', [1, -1, NaN, 0, 1, -1]],
    ['erf', [1, -1, NaN, 0, 1, -1]],
  ] as const) {
    const y = e[fn](ends);
    assert.deepEqual([...(await e.read(y))], want, fn);
    e.free(y);
  }
  e.free(ends);
});

it('a NaN in a row of logits is a NaN in the loss and in the gradient of that row alone', async (e) => {
  const logits = e.upload(Float32Array.of(1, 2, NaN, 1), [2, 2]);
  const labels = e.upload(Int32Array.of(0, 1), [2]);
  const { loss, grad } = e.crossEntropy(logits, labels);
  assert.ok(Number.isNaN((await e.read(loss))[0]));
  const g = await e.read(grad);
  assert.ok(Number.isFinite(g[0]) && Number.isNaN(g[2]), `${g}`);
  e.free(logits, labels, loss, grad);
});

for (const [d, T, B, A, dropped, masks, coded] of [[8, 37, 2, 2, 0.1, true, 'q3.4'], [32, 130, 1, 2, 0, true, undefined], [64, 70, 2, 1, 0.1, true, 'q8-row'], [84, 65, 1, 2, 0, false, undefined], [128, 20, 1, 1, 0.5, false, undefined]] as const)
  it(`attention of ${T} tokens in heads of ${d}, forward and all gradients, over blocks that do not come out even${coded ? `, and from operands in ${coded}` : ''}`, async (e, r) => {
    assert.ok(e.streamsAttention(d));
    const H = A * d;
    const [q, k, v, grad] = [0, 1, 2, 3].map(() => random(r, [B, T, H]));
    // The first tokens of a sequence are hidden too, so that blocks begin with them.
    const mask: Ref = { shape: [B, 1, 1, T], data: Array.from({ length: B * T }, (_, i) => (i % T < 3 || i % 5 === 0 ? -10000 : 0)) };
    const key = { seed: 77, counter: 5 };
    const drawn = dropped > 0 ? dropoutMask(B * A * T * T, dropped, key.seed, key.counter) : undefined;
    const scale = 1 / Math.sqrt(d);
    const [tq, tk, tv, tg, tm] = [q, k, v, grad, mask].map((x) => up(e, x));
    const settings = { heads: A, scale, ...(masks && { mask: tm }), ...(drawn && { dropout: { p: dropped, key } }) };
    const want = attention({ q, k, v, grad, heads: A, scale, drawn, ...(masks && { mask }) });
    const context = e.attention(tq, tk, tv, settings);
    const got = e.attentionGrad(tg, tq, tk, tv, settings, { dq: true, dk: true, dv: true });
    for (const [t, ref] of [[context, want.context], [got.dq!, want.dq], [got.dk!, want.dk], [got.dv!, want.dv]] as const) close(await e.read(t), ref.data, 2e-6);
    e.free(context, got.dq!, got.dk!, got.dv!);
    if (coded) {
      // The same operations on the same bits.
      const codes = [tq, tk, tv].map((x) => e.scope(() => e.encode(e.reshape(x, [B, T, A, d]), coded)));
      const values = codes.map((x) => e.decode(x));
      const all = { dq: true, dk: true, dv: true };
      const [a, b] = [e.attentionGrad(tg, codes[0], codes[1], codes[2], settings, all), e.attentionGrad(tg, values[0], values[1], values[2], settings, all)];
      for (const of of ['dq', 'dk', 'dv'] as const) assert.deepEqual(await e.read(a[of]!), await e.read(b[of]!), of);
      e.free(...[a, b].flatMap((x) => [x.dq!, x.dk!, x.dv!]), ...values, ...codes.flatMap((x) => (x.steps ? [x.words, x.steps] : [x.words])));
    }
    e.free(tq, tk, tv, tg, tm);
  });

it('scores as large as 1e4 and rows of hidden tokens alone give no NaN', async (e, r) => {
  const [T, d] = [70, 8];
  const [q, k, v] = [map(random(r, [1, T, d]), (x) => 100 * x), map(random(r, [1, T, d]), (x) => 100 * x), random(r, [1, T, d])];
  const mask: Ref = { shape: [1, 1, 1, T], data: new Array<number>(T).fill(-10000) };
  const [tq, tk, tv, tm] = [q, k, v, mask].map((x) => up(e, x));
  const settings = { heads: 1, scale: 1, mask: tm };
  const context = e.attention(tq, tk, tv, settings);
  const { dq, dk, dv } = e.attentionGrad(tv, tq, tk, tv, settings, { dq: true, dk: true, dv: true });
  close(await e.read(context), attention({ q, k, v, grad: v, heads: 1, scale: 1, mask }).context.data, 1e-3);
  for (const t of [dq!, dk!, dv!]) assert.ok((await e.read(t)).every(Number.isFinite));
  e.free(tq, tk, tv, tm, context, dq!, dk!, dv!);
});

it('equal work gives equal bits, every time', async (e, r) => {
  const x = up(e, random(r, [64, 96]));
  const w = up(e, random(r, [48, 96]));
  const once = async () => {
    const out = e.scope(() => {
      const y = e.gelu(e.linear(x, w));
      return [e.softmax(y), e.biasGrad(y), e.linearGradWeight(y, x), e.layerNormGradWeight(y, y)];
    });
    const values = await Promise.all(out.map((t) => e.read(t)));
    e.free(...out);
    return values;
  };
  const first = await once();
  for (let i = 0; i < 3; i++) assert.deepEqual(await once(), first);
  e.free(x, w);
});
