/**
 * Products as large as in training, on the device itself, in both precisions: the contract's suite has small ones, which matrix units leave alone. Of each product some elements are summed again in float64; an
 * operand rounded to float16 is off by at most 2⁻¹¹ of itself, one of float32 by 2⁻²⁴, and the sum by a few of these.
 */
import assert from 'node:assert/strict';
import { after, test, type TestContext } from 'node:test';
import type { DeviceTensor } from '../../src/engine/engine';
import type { WebgpuEngine } from '../../src/engine/webgpu/webgpuEngine';
import { parseBertConfig } from '../../src/hub/config';
import { BertForSequenceClassification } from '../../src/models/bert';
import { Random } from '../../src/random';
import { SlimFitTrainer } from '../../src/training/trainer';
import { randomTexts } from '../randomTexts';
import { openEngine } from './openEngine';
import type { Precision } from './settings';

/** Most that an element is off, as a share of the sum of its absolute products. */
const OFF: Readonly<Record<Precision, number>> = { float32: 1e-5, mixed: 1.05 * 2 ** -10 };
const SAMPLES = 64;

const engines = new Map<Precision, WebgpuEngine>();
after(() => engines.forEach((e) => e.dispose()));

/** The engine in that precision; skips the test where the device has none. */
async function engineOf(t: TestContext, precision: Precision): Promise<WebgpuEngine | undefined> {
  try {
    const engine = engines.get(precision) ?? (await openEngine(precision));
    engines.set(precision, engine);
    return engine;
  } catch (error) {
    if (precision === 'float32') throw error;
    t.skip((error as Error).message);
    return undefined;
  }
}

/** [batches, M, K]·[batches, K, N] with strides of their own: what a product's transposes come to. */
interface Product {
  readonly what: string;
  readonly sizes: readonly [batches: number, M: number, N: number, K: number];
  readonly a: readonly number[];
  readonly b: readonly number[];
  readonly transposed: readonly [a: boolean, b: boolean];
  call(e: WebgpuEngine, a: DeviceTensor, b: DeviceTensor): DeviceTensor;
}

const PRODUCTS: readonly Product[] = [
  { what: 'linear', sizes: [1, 520, 384, 768], a: [520, 768], b: [384, 768], transposed: [false, true], call: (e, x, w) => e.linear(x, w) },
  { what: 'a linear layer of odd sizes', sizes: [1, 261, 131, 197], a: [261, 197], b: [131, 197], transposed: [false, true], call: (e, x, w) => e.linear(x, w) },
  { what: 'its input gradient', sizes: [1, 520, 256, 384], a: [520, 384], b: [384, 256], transposed: [false, false], call: (e, g, w) => e.linearGradInput(g, w) },
  { what: 'its weight gradient over many tokens', sizes: [1, 192, 256, 2048], a: [2048, 192], b: [2048, 256], transposed: [true, false], call: (e, g, x) => e.linearGradWeight(g, x) },
  { what: 'scores of attention', sizes: [24, 128, 128, 64], a: [24, 128, 64], b: [24, 128, 64], transposed: [false, true], call: (e, q, k) => e.matmul(q, k, { transposeB: true }) },
  { what: 'attention over values', sizes: [24, 197, 64, 197], a: [24, 197, 197], b: [24, 197, 64], transposed: [false, false], call: (e, p, v) => e.matmul(p, v) },
];

for (const precision of ['float32', 'mixed'] as const) {
  for (const { what, sizes, a, b, transposed, call } of PRODUCTS)
    test(`${precision}: ${what}, ${sizes.join(' × ')}`, async (t) => {
      const e = await engineOf(t, precision);
      if (!e) return;
      const random = new Random(11);
      const draw = (shape: readonly number[]) => Float32Array.from({ length: shape.reduce((x, y) => x * y, 1) }, () => random.normal());
      const [x, y] = [draw(a), draw(b)];
      const [tx, ty] = [e.upload(x, a), e.upload(y, b)];
      const tz = call(e, tx, ty);
      const z = await e.read(tz);
      e.free(tx, ty, tz);
      const [batches, M, N, K] = sizes;
      assert.equal(z.length, batches * M * N);
      for (let s = 0; s < SAMPLES; s++) {
        // The last element too.
        const at = s === 0 ? z.length - 1 : random.int(z.length);
        const [n, m, batch] = [at % N, Math.floor(at / N) % M, Math.floor(at / (M * N))];
        let [sum, absolute] = [0, 0];
        for (let k = 0; k < K; k++) {
          const p = x[batch * M * K + (transposed[0] ? k * M + m : m * K + k)] * y[batch * K * N + (transposed[1] ? n * K + k : k * N + n)];
          sum += p;
          absolute += Math.abs(p);
        }
        assert.ok(Math.abs(z[at] - sum) <= OFF[precision] * absolute, `element ${at}: ${z[at]} is not ${sum} within ${OFF[precision] * absolute}`);
      }
      assert.equal(e.memory().tensors, 0);
    });
}

test('a training in mixed precision goes as in float32', async (t) => {
  const losses: number[][] = [];
  for (const precision of ['float32', 'mixed'] as const) {
    const e = await engineOf(t, precision);
    if (!e) return;
    const config = parseBertConfig({ model_type: 'bert', vocab_size: 500, hidden_size: 256, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 512 });
    const model = BertForSequenceClassification.fresh(e, config, 1);
    const batch = randomTexts(500, 8, 64);
    const trainer = new SlimFitTrainer({ model, train: { size: 8, batch: () => batch }, batchSize: 8, freezeRate: 0.5, schedule: 'constant', learningRate: 1e-4, totalSteps: 100, seed: 3, measureEncodingsEvery: 0 });
    const seen: number[] = [];
    for await (const { loss } of trainer.steps(8)) seen.push(loss);
    losses.push(seen);
    trainer.dispose();
    model.dispose();
  }
  losses[0].forEach((loss, i) => assert.ok(Math.abs(loss - losses[1][i]) < 0.02, `step ${i}: ${losses[1][i]} is not ${loss}`));
});
