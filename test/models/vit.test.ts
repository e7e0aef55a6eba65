import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { chooseEngine } from '../../src/engine/choose';
import type { Engine } from '../../src/engine/engine';
import { CheckpointKeysError, InvalidArgumentError, LabelError, ShapeError, UnsupportedModelError } from '../../src/errors';
import { readSafetensors, writeSafetensors } from '../../src/hub/safetensors';
import { parseViTConfig, type ViTConfig, vitTokens } from '../../src/hub/vitConfig';
import { vitActivationBytes } from '../../src/memory/vitActivationBytes';
import { type ImageBatch, initialWeights } from '../../src/models/model';
import { AutoModelForImageClassification } from '../../src/models/auto';
import { imageClassificationSpecs, ViTForImageClassification } from '../../src/models/vit';
import { ForwardContext } from '../../src/nn/context';
import { cutPatches } from '../../src/nn/patchEmbedding';
import { Random } from '../../src/random';
import { SCHEMES } from '../../src/tape/scheme';
import { SlimFitTrainer } from '../../src/training/trainer';
import { cpuEngine, gradientsOf } from './fixtures';
import { referenceViT } from './referenceViT';

const configOf = (changes: Record<string, unknown> = {}): ViTConfig =>
  parseViTConfig({ model_type: 'vit', image_size: 8, patch_size: 4, hidden_size: 12, num_hidden_layers: 2, num_attention_heads: 3, intermediate_size: 20, layer_norm_eps: 1e-6, num_labels: 3, ...changes });

function weightsOf(config: ViTConfig): Map<string, { shape: readonly number[]; data: Float32Array }> {
  const weights = initialWeights(imageClassificationSpecs(config), 0.3, 1);
  const random = new Random(7);
  for (const { data } of weights.values()) data.forEach((v, i) => (data[i] = v + 0.05 * random.normal()));
  return weights;
}

function batchOf(c: ViTConfig, batchSize: number, seed = 1): ImageBatch {
  const random = new Random(seed);
  const { numChannels: channels, imageSize } = c;
  return {
    pixelValues: Float32Array.from({ length: batchSize * channels * imageSize ** 2 }, () => random.normal()),
    labels: c.numLabels === 1 ? Float32Array.from({ length: batchSize }, () => random.normal()) : Int32Array.from({ length: batchSize }, () => random.int(c.numLabels)),
    batchSize,
    channels,
    height: imageSize,
    width: imageSize,
  };
}

const referenceOf = (c: ViTConfig) => ({
  base: c.modelType,
  H: c.hiddenSize,
  L: c.numHiddenLayers,
  A: c.numAttentionHeads,
  P: c.patchSize,
  eps: c.layerNormEps,
  tokens: ['cls_token', ...(c.modelType === 'deit' ? ['distillation_token'] : [])],
});

async function run(model: ViTForImageClassification, batch: ImageBatch): Promise<{ logits: Float32Array; loss: number }> {
  const { engine } = model;
  const ctx = ForwardContext.evaluation(engine);
  const out = model.forwardWithLoss(ctx, batch);
  const logits = (await engine.read(out.logits.tensor)) as Float32Array;
  const loss = (await engine.read(out.loss.tensor))[0];
  engine.free(out.logits.tensor, out.loss.tensor);
  ctx.tape.dispose();
  return { logits, loss };
}

test('the logits and the loss of ViT and DeiT equal a float64 reference that convolves, for any patch size and number of channels', async () => {
  const engine = await cpuEngine();
  for (const changes of [{}, { patch_size: 2, num_channels: 1 }, { patch_size: 8 }, { model_type: 'deit' }, { num_labels: 5, layer_norm_eps: 1e-12 }]) {
    const config = configOf(changes);
    const model = new ViTForImageClassification(engine, config, weightsOf(config));
    const batch = batchOf(config, 3);
    const { logits, loss } = await run(model, batch);
    const want = referenceViT(weightsOf(config), referenceOf(config), batch);
    want.logits.flat().forEach((z, i) => assert.ok(Math.abs(z - logits[i]) < 1e-4, `${JSON.stringify(changes)}: logit ${i} is ${logits[i]}, not ${z}`));
    assert.ok(Math.abs(loss - want.loss) < 1e-5);
    model.dispose();
  }
  assert.equal(engine.memory().tensors, 0);
});

test('exact gradients equal finite differences of the float64 reference, for every parameter', async () => {
  const engine = await cpuEngine();
  for (const modelType of ['vit', 'deit']) {
    const config = configOf({ model_type: modelType });
    const model = new ViTForImageClassification(engine, config, weightsOf(config));
    const batch = batchOf(config, 2);
    const { grads } = await gradientsOf(model, ForwardContext.deterministic(engine, SCHEMES.exact), batch);
    assert.deepEqual([...grads.keys()].sort(), [...model.parameters.keys()].sort());
    const weights = new Map([...weightsOf(config)].map(([n, w]) => [n, { shape: w.shape, data: Float64Array.from(w.data) }]));
    const h = 1e-5;
    for (const [name, grad] of grads) {
      assert.equal(grad.length, weights.get(name)!.data.length, name);
      const largest = grad.reduce((best, g, i) => (Math.abs(g) > Math.abs(grad[best]) ? i : best), 0);
      for (const i of [largest, grad.length >> 1]) {
        const { data } = weights.get(name)!;
        const keep = data[i];
        const lossAt = (v: number) => {
          data[i] = v;
          return referenceViT(weights, referenceOf(config), batch).loss;
        };
        const want = (lossAt(keep + h) - lossAt(keep - h)) / (2 * h);
        data[i] = keep;
        assert.ok(Math.abs(grad[i] - want) < 1e-5 + 1e-3 * Math.abs(want), `${name}[${i}]: ${grad[i]} is not ${want}`);
      }
    }
    model.dispose();
  }
  assert.equal(engine.memory().tensors, 0);
});

test('ViT-Base has the paper’s 100 freezable layers, DeiT one more, and the final LayerNorm is none of them', () => {
  const layersOf = (json: object) => imageClassificationSpecs(parseViTConfig({ model_type: 'vit', ...json })).filter((s) => s.kind !== 'bias' && !s.alwaysTrains);
  assert.equal(layersOf({}).length, 100);
  assert.equal(layersOf({ model_type: 'deit' }).length, 101);
  assert.deepEqual(
    layersOf({ num_hidden_layers: 1 }).map((s) => s.name),
    [
      'vit.embeddings.cls_token',
      'vit.embeddings.position_embeddings',
      'vit.embeddings.patch_embeddings.projection.weight',
      ...['attention.attention.query', 'attention.attention.key', 'attention.attention.value', 'attention.output.dense', 'intermediate.dense', 'output.dense', 'layernorm_before', 'layernorm_after'].map((n) => `vit.encoder.layer.0.${n}.weight`),
      'classifier.weight',
    ],
  );
  assert.equal(vitTokens(parseViTConfig({ model_type: 'vit' })), 197);
  assert.equal(vitTokens(parseViTConfig({ model_type: 'vit', image_size: 384 })), 577);
});

test('what a ViT keeps equals the formula and the engine’s own count, for any frozen set, and nothing of it is left after backward', async () => {
  const engine = await cpuEngine();
  for (const modelType of ['vit', 'deit']) {
    const config = configOf({ model_type: modelType, intermediate_size: 23 });
    const model = new ViTForImageClassification(engine, config, weightsOf(config));
    const idle = engine.memory().tensors;
    const names = model.layers.map((l) => l.name);
    const sets: [string, (n: string) => boolean][] = [
      ['none frozen', () => false],
      ['all frozen', () => true],
      ['every second', (n) => names.indexOf(n) % 2 === 0],
      ['all but a key', (n) => !n.endsWith('layer.1.attention.attention.key.weight')],
      ['all but the patch projection', (n) => !n.includes('projection')],
      ['only MLP outputs and the classifier train', (n) => !/layer\.\d+\.output\.dense|classifier/.test(n)],
    ];
    for (const mode of ['exact', 'paper'] as const)
      for (const B of [1, 3])
        for (const [what, frozen] of sets) {
          for (const p of model.parameters.values()) p.trains = !(names.includes(p.name) && frozen(p.name));
          const ctx = ForwardContext.deterministic(engine, SCHEMES[mode]);
          const out = model.forwardWithLoss(ctx, batchOf(config, B));
          const want = vitActivationBytes({ config, batchSize: B, mode, trains: (n) => !frozen(n) });
          assert.equal(ctx.tape.ledger.totalBytes, want.total, `${mode}, ${what}`);
          assert.equal(engine.memory().live.activations, want.total, `${mode}, ${what}`);
          assert.deepEqual(model.predictActivations(batchOf(config, B), { mode, dropout: true, trains: (n) => !frozen(n) }).total, want.total);
          ctx.tape.backward(out.loss, () => {});
          engine.free(out.loss.tensor, out.logits.tensor);
          assert.equal(engine.memory().tensors, idle, `${mode}, ${what}: tensors left`);
        }
    model.dispose();
  }
});

test('ViT-Base of 32 images of 224 pixels keeps the bytes that were measured in PyTorch, less what the head does not need', () => {
  const config = parseViTConfig({ model_type: 'vit', num_labels: 10 });
  const of = (mode: 'exact' | 'paper', trains: boolean) => vitActivationBytes({ config, batchSize: 32, mode, trains: () => trains });
  const N = 32 * 197;
  // 4·12·NH·… worked out: 32NH + 8NF + 4BAT² + 16N a layer.
  assert.deepEqual(of('exact', true).encoderLayers[0], 32 * N * 768 + 8 * N * 3072 + 4 * 32 * 12 * 197 ** 2 + 16 * N);
  // 4284.7 MiB in PyTorch, of which final LayerNorm and classifier keep 8NH + 8N; here 8BH + 8B.
  const headless = 4284.7 - (8 * N * 768 + 8 * N - 8 * 32 * 768 - 8 * 32) / 2 ** 20;
  assert.ok(Math.abs(of('exact', true).total / 2 ** 20 - headless) < 0.1);
  // 573.7 MiB when nothing trains, of which pixels 12·B·I² and the final LayerNorm 4NH.
  const least = 573.7 - (12 * 32 * 224 ** 2 + 4 * N * 768 - 4 * 32 * 768) / 2 ** 20;
  assert.ok(Math.abs(of('paper', false).total / 2 ** 20 - least) < 0.1);
});

test('patches hold the pixels of the projection’s weight in its order', () => {
  const image = Float32Array.from({ length: 2 * 4 * 6 }, (_, i) => i);
  const patches = cutPatches(image, [1, 2, 4, 6], 2);
  assert.deepEqual([...patches.subarray(0, 8)], [0, 1, 6, 7, 24, 25, 30, 31]);
  assert.deepEqual([...patches.subarray(8, 12)], [2, 3, 8, 9]);
  assert.deepEqual([...patches.subarray(3 * 8, 3 * 8 + 4)], [12, 13, 18, 19]);
  assert.throws(() => cutPatches(image, [1, 2, 4, 6], 4), ShapeError);
});

async function refused(engine: Engine, model: ViTForImageClassification, batch: ImageBatch, error: new (...a: never[]) => Error): Promise<void> {
  const ctx = ForwardContext.deterministic(engine, SCHEMES.paper);
  const before = engine.memory().tensors;
  assert.throws(() => model.forwardWithLoss(ctx, batch), error);
  assert.equal(engine.memory().tensors, before);
}

test('images of another size and labels outside the classes are refused before anything is computed', async () => {
  const engine = await cpuEngine();
  const config = configOf();
  const model = new ViTForImageClassification(engine, config, weightsOf(config));
  const good = batchOf(config, 2);
  await refused(engine, model, { ...good, labels: Int32Array.of(0, 3) }, LabelError);
  await refused(engine, model, { ...good, labels: Int32Array.of(0) }, LabelError);
  await refused(engine, model, batchOf(configOf({ image_size: 16 }), 2), ShapeError);
  await refused(engine, model, batchOf(configOf({ num_channels: 1 }), 2), ShapeError);
  await refused(engine, model, { ...good, pixelValues: good.pixelValues.subarray(1) }, ShapeError);
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('configs that would compute something else are refused, naming the field', () => {
  for (const [changes, says] of [
    [{ model_type: 'swin' }, /"swin"; supported: vit, deit/],
    [{ hidden_act: 'gelu_new' }, /hidden_act/],
    [{ qkv_bias: false }, /qkv_bias/],
    [{ image_size: 10 }, /image_size 10, which patches of 4/],
    [{ image_size: [8, 16] }, /image_size \[8,16\]; only squares/],
    [{ num_attention_heads: 5 }, /5 attention heads/],
    [{ hidden_size: -1 }, /hidden_size -1/],
    [{ id2label: { 1: 'a' } }, /id2label/],
  ] as const)
    assert.throws(() => configOf(changes), (e: Error) => e instanceof UnsupportedModelError && says.test(e.message), JSON.stringify(changes));
  assert.equal(configOf({ image_size: [8, 8] }).imageSize, 8);
});

test('a folder that was saved loads with equal logits; another number of labels draws the head afresh and says so; another image size interpolates the positions', async () => {
  const engine = await cpuEngine();
  const folder = mkdtempSync(path.join(tmpdir(), 'vit-'));
  for (const modelType of ['vit', 'deit']) {
    const config = configOf({ model_type: modelType });
    const model = new ViTForImageClassification(engine, config, weightsOf(config));
    await model.savePretrained(folder);
    const again = await AutoModelForImageClassification.fromPretrained(folder, { engine, onNotice: (t) => assert.fail(t) });
    assert.deepEqual(again.config, config);
    assert.deepEqual(await run(again, batchOf(config, 2)), await run(model, batchOf(config, 2)));
    again.dispose();

    const notices: string[] = [];
    const five = await ViTForImageClassification.fromPretrained(folder, { engine, numLabels: 5, onNotice: (t) => notices.push(t) });
    assert.match(notices.join(), /drawn afresh.*classifier\.weight, classifier\.bias/);
    assert.equal(five.config.numLabels, 5);
    assert.equal((await run(five, batchOf(five.config, 2))).logits.length, 10);
    five.dispose();

    notices.length = 0;
    const larger = await ViTForImageClassification.fromPretrained(folder, { engine, imageSize: 16, onNotice: (t) => notices.push(t) });
    assert.match(notices.join(), /interpolated from 8 to 16 pixels/);
    assert.deepEqual(larger.parameters.get(`${modelType}.embeddings.position_embeddings`)!.shape, [1, vitTokens({ ...config, imageSize: 16 }), 12]);
    assert.equal((await run(larger, batchOf(larger.config, 2))).logits.length, 6);
    larger.dispose();
    await assert.rejects(ViTForImageClassification.fromPretrained(folder, { engine, imageSize: 10 }), InvalidArgumentError);
    model.dispose();
  }
  // A table of another size without another image size is an error, as is a missing weight.
  const tensors = await readSafetensors(path.join(folder, 'model.safetensors'));
  const spoilt = new Map([...tensors].map(([n, t]) => [n, { shape: t.shape, data: Float32Array.from(t.data) }]));
  spoilt.set('deit.embeddings.position_embeddings', { shape: [1, 3, 12], data: new Float32Array(36) });
  writeSafetensors(path.join(folder, 'model.safetensors'), spoilt);
  await assert.rejects(ViTForImageClassification.fromPretrained(folder, { engine }), ShapeError);
  spoilt.delete('deit.embeddings.position_embeddings');
  writeSafetensors(path.join(folder, 'model.safetensors'), spoilt);
  await assert.rejects(ViTForImageClassification.fromPretrained(folder, { engine }), CheckpointKeysError);
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify({ model_type: 'bert' }));
  await assert.rejects(AutoModelForImageClassification.fromPretrained(folder, { engine }), (e: Error) => e instanceof UnsupportedModelError && /"bert"; supported: vit, deit/.test(e.message));
  rmSync(folder, { recursive: true });
  assert.equal(engine.memory().tensors, 0);
});

test('the heads of a pre-trained checkpoint that is no classifier are ignored, and named', async () => {
  const engine = await cpuEngine();
  const folder = mkdtempSync(path.join(tmpdir(), 'vit-'));
  const config = configOf({ model_type: 'deit' });
  const weights = weightsOf(config);
  // As DeiTForImageClassificationWithTeacher names them; the bare encoder of ViTModel has a pooler.
  for (const n of ['cls_classifier', 'distillation_classifier']) {
    weights.set(`${n}.weight`, weights.get('classifier.weight')!);
    weights.set(`${n}.bias`, weights.get('classifier.bias')!);
  }
  weights.delete('classifier.weight');
  weights.delete('classifier.bias');
  writeSafetensors(path.join(folder, 'model.safetensors'), weights);
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify({ model_type: 'deit', image_size: 8, patch_size: 4, hidden_size: 12, num_hidden_layers: 2, num_attention_heads: 3, intermediate_size: 20 }));
  const notices: string[] = [];
  const model = await ViTForImageClassification.fromPretrained(folder, { engine, numLabels: 3, onNotice: (t) => notices.push(t) });
  assert.match(notices.join('\n'), /afresh.*classifier\.weight/);
  assert.match(notices.join('\n'), /not used.*cls_classifier\.weight.*distillation_classifier/);
  model.dispose();
  rmSync(folder, { recursive: true });
  assert.equal(engine.memory().tensors, 0);
});

test('training lowers the loss of a ViT, step by step, in both modes and with dropout, and leaves nothing', async () => {
  const engine = await cpuEngine();
  for (const mode of ['paper', 'exact'] as const) {
    const config = configOf({ hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1, num_labels: 2 });
    const model = ViTForImageClassification.fresh(engine, config, 5);
    const idle = engine.memory().tensors;
    // The class is the sign of the mean: images shifted up or down.
    const batch = (indices: ArrayLike<number>): ImageBatch => {
      const b = batchOf(config, indices.length, 3);
      const labels = Int32Array.from({ length: indices.length }, (_, i) => indices[i] % 2);
      return { ...b, labels, pixelValues: b.pixelValues.map((v, i) => v + (labels[Math.floor(i / 192)] ? 1 : -1)) };
    };
    const trainer = new SlimFitTrainer({ model, train: { size: 32, batch: async (i) => batch(i) }, batchSize: 8, totalSteps: 40, learningRate: 3e-3, freezeRate: mode === 'paper' ? 0.5 : 0, mode });
    const losses: number[] = [];
    for await (const r of trainer.steps(40)) {
      losses.push(r.loss);
      assert.equal(r.examples, 8);
      assert.equal(r.tokens, 8 * 5);
      assert.equal(r.frozen.length, mode === 'paper' ? 10 : 0);
      assert.ok(r.activationBytes > 0 && r.activationBytes <= r.fullActivations!.total);
    }
    assert.ok(losses.slice(-5).every((l) => l < 0.35), `${mode}: ${losses.slice(-5)}`);
    trainer.dispose();
    assert.equal(engine.memory().tensors, idle);
    model.dispose();
  }
});

// ---- real checkpoints, where they are
const CHECKPOINTS = path.resolve(__dirname, '../../../shared/data/checkpoints');
const CIFAR = path.resolve(__dirname, '../../../shared/data/cifar10/test.bin');

for (const name of ['vit-cifar10-128x4', 'vit-cifar10-64x4'])
  test(`${name}, really trained: logits and accuracy over CIFAR-10 as recorded`, { skip: existsSync(CIFAR) ? false : 'no shared data' }, async () => {
    const folder = path.join(CHECKPOINTS, name);
    const { logits: want, labels, accuracy, loss } = JSON.parse(readFileSync(path.join(folder, 'reference_logits.json'), 'utf8')) as { logits: number[][]; labels: number[]; accuracy: number; loss: number };
    const { image_mean: mean, image_std: std } = JSON.parse(readFileSync(path.join(folder, 'preprocessor_config.json'), 'utf8')) as { image_mean: number[]; image_std: number[] };
    const bytes = readFileSync(CIFAR);
    const images = (from: number, count: number): ImageBatch => {
      const pixelValues = new Float32Array(count * 3072);
      const classes = new Int32Array(count);
      for (let i = 0; i < count; i++) {
        classes[i] = bytes[(from + i) * 3073];
        for (let p = 0; p < 3072; p++) pixelValues[i * 3072 + p] = (bytes[(from + i) * 3073 + 1 + p] / 255 - mean[p >> 10]) / std[p >> 10];
      }
      return { pixelValues, labels: classes, batchSize: count, channels: 3, height: 32, width: 32 };
    };
    const engine = await chooseEngine();
    const model = await ViTForImageClassification.fromPretrained(folder, { engine, onNotice: (t) => assert.fail(t) });
    assert.deepEqual([...images(0, 8).labels], labels);
    const first = await run(model, images(0, 8));
    want.flat().forEach((z, i) => assert.ok(Math.abs(z - first.logits[i]) < 1e-4, `logit ${i} is ${first.logits[i]}, not ${z}`));
    let hits = 0;
    let sum = 0;
    for (let at = 0; at < 2000; at += 200) {
      const batch = images(at, 200);
      const got = await run(model, batch);
      sum += got.loss / 10;
      batch.labels.forEach((l, i) => {
        const row = got.logits.subarray(i * 10, i * 10 + 10);
        if (row.indexOf(Math.max(...row)) === l) hits++;
      });
    }
    assert.ok(Math.abs(hits / 2000 - accuracy) < 1e-9, `accuracy ${hits / 2000}, recorded ${accuracy}`);
    assert.ok(Math.abs(sum - loss) < 1e-4, `loss ${sum}, recorded ${loss}`);
    model.dispose();
    engine.dispose();
  });
