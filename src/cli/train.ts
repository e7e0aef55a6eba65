/** `slimfit train`: fine-tunes a BERT on a GLUE task without a notebook, and writes checkpoint, metrics and history. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { embeddedModel } from '../data/embedded/embedded';
import { generateAcceptability } from '../data/embedded/grammar';
import { type GlueTask, glueTask, loadGlue } from '../data/glue';
import { TextDataset } from '../data/textDataset';
import { Tokenizer } from '../data/tokenizer';
import { chooseEngine } from '../engine/choose';
import { InterruptedError, InvalidArgumentError } from '../errors';
import { checkFreezeRate } from '../freezing/ils';
import { AutoModelForSequenceClassification } from '../models/auto';
import type { PaperSchedule } from '../optim/schedules';
import { saveHistory } from '../training/historyFile';
import { ProgressLine } from '../progress';
import { SlimFitTrainer, type TrainerOptions } from '../training/trainer';

const HELP = `slimfit train --task NAME --out DIR [options]

  --model DIR          Hugging Face folder of a BERT, DistilBERT or RoBERTa with its tokenizer; default: the small BERT that SlimFit brings along
  --tokenizer DIR      folder of the vocabulary, if not the model's
  --from-scratch       draw all weights afresh: only config.json of --model is read
  --task NAME          cola, sst2, mrpc, rte, stsb, qnli, qqp, mnli, wnli; or grammar, generated sentences
  --data DIR           GLUE's folder, or the task's own
  --out DIR            where checkpoint, metrics.json and the history's CSV files go
  --freeze-rate F      share of the layers frozen in a step, in [0, 1); default 0.9
  --mode paper|exact   how activations are kept; default paper
  --epochs N           default 3
  --steps N            stop after so many steps
  --batch-size N       default 32
  --learning-rate R    default 5e-5
  --schedule NAME      linear, constant, glue, stsb, warm; default linear
  --warmup-steps N     default 0
  --max-length N       tokens; default 128
  --seed N             default 43
`;

const OPTIONS = {
  help: { type: 'boolean', short: 'h' },
  model: { type: 'string' },
  tokenizer: { type: 'string' },
  'from-scratch': { type: 'boolean' },
  task: { type: 'string' },
  data: { type: 'string' },
  out: { type: 'string' },
  'freeze-rate': { type: 'string', default: '0.9' },
  mode: { type: 'string', default: 'paper' },
  epochs: { type: 'string', default: '3' },
  steps: { type: 'string' },
  'batch-size': { type: 'string', default: '32' },
  'learning-rate': { type: 'string', default: '5e-5' },
  schedule: { type: 'string', default: 'linear' },
  'warmup-steps': { type: 'string', default: '0' },
  'max-length': { type: 'string', default: '128' },
  seed: { type: 'string', default: '43' },
} as const;

/** @returns the exit code: 0 done, 130 stopped by Ctrl-C (what was trained so far is written) */
export async function train(argv: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...argv], options: OPTIONS });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const number = (name: keyof typeof OPTIONS): number => {
    const n = Number(values[name]);
    if (values[name] === '' || Number.isNaN(n)) throw new InvalidArgumentError(`--${name} is '${String(values[name])}', no number`);
    return n;
  };
  const { task: taskName, out } = values;
  if (!taskName || !out) throw new InvalidArgumentError(`${taskName ? '--out DIR' : '--task NAME'} is missing\n\n${HELP}`);
  // Everything that can be wrong is looked at before anything is loaded or written.
  const freezeRate = number('freeze-rate');
  checkFreezeRate(freezeRate);
  const batchSize = number('batch-size');
  if (!(Number.isInteger(batchSize) && batchSize >= 1)) throw new InvalidArgumentError(`--batch-size is ${values['batch-size']}; it must be a whole number of at least 1`);
  const task = taskName === 'grammar' ? GRAMMAR : glueTask(taskName);
  const examples = readExamples(task, values.data);
  const modelFolder = values.model ?? embeddedModel();
  const tokenizer = Tokenizer.fromFolder(values.tokenizer ?? modelFolder);
  const seed = number('seed');
  const engine = await chooseEngine();
  const options = { engine, seed, ...(task.labels.length > 0 ? { labels: task.labels } : { numLabels: 1 }) };
  const model = await (values['from-scratch'] ? AutoModelForSequenceClassification.fromConfigFolder(modelFolder, options) : AutoModelForSequenceClassification.fromPretrained(modelFolder, options));
  const data = (rows: typeof examples.train) => new TextDataset(rows, tokenizer, { maxLength: number('max-length'), regression: task.numLabels === 1 });
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  const trainer = new SlimFitTrainer({
    model,
    train: data(examples.train),
    evaluation: data(examples.dev),
    metrics: task.metrics,
    freezeRate,
    mode: values.mode as TrainerOptions['mode'],
    epochs: number('epochs'),
    batchSize,
    learningRate: number('learning-rate'),
    schedule: values.schedule as 'linear' | 'constant' | PaperSchedule,
    warmupSteps: number('warmup-steps'),
    seed,
    signal: stop.signal,
  });
  const steps = values.steps === undefined ? trainer.totalSteps : Math.min(number('steps'), trainer.totalSteps);
  process.stderr.write(`${task.name}: ${examples.train.length} training and ${examples.dev.length} development examples on ${engine.name}, ${engine.device}\n`);
  const before = await trainer.evaluate();
  const progress = new ProgressLine('training', steps);
  let stopped = false;
  try {
    for await (const record of trainer.steps(steps)) progress.update(record.step + 1, `loss ${record.loss.toFixed(4)}`);
  } catch (error) {
    if (!(error instanceof InterruptedError)) throw error;
    stopped = true;
  }
  progress.end();
  // Also after Ctrl-C, so that the report is whole.
  const after = await trainer.evaluate(undefined, { ignoreSignal: true });
  mkdirSync(out, { recursive: true });
  await model.savePretrained(out, tokenizer);
  saveHistory(trainer.history, out);
  const peak = Math.max(0, ...trainer.history.column('totalPeakBytes'));
  const report = { task: task.name, steps: trainer.nextStep, stopped, freezeRate, engine: engine.name, before: { loss: before.loss, ...before.metrics }, after: { loss: after.loss, ...after.metrics }, peakBytes: peak };
  writeFileSync(path.join(out, 'metrics.json'), `${JSON.stringify(report, null, 2)}\n`);
  process.stdout.write(`${JSON.stringify(report)}\n`);
  trainer.dispose();
  model.dispose();
  engine.dispose();
  return stopped ? 130 : 0;
}

const GRAMMAR: GlueTask = { ...glueTask('cola'), name: 'grammar', folder: '' };

function readExamples(task: GlueTask, folder: string | undefined): ReturnType<typeof loadGlue> {
  if (task === GRAMMAR) {
    const all = generateAcceptability(9000, 1);
    return { train: all.slice(0, 8000), dev: all.slice(8000) };
  }
  if (!folder) throw new InvalidArgumentError(`--data DIR is missing: the folder that holds ${task.folder}`);
  return loadGlue(task, folder);
}
