/** The comparison of gradients, against gradients read to the host and compared there in float64. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ForwardContext } from '../../src/nn/context';
import { type ActivationScheme, SCHEMES } from '../../src/tape/scheme';
import { GradientComparison, gradientErrors, singleEncodings } from '../../src/training/gradients';
import { SlimFitTrainer } from '../../src/training/trainer';
import { cpuEngine, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

type Rows = { encodings: string; parameter: string; exactNorm: number; norm: number; relativeError: number; cosine: number }[];

test('errors, norms and angles equal those computed on the host from the gradients themselves', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig({ hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1 });
  const model = tinyModel(engine, config);
  const before = engine.memory().tensors;
  const batch = tinyBatch(config, 4, 6);
  const gradients = async (scheme: typeof SCHEMES.paper) => {
    const ctx = ForwardContext.training(engine, scheme, 7, 2);
    const out = model.forwardWithLoss(ctx, batch);
    const shared: [string, ReturnType<typeof engine.share>][] = [];
    ctx.tape.backward(out.loss, (p, g) => void shared.push([p.name, engine.share(g, 'gradients')]));
    engine.free(out.loss.tensor, out.logits.tensor);
    const read = new Map<string, Float32Array>();
    for (const [name, g] of shared) {
      read.set(name, (await engine.read(g)) as Float32Array);
      engine.free(g);
    }
    return read;
  };
  const exact = await gradients({ ...SCHEMES.exact, attentionDropout: 'values' });
  const paper = await gradients(SCHEMES.paper);
  const rows = await gradientErrors(model, batch, (scheme) => ForwardContext.training(engine, scheme, 7, 2), { paper: SCHEMES.paper });
  assert.deepEqual(rows.map((r) => r.parameter).sort(), [...exact.keys()].sort());
  for (const r of rows) {
    const [g, e] = [paper.get(r.parameter)!, exact.get(r.parameter)!];
    const sum = (of: (i: number) => number) => g.reduce((s, _, i) => s + of(i), 0);
    const want = { exactNorm: Math.sqrt(sum((i) => e[i] ** 2)), norm: Math.sqrt(sum((i) => g[i] ** 2)), error: Math.sqrt(sum((i) => (g[i] - e[i]) ** 2)), dot: sum((i) => g[i] * e[i]) };
    if (want.exactNorm < 1e-7) continue; // The key's bias has no gradient but rounding.
    const close = (a: number, b: number, what: string) => assert.ok(Math.abs(a - b) <= 1e-4 * Math.abs(b) + 1e-7, `${r.parameter} ${what}: ${a} is not ${b}`);
    close(r.exactNorm, want.exactNorm, 'norm of the exact gradient');
    close(r.norm, want.norm, 'norm');
    close(r.relativeError, want.error / want.exactNorm, 'error');
    close(r.cosine, want.dot / want.norm / want.exactNorm, 'cosine');
  }
  assert.ok(rows.some((r) => r.relativeError > 1e-3), 'encodings make a difference');
  assert.equal(engine.memory().tensors, before);
  model.dispose();
});

test('each encoding alone differs from the exact scheme in that one alone', () => {
  const differences = (scheme: ActivationScheme) => {
    const exact = { ...SCHEMES.exact, attentionDropout: scheme.attentionDropout };
    return Object.fromEntries(Object.entries(singleEncodings(scheme)).map(([name, s]) => [name, Object.keys(s).filter((k) => s[k as keyof typeof s] !== exact[k as keyof typeof exact])]));
  };
  assert.deepEqual(differences(SCHEMES.paper), {
    'query, key, value': ['attentionOperands'],
    'attention probabilities': ['attentionProbs'],
    'GELU input': ['geluInput'],
    'MLP down input': ['downProjectionInput'],
    'pruned LayerNorm': ['frozenLayerNormShare', 'layerNormBackwardEps'],
  });
  assert.deepEqual(differences(SCHEMES.tuned), {
    'query, key, value': ['attentionOperands'],
    'attention probabilities': ['attentionProbs'],
    // What is computed again is as near as what it is computed from.
    'MLP input': ['geluInput', 'linearInput'],
    'linear inputs': ['linearInput'],
    'normalised values': ['normalizedValues'],
  });
});

test('mode tuned keeps less than paper, and its gradient is at least five times as near the exact one', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig({ hidden_size: 16, intermediate_size: 64 });
  const model = tinyModel(engine, config);
  const batch = tinyBatch(config, 4, 6);
  for (const p of model.parameters.values()) p.trains = !model.layers.some((l) => l.name === p.name) || /1\.(attention\.self\.query|output\.dense)/.test(p.name);
  const kept = (scheme: ActivationScheme) => {
    const ctx = ForwardContext.deterministic(engine, scheme);
    const out = model.forwardWithLoss(ctx, batch);
    const { totalBytes } = ctx.tape.ledger;
    ctx.tape.dispose();
    engine.free(out.loss.tensor, out.logits.tensor);
    return totalBytes;
  };
  assert.ok(kept(SCHEMES.tuned) < kept(SCHEMES.paper), `${kept(SCHEMES.tuned)}, ${kept(SCHEMES.paper)}`);
  const { paper, tuned } = SCHEMES;
  const errors = await gradientErrors(model, batch, (scheme) => ForwardContext.deterministic(engine, scheme), { paper, tuned });
  const error = new Map((new GradientComparison(0, errors).overall().objects() as Rows).map((r) => [r.encodings, r.relativeError]));
  assert.ok(error.get('tuned')! < error.get('paper')! / 5 && error.get('tuned')! > 0, JSON.stringify([...error]));
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('of 8-bit attention the gradient is nearer the exact one with a step for each row than in fixed point, whether probabilities are kept or computed again; in float32 computing them again changes nothing', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig({ attention_probs_dropout_prob: 0.1 });
  const model = tinyModel(engine, config);
  const of = (attentionOperands: ActivationScheme['attentionOperands'], attentionProbs: ActivationScheme['attentionProbs']): ActivationScheme => ({ ...SCHEMES.exact, attentionOperands, attentionProbs });
  const schemes = { fixed: of('q3.4', 'q0.8'), 'fixed, recomputed': of('q3.4', 'recompute'), rows: of('q8-row', 'u8-row'), 'rows, recomputed': of('q8-row', 'recompute'), recomputed: of('float32', 'recompute') };
  const errors = await gradientErrors(model, tinyBatch(config, 4, 6), (scheme) => ForwardContext.training(engine, scheme, 7, 2), schemes);
  const error = new Map((new GradientComparison(0, errors).overall().objects() as Rows).map((r) => [r.encodings, r.relativeError]));
  assert.ok(error.get('recomputed')! < 1e-6, JSON.stringify([...error]));
  assert.ok(error.get('rows')! < error.get('fixed')! / 2 && error.get('rows, recomputed')! < error.get('fixed, recomputed')! / 2, JSON.stringify([...error]));
  assert.ok([...error.values()].every((e) => e < 0.1), JSON.stringify([...error]));
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('a trainer compares the gradient of its next step, of the layers that train in it, and is as before', async () => {
  const engine = await cpuEngine();
  const config = tinyConfig({ hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1 });
  const model = tinyModel(engine, config);
  const train = { size: 4, batch: () => tinyBatch(config, 4, 6) };
  const settings = { model, train, batchSize: 4, totalSteps: 10, freezeRate: 0.75, learningRate: 1e-3 };
  const trainer = new SlimFitTrainer(settings);
  for (let i = 0; i < 2; i++) await trainer.step();
  const weights = JSON.stringify([...(await model.weights()).values()].map((w) => [...w.data]));
  const tensors = engine.memory().tensors;
  const preview = trainer.peek();

  const { step, errors } = await trainer.compareGradients();
  assert.equal(step, 2);
  const isLayer = new Set(trainer.freezableLayers.map((l) => l.name));
  assert.deepEqual(errors.map((e) => e.parameter).filter((p) => isLayer.has(p)).sort(), preview.active.map((l) => l.name).sort());
  assert.equal(engine.memory().tensors, tensors);
  assert.equal(JSON.stringify([...(await model.weights()).values()].map((w) => [...w.data])), weights);
  assert.deepEqual(trainer.peek(), preview);

  const all = await trainer.compareGradients({ trains: 'all', encodings: 'each' });
  const overall = all.overall().objects() as Rows;
  assert.deepEqual(overall.map((r) => r.encodings), ['all encodings', 'query, key, value', 'attention probabilities', 'GELU input', 'MLP down input', 'pruned LayerNorm']);
  assert.equal(all.table().numRows(), 6 * model.parameters.size);
  const [together, ...single] = overall;
  assert.ok(single.slice(0, 4).every((r) => r.relativeError > 0 && r.cosine > 0.5), JSON.stringify(overall));
  assert.ok(single[4].relativeError < 1e-6, 'no LayerNorm is frozen, so none is pruned');
  assert.ok(together.relativeError < single.reduce((s, r) => s + r.relativeError, 0) * 1.5);
  const exactTrainer = new SlimFitTrainer({ ...settings, mode: 'exact' });
  const none = (await exactTrainer.compareGradients()).overall().objects() as Rows;
  assert.ok(none[0].relativeError === 0 && Math.abs(none[0].cosine - 1) < 1e-6);
  for (const t of [trainer, exactTrainer]) t.dispose();
  model.dispose();
});
