/** Encoder layers that are run again in backward, against the same model that keeps everything. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDistilBertConfig } from '../../src/hub/config';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { DistilBertForSequenceClassification } from '../../src/models/distilbert';
import { type ImageBatch, type LabelledBatch, type Model, weightOfBias } from '../../src/models/model';
import { ViTForImageClassification } from '../../src/models/vit';
import { ForwardContext, type ForwardOptions } from '../../src/nn/context';
import { Random } from '../../src/random';
import { SCHEMES } from '../../src/tape/scheme';
import { cpuEngine, gradientsOf, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

const engine = cpuEngine();
const bert = tinyConfig({ num_hidden_layers: 3, hidden_dropout_prob: 0.2, attention_probs_dropout_prob: 0.2 });
const random = new Random(2);
const images: ImageBatch = { pixelValues: Float32Array.from({ length: 3 * 3 * 64 }, () => random.normal()), labels: Int32Array.of(0, 2, 1), batchSize: 3, channels: 3, height: 8, width: 8 };
const distil = parseDistilBertConfig({ model_type: 'distilbert', vocab_size: 31, num_labels: 3, dim: 8, hidden_dim: 13, n_heads: 2, n_layers: 2, max_position_embeddings: 12, initializer_range: 0.3 });
const vit = parseViTConfig({ model_type: 'vit', image_size: 8, patch_size: 4, hidden_size: 12, num_hidden_layers: 3, num_attention_heads: 3, intermediate_size: 21, num_labels: 3, initializer_range: 0.3, hidden_dropout_prob: 0.2, attention_probs_dropout_prob: 0.2 });
const MODELS: Readonly<Record<string, () => Promise<{ model: Model<never>; batch: LabelledBatch }>>> = {
  BERT: async () => ({ model: tinyModel(await engine, bert) as never, batch: tinyBatch(bert, 3, 6) }),
  DistilBERT: async () => ({ model: DistilBertForSequenceClassification.fresh(await engine, distil) as never, batch: tinyBatch(bert, 3, 6) }),
  ViT: async () => ({ model: ViTForImageClassification.fresh(await engine, vit) as never, batch: images }),
};

/** Marks what trains: layers by index, every bias or those of what trains. */
function train(model: Model<never>, trained: (index: number) => boolean, frozenBiases: boolean): void {
  const names = model.layers.map((l) => l.name);
  for (const p of model.parameters.values()) {
    const at = names.indexOf(frozenBiases ? weightOfBias(p.name) : p.name);
    p.trains = at < 0 || trained(at);
  }
}

for (const [name, make] of Object.entries(MODELS))
  test(`${name}: layers that are run again give the loss and the gradients of layers that are kept, to the bit, under every scheme and any frozen set, with dropout and without`, async () => {
    const e = await engine;
    const { model, batch } = await make();
    const idle = e.memory().tensors;
    const n = model.layers.length;
    const draw = new Random(4);
    const some = Array.from({ length: n }, () => draw.uniform() < 0.3);
    for (const scheme of [SCHEMES.exact, SCHEMES.paper, SCHEMES.tuned, { ...SCHEMES.tuned, name: 'tuned, LayerNorms whole', normalizedValues: undefined }])
      for (const [trained, frozenBiases] of [[() => true, false], [(i: number) => some[i], false], [(i: number) => i >= 0.6 * n, true], [(i: number) => i === n - 1, true]] as const)
        for (const dropout of [true, false]) {
          train(model, trained, frozenBiases);
          const context = (o: ForwardOptions) => (dropout ? ForwardContext.training(e, scheme, 7, 3, o) : ForwardContext.deterministic(e, scheme, o));
          const want = await gradientsOf(model, context({}), batch as never);
          const got = await gradientsOf(model, context({ gradientCheckpointing: true }), batch as never);
          assert.ok(want.grads.size > 0);
          const what = `${scheme.name}, biases ${frozenBiases ? 'frozen' : 'train'}, dropout ${dropout}`;
          // Codes of the layer's input stand for those of the LayerNorm before, where a projection trains that reads it.
          const other = (n: string) => scheme === SCHEMES.tuned && name !== 'ViT' && /(query|key|value|q_lin|k_lin|v_lin)\.weight$/.test(n);
          const exactly = ({ grads, ...rest }: typeof want) => ({ ...rest, grads: new Map([...grads].filter(([n]) => !other(n))) });
          assert.deepEqual(exactly(got), exactly(want), what);
          const norm = (v: readonly Float32Array[]) => Math.hypot(...v.map((x) => Math.hypot(...x)));
          const off = [...got.grads].map(([n, g]) => g.map((x, i) => x - want.grads.get(n)![i]));
          assert.ok(norm(off) <= 0.01 * norm([...want.grads.values()]), what);
          assert.equal(e.memory().tensors, idle);
        }
    model.dispose();
  });

test('the course of a step shows what is alive while a layer is run again: its largest count is the engine’s peak, and the end is 0', async () => {
  const e = await engine;
  const model = tinyModel(e, bert);
  for (const mode of ['exact', 'paper', 'tuned'] as const) {
    const peaks = [false, true].map((gradientCheckpointing) => {
      e.resetPeak();
      const ctx = ForwardContext.training(e, SCHEMES[mode], 7, 3, { gradientCheckpointing });
      const out = model.forwardWithLoss(ctx, tinyBatch(bert, 3, 6));
      const { totalBytes, liveBytes } = ctx.tape.ledger;
      assert.equal(e.memory().live.activations, totalBytes);
      assert.equal(liveBytes, totalBytes);
      ctx.tape.backward(out.loss, () => {});
      e.free(out.loss.tensor, out.logits.tensor);
      const { course } = ctx.tape;
      const turn = course.findIndex((p) => p.phase !== 'forward');
      assert.equal(course[turn - 1].activationBytes, totalBytes);
      assert.equal(Math.max(...course.map((p) => p.activationBytes)), e.memory().peak.activations);
      assert.equal(course.at(-1)!.activationBytes, 0);
      assert.deepEqual([...new Set(course.map((p) => p.phase))], gradientCheckpointing ? ['forward', 'backward', 'recompute'] : ['forward', 'backward']);
      if (gradientCheckpointing) {
        const again = course.filter((p) => p.phase === 'recompute').map((p) => /layer\.(\d)/.exec(p.layer)![1]);
        assert.deepEqual([...new Set(again)], ['2', '1', '0']);
        // Of each layer 4NH.
        assert.equal(ctx.tape.ledger.entries.filter((x) => x.what === 'layer input').reduce((s, x) => s + x.bytes, 0), 3 * 4 * 18 * 16);
      } else assert.ok(e.memory().peak.activations === totalBytes);
      return e.memory().peak.activations;
    });
    assert.ok(peaks[1] < peaks[0], `${mode}: ${peaks}`);
  }
  model.dispose();
});

test('a layer that fails while it is run again leaves nothing on the device', async () => {
  const e = await engine;
  const model = tinyModel(e, bert);
  const idle = e.memory().tensors;
  const ctx = ForwardContext.training(e, SCHEMES.paper, 7, 3, { gradientCheckpointing: true });
  const out = model.forwardWithLoss(ctx, tinyBatch(bert, 3, 6));
  e.free(out.loss.tensor, out.logits.tensor);
  let gradients = 0;
  const gelu = e.gelu.bind(e);
  let geluCalls = 0;
  e.gelu = (x) => {
    if (++geluCalls === 2) throw new Error('out of memory');
    return gelu(x);
  };
  try {
    assert.throws(() => ctx.tape.backward(out.loss, () => void gradients++), /out of memory/);
  } finally {
    e.gelu = gelu;
  }
  assert.ok(gradients > 0);
  assert.equal(e.memory().tensors, idle);
  assert.equal(ctx.tape.ledger.liveBytes, 0);
  model.dispose();
});

test('an evaluation, and a pass in which nothing trains, keep nothing and run nothing again', async () => {
  const e = await engine;
  const model = tinyModel(e, bert);
  for (const p of model.parameters.values()) p.trains = false;
  for (const ctx of [ForwardContext.evaluation(e), ForwardContext.training(e, SCHEMES.exact, 7, 3, { gradientCheckpointing: true })]) {
    const out = model.forwardWithLoss(ctx, tinyBatch(bert, 3, 6));
    assert.equal(e.memory().live.activations, 0);
    ctx.tape.backward(out.loss, () => assert.fail());
    e.free(out.loss.tensor, out.logits.tensor);
    assert.deepEqual(ctx.tape.course, []);
  }
  model.dispose();
  assert.equal(e.memory().tensors, 0);
});

test('what encodings do to the values is measured in layers that are run again as in layers that are kept', async () => {
  const e = await engine;
  const model = tinyModel(e, bert);
  const errors = async (gradientCheckpointing: boolean) => {
    const ctx = ForwardContext.training(e, SCHEMES.paper, 7, 3, { measuring: true, gradientCheckpointing });
    const out = model.forwardWithLoss(ctx, tinyBatch(bert, 3, 6));
    e.free(out.loss.tensor, out.logits.tensor);
    const all = await ctx.tape.readEncodingErrors();
    ctx.tape.dispose();
    return all;
  };
  const want = await errors(false);
  assert.ok(want.length > 10);
  assert.deepEqual(await errors(true), want);
  model.dispose();
  assert.equal(e.memory().tensors, 0);
});
