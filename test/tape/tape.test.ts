/** The tape by itself, with closures written here: who gets which gradient, when, and what is alive at each moment. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEngine } from '../../src/engine/choose';
import type { Category, DeviceTensor, Engine } from '../../src/engine/engine';
import { InvalidArgumentError, UseAfterFreeError } from '../../src/errors';
import { Parameter } from '../../src/tape/parameter';
import { type KeepReason, Tape, type Variable } from '../../src/tape/tape';

let engine: Engine;
function it(what: string, fn: (tape: Tape) => Promise<void> | void): void {
  test(what, async () => {
    engine ??= await chooseEngine();
    const before = engine.memory();
    await fn(new Tape(engine));
    const after = engine.memory();
    assert.equal(after.tensors, before.tensors, 'tensors left alive');
    assert.equal(after.totalLive, before.totalLive, 'bytes left alive');
  });
}

const vector = (values: readonly number[], category?: Category) => engine.upload(Float32Array.from(values), [values.length], category);
const live = (category: Category) => engine.memory().live[category];
const reason = (layer: string): KeepReason => ({ layer, what: 'input', role: 'dynamic' });

/** Weights that are freed at the end of a test by `free()`. */
function weights<N extends string>(...names: readonly N[]): Record<N, Parameter> & { free(): void } {
  const all = Object.fromEntries(names.map((n) => [n, new Parameter(n, vector([1, 1], 'weights'))])) as Record<N, Parameter>;
  return Object.assign({ free: () => engine.free(...names.map((n) => all[n].data)) }, all);
}

/** x + w, as a part of a model would write it: gradient g to both, `kept` floats kept. */
function plus(tape: Tape, x: Variable, w: Parameter, kept = 0, onBackward: () => void = () => {}): Variable {
  const y = tape.variable(engine.add(x.tensor, w.data), [x], [w]);
  if (!y.needsGrad) return y;
  if (kept > 0)
    engine.scope(() => {
      tape.keep(engine.full([kept], 1), reason(w.name));
    });
  tape.record(y, [x], [w], (g) => {
    onBackward();
    if (w.trains) tape.accumulate(w, g);
    return [x.needsGrad ? engine.share(g) : undefined];
  });
  return y;
}

/** A scalar whose gradient with respect to x is `g`: Σ g·x in a real model. */
function lossOf(tape: Tape, x: Variable, g: readonly number[]): Variable {
  const loss = tape.variable(engine.full([], 0), [x]);
  if (loss.needsGrad) tape.record(loss, [x], [], () => [vector(g)]);
  return loss;
}

/** Collects finished gradients in order. */
function collector() {
  const finished: [string, DeviceTensor][] = [];
  return {
    sink: (p: Parameter, g: DeviceTensor) => void finished.push([p.name, engine.share(g, 'gradients')]),
    async results(): Promise<[string, number[]][]> {
      const out: [string, number[]][] = [];
      for (const [name, t] of finished) out.push([name, Array.from(await engine.read(t))]);
      engine.free(...finished.map(([, t]) => t));
      return out;
    },
  };
}

it('a weight used twice is handed over once, with the sum, after its first use (the last in backward)', async (tape) => {
  const w = weights('shared', 'between');
  const order: string[] = [];
  const x = tape.constant(vector([0, 0]));
  const a = plus(tape, x, w.shared, 0, () => order.push('first use'));
  const b = plus(tape, a, w.between, 0, () => order.push('between'));
  const c = plus(tape, b, w.shared, 0, () => order.push('second use'));
  const loss = lossOf(tape, c, [2, -3]);
  const { sink, results } = collector();
  tape.backward(loss, (p, g) => {
    order.push(`sink ${p.name}`);
    sink(p, g);
  });
  assert.deepEqual(order, ['second use', 'between', 'sink between', 'first use', 'sink shared']);
  assert.deepEqual(await results(), [['between', [2, -3]], ['shared', [4, -6]]]);
  engine.free(...[x, a, b, c, loss].map((v) => v.tensor));
  w.free();
});

it('a value used three times gets the sum of three gradients, before its own closure runs', async (tape) => {
  const w = weights('w');
  const x = tape.constant(vector([5, 5]));
  const shared = plus(tape, x, w.w);
  const sum = tape.variable(engine.add(shared.tensor, shared.tensor), [shared, shared]);
  tape.record(sum, [shared, shared], [], (g) => [engine.share(g), engine.affine(g, 10)]);
  const total = tape.variable(engine.add(sum.tensor, shared.tensor), [sum, shared]);
  tape.record(total, [sum, shared], [], (g) => [engine.share(g), engine.affine(g, 100)]);
  const loss = lossOf(tape, total, [1, 2]);
  const { sink, results } = collector();
  tape.backward(loss, sink);
  assert.deepEqual(await results(), [['w', [111, 222]]]);
  engine.free(...[x, shared, sum, total, loss].map((v) => v.tensor));
  w.free();
});

it('a frozen weight gets no gradient; below the lowest part that trains no closure is left', async (tape) => {
  const w = weights('low', 'middle', 'high');
  w.low.trains = w.high.trains = false;
  const ran: string[] = [];
  const x = tape.constant(vector([0, 0]));
  const a = plus(tape, x, w.low, 3, () => ran.push('low'));
  const b = plus(tape, a, w.middle, 3, () => ran.push('middle'));
  const c = plus(tape, b, w.high, 3, () => ran.push('high'));
  assert.deepEqual([a, b, c].map((v) => v.needsGrad), [false, true, true]);
  const loss = lossOf(tape, c, [1, 1]);
  const { sink, results } = collector();
  tape.backward(loss, sink);
  assert.deepEqual(ran, ['high', 'middle']);
  assert.deepEqual(tape.ledger.entries.map((e) => e.layer), ['middle', 'high']);
  assert.deepEqual(await results(), [['middle', [1, 1]]]);
  engine.free(...[x, a, b, c, loss].map((v) => v.tensor));
  w.free();
});

it('what a closure kept is freed as soon as it has run, and a finished gradient as soon as the sink has it', async (tape) => {
  const w = weights('one', 'two', 'three');
  const seen: [string, number, number][] = [];
  const see = (what: string) => seen.push([what, live('activations'), live('gradients')]);
  const x = tape.constant(vector([0, 0]));
  const a = plus(tape, x, w.one, 10, () => see('one'));
  const b = plus(tape, a, w.two, 20, () => see('two'));
  const c = plus(tape, b, w.three, 30, () => see('three'));
  const loss = lossOf(tape, c, [1, 1]);
  assert.equal(live('activations'), 4 * 60);
  assert.equal(tape.ledger.liveBytes, 4 * 60);
  tape.backward(loss, (p) => see(`sink ${p.name}`));
  assert.deepEqual(seen, [
    ['three', 240, 0],
    ['sink three', 240, 8],
    ['two', 120, 0],
    ['sink two', 120, 8],
    ['one', 40, 0],
    ['sink one', 40, 8],
  ]);
  assert.equal(tape.ledger.liveBytes, 0);
  assert.equal(tape.ledger.totalBytes, 240, 'the ledger still knows what was kept');
  engine.free(...[x, a, b, c, loss].map((v) => v.tensor));
  w.free();
});

/** A pass in which, when `two` is reached, `one` is done and half of the gradient of `three` waits for the other half. */
function interrupted(tape: Tape, fail: { readonly closure?: () => void; readonly sink?: () => void }): string[] {
  const w = weights('one', 'two', 'three');
  const x = tape.constant(vector([0, 0]));
  const a = plus(tape, x, w.three, 5);
  const b = plus(tape, a, w.two, 5, fail.closure);
  const c = plus(tape, b, w.three, 5);
  const d = plus(tape, c, w.one, 5);
  tape.holdUntilBackward(vector([1, 2, 3], 'gradients'));
  const loss = lossOf(tape, d, [1, 1]);
  const reached: string[] = [];
  assert.throws(
    () =>
      tape.backward(loss, (p) => {
        reached.push(p.name);
        if (p.name === 'two') fail.sink?.();
      }),
    (e: Error) => e instanceof RangeError && e.message === 'broken',
  );
  engine.free(...[x, a, b, c, d, loss].map((v) => v.tensor));
  w.free();
  assert.equal(tape.ledger.liveBytes, 0);
  assert.deepEqual([live('activations'), live('gradients'), live('workspace')], [0, 0, 0]);
  tape.dispose();
  return reached;
}

it('an error in a closure passes on, and nothing of the pass or of the closure’s temporaries is left alive', (tape) => {
  const closure = () => {
    engine.full([7], 1);
    throw new RangeError('broken');
  };
  assert.deepEqual(interrupted(tape, { closure }), ['one']);
});

it('an error in the sink passes on, and nothing of the pass is left alive, the gradient that it was given included', (tape) => {
  const sink = () => {
    throw new RangeError('broken');
  };
  assert.deepEqual(interrupted(tape, { sink }), ['one', 'two']);
});

it('a forward pass that is disposed of without backward leaves nothing alive, even what no closure owns yet', (tape) => {
  const w = weights('w');
  const x = tape.constant(vector([0, 0]));
  const a = plus(tape, x, w.w, 10);
  tape.holdUntilBackward(vector([1, 2]));
  // As when a part fails between `keep` and `record`.
  tape.keep(a.tensor, reason('unfinished'));
  tape.keep(a.tensor, reason('unfinished codes'), 'q3.4');
  tape.keepLargest(a.tensor, 1, reason('unfinished pruning'));
  tape.dispose();
  assert.deepEqual([live('activations'), tape.ledger.liveBytes], [0, 0]);
  tape.dispose();
  let sinks = 0;
  const loss = lossOf(tape, { tensor: a.tensor, needsGrad: true }, [1, 1]);
  tape.backward(loss, () => sinks++);
  assert.equal(sinks, 0, 'a closure survived dispose');
  engine.free(x.tensor, a.tensor, loss.tensor);
  w.free();
});

it('backward from a loss that depends on nothing that trains calls no sink and frees what is held', (tape) => {
  const w = weights('w');
  w.w.trains = false;
  const x = tape.constant(vector([0, 0]));
  const y = plus(tape, x, w.w, 4);
  const loss = lossOf(tape, y, [1, 1]);
  tape.holdUntilBackward(vector([1]));
  tape.backward(loss, () => assert.fail('a sink was called'));
  engine.free(x.tensor, y.tensor, loss.tensor);
  w.free();
});

it('a branch that does not reach the loss is not run, and what it kept is freed', async (tape) => {
  const w = weights('used', 'unused');
  const x = tape.constant(vector([0, 0]));
  const a = plus(tape, x, w.used, 4);
  const side = plus(tape, a, w.unused, 8, () => assert.fail('the side branch ran'));
  const loss = lossOf(tape, a, [1, 2]);
  const { sink, results } = collector();
  tape.backward(loss, sink);
  assert.deepEqual(await results(), [['used', [1, 2]]]);
  engine.free(...[x, a, side, loss].map((v) => v.tensor));
  w.free();
});

it('a weight that is also used in a branch that does not reach the loss gets the gradient of the branch that does', async (tape) => {
  // Once with the dead use above the live one, once below it.
  for (const deadFirst of [false, true]) {
    const w = weights('tied', 'below');
    const x = tape.constant(vector([0, 0]));
    const a = plus(tape, x, w.below);
    const dead = () => plus(tape, a, w.tied, 4, () => assert.fail('the side branch ran'));
    const early = deadFirst ? dead() : undefined;
    const b = plus(tape, a, w.tied, 4);
    const side = early ?? dead();
    const loss = lossOf(tape, b, [1, 2]);
    const { sink, results } = collector();
    tape.backward(loss, sink);
    const got = await results();
    engine.free(...[x, a, b, side, loss].map((v) => v.tensor));
    w.free();
    assert.deepEqual(got.sort(), [['below', [1, 2]], ['tied', [1, 2]]]);
  }
});

it('an evaluation’s tape needs no gradient of anything', () => {
  const tape = new Tape(engine, { recording: false });
  const w = weights('w');
  const x: Variable = { tensor: vector([0, 0]), needsGrad: true };
  const y = plus(tape, x, w.w, 4);
  assert.equal(y.needsGrad, false);
  assert.deepEqual(tape.ledger.entries, []);
  engine.free(x.tensor, y.tensor);
  w.free();
});

it('a gradient that was not announced is refused by the weight’s name', (tape) => {
  const w = weights('announced', 'secret');
  const x = tape.constant(vector([0, 0]));
  assert.throws(() => tape.accumulate(w.secret, x.tensor), (e: Error) => e instanceof InvalidArgumentError && e.message.includes('secret'), 'outside of backward');
  const y = tape.variable(engine.share(x.tensor), [x], [w.announced]);
  tape.record(y, [x], [w.announced], (g) => {
    tape.accumulate(w.secret, g);
    return [];
  });
  const loss = lossOf(tape, y, [1, 1]);
  assert.throws(() => tape.backward(loss, () => assert.fail('sink')), (e: Error) => e instanceof InvalidArgumentError && e.message.includes('secret'));
  engine.free(x.tensor, y.tensor, loss.tensor);
  w.free();
});

it('a storage kept by two layers counts once, for the first, and lives until both are done', (tape) => {
  const w = weights('low', 'high');
  const bytes: [string, number, number][] = [];
  const x: Variable = { tensor: vector([1, 2, 3]), needsGrad: false };
  const use = (p: Parameter): Variable => {
    const y = tape.variable(engine.share(x.tensor), [], [p]);
    tape.keep(x.tensor, reason(p.name));
    tape.record(y, [], [p], () => {
      bytes.push([p.name, live('activations'), tape.ledger.liveBytes]);
      tape.accumulate(p, engine.full([2], 1));
      return [];
    });
    return y;
  };
  const a = use(w.low);
  const b = use(w.high);
  const sum = tape.variable(engine.add(a.tensor, b.tensor), [a, b]);
  tape.record(sum, [a, b], [], (g) => [engine.share(g), engine.share(g)]);
  const loss = lossOf(tape, sum, [1, 1, 1]);
  engine.free(...[x, a, b].map((v) => v.tensor));
  assert.deepEqual(tape.ledger.entries.map((e) => [e.layer, e.bytes]), [['low', 12], ['high', 0]]);
  assert.equal(live('activations'), 12);
  tape.backward(loss, () => {});
  assert.deepEqual(bytes, [['high', 12, 12], ['low', 12, 12]]);
  assert.deepEqual([live('activations'), tape.ledger.liveBytes], [0, 0]);
  engine.free(sum.tensor, loss.tensor);
  w.free();
});

it('what is kept comes back: float32 as it was, codes as the values they stand for, the largest with zeros between', async (tape) => {
  const x = vector([0.5, -9, 1.03125, 0, -0.25]);
  const ids = engine.upload(Int32Array.of(3, 1), [2]);
  const kept = [
    tape.keep(x, reason('plain')),
    tape.keep(x, reason('signed'), 'q3.4'),
    tape.keep(x, reason('unsigned'), 'q0.8'),
    tape.keep(x, reason('nibbles'), 'q2.1'),
    tape.keepLargest(x, 2, reason('largest')),
    tape.keep(ids, reason('ids')),
  ];
  engine.free(x, ids);
  const values: number[][] = [];
  for (const k of kept) {
    const t = k.load();
    values.push(Array.from(await engine.read(t)));
    engine.free(t);
  }
  assert.deepEqual(values, [
    [0.5, -9, 1.03125, 0, -0.25],
    // 1.03125 is 16.5 sixteenths: the even code.
    [0.5, -8, 1, 0, -0.25],
    [0.5, 0, 255 / 256, 0, 0],
    // −0.25 is half a step: the even code, 0.
    [0.5, -4, 1, 0, 0],
    [0, -9, 1.03125, 0, 0],
    [3, 1],
  ].map((row) => row.map((v) => v + 0)));
  assert.deepEqual(
    tape.ledger.entries.map((e) => [e.layer, e.encoding, e.bytes, e.padding, [...e.shape]]),
    [
      ['plain', 'float32', 20, 0, [5]],
      ['signed', 'q3.4', 8, 3, [5]],
      ['unsigned', 'q0.8', 8, 3, [5]],
      ['nibbles', 'q2.1', 4, 1, [5]],
      ['largest', 'top10', 16, 0, [5]],
      ['ids', 'int32', 8, 0, [2]],
    ],
  );
  assert.equal(live('activations'), tape.ledger.totalBytes);
  tape.dispose();
  assert.throws(() => kept[0].load(), UseAfterFreeError);
});

it('what is kept piece by piece is one entry, of the bytes of its pieces; a piece may go early, the rest goes with its closure', async (tape) => {
  const w = weights('w');
  const x = vector([1, 2]);
  const y = tape.variable(engine.add(x, w.w.data), [], [w.w]);
  const [codes, floats] = [tape.keepPieces(reason('codes'), 'q3.4', [3, 4]), tape.keepPieces({ ...reason('floats'), role: 'static' }, 'float32', [5])];
  for (const values of [[0.5, -9, 1.03125, 2], [1, 2, 3, 4, 5, 6, 7, 0.25]]) {
    const piece = vector(values);
    codes.add(piece);
    engine.free(piece);
  }
  for (const values of [[1, 2], [3, 4, 5]]) {
    const piece = vector(values);
    floats.add(piece);
    engine.free(piece);
  }
  const read = async (t: DeviceTensor) => {
    const values = Array.from(await engine.read(t));
    engine.free(t);
    return values;
  };
  assert.deepEqual(await read(codes.piece(0).load()), [0.5, -8, 1, 2]);
  assert.ok('encoded' in codes.piece(1));
  assert.deepEqual(await read(codes.piece(1).load()), [1, 2, 3, 4, 5, 6, 7, 0.25]);
  assert.deepEqual(await read(floats.piece(1).load()), [3, 4, 5]);
  assert.deepEqual(
    tape.ledger.entries.map((e) => [e.layer, e.what, e.role, e.encoding, [...e.shape], e.bytes, e.padding]),
    [
      ['codes', 'input', 'dynamic', 'q3.4', [3, 4], 12, 0],
      ['floats', 'input', 'static', 'float32', [5], 20, 0],
    ],
  );
  assert.deepEqual([live('activations'), tape.ledger.liveBytes], [32, 32]);
  assert.deepEqual(tape.course.map((p) => [p.layer, p.activationBytes]), [['codes', 4], ['codes', 12], ['floats', 20], ['floats', 32]]);
  tape.record(y, [], [w.w], (g) => {
    floats.release(1);
    assert.deepEqual([live('activations'), tape.ledger.liveBytes], [20, 20]);
    codes.release(0);
    assert.deepEqual([live('activations'), tape.ledger.liveBytes], [16, 16]);
    assert.throws(() => codes.piece(0).load(), UseAfterFreeError);
    tape.accumulate(w.w, g);
    return [];
  });
  const loss = lossOf(tape, y, [1, 1]);
  tape.backward(loss, () => {});
  assert.deepEqual([live('activations'), tape.ledger.liveBytes, tape.ledger.totalBytes], [0, 0, 32]);
  engine.free(x, y.tensor, loss.tensor);
  w.free();
});

it('a tape that is disposed of before backward frees what was kept piece by piece', (tape) => {
  const pieces = tape.keepPieces(reason('codes'), 'q0.8', [2, 3]);
  const piece = vector([0.5, 0.25, 0.125]);
  pieces.add(piece);
  engine.free(piece);
  // The last word of a piece is filled up.
  assert.deepEqual(tape.ledger.entries.map((e) => [e.bytes, e.padding]), [[4, 1]]);
  tape.dispose();
  assert.deepEqual([live('activations'), tape.ledger.liveBytes], [0, 0]);
});

it('the course tells the bytes alive after each activation kept and each let go: up, then down to nothing', (tape) => {
  const w = weights('a', 'b');
  const x = vector([1, 2]);
  const y = plus(tape, tape.constant(x), w.a, 100);
  const z = plus(tape, y, w.b, 50);
  const loss = lossOf(tape, z, [1, 1]);
  tape.backward(loss, () => {});
  assert.deepEqual(
    tape.course.map((p) => [p.phase, p.layer, p.activationBytes]),
    [
      ['forward', 'a', 400],
      ['forward', 'b', 600],
      ['backward', 'b', 400],
      ['backward', 'a', 0],
    ],
  );
  const base = tape.course.map((p) => p.deviceBytes - p.activationBytes);
  assert.ok(base.every((b) => b >= 16), 'the weights count among the device’s bytes');
  engine.free(x, y.tensor, z.tensor, loss.tensor);
  w.free();
});

it('who watches is shown the output of every part, once for each of its parameters, recording or not', () => {
  const { w, b, free } = weights('w', 'b');
  for (const recording of [true, false]) {
    const seen: [string, number][] = [];
    const tape = new Tape(engine, { recording, watch: (p, output) => seen.push([p.name, output.id]) });
    const x = tape.constant(vector([1, 2]));
    const y = tape.variable(engine.add(x.tensor, w.data), [x], [w, b]);
    const z = tape.variable(engine.add(y.tensor, y.tensor), [y]);
    assert.deepEqual(seen, [['w', y.tensor.id], ['b', y.tensor.id]]);
    tape.dispose();
    engine.free(x.tensor, y.tensor, z.tensor);
  }
  free();
});
