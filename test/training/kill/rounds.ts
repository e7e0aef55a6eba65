/**
 * Kills a training without warning (SIGKILL) at a random moment, lets `slimfit train --resume` go on, as often as it takes, and compares what is left in the end with a run that nobody stopped. For the test beside this file
 * and for bench/kill.ts.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { embeddedModel } from '../../../src/data/embedded/embedded';
import { loadHistory } from '../../../src/training/historyFile';
import { listCheckpoints } from '../../../src/training/checkpointFolder';
import type { Random } from '../../../src/random';

const ROOT = path.resolve(__dirname, '../../..');
const STEPS = 10;

/** When a training is killed: a share of the time that the whole run takes, or as soon as a checkpoint begins to be written. */
export type KillMoment = { readonly share: number } | { readonly whileWriting: number };

/** What came of one round. */
export interface KillRound {
  readonly moment: string;
  /** Milliseconds after the start. */
  readonly killedAfter: number;
  /** Half-written checkpoints on the disk when it was dead. */
  readonly halfWritten: number;
  /** Steps of the last checkpoint then; undefined for none. */
  readonly lastGood: number | undefined;
  /** Steps after which the next process went on, as it said; undefined when it was killed before it could. */
  readonly resumedAt: number | undefined;
  /** Whether weights, losses, frozen layers and everything else of the history but times are those of the run that was never stopped. */
  readonly equal: boolean;
}

/** A DistilBERT of 2 layers on sentences of the embedded grammar, written into a folder once. */
function tinyModelFolder(root: string): string {
  const folder = path.join(root, 'model');
  if (existsSync(folder)) return folder;
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify({ model_type: 'distilbert', vocab_size: 479, dim: 32, n_layers: 2, n_heads: 4, hidden_dim: 64, max_position_embeddings: 32 }));
  return folder;
}

interface Child {
  readonly exit: Promise<number | null>;
  readonly stderr: () => string;
  kill(): void;
}

function train(root: string, out: string, saveSteps: number, resume: boolean): Child {
  const args = ['--task', 'grammar', '--model', tinyModelFolder(root), '--tokenizer', embeddedModel(), '--from-scratch', '--batch-size', '4', '--max-length', '16', '--max-train-samples', '26', '--max-eval-samples', '8'];
  const command = ['--import', 'tsx', path.join(ROOT, 'src/cli/main.ts'), 'train', ...args, '--epochs', '2', '--steps', String(STEPS), '--learning-rate', '1e-3', '--freeze-rate', '0.7', '--save-steps', String(saveSteps), '--out', out, ...(resume ? ['--resume'] : [])];
  const child = spawn(process.execPath, command, { cwd: ROOT, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (b: Buffer) => (said += b.toString()));
  const exit = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code));
  });
  return { exit, stderr: () => said, kill: () => void child.kill('SIGKILL') };
}

/** A hash of everything that a run leaves but times. */
function fingerprint(out: string): string {
  const hash = createHash('sha256').update(readFileSync(path.join(out, 'model.safetensors')));
  const { head, columns } = loadHistory(out).parts();
  hash.update(JSON.stringify(head));
  for (const [name, values] of columns) if (!/milliseconds/i.test(name)) hash.update(name).update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  // The last checkpoint too: moments, policy, place in the data.
  const { manifest } = listCheckpoints(out)[0];
  for (const file of ['model.safetensors', 'optimizer.safetensors']) hash.update(manifest!.files[file].sha256);
  return hash.digest('hex');
}

/** Runs that are killed, against one that is not. */
export class KillRounds {
  private constructor(
    private readonly root: string,
    private readonly saveSteps: number,
    private readonly whole: string,
    private readonly milliseconds: number,
  ) {}

  /** Lets a run come to its end, to compare with. */
  static async begin(root: string, saveSteps: number): Promise<KillRounds> {
    const out = path.join(root, `whole-${saveSteps}`);
    const began = performance.now();
    const child = train(root, out, saveSteps, false);
    const code = await child.exit;
    if (code !== 0) throw new Error(`the run that nobody kills ended with ${code}: ${child.stderr()}`);
    return new KillRounds(root, saveSteps, fingerprint(out), performance.now() - began);
  }

  /** A moment that a training can be killed at. Every other one lies in a checkpoint that is being written. */
  static moment(random: Random, round: number): KillMoment {
    return round % 2 === 0 ? { share: 0.25 + 0.75 * random.uniform() } : { whileWriting: 1 + random.int(4) };
  }

  /** One training, killed once at each of these moments, each time gone on with, then to the end. */
  async round(number: number, moments: readonly KillMoment[]): Promise<KillRound[]> {
    const out = path.join(this.root, `killed-${this.saveSteps}-${number}`);
    const before: Omit<KillRound, 'equal' | 'resumedAt'>[] = [];
    const resumedAt: (number | undefined)[] = [];
    const resumed = (child: Child) => {
      const [, steps] = /going on after (\d+) of/.exec(child.stderr()) ?? [];
      resumedAt.push(steps !== undefined ? Number(steps) : /training begins at step 0/.test(child.stderr()) ? 0 : undefined);
    };
    for (const moment of moments) {
      const began = performance.now();
      const child = train(this.root, out, this.saveSteps, before.length > 0);
      let over = false;
      await Promise.race([this.reached(moment, out, () => over), child.exit]);
      over = true;
      child.kill();
      await child.exit;
      if (before.length > 0) resumed(child);
      const left = existsSync(out) ? readdirSync(out) : [];
      before.push({
        moment: 'share' in moment ? `after ${Math.round(100 * moment.share)} % of the time` : `while checkpoint ${moment.whileWriting} of the process is written`,
        killedAfter: Math.round(performance.now() - began),
        halfWritten: left.filter((f) => f.startsWith('.checkpoint-')).length,
        lastGood: listCheckpoints(out)[0]?.step,
      });
    }
    const last = train(this.root, out, this.saveSteps, true);
    const code = await last.exit;
    resumed(last);
    const equal = code === 0 && fingerprint(out) === this.whole && !readdirSync(out).some((f) => f.startsWith('.checkpoint-'));
    if (code !== 0) process.stderr.write(last.stderr());
    if (equal) rmSync(out, { recursive: true, force: true });
    return before.map((b, i) => ({ ...b, resumedAt: resumedAt[i], equal }));
  }

  private async reached(moment: KillMoment, out: string, over: () => boolean): Promise<void> {
    if ('share' in moment) return new Promise((resolve) => setTimeout(resolve, moment.share * this.milliseconds).unref());
    const seen = new Set<string>();
    // A checkpoint of this size takes some milliseconds to write.
    while (!over()) {
      if (existsSync(out)) for (const f of readdirSync(out)) if (f.endsWith('.tmp') && f.startsWith('.checkpoint-')) seen.add(f);
      if (seen.size >= moment.whileWriting) return;
      await new Promise<void>((resolve) => setTimeout(resolve, 1).unref());
    }
  }
}
