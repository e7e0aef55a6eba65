/** Whole passes and steps on WebGPU: with attention in one operation they are those with its probabilities in memory, and the planner knows what they leave. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { createWebgpuEngine } from '../../../src/engine/webgpu/createWebgpuEngine';
import { openDevice } from '../../../src/engine/webgpu/dawn';
import { WebgpuEngine } from '../../../src/engine/webgpu/webgpuEngine';
import { parseViTConfig } from '../../../src/hub/vitConfig';
import { type MemoryQuery, planMemory } from '../../../src/memory/planner';
import type { ImageBatch, LabelledBatch, Model } from '../../../src/models/model';
import { ViTForImageClassification } from '../../../src/models/vit';
import { ForwardContext } from '../../../src/nn/context';
import { Random } from '../../../src/random';
import { type ActivationScheme, SCHEMES } from '../../../src/tape/scheme';
import { SlimFitTrainer } from '../../../src/training/trainer';
import { tinyBatch, tinyConfig, tinyModel } from '../../models/fixtures';

let engine: WebgpuEngine;
after(() => engine?.dispose());
const ready = async () => (engine ??= await createWebgpuEngine());

const config = tinyConfig({ hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.3, max_position_embeddings: 70 });
const RECOMPUTED: readonly ActivationScheme[] = [SCHEMES.tuned, { ...SCHEMES.exact, name: 'exact, recomputed', attentionProbs: 'recompute' }, { ...SCHEMES.paper, name: 'paper, recomputed', attentionProbs: 'recompute', attentionDropout: 'probabilities' }];

/** Loss and every gradient, and what the pass kept. */
async function pass(model: Model<never>, batch: LabelledBatch, scheme: ActivationScheme) {
  const ctx = ForwardContext.training(engine, scheme, 9, 3);
  engine.resetPeak();
  const out = model.forwardWithLoss(ctx, batch as never);
  assert.equal(engine.memory().live.activations, ctx.tape.ledger.totalBytes);
  const kept = ctx.tape.ledger.entries.map(({ layer, what, encoding, bytes }) => ({ layer, what, encoding, bytes }));
  const reads = [engine.read(out.loss.tensor).then((d): [string, Float32Array] => ['loss', d as Float32Array])];
  ctx.tape.backward(out.loss, (p, g) => reads.push(engine.read(g).then((d) => [p.name, d as Float32Array])));
  engine.free(out.loss.tensor, out.logits.tensor);
  return { values: new Map(await Promise.all(reads)), kept, workspace: engine.memory().peak.workspace };
}

test('with probabilities computed again, loss, gradients and what is kept are those of attention with its probabilities in memory, whatever trains', async () => {
  await ready();
  const model = tinyModel(engine, config);
  const batch = tinyBatch(config, 3, 20);
  const norm = (x: Float32Array) => Math.sqrt(x.reduce((s, v) => s + v * v, 0));
  const at = (part: string) => `bert.encoder.layer.0.attention.self.${part}.weight`;
  for (const scheme of RECOMPUTED)
    for (const trained of scheme === SCHEMES.tuned ? [undefined, [at('value')], [at('query')], [at('key'), at('value')]] : [undefined]) {
      for (const p of model.parameters.values()) p.trains = !trained || trained.includes(p.name);
      const whole = await pass(model as never, batch, scheme);
      engine.streamsAttention = () => false;
      const composed = await pass(model as never, batch, scheme);
      // @ts-expect-error the class's own again
      delete engine.streamsAttention;
      assert.deepEqual([...whole.values.keys()].sort(), [...composed.values.keys()].sort());
      assert.deepEqual(whole.kept, composed.kept);
      for (const [name, want] of composed.values) {
        const got = whole.values.get(name)!;
        // Gradients of keys' biases are 0 but for rounding. Where the MLP is computed again from codes, a value halfway between two codes may get the other one.
        const error = norm(got.map((v, i) => v - want[i])) / Math.max(0.01, norm(want));
        assert.ok(error < (scheme.attentionOperands === 'float32' ? 1e-5 : 2e-3), `${scheme.name}, ${trained}, ${name}: ${error}`);
      }
      assert.ok(whole.workspace < composed.workspace, `${whole.workspace} bytes of temporaries, composed ${composed.workspace}`);
    }
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

test('logits of an evaluation are those with probabilities in memory, of which it makes none', async () => {
  await ready();
  const model = tinyModel(engine, config);
  const batch = tinyBatch(config, 2, 66);
  const logits = async () => {
    engine.resetPeak();
    const ctx = ForwardContext.evaluation(engine);
    const out = model.forwardWithLoss(ctx, batch as never);
    const values = (await engine.read(out.logits.tensor)) as Float32Array;
    engine.free(out.logits.tensor, out.loss.tensor);
    ctx.tape.dispose();
    return { values, workspace: engine.memory().peak.workspace };
  };
  const whole = await logits();
  engine.streamsAttention = () => false;
  const composed = await logits();
  // @ts-expect-error the class's own again
  delete engine.streamsAttention;
  whole.values.forEach((v, i) => assert.ok(Math.abs(v - composed.values[i]) < 1e-5, `${v} is not ${composed.values[i]}`));
  // Probabilities of one layer alone: 2 examples, 4 heads.
  assert.ok(whole.workspace < 4 * 2 * 4 * 66 ** 2 && composed.workspace > 4 * 2 * 4 * 66 ** 2, `${whole.workspace}, composed ${composed.workspace}`);
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

const [B, T] = [3, 7];
const bert = tinyConfig({ hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1, intermediate_size: 40, num_labels: 2 });
/** Heads of 5, which attention is composed for. */
const vit = parseViTConfig({ model_type: 'vit', image_size: 12, patch_size: 4, hidden_size: 15, num_hidden_layers: 2, num_attention_heads: 3, intermediate_size: 21, num_labels: 3 });
const images: ImageBatch = { pixelValues: Float32Array.from({ length: B * 3 * 144 }, (_, i) => Math.sin(i)), labels: Int32Array.of(0, 1, 2), batchSize: B, channels: 3, height: 12, width: 12 };

for (const kind of ['sequence-classification', 'image-classification'] as const)
  test(`${kind}: the planned peak of kernels webgpu is that of the step itself, to the byte, and so are its parts`, async () => {
    await ready();
    const random = new Random(11);
    const cases: readonly Partial<MemoryQuery>[] = [
      { mode: 'exact', frozen: [] },
      { mode: 'exact', blockBytes: 1 },
      { mode: 'paper', moments: 'what trains' },
      { mode: 'paper', blockBytes: 1600, magnitude: 'relative-l2' },
      { mode: 'tuned' },
      { mode: 'tuned', frozen: [] },
      { mode: 'tuned', gradientAccumulationSteps: 2, gradientCheckpointing: true, dropout: false },
      { mode: { ...SCHEMES.exact, name: 'exact, recomputed', attentionProbs: 'recompute', geluInput: 'q8-row', downProjectionInput: 'q3.4' }, frozen: [] },
    ];
    for (const options of cases) {
      const text = kind === 'sequence-classification';
      const model = (text ? tinyModel(engine, bert) : ViTForImageClassification.fresh(engine, vit)) as unknown as Model<never>;
      const sentences = tinyBatch(bert, B, T);
      // Padding in every sequence, so that every micro-batch has a mask, as is planned.
      const batch = text ? { ...sentences, attentionMask: sentences.attentionMask.map((m, i) => (i % T === T - 1 ? 0 : m)) } : images;
      const names = model.layers.map((l) => l.name);
      const frozen = options.frozen ?? names.filter(() => random.uniform() < 0.5);
      const indices = names.flatMap((n, i) => (frozen.includes(n) ? [i] : []));
      const { moments = 'every parameter' } = options;
      const trainer = new SlimFitTrainer<never>({
        model, train: { size: B, batch: () => batch as never }, batchSize: B, totalSteps: 10, schedule: 'constant', measureEncodingsEvery: 0, onWarning: () => {}, ...options,
        // The first step makes the moments.
        policy: (layers) => ({ name: 'fixed', magnitudes: new Float64Array(layers.length), select: (step) => (step === 0 && moments === 'every parameter' ? [] : indices), observe: () => {}, state: () => ({}), restore: () => {} }),
      });
      await trainer.step();
      const { memory, activationBytes } = await trainer.step();
      const plan = planMemory({ ...(text ? { kind: 'sequence-classification' as const, config: bert, length: T } : { kind: 'image-classification' as const, config: vit }), ...options, batchSize: B, frozen, kernels: 'webgpu' });
      const what = JSON.stringify(options);
      assert.deepEqual(
        [plan.peakBytes, plan.weightBytes, plan.momentBytes, plan.activationBytes, plan.gradientBytes],
        [memory.totalPeak, memory.live.weights, memory.live.optimizer, activationBytes, memory.peak.gradients],
        what,
      );
      trainer.dispose();
      model.dispose();
    }
    assert.equal(engine.memory().tensors, 0);
  });

test('warmed, an engine has compiled what a pass needs before the first step, nothing ran or is left, and the steps are the same to the bit', async () => {
  const run = async (warms: boolean) => {
    const e = new WebgpuEngine(await openDevice(), { warms });
    assert.equal(e.warm !== undefined, warms);
    const seen: string[] = [];
    if (e.warm) {
      const warm = e.warm.bind(e);
      Object.assign(e, {
        warm: async (work: () => void) => {
          const { dispatches, pipelines } = e.counts();
          const { tensors, totalLive } = e.memory();
          await warm(work);
          assert.equal(e.counts().dispatches, dispatches);
          assert.deepEqual([e.memory().tensors, e.memory().totalLive], [tensors, totalLive]);
          seen.push(`${e.counts().pipelines - pipelines}`);
        },
      });
    }
    const model = tinyModel(e, config);
    const trainer = new SlimFitTrainer({ model, train: { size: 3, batch: () => tinyBatch(config, 3, 20) }, batchSize: 3, totalSteps: 4, mode: 'tuned', freezeRate: 0.5, schedule: 'constant', measureEncodingsEvery: 0, onWarning: () => {} });
    const losses: number[] = [];
    const before = e.counts().pipelines;
    for await (const { loss, memory } of trainer.steps(3)) losses.push(loss, memory.totalPeak);
    const made = e.counts().pipelines - before;
    trainer.dispose();
    model.dispose();
    assert.equal(e.memory().tensors, 0);
    e.dispose();
    return { losses, made, seen };
  };
  const [cold, warm] = [await run(false), await run(true)];
  assert.deepEqual(warm.losses, cold.losses);
  // Once, and nearly all of them: updates and what reads the results are not part of the pass.
  assert.equal(warm.seen.length, 1);
  assert.ok(Number(warm.seen[0]) > 0.7 * cold.made, `${warm.seen} of ${cold.made} pipelines`);
  assert.equal(cold.made, warm.made);
});
