/** What is foreseen to be kept, against the tape's ledger entry by entry and the engine's own count, for any frozen set. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseDistilBertConfig, parseRobertaConfig } from '../../src/hub/config';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { bertActivations } from '../../src/memory/activationBytes';
import type { PlannedActivation, TrainingSet } from '../../src/memory/keptActivations';
import { vitActivations } from '../../src/memory/vitActivationBytes';
import { BertForQuestionAnswering, BertForSequenceClassification } from '../../src/models/bert';
import { DistilBertForQuestionAnswering, DistilBertForSequenceClassification } from '../../src/models/distilbert';
import { type ImageBatch, type LabelledBatch, Model, type TextBatch, weightOfBias } from '../../src/models/model';
import { RobertaForQuestionAnswering, RobertaForSequenceClassification } from '../../src/models/roberta';
import { ViTForImageClassification } from '../../src/models/vit';
import { ForwardContext } from '../../src/nn/context';
import { Random } from '../../src/random';
import type { LedgerEntry } from '../../src/tape/roles';
import { type ActivationScheme, SCHEMES } from '../../src/tape/scheme';
import { cpuEngine, tinyBatch, tinyConfig } from '../models/fixtures';

const engine = cpuEngine();
const dropouts = { hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1 };
const size = { vocab_size: 31, num_labels: 2 };

/** Schemes of every kind: each named one, and each with one option of another. */
const SCHEMES_TRIED: readonly ActivationScheme[] = [
  ...Object.values(SCHEMES),
  { ...SCHEMES.exact, name: 'exact, probabilities recomputed', attentionProbs: 'recompute' },
  { ...SCHEMES.paper, name: 'paper, probabilities recomputed', attentionProbs: 'recompute' },
  { ...SCHEMES.paper, name: 'paper, LayerNorms whole', frozenLayerNormShare: undefined },
  { ...SCHEMES.paper, name: 'paper, a step for each row', attentionOperands: 'q8-row', attentionProbs: 'u8-row', geluInput: 'q8-row', downProjectionInput: 'q8-row' },
  { ...SCHEMES.paper, name: 'paper, 4 bits and a step for each row', attentionOperands: 'q4-row', geluInput: 'q4-row', normalizedValues: 'q4-row', linearInput: 'q4-row' },
  { ...SCHEMES.exact, name: 'exact, LayerNorms in a code that linear maps do not read', normalizedValues: 'q8-row' },
  { ...SCHEMES.paper, name: 'paper, inputs in codes', linearInput: 'q8-row' },
  { ...SCHEMES.exact, name: 'exact, MLP computed again', geluInput: 'recompute' },
  { ...SCHEMES.paper, name: 'paper, MLP computed again from codes of its own', geluInput: 'recompute', linearInput: 'q8-row' },
  { ...SCHEMES.tuned, name: 'tuned, 4-bit GELU inputs', geluInput: 'q2.1' },
  { ...SCHEMES.exact, name: 'exact, 4-bit everything', attentionOperands: 'q2.1', attentionProbs: 'q2.1', downProjectionInput: 'q2.1', layerNormStatistics: 'recompute' },
];

interface Kind {
  readonly name: string;
  readonly make: (dropping: boolean) => Promise<Model<never>>;
  readonly batch: (model: Model<never>, batchSize: number) => LabelledBatch;
  readonly foresee: (model: Model<never>, batchSize: number, mode: ActivationScheme, dropout: boolean, training: TrainingSet) => PlannedActivation[];
}

const LENGTH = 5;
const textKind = (name: string, make: Kind['make'], head: 'sequence classification' | 'question answering' = 'sequence classification'): Kind => ({
  name,
  make,
  batch: (model, B) => {
    const batch = tinyBatch((model as never as BertForSequenceClassification).config, B, LENGTH);
    return head === 'question answering' ? { ...batch, labels: new Int32Array(2 * B) } : batch;
  },
  foresee: (model, batchSize, mode, dropout, training) => bertActivations({ config: (model as never as BertForSequenceClassification).config, batchSize, length: LENGTH, mode, dropout, head, ...training }),
});
const bertOf = (dropping: boolean, changes = {}) => tinyConfig({ ...(dropping ? dropouts : {}), intermediate_size: 23, ...changes });
const vitKind = (modelType: 'vit' | 'deit'): Kind => ({
  name: modelType,
  make: async (dropping) =>
    ViTForImageClassification.fresh(
      await engine,
      parseViTConfig({ model_type: modelType, image_size: 8, patch_size: 4, hidden_size: 12, num_hidden_layers: 2, num_attention_heads: 3, intermediate_size: 21, num_labels: 3, ...(dropping ? dropouts : {}) }),
    ) as never,
  batch: (_, batchSize): ImageBatch => {
    const random = new Random(2);
    return { pixelValues: Float32Array.from({ length: batchSize * 3 * 64 }, () => random.normal()), labels: new Int32Array(batchSize), batchSize, channels: 3, height: 8, width: 8 };
  },
  foresee: (model, batchSize, mode, _, training) => vitActivations({ config: (model as never as ViTForImageClassification).config, batchSize, mode, ...training }),
});

const distilBertKind = (head: 'classification' | 'answers'): Kind =>
  textKind(
    `distilbert, ${head}`,
    async (d) => {
      const config = parseDistilBertConfig({ model_type: 'distilbert', ...size, dim: 8, hidden_dim: 13, n_heads: 2, n_layers: 2, max_position_embeddings: 12, ...(d ? {} : { dropout: 0, attention_dropout: 0, seq_classif_dropout: 0 }) });
      return (head === 'answers' ? DistilBertForQuestionAnswering.fresh(await engine, config) : DistilBertForSequenceClassification.fresh(await engine, config)) as never;
    },
    head === 'answers' ? 'question answering' : undefined,
  );
const robertaKind = (head: 'classification' | 'answers'): Kind =>
  textKind(
    `roberta, ${head}`,
    async (d) => {
      const config = parseRobertaConfig({ model_type: 'roberta', ...size, hidden_size: 8, intermediate_size: 16, num_attention_heads: 2, num_hidden_layers: 1, max_position_embeddings: 12, ...(d ? dropouts : { hidden_dropout_prob: 0, attention_probs_dropout_prob: 0 }) });
      return (head === 'answers' ? RobertaForQuestionAnswering.fresh(await engine, config) : RobertaForSequenceClassification.fresh(await engine, config)) as never;
    },
    head === 'answers' ? 'question answering' : undefined,
  );

const KINDS: readonly Kind[] = [
  textKind('bert, classification', async (d) => BertForSequenceClassification.fresh(await engine, bertOf(d)) as never),
  textKind('bert, answers', async (d) => BertForQuestionAnswering.fresh(await engine, bertOf(d, { num_labels: 2 })) as never, 'question answering'),
  distilBertKind('classification'),
  distilBertKind('answers'),
  robertaKind('classification'),
  robertaKind('answers'),
  vitKind('vit'),
  vitKind('deit'),
];

/** Bytes by module, what, role and encoding; entries of storages that others count are left out. */
function summary(entries: readonly (PlannedActivation | LedgerEntry)[]): [string, number][] {
  return entries.filter((e) => e.bytes > 0).map((e) => [`${e.layer}: ${e.what}, ${e.role}, ${e.encoding}`, e.bytes]);
}

for (const kind of KINDS)
  test(`${kind.name}: what is kept is what was foreseen, entry by entry, for any frozen set, with biases frozen or not, with layers run again in backward or not, under every scheme`, async () => {
    const e = await engine;
    for (const dropping of [false, true]) {
      const model = await kind.make(dropping);
      const names = model.layers.map((l) => l.name);
      const idle = e.memory().tensors;
      const batches = [1, 3].map((B) => kind.batch(model, B));
      const setOf = fc.oneof(
        fc.uniqueArray(fc.nat(names.length - 1)),
        // Everything from some layer up: what frozen biases are for.
        fc.nat(names.length).map((from) => names.map((_, i) => i).slice(from)),
        fc.nat(names.length - 1).map((one) => [one]),
      );
      fc.assert(
        fc.property(setOf, fc.nat(SCHEMES_TRIED.length - 1), fc.boolean(), fc.boolean(), fc.nat(1), (active, which, frozenBiases, gradientCheckpointing, large) => {
          const mode = SCHEMES_TRIED[which];
          const trained = new Set(active.map((i) => names[i]));
          const trains = (n: string) => !names.includes(n) || trained.has(n);
          for (const p of model.parameters.values()) p.trains = frozenBiases ? trains(weightOfBias(p.name)) : trains(p.name);
          const ctx = dropping ? ForwardContext.training(e, mode, 1, 0, { gradientCheckpointing }) : ForwardContext.deterministic(e, mode, { gradientCheckpointing });
          const batch = batches[large];
          const out = model.forwardWithLoss(ctx, batch as never);
          const want = kind.foresee(model, batch.batchSize, mode, dropping, { trains, frozenBiases, gradientCheckpointing });
          assert.deepEqual(summary(want), summary(ctx.tape.ledger.entries));
          const total = want.reduce((s, x) => s + x.bytes, 0);
          assert.equal(e.memory().live.activations, total);
          const shape = { batchSize: batch.batchSize, length: (batch as TextBatch).length ?? 0, channels: 3, height: 8, width: 8 };
          assert.equal(model.predictActivations(shape as never, { mode, dropout: dropping, trains, frozenBiases, gradientCheckpointing })!.total, total);
          const seen: string[] = [];
          ctx.tape.backward(out.loss, (p) => seen.push(p.name));
          assert.deepEqual(seen.sort(), [...model.parameters.values()].filter((p) => p.trains).map((p) => p.name).sort());
          e.free(out.loss.tensor, out.logits.tensor);
          assert.equal(e.memory().tensors, idle, 'tensors left');
        }),
        { numRuns: 60, seed: 7 },
      );
      model.dispose();
    }
    assert.equal(e.memory().tensors, 0);
  });

test('with frozen biases a BERT whose classifier alone trains keeps the classifier’s input and nothing else', () => {
  const config = tinyConfig();
  const trains = (n: string) => n === 'classifier.weight';
  for (const mode of ['exact', 'paper', 'tuned'] as const) {
    const kept = bertActivations({ config, batchSize: 3, length: 5, mode, trains, frozenBiases: true });
    assert.deepEqual(kept, [{ part: 'head', layer: 'classifier', what: 'input', role: 'dynamic', encoding: 'float32', bytes: 4 * 3 * 16 }]);
  }
});

test('with gradient checkpointing a layer keeps 4NH bytes whatever trains in it, and below the lowest that trains nothing is kept', () => {
  const config = tinyConfig({ num_hidden_layers: 4 });
  const trains = (n: string) => n === 'bert.encoder.layer.2.output.dense.weight';
  for (const mode of ['exact', 'paper', 'tuned'] as const) {
    const kept = bertActivations({ config, batchSize: 3, length: 5, mode, trains, frozenBiases: true, gradientCheckpointing: true });
    const inputs = kept.filter((k) => k.part.startsWith('layer'));
    assert.deepEqual(inputs, [2, 3].map((i) => ({ part: `layer ${i}`, layer: `bert.encoder.layer.${i}`, what: 'layer input', role: 'static', encoding: 'float32', bytes: 4 * 15 * 16 })));
  }
});

test('probabilities that are recomputed save BAT² bytes a layer of the paper’s, 4BAT² of plain fine-tuning’s', () => {
  const config = tinyConfig();
  const total = (mode: ActivationScheme) => bertActivations({ config, batchSize: 3, length: 8, mode, trains: () => true }).reduce((s, x) => s + x.bytes, 0);
  const squares = 2 * 3 * 4 * 8 ** 2;
  assert.equal(total(SCHEMES.paper) - total({ ...SCHEMES.paper, attentionProbs: 'recompute' }), squares);
  assert.equal(total(SCHEMES.exact) - total({ ...SCHEMES.exact, attentionProbs: 'recompute' }), 4 * squares);
});

test('what freezing a weight saves is the difference between two whole predictions, for any frozen set, scheme and model', async () => {
  for (const kind of KINDS) {
    const model = (await kind.make(true)) as unknown as Model<TextBatch>;
    const weights = model.layers.map((l) => l.name);
    const shape = kind.batch(model as never, 3) as TextBatch;
    const frozenSet = fc.oneof(fc.uniqueArray(fc.nat(weights.length - 1)), fc.nat(weights.length).map((to) => weights.map((_, i) => i).slice(0, to)));
    fc.assert(
      fc.property(frozenSet, fc.constantFrom(...SCHEMES_TRIED), fc.boolean(), fc.boolean(), fc.boolean(), (indices, mode, frozenBiases, gradientCheckpointing, dropout) => {
        const frozen = new Set(indices.map((i) => weights[i]));
        const plan = { mode, frozenBiases, gradientCheckpointing, dropout, trains: (name: string) => !frozen.has(name) };
        assert.deepEqual(model.freezingSaves(shape, plan, weights), Model.prototype.freezingSaves.call(model, shape as never, plan, weights));
      }),
      { numRuns: 100 },
    );
    model.dispose();
  }
});
