/** What encodings do to values, counted on the device, against a count on the host. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEngine } from '../../src/engine/choose';
import { FIXED_POINT, type FixedPoint } from '../../src/engine/engine';
import { Random } from '../../src/random';
import { encodingError, encodingErrorSums } from '../../src/tape/encodingError';
import { Tape } from '../../src/tape/tape';

/** Written from SLIMFIT-SPEC §4, not from the engine. */
function reference(x: Float32Array, encoding: FixedPoint): { clipped: number; zeroed: number; relativeError: number } {
  const { scale, lo, hi } = FIXED_POINT[encoding];
  let [clipped, zeroed, difference, norm] = [0, 0, 0, 0];
  for (const v of x) {
    const scaled = v * scale;
    const below = Math.floor(scaled);
    const rounded = scaled - below === 0.5 ? (below % 2 === 0 ? below : below + 1) : Math.round(scaled);
    if (rounded < lo || rounded > hi) clipped++;
    const code = Math.min(hi, Math.max(lo, rounded));
    if (code === 0 && v !== 0) zeroed++;
    difference += (v - code / scale) ** 2;
    norm += v * v;
  }
  return { clipped: clipped / x.length, zeroed: zeroed / x.length, relativeError: Math.sqrt(difference / norm) };
}

for (const name of ['tensorflow', 'wasm', 'cpu'] as const)
  test(`clipped values, values lost to 0 and the relative error are counted as on the host, on the edges too (${name})`, async () => {
    const engine = await chooseEngine(name);
    const before = engine.memory();
    const random = new Random(5);
    const cases: [FixedPoint, Float32Array][] = [
      ['q3.4', Float32Array.from({ length: 5000 }, () => 5 * random.normal())],
      ['q2.1', Float32Array.from({ length: 5000 }, () => 2 * random.normal())],
      ['q0.8', Float32Array.from({ length: 5000 }, () => random.uniform() ** 6)],
      // Last code that is not clipped, first that is; half a step and a little more; exact zeros.
      ['q3.4', Float32Array.of(127 / 16, 127.4 / 16, 127.5 / 16, 8, -8, -128.5 / 16, -128.6 / 16, 0.5 / 16, 0.6 / 16, 0, -0, 1e-20)],
      ['q2.1', Float32Array.of(3.5, 3.7, 3.75, 4, -4, -4.25, -4.3, 0.25, 0.26, -0.25, 0)],
      ['q0.8', Float32Array.of(1, 255 / 256, 255.4 / 256, 255.5 / 256, 0.5 / 256, 0.51 / 256, 1e-9, 0, 0.5)],
    ];
    for (const [encoding, x] of cases) {
      const tensor = engine.upload(x, [x.length]);
      const encoded = engine.encode(tensor, encoding);
      const kept = engine.decode(encoded);
      const sums = encodingErrorSums(engine, tensor, kept, encoding);
      const got = encodingError({ layer: 'l', what: 'w', encoding }, x.length, await engine.read(sums));
      engine.free(tensor, encoded.words, kept, sums);
      const want = reference(x, encoding);
      assert.deepEqual([got.clipped * x.length, got.zeroed * x.length], [want.clipped * x.length, want.zeroed * x.length], `${encoding} of ${x.length}`);
      assert.ok(Math.abs(got.relativeError - want.relativeError) < 1e-5 * want.relativeError, `${encoding}: ${got.relativeError} is not ${want.relativeError}`);
    }
    assert.equal(engine.memory().tensors, before.tensors);
    engine.dispose();
  });

test('a measuring tape tells the error of every encoded and pruned activation, of none that is kept whole, and frees what it measured with', async () => {
  const engine = await chooseEngine();
  const before = engine.memory().tensors;
  const tape = new Tape(engine, { measuring: true });
  const x = engine.upload(Float32Array.of(100, 1, 0.01, -3), [4]);
  const reason = { layer: 'm', role: 'static' } as const;
  tape.keep(x, { ...reason, what: 'whole' });
  tape.keep(x, { ...reason, what: 'codes' }, 'q3.4');
  tape.keepLargest(x, 2, { ...reason, what: 'largest' });
  const errors = await tape.readEncodingErrors();
  const norm = Math.hypot(100, 1, 0.01, -3);
  assert.deepEqual(errors.map((e) => [e.layer, e.what, e.encoding, e.clipped, e.zeroed]), [['m', 'codes', 'q3.4', 0.25, 0.25], ['m', 'largest', 'top10', 0, 0.5]]);
  assert.ok(Math.abs(errors[0].relativeError - Math.hypot(100 - 127 / 16, 0.01) / norm) < 1e-6);
  assert.ok(Math.abs(errors[1].relativeError - Math.hypot(1, 0.01) / norm) < 1e-6);
  tape.dispose();
  engine.free(x);
  assert.equal(engine.memory().tensors, before);
  assert.deepEqual(await new Tape(engine).readEncodingErrors(), []);
});
