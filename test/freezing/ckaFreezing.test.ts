import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidArgumentError } from '../../src/errors';
import { CkaFreezing, linearCka } from '../../src/freezing/ckaFreezing';
import { Random } from '../../src/random';
import { bertLayers, trainingParts } from './bertLayers';

const layers = bertLayers(2);
const random = new Random(4);
const matrix = (n: number, p: number) => Array.from({ length: n }, () => Array.from({ length: p }, () => random.normal()));
/** Centred Gram matrix, row by row from its definition. */
function gram(x: readonly (readonly number[])[]): Float32Array {
  const mean = x[0].map((_, j) => x.reduce((s, r) => s + r[j], 0) / x.length);
  const c = x.map((r) => r.map((v, j) => v - mean[j]));
  return Float32Array.from(c.flatMap((a) => c.map((b) => a.reduce((s, v, j) => s + v * b[j], 0))));
}
/** Linear CKA in feature space: ‖YᵀX‖²/(‖XᵀX‖·‖YᵀY‖), Frobenius norms of centred X and Y. */
function featureCka(x: readonly (readonly number[])[], y: readonly (readonly number[])[]): number {
  const centred = (m: readonly (readonly number[])[]) => m.map((r) => r.map((v, j) => v - m.reduce((s, q) => s + q[j], 0) / m.length));
  const squared = (a: readonly (readonly number[])[], b: readonly (readonly number[])[]) => a[0].reduce((s, _, i) => s + b[0].reduce((t, __, j) => t + a.reduce((u, r, n) => u + r[i] * b[n][j], 0) ** 2, 0), 0);
  const [cx, cy] = [centred(x), centred(y)];
  return squared(cx, cy) / Math.sqrt(squared(cx, cx) * squared(cy, cy));
}

test('CKA from Gram matrices is CKA from features; 1 for a scaled, shifted and rotated copy', () => {
  for (let k = 0; k < 5; k++) {
    const [x, y] = [matrix(7, 4), matrix(7, 6)];
    assert.ok(Math.abs(linearCka(gram(x), gram(y)) - featureCka(x, y)) < 1e-5);
  }
  const x = matrix(6, 2);
  const [c, s] = [Math.cos(0.6), Math.sin(0.6)];
  assert.ok(Math.abs(linearCka(gram(x), gram(x.map(([a, b]) => [3 * (c * a - s * b) + 5, 3 * (s * a + c * b)]))) - 1) < 1e-6);
});

/** A Gram matrix of CKA `similarity` to diag(1, 0, …): ⟨K, L⟩ = a and ‖L‖ = 1 with L = diag(a, √(1 − a²)). */
const alike = (similarity: number) => Float32Array.of(similarity, 0, 0, 0, Math.sqrt(1 - similarity ** 2), 0, 0, 0, 0);
/** One look at blocks E, 0, 1 and head, every layer of a block alike. */
function look(policy: CkaFreezing, step: number, similarity: Readonly<Record<string, number>>): string {
  const of = (name: string) => similarity[/layer\.(\d)/.exec(name)?.[1] ?? (name.includes('embeddings') ? 'E' : 'H')];
  policy.observe(step, new Map(), { grams: new Map(layers.map((l) => [l.index, alike(of(l.name))])) });
  return trainingParts(layers, policy.select());
}

test('a block is frozen for good once its similarity to the reference changes by no more than the threshold; the head never', () => {
  const policy = new CkaFreezing(layers, { compareEvery: 10, threshold: 0.01, examples: 3 });
  assert.deepEqual([0, 1, 9, 10, 25, 30].map((s) => policy.probe(s)), [3, 0, 0, 3, 0, 3]);
  assert.equal(look(policy, 0, { E: 1, 0: 1, 1: 1, H: 1 }), 'E01H', 'the reference');
  assert.deepEqual([...policy.similarities], [NaN, NaN, NaN, NaN]);
  assert.equal(look(policy, 10, { E: 0.99, 0: 0.9, 1: 0.8, H: 0.7 }), 'E01H', 'one look says nothing of change');
  policy.similarities.forEach((c, i) => assert.ok(Math.abs(c - [0.99, 0.9, 0.8, 0.7][i]) < 1e-6));
  // Changes of 0.5 %, 2 %, 0.9 %, 0 %.
  assert.equal(look(policy, 20, { E: 0.985, 0: 0.882, 1: 0.793, H: 0.7 }), '0H');
  // Block 1 drifts off while frozen, since what lies below it trains: frozen all the same.
  assert.equal(look(policy, 30, { E: 0.985, 0: 0.85, 1: 0.5, H: 0.7 }), '0H');
  assert.equal(look(policy, 40, { E: 0.985, 0: 0.85, 1: 0.5, H: 0.7 }), 'H');
  assert.equal(policy.probe(50), 0, 'nothing left to freeze');
});

test('a step without a look changes nothing; a restored policy goes on as the first would have', () => {
  const first = new CkaFreezing(layers, { compareEvery: 1, examples: 3 });
  look(first, 0, { E: 1, 0: 1, 1: 1, H: 1 });
  look(first, 1, { E: 0.9, 0: 0.9, 1: 0.9, H: 0.9 });
  look(first, 2, { E: 0.9, 0: 0.8, 1: 0.8, H: 0.9 });
  const before = first.select();
  first.observe(3, new Map([[20, 0.5]]));
  assert.deepEqual(first.select(), before);
  const second = new CkaFreezing(layers, { compareEvery: 1, examples: 3 });
  second.restore(JSON.parse(JSON.stringify(first.state())));
  assert.deepEqual(second.state(), first.state());
  for (const [s, at] of [[4, 0.7], [5, 0.695]] as const) assert.equal(look(second, s, { E: 0.9, 0: at, 1: at / 2 + s / 10, H: 0.9 }), look(first, s, { E: 0.9, 0: at, 1: at / 2 + s / 10, H: 0.9 }));
  assert.equal(trainingParts(layers, second.select()), '1H');
});

test('a layer that cannot be compared never freezes; what can never work is refused', () => {
  const policy = new CkaFreezing(layers, { compareEvery: 1, examples: 3 });
  for (let s = 0; s < 4; s++) policy.observe(s, new Map(), { grams: new Map([[0, new Float32Array(9)]]) });
  assert.deepEqual(policy.select(), []);
  for (const options of [{ compareEvery: 0 }, { examples: 2 }, { threshold: -0.1 }, { threshold: NaN }, { granularity: 'part' as 'block' }])
    assert.throws(() => new CkaFreezing(layers, options), InvalidArgumentError, JSON.stringify(options));
  const state = policy.state();
  assert.throws(() => policy.restore({ magnitudes: [] }), InvalidArgumentError);
  assert.throws(() => policy.restore({ ...state, similarity: [] }), InvalidArgumentError);
  assert.deepEqual(policy.state(), state);
});
