/**
 * Kills trainings without warning and goes on with them: `npm run bench:kill [-- --rounds 50 --seed 1]`. Half of the kills come at a random moment of the run, half while a checkpoint is being written. Each is followed by
 * `slimfit train --resume` to the end, and weights, moments and history (but for times) are compared with those of a run that nobody stopped.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Random } from '../src/random';
import { KillRounds, type KillRound } from '../test/training/kill/rounds';

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { rounds: { type: 'string', default: '50' }, seed: { type: 'string', default: '1' } } });
  const random = new Random(Number(values.seed));
  const root = mkdtempSync(path.join(tmpdir(), 'slimfit-kill-'));
  const runs = new Map<number, KillRounds>();
  const all: KillRound[] = [];
  process.stdout.write('| round | save steps | killed | ms after start | half-written checkpoints | last good checkpoint | went on after step | equal |\n|---|---|---|---|---|---|---|---|\n');
  for (let i = 0; i < Number(values.rounds); i++) {
    const saveSteps = 1 + random.int(3);
    if (!runs.has(saveSteps)) runs.set(saveSteps, await KillRounds.begin(root, saveSteps));
    const [r] = await runs.get(saveSteps)!.round(i, [KillRounds.moment(random, i)]);
    all.push(r);
    process.stdout.write(`| ${i + 1} | ${saveSteps} | ${r.moment} | ${r.killedAfter} | ${r.halfWritten} | ${r.lastGood ?? '–'} | ${r.resumedAt} | ${r.equal ? 'yes' : 'NO'} |\n`);
  }
  const count = (of: (r: KillRound) => boolean) => all.filter(of).length;
  process.stdout.write(`\n${all.length} kills: ${count((r) => r.equal)} ended equal; ${count((r) => r.halfWritten > 0)} left a half-written checkpoint; ${count((r) => r.lastGood === undefined)} came before the first checkpoint, ${count((r) => r.resumedAt === 10)} after the last step\n`);
  if (count((r) => r.equal) === all.length) rmSync(root, { recursive: true, force: true });
  else process.exitCode = 1;
}

void main();
