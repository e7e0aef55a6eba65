/**
 * Real fine-tuning, full against freeze rates, over seeds: `npm run bench:finetune -- --task mrpc --model DIR --data DIR` or `--task cifar100`. One line of JSON per run, appended to `--log FILE`; runs that
 * stand there already are not done again. Ends with the table of bench/README.md.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { readCifar100 } from '../src/data/cifar';
import { glueTask, loadGlue } from '../src/data/glue';
import { ImageDataset } from '../src/data/imageDataset';
import { readImageProcessor } from '../src/data/imageProcessor';
import { accuracy, argmaxRows } from '../src/data/metrics';
import { cifarAugmentation } from '../src/data/pixels/augmentation';
import { TextDataset } from '../src/data/textDataset';
import { Tokenizer } from '../src/data/tokenizer';
import { chooseEngine } from '../src/engine/choose';
import type { Engine, UpdateMagnitude } from '../src/engine/engine';
import type { BatchSource, LabelledBatch, Model, Predictions } from '../src/models/model';
import { BertForSequenceClassification } from '../src/models/bert';
import { ViTForImageClassification } from '../src/models/vit';
import { SlimFitTrainer, type TrainerOptions } from '../src/training/trainer';

const { values } = parseArgs({
  options: {
    task: { type: 'string', default: 'mrpc' },
    model: { type: 'string' },
    data: { type: 'string' },
    log: { type: 'string' },
    rates: { type: 'string', default: '0,0.75,0.9,0.95' },
    seeds: { type: 'string', default: '43,44,45' },
    steps: { type: 'string' },
    epochs: { type: 'string', default: '3' },
    'batch-size': { type: 'string', default: '16' },
    'max-length': { type: 'string', default: '64' },
    'learning-rate': { type: 'string', default: '1e-4' },
    magnitude: { type: 'string', default: 'mean-relative' },
  },
});

/** Result of one run. */
interface Run {
  readonly task: string;
  readonly rate: number;
  readonly seed: number;
  readonly steps: number;
  readonly metrics: Readonly<Record<string, number>>;
  /** Means and largest over the steps after the first sweep. */
  readonly activationBytes: number;
  readonly peakBytes: number;
  readonly millisecondsPerStep: number;
}

/** What a task needs for one run with a seed. */
interface Prepared<Batch extends LabelledBatch> {
  readonly model: Model<Batch>;
  readonly train: BatchSource<Batch>;
  readonly evaluation: BatchSource<Batch>;
  readonly metrics: (p: Predictions) => Readonly<Record<string, number>>;
  readonly options: Partial<TrainerOptions<Batch>>;
}

function required(name: 'model' | 'data'): string {
  const v = values[name];
  if (!v) throw new Error(`--${name} DIR is missing`);
  return v;
}

async function glue(engine: Engine, seed: number) {
  const task = glueTask(values.task!);
  const { train, dev } = loadGlue(task, required('data'));
  const tokenizer = Tokenizer.fromFolder(required('model'));
  const of = (rows: typeof train) => new TextDataset(rows, tokenizer, { maxLength: Number(values['max-length']) });
  const model = await BertForSequenceClassification.fromPretrained(required('model'), { engine, labels: task.labels, seed, onNotice: () => {} });
  return { model, train: of(train), evaluation: of(dev), metrics: task.metrics, options: { schedule: 'glue' as const } };
}

/** A vision transformer on CIFAR-100, its head drawn afresh. Training images are cut and mirrored. */
async function cifar100(engine: Engine, seed: number) {
  const [folder, data] = [required('model'), required('data')];
  const transform = readImageProcessor(folder);
  const [train, test] = ['train.bin', 'test.bin'].map((f) => readCifar100(path.join(data, f)));
  const model = await ViTForImageClassification.fromPretrained(folder, { engine, labels: train.labelNames, seed, onNotice: () => {} });
  return {
    model,
    train: new ImageDataset(train, transform, { augmentation: cifarAugmentation(), seed }),
    evaluation: new ImageDataset(test, transform),
    metrics: (p: Predictions) => ({ accuracy: accuracy(argmaxRows(p.logits, p.numLabels), p.labels) }),
    options: { schedule: 'vit' as const, optimizer: { weightDecay: 0 }, initialMagnitudeScale: 1e7, alwaysTrain: ['classifier.weight'] },
  };
}

async function train<Batch extends LabelledBatch>({ model, train, evaluation, metrics, options }: Prepared<Batch>, rate: number, seed: number): Promise<Run> {
  const trainer = new SlimFitTrainer<Batch>({
    model,
    train,
    evaluation,
    metrics,
    freezeRate: rate,
    mode: rate === 0 ? 'exact' : 'paper',
    batchSize: Number(values['batch-size']),
    epochs: Number(values.epochs),
    ...(values.steps ? { totalSteps: Number(values.steps) } : {}),
    learningRate: Number(values['learning-rate']),
    magnitude: values.magnitude as UpdateMagnitude,
    measureEncodingsEvery: 0,
    seed,
    ...options,
    onWarning: () => {},
  });
  for await (const r of trainer.steps()) if (r.step % 100 === 0) process.stderr.write(`rate ${rate} seed ${seed} step ${r.step} of ${trainer.totalSteps}: loss ${r.loss.toFixed(4)}\n`);
  const { metrics: last } = await trainer.evaluate();
  const history = trainer.history;
  const mean = (a: ArrayLike<number>) => Array.from(a).reduce((s, v) => s + v, 0) / a.length;
  const median = (a: ArrayLike<number>) => Array.from(a).sort((x, y) => x - y)[a.length >> 1];
  const run: Run = {
    task: values.task!,
    rate,
    seed,
    steps: trainer.nextStep,
    metrics: last,
    activationBytes: mean(history.column('activationBytes')),
    peakBytes: Math.max(...history.column('totalPeakBytes')),
    millisecondsPerStep: median(history.column('milliseconds')),
  };
  trainer.dispose();
  model.dispose();
  return run;
}

function table(runs: readonly Run[]): string {
  const names = Object.keys(runs[0].metrics);
  const stats = (x: readonly number[]) => {
    const mean = x.reduce((s, v) => s + v, 0) / x.length;
    const sd = Math.sqrt(x.reduce((s, v) => s + (v - mean) ** 2, 0) / Math.max(1, x.length - 1));
    return { mean, sd };
  };
  const rows = [...new Set(runs.map((r) => r.rate))].map((rate) => {
    const of = runs.filter((r) => r.rate === rate);
    const percent = (n: string) => {
      const { mean, sd } = stats(of.map((r) => 100 * r.metrics[n]));
      return `${mean.toFixed(1)} ± ${sd.toFixed(1)}`;
    };
    const mib = (f: (r: Run) => number) => (stats(of.map(f)).mean / 2 ** 20).toFixed(1);
    return `| ${rate === 0 ? 'full fine-tuning' : rate} | ${names.map(percent).join(' | ')} | ${mib((r) => r.activationBytes)} | ${mib((r) => r.peakBytes)} | ${(stats(of.map((r) => r.millisecondsPerStep)).mean / 1000).toFixed(3)} |`;
  });
  return [`| freeze rate | ${names.map((n) => `${n} %`).join(' | ')} | activations MiB | peak MiB | s a step |`, `|---|${names.map(() => '---|').join('')}---|---|---|`, ...rows].join('\n');
}

async function main(): Promise<void> {
  const { log } = values;
  const runs: Run[] = log && existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n').map((l) => JSON.parse(l) as Run).filter((r) => r.task === values.task) : [];
  const engine = await chooseEngine();
  for (const seed of values.seeds!.split(',').map(Number))
    for (const rate of values.rates!.split(',').map(Number)) {
      if (runs.some((r) => r.rate === rate && r.seed === seed)) continue;
      const run = values.task === 'cifar100' ? await train(await cifar100(engine, seed), rate, seed) : await train(await glue(engine, seed), rate, seed);
      runs.push(run);
      if (log) appendFileSync(log, `${JSON.stringify(run)}\n`);
    }
  engine.dispose();
  process.stdout.write(`${table(runs)}\n`);
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
