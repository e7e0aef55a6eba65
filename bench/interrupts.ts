/**
 * Interrupts of a training at random moments: `npm run bench:interrupts [-- --rounds 50 --seed 1]`. Through an AbortSignal in one process, on the embedded BERT, and by SIGINT to `slimfit train`, which writes a checkpoint and is gone on
 * with by --resume. Of each: milliseconds until training stopped, steps that were finished after it was sent and after the process heard it (on a machine whose processors are
 * all busy the system takes its time to deliver a signal), and whether the run ended as one that nobody stopped, to the bit.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { embeddedModel } from '../src/data/embedded/embedded';
import { generateAcceptability } from '../src/data/embedded/grammar';
import { glueTask } from '../src/data/glue';
import { TextDataset } from '../src/data/textDataset';
import { Tokenizer } from '../src/data/tokenizer';
import { chooseEngine } from '../src/engine/choose';
import { InterruptedError } from '../src/errors';
import { BertForSequenceClassification } from '../src/models/bert';
import { Random } from '../src/random';
import { listCheckpoints } from '../src/training/checkpointFolder';
import { loadHistory } from '../src/training/historyFile';
import { SlimFitTrainer } from '../src/training/trainer';

interface Round {
  /** Milliseconds from sending to the end of training. */
  readonly latency: number;
  readonly stepsAfterSent: number;
  readonly stepsAfterHeard: number;
}

/** Through an AbortSignal. @returns the rounds, milliseconds of a step, and whether the run ended as the uninterrupted one */
async function bySignal(rounds: number, random: Random): Promise<{ all: Round[]; stepMs: number; equal: boolean; leaked: number }> {
  const engine = await chooseEngine();
  const tokenizer = Tokenizer.fromFolder(embeddedModel());
  const train = new TextDataset(generateAcceptability(2000, 1), tokenizer, { maxLength: 24 });
  const begin = async () => {
    const model = await BertForSequenceClassification.fromPretrained(embeddedModel(), { engine, labels: glueTask('cola').labels, onNotice: () => {} });
    return { model, trainer: new SlimFitTrainer({ model, train, freezeRate: 0.9, batchSize: 32, totalSteps: 100_000, learningRate: 1e-4, schedule: 'constant', onWarning: () => {} }) };
  };
  const hashOf = async ({ model, trainer }: Awaited<ReturnType<typeof begin>>) => {
    const hash = createHash('sha256').update(JSON.stringify(trainer.policy.state())).update(JSON.stringify([...trainer.history.column('loss')]));
    for (const { data } of (await model.weights()).values()) hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return hash.digest('hex');
  };
  const run = await begin();
  for await (const _ of run.trainer.steps(20));
  const { tensors } = engine.memory();
  const all: Round[] = [];
  let leaked = 0;
  for (let i = 0; i < rounds; i++) {
    const stop = new AbortController();
    const ends: number[] = [];
    const due = performance.now() + random.uniform() * 250;
    let heard = Infinity;
    setTimeout(() => {
      heard = performance.now();
      stop.abort();
    }, due - performance.now());
    try {
      for await (const _ of run.trainer.steps(10_000, { signal: stop.signal })) ends.push(performance.now());
    } catch (error) {
      if (!(error instanceof InterruptedError)) throw error;
    }
    all.push({ latency: performance.now() - due, stepsAfterSent: ends.filter((t) => t > due).length, stepsAfterHeard: ends.filter((t) => t > heard).length });
    leaked = Math.max(leaked, engine.memory().tensors - tensors);
    await run.trainer.step();
  }
  const times = run.trainer.history.column('milliseconds');
  const done = run.trainer.nextStep;
  const interrupted = await hashOf(run);
  run.trainer.dispose();
  run.model.dispose();
  const other = await begin();
  for await (const _ of other.trainer.steps(done));
  const equal = (await hashOf(other)) === interrupted;
  other.trainer.dispose();
  other.model.dispose();
  leaked = Math.max(leaked, engine.memory().tensors);
  engine.dispose();
  return { all, stepMs: median([...times]), equal, leaked };
}

/** Runs the command; with `until`, interrupts it so many milliseconds after its first step. @returns exit code and notes */
async function command(out: string, steps: number, until?: number): Promise<{ code: number | null; sent: number; notes: [what: string, at: number][] }> {
  const file = `${out}.notes`;
  rmSync(file, { force: true });
  const args = ['--task', 'grammar', '--batch-size', '32', '--max-length', '24', '--max-eval-samples', '8', '--skip-first-evaluation', '--freeze-rate', '0.9', '--epochs', '10', '--steps', String(steps), '--save-steps', '100000', '--save-total-limit', '1', '--resume', '--out', out];
  const child = spawn(process.execPath, ['--import', 'tsx', path.join(__dirname, 'interruptsChild.ts'), file, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (d) => (said += String(d)));
  const exit = new Promise<number | null>((resolve) => child.on('close', resolve));
  let over = false;
  void exit.then(() => (over = true));
  let sent = Infinity;
  if (until !== undefined) {
    while (!existsSync(file) && !over) await sleep(5);
    await sleep(until);
    sent = Date.now();
    if (!over) child.kill('SIGINT');
  }
  const code = await exit;
  if (code !== 0 && code !== 130) throw new Error(`slimfit train ended with ${code}: ${said}`);
  return { code, sent, notes: readFileSync(file, 'utf8').trim().split('\n').map((l) => [l.slice(0, l.lastIndexOf(' ')), Number(l.slice(l.lastIndexOf(' ') + 1))]) };
}

/** By SIGINT, again and again, until there were so many; then to the end. */
async function bySigint(rounds: number, random: Random): Promise<{ all: Round[]; equal: boolean }> {
  const root = mkdtempSync(path.join(tmpdir(), 'slimfit-interrupts-'));
  const [parts, whole] = ['parts', 'whole'].map((n) => path.join(root, n));
  const all: Round[] = [];
  while (all.length < rounds) {
    const { code, sent, notes } = await command(parts, 100_000, random.uniform() * 300);
    if (code !== 130) throw new Error('it ended before it was interrupted');
    const stopped = notes.find(([what]) => what === 'stopped');
    // It came after the last step's end, while nothing more was to be stopped.
    if (!stopped) continue;
    const heard = notes.findIndex(([what]) => what === 'heard');
    const isStep = ([what]: (typeof notes)[number]) => what.startsWith('step');
    all.push({ latency: stopped[1] - sent, stepsAfterSent: notes.filter((n) => isStep(n) && n[1] > sent).length, stepsAfterHeard: notes.slice(heard).filter(isStep).length });
  }
  const steps = listCheckpoints(parts)[0].step + 3;
  writeFileSync(path.join(root, 'steps'), String(steps));
  const hashOf = (out: string) => {
    const hash = createHash('sha256').update(readFileSync(path.join(out, 'model.safetensors')));
    for (const [name, values] of loadHistory(out).parts().columns) if (!/milliseconds/i.test(name)) hash.update(name).update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return hash.digest('hex');
  };
  await command(parts, steps);
  await command(whole, steps);
  const equal = hashOf(parts) === hashOf(whole);
  if (equal) rmSync(root, { recursive: true, force: true });
  return { all, equal };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

function row(how: string, all: readonly Round[], equal: boolean, leaked: string): void {
  const ms = all.map((r) => r.latency);
  process.stdout.write(`| ${how} | ${all.length} | ${median(ms).toFixed(0)} | ${Math.max(...ms).toFixed(0)} | ${Math.max(...all.map((r) => r.stepsAfterSent))} | ${Math.max(...all.map((r) => r.stepsAfterHeard))} | ${leaked} | ${equal ? 'yes' : 'NO'} |\n`);
  if (!equal || all.some((r) => r.stepsAfterHeard > 1)) process.exitCode = 1;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { rounds: { type: 'string', default: '50' }, seed: { type: 'string', default: '1' } } });
  const random = new Random(Number(values.seed));
  process.stdout.write('| interrupted by | times | median ms until it stopped | at most | steps finished after it was sent, at most | after it was heard | tensors left | ends as a run that nobody stopped |\n|---|---|---|---|---|---|---|---|\n');
  const signal = await bySignal(Number(values.rounds), random);
  row(`AbortSignal (a step: ${signal.stepMs.toFixed(0)} ms)`, signal.all, signal.equal, String(signal.leaked));
  const sigint = await bySigint(Number(values.rounds), random);
  row('SIGINT to `slimfit train`, then `--resume`', sigint.all, sigint.equal, '–');
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
