/** A process that works on a study: `studyChild.ts FOLDER LOG SEEDS STEPS`. */
import { study } from '../../src/training/study';
import { cpuEngine } from '../models/fixtures';
import { TINY_SETTINGS, tinyTask } from './studyTask';

async function main(): Promise<void> {
  const [folder, log, seeds, steps] = process.argv.slice(2);
  const results = await study({
    folder,
    task: tinyTask(log),
    policies: ['ils'],
    freezeRates: [0.5],
    seeds: seeds.split(',').map(Number),
    trainer: { ...TINY_SETTINGS, totalSteps: Number(steps) },
    engine: await cpuEngine(),
    onProgress: () => {},
    onNotice: () => {},
  });
  process.stdout.write(`${results.runs.length} of ${results.jobs.length}\n`);
}

void main();
