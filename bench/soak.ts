/**
 * A long training with everything looked at: `npm run bench:soak [-- --steps 2000 --every 200]`. The embedded BERT, freeze rate 0.9; in every step the record's display and the live view, in every tenth the tables, the preview, and
 * what the encodings do; in every fiftieth the figures; a checkpoint every 200; an evaluation every 200; every 250 a snapshot, and 20 steps later back to it. Prints tensors, bytes and handles as they stand between steps, garbage collected, and
 * at the end whether they stayed. The history grows with every step, as it is meant to: its arrays are counted apart. Exit code 1 when something else grows.
 */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { embeddedModel } from '../src/data/embedded/embedded';
import { generateAcceptability } from '../src/data/embedded/grammar';
import { glueTask } from '../src/data/glue';
import { TextDataset } from '../src/data/textDataset';
import { Tokenizer } from '../src/data/tokenizer';
import { chooseEngine } from '../src/engine/choose';
import { freezeMapFigure, freezingSavesFigure } from '../src/inspect/freezeFigures';
import { encodingErrorFigure } from '../src/inspect/healthFigures';
import type { MimeBundle } from '../src/inspect/kernelApi';
import { updateMagnitudeFigure } from '../src/inspect/magnitudeFigures';
import { activationMemoryOverStepsFigure, stepMemoryFigure } from '../src/inspect/memoryFigures';
import { lossFigure } from '../src/inspect/runFigures';
import { activationsTable, healthTable } from '../src/inspect/tables';
import { tableBundle } from '../src/inspect/tableHtml';
import { BertForSequenceClassification } from '../src/models/bert';
import type { History } from '../src/training/history';
import { SlimFitTrainer } from '../src/training/trainer';

const MIB = 2 ** 20;

/** What is counted, how it is written, and how much of it a thousand steps may add: noise of the collector and of the allocator. */
const COUNTS = {
  tensors: { unit: 1, digits: 0, allowed: 0 },
  'engine MiB': { unit: MIB, digits: 2, allowed: 0 },
  'JS heap MiB': { unit: MIB, digits: 1, allowed: 1 },
  'buffers MiB, less history': { unit: MIB, digits: 1, allowed: 1 },
  'history MiB': { unit: MIB, digits: 1, allowed: Infinity },
  'RSS MiB': { unit: MIB, digits: 0, allowed: 16 },
  'file descriptors': { unit: 1, digits: 0, allowed: 0 },
  'open handles': { unit: 1, digits: 0, allowed: 0 },
} as const;
type Count = keyof typeof COUNTS;

/** Bytes that the arrays of a history take, the room that they grow into included. */
function historyBytes(history: History): number {
  return [...history.parts().columns.values()].reduce((sum, values) => sum + values.buffer.byteLength, 0);
}

function descriptors(): number {
  try {
    return readdirSync('/proc/self/fd').length;
  } catch {
    return NaN;
  }
}

/** Slope of the least-squares line through (x, y). */
function slope(x: readonly number[], y: readonly number[]): number {
  const mean = (v: readonly number[]) => v.reduce((a, b) => a + b, 0) / v.length;
  const [mx, my] = [mean(x), mean(y)];
  return x.reduce((s, v, i) => s + (v - mx) * (y[i] - my), 0) / x.reduce((s, v) => s + (v - mx) ** 2, 0);
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { steps: { type: 'string', default: '2000' }, every: { type: 'string', default: '200' } } });
  const [steps, every] = [Number(values.steps), Number(values.every)];
  setFlagsFromString('--expose_gc');
  const collect = runInNewContext('gc') as () => void;
  const shown: Record<string, number> = {};
  const show = (name: string, bundle: MimeBundle) => (shown[name] = Math.max(shown[name] ?? 0, JSON.stringify(bundle).length));
  // A notebook that takes what is shown and forgets it.
  const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
  Object.assign(globalThis, { [Symbol.for('slimfit.kernel')]: { version: 1, display: (data: MimeBundle) => show('live view', data), checkpoint: turn, throwIfInterrupted() {}, signal: undefined } });
  const display = (name: string, value: object) => show(name, (value as Record<symbol, () => MimeBundle>)[Symbol.for('Jupyter.display')]());

  const engine = await chooseEngine();
  const task = glueTask('cola');
  const tokenizer = Tokenizer.fromFolder(embeddedModel());
  const model = await BertForSequenceClassification.fromPretrained(embeddedModel(), { engine, labels: task.labels, onNotice: () => {} });
  const dir = mkdtempSync(path.join(tmpdir(), 'slimfit-soak-'));
  const trainer = new SlimFitTrainer({
    model, freezeRate: 0.9, batchSize: 32, totalSteps: steps, learningRate: 2e-4, metrics: task.metrics, processingClass: tokenizer, measureEncodingsEvery: 10, onNonFinite: 'skip', onWarning: () => {},
    train: new TextDataset(generateAcceptability(2000, 1), tokenizer, { maxLength: 24 }),
    evaluation: new TextDataset(generateAcceptability(200, 2), tokenizer, { maxLength: 24 }),
    checkpoints: { dir, saveSteps: 200, saveTotalLimit: 2 },
  });
  const at: number[] = [];
  const counts = Object.fromEntries(Object.keys(COUNTS).map((c) => [c, [] as number[]])) as Record<Count, number[]>;
  process.stdout.write(`${engine.name}, ${engine.device}\n| steps run | ${Object.keys(COUNTS).join(' | ')} |\n|${'---|'.repeat(9)}\n`);
  const measure = async (done: number) => {
    for (let i = 0; i < 3; i++) {
      await turn();
      collect();
    }
    const { totalLive, tensors } = engine.memory();
    const { rss, heapUsed, arrayBuffers } = process.memoryUsage();
    const history = historyBytes(trainer.history);
    const now: Record<Count, number> = {
      tensors, 'engine MiB': totalLive, 'JS heap MiB': heapUsed, 'buffers MiB, less history': arrayBuffers - history, 'history MiB': history, 'RSS MiB': rss, 'file descriptors': descriptors(), 'open handles': process.getActiveResourcesInfo().length,
    };
    at.push(done);
    for (const [name, v] of Object.entries(now) as [Count, number][]) counts[name].push(v / COUNTS[name].unit);
    process.stdout.write(`| ${done} | ${(Object.keys(COUNTS) as Count[]).map((c) => counts[c].at(-1)!.toFixed(COUNTS[c].digits)).join(' | ')} |\n`);
  };
  let done = 0;
  let rewinds = 0;
  while (done < steps) {
    trainer.live();
    for await (const record of trainer.steps(every)) {
      done++;
      display('record', record);
      if (done % 10 === 0) {
        display('preview', trainer.peek());
        for (const [name, table] of Object.entries({ layers: trainer.layers(), activations: activationsTable(trainer), health: healthTable(trainer), steps: trainer.history.steps() })) show(`table of ${name}`, tableBundle(table));
      }
      if (done % 50 === 0)
        for (const figure of [freezeMapFigure, freezingSavesFigure, lossFigure, updateMagnitudeFigure, activationMemoryOverStepsFigure, stepMemoryFigure, encodingErrorFigure]) display(figure.name, figure(trainer));
      if (done % 250 === 110) await trainer.snapshot();
      if (done % 250 === 130) {
        // Back by the steps since the snapshot, which are run again: of what follows it nothing is to be left.
        const [step] = trainer.snapshots;
        trainer.rewind(step);
        trainer.forgetSnapshots();
        rewinds++;
      }
      if (done % every === 0) break;
    }
    await trainer.evaluate();
    await measure(done);
  }
  // The first quarter fills caches and makes the moments of every layer.
  const from = Math.min(at.length - 2, Math.max(0, at.findIndex((n) => n >= steps / 4)));
  const x = at.slice(from);
  process.stdout.write(`\nFrom step ${x[0]} to ${x.at(-1)}, a thousand steps add:\n`);
  for (const name of Object.keys(COUNTS) as Count[]) {
    const per = 1000 * slope(x, counts[name].slice(from));
    const { allowed } = COUNTS[name];
    const grows = per > allowed + 1e-9;
    if (grows) process.exitCode = 1;
    process.stdout.write(`  ${name}: ${per.toFixed(2)}${allowed === Infinity ? ', as it is meant to' : grows ? ` GROWS (${allowed} allowed)` : ', flat'}\n`);
  }
  const entries = trainer.history.length;
  process.stdout.write(`${rewinds} times back to a snapshot, ${readdirSync(dir).length} checkpoints kept, ${entries} steps in the history: ${(historyBytes(trainer.history) / entries / 1024).toFixed(1)} KiB a step; largest displays: ${Object.entries(shown).map(([name, n]) => `${name} ${Math.round(n / 1024)} KiB`).join(', ')}\n`);
  trainer.dispose();
  model.dispose();
  process.stdout.write(`${engine.memory().tensors} tensors left\n`);
  if (engine.memory().tensors > 0) process.exitCode = 1;
  engine.dispose();
  rmSync(dir, { recursive: true, force: true });
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
