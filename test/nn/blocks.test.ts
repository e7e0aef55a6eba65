/** Blocks against the whole computation: how they are chosen, that nothing changes but the temporaries, and how large these are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Category, DeviceTensor, DType, Engine } from '../../src/engine/engine';
import { ShapeEngine } from '../../src/engine/shapeEngine';
import { createTensorflowEngine } from '../../src/engine/tfjs/createTensorflowEngine';
import { loadTensorflow } from '../../src/engine/tfjs/tensorflowBinding';
import { InvalidArgumentError } from '../../src/errors';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { BertForQuestionAnswering, BertForSequenceClassification } from '../../src/models/bert';
import type { HostWeights, ImageBatch, LabelledBatch, Model, ParameterSpec } from '../../src/models/model';
import { questionAnsweringSpecs } from '../../src/models/questionAnswering';
import { sequenceClassificationSpecs } from '../../src/models/sequenceClassification';
import { imageClassificationSpecs, ViTForImageClassification } from '../../src/models/vit';
import { attentionBlock, blockBytesOf, joined, part, plus, ranges, rowsOfBlock, TUNED_BLOCK_BYTES } from '../../src/nn/blocks';
import { ForwardContext } from '../../src/nn/context';
import { Random } from '../../src/random';
import type { EncodingError } from '../../src/tape/encodingError';
import { type ActivationScheme, SCHEMES } from '../../src/tape/scheme';
import type { LedgerEntry } from '../../src/tape/roles';
import { cpuEngine, tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

let skip: string | false = false;
try {
  loadTensorflow();
} catch (error) {
  skip = (error as Error).message;
}

const SCHEMES_TRIED: readonly ActivationScheme[] = [
  ...Object.values(SCHEMES),
  { ...SCHEMES.exact, name: 'exact, recomputed', attentionProbs: 'recompute' },
  { ...SCHEMES.paper, name: 'paper, probabilities dropped', attentionDropout: 'probabilities' },
  { ...SCHEMES.paper, name: 'rows', attentionOperands: 'q8-row', attentionProbs: 'u8-row', geluInput: 'q4-row', downProjectionInput: 'q8-row' },
  { ...SCHEMES.exact, name: '4 bits', attentionOperands: 'q2.1', attentionProbs: 'q2.1', geluInput: 'q2.1', downProjectionInput: 'q2.1' },
];

// ---- how blocks are chosen --------------------------------------------------------------------------------------------------

test('a block of attention is as large as fits: of examples, else of heads of one example, else of queries of one head', () => {
  const sizes = { batchSize: 6, heads: 4, tokens: 8, hidden: 16, operands: undefined, probs: undefined };
  const head = 4 * 8 * 8;
  for (const [bytes, examples, heads, queries] of [
    [Infinity, 6, 4, 8],
    [6 * 4 * head, 6, 4, 8],
    [6 * 4 * head - 1, 5, 4, 8],
    [4 * head, 1, 4, 8],
    [4 * head - 1, 1, 3, 8],
    [head, 1, 1, 8],
    [head - 1, 1, 1, 7],
    [4 * 8, 1, 1, 1],
    [1, 1, 1, 1],
  ])
    assert.deepEqual(attentionBlock(sizes, bytes), { examples, heads, queries }, `${bytes}`);
  // BERT-base at 128×384: 7,077,888 bytes an example.
  assert.deepEqual(attentionBlock({ batchSize: 128, heads: 12, tokens: 384, hidden: 768, operands: 'q8-row', probs: undefined }, TUNED_BLOCK_BYTES), { examples: 9, heads: 12, queries: 384 });
});

test('blocks fit wherever whole words of codes allow it, and every piece that is kept but the last fills its words', () => {
  const encoding = fc.constantFrom(undefined, 'float32', 'q8-row', 'q0.8', 'q2.1') as fc.Arbitrary<undefined | 'float32' | 'q8-row' | 'q0.8' | 'q2.1'>;
  const perWord = (e: string | undefined) => (e === undefined || e === 'float32' ? 1 : e === 'q2.1' ? 8 : 4);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 5 }), encoding, encoding, fc.integer({ min: 1, max: 20_000 }), (B, A, T, d, operands, probs, bytes) => {
      const { examples, heads, queries } = attentionBlock({ batchSize: B, heads: A, tokens: T, hidden: A * d, operands, probs }, bytes);
      assert.ok(examples >= 1 && examples <= B && heads >= 1 && heads <= A && queries >= 1 && queries <= T);
      assert.ok((examples === 1 || heads === A) && (heads === 1 || queries === T), 'parts of one example, of one head');
      const pieces: number[] = ranges(B, examples).flatMap(([, b]) => ranges(A, heads).flatMap(([, a]) => ranges(T, queries).map(([, t]) => b * a * t * T)));
      assert.equal(pieces.reduce((s, n) => s + n, 0), B * A * T * T);
      for (const n of pieces.slice(0, -1)) assert.equal(n % perWord(probs), 0);
      for (const [, b] of ranges(B, examples).slice(0, -1)) assert.equal((b * T * A * d) % perWord(operands), 0);
      if (perWord(probs) === 1 && perWord(operands) === 1) assert.ok(4 * examples * heads * queries * T <= Math.max(bytes, 4 * T));

      const rows = rowsOfBlock(B * T, A * d, [operands, probs], bytes);
      const multiple = Math.max(perWord(operands), perWord(probs));
      assert.ok(rows >= 1 && rows <= B * T && (rows === B * T || (rows * A * d) % multiple === 0));
      assert.ok(4 * rows * A * d <= Math.max(bytes, 4 * multiple * A * d));
    }),
    { seed: 5, numRuns: 500 },
  );
});

test('ranges cover a length without a gap, and what is cut by them is joined to the same tensor', async () => {
  const engine = await cpuEngine();
  assert.deepEqual(ranges(7, 3), [[0, 3], [3, 3], [6, 1]]);
  assert.deepEqual(ranges(4, 9), [[0, 4]]);
  const x = engine.upload(Float32Array.from({ length: 30 }, (_, i) => i), [2, 5, 3]);
  for (const axis of [0, 1, 2])
    for (const step of [1, 2, 5]) {
      const all = engine.scope(() => joined(engine, ranges(x.shape[axis], step).map((r) => part(engine, x, axis, r)), axis));
      assert.deepEqual(all.shape, x.shape);
      assert.deepEqual(await engine.read(all), await engine.read(x));
      engine.free(all);
    }
  const [a, b] = [1, 2].map((v) => engine.full([2], v));
  const sum = plus(engine, plus(engine, undefined, a), b)!;
  assert.deepEqual(Array.from(await engine.read(sum)), [3, 3]);
  assert.equal(plus(engine, sum, undefined), sum);
  engine.free(sum, x);
  assert.equal(engine.memory().tensors, 0);
});

test('a block size is that which was asked for, else 64 MiB in mode tuned, else no limit; one that is no positive number is refused', async () => {
  assert.deepEqual([blockBytesOf(7, 'tuned'), blockBytesOf(undefined, 'tuned'), blockBytesOf(undefined, 'paper'), blockBytesOf(undefined, SCHEMES.tuned)], [7, 64 * 2 ** 20, Infinity, Infinity]);
  const engine = await cpuEngine();
  for (const blockBytes of [0, -1, NaN])
    assert.throws(() => ForwardContext.deterministic(engine, SCHEMES.exact, { blockBytes }), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(`blockBytes is ${blockBytes}`));
});

// ---- the same numbers -------------------------------------------------------------------------------------------------------

interface Kind {
  readonly name: string;
  readonly make: (engine: Engine) => Model<never>;
  readonly batch: LabelledBatch;
  /** Largest tensor of attention's probabilities, bytes. */
  readonly probsBytes: number;
}

const dropouts = { hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.3 };
/** One whose lengths are whole words, one with odd ones. */
const even = tinyConfig(dropouts);
const odd = tinyConfig({ ...dropouts, hidden_size: 15, num_attention_heads: 3, intermediate_size: 21, num_labels: 2 });
const vit = parseViTConfig({ model_type: 'vit', image_size: 12, patch_size: 4, hidden_size: 12, num_hidden_layers: 2, num_attention_heads: 3, intermediate_size: 24, num_labels: 3, hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.3 });
const pixels = new Random(1);
const images: ImageBatch = { pixelValues: Float32Array.from({ length: 4 * 3 * 144 }, () => pixels.normal()), labels: Int32Array.of(0, 1, 2, 0), batchSize: 4, channels: 3, height: 12, width: 12 };
/** Weights large enough that attention is not flat, and biases that are not 0. */
const weightsOf = (specs: readonly ParameterSpec[]): HostWeights => {
  const random = new Random(3);
  return new Map(specs.map(({ name, shape }) => [name, { shape, data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => 0.25 * random.normal() + (/norm.*weight/i.test(name) ? 1 : 0)) }]));
};
const KINDS: readonly Kind[] = [
  { name: 'bert with padding', make: (e) => new BertForSequenceClassification(e, even, weightsOf(sequenceClassificationSpecs(even))) as never, batch: tinyBatch(even, 5, 8), probsBytes: 4 * 5 * 4 * 8 ** 2 },
  {
    name: 'bert for answers, odd sizes',
    make: (e) => new BertForQuestionAnswering(e, odd, weightsOf(questionAnsweringSpecs(odd))) as never,
    batch: { ...tinyBatch(odd, 5, 7), labels: Int32Array.of(0, 1, 2, 3, 4, 5, 6, 0, 1, 2) },
    probsBytes: 4 * 5 * 3 * 7 ** 2,
  },
  { name: 'vit', make: (e) => new ViTForImageClassification(e, vit, weightsOf(imageClassificationSpecs(vit))) as never, batch: images, probsBytes: 4 * 4 * 3 * 10 ** 2 },
];

interface Outcome {
  readonly values: Map<string, Float32Array>;
  readonly kept: readonly LedgerEntry[];
  readonly errors: readonly EncodingError[];
}

/** One pass: the loss, the logits, every gradient; the ledger; what the encodings did. Nothing outlives it. */
async function pass(model: Model<never>, batch: LabelledBatch, scheme: ActivationScheme, blockBytes: number): Promise<Outcome> {
  const { engine } = model;
  const idle = engine.memory().tensors;
  const ctx = ForwardContext.training(engine, scheme, 9, 3, { blockBytes, measuring: true });
  const out = model.forwardWithLoss(ctx, batch as never);
  const errors = await ctx.tape.readEncodingErrors();
  ctx.tape.dispose();
  const again = ForwardContext.training(engine, scheme, 9, 3, { blockBytes });
  const second = model.forwardWithLoss(again, batch as never);
  assert.equal(engine.memory().live.activations, again.tape.ledger.totalBytes, 'ledger and engine disagree');
  const reads = (['loss', 'logits'] as const).map(async (of): Promise<[string, Float32Array]> => [of, (await engine.read(out[of].tensor)) as Float32Array]);
  again.tape.backward(second.loss, (p, g) => reads.push(engine.read(g).then((d) => [p.name, d as Float32Array])));
  assert.equal(again.tape.ledger.liveBytes, 0);
  assert.equal(engine.memory().live.activations, 0, 'kept after backward');
  const values = new Map(await Promise.all(reads));
  engine.free(...[out, second].flatMap((o) => [o.loss.tensor, o.logits.tensor]));
  assert.equal(engine.memory().tensors, idle, 'tensors left');
  return { values, kept: [...again.tape.ledger.entries], errors };
}

/** ‖a − b‖/‖b‖, of gradients that are 0 but for rounding (keys' biases) beside 0.01. */
function distance(a: Float32Array, b: Float32Array): number {
  assert.equal(a.length, b.length);
  const norm = (x: Float32Array) => Math.sqrt(x.reduce((s, v) => s + v * v, 0));
  return norm(a.map((v, i) => v - b[i])) / Math.max(0.01, norm(b));
}

const codes = ({ attentionOperands, attentionProbs, geluInput, downProjectionInput }: ActivationScheme): boolean => [attentionOperands, attentionProbs, geluInput, downProjectionInput].some((e) => e !== 'float32' && e !== 'recompute');

for (const [engineName, make, missing] of [['cpu', cpuEngine, false], ['tensorflow', () => createTensorflowEngine(), skip], ['tensorflow without fused kernels', () => createTensorflowEngine({ fused: false }), skip]] as const)
  for (const kind of KINDS)
    test(`${kind.name}, ${engineName}: in blocks of any size loss, logits, every gradient, dropout, what is kept and the errors of its codes are those of the whole computation, under every scheme`, { skip: missing }, async () => {
      const engine = await make();
      const model = kind.make(engine);
      const random = new Random(17);
      const layers = model.layers.map((l) => l.name);
      for (const scheme of SCHEMES_TRIED) {
        const trained = new Set(layers.filter(() => random.uniform() < 0.5));
        for (const p of model.parameters.values()) p.trains = !layers.includes(p.name) || trained.has(p.name);
        const whole = await pass(model, kind.batch, scheme, Infinity);
        // Queries of one head; some heads; one example; two; nearly all.
        for (const share of engineName === 'cpu' ? [0.001, 0.012, 0.1, 0.21, 0.45, 0.95] : [0.012, 0.21]) {
          const blocks = await pass(model, kind.batch, scheme, Math.max(1, share * kind.probsBytes));
          assert.deepEqual([...blocks.values.keys()].sort(), [...whole.values.keys()].sort());
          for (const [name, want] of whole.values) {
            const error = distance(blocks.values.get(name)!, want);
            // TensorFlow's products of other shapes round otherwise, and a value halfway between two codes then gets the other one.
            assert.ok(error < (engineName === 'cpu' || !codes(scheme) ? 1e-5 : 2e-3), `${scheme.name}, ${share}, ${name}: ${error}`);
          }
          assert.deepEqual(blocks.kept, whole.kept, `${scheme.name}, ${share}`);
          assert.equal(blocks.errors.length, whole.errors.length);
          for (const [i, error] of whole.errors.entries()) {
            const got = blocks.errors[i];
            assert.deepEqual([got.layer, got.what], [error.layer, error.what]);
            assert.ok(Math.abs(got.relativeError - error.relativeError) < 1e-4 && Math.abs(got.clipped - error.clipped) < 1e-6, `${error.what}: ${got.relativeError} is not ${error.relativeError}`);
          }
        }
      }
      model.dispose();
      assert.equal(engine.memory().tensors, 0);
      engine.dispose();
    });

test('with only the MLP’s biases, or one of its matrices, training, blocks give the gradients of the whole computation', async () => {
  const engine = await cpuEngine();
  const model = tinyModel(engine, even);
  const at = (part: string) => `bert.encoder.layer.1.${part}`;
  for (const trained of [[at('output.dense.weight')], [at('output.dense.bias')], [at('intermediate.dense.weight')], [at('intermediate.dense.bias'), at('output.dense.weight')], ['classifier.weight']]) {
    for (const p of model.parameters.values()) p.trains = trained.includes(p.name);
    const [whole, blocks] = [await pass(model as never, tinyBatch(even, 5, 8), SCHEMES.paper, Infinity), await pass(model as never, tinyBatch(even, 5, 8), SCHEMES.paper, 300)];
    assert.deepEqual([...blocks.values.keys()].sort(), ['loss', 'logits', ...trained].sort());
    assert.deepEqual(blocks.kept, whole.kept);
    for (const [name, want] of whole.values) assert.ok(distance(blocks.values.get(name)!, want) < 1e-5, name);
  }
  model.dispose();
  assert.equal(engine.memory().tensors, 0);
});

// ---- smaller temporaries ----------------------------------------------------------------------------------------------------

/** Notes the largest tensor that any operation makes. */
class Watching extends ShapeEngine {
  largest = 0;
  protected override own(raw: undefined, shape: readonly number[], dtype?: DType, category?: Category): DeviceTensor {
    const t = super.own(raw, shape, dtype, category);
    this.largest = Math.max(this.largest, t.bytes);
    return t;
  }
}

test('no operation makes a tensor larger than a block or than the tokens themselves, forward and backward, on any engine’s operations', () => {
  const config = tinyConfig({ ...dropouts, intermediate_size: 128, max_position_embeddings: 64 });
  const [B, T, H, A, F] = [8, 64, 16, 4, 128];
  const batch = tinyBatch(config, B, T);
  for (const kernels of ['fused', 'tensorflow', 'composed'] as const)
    for (const scheme of [SCHEMES.paper, SCHEMES.tuned, SCHEMES.exact]) {
      const largest = (blockBytes: number) => {
        const engine = new Watching(kernels);
        const model = tinyModel(engine, config);
        engine.largest = 0;
        const ctx = ForwardContext.training(engine, scheme, 1, 1, { blockBytes });
        const out = model.forwardWithLoss(ctx, batch);
        ctx.tape.backward(out.loss, () => {});
        engine.free(out.loss.tensor, out.logits.tensor);
        model.dispose();
        assert.equal(engine.memory().tensors, 0);
        return engine.largest;
      };
      assert.equal(largest(Infinity), Math.max(4 * B * A * T * T, 4 * B * T * F));
      const tokens = 4 * B * T * H;
      for (const blockBytes of [tokens / 8, tokens, 2 * tokens]) assert.ok(largest(blockBytes) <= Math.max(blockBytes, tokens), `${kernels}, ${scheme.name}, ${blockBytes}: ${largest(blockBytes)}`);
    }
});
