/**
 * The planner against what really happens: bytes kept for backward by planner, ledger and engine, and the peak, over models × freeze rates × batches × encodings. `npm run bench:planner`, a few minutes on two cores.
 *
 * The base models run forward only, on real values; the tiny ones whole training steps through the trainer, after a first step in which every layer trains and gets its moments.
 */
import { chooseEngine } from '../src/engine/choose';
import type { Engine } from '../src/engine/engine';
import { parseBertConfig } from '../src/hub/config';
import { parseViTConfig } from '../src/hub/vitConfig';
import { type MemoryQuery, planMemory } from '../src/memory/planner';
import { BertForSequenceClassification } from '../src/models/bert';
import { type ImageBatch, type LabelledBatch, type Model, type TextBatch, weightOfBias } from '../src/models/model';
import { ViTForImageClassification } from '../src/models/vit';
import { ForwardContext } from '../src/nn/context';
import { Random } from '../src/random';
import { type ActivationScheme, SCHEMES } from '../src/tape/scheme';
import { SlimFitTrainer } from '../src/training/trainer';

const { exact, paper, tuned } = SCHEMES;
const RATES = [0, 0.75, 0.9, 0.95];
/** The named schemes, and each encoding in each place that takes it. */
const ENCODINGS: readonly ActivationScheme[] = [
  exact,
  paper,
  tuned,
  ...(['q3.4', 'q8-row', 'q4-row', 'q2.1'] as const).map((e) => ({ ...exact, name: `operands ${e}`, attentionOperands: e })),
  ...(['q0.8', 'u8-row', 'recompute'] as const).map((e) => ({ ...exact, name: `probabilities ${e}`, attentionProbs: e })),
  ...(['q2.1', 'q4-row', 'q8-row', 'q3.4', 'recompute'] as const).map((e) => ({ ...exact, name: `GELU input ${e}`, geluInput: e })),
  ...(['q3.4', 'q8-row'] as const).map((e) => ({ ...exact, name: `down input ${e}`, downProjectionInput: e })),
  ...(['q3.4', 'q8-row'] as const).map((e) => ({ ...exact, name: `linear inputs ${e}`, linearInput: e })),
  ...(['q3.4', 'q8-row'] as const).map((e) => ({ ...exact, name: `normalised values ${e}`, normalizedValues: e })),
  { ...exact, name: 'normalised values and linear inputs', normalizedValues: 'q8-row', linearInput: 'q8-row' },
  { ...exact, name: 'pruned LayerNorms', frozenLayerNormShare: 0.1 },
];

interface Subject {
  readonly name: string;
  readonly whole: boolean;
  readonly batches: readonly number[];
  readonly query: Pick<MemoryQuery, 'kind' | 'config' | 'length'>;
  readonly make: (engine: Engine) => Model<never>;
  readonly batch: (batchSize: number) => LabelledBatch;
}

const random = new Random(1);
const text = (vocabSize: number, length: number) => (batchSize: number): TextBatch => ({
  inputIds: Int32Array.from({ length: batchSize * length }, () => 1 + random.int(vocabSize - 1)),
  tokenTypeIds: new Int32Array(batchSize * length),
  attentionMask: new Int32Array(batchSize * length).fill(1, 1),
  labels: new Int32Array(batchSize),
  batchSize,
  length,
});
const image = (side: number) => (batchSize: number): ImageBatch => ({
  pixelValues: Float32Array.from({ length: batchSize * 3 * side ** 2 }, () => random.normal()),
  labels: new Int32Array(batchSize),
  batchSize,
  channels: 3,
  height: side,
  width: side,
});
const bertSubject = (name: string, json: object, length: number, batches: readonly number[], whole: boolean): Subject => {
  const config = parseBertConfig({ model_type: 'bert', ...json });
  return { name, whole, batches, query: { kind: 'sequence-classification', config, length }, make: (e) => BertForSequenceClassification.fresh(e, config, 1) as never, batch: text(config.vocabSize, length) };
};
const vitSubject = (name: string, json: object, batches: readonly number[], whole: boolean): Subject => {
  const config = parseViTConfig({ model_type: 'vit', num_labels: 10, ...json });
  return { name, whole, batches, query: { kind: 'image-classification', config }, make: (e) => ViTForImageClassification.fresh(e, config) as never, batch: image(config.imageSize) };
};
const SUBJECTS: readonly Subject[] = [
  bertSubject('BERT tiny', { hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 256, vocab_size: 500 }, 33, [3, 8], true),
  vitSubject('ViT tiny', { image_size: 32, patch_size: 4, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 256 }, [3, 8], true),
  bertSubject('BERT-base, 48 tokens', {}, 48, [1, 4], false),
  vitSubject('ViT-Base, 224 pixels', { image_size: 224, patch_size: 16 }, [1, 2], false),
];

/** Bytes of one case: what is kept, by the three counts; the peaks of a whole step. */
interface Counts {
  readonly planned: number;
  readonly ledger: number;
  readonly engine: number;
  readonly plannedPeak?: number;
  readonly peak?: number;
}

async function wholeStep(subject: Subject, engine: Engine, options: { mode: ActivationScheme; frozen: readonly string[]; frozenBiases: boolean }, batchSize: number): Promise<Counts> {
  const model = subject.make(engine);
  const batch = subject.batch(batchSize) as never;
  const frozen = model.layers.flatMap((l, i) => (options.frozen.includes(l.name) ? [i] : []));
  const trainer = new SlimFitTrainer<never>({
    ...options, model, train: { size: batchSize, batch: () => batch }, batchSize, totalSteps: 10, schedule: 'constant', measureEncodingsEvery: 0, onWarning: () => {},
    policy: (layers) => ({ name: 'fixed', magnitudes: new Float64Array(layers.length), select: (step) => (step === 0 ? [] : frozen), observe: () => {}, state: () => ({}), restore: () => {} }),
  });
  await trainer.step();
  const { memory, activationBytes } = await trainer.step();
  const plan = planMemory({ ...subject.query, ...options, batchSize, frozen: options.frozen });
  trainer.dispose();
  model.dispose();
  return { planned: plan.activationBytes, ledger: activationBytes, engine: memory.peak.activations, plannedPeak: plan.peakBytes, peak: memory.totalPeak };
}

function forwardOnly(subject: Subject, model: Model<never>, options: { mode: ActivationScheme; frozen: readonly string[]; frozenBiases: boolean }, batchSize: number): Counts {
  const { engine } = model;
  const layers = new Set(model.layers.map((l) => l.name));
  for (const p of model.parameters.values()) {
    const decides = options.frozenBiases ? weightOfBias(p.name) : p.name;
    p.trains = !layers.has(decides) || !options.frozen.includes(decides);
  }
  const ctx = ForwardContext.training(engine, options.mode, 1, 0);
  const out = model.forwardWithLoss(ctx, subject.batch(batchSize) as never);
  engine.free(out.logits.tensor, out.loss.tensor);
  const counts = { planned: planMemory({ ...subject.query, ...options, batchSize }).activationBytes, ledger: ctx.tape.ledger.totalBytes, engine: engine.memory().live.activations };
  ctx.tape.dispose();
  return counts;
}

async function main(): Promise<void> {
  const engine = await chooseEngine();
  process.stdout.write('| model | batches | cases | kept, MiB | planner − ledger | engine − ledger | planned − real peak |\n|---|---|---|---|---|---|---|\n');
  for (const subject of SUBJECTS) {
    const names = planMemory({ ...subject.query, batchSize: 1, frozen: [] }).trains;
    const model = subject.whole ? undefined : subject.make(engine);
    const all: Counts[] = [];
    for (const rate of RATES)
      for (const mode of ENCODINGS)
        for (const batchSize of subject.batches) {
          const order = random.permutation(names.length);
          const frozen = names.filter((_, i) => order[i] < Math.floor(rate * names.length));
          const options = { mode, frozen, frozenBiases: mode === tuned };
          all.push(model ? forwardOnly(subject, model, options, batchSize) : await wholeStep(subject, engine, options, batchSize));
        }
    model?.dispose();
    const largest = (of: (c: Counts) => number) => Math.max(...all.map((c) => Math.abs(of(c))));
    const kept = all.map((c) => c.ledger / 2 ** 20);
    const peak = subject.whole ? `${(100 * largest((c) => c.plannedPeak! / c.peak! - 1)).toFixed(2)} %` : 'forward only';
    process.stdout.write(`| ${subject.name} | ${subject.batches.join(', ')} | ${all.length} | ${Math.min(...kept).toFixed(1)}–${Math.max(...kept).toFixed(1)} | ${largest((c) => c.planned - c.ledger)} B | ${largest((c) => c.engine - c.ledger)} B | ${peak} |\n`);
  }
  engine.dispose();
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
