/** What the GPU benchmark says of its figures: FLOPs as an engine counts them, and limits of mixed precision that half-precision products keep. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { judgedMixed, parity } from '../../bench/gpu/checks';
import { forwardFlops, fullStepFlops, stepFlops } from '../../bench/gpu/flops';
import { markdown } from '../../bench/gpu/report';
import { counterpart, memoryCounterpart, rowName, rowsOf, type Setting, SETTINGS, TINY_SETTINGS } from '../../bench/gpu/settings';
import { chooseEngine } from '../../src/engine/choose';
import type { DeviceTensor, Engine, MatmulOptions } from '../../src/engine/engine';
import { createTfjsEngine } from '../../src/engine/tfjs/tfjsEngine';
import { parseBertConfig } from '../../src/hub/config';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { BertForSequenceClassification } from '../../src/models/bert';
import { ViTForImageClassification } from '../../src/models/vit';
import { ForwardContext } from '../../src/nn/context';
import { SCHEMES } from '../../src/tape/scheme';
import type { Model } from '../../src/models/model';

const GOLDEN = path.resolve(__dirname, '../../../shared/golden');

type Product = 'linear' | 'linearGradInput' | 'linearGradWeight' | 'matmul' | 'attentionProbs';

/** An engine whose products pass through `around`; what it does inside itself does not. */
function withProducts(engine: Engine, around: (name: Product, operands: readonly [DeviceTensor, DeviceTensor], rest: readonly unknown[], run: (a: DeviceTensor, b: DeviceTensor) => DeviceTensor) => DeviceTensor): Engine {
  return new Proxy(engine, {
    get(target, key) {
      const own = Reflect.get(target, key) as unknown;
      if (typeof own !== 'function') return own;
      if (!['linear', 'linearGradInput', 'linearGradWeight', 'matmul', 'attentionProbs'].includes(String(key))) return own.bind(target);
      return (a: DeviceTensor, b: DeviceTensor, ...rest: unknown[]) => around(key as Product, [a, b], rest, (x, y) => own.call(target, x, y, ...rest) as DeviceTensor);
    },
  });
}

/** FLOPs of the products of one forward and backward. */
async function counted(s: Setting, trains: (name: string) => boolean): Promise<{ readonly flops: number; readonly active: string[] }> {
  const engine = await createTfjsEngine('cpu');
  let flops = 0;
  const counting = withProducts(engine, (name, [a, b], rest, run) => {
    const y = run(a, b);
    const inner = name === 'attentionProbs' ? a.shape[a.shape.length - 1] : name === 'linearGradInput' ? b.shape[0] : name === 'linearGradWeight' ? a.size / a.shape[a.shape.length - 1] : name === 'linear' ? b.shape[1] : a.shape[a.shape.length - ((rest[0] as MatmulOptions | undefined)?.transposeA ? 2 : 1)];
    flops += 2 * y.size * inner;
    return y;
  });
  const fields = { hidden_size: s.hidden, num_hidden_layers: s.layers, num_attention_heads: s.heads, intermediate_size: s.intermediate, hidden_dropout_prob: 0, attention_probs_dropout_prob: 0 };
  const pass = async <B>(model: Model<B & { labels: Int32Array; batchSize: number }>, batch: B & { labels: Int32Array; batchSize: number }) => {
    for (const p of model.parameters.values()) p.trains = trains(p.name);
    const ctx = ForwardContext.deterministic(counting, SCHEMES.exact);
    const { loss, logits } = model.forwardWithLoss(ctx, batch);
    ctx.tape.backward(loss, () => {});
    engine.free(loss.tensor, logits.tensor);
    const active = model.layers.map((l) => l.name).filter(trains);
    model.dispose();
    return active;
  };
  const [B, T] = [s.batch, s.tokens];
  const labels = new Int32Array(B);
  const active =
    s.kind === 'text'
      ? await pass(BertForSequenceClassification.fresh(counting, parseBertConfig({ ...fields, model_type: 'bert', vocab_size: 50 })), { inputIds: new Int32Array(B * T).fill(1), tokenTypeIds: new Int32Array(B * T), attentionMask: new Int32Array(B * T).fill(1), labels, batchSize: B, length: T })
      : await pass(ViTForImageClassification.fresh(counting, parseViTConfig({ ...fields, model_type: 'vit', image_size: s.image, patch_size: s.patch })), { pixelValues: new Float32Array(B * 3 * s.image ** 2), labels, batchSize: B, channels: 3, height: s.image, width: s.image });
  assert.equal(engine.memory().tensors, 0, 'tensors left alive');
  engine.dispose();
  return { flops, active };
}

/** FLOPs of the heads, which the formula leaves out. */
const head = ({ kind, batch: B, hidden: H }: Setting, times: number) => times * 2 * B * H * ((kind === 'text' ? H : 0) + 2);

for (const tiny of TINY_SETTINGS) {
  const s: Setting = { ...tiny, batch: 2, tokens: tiny.kind === 'text' ? 7 : 5, hidden: 16, heads: 2, layers: 3, intermediate: 24, image: 8, patch: 4 };
  test(`FLOPs of a training step, ${s.kind}: what an engine counts of its products, whole and with frozen weights`, async () => {
    const whole = await counted(s, () => true);
    assert.equal(fullStepFlops(s), whole.flops - head(s, 3));
    assert.equal(stepFlops(s, whole.active, false), fullStepFlops(s));
    // Biases train, so that gradients flow through everything.
    const some = (name: string) => name.endsWith('.bias') || /layer\.1\.(.*key|intermediate.dense|output.dense)\.weight|projection.weight|layer\.2\.attention\.output\.dense\.weight/.test(name);
    const part = await counted(s, some);
    assert.ok(part.active.length >= 4);
    assert.equal(stepFlops(s, part.active, false), part.flops - head(s, 2));
    // Nothing below the highest layer trains, its biases neither: backward stops in it.
    const upper = await counted(s, (name) => /layer\.2\.(.*query|output\.dense)\.weight/.test(name));
    const said = stepFlops(s, upper.active, true);
    assert.ok(said > forwardFlops(s) && said <= upper.flops - head(s, 2), `${said} is not within ${upper.flops}`);
  });
}

test('the settings are those of the published comparison, and each row of SlimFit has a row to be measured against', () => {
  assert.deepEqual(SETTINGS.map((s) => [s.model, s.batch, s.tokens]), [['bert-base', 32, 128], ['vit-base', 32, 197], ['bert-base', 128, 384], ['vit-base', 128, 197]]);
  for (const setting of [...SETTINGS, ...TINY_SETTINGS]) {
    const names = rowsOf(setting).map(rowName);
    assert.equal(new Set(names).size, names.length);
    for (const row of rowsOf(setting)) {
      if (row.system === 'slimfit') assert.ok(names.includes(counterpart(row)!), counterpart(row));
      assert.ok(names.includes(memoryCounterpart(row)));
    }
  }
  // 6 FLOP for each weight of the encoder and each token, and 12·B·T²·H a layer of attention.
  const [s] = SETTINGS;
  assert.equal(fullStepFlops(s), 6 * 32 * 128 * 12 * (4 * 768 ** 2 + 2 * 768 * 3072) + 12 * 12 * 32 * 128 ** 2 * 768);
});

test('the table divides by the right rows: time by the counterpart, bytes by full fine-tuning, TFLOP/s by the fastest product of that precision', () => {
  const [setting] = SETTINGS;
  const bytes = { weights: 2 ** 20, optimizer: 2 ** 21, gradients: 0, activations: 2 ** 22, workspace: 0 };
  const figures = { device: 'GPU', steps: 3, ms: 20, msMin: 19, msMax: 21, msMean: 20, perSecond: 1000, tflops: 30, bytes, peakBytes: 2 ** 23, poolBytes: 2 ** 24, dispatches: 700, buffersMade: 0, bindGroupsMade: 0, loss: 0.7, frozenSets: 2 };
  const peer = { peer: 'pytorch', device: 'GPU', ms: 50, ms_min: 40, ms_max: 60, weights_bytes: 2 ** 20, optimizer_bytes: 2 ** 21, peak_bytes: 2 ** 26 };
  const rows = rowsOf(setting).map((plan) => (plan.system === 'slimfit' ? (plan.precision === 'float32' ? { ...plan, figures } : { ...plan, why: 'no | units' }) : { ...plan, peerFigures: { ...peer, ms: plan.peer.mode === 'authors' ? 80 : 50 } }));
  const text = markdown({ started: 'now', machine: 'm', tiny: false, peers: 'p', peaks: [{ device: 'GPU', precision: 'float32', tflops: 40, size: 4096 }], peerPeaks: { fp32: 60, tf32: 400, bf16: 800, copy: 1 }, rows, kernels: [], notes: [] }, [setting]);
  const cells = (name: string) => text.split('\n').find((l) => l.startsWith(`| ${name} |`))!.split(' | ');
  assert.equal(cells('SlimFit full float32')[5], '2.50');
  assert.equal(cells('SlimFit paper 0.9 float32')[5], '4.00');
  assert.equal(cells('SlimFit full float32')[4], '50.0 %');
  assert.equal(cells('SlimFit full float32')[13], '0.25');
  assert.match(text, /\| SlimFit full mixed \| not run: no \/ units \|/);
  // Every row has the cells of the head.
  const widths = text.split('\n').filter((l) => l.startsWith('|')).map((l) => l.replaceAll(' ', '').split('|').length);
  assert.equal(new Set(widths).size, 1, `${widths}`);
});

test('golden values by products of float16 operands are within the limits of mixed precision, and a factor of 1.01 is not', { skip: existsSync(GOLDEN) ? false : 'no ../shared/golden' }, async () => {
  const real = await chooseEngine();
  const passes = async (change: (x: DeviceTensor) => DeviceTensor) => {
    const engine = withProducts(real, (_, [a, b], __, run) => real.scope(() => run(change(a), change(b))));
    const lines = [];
    for await (const line of parity(GOLDEN, engine, 'mixed')) lines.push(line);
    return lines;
  };
  // Rounds to 11 bits (Veltkamp): the larger part of x split by 2¹³ + 1.
  const half = (x: DeviceTensor) => {
    const t = real.affine(x, 8193);
    return real.sub(t, real.sub(t, x));
  };
  const right = await passes(half);
  assert.ok(right.length >= 17);
  assert.deepEqual(right.filter((l) => !l.ok), []);
  const wrong = await passes((x) => real.affine(x, 1.01));
  for (const name of ['exact', 'slim_partial', 'linear_active', 'matmul', 'train_skip']) assert.ok(wrong.some((l) => l.case === name && !l.ok), name);
  assert.equal(real.memory().tensors, 0, 'tensors left alive');
  real.dispose();
});

test('what is not finite, not equal or left alive is never within a limit', () => {
  const line = { file: 'bert', case: 'exact', engine: 'webgpu', ok: false, tolerance: 1e-4, logits: 1e-3, savedBytesEqual: true, tensorsLeft: 0 };
  assert.equal(judgedMixed(line).ok, true);
  for (const bad of [{ logits: NaN }, { logits: 0.1 }, { savedBytesEqual: false }, { tensorsLeft: 1 }]) assert.equal(judgedMixed({ ...line, ...bad }).ok, false, JSON.stringify(bad));
});
