/** `slimfit train` with a note in a file of when each step was finished, when the interrupt was heard, and when training stopped: for bench/interrupts.ts. First argument: that file. */
import { appendFileSync } from 'node:fs';
import { train } from '../src/cli/train';
import { SlimFitTrainer } from '../src/training/trainer';

const [, , notes, ...args] = process.argv;
const note = (what: string) => appendFileSync(notes, `${what} ${Date.now()}\n`);
process.on('SIGINT', () => note('heard'));
const real = SlimFitTrainer.prototype.step;
SlimFitTrainer.prototype.step = async function (...options) {
  try {
    const record = await real.apply(this, options);
    note(`step ${record.step}`);
    return record;
  } catch (error) {
    note('stopped');
    throw error;
  }
};

train(args).then(
  (code) => (process.exitCode = code),
  (error: Error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exitCode = 1;
  },
);
