/** AdamW against the formulas of SlimFit's optimizer in float64, over several steps, and the rules of what happens to whom. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEngine } from '../../src/engine/choose';
import type { Engine } from '../../src/engine/engine';
import { InvalidArgumentError, SlimFitError } from '../../src/errors';
import { AdamW, type AdamWSettings } from '../../src/optim/adamw';
import { Random } from '../../src/random';
import { Parameter } from '../../src/tape/parameter';
import { map, random, type Ref, sumOf } from '../engine/reference';

let engine: Engine;
function it(what: string, fn: (r: Random) => Promise<void>): void {
  test(what, async () => {
    engine ??= await chooseEngine();
    const before = engine.memory();
    await fn(new Random(17));
    const after = engine.memory();
    assert.equal(after.tensors, before.tensors, 'tensors left alive');
    assert.equal(after.totalLive, before.totalLive, 'bytes left alive');
  });
}

const parameter = (name: string, value: Ref) => new Parameter(name, engine.upload(Float32Array.from(value.data), value.shape, 'weights'));
const valuesOf = async (p: Parameter) => Array.from(await engine.read(p.data));
/** One update with a gradient of the host. @returns the update magnitude if it was asked for */
async function apply(optimizer: AdamW, p: Parameter, g: Ref, lr: number, magnitude = true): Promise<number | undefined> {
  const grad = engine.upload(Float32Array.from(g.data), g.shape, 'gradients');
  const got = optimizer.apply(p, grad, lr, magnitude ? 'mean-relative' : undefined);
  engine.free(grad);
  if (!got) return undefined;
  const value = (await engine.read(got))[0];
  engine.free(got);
  return value;
}

/** m = b1·m + (1−b1)g; v = b2·v + (1−b2)g²; p −= lr·sqrt(1−b2ⁿ)/(1−b1ⁿ)·m/(sqrt(v)+eps); then p −= lr·wd·p. */
class Reference {
  private readonly m: number[];
  private readonly v: number[];
  private n = 0;
  readonly w: number[];
  constructor(
    start: Ref,
    private readonly decay: number,
    private readonly b1 = 0.9,
    private readonly b2 = 0.999,
    private readonly eps = 1e-6,
  ) {
    this.w = [...start.data];
    this.m = this.w.map(() => 0);
    this.v = this.w.map(() => 0);
  }
  /** @returns mean |ΔW/W| */
  step(g: readonly number[], lr: number): number {
    const { m, v, w, b1, b2, eps, decay } = this;
    this.n++;
    const moved = w.map((before, i) => {
      m[i] = b1 * m[i] + (1 - b1) * g[i];
      v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
      w[i] -= ((lr * Math.sqrt(1 - b2 ** this.n)) / (1 - b1 ** this.n)) * (m[i] / (Math.sqrt(v[i]) + eps));
      w[i] -= lr * decay * w[i];
      return Math.abs((before - w[i]) / before);
    });
    return sumOf(moved) / moved.length;
  }
}

function near(got: readonly number[], want: readonly number[], what: string, tolerance = 2e-6): void {
  assert.equal(got.length, want.length);
  want.forEach((w, i) => assert.ok(Math.abs(got[i] - w) <= tolerance * Math.max(1, Math.abs(w)), `${what}[${i}]: ${got[i]} is not ${w}`));
}

/** No weight near 0: a relative change is then as exact as the weights. */
const awayFromZero = (a: Ref): Ref => map(a, (x) => Math.fround(x + Math.sign(x) * 0.5));

it('weights and update magnitudes follow float64 over eight steps; biases and LayerNorm weights do not decay', async (r) => {
  const decay = 0.3;
  const optimizer = new AdamW(engine, { weightDecay: decay });
  const trained = [
    ['bert.encoder.layer.0.output.dense.weight', decay],
    ['bert.encoder.layer.0.output.dense.bias', 0],
    ['bert.encoder.layer.0.output.LayerNorm.weight', 0],
    ['bert.encoder.layer.0.output.LayerNorm.bias', 0],
  ] as const;
  const all = trained.map(([name, wd]) => {
    const start = awayFromZero(random(r, [3, 4]));
    return { name, p: parameter(name, start), want: new Reference(start, wd) };
  });
  for (let k = 0; k < 8; k++)
    for (const { name, p, want } of all) {
      const g = random(r, [3, 4], 10 ** (k - 4));
      const lr = 0.02 / (k + 1);
      const magnitude = await apply(optimizer, p, g, lr);
      const expected = want.step(g.data, lr);
      near(await valuesOf(p), want.w, `${name} after step ${k}`);
      assert.ok(Math.abs(magnitude! - expected) < 2e-4 * expected, `${name}, step ${k}: magnitude ${magnitude} is not ${expected}`);
    }
  optimizer.dispose();
  engine.free(...all.map(({ p }) => p.data));
});

it('decay follows the Adam step: with no gradient the weight shrinks by lr·decay exactly once', async () => {
  const optimizer = new AdamW(engine, { weightDecay: 0.5 });
  const w: Ref = { shape: [2], data: [2, -4] };
  const p = parameter('w.weight', w);
  const magnitude = await apply(optimizer, p, { shape: [2], data: [0, 0] }, 0.1);
  near(await valuesOf(p), [1.9, -3.8], 'w');
  assert.ok(Math.abs(magnitude! - 0.05) < 1e-6);
  optimizer.dispose();
  engine.free(p.data);
});

it('betas, eps and the names that do not decay are the caller’s; what is undefined is the default', async (r) => {
  const settings: AdamWSettings = { beta1: 0.5, beta2: 0.7, eps: 0.1, weightDecay: 0.2, noDecay: ['classifier'] };
  const optimizer = new AdamW(engine, settings);
  assert.deepEqual(['classifier.weight', 'a.bias', 'LayerNorm.weight'].map((n) => optimizer.weightDecayOf(n)), [0, 0.2, 0.2]);
  const start = awayFromZero(random(r, [5]));
  const p = parameter('a.bias', start);
  const want = new Reference(start, 0.2, 0.5, 0.7, 0.1);
  for (let k = 0; k < 4; k++) {
    const g = random(r, [5]);
    await apply(optimizer, p, g, 0.05);
    want.step(g.data, 0.05);
  }
  near(await valuesOf(p), want.w, 'w');
  optimizer.dispose();
  engine.free(p.data);
  const defaults = new AdamW(engine, { beta1: undefined, eps: undefined, weightDecay: undefined, noDecay: undefined, moments: undefined, idleMoments: undefined, idleAfter: undefined });
  assert.deepEqual(defaults.settings, { beta1: 0.9, beta2: 0.999, eps: 1e-6, weightDecay: 0.01, noDecay: ['bias', 'LayerNorm.weight'], moments: 'float32', idleMoments: 'keep', idleAfter: 0 });
});

it('each parameter counts its own updates: one that was skipped goes on where it stopped', async (r) => {
  const optimizer = new AdamW(engine, { weightDecay: 0.01 });
  const [a, b] = [awayFromZero(random(r, [4])), awayFromZero(random(r, [4]))];
  const [always, seldom] = [parameter('always.weight', a), parameter('seldom.weight', b)];
  const [wantAlways, wantSeldom] = [new Reference(a, 0.01), new Reference(b, 0.01)];
  assert.deepEqual([optimizer.stepCount(always), optimizer.stepCount(seldom)], [0, 0]);
  for (let k = 0; k < 6; k++) {
    const g = random(r, [4]);
    await apply(optimizer, always, g, 0.1);
    wantAlways.step(g.data, 0.1);
    if (k % 3 === 1) {
      await apply(optimizer, seldom, g, 0.1);
      wantSeldom.step(g.data, 0.1);
    }
    near(await valuesOf(seldom), wantSeldom.w, `seldom after step ${k}`);
  }
  assert.deepEqual([optimizer.stepCount(always), optimizer.stepCount(seldom)], [6, 2]);
  near(await valuesOf(always), wantAlways.w, 'always');
  optimizer.dispose();
  engine.free(always.data, seldom.data);
});

it('a zero gradient moves what once trained, by momentum and decay, and leaves what never trained alone', async (r) => {
  const optimizer = new AdamW(engine, { weightDecay: 0.1 });
  const start = awayFromZero(random(r, [4]));
  const [trained, never] = [parameter('trained.weight', start), parameter('never.weight', start)];
  const want = new Reference(start, 0.1);
  const g = random(r, [4]);
  await apply(optimizer, trained, g, 0.05);
  want.step(g.data, 0.05);
  for (let k = 0; k < 3; k++) {
    const before = await valuesOf(trained);
    optimizer.applyZeroGradient(trained, 0.05);
    optimizer.applyZeroGradient(never, 0.05);
    want.step([0, 0, 0, 0], 0.05);
    near(await valuesOf(trained), want.w, `after ${k + 1} zero gradients`);
    assert.ok((await valuesOf(trained)).every((w, i) => w !== before[i]));
  }
  assert.deepEqual(await valuesOf(never), start.data);
  assert.deepEqual([optimizer.stepCount(trained), optimizer.stepCount(never)], [4, 0]);
  optimizer.dispose();
  engine.free(trained.data, never.data);
});

it('the magnitude of a weight of exactly 0 is infinite when it moves and NaN when it does not', async () => {
  const optimizer = new AdamW(engine, { weightDecay: 0.01 });
  const [moves, stays] = [parameter('moves.weight', { shape: [2], data: [0, 1] }), parameter('stays.weight', { shape: [2], data: [0, 1] })];
  assert.equal(await apply(optimizer, moves, { shape: [2], data: [3, 1] }, 0.1), Infinity);
  assert.ok(Number.isNaN(await apply(optimizer, stays, { shape: [2], data: [0, 1] }, 0.1)));
  // The first Adam step is lr·sign(g), but for eps; then both shrink by lr·decay.
  near(await valuesOf(moves), [-0.1 * 0.999, 0.9 * 0.999], 'moves', 1e-5);
  assert.equal((await valuesOf(stays))[0], 0);
  optimizer.dispose();
  engine.free(moves.data, stays.data);
});

it('the state of one parameter comes back to the bit on another optimizer, one at a time, in the order in which they first trained', async (r) => {
  const [first, second] = [new AdamW(engine), new AdamW(engine)];
  const [a, b, never] = [parameter('a.weight', random(r, [3, 2])), parameter('b.weight', random(r, [4])), parameter('c.weight', random(r, [2]))];
  for (const p of [b, a, b]) await apply(first, p, random(r, [...p.shape]), 0.1);
  assert.deepEqual(first.parameters, [b, a]);
  assert.equal(await first.snapshotOf(never), undefined);
  await apply(second, a, random(r, [3, 2]), 0.1);
  for (const p of first.parameters) second.restoreOf(p, (await first.snapshotOf(p))!);
  assert.deepEqual([second.stepCount(a), second.stepCount(b), second.stepCount(never)], [1, 2, 0]);
  assert.deepEqual(await second.snapshot(), new Map([[a, (await first.snapshotOf(a))!], [b, (await first.snapshotOf(b))!]]));
  // m = 0.1·g after one update of a: the last gradient shows.
  const { m, v } = (await first.snapshotOf(a)) as { m: Float32Array; v: Float32Array };
  assert.ok(m.every((x, i) => Math.abs(v[i] - 0.001 * (x / 0.1) ** 2) < 1e-6 * v[i] + 1e-12));
  const other = { ...(await first.snapshotOf(b))!, m: new Float32Array(3) };
  await assert.rejects(async () => second.restoreOf(b, other), SlimFitError);
  first.dispose();
  second.dispose();
  engine.free(a.data, b.data, never.data);
});

it('a learning rate of 0 moves nothing, has magnitude 0, and still counts and gathers moments', async (r) => {
  const optimizer = new AdamW(engine, { weightDecay: 0.01 });
  const start = awayFromZero(random(r, [4]));
  const p = parameter('w.weight', start);
  const want = new Reference(start, 0.01);
  const [g, h] = [random(r, [4]), random(r, [4])];
  assert.equal(await apply(optimizer, p, g, 0), 0);
  want.step(g.data, 0);
  assert.deepEqual(await valuesOf(p), start.data);
  assert.equal(optimizer.stepCount(p), 1);
  await apply(optimizer, p, h, 0.1);
  want.step(h.data, 0.1);
  near(await valuesOf(p), want.w, 'w');
  optimizer.dispose();
  engine.free(p.data);
});

it('a gradient of NaN spoils that element and the magnitude, and no other element or parameter', async () => {
  const optimizer = new AdamW(engine, { weightDecay: 0 });
  const [bad, good] = [parameter('bad.weight', { shape: [3], data: [1, 2, 3] }), parameter('good.weight', { shape: [3], data: [1, 2, 3] })];
  const magnitude = await apply(optimizer, bad, { shape: [3], data: [1, NaN, -1] }, 0.1);
  await apply(optimizer, good, { shape: [3], data: [1, 1, -1] }, 0.1);
  assert.ok(Number.isNaN(magnitude));
  const [spoilt, sound] = [await valuesOf(bad), await valuesOf(good)];
  assert.ok(Number.isNaN(spoilt[1]));
  near([spoilt[0], spoilt[2]], [0.9, 3.1], 'bad', 1e-4);
  near(sound, [0.9, 1.9, 3.1], 'good', 1e-4);
  optimizer.dispose();
  engine.free(bad.data, good.data);
});

it('moments take two weights’ worth of bytes from a parameter’s first update, and are freed on dispose', async (r) => {
  const optimizer = new AdamW(engine);
  const [a, b] = [parameter('a.weight', random(r, [3, 5])), parameter('b.weight', random(r, [7]))];
  const bytes = () => engine.memory().live.optimizer;
  assert.equal(bytes(), 0);
  assert.equal(await apply(optimizer, a, random(r, [3, 5]), 0.1, false), undefined, 'no magnitude unless asked for');
  assert.equal(bytes(), 2 * 60);
  await apply(optimizer, a, random(r, [3, 5]), 0.1);
  optimizer.applyZeroGradient(b, 0.1);
  assert.equal(bytes(), 2 * 60);
  await apply(optimizer, b, random(r, [7]), 0.1);
  assert.equal(bytes(), 2 * 60 + 2 * 28);
  optimizer.dispose();
  assert.equal(bytes(), 0);
  assert.equal(optimizer.stepCount(a), 0);
  engine.free(a.data, b.data);
});

it('settings that cannot work are refused by their value', async () => {
  for (const [settings, text] of [
    [{ beta1: 1 }, '1'],
    [{ beta2: -0.1 }, '-0.1'],
    [{ beta1: NaN }, 'NaN'],
    [{ eps: 0 }, '0'],
    [{ eps: -1e-6 }, '-0.000001'],
    [{ weightDecay: -0.25 }, '-0.25'],
    [{ weightDecay: NaN }, 'NaN'],
    [{ moments: '4-bit' }, '4-bit'],
    [{ idleMoments: 'disk' }, 'disk'],
    [{ idleAfter: -1 }, '-1'],
    [{ idleAfter: 0.5 }, '0.5'],
  ] as const)
    assert.throws(() => new AdamW(engine, settings as AdamWSettings), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(text), JSON.stringify(settings));
});

it('idle moments wait on the host from the start of the step in which their parameter is frozen, and training is that of kept ones to the bit', async (r) => {
  for (const idleAfter of [0, 2]) {
    const settings = { weightDecay: 0.1 };
    const [keeping, moving] = [new AdamW(engine, settings), new AdamW(engine, { ...settings, idleMoments: 'host', idleAfter })];
    const start = awayFromZero(random(r, [3, 5]));
    const [always, kept, moved] = [parameter('always.weight', start), parameter('w.weight', start), parameter('w.weight', start)];
    const trains = [true, true, false, false, false, true, false, true, true];
    const onDevice: number[] = [];
    for (const [k, now] of trains.entries()) {
      moved.trains = now;
      await moving.beginStep();
      onDevice.push(engine.memory().live.optimizer / 120);
      const g = random(r, [3, 5]);
      const magnitudes = [];
      if (now) for (const [optimizer, p] of [[keeping, kept], [moving, moved]] as const) magnitudes.push(await apply(optimizer, p, g, 0.1));
      assert.equal(magnitudes[0], magnitudes[1]);
      await apply(moving, always, g, 0.1);
      moving.endStep();
      assert.deepEqual(await valuesOf(moved), await valuesOf(kept), `step ${k}`);
    }
    // Of `always` and `kept` there are moments from the first step on.
    assert.deepEqual(onDevice, idleAfter === 0 ? [0, 3, 2, 2, 2, 2, 2, 2, 3] : [0, 3, 3, 3, 2, 2, 3, 3, 3]);
    assert.equal(moving.stepCount(moved), keeping.stepCount(kept));
    keeping.dispose();
    moving.dispose();
    engine.free(always.data, kept.data, moved.data);
  }
});

it('released moments are forgotten with their step count once the step is done: a thawed parameter goes on like one that never trained', async (r) => {
  const optimizer = new AdamW(engine, { weightDecay: 0.1, idleMoments: 'release', idleAfter: 1 });
  const start = awayFromZero(random(r, [4]));
  const p = parameter('w.weight', start);
  const [g, h] = [random(r, [4]), random(r, [4])];
  const step = async (trains: boolean) => {
    p.trains = trains;
    await optimizer.beginStep();
    if (trains) await apply(optimizer, p, g, 0.1);
    optimizer.endStep();
  };
  await step(true);
  await step(false);
  assert.deepEqual([optimizer.stepCount(p), engine.memory().live.optimizer], [1, 32], 'idle for one step: nothing yet');
  // A step that fails is begun and never ended: the moments have left the device and are not lost.
  await optimizer.beginStep();
  assert.deepEqual([optimizer.stepCount(p), engine.memory().live.optimizer], [1, 0]);
  const snapshot = (await optimizer.snapshot()).get(p)!;
  assert.ok((snapshot.m as Float32Array).every((x, i) => Math.abs(x - 0.1 * g.data[i]) < 1e-6));
  await step(false);
  assert.deepEqual([optimizer.stepCount(p), (await optimizer.snapshot()).size], [0, 0]);
  const fresh = new Reference({ shape: [4], data: await valuesOf(p) }, 0.1);
  p.trains = true;
  await apply(optimizer, p, h, 0.1);
  fresh.step(h.data, 0.1);
  near(await valuesOf(p), fresh.w, 'w');
  optimizer.dispose();
  engine.free(p.data);
});

it('a snapshot holds moments wherever they are, and how long they were idle', async (r) => {
  const optimizer = new AdamW(engine, { idleMoments: 'release', idleAfter: 2 });
  const [here, away] = [parameter('here.weight', random(r, [4])), parameter('away.weight', random(r, [4]))];
  await apply(optimizer, here, random(r, [4]), 0.1);
  await apply(optimizer, away, random(r, [4]), 0.1);
  away.trains = false;
  const idle = async () => {
    await optimizer.beginStep();
    optimizer.endStep();
  };
  await idle();
  await idle();
  await optimizer.beginStep();
  const snapshot = await optimizer.snapshot();
  assert.deepEqual([snapshot.get(here)!.idle, snapshot.get(away)!.idle], [0, 2]);
  assert.equal(engine.memory().live.optimizer, 32, 'of `here` alone');
  optimizer.endStep();
  assert.equal(optimizer.stepCount(away), 0);
  optimizer.restore(snapshot);
  assert.deepEqual(await optimizer.snapshot(), snapshot);
  assert.equal(engine.memory().live.optimizer, 64, 'where they are between steps');
  await optimizer.beginStep();
  assert.equal(engine.memory().live.optimizer, 32, 'of `here` alone, as before');
  const before = Float32Array.from((snapshot.get(away)!.m as Float32Array));
  await apply(optimizer, away, { shape: [4], data: [0, 0, 0, 0] }, 0.1);
  near(Array.from((await optimizer.snapshot()).get(away)!.m as Float32Array), Array.from(before, (x) => 0.9 * x), 'm');
  optimizer.dispose();
  engine.free(here.data, away.data);
});
