/**
 * Gradient checkpointing and gradient accumulation beside and together with SlimFit's schemes: bytes and time of a step of a mid-size BERT (8 layers, hidden 512, batch 16, 128 tokens). A step's frozen
 * layers are those of inter-layer scheduling's first step, in each. Time: the best of three steps, on the clock and of the processors (which other work on the machine disturbs less).
 * Markdown on standard output. `npx tsx bench/checkpointing.ts`; some minutes on two cores.
 */
import { chooseEngine } from '../src/engine/choose';
import { InterLayerScheduling } from '../src/freezing/ils';
import { parseBertConfig } from '../src/hub/config';
import { BertForSequenceClassification } from '../src/models/bert';
import type { BatchSource, TextBatch } from '../src/models/model';
import { Random } from '../src/random';
import type { StepRecord } from '../src/training/stepRecord';
import { SlimFitTrainer, type TrainerOptions } from '../src/training/trainer';

const [B, T, STEPS] = [16, 128, 3];
const MIB = 2 ** 20;
const RUNS: readonly (readonly [string, number, Partial<TrainerOptions>])[] = [
  ['exact, nothing frozen', 0, { mode: 'exact' }],
  ['… + checkpointing', 0, { mode: 'exact', gradientCheckpointing: true }],
  ['… + 4 micro-batches', 0, { mode: 'exact', gradientAccumulationSteps: 4 }],
  ['paper 0.9', 0.9, { mode: 'paper' }],
  ['… + checkpointing', 0.9, { mode: 'paper', gradientCheckpointing: true }],
  ['… + 4 micro-batches', 0.9, { mode: 'paper', gradientAccumulationSteps: 4 }],
  ['tuned 0.9', 0.9, { mode: 'tuned' }],
  ['… + checkpointing', 0.9, { mode: 'tuned', gradientCheckpointing: true }],
  ['… + 4 micro-batches', 0.9, { mode: 'tuned', gradientAccumulationSteps: 4 }],
  ['… + both', 0.9, { mode: 'tuned', gradientCheckpointing: true, gradientAccumulationSteps: 4 }],
];

async function main(): Promise<void> {
  const engine = await chooseEngine();
  const config = parseBertConfig({ model_type: 'bert', hidden_size: 512, num_hidden_layers: 8, num_attention_heads: 8, intermediate_size: 2048 });
  const random = new Random(1);
  const batch: TextBatch = {
    inputIds: Int32Array.from({ length: B * T }, () => 1 + random.int(config.vocabSize - 1)),
    tokenTypeIds: new Int32Array(B * T),
    attentionMask: new Int32Array(B * T).fill(1),
    labels: Int32Array.from({ length: B }, (_, i) => i % 2),
    batchSize: B,
    length: T,
  };
  const train: BatchSource<TextBatch> = { size: B, shape: () => batch, batch: () => batch };
  process.stdout.write('| run | kept for backward MiB | activations at their peak MiB | peak of the step MiB | less weights and moments | s | processor s |\n|---|---|---|---|---|---|---|\n');
  for (const [name, freezeRate, options] of RUNS) {
    const model = BertForSequenceClassification.fresh(engine, config, 1);
    const frozen = freezeRate === 0 ? [] : new InterLayerScheduling(model.layers, { freezeRate, seed: 43 }).select();
    const trainer = new SlimFitTrainer({
      model, train, batchSize: B, totalSteps: 100, learningRate: 1e-5, schedule: 'constant', measureEncodingsEvery: 0, onWarning: () => {}, ...options,
      // The first step makes all moments, as they are once every layer has trained.
      policy: (layers) => ({ name, magnitudes: new Float64Array(layers.length), select: (step) => (step === 0 ? [] : frozen), observe: () => {}, state: () => ({}), restore: () => {} }),
    });
    await trainer.step();
    const { weights, optimizer } = engine.memory().live;
    let [wall, cpu] = [Infinity, Infinity];
    let last: StepRecord | undefined;
    for (let i = 0; i < STEPS; i++) {
      const before = process.cpuUsage();
      last = await trainer.step();
      const { user, system } = process.cpuUsage(before);
      wall = Math.min(wall, last.milliseconds / 1000);
      cpu = Math.min(cpu, (user + system) / 1e6);
    }
    const { activationBytes, memory } = last!;
    const mib = (bytes: number) => (bytes / MIB).toFixed(1);
    process.stdout.write(`| ${name} | ${mib(activationBytes)} | ${mib(memory.peak.activations)} | ${mib(memory.totalPeak)} | ${mib(memory.totalPeak - weights - optimizer)} | ${wall.toFixed(1)} | ${cpu.toFixed(1)} |\n`);
    trainer.dispose();
    model.dispose();
  }
  engine.dispose();
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
