/**
 * Every part of a transformer, forward and backward, in both modes, against float64 loops that do to the kept activations what SlimFit says: fixed-point codes,
 * and the largest tenth of a frozen LayerNorm. Each case also says what the ledger must hold.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEngine } from '../../src/engine/choose';
import type { DeviceTensor, Engine } from '../../src/engine/engine';
import { add, dropout, gelu, relu, tanh } from '../../src/nn/activations';
import { ForwardContext } from '../../src/nn/context';
import { addPositions, Embedding } from '../../src/nn/embedding';
import { LayerNorm } from '../../src/nn/layerNorm';
import { reshape, tokensLast } from '../../src/nn/layout';
import { mlp } from '../../src/nn/mlp';
import { Linear } from '../../src/nn/linear';
import { crossEntropy, meanSquaredError } from '../../src/nn/losses';
import { selectRows } from '../../src/nn/select';
import { type AttentionOptions, selfAttention } from '../../src/nn/selfAttention';
import { Random } from '../../src/random';
import { Parameter } from '../../src/tape/parameter';
import { type ActivationMode, type ActivationScheme, SCHEMES, schemeOf } from '../../src/tape/scheme';
import type { Variable } from '../../src/tape/tape';
import { map, mapRows, matmul, normRow, random, type Ref, roundHalfEven, rowsOf, size, softmaxRow, sumOf, transposed, zip } from '../engine/reference';
import { erf } from '../models/referenceBert';

const MODES: readonly ActivationMode[] = ['exact', 'paper'];

let engine: Engine;
function it(what: string, fn: (r: Random) => Promise<void>): void {
  test(what, async () => {
    engine ??= await chooseEngine();
    const before = engine.memory();
    await fn(new Random(7));
    const after = engine.memory();
    assert.equal(after.tensors, before.tensors, 'tensors left alive');
    assert.equal(after.totalLive, before.totalLive, 'bytes left alive');
  });
}

const upload = (a: Ref) => engine.upload(Float32Array.from(a.data), a.shape);
const uploadIds = (ids: readonly number[], shape: readonly number[] = [ids.length]) => engine.upload(Int32Array.from(ids), shape);

interface Case {
  readonly mode: ActivationMode | ActivationScheme;
  /** Dropout acts only in a context of its own. */
  readonly context?: ForwardContext;
  readonly inputs?: Readonly<Record<string, Ref>>;
  /** Inputs that no gradient is asked of. */
  readonly constants?: readonly string[];
  readonly weights?: Readonly<Record<string, Ref>>;
  readonly frozen?: readonly string[];
  /** Gradient of the output; a loss starts by itself. */
  readonly grad?: Ref;
  forward(ctx: ForwardContext, x: Readonly<Record<string, Variable>>, w: Readonly<Record<string, Parameter>>): Variable;
}

interface Outcome {
  readonly y: number[];
  /** Gradients of inputs and weights by name; absent where none came. */
  readonly grads: Readonly<Record<string, number[]>>;
  /** Ledger after forward: [layer, what, role, encoding, bytes, of these padding]. */
  readonly kept: (string | number)[][];
}

/** Runs a part forward and backward. Whatever the part is, the ledger's bytes are the engine's, and nothing kept outlives backward. */
async function trial(c: Case): Promise<Outcome> {
  const ctx = c.context ?? ForwardContext.deterministic(engine, schemeOf(c.mode));
  const { tape } = ctx;
  const got = new Map<string, DeviceTensor>();
  const take = (name: string, g: DeviceTensor) => {
    assert.equal(got.has(name), false, `two gradients of ${name}`);
    got.set(name, engine.share(g, 'gradients'));
  };
  const inputs = Object.fromEntries(
    Object.entries(c.inputs ?? {}).map(([name, ref]) => {
      const v: Variable = { tensor: upload(ref), needsGrad: !c.constants?.includes(name) };
      if (v.needsGrad) tape.record(v, [], [], (g) => (take(name, g), []));
      return [name, v];
    }),
  );
  const weights = Object.fromEntries(
    Object.entries(c.weights ?? {}).map(([name, ref]) => {
      const p = new Parameter(name, engine.upload(Float32Array.from(ref.data), ref.shape, 'weights'));
      p.trains = !c.frozen?.includes(name);
      return [name, p];
    }),
  );
  const y = c.forward(ctx, inputs, weights);
  assert.equal(engine.memory().live.activations, tape.ledger.totalBytes, 'ledger and engine disagree');
  const kept = tape.ledger.entries.map((e) => [e.layer, e.what, e.role, e.encoding, e.bytes, e.padding]);

  let loss = y;
  const start = c.grad && upload(c.grad);
  if (start) {
    loss = tape.variable(engine.full([], 0), [y]);
    tape.record(loss, [y], [], () => [engine.share(start)]);
  }
  tape.backward(loss, (p, g) => take(p.name, g));
  assert.equal(engine.memory().live.activations, 0, 'kept after backward');

  const read = async (t: DeviceTensor) => Array.from(await engine.read(t));
  const outcome = { y: await read(y.tensor), grads: Object.fromEntries(await Promise.all([...got].map(async ([n, t]) => [n, await read(t)] as const))), kept };
  const own = new Set([y.tensor, loss.tensor, ...got.values(), ...Object.values(inputs).map((v) => v.tensor), ...Object.values(weights).map((p) => p.data)]);
  engine.free(...own);
  if (start) engine.free(start);
  return outcome;
}

/** Compares by the scale of the whole reference: float32 sums lose what is small beside it. */
function near(got: readonly number[] | undefined, want: Ref | readonly number[], what: string): void {
  const data = 'data' in want ? want.data : want;
  assert.equal(got?.length, data.length, `${what}: number of elements`);
  const scale = Math.max(1e-6, ...data.map(Math.abs));
  data.forEach((w, i) => assert.ok(Math.abs(got![i] - w) <= 5e-6 * scale, `${what}[${i}]: ${got![i]} is not ${w}`));
}

/** Qa.b as SlimFit defines it: clamp(round(x·2^b))/2^b, halves to the even code. */
const fixed = (step: number, lo: number, hi: number) => (x: number) => Math.min(hi, Math.max(lo, roundHalfEven(x * step))) / step;
const q34 = fixed(16, -128, 127);
const q08 = fixed(256, 0, 255);
const q21 = fixed(2, -8, 7);
/** Signed 8 bits with a step for each row, as float32 has them. */
const q8Row = (a: Ref): Ref =>
  mapRows(a, (row) => {
    const step = Math.max(...row.map(Math.abs)) / 127;
    return row.map((v) => Math.fround(roundHalfEven(v / step) * step));
  });
const Phi = (x: number) => 0.5 * (1 + erf(x / Math.SQRT2));
const phi = (x: number) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);

/** Numbers that a code cannot hold: beyond both ends, and halfway between codes of either parity. */
const withHardCases = (a: Ref): Ref => {
  const hard = [9.3, -8.6, 1 / 32, 3 / 32, -1 / 32, 0.25, 0.75, -5, 3.8];
  return map(a, (x, i) => (i < hard.length ? Math.fround(hard[i]) : x));
};
const columnSums = (a: Ref): number[] => rowsOf(a).reduce((s, row) => s.map((v, i) => v + row[i]), new Array<number>(a.shape[a.shape.length - 1]).fill(0));
const flat = (a: Ref): Ref => ({ shape: [a.data.length / a.shape[a.shape.length - 1], a.shape[a.shape.length - 1]], data: a.data });

// ---- linear ---------------------------------------------------------------------------------------------------------------

const [B, T, K, O] = [2, 3, 5, 4];
const linearCase = (r: Random) => ({ x: withHardCases(random(r, [B, T, K], 3)), W: random(r, [O, K]), b: random(r, [O]), g: random(r, [B, T, O]) });
const linear = (w: Readonly<Record<string, Parameter>>) => new Linear('l', w['l.weight'], w['l.bias']);

for (const mode of MODES)
  it(`linear, ${mode}: x·Wᵀ + b, and all three gradients; the input of the down projection is kept in ${mode === 'paper' ? '8 bits' : 'float32'}`, async (r) => {
    const { x, W, b, g } = linearCase(r);
    for (const down of [false, true]) {
      const { y, grads, kept } = await trial({
        mode,
        inputs: { x },
        weights: { 'l.weight': W, 'l.bias': b },
        grad: g,
        forward: (ctx, v, w) => linear(w).forward(ctx, v.x, down ? ctx.scheme.downProjectionInput : undefined),
      });
      const coded = down && mode === 'paper';
      near(y, map(matmul(flat(x), W, false, true), (v, i) => v + b.data[i % O]), 'y');
      near(grads.x, matmul(flat(g), W), 'dx');
      near(grads['l.weight'], matmul(flat(g), coded ? map(flat(x), q34) : flat(x), true), 'dW');
      near(grads['l.bias'], columnSums(g), 'db');
      // 30 elements: 30 bytes of codes fill 8 words.
      assert.deepEqual(kept, [coded ? ['l', 'input', 'dynamic', 'q3.4', 32, 2] : ['l', 'input', 'dynamic', 'float32', 120, 0]]);
    }
  });

it('a frozen linear keeps nothing, gives no weight gradient, and the same input and bias gradients', async (r) => {
  const { x, W, b, g } = linearCase(r);
  for (const mode of MODES) {
    const { grads, kept } = await trial({ mode, inputs: { x }, weights: { 'l.weight': W, 'l.bias': b }, frozen: ['l.weight'], grad: g, forward: (ctx, v, w) => linear(w).forward(ctx, v.x, ctx.scheme.downProjectionInput) });
    assert.deepEqual(kept, []);
    assert.deepEqual(Object.keys(grads).sort(), ['l.bias', 'x']);
    near(grads.x, matmul(flat(g), W), 'dx');
    near(grads['l.bias'], columnSums(g), 'db');
  }
});

it('a linear on constants trains its weight and bias, and a wholly frozen one on constants leaves nothing to do', async (r) => {
  const { x, W, b, g } = linearCase(r);
  const base = { mode: 'paper', inputs: { x }, constants: ['x'], weights: { 'l.weight': W, 'l.bias': b }, grad: g } as const;
  const forward: Case['forward'] = (ctx, v, w) => linear(w).forward(ctx, v.x);
  const trains = await trial({ ...base, forward });
  assert.deepEqual(Object.keys(trains.grads).sort(), ['l.bias', 'l.weight']);
  near(trains.grads['l.weight'], matmul(flat(g), flat(x), true), 'dW');
  const frozen = await trial({ ...base, frozen: ['l.weight', 'l.bias'], forward });
  assert.deepEqual([frozen.grads, frozen.kept], [{}, []]);
  near(frozen.y, trains.y, 'y');
});

it('three linears on one input hold its bytes once, whichever of them train', async (r) => {
  const x = random(r, [B, T, K]);
  const g = random(r, [B, T, O]);
  const names = ['query', 'key', 'value'];
  const weights = Object.fromEntries(names.flatMap((n) => [[`${n}.weight`, random(r, [O, K])], [`${n}.bias`, random(r, [O])]]));
  const sum: Case['forward'] = (ctx, v, w) => {
    const out = names.map((n) => new Linear(n, w[`${n}.weight`], w[`${n}.bias`]).forward(ctx, v.x));
    return engine.scope(() => {
      const total = add(ctx, add(ctx, out[0], out[1]), out[2]);
      engine.free(...out.map((o) => o.tensor));
      return total;
    });
  };
  const dx = matmul(flat(g), { shape: [O, K], data: weights['query.weight'].data.map((v, i) => v + weights['key.weight'].data[i] + weights['value.weight'].data[i]) });
  for (const [frozen, bytes] of [
    [[], [['query', 120], ['key', 0], ['value', 0]]],
    [['query.weight', 'value.weight'], [['key', 120]]],
  ] as const) {
    const { grads, kept } = await trial({ mode: 'paper', inputs: { x }, weights, frozen, grad: g, forward: sum });
    assert.deepEqual(kept.map(([layer, , , , n]) => [layer, n]), bytes);
    near(grads.x, dx, 'dx');
    near(grads['key.weight'], matmul(flat(g), flat(x), true), 'dW of key');
  }
});

// ---- LayerNorm ------------------------------------------------------------------------------------------------------------

/** An epsilon that can be seen, so that forward and backward's own can be told apart. */
const EPS = 0.05;
const H = 8;
const normCase = (r: Random) => ({ x: random(r, [2, 3, H], 0.5), w: map(random(r, [H], 0.3), (v) => Math.fround(1 + v)), b: random(r, [H]), g: random(r, [2, 3, H]) });
const normOf = (w: Readonly<Record<string, Parameter>>) => new LayerNorm('n', w['n.weight'], w['n.bias'], EPS);

/** rstd·(h − mean(h) − mean(h·ŷ)·ŷ), h = g·w. */
const normGradInput = (x: Ref, w: Ref, g: Ref, y: Ref, eps: number): Ref =>
  mapRows(x, (row, i) => {
    const { rstd } = normRow(row, eps);
    const h = rowsOf(g)[i].map((v, j) => v * w.data[j]);
    const yRow = rowsOf(y)[i];
    const along = sumOf(h.map((v, j) => v * yRow[j])) / H;
    return h.map((v, j) => rstd * (v - sumOf(h) / H - along * yRow[j]));
  });

it('a LayerNorm that trains has exact gradients in both modes; only paper’s backward has the epsilon 1e-12', async (r) => {
  const { x, w, b, g } = normCase(r);
  for (const mode of MODES) {
    const { y, grads, kept } = await trial({ mode, inputs: { x }, weights: { 'n.weight': w, 'n.bias': b }, grad: g, forward: (ctx, v, p) => normOf(p).forward(ctx, v.x) });
    near(y, mapRows(x, (row) => normRow(row, EPS).y.map((v, j) => v * w.data[j] + b.data[j])), 'y');
    const eps = mode === 'paper' ? 1e-12 : EPS;
    const normalised = mapRows(x, (row) => normRow(row, eps).y);
    near(grads.x, normGradInput(x, w, g, normalised, eps), `dx, ${mode}`);
    near(grads['n.weight'], columnSums(zip(g, normalised, (a, c) => a * c)), `dw, ${mode}`);
    near(grads['n.bias'], columnSums(g), 'db');
    const input = ['n', 'input', 'quasi-static', 'float32', 192, 0];
    const statistics = ['row means', 'row statistics'].map((what) => ['n', what, 'quasi-static', 'float32', 24, 0]);
    assert.deepEqual(kept, mode === 'paper' ? [input] : [input, ...statistics]);
  }
});

it('a frozen LayerNorm keeps, in paper mode, the tenth of its normalised values that is largest over the whole tensor, and counts the rest as 0', async (r) => {
  const { x, w, b, g } = normCase(r);
  const { y, grads, kept } = await trial({ mode: 'paper', inputs: { x }, weights: { 'n.weight': w, 'n.bias': b }, frozen: ['n.weight'], grad: g, forward: (ctx, v, p) => normOf(p).forward(ctx, v.x) });
  near(y, mapRows(x, (row) => normRow(row, EPS).y.map((v, j) => v * w.data[j] + b.data[j])), 'y');
  const normalised = mapRows(x, (row) => normRow(row, 1e-12).y);
  const order = normalised.data.map((_, i) => i).sort((i, j) => Math.abs(normalised.data[j]) - Math.abs(normalised.data[i]));
  // floor(0.1 · 48) = 4.
  assert.ok(Math.abs(normalised.data[order[3]]) - Math.abs(normalised.data[order[4]]) > 1e-4, 'the example must not hang on rounding');
  const pruned = map(normalised, (v, i) => (order.slice(0, 4).includes(i) ? v : 0));
  near(grads.x, normGradInput(x, w, g, pruned, 1e-12), 'dx');
  near(grads['n.bias'], columnSums(g), 'db');
  assert.deepEqual(Object.keys(grads).sort(), ['n.bias', 'x']);
  assert.deepEqual(
    [...kept].sort(([, a], [, c]) => (String(a) < String(c) ? -1 : 1)),
    [
      ['n', 'largest normalised values', 'quasi-static', 'top10', 32, 0],
      ['n', 'row statistics', 'quasi-static', 'float32', 24, 0],
    ],
  );
});

it('a frozen LayerNorm in exact mode keeps its whole input and gives the exact input gradient', async (r) => {
  const { x, w, b, g } = normCase(r);
  const { grads, kept } = await trial({ mode: 'exact', inputs: { x }, weights: { 'n.weight': w, 'n.bias': b }, frozen: ['n.weight', 'n.bias'], grad: g, forward: (ctx, v, p) => normOf(p).forward(ctx, v.x) });
  near(grads.x, normGradInput(x, w, g, mapRows(x, (row) => normRow(row, EPS).y), EPS), 'dx');
  assert.deepEqual(Object.keys(grads), ['x']);
  assert.deepEqual(kept.map(([, what, , , bytes]) => [what, bytes]), [['input', 192], ['row means', 24], ['row statistics', 24]]);
});

/** All in float32 but for the LayerNorm's values and the linear maps' inputs. */
const IN_CODES: ActivationScheme = { ...SCHEMES.exact, name: 'codes', normalizedValues: 'q8-row', linearInput: 'q8-row' };

it('under normalizedValues a LayerNorm keeps all its normalised values in codes, frozen or not, and its gradients are those of the coded values', async (r) => {
  const { x, w, b, g } = normCase(r);
  const coded = q8Row(mapRows(x, (row) => normRow(row, EPS).y));
  for (const frozen of [[], ['n.weight']]) {
    const { y, grads, kept } = await trial({ mode: IN_CODES, inputs: { x }, weights: { 'n.weight': w, 'n.bias': b }, frozen, grad: g, forward: (ctx, v, p) => normOf(p).forward(ctx, v.x) });
    near(y, mapRows(x, (row) => normRow(row, EPS).y.map((v, j) => v * w.data[j] + b.data[j])), 'y');
    const rstd = rowsOf(x).map((row) => normRow(row, EPS).rstd);
    const dx = mapRows(coded, (row, i) => {
      const h = rowsOf(g)[i].map((v, j) => v * w.data[j]);
      const [mean, projected] = [sumOf(h) / H, sumOf(h.map((v, j) => v * row[j])) / H];
      return h.map((v, j) => rstd[i] * (v - mean - projected * row[j]));
    });
    near(grads.x, dx, 'dx');
    near(grads['n.bias'], columnSums(g), 'db');
    assert.equal('n.weight' in grads, frozen.length === 0);
    if (frozen.length === 0) near(grads['n.weight'], columnSums(zip(g, coded, (a, c) => a * c)), 'dw');
    // 48 codes and a step for each of 6 rows.
    assert.deepEqual([...kept].sort(), [['n', 'normalised values', 'quasi-static', 'q8-row', 72, 0], ['n', 'row statistics', 'quasi-static', 'float32', 24, 0]]);
  }
});

it('linear maps behind a LayerNorm in codes keep nothing: their input is what its codes say, times its weight, plus its bias', async (r) => {
  const { x, w, b } = normCase(r);
  const names = ['query', 'key'];
  const weights = Object.fromEntries(names.flatMap((n) => [[`${n}.weight`, random(r, [O, H])], [`${n}.bias`, random(r, [O])]]));
  const g = random(r, [2, 3, O]);
  const forward: Case['forward'] = (ctx, v, p) =>
    engine.scope(() => {
      const y = normOf(p).forward(ctx, v.x);
      return add(ctx, ...(names.map((n) => new Linear(n, p[`${n}.weight`], p[`${n}.bias`]).forward(ctx, y, ctx.scheme.linearInput)) as [Variable, Variable]));
    });
  const trained = { inputs: { x }, weights: { 'n.weight': w, 'n.bias': b, ...weights }, grad: g, forward };
  const seen = map(q8Row(mapRows(x, (row) => normRow(row, EPS).y)), (v, i) => v * w.data[i % H] + b.data[i % H]);
  const codes = await trial({ mode: IN_CODES, ...trained });
  for (const n of names) near(codes.grads[`${n}.weight`], matmul(flat(g), flat(seen), true), `dW of ${n}`);
  assert.deepEqual(codes.kept.filter(([layer]) => layer !== 'n'), names.map((n) => [n, 'input', 'dynamic', 'q8-row', 0, 0]));
  // Inputs that the scheme wants in float32 are not taken from codes.
  const whole = await trial({ mode: { ...IN_CODES, linearInput: 'float32' }, ...trained });
  const exact = mapRows(x, (row) => normRow(row, EPS).y.map((v, j) => v * w.data[j] + b.data[j]));
  for (const n of names) near(whole.grads[`${n}.weight`], matmul(flat(g), flat(exact), true), `dW of ${n}, float32`);
  assert.deepEqual(whole.kept.filter(([layer]) => layer !== 'n').map(([n, , , , bytes]) => [n, bytes]), [['query', 4 * x.data.length], ['key', 0]]);
  // No gradient reaches the LayerNorm: it keeps nothing, and the first of the two has codes of its own, of its input.
  const alone = await trial({ mode: IN_CODES, ...trained, constants: ['x'], frozen: ['n.weight', 'n.bias'] });
  assert.deepEqual(alone.kept.map(([n, , , , bytes]) => [n, bytes]), [['query', 72], ['key', 0]]);
  for (const n of names) near(alone.grads[`${n}.weight`], matmul(flat(g), flat(q8Row(exact)), true), `dW of ${n}, codes of its own`);
});

// ---- MLP --------------------------------------------------------------------------------------------------------------------

it('an MLP that is computed again keeps its input alone, and its gradients are those at the input that it kept, in blocks or not', async (r) => {
  const F = 12;
  const x = random(r, [2, 3, H], 0.7);
  const g = random(r, [2, 3, H]);
  const weights = { 'up.weight': random(r, [F, H]), 'up.bias': random(r, [F]), 'down.weight': random(r, [H, F]), 'down.bias': random(r, [H]) };
  for (const linearInput of ['float32', 'q8-row'] as const)
    for (const blockBytes of [Infinity, 4 * F * 4])
      for (const frozen of [[], ['up.weight', 'down.weight'], ['up.weight'], ['down.weight']]) {
        const scheme = { ...SCHEMES.exact, name: 'again', geluInput: 'recompute', linearInput } as const;
        const { grads, kept } = await trial({
          mode: scheme,
          context: ForwardContext.deterministic(engine, scheme, { blockBytes }),
          inputs: { x },
          weights,
          frozen,
          grad: g,
          forward: (ctx, v, w) => mlp(ctx, v.x, { name: 'm', up: new Linear('up', w['up.weight'], w['up.bias']), down: new Linear('down', w['down.weight'], w['down.bias']) }),
        });
        const seen = flat(linearInput === 'q8-row' ? q8Row(x) : x);
        const a = map(matmul(seen, weights['up.weight'], false, true), (v, i) => v + weights['up.bias'].data[i % F]);
        const da = zip(matmul(flat(g), weights['down.weight']), a, (d, v) => d * (Phi(v) + v * phi(v)));
        near(grads.x, matmul(da, weights['up.weight']), 'dx');
        near(grads['up.bias'], columnSums(da), 'db of up');
        near(grads['down.bias'], columnSums(g), 'db of down');
        assert.deepEqual(Object.keys(grads).filter((n) => n.endsWith('weight')).sort(), ['down.weight', 'up.weight'].filter((n) => !frozen.includes(n)));
        if (grads['up.weight']) near(grads['up.weight'], matmul(da, seen, true), 'dW of up');
        if (grads['down.weight']) near(grads['down.weight'], matmul(flat(g), map(a, (v) => v * Phi(v)), true), 'dW of down');
        assert.deepEqual(kept, [['m', 'MLP input', 'static', linearInput, linearInput === 'q8-row' ? 72 : 192, 0]]);
      }
});

it('an MLP of which the last bias alone trains keeps nothing, and one that is only evaluated neither, in blocks or not, computed again or not', async (r) => {
  const x = random(r, [2, 3, H], 0.7);
  const g = random(r, [2, 3, H]);
  const weights = { 'up.weight': random(r, [12, H]), 'up.bias': random(r, [12]), 'down.weight': random(r, [H, 12]), 'down.bias': random(r, [H]) };
  const forward: Case['forward'] = (ctx, v, w) => mlp(ctx, v.x, { name: 'm', up: new Linear('up', w['up.weight'], w['up.bias']), down: new Linear('down', w['down.weight'], w['down.bias']) });
  for (const scheme of [SCHEMES.exact, SCHEMES.tuned])
    for (const blockBytes of [Infinity, 4 * 12 * 4]) {
      const base = { mode: scheme, inputs: { x }, constants: ['x'], weights, grad: g, forward };
      const bias = await trial({ ...base, frozen: ['up.weight', 'up.bias', 'down.weight'], context: ForwardContext.deterministic(engine, scheme, { blockBytes }) });
      assert.deepEqual([bias.kept, Object.keys(bias.grads)], [[], ['down.bias']]);
      near(bias.grads['down.bias'], columnSums(g), 'db');
      const evaluated = await trial({ ...base, context: ForwardContext.evaluation(engine, { blockBytes }) });
      assert.deepEqual([evaluated.kept, evaluated.grads], [[], {}]);
    }
});

// ---- element-wise ---------------------------------------------------------------------------------------------------------

for (const mode of MODES)
  it(`GELU, ${mode}: x·Φ(x); the derivative is taken at the ${mode === 'paper' ? '4-bit' : 'exact'} input`, async (r) => {
    // An odd number of elements: the last byte holds one code.
    for (const shape of [[2, 3, 7], [3, 11]]) {
      const x = withHardCases(random(r, shape, 2));
      const g = random(r, shape);
      const { y, grads, kept } = await trial({ mode, inputs: { x }, grad: g, forward: (ctx, v) => gelu(ctx, v.x, 'm') });
      near(y, map(x, (v) => v * Phi(v)), 'y');
      const seen = mode === 'paper' ? map(x, q21) : x;
      near(grads.x, zip(g, seen, (d, v) => d * (Phi(v) + v * phi(v))), 'dx');
      const payload = Math.ceil(x.data.length / 2);
      const words = 4 * Math.ceil(payload / 4);
      assert.deepEqual(kept, [mode === 'paper' ? ['m', 'GELU input', 'static', 'q2.1', words, words - payload] : ['m', 'GELU input', 'static', 'float32', 4 * x.data.length, 0]]);
    }
  });

it('tanh keeps its output in float32 in both modes: dx = g·(1 − y²)', async (r) => {
  const x = random(r, [4, 5], 2);
  const g = random(r, [4, 5]);
  for (const mode of MODES) {
    const { y, grads, kept } = await trial({ mode, inputs: { x }, grad: g, forward: (ctx, v) => tanh(ctx, v.x, 'pooler') });
    near(y, map(x, Math.tanh), 'y');
    near(grads.x, zip(g, x, (d, v) => d * (1 - Math.tanh(v) ** 2)), 'dx');
    assert.deepEqual(kept, [['pooler', 'tanh output', 'static', 'float32', 80, 0]]);
  }
});

/** Of every size that a pre-activation has, to either side of 0, and 0 itself. */
const EDGES = [0, -0, 1e-30, -1e-30, 1e-10, -1e-10, 0.3, -0.3, 1, -1, 7.25, -7.25, 1e6, -1e6, 1e18, -1e18];

for (const name of ['cpu', 'wasm', 'default'] as const)
  test(`ReLU and its gradient are exact to the bit on the ${name} engine, and the output is kept in float32 in both modes`, async () => {
    const previous = engine;
    engine = await chooseEngine(name === 'default' ? undefined : name);
    const before = engine.memory().tensors;
    const r = new Random(3);
    const x: Ref = { shape: [4, 8], data: Array.from({ length: 32 }, (_, i) => Math.fround(EDGES[i] ?? r.normal())) };
    const g = map(random(r, [4, 8]), Math.fround);
    for (const mode of MODES) {
      const { y, grads, kept } = await trial({ mode, inputs: { x }, grad: g, forward: (ctx, v) => relu(ctx, v.x, 'pre_classifier') });
      y.forEach((v, i) => assert.equal(v + 0, Math.max(x.data[i], 0) + 0, `relu(${x.data[i]})`));
      grads.x.forEach((v, i) => assert.equal(v + 0, x.data[i] > 0 ? g.data[i] : 0, `gradient at ${x.data[i]}`));
      assert.deepEqual(kept, [['pre_classifier', 'ReLU output', 'static', 'float32', 128, 0]]);
    }
    assert.equal(engine.memory().tensors, before);
    if (name !== 'default') engine.dispose();
    engine = previous;
  });

it('a sum passes its gradient to both, and twice to a value added to itself', async (r) => {
  const [a, b, g] = [random(r, [3, 4]), random(r, [3, 4]), random(r, [3, 4])];
  const two = await trial({ mode: 'paper', inputs: { a, b }, grad: g, forward: (ctx, v) => add(ctx, v.a, v.b) });
  near(two.y, zip(a, b, (x, y) => x + y), 'y');
  near(two.grads.a, g, 'da');
  near(two.grads.b, g, 'db');
  const one = await trial({ mode: 'paper', inputs: { a, b }, constants: ['b'], grad: g, forward: (ctx, v) => add(ctx, v.a, v.b) });
  assert.deepEqual(Object.keys(one.grads), ['a']);
  const double = await trial({ mode: 'paper', inputs: { a }, grad: g, forward: (ctx, v) => add(ctx, v.a, v.a) });
  near(double.grads.a, map(g, (v) => 2 * v), 'da of a + a');
  assert.deepEqual([two.kept, double.kept], [[], []]);
});

it('dropout scales what it lets through, drops the gradient of the same elements, and keeps nothing', async (r) => {
  const x = map(random(r, [20, 30]), (v) => v + 5);
  const g = map(random(r, [20, 30]), (v) => v + 5);
  const p = 0.3;
  const run = (step: number) =>
    trial({ mode: 'paper', context: ForwardContext.training(engine, SCHEMES.paper, 3, step), inputs: { x }, grad: g, forward: (ctx, v) => dropout(ctx, v.x, p) });
  const { y, grads, kept } = await run(0);
  const through = y.map((v) => v !== 0);
  near(y, map(x, (v, i) => (through[i] ? v / (1 - p) : 0)), 'y');
  near(grads.x, map(g, (v, i) => (through[i] ? v / (1 - p) : 0)), 'dx');
  assert.deepEqual(kept, []);
  // 600 draws: the share is within five standard deviations of 0.3.
  const dropped = through.filter((t) => !t).length / 600;
  assert.ok(Math.abs(dropped - p) < 5 * Math.sqrt((p * (1 - p)) / 600), `${dropped} dropped`);
  assert.deepEqual((await run(0)).y, y);
  assert.notDeepEqual((await run(1)).y.map((v) => v !== 0), through);
});

it('two dropouts of one pass draw different masks, and backward draws each again', async () => {
  const x: Ref = { shape: [10, 10], data: new Array<number>(100).fill(1) };
  const p = 0.5;
  const first = await trial({ mode: 'exact', context: ForwardContext.training(engine, SCHEMES.exact, 8, 2), inputs: { x }, grad: x, forward: (ctx, v) => dropout(ctx, v.x, p) });
  const both = await trial({
    mode: 'exact',
    context: ForwardContext.training(engine, SCHEMES.exact, 8, 2),
    inputs: { x },
    grad: x,
    forward: (ctx, v) => engine.scope(() => dropout(ctx, dropout(ctx, v.x, p), p)),
  });
  assert.ok(both.y.some((v, i) => v === 0 && first.y[i] === 2), 'the second dropout dropped nothing of its own');
  assert.ok(both.y.every((v) => v === 0 || v === 4));
  near(both.grads.x, both.y, 'dx of ones through both');
});

it('without dropout in the pass, or at probability 0, the value passes on as it is', async (r) => {
  const x = random(r, [2, 3]);
  for (const [context, p] of [
    [ForwardContext.deterministic(engine, SCHEMES.paper), 0.5],
    [ForwardContext.training(engine, SCHEMES.paper, 1, 0), 0],
  ] as const)
    await trial({
      mode: 'paper',
      context,
      inputs: { x },
      grad: x,
      forward: (ctx, v) => {
        const y = dropout(ctx, v.x, p);
        assert.equal(y, v.x);
        return y;
      },
    });
});

// ---- attention ------------------------------------------------------------------------------------------------------------

const [A, D] = [2, 3];
const headsOf = (x: Ref, tokens: number): Ref => transposed({ shape: [x.data.length / (tokens * A * D), tokens, A, D], data: x.data }, [0, 2, 1, 3]);
const merged = (x: Ref): Ref => transposed(x, [0, 2, 1, 3]);
const times = (a: Ref, b: Ref | undefined): Ref => (b ? zip(a, b, (x, y) => x * y) : a);

/** `ofProbs` and `ofValues` are dropout's masks, 1/(1 − p) or 0. */
function attentionReference(q: Ref, k: Ref, v: Ref, g: Ref, tokens: number, options: { paper: boolean; mask?: Ref; ofProbs?: Ref; ofValues?: Ref; codes?: (x: Ref, of: 'operand' | 'probabilities') => Ref }) {
  const { paper, mask, ofProbs, ofValues } = options;
  const { codes = (x, of) => (paper ? map(x, of === 'operand' ? q34 : q08) : x) } = options;
  const [qh, kh, vh, gh] = [q, k, v, g].map((x) => headsOf(x, tokens));
  const dropped = times(vh, ofValues);
  const scores = map(matmul(qh, kh, false, true), (s, i) => s / Math.sqrt(D) + (mask ? mask.data[Math.floor(i / (A * tokens * tokens)) * tokens + (i % tokens)] : 0));
  const p = mapRows(scores, softmaxRow);
  const y = merged(matmul(times(p, ofProbs), dropped));
  // What backward sees.
  const [q1, k1, v1] = [qh, kh, dropped].map((x) => codes(x, 'operand'));
  const p1 = codes(p, 'probabilities');
  const dv = merged(times(matmul(times(p1, ofProbs), gh, true), ofValues));
  const t = zip(times(matmul(gh, v1, false, true), ofProbs), p1, (a, b) => a * b);
  const ds = mapRows(t, (row, i) => row.map((x, j) => x - rowsOf(p1)[i][j] * sumOf(row)));
  const scaled = (x: Ref) => merged(map(x, (s) => s / Math.sqrt(D)));
  return { y, p, dq: scaled(matmul(ds, k1)), dk: scaled(matmul(ds, q1, true)), dv };
}

const attend =
  (options: Partial<AttentionOptions> = {}): Case['forward'] =>
  (ctx, v) =>
    selfAttention(ctx, v.q, v.k, v.v, { name: 'self', heads: A, dropout: 0, ...options });
const attentionCase = (r: Random, batch: number, tokens: number) => {
  const [q, k, v, g] = Array.from({ length: 4 }, () => random(r, [batch, tokens, A * D], 1.5));
  return { q: withHardCases(q), k: map(k, (x, i) => (i === 7 ? -8.75 : x)), v: map(withHardCases(v), (x, i) => (i === 20 ? 12 : x)), g };
};
const keptOf = (paper: boolean, batch: number, tokens: number) => {
  const [operand, probs] = [batch * tokens * A * D, batch * A * tokens * tokens];
  const row = (what: string, n: number, code: string) => {
    const words = 4 * Math.ceil(n / 4);
    return paper ? ['self', what, 'static', code, words, words - n] : ['self', what, 'static', 'float32', 4 * n, 0];
  };
  return [row('query', operand, 'q3.4'), row('key', operand, 'q3.4'), row('probabilities', probs, 'q0.8'), row('value', operand, 'q3.4')];
};

for (const mode of MODES)
  it(`self-attention, ${mode}: context and the gradients of q, k and v, with and without padding, ${mode === 'paper' ? 'from 8-bit operands' : 'in float32'}`, async (r) => {
    for (const [batch, tokens, padded] of [[2, 5, true], [1, 3, false]] as const) {
      const { q, k, v, g } = attentionCase(r, batch, tokens);
      const mask: Ref | undefined = padded ? { shape: [batch, 1, 1, tokens], data: Array.from({ length: batch * tokens }, (_, i) => (i >= batch * tokens - 2 ? -10000 : 0)) } : undefined;
      const onDevice = mask && upload(mask);
      const { y, grads, kept } = await trial({ mode, inputs: { q, k, v }, grad: g, forward: attend({ mask: onDevice }) });
      if (onDevice) engine.free(onDevice);
      const paper = mode === 'paper';
      const want = attentionReference(q, k, v, g, tokens, { paper, mask });
      if (paper) assert.ok(want.p.data.every((p) => Math.abs(((p * 256) % 1) - 0.5) > 1e-3), 'the example must not hang on rounding');
      near(y, want.y, 'context');
      near(grads.q, want.dq, 'dq');
      near(grads.k, want.dk, 'dk');
      near(grads.v, want.dv, 'dv');
      assert.deepEqual(kept, keptOf(paper, batch, tokens));
    }
  });

for (const mode of MODES)
  it(`self-attention in blocks, ${mode}: of examples, of heads, of queries, context and gradients are those of the formula, and what is kept is the same`, async (r) => {
    const [batch, tokens] = [3, 4];
    const { q, k, v, g } = attentionCase(r, batch, tokens);
    const mask: Ref = { shape: [batch, 1, 1, tokens], data: Array.from({ length: batch * tokens }, (_, i) => (i % tokens === 3 || i === 6 ? -10000 : 0)) };
    const paper = mode === 'paper';
    const want = attentionReference(q, k, v, g, tokens, { paper, mask });
    if (paper) assert.ok(want.p.data.every((p) => Math.abs(((p * 256) % 1) - 0.5) > 1e-3), 'the example must not hang on rounding');
    const head = 4 * tokens ** 2;
    for (const blockBytes of [2 * A * head, A * head, head, head / 2, 1]) {
      const onDevice = upload(mask);
      const { y, grads, kept } = await trial({ mode, context: ForwardContext.deterministic(engine, SCHEMES[mode], { blockBytes }), inputs: { q, k, v }, grad: g, forward: attend({ mask: onDevice }) });
      engine.free(onDevice);
      near(y, want.y, 'context');
      near(grads.q, want.dq, 'dq');
      near(grads.k, want.dk, 'dk');
      near(grads.v, want.dv, 'dv');
      assert.deepEqual(kept, keptOf(paper, batch, tokens));
    }
  });

it('attention’s probability of 1 is kept as 255/256', async () => {
  // One token: the probability is 1, and dv = p'·g.
  const one = (data: number[]): Ref => ({ shape: [1, 1, A * D], data });
  const g = one([1, -2, 3, 4, 0.5, 8]);
  const x = one([1, 1, 1, 1, 1, 1]);
  const { y, grads } = await trial({ mode: 'paper', inputs: { q: x, k: x, v: g }, grad: g, forward: attend() });
  near(y, g, 'context');
  near(grads.v, map(g, (v) => (v * 255) / 256), 'dv');
});

it('attention drops values in paper mode (codes taken after dropout), probabilities in exact mode, and backward drops the same', async (r) => {
  const batch = 2;
  // As many tokens as a head is wide: an identity matrix is then a possible operand, which lets the masks be read off the output.
  const tokens = D;
  const shape = [batch, tokens, A * D];
  const p = 0.4;
  const identity = (scale: number): Ref => ({ shape, data: Array.from({ length: size(shape) }, (_, i) => (Math.floor(i / (A * D)) % tokens === i % D ? scale : 0)) });
  const ones = map(identity(1), () => 1);
  const run = (mode: ActivationMode, q: Ref, k: Ref, v: Ref, g: Ref) =>
    trial({ mode, context: ForwardContext.training(engine, SCHEMES[mode], 11, 4), inputs: { q, k, v }, grad: g, forward: attend({ dropout: p }) });
  const { q, k, v, g } = attentionCase(r, batch, tokens);
  for (const mode of MODES) {
    const paper = mode === 'paper';
    // q·kᵀ of 900 on the diagonal makes the probabilities an identity, so the output is drop(values); values of an identity make it drop(uniform probabilities).
    const seen = paper ? await run(mode, identity(30), identity(30), ones, g) : await run(mode, map(ones, () => 0), ones, identity(1), g);
    const mask = map(headsOf({ shape, data: seen.y }, tokens), (x) => (Math.abs(x) < 1e-6 ? 0 : 1 / (1 - p)));
    near(seen.y, merged(map(mask, (x) => (paper ? x : x / tokens))), 'what shows the mask');
    assert.ok(mask.data.some((x) => x === 0) && mask.data.some((x) => x !== 0));
    const want = attentionReference(q, k, v, g, tokens, { paper, ...(paper ? { ofValues: mask } : { ofProbs: mask }) });
    if (paper) assert.ok(want.p.data.every((x) => Math.abs(((x * 256) % 1) - 0.5) > 1e-3), 'the example must not hang on rounding');
    const got = await run(mode, q, k, v, g);
    near(got.y, want.y, `context, ${mode}`);
    near(got.grads.q, want.dq, `dq, ${mode}`);
    near(got.grads.k, want.dk, `dk, ${mode}`);
    near(got.grads.v, want.dv, `dv, ${mode}`);
    assert.deepEqual(got.kept, keptOf(paper, batch, tokens), 'no mask is kept');
  }
});

it('probabilities computed again are not kept, and the gradients are those of keeping them in float32, under either dropout, with and without padding', async (r) => {
  const [batch, tokens] = [2, 5];
  const { q, k, v, g } = attentionCase(r, batch, tokens);
  const mask: Ref = { shape: [batch, 1, 1, tokens], data: Array.from({ length: batch * tokens }, (_, i) => (i >= batch * tokens - 2 ? -10000 : 0)) };
  for (const attentionDropout of ['values', 'probabilities'] as const)
    for (const padded of [false, true]) {
      const onDevice = padded ? upload(mask) : undefined;
      const run = (attentionProbs: ActivationScheme['attentionProbs']) => {
        const scheme: ActivationScheme = { ...SCHEMES.exact, attentionDropout, attentionProbs };
        return trial({ mode: scheme, context: ForwardContext.training(engine, scheme, 11, 4), inputs: { q, k, v }, grad: g, forward: attend({ dropout: 0.4, mask: onDevice }) });
      };
      const [kept, again] = [await run('float32'), await run('recompute')];
      if (onDevice) engine.free(onDevice);
      for (const name of ['q', 'k', 'v']) again.grads[name].forEach((x, i) => assert.ok(Math.abs(x - kept.grads[name][i]) < 1e-6, `d${name}[${i}], ${attentionDropout}`));
      assert.deepEqual(again.kept, keptOf(false, batch, tokens).filter(([, what]) => what !== 'probabilities'));
    }
});

it('probabilities computed again from coded operands give the gradients of attention over the coded operands', async (r) => {
  const scheme: ActivationScheme = { ...SCHEMES.paper, attentionProbs: 'recompute' };
  const { q, k, v, g } = attentionCase(r, 2, 5);
  const { y, grads, kept } = await trial({ mode: scheme, inputs: { q, k, v }, grad: g, forward: attend() });
  const coded = attentionReference(map(q, q34), map(k, q34), map(v, q34), g, 5, { paper: false });
  near(y, attentionReference(q, k, v, g, 5, { paper: false }).y, 'context, which is exact');
  near(grads.q, coded.dq, 'dq');
  near(grads.k, coded.dk, 'dk');
  near(grads.v, coded.dv, 'dv');
  assert.deepEqual(kept, keptOf(true, 2, 5).filter(([, what]) => what !== 'probabilities'));
});

it('self-attention from operands and probabilities with a step for each row of each head: gradients of what the codes stand for, and 4 bytes a row beside the codes', async (r) => {
  const [batch, tokens] = [2, 5];
  const { q, k, v, g } = attentionCase(r, batch, tokens);
  const codes = (x: Ref, of: 'operand' | 'probabilities') =>
    mapRows(x, (row) => {
      const step = Math.fround(Math.max(...row.map(Math.abs)) / (of === 'operand' ? 127 : 255));
      return row.map((a) => roundHalfEven(a / step) * step);
    });
  const scheme: ActivationScheme = { ...SCHEMES.paper, attentionOperands: 'q8-row', attentionProbs: 'u8-row' };
  const { grads, kept } = await trial({ mode: scheme, inputs: { q, k, v }, grad: g, forward: attend() });
  const want = attentionReference(q, k, v, g, tokens, { paper: true, codes });
  near(grads.q, want.dq, 'dq');
  near(grads.k, want.dk, 'dk');
  near(grads.v, want.dv, 'dv');
  const row = (what: string, n: number, width: number, code: string) => ['self', what, 'static', code, 4 * Math.ceil(n / 4) + 4 * (n / width), 4 * Math.ceil(n / 4) - n];
  const operand = batch * tokens * A * D;
  assert.deepEqual(kept, [row('query', operand, D, 'q8-row'), row('key', operand, D, 'q8-row'), row('probabilities', batch * A * tokens * tokens, tokens, 'u8-row'), row('value', operand, D, 'q8-row')]);
});

it('attention keeps only what the gradients that are asked for need', async (r) => {
  const { q, k, v, g } = attentionCase(r, 2, 5);
  const want = attentionReference(q, k, v, g, 5, { paper: false });
  for (const [constants, kept, keptAgain] of [
    [['q', 'k'], ['probabilities'], ['query', 'key']],
    [['k', 'v'], ['key', 'probabilities', 'value'], ['query', 'key', 'value']],
    [['q', 'v'], ['query', 'probabilities', 'value'], ['query', 'key', 'value']],
    [['v'], ['query', 'key', 'probabilities', 'value'], ['query', 'key', 'value']],
    [['q', 'k', 'v'], [], []],
  ] as const)
    for (const again of [false, true]) {
      const out = await trial({ mode: { ...SCHEMES.exact, attentionProbs: again ? 'recompute' : 'float32' }, inputs: { q, k, v }, constants, grad: g, forward: attend() });
      assert.deepEqual(out.kept.map(([, what]) => what), again ? keptAgain : kept);
      assert.deepEqual(Object.keys(out.grads).sort(), ['k', 'q', 'v'].filter((n) => !(constants as readonly string[]).includes(n)));
      for (const [name, dx] of Object.entries(out.grads)) near(dx, want[`d${name}` as 'dq'], `d${name}`);
    }
});

// ---- embeddings, rows -----------------------------------------------------------------------------------------------------

it('an embedding’s rows get the sum of the gradients of their places, the padding row none, and nothing is kept', async (r) => {
  const table = random(r, [6, 4]);
  const ids = [0, 3, 5, 3, 0, 1];
  const g = random(r, [2, 3, 4]);
  for (const mode of MODES)
    for (const padding of [undefined, 0, 3]) {
      const idsOnDevice = uploadIds(ids, [2, 3]);
      const { y, grads, kept } = await trial({ mode, weights: { table }, grad: g, forward: (ctx, _, w) => new Embedding(w.table, padding).forward(ctx, idsOnDevice) });
      engine.free(idsOnDevice);
      near(y, ids.flatMap((id) => rowsOf(table)[id]), 'y');
      const want = rowsOf(table).map((_, row) => [0, 1, 2, 3].map((j) => sumOf(ids.map((id, i) => (id === row && id !== padding ? rowsOf(g)[i][j] : 0)))));
      near(grads.table, want.flat(), 'dtable');
      assert.deepEqual(kept, []);
    }
});

it('a frozen embedding needs no gradient', async (r) => {
  const ids = uploadIds([1, 0]);
  const { grads } = await trial({
    mode: 'paper',
    weights: { table: random(r, [3, 4]) },
    frozen: ['table'],
    grad: random(r, [2, 4]),
    forward: (ctx, _, w) => {
      const y = new Embedding(w.table).forward(ctx, ids);
      assert.equal(y.needsGrad, false);
      return y;
    },
  });
  assert.deepEqual(grads, {});
  engine.free(ids);
});

it('positions add to every sequence; their gradient sums over the batch and is 0 beyond the sequence', async (r) => {
  const x = random(r, [3, 2, 4]);
  const g = random(r, [3, 2, 4]);
  for (const rows of [2, 5]) {
    const table = random(r, [rows, 4]);
    const forward: Case['forward'] = (ctx, v, w) => addPositions(ctx, v.x, w.table);
    const { y, grads, kept } = await trial({ mode: 'paper', inputs: { x }, weights: { table }, grad: g, forward });
    near(y, map(x, (v, i) => v + table.data[i % 8]), 'y');
    near(grads.x, g, 'dx');
    near(grads.table, Array.from({ length: rows * 4 }, (_, i) => (i < 8 ? g.data[i] + g.data[i + 8] + g.data[i + 16] : 0)), 'dtable');
    assert.deepEqual(kept, []);
    const frozen = await trial({ mode: 'paper', inputs: { x }, weights: { table }, frozen: ['table'], grad: g, forward });
    assert.deepEqual(Object.keys(frozen.grads), ['x']);
    const lowest = await trial({ mode: 'paper', inputs: { x }, constants: ['x'], weights: { table }, grad: g, forward });
    assert.deepEqual(Object.keys(lowest.grads), ['table']);
    near(lowest.grads.table, grads.table, 'dtable below which nothing trains');
  }
});

it('picked rows send their gradient back to where they came from, the others get 0', async (r) => {
  const x = random(r, [2, 3, 4]);
  const rows = [3, 0, 3];
  const g = random(r, [3, 4]);
  const positions = uploadIds(rows);
  const { y, grads, kept } = await trial({ mode: 'paper', inputs: { x }, grad: g, forward: (ctx, v) => selectRows(ctx, v.x, positions) });
  engine.free(positions);
  near(y, rows.flatMap((i) => rowsOf(x)[i]), 'y');
  near(grads.x, mapRows(x, (row, i) => row.map((_, j) => sumOf(rows.map((from, n) => (from === i ? rowsOf(g)[n][j] : 0))))), 'dx');
  assert.deepEqual(kept, []);
});

it('what is picked of a sequence holds the bytes of those rows only', async (r) => {
  const x = random(r, [2, 3, 4]);
  const positions = uploadIds([0, 3]);
  const { kept } = await trial({ mode: 'paper', inputs: { x }, grad: random(r, [2, 4]), forward: (ctx, v) => engine.scope(() => tanh(ctx, selectRows(ctx, v.x, positions), 'pooler')) });
  engine.free(positions);
  assert.deepEqual(kept.map((row) => row[4]), [2 * 4 * 4]);
});

it('scores of tokens are laid out score by score, and their gradients go back to the tokens', async (r) => {
  const [B, T, C] = [2, 5, 3];
  const x = random(r, [B, T, C]);
  const g = random(r, [B, C * T]);
  const { y, grads, kept } = await trial({ mode: 'paper', inputs: { x }, grad: g, forward: (ctx, v) => tokensLast(ctx, v.x) });
  for (let b = 0; b < B; b++)
    for (let t = 0; t < T; t++)
      for (let c = 0; c < C; c++) {
        const [token, laid] = [(b * T + t) * C + c, b * C * T + c * T + t];
        assert.equal(y[laid], Math.fround(x.data[token]));
        assert.equal(grads.x[token], Math.fround(g.data[laid]));
      }
  assert.deepEqual(kept, []);
});

it('another shape has the same values and gradients', async (r) => {
  const x = random(r, [2, 6]);
  const g = random(r, [4, 3]);
  const { y, grads, kept } = await trial({ mode: 'paper', inputs: { x }, grad: g, forward: (ctx, v) => reshape(ctx, v.x, [4, 3]) });
  near(y, x, 'y');
  near(grads.x, g, 'dx');
  assert.deepEqual(kept, []);
});

// ---- losses ---------------------------------------------------------------------------------------------------------------

it('cross-entropy is the mean over counted rows of −log softmax, and its gradient (softmax − one-hot)/count', async (r) => {
  const z = map(random(r, [4, 3], 3), (v, i) => (i === 2 ? 60 : v));
  for (const [labels, ignored] of [[[2, 0, 1, 1], undefined], [[2, -100, 1, -100], -100], [[1, 0, 1, 2], 1]] as const) {
    const onDevice = uploadIds(labels);
    const counts = labels.map((l) => l !== ignored);
    const n = counts.filter(Boolean).length;
    const { y, grads, kept } = await trial({ mode: 'paper', inputs: { z }, forward: (ctx, v) => crossEntropy(ctx, v.z, onDevice, ignored) });
    engine.free(onDevice);
    const p = mapRows(z, softmaxRow);
    near(y, [sumOf(labels.map((l, i) => (counts[i] ? -Math.log(rowsOf(p)[i][l]) : 0))) / n], 'loss');
    near(grads.z, mapRows(p, (row, i) => row.map((v, c) => (counts[i] ? (v - (c === labels[i] ? 1 : 0)) / n : 0))), 'dz');
    assert.deepEqual(kept, []);
  }
});

it('squared error is the mean over all elements, and its gradient 2·(x − target)/n', async (r) => {
  const [x, t] = [random(r, [5, 1]), random(r, [5, 1])];
  const target = upload(t);
  const { y, grads, kept } = await trial({ mode: 'exact', inputs: { x }, forward: (ctx, v) => meanSquaredError(ctx, v.x, target) });
  engine.free(target);
  near(y, [sumOf(zip(x, t, (a, b) => (a - b) ** 2).data) / 5], 'loss');
  near(grads.x, zip(x, t, (a, b) => (2 * (a - b)) / 5), 'dx');
  assert.deepEqual(kept, []);
});

it('an evaluation keeps nothing, quantizes nothing and drops nothing', async (r) => {
  const x = withHardCases(random(r, [2, 3, 6]));
  const { y, kept, grads } = await trial({
    mode: 'paper',
    context: ForwardContext.evaluation(engine),
    inputs: { x },
    constants: ['x'],
    grad: x,
    forward: (ctx, v) => engine.scope(() => dropout(ctx, gelu(ctx, selfAttention(ctx, v.x, v.x, v.x, { name: 'self', heads: A, dropout: 0.5 }), 'm'), 0.5)),
  });
  const want = attentionReference(x, x, x, x, 3, { paper: false });
  near(y, map(want.y, (v) => v * Phi(v)), 'y');
  assert.deepEqual([kept, grads], [[], {}]);
});
