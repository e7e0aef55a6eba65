import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidArgumentError } from '../../src/errors';
import { InterLayerScheduling, selectFrozen } from '../../src/freezing/ils';
import type { FreezableLayer } from '../../src/freezing/layer';
import { NoFreezing } from '../../src/freezing/none';

const layersOf = (n: number): FreezableLayer[] =>
  Array.from({ length: n }, (_, index) => ({ index, name: `layer.${index}.weight`, kind: 'linear', shape: [2, 2], parameters: 4 }));

test('the layers of smallest magnitude are frozen, lower index first among equals', () => {
  assert.deepEqual(selectFrozen([5, 1, 3, 2, 4], 2), [1, 3]);
  assert.deepEqual(selectFrozen([7, 0, 7, 0, 7, 0], 4), [0, 1, 3, 5]);
});

test('a layer whose magnitude is NaN or infinite trains', () => {
  assert.deepEqual(selectFrozen([2, NaN, 1, Infinity, 3, 0.5], 4), [0, 2, 4, 5]);
  assert.deepEqual(selectFrozen([NaN, Infinity, NaN], 2), [0, 1]);
});

test('the paper’s models freeze as many layers as its table says', () => {
  for (const [n, rate, frozen] of [[102, 0.8, 81], [102, 0.95, 96], [102, 0.9, 91], [101, 0.85, 85], [101, 0.8, 80], [99, 0.9, 89], [99, 0.75, 74], [100, 0.95, 95]] as const)
    assert.equal(new InterLayerScheduling(layersOf(n), { freezeRate: rate, seed: 1 }).frozenCount, frozen, `${n} layers at ${rate}`);
});

test('the first sweep trains every layer once before any trains twice', () => {
  const n = 22;
  const ils = new InterLayerScheduling(layersOf(n), { freezeRate: 0.75, seed: 7 });
  const trained = new Array<number>(n).fill(0);
  const sweep = Math.floor(n / (n - ils.frozenCount));
  for (let step = 0; step < sweep; step++) {
    const frozen = new Set(ils.select());
    const active = trained.map((_, i) => i).filter((i) => !frozen.has(i));
    assert.equal(active.length, n - ils.frozenCount);
    for (const i of active) trained[i]++;
    ils.observe(step, new Map(active.map((i) => [i, 0.01])));
  }
  assert.equal(Math.max(...trained), 1);
});

test('only observed layers get a new magnitude', () => {
  const ils = new InterLayerScheduling(layersOf(3), { freezeRate: 0.4, seed: 0, initialMagnitudes: [3, 2, 1] });
  ils.observe(0, new Map([[1, 0.5]]));
  assert.deepEqual([...ils.magnitudes], [3, 0.5, 1]);
  assert.deepEqual(ils.select(), [1]);
});

test('equal seeds draw equal initial magnitudes, other seeds others, all below the scale', () => {
  const draw = (seed: number) => [...new InterLayerScheduling(layersOf(50), { freezeRate: 0.5, seed, initialScale: 1e7 }).magnitudes];
  assert.deepEqual(draw(43), draw(43));
  assert.notDeepEqual(draw(43), draw(44));
  assert.ok(draw(43).every((d) => d >= 0 && d < 1e7));
  assert.ok(Math.max(...draw(43)) > 1e6);
});

test('a policy’s state survives JSON, NaN and infinity included', () => {
  const a = new InterLayerScheduling(layersOf(4), { freezeRate: 0.5, seed: 0, initialMagnitudes: [1, NaN, Infinity, 0.1] });
  const b = new InterLayerScheduling(layersOf(4), { freezeRate: 0.5, seed: 9 });
  b.restore(JSON.parse(JSON.stringify(a.state())));
  assert.deepEqual([...b.magnitudes], [1, NaN, Infinity, 0.1]);
  assert.throws(() => b.restore({ magnitudes: [1] }), InvalidArgumentError);
});

test('a freeze rate outside [0, 1) is refused by its value', () => {
  for (const rate of [-0.1, 1, 1.5, NaN])
    assert.throws(() => new InterLayerScheduling(layersOf(4), { freezeRate: rate, seed: 0 }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(String(rate)));
});

test('full fine-tuning freezes nothing and still knows how far each layer moved', () => {
  const none = new NoFreezing(layersOf(3));
  none.observe(0, new Map([[2, 0.25]]));
  assert.deepEqual(none.select(), []);
  assert.deepEqual([...none.magnitudes], [NaN, NaN, 0.25]);
});
