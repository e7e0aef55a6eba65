/** 8-bit moments against tables of the values that the codes stand for, and AdamW on them against float64. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEngine } from '../../src/engine/choose';
import type { Engine } from '../../src/engine/engine';
import { InvalidArgumentError } from '../../src/errors';
import { AdamW, type AdamWParameterSnapshot, type CodedMomentValues } from '../../src/optim/adamw';
import { blockLength, type CodedMoment, decodeFirst, decodeSecond, encodeFirst, encodeSecond, momentBytes } from '../../src/optim/eightBit';
import { Random } from '../../src/random';
import { Parameter } from '../../src/tape/parameter';

let engine: Engine;
function it(what: string, fn: (r: Random) => Promise<void>, name?: 'cpu'): void {
  test(what, async () => {
    engine = await chooseEngine(name);
    const before = engine.memory().tensors;
    await fn(new Random(5));
    assert.equal(engine.memory().tensors, before, 'tensors left alive');
    engine.dispose();
  });
}

/** What a code stands for, with the block's largest magnitude as 1: 8 codes to an octave; the first moment's go through 0. */
const octave = (k: number) => 2 ** (k / 8);
const FIRST = Array.from({ length: 128 }, (_, k) => (octave(k) - 1) / (octave(127) - 1));
const SECOND = Array.from({ length: 256 }, (_, k) => octave(k - 255));

/** Decodes what the optimizer has on the host, by the tables. */
function valuesOf({ codes, scales }: CodedMomentValues, size: number, signed: boolean): number[] {
  const bytes = signed ? new Int8Array(codes.buffer, codes.byteOffset, size) : new Uint8Array(codes.buffer, codes.byteOffset, size);
  const block = size / scales.length;
  return Array.from(bytes, (code, i) => scales[Math.floor(i / block)] * (signed ? Math.sign(code) * FIRST[Math.abs(code)] : SECOND[code]));
}

type Codec = { readonly encode: (values: Float32Array, block: number, step: number) => CodedMoment; readonly decode: (c: CodedMoment, size: number) => Promise<number[]> };
const codec = (encode: typeof encodeFirst, decode: typeof decodeFirst): Codec => ({
  encode: (values, block, step) => encode(engine, engine.upload(values, [values.length]), block, step),
  async decode(c, size) {
    const back = decode(engine, c, [size]);
    const values = Array.from(await engine.read(back));
    engine.free(back, c.words, c.scales);
    return values;
  },
});
const first = codec(encodeFirst, decodeFirst);
const second = codec(encodeSecond, decodeSecond);

/** Values of all sizes, from the largest of a block down to below the smallest code. */
const wide = (r: Random, size: number, octaves: number) => Float32Array.from({ length: size }, () => r.normal() * 2 ** (-octaves * r.uniform()));
/** A block's values next to a number, below and above. */
function neighbours(table: readonly number[], x: number): [number, number] {
  const above = table.findIndex((t) => t >= x);
  return above < 0 ? [table[table.length - 1], table[table.length - 1]] : [table[Math.max(0, above - 1)], table[above]];
}

for (const name of [undefined, 'cpu'] as const)
  it(`every element becomes one of its two neighbours in the table, on average itself; 0 stays 0 and a second moment never becomes 0 (${name ?? 'default'} engine)`, async (r) => {
    const [size, block, steps] = [3 * 512, 512, 150];
    const m = wide(r, size, 22).map((x, i) => (i % 7 === 0 ? 0 : x * [1, 1e-12, 1e6][Math.floor(i / block)]));
    const v = m.map((x) => x * x);
    for (const [values, { encode, decode }, table, relative] of [[m, first, FIRST, 2 ** -14], [v, second, SECOND, 2 ** -31]] as const) {
      const scales = [0, 1, 2].map((b) => Math.max(...values.subarray(b * block, (b + 1) * block).map(Math.abs)));
      const mean = new Float64Array(size);
      for (let step = 1; step <= steps; step++)
        (await decode(encode(values, block, step), size)).forEach((got, i) => {
          const scale = scales[Math.floor(i / block)];
          const [below, above] = neighbours(table, Math.abs(values[i]) / scale);
          const near = (want: number) => Math.abs(Math.abs(got) / scale - want) <= 2e-5 * want + 1e-12;
          assert.ok(near(below) || near(above), `${values[i]} of at most ${scale} became ${got}, between ${below} and ${above}`);
          assert.ok(got * values[i] >= 0, 'the sign stays');
          if (values === v) assert.ok(got >= 0.999 * scale * table[0], `${got}`);
          if (values === m && values[i] === 0) assert.equal(got, 0);
          mean[i] += got / steps;
        });
      for (let i = 0; i < size; i++) {
        const x = Math.abs(values[i]) / scales[Math.floor(i / block)];
        // Of neighbours 9 % apart, one more or one less in a few hundred is some hundredths of a percent.
        if (x > relative) assert.ok(Math.abs(mean[i] / values[i] - 1) < 0.005, `${values[i]} is ${mean[i]} on average`);
      }
    }
  }, name);

it('neighbouring values are 9.05 % apart over 31.9 octaves of v, and within 10 % over the upper 12 of m; a block of zeros stays so', async () => {
  for (let k = 1; k < 256; k++) assert.ok(Math.abs(SECOND[k] / SECOND[k - 1] - 1.0905) < 1e-4);
  for (let k = 127; FIRST[k] > 2 ** -12; k--) assert.ok(FIRST[k] / FIRST[k - 1] < 1.1, `${k}`);
  assert.deepEqual([FIRST[1].toExponential(1), SECOND[0].toExponential(1)], ['1.5e-6', '2.5e-10']);
  for (const { encode, decode } of [first, second]) assert.deepEqual(await decode(encode(new Float32Array(128), 64, 3), 128), new Array(128).fill(0));
});

it('blocks do not see each other: a huge element costs its own block alone', async (r) => {
  const calm = wide(r, 256, 6);
  const loud = calm.slice();
  loud[200] = 1e20;
  for (const { encode, decode } of [first, second]) {
    const positive = (x: Float32Array) => x.map(Math.abs);
    const [a, b] = [await decode(encode(positive(calm), 128, 9), 256), await decode(encode(positive(loud), 128, 9), 256)];
    assert.deepEqual(b.slice(0, 128), a.slice(0, 128));
    assert.notDeepEqual(b.slice(128), a.slice(128));
  }
});

test('blocks have 2048 elements or the largest divisor below; small parameters and those without one stay float32', () => {
  for (const [size, block] of [[768 * 768, 2048], [28_996 * 768, 1977], [30_522 * 768, 1536], [4096, 2048], [4095, undefined], [768, undefined], [61 * 67, undefined], [61 * 128, 1952], [2 * 4099, undefined], [65 * 67, 871]] as const) {
    assert.equal(blockLength(size), block, `${size}`);
    assert.equal(momentBytes(size), 8 * size);
    assert.equal(momentBytes(size, '8-bit'), block === undefined ? 8 * size : 2 * (4 * Math.ceil(size / 4) + (4 * size) / block));
  }
});

const parameterOf = (name: string, shape: readonly number[], data: ArrayLike<number>) => new Parameter(name, engine.upload(Float32Array.from(data), shape, 'weights'));
function apply(optimizer: AdamW, p: Parameter, g: Float32Array, lr: number): void {
  const grad = engine.upload(g, p.shape, 'gradients');
  optimizer.apply(p, grad, lr);
  engine.free(grad);
}
const read = async (p: Parameter) => Array.from(await engine.read(p.data));
const normals = (r: Random, n: number, scale = 1) => Float32Array.from({ length: n }, () => scale * r.normal());

it('a step is AdamW’s own on the moments that the codes stand for, magnitude included, and what it leaves in codes is within one neighbour of float64', async (r) => {
  const [size, lr, decay] = [48 * 100, 0.01, 0.1];
  const optimizer = new AdamW(engine, { moments: '8-bit', weightDecay: decay });
  const p = parameterOf('w.weight', [48, 100], normals(r, size).map((x) => x + Math.sign(x)));
  let m = new Array<number>(size).fill(0);
  let v = m.slice();
  for (let n = 1; n <= 6; n++) {
    const g = wide(r, size, 12);
    const before = await read(p);
    const grad = engine.upload(g, p.shape, 'gradients');
    const magnitude = optimizer.apply(p, grad, lr, 'mean-relative')!;
    const moved = (await engine.read(magnitude))[0];
    engine.free(grad, magnitude);
    const wantM = m.map((x, i) => 0.9 * x + 0.1 * g[i]);
    const wantV = v.map((x, i) => 0.999 * x + 0.001 * g[i] * g[i]);
    const rate = (lr * Math.sqrt(1 - 0.999 ** n)) / (1 - 0.9 ** n);
    const want = before.map((w, i) => (w - (rate * wantM[i]) / (Math.sqrt(wantV[i]) + 1e-6)) * (1 - lr * decay));
    const after = await read(p);
    after.forEach((w, i) => assert.ok(Math.abs(w - want[i]) < 2e-6, `step ${n}, [${i}]: ${w} is not ${want[i]}`));
    const distance = want.reduce((s, w, i) => s + Math.abs((before[i] - w) / before[i]), 0) / size;
    assert.ok(Math.abs(moved / distance - 1) < 1e-4, `${moved} is not ${distance}`);
    const { m: coded, v: squares } = (await optimizer.snapshot()).get(p) as AdamWParameterSnapshot & { m: CodedMomentValues; v: CodedMomentValues };
    [m, v] = [valuesOf(coded, size, true), valuesOf(squares, size, false)];
    for (const [got, exact, scales, least] of [[m, wantM, coded.scales, FIRST[1]], [v, wantV, squares.scales, SECOND[0]]] as const)
      got.forEach((x, i) => {
        const scale = scales[Math.floor(i / (size / scales.length))];
        assert.ok(Math.abs(x - exact[i]) <= 0.091 * Math.abs(exact[i]) + 1.0001 * least * scale, `step ${n}, [${i}]: ${x} for ${exact[i]}`);
      });
  }
  optimizer.dispose();
  engine.free(p.data);
});

it('over 300 steps the way is that of float64 but for a few percent, and a second moment follows gradients that shrink', async (r) => {
  const [size, lr] = [4096, 1e-3];
  const optimizer = new AdamW(engine, { moments: '8-bit', weightDecay: 0, beta2: 0.99 });
  const start = normals(r, size);
  const p = parameterOf('w.weight', [64, 64], start);
  const bias = parameterOf('w.bias', [64], start.subarray(0, 64));
  const [m, v, w] = [new Float64Array(size), new Float64Array(size), Float64Array.from(start)];
  // Each element has a scale and a drift of its own, so that the block holds four decades.
  const scale = Float64Array.from({ length: size }, () => 10 ** (-4 * r.uniform()));
  const drift = Float64Array.from({ length: size }, () => r.normal());
  for (let n = 1; n <= 300; n++) {
    const loud = n <= 100 ? 1 : 0.1;
    const g = Float32Array.from(scale, (s, i) => loud * s * (0.3 * drift[i] + r.normal()));
    apply(optimizer, p, g, lr);
    apply(optimizer, bias, g.subarray(0, 64), lr);
    const rate = (lr * Math.sqrt(1 - 0.99 ** n)) / (1 - 0.9 ** n);
    for (let i = 0; i < size; i++) {
      m[i] = 0.9 * m[i] + 0.1 * g[i];
      v[i] = 0.99 * v[i] + 0.01 * g[i] * g[i];
      w[i] -= (rate * m[i]) / (Math.sqrt(v[i]) + 1e-6);
    }
  }
  const got = await read(p);
  const norm = (of: (i: number) => number, n = size) => Math.sqrt(Array.from({ length: n }, (_, i) => of(i) ** 2).reduce((a, b) => a + b, 0));
  const error = norm((i) => got[i] - w[i]) / norm((i) => w[i] - start[i]);
  assert.ok(error > 1e-4 && error < 0.05, `${error}`);
  const snapshot = await optimizer.snapshot();
  const squares = valuesOf(snapshot.get(p)!.v as CodedMomentValues, size, false);
  const ratio = squares.reduce((s, x, i) => s + x / v[i], 0) / size;
  assert.ok(Math.abs(ratio - 1) < 0.02, `v is ${ratio} of what it should be`);
  // Small parameters keep float32, to the bit of what they are without.
  assert.ok(snapshot.get(bias)!.v instanceof Float32Array);
  (await read(bias)).forEach((x, i) => assert.ok(Math.abs(x - w[i]) < 1e-4));
  optimizer.dispose();
  engine.free(p.data, bias.data);
});

it('gradients of 1e-8 beside one of 1000 move their weights by no more than a few learning rates', async (r) => {
  const optimizer = new AdamW(engine, { moments: '8-bit', weightDecay: 0, eps: 1e-12 });
  const p = parameterOf('w.weight', [4096], new Float32Array(4096));
  let before = await read(p);
  for (let n = 1; n <= 30; n++) {
    apply(optimizer, p, normals(r, 4096).map((x, i) => (i % 2048 === 5 ? 1000 : i % 3 === 0 ? 0 : 1e-8 * x)), 0.01);
    const after = await read(p);
    after.forEach((w, i) => assert.ok(Math.abs(w - before[i]) < 0.05, `step ${n} moved [${i}] by ${w - before[i]}`));
    after.forEach((w, i) => i % 2048 === 5 || i % 3 !== 0 || assert.equal(w, 0, 'no gradient, no move'));
    before = after;
  }
  optimizer.dispose();
  engine.free(p.data);
});

it('the books show 8-bit bytes, and a snapshot brings the same codes back: the steps after it repeat to the bit', async (r) => {
  for (const idleMoments of ['keep', 'host'] as const) {
    const optimizer = new AdamW(engine, { moments: '8-bit', idleMoments });
    const p = parameterOf('w.weight', [50, 101], normals(r, 5050));
    const gradients = Array.from({ length: 6 }, () => normals(r, 5050));
    for (const g of gradients.slice(0, 3)) apply(optimizer, p, g, 0.01);
    assert.equal(engine.memory().live.optimizer, momentBytes(5050, '8-bit'));
    assert.equal(engine.memory().live.optimizer, 2 * (5052 + 4 * 5));
    const snapshot = await optimizer.snapshot();
    const weights = Float32Array.from(await read(p));
    const run = async () => {
      for (const g of gradients.slice(3)) apply(optimizer, p, g, 0.01);
      return { weights: await read(p), state: [...(await optimizer.snapshot()).values()] };
    };
    const want = await run();
    engine.write(p.data, weights);
    optimizer.restore(snapshot);
    assert.equal(optimizer.stepCount(p), 3);
    assert.deepEqual(await run(), want);
    // Of other settings: refused, nothing changed.
    const float32 = new AdamW(engine);
    apply(float32, p, gradients[0], 0.01);
    const plain = await float32.snapshot();
    assert.throws(() => float32.restore(snapshot), (e: Error) => e instanceof InvalidArgumentError && /w\.weight/.test(e.message));
    assert.deepEqual(await float32.snapshot(), plain);
    assert.throws(() => optimizer.restore(plain), InvalidArgumentError);
    float32.dispose();
    optimizer.dispose();
    engine.free(p.data);
  }
});

it('a gradient that is not finite spoils its own block, in weights from the next step on, and no other', async (r) => {
  for (const bad of [NaN, Infinity]) {
    const start = normals(r, 8192);
    const gradients = [normals(r, 8192), normals(r, 8192), normals(r, 8192)];
    const runs = [];
    for (const value of [bad, 0.5]) {
      const optimizer = new AdamW(engine, { moments: '8-bit' });
      const p = parameterOf('w.weight', [8192], start);
      for (const [n, g] of gradients.entries()) apply(optimizer, p, g.map((x, i) => (n === 1 && i === 2050 ? value : x)), 0.01);
      runs.push(await read(p));
      optimizer.dispose();
      engine.free(p.data);
    }
    const [spoilt, sound] = runs;
    assert.deepEqual([...spoilt.slice(0, 2048), ...spoilt.slice(4096)], [...sound.slice(0, 2048), ...sound.slice(4096)]);
    assert.ok(spoilt.slice(2048, 4096).some(Number.isNaN) && sound.every(Number.isFinite));
  }
});
