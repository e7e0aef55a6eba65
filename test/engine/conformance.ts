/**
 * What any engine must do: every operation of the contract against plain float64 loops, over several shapes and seeds, and the rules of ownership. Each test ends with nothing
 * left alive.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DeviceTensor, type Engine, FIXED_POINT, type FixedPoint, type UpdateMagnitude } from '../../src/engine/engine';
import { InvalidArgumentError, ShapeError, UseAfterFreeError } from '../../src/errors';
import { Random } from '../../src/random';
import { erf } from '../models/referenceBert';
import { attention, codeOf, map, mapRows, matmul, normRow, random, type Ref, rowsOf, size, softmaxRow, sumOf, transposed, zip } from './reference';

/** Runs the suite. `make` gives one engine, used by all tests of the suite. @param skip a reason not to */
export function conformance(name: string, make: () => Promise<Engine>, skip: string | false = false): void {
  let engine: Engine;
  const it = (what: string, fn: (e: Engine, r: Random) => Promise<void>, seeds = 3) =>
    test(`${name}: ${what}`, { skip }, async () => {
      engine ??= await make();
      for (let seed = 1; seed <= seeds; seed++) {
        const before = engine.memory();
        await fn(engine, new Random(seed));
        const after = engine.memory();
        assert.equal(after.tensors, before.tensors, 'tensors left alive');
        assert.equal(after.totalLive, before.totalLive, 'bytes left alive');
      }
    });
  const up = (a: Ref) => engine.upload(Float32Array.from(a.data), a.shape);
  const ids = (values: readonly number[], shape: readonly number[] = [values.length]) => engine.upload(Int32Array.from(values), shape);

  /** Reads and frees results, and compares them with references. */
  async function equal(got: readonly (readonly [DeviceTensor, Ref])[], free: readonly DeviceTensor[], tolerance = 2e-6): Promise<void> {
    for (const [t, want] of got) {
      assert.deepEqual([...t.shape], [...want.shape]);
      const data = await engine.read(t);
      const scale = Math.max(1e-6, ...want.data.map(Math.abs));
      want.data.forEach((w, i) => assert.ok(Math.abs(data[i] - w) <= tolerance * scale + tolerance * Math.abs(w), `element ${i}: ${data[i]} is not ${w}`));
    }
    engine.free(...got.map(([t]) => t), ...free);
  }

  it('an uploaded array stays the caller’s, and what is read is a copy: writing to either changes nothing on the other side', async (e) => {
    const data = Float32Array.from({ length: 64 }, (_, i) => i + 1);
    const given = data.slice();
    const [weight, m, v, grad] = [data, new Float32Array(64), new Float32Array(64), data].map((x) => e.upload(x, [64]));
    (await e.read(weight))[0] = 9;
    assert.deepEqual(await e.read(weight), given);
    e.adamwStep({ weight, m, v }, grad, { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, step: 1, magnitude: undefined });
    assert.deepEqual(data, given);
    data.fill(5);
    assert.deepEqual(await e.read(grad), given);
    e.free(weight, m, v, grad);
  }, 1);

  it('write replaces values, also of a tensor that an optimizer updates, and refuses shared ones and wrong lengths', async (e) => {
    const [weight, m, v, grad] = [1, 0, 0, 1].map((x) => e.full([4], x));
    const options = { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, step: 1, magnitude: undefined };
    e.adamwStep({ weight, m, v }, grad, options);
    e.write(weight, Float32Array.of(1, 2, 3, 4));
    assert.deepEqual([...(await e.read(weight))], [1, 2, 3, 4]);
    for (const t of [m, v]) e.write(t, new Float32Array(4));
    e.adamwStep({ weight, m, v }, grad, options);
    (await e.read(weight)).forEach((x, i) => assert.ok(Math.abs(x - (i + 0.9)) < 1e-5, `${x}`));
    assert.throws(() => e.write(weight, new Float32Array(3)), ShapeError);
    const view = e.share(weight);
    assert.throws(() => e.write(weight, new Float32Array(4)), InvalidArgumentError);
    e.free(weight, m, v, grad, view);
  }, 1);

  it('operands of sizes that do not fit are refused, and nothing moves', async (e) => {
    const [four, other, three, rows] = [e.full([4], 1), e.full([4], 1), e.full([3], 1), e.full([2, 4], 1)];
    const options = { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, step: 1, magnitude: undefined };
    const [v, rstd] = [e.full([4], 0), e.full([2, 1], 1)];
    assert.throws(() => e.adamwStep({ weight: four, m: other, v }, three, options), ShapeError);
    assert.deepEqual([...(await e.read(four))], [1, 1, 1, 1]);
    assert.throws(() => e.geluGrad(three, four), ShapeError);
    assert.throws(() => e.softmaxGrad(three, four), ShapeError);
    assert.throws(() => e.layerNorm(rows, three, three, 1e-5), ShapeError);
    assert.throws(() => e.layerNormGradInput(rows, rows, rstd, three), ShapeError);
    e.free(four, other, three, rows, v, rstd);
  }, 1);

  it('element-wise operations', async (e, r) => {
    const shape = [1 + (r.next() % 4), 1 + (r.next() % 40)];
    const [a, b] = [random(r, shape), random(r, shape)];
    const pos = map(a, (x) => Math.fround(Math.abs(x) + 0.1));
    const [ta, tb, tp] = [a, b, pos].map(up);
    await equal(
      [
        [e.add(ta, tb), zip(a, b, (x, y) => x + y)],
        [e.sub(ta, tb), zip(a, b, (x, y) => x - y)],
        [e.mul(ta, tb), zip(a, b, (x, y) => x * y)],
        [e.div(ta, tp), zip(a, pos, (x, y) => x / y)],
        [e.affine(ta, 2.5, -1), map(a, (x) => 2.5 * x - 1)],
        [e.affine(ta, -3), map(a, (x) => -3 * x)],
        [e.abs(ta), map(a, Math.abs)],
        [e.sqrt(tp), map(pos, Math.sqrt)],
        [e.exp(ta), map(a, Math.exp)],
        [e.log(tp), map(pos, Math.log)],
        [e.tanh(ta), map(a, Math.tanh)],
        [e.erf(ta), map(a, erf)],
      ],
      [ta, tb, tp],
    );
  });

  it('broadcasting as in NumPy, and its refusal', async (e, r) => {
    const [a, row, column, scalar] = [random(r, [2, 3, 4]), random(r, [4]), random(r, [3, 1]), random(r, [])];
    const [ta, tr, tc, ts] = [a, row, column, scalar].map(up);
    await equal(
      [
        [e.add(ta, tr), map(a, (x, i) => x + row.data[i % 4])],
        [e.mul(ta, tc), map(a, (x, i) => x * column.data[Math.floor(i / 4) % 3])],
        [e.sub(ta, ts), map(a, (x) => x - scalar.data[0])],
      ],
      [tr, tc, ts],
    );
    const bad = up(random(r, [3]));
    assert.throws(() => e.add(ta, bad), ShapeError);
    e.free(ta, bad);
  });

  it('reductions over any axis', async (e, r) => {
    const a = random(r, [2, 3, 4]);
    const ta = up(a);
    const over = (axis: number, keep: boolean, fn: (v: number[]) => number): Ref => {
      const [o, n, i] = [size(a.shape.slice(0, axis)), a.shape[axis], size(a.shape.slice(axis + 1))];
      const data = Array.from({ length: o * i }, (_, k) => fn(Array.from({ length: n }, (_, j) => a.data[(Math.floor(k / i) * n + j) * i + (k % i)])));
      return { shape: a.shape.flatMap((d, k) => (k !== axis ? [d] : keep ? [1] : [])), data };
    };
    const mean = (v: number[]) => sumOf(v) / v.length;
    await equal(
      [
        [e.sum(ta, 0), over(0, false, sumOf)],
        [e.sum(ta, -1, true), over(2, true, sumOf)],
        [e.mean(ta, 1), over(1, false, mean)],
        [e.max(ta, 2, true), over(2, true, (v) => Math.max(...v))],
      ],
      [ta],
    );
  });

  it('matrix products, batched and transposed', async (e, r) => {
    for (const lead of [[], [3], [2, 3]])
      for (const [ta, tb] of [[false, false], [true, false], [false, true], [true, true]]) {
        const [M, K, N] = [1, 2, 3].map(() => 1 + (r.next() % 20));
        const a = random(r, [...lead, ...(ta ? [K, M] : [M, K])]);
        const b = random(r, [...lead, ...(tb ? [N, K] : [K, N])]);
        const [x, y] = [a, b].map(up);
        await equal([[e.matmul(x, y, { transposeA: ta, transposeB: tb }), matmul(a, b, ta, tb)]], [x, y]);
      }
  });

  it('transposition, slices, concatenation, reshaping', async (e, r) => {
    const a = random(r, [2, 3, 4]);
    const ta = up(a);
    const part = e.slice(ta, [0, 1, 2], [2, 2, 2]);
    const want: Ref = { shape: [2, 2, 2], data: [0, 1].flatMap((i) => [1, 2].flatMap((j) => [2, 3].map((k) => a.data[(i * 3 + j) * 4 + k]))) };
    await equal(
      [
        [e.transpose(ta, [2, 0, 1]), transposed(a, [2, 0, 1])],
        [part, want],
        [e.concat([ta, ta], 0), { shape: [4, 3, 4], data: [...a.data, ...a.data] }],
        [e.concat([ta], 1), a],
        [e.reshape(ta, [6, 4]), { shape: [6, 4], data: a.data }],
      ],
      [ta],
    );
  });

  it('gathering rows, and adding them up again where ids repeat', async (e, r) => {
    const table = random(r, [6, 3]);
    const chosen = [5, 0, 0, 2];
    const [t, i] = [up(table), ids(chosen, [2, 2])];
    const grad = random(r, [2, 2, 3]);
    const g = up(grad);
    const scattered = new Array<number>(18).fill(0);
    chosen.forEach((row, k) => [0, 1, 2].forEach((c) => (scattered[row * 3 + c] += grad.data[k * 3 + c])));
    const padded = scattered.map((v, k) => (k < 3 ? 0 : v));
    const flat = e.reshape(g, [4, 3]);
    const flatIds = e.reshape(i, [4]);
    await equal(
      [
        [e.gather(t, i), { shape: [2, 2, 3], data: chosen.flatMap((row) => table.data.slice(3 * row, 3 * row + 3)) }],
        [e.scatterAdd(flat, flatIds, 6), { shape: [6, 3], data: scattered }],
        [e.embeddingGrad(g, i, 6), { shape: [6, 3], data: scattered }],
        [e.embeddingGrad(g, i, 6, 0), { shape: [6, 3], data: padded }],
      ],
      [t, i, g, flat, flatIds],
    );
  });

  it('rows of a table are replaced in place, of either type, bit by bit; shared tables and rows that do not fit are refused, and nothing moves', async (e, r) => {
    const table = random(r, [6, 3]);
    const codes = Int32Array.from({ length: 12 }, () => r.next() | 0);
    const [t, words, i, rows] = [up(table), e.upload(codes, [6, 2]), ids([4, 0, 5]), up(random(r, [3, 3]))];
    const fresh = Int32Array.of(0x7fc12345, -1, 0x7f800001, 0, 1, -0x80000000);
    const freshWords = e.upload(fresh, [3, 2]);
    const before = await e.read(t);
    const view = e.share(t);
    assert.throws(() => e.writeRows(t, i, rows), InvalidArgumentError);
    e.free(view);
    for (const bad of [t, freshWords]) assert.throws(() => e.writeRows(t, i, bad), ShapeError);
    assert.deepEqual(await e.read(t), before);
    const { totalLive } = e.memory();
    e.writeRows(t, i, rows);
    e.writeRows(words, i, freshWords);
    assert.equal(e.memory().totalLive, totalLive);
    const [values, bits] = [await e.read(rows), await e.read(words)];
    const want = before.slice();
    [4, 0, 5].forEach((row, k) => want.set(values.subarray(3 * k, 3 * k + 3), 3 * row));
    assert.deepEqual(await e.read(t), want);
    const wantBits = codes.slice();
    [4, 0, 5].forEach((row, k) => wantBits.set(fresh.subarray(2 * k, 2 * k + 2), 2 * row));
    assert.deepEqual(bits, wantBits);
    // Rows of codes are looked up as such, and an optimizer goes on from what was written.
    const found = e.gather(words, i);
    assert.equal(found.dtype, 'int32');
    assert.deepEqual(await e.read(found), fresh);
    const [m, v, g] = [0, 0, 0].map((x) => e.full([6, 3], x));
    const options = { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, step: 1, magnitude: undefined };
    e.adamwStep({ weight: t, m, v }, g, options);
    e.writeRows(t, i, rows);
    e.adamwStep({ weight: t, m, v }, g, options);
    assert.deepEqual(await e.read(t), want);
    e.free(t, words, i, rows, freshWords, found, m, v, g);
  });

  it('linear and its gradients', async (e, r) => {
    const [x, w, b, g] = [random(r, [2, 3, 5]), random(r, [4, 5]), random(r, [4]), random(r, [2, 3, 4])];
    const [tx, tw, tb, tg] = [x, w, b, g].map(up);
    const flat = (a: Ref): Ref => ({ shape: [6, a.shape[2]], data: a.data });
    const y = matmul(flat(x), w, false, true);
    await equal(
      [
        [e.linear(tx, tw), { shape: [2, 3, 4], data: y.data }],
        [e.linear(tx, tw, tb), { shape: [2, 3, 4], data: y.data.map((v, i) => v + b.data[i % 4]) }],
        [e.linearGradInput(tg, tw), { shape: [2, 3, 5], data: matmul(flat(g), w).data }],
        [e.linearGradWeight(tg, tx), matmul(flat(g), flat(x), true)],
        [e.biasGrad(tg), { shape: [4], data: [0, 1, 2, 3].map((c) => sumOf(rowsOf(g).map((row) => row[c]))) }],
      ],
      [tx, tw, tb, tg],
    );
  });

  it('GELU and tanh with their gradients', async (e, r) => {
    const [x, g] = [random(r, [4, 7], 2), random(r, [4, 7])];
    const [tx, tg] = [x, g].map(up);
    const Phi = (v: number) => 0.5 * (1 + erf(v / Math.SQRT2));
    const slope = (v: number) => Phi(v) + (v * Math.exp((-v * v) / 2)) / Math.sqrt(2 * Math.PI);
    const coded = map(x, (v) => codeOf(v, 'q2.1') / 2);
    const y = e.tanh(tx);
    const packed = e.encode(tx, 'q2.1');
    await equal(
      [
        [e.gelu(tx), map(x, (v) => v * Phi(v))],
        [e.geluGrad(tg, tx), zip(g, x, (a, v) => a * slope(v))],
        [e.geluGradEncoded(tg, packed), zip(g, coded, (a, v) => a * slope(v))],
        [e.tanhGrad(tg, y), zip(g, x, (a, v) => a * (1 - Math.tanh(v) ** 2))],
      ],
      [tx, tg, y, packed.words],
    );
  });

  it('layer norm and its gradients, dense and pruned', async (e, r) => {
    for (const [shape, eps] of [[[3, 8], 1e-12], [[2, 3, 5], 1e-5]] as const) {
      const H = shape[shape.length - 1];
      const [x, g] = [random(r, shape, 2), random(r, shape)];
      const [w, b] = [random(r, [H]), random(r, [H])];
      const [tx, tg, tw, tb] = [x, g, w, b].map(up);
      const n = rowsOf(x).map((row) => normRow(row, eps));
      const y: Ref = { shape, data: n.flatMap((row) => row.y) };
      const gradInput = (hat: Ref) =>
        mapRows(g, (row, i) => {
          const h = row.map((v, c) => v * w.data[c]);
          const yi = rowsOf(hat)[i];
          const along = sumOf(h.map((v, c) => v * yi[c])) / H;
          return h.map((v, c) => n[i].rstd * (v - sumOf(h) / H - along * yi[c]));
        });
      const stats = e.rowStats(tx, eps);
      const hat = e.normalize(tx, stats);
      const count = Math.floor(0.3 * y.data.length);
      const sparse = e.topK(hat, count);
      const order = y.data.map((_, i) => i).sort((p, q) => Math.abs(y.data[q]) - Math.abs(y.data[p]));
      const kept = new Set(order.slice(0, count));
      const pruned = map(y, (v, i) => (kept.has(i) ? v : 0));
      await equal(
        [
          [e.layerNorm(tx, tw, tb, eps), mapRows(y, (row) => row.map((v, c) => v * w.data[c] + b.data[c]))],
          [e.layerNormGradInput(tg, hat, stats.rstd, tw), gradInput(y)],
          [e.layerNormGradWeight(tg, hat), { shape: [H], data: Array.from({ length: H }, (_, c) => sumOf(rowsOf(g).map((row, i) => row[c] * n[i].y[c]))) }],
          [e.layerNormGradInputSparse(tg, sparse, stats.rstd, tw), gradInput(pruned)],
          [e.densify(sparse), pruned],
          [stats.mean, { shape: [n.length, 1], data: n.map((row) => row.mean) }],
          [stats.rstd, { shape: [n.length, 1], data: n.map((row) => row.rstd) }],
          [hat, y],
        ],
        [tx, tg, tw, tb, sparse.values, sparse.indices],
        1e-5,
      );
    }
  });

  it('layer norm by codes: they are those of the normalised values, and its input gradient and the values behind the affine come of what they stand for', async (e, r) => {
    for (const shape of [[3, 8], [2, 3, 5], [2, 300]])
      for (const encoding of ['q8-row', 'q4-row', 'q3.4', 'q2.1'] as const) {
        const H = shape[shape.length - 1];
        const [x, g, w, b] = [random(r, shape, 2), random(r, shape), random(r, [H]), random(r, [H])];
        const [tx, tg, tw, tb] = [x, g, w, b].map(up);
        const { encoded, rstd } = e.normalizeEncoded(tx, 1e-5, encoding);
        const want = e.scope(() => e.encode(e.normalize(tx, e.rowStats(tx, 1e-5)), encoding));
        assert.deepEqual([encoded.encoding, encoded.shape, encoded.payloadBytes], [want.encoding, shape, want.payloadBytes]);
        for (const [got, expected] of [[encoded.words, want.words], [encoded.steps, want.steps]]) if (got && expected) assert.deepEqual(await e.read(got), await e.read(expected), encoding);
        assert.equal(encoded.steps !== undefined, want.steps !== undefined);
        const decoded = e.decode(encoded);
        const hat: Ref = { shape, data: Array.from(await e.read(decoded)) };
        const n = rowsOf(x).map((row) => normRow(row, 1e-5));
        const dx = mapRows(g, (row, i) => {
          const h = row.map((v, c) => v * w.data[c]);
          const y = rowsOf(hat)[i];
          const along = sumOf(h.map((v, c) => v * y[c])) / H;
          return h.map((v, c) => n[i].rstd * (v - sumOf(h) / H - along * y[c]));
        });
        await equal(
          [
            [rstd, { shape: [n.length, 1], data: n.map((row) => row.rstd) }],
            [e.layerNormGradInputEncoded(tg, encoded, rstd, tw), dx],
            [e.decodeAffine(encoded, tw, tb), mapRows(hat, (row) => row.map((v, c) => v * w.data[c] + b.data[c]))],
          ],
          [tx, tg, tw, tb, decoded, ...[encoded, want].flatMap((c) => (c.steps ? [c.words, c.steps] : [c.words]))],
          1e-5,
        );
      }
  });

  it('attention: heads, probabilities with a mask, softmax gradient', async (e, r) => {
    const [B, A, T, d] = [1 + (r.next() % 3), 1 + (r.next() % 4), 2 + (r.next() % 8), 1 + (r.next() % 8)];
    const [x, q, k, g] = [random(r, [B, T, A * d]), random(r, [B, A, T, d]), random(r, [B, A, T, d]), random(r, [B, A, T, T])];
    const mask: Ref = { shape: [B, 1, 1, T], data: Array.from({ length: B * T }, (_, i) => (i === T - 1 ? -10000 : 0)) };
    const [tx, tq, tk, tg, tm] = [x, q, k, g, mask].map(up);
    const split = transposed({ shape: [B, T, A, d], data: x.data }, [0, 2, 1, 3]);
    const scores = map(matmul(q, k, false, true), (v) => v * 0.4);
    const p = mapRows(scores, softmaxRow);
    const masked = mapRows(scores, (row, i) => softmaxRow(row.map((v, u) => v + mask.data[Math.floor(i / (A * T)) * T + u])));
    const tp = e.softmax(tg);
    const pg = mapRows(g, softmaxRow);
    const heads = e.splitHeads(tx, A);
    await equal(
      [
        [e.mergeHeads(heads), x],
        [heads, split],
        [e.attentionProbs(tq, tk, 0.4), p],
        [e.attentionProbs(tq, tk, 0.4, tm), masked],
        [
          e.softmaxGrad(tg, tp),
          mapRows(g, (row, i) => {
            const pi = rowsOf(pg)[i];
            const dot = sumOf(row.map((v, u) => v * pi[u]));
            return row.map((v, u) => pi[u] * (v - dot));
          }),
        ],
        [tp, pg],
      ],
      [tx, tq, tk, tg, tm],
      1e-5,
    );
  });

  it('attention as a whole: the context and its gradients, each alone and all together, with a mask, dropout and operands in codes', async (e, r) => {
    const [B, A, T] = [1 + (r.next() % 2), 1 + (r.next() % 3), 4 + (r.next() % 7)];
    for (const [d, dropped, masks, which, encodings] of [[8, 0.3, true, [1, 2, 3, 4, 5, 6, 7], ['q8-row']], [4, 0, false, [7], []], [5, 0.3, true, [3, 4, 7], ['q8-row', 'q3.4', 'q2.1', 'u8-row']]] as const) {
      const H = A * d;
      const [q, k, v, grad] = [0, 1, 2, 3].map(() => random(r, [B, T, H]));
      const mask: Ref | undefined = masks ? { shape: [B, 1, 1, T], data: Array.from({ length: B * T }, (_, i) => (i % T === T - 1 ? -10000 : 0)) } : undefined;
      const key = { seed: 9, counter: 4, offset: 3 };
      const draw = dropped > 0 ? e.scope(() => e.dropout(e.full([B, A, T, T], 1), dropped, key)) : undefined;
      const drawn = draw && (await e.read(draw));
      if (draw) e.free(draw);
      const [tq, tk, tv, tg] = [q, k, v, grad].map(up);
      const tm = mask && up(mask);
      const settings = { heads: A, scale: 0.4, mask: tm, ...(drawn && { dropout: { p: dropped, key } }) };
      const want = attention({ q, k, v, grad, heads: A, scale: 0.4, mask, drawn });
      const some: [DeviceTensor, Ref][] = [[e.attention(tq, tk, tv, settings), want.context]];
      for (const bits of which) {
        const wanted = { dq: (bits & 1) > 0, dk: (bits & 2) > 0, dv: (bits & 4) > 0 };
        const got = e.attentionGrad(tg, tq, tk, bits === 4 ? undefined : tv, settings, wanted);
        for (const of of ['dq', 'dk', 'dv'] as const) {
          assert.equal(got[of] !== undefined, wanted[of], of);
          const t = got[of];
          if (t) some.push([t, want[of]]);
        }
      }
      assert.throws(() => e.attentionGrad(tg, tq, tk, undefined, settings, { dq: true, dk: false, dv: false }), ShapeError);
      // Codes of the operands, a row of them d values of one head.
      for (const encoding of encodings) {
        const encoded = [tq, tk, tv].map((x) => e.scope(() => e.encode(e.reshape(x, [B, T, A, d]), encoding)));
        const values: Ref[] = [];
        for (const x of encoded) {
          const back = e.decode(x);
          values.push({ shape: [B, T, H], data: Array.from(await e.read(back)) });
          e.free(back);
        }
        const [cq, ck, cv] = values;
        const coded = attention({ q: cq, k: ck, v: cv, grad, heads: A, scale: 0.4, mask, drawn });
        const got = e.attentionGrad(tg, encoded[0], encoded[1], encoded[2], settings, { dq: true, dk: true, dv: true });
        for (const of of ['dq', 'dk', 'dv'] as const) some.push([got[of]!, coded[of]]);
        e.free(...encoded.flatMap((x) => (x.steps ? [x.words, x.steps] : [x.words])));
      }
      await equal(some, [tq, tk, tv, tg, ...(tm ? [tm] : [])], 1e-5);
    }
  });

  it('losses and their gradients, ignored labels left out', async (e, r) => {
    const logits = random(r, [5, 4], 3);
    // An ignored label may be one that no class has, or one of the classes.
    for (const [given, ignored] of [[[0, 3, 1, 1, 2], -100], [[0, -100, 1, -100, 2], -100], [[0, 3, 1, 1, 2], 1], [[0, 0, 3, 1, 0], 0]] as const) {
      const labels = given.map((l) => (l === ignored ? -1 : l));
      const n = labels.filter((l) => l >= 0).length;
      const p = mapRows(logits, softmaxRow);
      const loss = sumOf(labels.map((l, i) => (l < 0 ? 0 : -Math.log(p.data[4 * i + l])))) / n;
      const grad = mapRows(p, (row, i) => row.map((v, c) => (labels[i] < 0 ? 0 : (v - (c === labels[i] ? 1 : 0)) / n)));
      const [t, l] = [up(logits), ids(given)];
      const out = e.crossEntropy(t, l, ignored);
      await equal([[out.loss, { shape: [], data: [loss] }], [out.grad, grad]], [t, l], 1e-5);
    }
    const large = map(logits, (v) => v + 200);
    const far = up(large);
    const label = ids([0, 1, 2, 3, 0]);
    const shifted = e.crossEntropy(far, label);
    const q = mapRows(large, softmaxRow);
    await equal([[shifted.loss, { shape: [], data: [sumOf([0, 1, 2, 3, 0].map((c, i) => -Math.log(q.data[4 * i + c]))) / 5] }]], [far, label, shifted.grad], 1e-4);
    const [x, y] = [random(r, [4, 1]), random(r, [4, 1])];
    const [tx, ty] = [x, y].map(up);
    const out = e.meanSquaredError(tx, ty);
    await equal(
      [
        [out.loss, { shape: [], data: [sumOf(zip(x, y, (a, b) => (a - b) ** 2).data) / 4] }],
        [out.grad, zip(x, y, (a, b) => (2 * (a - b)) / 4)],
      ],
      [tx, ty],
    );
  });

  it('codes are packed as the contract says, ties and clamps included, and decode to the bit', async (e, r) => {
    for (const encoding of Object.keys(FIXED_POINT) as FixedPoint[]) {
      const { bits, scale, lo, hi } = FIXED_POINT[encoding];
      for (const n of [8, 9, 10, 11, 1]) {
        const special = [0.5 / scale, 1.5 / scale, 2.5 / scale, -0.5 / scale, -1.5 / scale, 1e6, -1e6, (hi + 0.5) / scale, (lo - 0.5) / scale];
        const x: Ref = { shape: [n], data: Array.from({ length: n }, (_, i) => Math.fround(special[i] ?? r.normal())) };
        const t = up(x);
        const packed = e.encode(t, encoding);
        const codes = x.data.map((v) => codeOf(v, encoding));
        const half = Math.ceil(n / 2);
        const bytes = bits === 8 ? codes.map((c) => c & 255) : codes.slice(0, half).map((c, i) => (c + 8) * 16 + (half + i < n ? codes[half + i] + 8 : 0));
        assert.equal(packed.payloadBytes, bytes.length);
        const words = (await e.read(packed.words)) as Int32Array;
        assert.equal(words.length, Math.ceil(bytes.length / 4));
        assert.deepEqual([...new Uint8Array(words.buffer, words.byteOffset, bytes.length)], bytes, `${encoding} of ${n}`);
        const back = e.decode(packed);
        assert.deepEqual([...(await e.read(back))], codes.map((c) => c / scale + 0), `${encoding} of ${n}`);
        e.free(t, packed.words, back);
      }
    }
  }, 1);

  it('row-scaled codes have each row’s own step, float32(max)/127, /255 or /7, lose at most half of it, and are equal to the bit on every engine', async (e, r) => {
    for (const [encoding, hi] of [['q8-row', 127], ['u8-row', 255], ['q4-row', 7]] as const)
      for (const shape of [[4, 5], [2, 3, 7], [1, 1]]) {
        const width = shape[shape.length - 1];
        const x = random(r, shape);
        const sized = x.data.map((v, i) => {
          const row = Math.floor(i / width);
          // Rows of any scale, and one of zeros.
          const scaled = row === 1 ? 0 : v * [1, 0, 1e-9, 3e7, 100, 0.01][row % 6];
          return Math.fround(encoding === 'u8-row' ? Math.abs(scaled) : scaled);
        });
        const t = up({ shape, data: sized });
        const packed = e.encode(t, encoding);
        const back = e.decode(packed);
        const words = (await e.read(packed.words)) as Int32Array;
        const steps = await e.read(packed.steps!);
        const got = await e.read(back);
        assert.deepEqual(back.shape, shape);
        const bytes = encoding === 'q4-row' ? Math.ceil(sized.length / 2) : sized.length;
        assert.equal(packed.payloadBytes, bytes);
        assert.equal(words.length, Math.ceil(bytes / 4));
        assert.equal(steps.length, sized.length / width);
        const packedBytes = new Uint8Array(words.buffer, words.byteOffset, bytes);
        const nibble = (i: number) => (i < bytes ? packedBytes[i] >> 4 : packedBytes[i - bytes] & 15) - 8;
        const codes = sized.map((_, i) => (encoding === 'q4-row' ? nibble(i) : encoding === 'u8-row' ? packedBytes[i] : (packedBytes[i] << 24) >> 24));
        sized.forEach((v, i) => {
          const row = sized.slice(Math.floor(i / width) * width, (Math.floor(i / width) + 1) * width);
          const step = Math.fround(Math.max(...row.map(Math.abs)) / hi);
          assert.equal(steps[Math.floor(i / width)], step);
          const ratio = step === 0 ? 0 : Math.fround(v / step);
          const code = Math.round(ratio) - (ratio - Math.floor(ratio) === 0.5 && Math.round(ratio) % 2 !== 0 ? 1 : 0);
          assert.equal(codes[i], code + 0, `${encoding}: ${v} of ${row}`);
          assert.equal(got[i], Math.fround(code * step) + 0);
          assert.ok(Math.abs(got[i] - v) <= 0.5001 * step);
        });
        e.free(t, packed.words, packed.steps!, back);
      }
  }, 1);

  it('flat probabilities over 577 tokens survive in row-scaled codes, of which Q0.8 loses most', async (e, r) => {
    const T = 577;
    const scores = random(r, [40, T], 0.5);
    const p = mapRows(scores, softmaxRow);
    const t = up(p);
    const of = async (encoding: 'q0.8' | 'u8-row') => {
      const packed = e.encode(t, encoding);
      const back = e.decode(packed);
      const y = Array.from(await e.read(back));
      e.free(packed.words, back, ...(packed.steps ? [packed.steps] : []));
      const sums = rowsOf({ shape: p.shape, data: y }).map(sumOf);
      const error = Math.sqrt(sumOf(y.map((v, i) => (v - p.data[i]) ** 2)) / sumOf(p.data.map((v) => v * v)));
      return { lost: y.filter((v) => v === 0).length / y.length, least: Math.min(...sums), most: Math.max(...sums), error };
    };
    const [fixed, scaled] = [await of('q0.8'), await of('u8-row')];
    e.free(t);
    assert.ok(fixed.lost > 0.5 && fixed.least < 0.8, JSON.stringify(fixed));
    assert.ok(scaled.lost < 0.001 && scaled.least > 0.99 && scaled.most < 1.01 && scaled.error < 0.01, JSON.stringify(scaled));
  }, 1);

  it('topK keeps the largest by absolute value, lower positions first among equals', async (e, r) => {
    const cases: [number[], number, number[]][] = [
      [[3, -5, 1, 5, -3, 0], 3, [0, 1, 3]],
      [[1, 1, -1, 1, 1], 3, [0, 1, 2]],
      [[0, 2, 0, -2, 2], 4, [0, 1, 3, 4]],
      [[1, 2], 0, []],
    ];
    for (const [data, count, want] of cases) {
      const t = up({ shape: [data.length], data });
      const s = e.topK(t, count);
      assert.deepEqual([...(await e.read(s.indices))], want);
      assert.deepEqual([...(await e.read(s.values))], want.map((i) => data[i]));
      e.free(t, s.values, s.indices);
    }
    const few = up({ shape: [2], data: [1, 2] });
    assert.throws(() => e.topK(few, 3), InvalidArgumentError);
    e.free(few);
    const x = random(r, [40, 25]);
    const t = up(x);
    const s = e.topK(t, 100);
    const want = x.data.map((_, i) => i).sort((p, q) => Math.abs(x.data[q]) - Math.abs(x.data[p])).slice(0, 100).sort((p, q) => p - q);
    assert.deepEqual([...(await e.read(s.indices))], want);
    e.free(t, s.values, s.indices);
  });

  it('dropout draws the same mask for the same key, and keeps the share and the scale that it says', async (e) => {
    const n = 40_000;
    const ones = e.full([n], 1);
    for (const p of [0.1, 0.5]) {
      const draw = async (seed: number, counter: number, shape: number[] = [n]) => {
        const x = e.reshape(ones, shape);
        const y = e.dropout(x, p, { seed, counter });
        const data = await e.read(y);
        e.free(x, y);
        return data;
      };
      const a = await draw(7, 3);
      assert.deepEqual(await draw(7, 3), a);
      assert.deepEqual(await draw(7, 3, [200, 200]), a);
      const other = await draw(7, 4);
      const both = a.filter((v, i) => v > 0 && other[i] > 0).length / n;
      assert.ok(Math.abs(both - (1 - p) ** 2) < 0.02, 'masks of two counters are independent');
      assert.notDeepEqual(await draw(8, 3), a);
      // A block of a larger tensor gets that tensor's mask, wherever it begins.
      for (const [offset, size] of [[4, 9], [1, 7], [1234, 2000], [16_385, 3], [n - 5, 5]]) {
        const few = e.full([size], 1);
        const y = e.dropout(few, p, { seed: 7, counter: 3, offset });
        assert.deepEqual(await e.read(y), a.slice(offset, offset + size));
        e.free(few, y);
      }
      const kept = a.filter((v) => v > 0);
      assert.ok(kept.every((v) => Math.abs(v - 1 / (1 - p)) < 1e-6));
      assert.ok(Math.abs(kept.length / n - (1 - p)) < 4 * Math.sqrt((p * (1 - p)) / n));
    }
    e.free(ones);
  }, 1);

  it('AdamW in its older form, decay after the step, and the update magnitude from the step', async (e, r) => {
    const shape = [4, 5];
    let w = random(r, shape).data;
    let m = new Array<number>(20).fill(0);
    let v = new Array<number>(20).fill(0);
    const state = { weight: e.upload(Float32Array.from(w), shape, 'weights'), m: e.full(shape, 0, 'optimizer'), v: e.full(shape, 0, 'optimizer') };
    const o = { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-6, weightDecay: 0.1 };
    for (let step = 1; step <= 4; step++) {
      const g = step === 3 ? new Array<number>(20).fill(0) : random(r, shape).data;
      const tg = e.upload(Float32Array.from(g), shape, 'gradients');
      const magnitude = e.adamwStep(state, tg, { ...o, step, magnitude: step % 2 === 0 ? 'mean-relative' : undefined });
      m = m.map((a, i) => o.beta1 * a + (1 - o.beta1) * g[i]);
      v = v.map((a, i) => o.beta2 * a + (1 - o.beta2) * g[i] ** 2);
      const rate = (o.lr * Math.sqrt(1 - o.beta2 ** step)) / (1 - o.beta1 ** step);
      const before = w;
      w = w.map((a, i) => a - (rate * m[i]) / (Math.sqrt(v[i]) + o.eps)).map((a) => a - o.lr * o.weightDecay * a);
      const got = await e.read(state.weight);
      w.forEach((a, i) => assert.ok(Math.abs(got[i] - a) < 1e-6, `weight ${i} after step ${step}`));
      assert.equal(magnitude !== undefined, step % 2 === 0);
      if (magnitude) {
        const d = (await e.read(magnitude))[0];
        const want = sumOf(w.map((a, i) => Math.abs((before[i] - a) / before[i]))) / 20;
        assert.ok(Math.abs(d - want) < 2e-3 * want, `${d} is not ${want}`);
        e.free(magnitude);
      }
      e.free(tg);
    }
    e.free(state.weight, state.m, state.v);
  });

  it('a weight of 0 makes the magnitude NaN where it stays and infinite where it moves', async (e) => {
    for (const [g, want] of [[0, NaN], [1, Infinity]]) {
      const state = { weight: e.upload(Float32Array.of(0, 1), [2], 'weights'), m: e.full([2], 0, 'optimizer'), v: e.full([2], 0, 'optimizer') };
      const grad = e.upload(Float32Array.of(g, 1), [2]);
      const d = e.adamwStep(state, grad, { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-6, weightDecay: 0, step: 1, magnitude: 'mean-relative' })!;
      assert.equal((await e.read(d))[0], want);
      e.free(state.weight, state.m, state.v, grad, d);
    }
  }, 1);

  it('the relative norm of a step is ‖ΔW‖/‖W‖ of its float64 twin, its loss change |Σ g·ΔW|, for a weight of any scale, and the step is the same with either', async (e, r) => {
    const shape = [6, 7];
    const n = 42;
    for (const scale of [1, 2 ** -20, 2 ** 12])
      for (const weightDecay of [0, 0.1]) {
        // lr and eps in the scale of the weight and the gradient, so that every number below is the same but for it.
        const start = random(r, shape, scale).data;
        let [w, m, v] = [start, new Array<number>(n).fill(0), new Array<number>(n).fill(0)];
        const make = () => ({ weight: e.upload(Float32Array.from(start), shape, 'weights'), m: e.full(shape, 0, 'optimizer'), v: e.full(shape, 0, 'optimizer') });
        const [state, plain] = [make(), make()];
        const o = { lr: 0.01 * scale, beta1: 0.9, beta2: 0.999, eps: 1e-6, weightDecay: weightDecay / scale };
        for (let step = 1; step <= 3; step++) {
          const g = step === 2 ? new Array<number>(n).fill(0) : random(r, shape).data;
          const tg = e.upload(Float32Array.from(g), shape, 'gradients');
          const d = e.adamwStep(state, tg, { ...o, step, magnitude: 'relative-l2' })!;
          const change = e.adamwStep(plain, tg, { ...o, step, magnitude: 'loss-change' })!;
          m = m.map((a, i) => o.beta1 * a + (1 - o.beta1) * g[i]);
          v = v.map((a, i) => o.beta2 * a + (1 - o.beta2) * g[i] ** 2);
          const rate = (o.lr * Math.sqrt(1 - o.beta2 ** step)) / (1 - o.beta1 ** step);
          const before = w;
          w = w.map((a, i) => a - (rate * m[i]) / (Math.sqrt(v[i]) + o.eps)).map((a) => a - o.lr * o.weightDecay * a);
          const norm = (x: readonly number[]) => Math.sqrt(sumOf(x.map((a) => a * a)));
          const want = norm(w.map((a, i) => a - before[i])) / norm(before);
          assert.deepEqual(d.shape, []);
          const got = (await e.read(d))[0];
          assert.ok(Math.abs(got - want) < 1e-4 * want, `scale ${scale}, decay ${weightDecay}, step ${step}: ${got} is not ${want}`);
          const moved = sumOf(w.map((a, i) => g[i] * (a - before[i])));
          const most = sumOf(w.map((a, i) => Math.abs(g[i] * (a - before[i]))));
          const changed = (await e.read(change))[0];
          assert.ok(Math.abs(changed - Math.abs(moved)) <= 1e-4 * most, `scale ${scale}, decay ${weightDecay}, step ${step}: loss change ${changed} is not ${Math.abs(moved)}`);
          assert.deepEqual(await e.read(state.weight), await e.read(plain.weight));
          e.free(tg, d, change);
        }
        e.free(state.weight, state.m, state.v, plain.weight, plain.m, plain.v);
      }
  });

  it('the relative norm of a step is finite whatever is 0: 1 for a weight of zeros that moves, 0 where nothing moves, and single zeros count for nothing', async (e) => {
    const o = { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-6, weightDecay: 0.1, step: 1, magnitude: 'relative-l2' as const };
    for (const [w, g, want] of [
      [[0, 0, 0], [1, -1, 1], 1],
      [[0, 0, 0], [0, 0, 0], 0],
      [[0, 3, 4], [0, 0, 0], 0.01],
      [[0, 3, 4], [1, 0, 0], Math.sqrt(0.1 ** 2 * 0.99 ** 2 + (0.01 * 5) ** 2) / 5],
    ] as const) {
      const state = { weight: e.upload(Float32Array.from(w), [3], 'weights'), m: e.full([3], 0, 'optimizer'), v: e.full([3], 0, 'optimizer') };
      const grad = e.upload(Float32Array.from(g), [3]);
      const d = e.adamwStep(state, grad, o)!;
      const got = (await e.read(d))[0];
      assert.ok(Math.abs(got - want) <= 1e-4 * want, `${got} is not ${want}`);
      e.free(state.weight, state.m, state.v, grad, d);
    }
  }, 1);

  it('the magnitude of a large table loses nothing to a running float32 sum', async (e) => {
    const shape = [1 << 14, 1 << 8];
    const state = { weight: e.full(shape, 1, 'weights'), m: e.full(shape, 0, 'optimizer'), v: e.full(shape, 0, 'optimizer') };
    const grad = e.full(shape, 1);
    // Step 1 of Adam moves every weight by lr; 0.0009765625 = 2⁻¹⁰ leaves no rounding in 1 − lr.
    const step = (magnitude: UpdateMagnitude) => e.adamwStep(state, grad, { lr: 2 ** -10, beta1: 0.9, beta2: 0.999, eps: 0, weightDecay: 0, step: 1, magnitude })!;
    const d = step('mean-relative');
    const got = (await e.read(d))[0] * 2 ** 10;
    assert.ok(Math.abs(got - 1) < 2e-4, `${got} of the expected magnitude`);
    e.write(state.weight, new Float32Array(state.weight.size).fill(1));
    e.write(state.m, new Float32Array(state.weight.size));
    e.write(state.v, new Float32Array(state.weight.size));
    const norm = step('relative-l2');
    const relative = (await e.read(norm))[0] * 2 ** 10;
    assert.ok(Math.abs(relative - 1) < 2e-4, `${relative} of the expected relative norm`);
    e.write(state.weight, new Float32Array(state.weight.size).fill(1));
    e.write(state.m, new Float32Array(state.weight.size));
    e.write(state.v, new Float32Array(state.weight.size));
    const change = step('loss-change');
    const changed = ((await e.read(change))[0] * 2 ** 10) / state.weight.size;
    assert.ok(Math.abs(changed - 1) < 2e-4, `${changed} of the expected loss change`);
    e.free(state.weight, state.m, state.v, grad, d, norm, change);
  }, 1);

  it('bytes are counted once for each storage, under the first of its tensors’ categories, with peaks', async (e) => {
    const start = e.memory();
    e.resetPeak();
    const a = e.full([10, 10], 1);
    assert.equal(e.memory().live.workspace - start.live.workspace, 400);
    const view = e.reshape(a, [100]);
    const held = e.share(a, 'activations');
    assert.equal(e.memory().totalLive - start.totalLive, 400);
    assert.equal(e.memory().live.activations - start.live.activations, 400);
    assert.equal(view.storageId, a.storageId);
    e.free(a, view);
    assert.equal(e.memory().live.activations - start.live.activations, 400);
    assert.deepEqual([...(await e.read(held))], new Array(100).fill(1));
    const b = e.share(held);
    e.free(held);
    assert.equal(e.memory().live.workspace - start.live.workspace, 400);
    e.free(b);
    assert.equal(e.memory().totalLive, start.totalLive);
    assert.equal(e.memory().totalPeak - start.totalLive, 400);
    e.resetPeak();
    assert.equal(e.memory().totalPeak, e.memory().totalLive);
  }, 1);

  it('a scope frees its temporaries, not its result, and everything when it throws', async (e) => {
    const kept = e.scope(() => {
      const a = e.full([2], 1);
      const b = e.scope(() => e.add(a, a));
      return { list: [e.mul(b, b)] };
    });
    assert.deepEqual([...(await e.read(kept.list[0]))], [4, 4]);
    e.free(kept.list[0]);
    assert.throws(
      () =>
        e.scope(() => {
          e.full([3], 1);
          throw new Error('stop');
        }),
      /stop/,
    );
  }, 1);

  it('an activation or gradient outlives the scope that made it', async (e) => {
    const owned: DeviceTensor[] = [];
    e.scope(() => {
      owned.push(e.share(e.full([3], 2), 'activations'));
    });
    assert.deepEqual([...(await e.read(owned[0]))], [2, 2, 2]);
    e.free(owned[0]);
  }, 1);

  it('misuse is refused by name: freed tensors, other engines’ tensors, wrong lengths, updates of shared weights', async (e) => {
    const a = e.full([2], 1);
    e.free(a);
    assert.throws(() => e.add(a, a), UseAfterFreeError);
    assert.throws(() => e.free(a), UseAfterFreeError);
    const foreign = await make();
    const theirs = foreign.full([2], 1);
    assert.throws(() => e.abs(theirs), InvalidArgumentError);
    foreign.dispose();
    assert.throws(() => e.upload(new Float32Array(3), [2]), ShapeError);
    const state = { weight: e.full([2], 1, 'weights'), m: e.full([2], 0, 'optimizer'), v: e.full([2], 0, 'optimizer') };
    const g = e.full([2], 1);
    for (const shared of [state.weight, state.m, state.v]) {
      const view = e.share(shared);
      assert.throws(() => e.adamwStep(state, g, { lr: 1, beta1: 0.9, beta2: 0.9, eps: 1, weightDecay: 0, step: 1, magnitude: undefined }), InvalidArgumentError);
      e.free(view);
      assert.deepEqual([...(await e.read(state.weight)), ...(await e.read(state.m)), ...(await e.read(state.v))], [1, 1, 0, 0, 0, 0], 'a refused update changed something');
    }
    const odd = e.full([3], 1);
    assert.throws(() => e.reshape(odd, [2]), ShapeError);
    e.free(g, state.weight, state.m, state.v, odd);
  }, 1);
}
