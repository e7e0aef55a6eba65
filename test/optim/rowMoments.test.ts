/** Updates by touched rows against the same formulas in float64, row by row, and against AdamW itself where every row is touched. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEngine } from '../../src/engine/choose';
import type { Engine, UpdateMagnitude } from '../../src/engine/engine';
import { InvalidArgumentError } from '../../src/errors';
import { AdamW, type AdamWSettings } from '../../src/optim/adamw';
import { Random } from '../../src/random';
import { Parameter } from '../../src/tape/parameter';
import { TouchedRows } from '../../src/tape/touchedRows';

let engine: Engine;
function it(what: string, fn: (r: Random) => Promise<void>): void {
  test(what, async () => {
    engine ??= await chooseEngine();
    const before = engine.memory();
    await fn(new Random(23));
    const after = engine.memory();
    assert.equal(after.tensors, before.tensors, 'tensors left alive');
    assert.equal(after.totalLive, before.totalLive, 'bytes left alive');
  });
}

const table = (values: Float32Array, width: number) => new Parameter('words.weight', engine.upload(values, [values.length / width, width], 'weights'));
const drawn = (r: Random, n: number, scale = 1) => Float32Array.from({ length: n }, () => scale * r.normal());

/** One update of these rows. */
async function apply(optimizer: AdamW, p: Parameter, rows: readonly number[], g: Float32Array, lr: number, magnitude?: UpdateMagnitude): Promise<number | undefined> {
  p.touched = new TouchedRows(engine, [Int32Array.from(rows)]);
  const grad = engine.upload(g, [rows.length, p.shape[1]], 'gradients');
  try {
    const got = optimizer.apply(p, grad, lr, magnitude);
    if (!got) return undefined;
    const value = (await engine.read(got))[0];
    engine.free(got);
    return value;
  } finally {
    engine.free(grad);
    p.touched.dispose();
    p.touched = undefined;
  }
}

/** Some rows, ascending. */
function some(r: Random, of: number, count: number): number[] {
  return [...r.permutation(of)].slice(0, count).sort((a, b) => a - b);
}

/** Rows that are not touched stand still, moments and all; bias corrections count the table's updates. */
class Reference {
  private readonly m: Float64Array;
  private readonly v: Float64Array;
  private n = 0;
  readonly w: Float64Array;
  constructor(
    start: Float32Array,
    private readonly width: number,
    private readonly decay: number,
  ) {
    this.w = Float64Array.from(start);
    this.m = new Float64Array(start.length);
    this.v = new Float64Array(start.length);
  }
  step(rows: readonly number[], g: Float32Array, lr: number): Record<UpdateMagnitude, number> {
    const { m, v, w, width, decay } = this;
    this.n++;
    const before = w.slice();
    rows.forEach((row, k) => {
      for (let j = 0; j < width; j++) {
        const [i, x] = [row * width + j, g[k * width + j]];
        m[i] = 0.9 * m[i] + 0.1 * x;
        v[i] = 0.999 * v[i] + 0.001 * x * x;
        w[i] -= ((lr * Math.sqrt(1 - 0.999 ** this.n)) / (1 - 0.9 ** this.n)) * (m[i] / (Math.sqrt(v[i]) + 1e-6));
        w[i] -= lr * decay * w[i];
      }
    });
    const sum = (f: (i: number) => number) => w.reduce((s, _, i) => s + f(i), 0);
    return { 'mean-relative': sum((i) => Math.abs((before[i] - w[i]) / before[i])) / w.length, 'relative-l2': Math.sqrt(sum((i) => (before[i] - w[i]) ** 2) / sum((i) => before[i] ** 2)), 'loss-change': Math.abs(rows.reduce((s, row, k) => s + g.slice(k * width, (k + 1) * width).reduce((t, x, j) => t + x * (before[row * width + j] - w[row * width + j]), 0), 0)) };
  }
}

it('touched rows follow AdamW in float64, all others and their moments stand still; the update magnitude is that of the whole table', async (r) => {
  const [V, H] = [12, 5];
  const start = drawn(r, V * H).map((x) => x + Math.sign(x) * 0.5);
  for (const magnitude of ['mean-relative', 'relative-l2', 'loss-change', undefined] as const) {
    const optimizer = new AdamW(engine, { weightDecay: 0.2 });
    const p = table(start, H);
    const want = new Reference(start, H, 0.2);
    const seen = new Set<number>();
    for (let k = 0; k < 9; k++) {
      const rows = some(r, V - 2, 1 + (k % 4));
      for (const row of rows) seen.add(row);
      const g = drawn(r, rows.length * H, 10 ** (k % 3));
      const got = await apply(optimizer, p, rows, g, 0.03, magnitude);
      const expected = want.step(rows, g, 0.03);
      if (magnitude) assert.ok(Math.abs(got! - expected[magnitude]) < 1e-4 * expected[magnitude], `step ${k}: ${magnitude} ${got} is not ${expected[magnitude]}`);
      else assert.equal(got, undefined);
      (await engine.read(p.data)).forEach((x, i) => assert.ok(Math.abs(x - want.w[i]) < 3e-6 * (1 + Math.abs(want.w[i])), `step ${k}: w[${i}] is ${x}, not ${want.w[i]}`));
      assert.equal(engine.memory().live.optimizer, 2 * 4 * H * seen.size, 'moments of the rows that were touched, and of no other');
      assert.equal(optimizer.stepCount(p), k + 1);
    }
    assert.ok(seen.size < V, 'a row was never touched');
    optimizer.dispose();
    engine.free(p.data);
  }
});

it('a table of zeros moves by magnitude 1, and one that does not move by 0', async () => {
  const optimizer = new AdamW(engine, { weightDecay: 0 });
  const p = table(new Float32Array(12), 4);
  assert.equal(await apply(optimizer, p, [1], new Float32Array(4), 0.1, 'relative-l2'), 0);
  assert.equal(await apply(optimizer, p, [1], Float32Array.of(1, 2, -3, 4), 0.1, 'relative-l2'), 1);
  optimizer.dispose();
  engine.free(p.data);
});

for (const moments of ['float32', '8-bit'] as const)
  it(`with ${moments} moments, updates that touch every row are those of AdamW on the whole table to the bit, also in several blocks of rows`, async (r) => {
    // Of this width a row is one block of 8-bit moments either way; 1,100 rows are more than are updated at once.
    const [V, H] = [1100, 2048];
    const start = drawn(r, V * H);
    const settings: AdamWSettings = { weightDecay: 0.1, moments };
    const [rowwise, whole] = [new AdamW(engine, settings), new AdamW(engine, settings)];
    const [a, b] = [table(start, H), table(start, H)];
    const all = Array.from({ length: V }, (_, i) => i);
    for (let k = 0; k < 3; k++) {
      const g = drawn(r, V * H);
      const moved = await apply(rowwise, a, all, g, 0.01, 'relative-l2');
      const grad = engine.upload(g, [V, H]);
      const expected = whole.apply(b, grad, 0.01, 'relative-l2')!;
      assert.ok(Math.abs(moved! / (await engine.read(expected))[0] - 1) < 1e-5);
      engine.free(grad, expected);
      assert.deepEqual(await engine.read(a.data), await engine.read(b.data), `after step ${k}`);
    }
    assert.equal(engine.memory().live.optimizer, 2 * (moments === '8-bit' ? 2 * V * (H + 4) : 8 * V * H));
    rowwise.dispose();
    whole.dispose();
    engine.free(a.data, b.data);
  });

for (const [what, V, H, settings] of [
  ['float32', 9, 4, {}],
  ['8-bit', 80, 64, { moments: '8-bit' }],
  ['8-bit, idle ones on the host', 80, 64, { moments: '8-bit', idleMoments: 'host' }],
] as const)
  it(`moments by rows, ${what}, come back to the bit on another optimizer, and training goes on as if it had never stopped`, async (r) => {
    const start = drawn(r, V * H);
    const [kept, moved] = [new AdamW(engine, settings), new AdamW(engine, settings)];
    const [a, b] = [table(start, H), table(start, H)];
    let first: AdamW = new AdamW(engine, settings);
    for (let k = 0; k < 6; k++) {
      const rows = some(r, V, 3);
      const g = drawn(r, rows.length * H);
      await apply(kept, a, rows, g, 0.1);
      await apply(k < 3 ? first : moved, b, rows, g, 0.1);
      if (k !== 2) continue;
      b.trains = false;
      await first.beginStep();
      assert.equal(engine.memory().live.optimizer, (await sizeOf(kept, a)) * ('idleMoments' in settings ? 1 : 2));
      const snapshot = (await first.snapshotOf(b))!;
      assert.ok(snapshot.rows!.length >= 3);
      for (const bad of [
        { ...snapshot, rows: undefined },
        { ...snapshot, rows: snapshot.rows!.slice(1) },
        { ...snapshot, rows: snapshot.rows!.map(() => 1) },
        { ...snapshot, rows: snapshot.rows!.map((row, i) => (i === 0 ? V : row)) },
        { ...snapshot, rows: new Int32Array(0) },
        { ...snapshot, m: new Float32Array(3) },
      ])
        assert.throws(() => moved.restoreOf(b, bad), InvalidArgumentError);
      assert.deepEqual(moved.parameters, []);
      b.trains = true;
      moved.restoreOf(b, snapshot);
      assert.deepEqual(await moved.snapshotOf(b), snapshot);
      first.dispose();
      first = moved;
    }
    assert.deepEqual(await engine.read(b.data), await engine.read(a.data));
    assert.deepEqual(await moved.snapshotOf(b), await kept.snapshotOf(a));
    kept.dispose();
    moved.dispose();
    engine.free(a.data, b.data);
  });

/** Bytes of the moments of one parameter. */
async function sizeOf(optimizer: AdamW, p: Parameter): Promise<number> {
  const { m, v } = (await optimizer.snapshotOf(p))!;
  return [m, v].flatMap((x) => (x instanceof Float32Array ? [x] : [x.codes, x.scales])).reduce((s, x) => s + x.byteLength, 0);
}

it('one optimizer updates a table by rows or as a whole, never both; a gradient of other rows is refused, and nothing moves', async (r) => {
  const optimizer = new AdamW(engine);
  const p = table(drawn(r, 12), 4);
  const before = await engine.read(p.data);
  p.touched = new TouchedRows(engine, [Int32Array.of(2, 0, 2)]);
  const wrong = engine.full([3, 4], 1);
  assert.throws(() => optimizer.apply(p, wrong, 0.1), InvalidArgumentError);
  p.touched.dispose();
  p.touched = undefined;
  assert.deepEqual(await engine.read(p.data), before);
  await apply(optimizer, p, [1], drawn(r, 4), 0.1);
  const after = await engine.read(p.data);
  assert.throws(() => optimizer.apply(p, wrong, 0.1), /moments of some rows/);
  assert.deepEqual(await engine.read(p.data), after);
  optimizer.dispose();
  const dense = new AdamW(engine);
  dense.apply(p, wrong, 0.1);
  await assert.rejects(apply(dense, p, [1], drawn(r, 4), 0.1), /moments of the whole table/);
  dense.dispose();
  engine.free(p.data, wrong);
});
