/** `slimfit train`: fine-tunes a model on any of the paper's tasks without a notebook, and writes checkpoint, metrics and history. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { chooseEngine } from '../engine/choose';
import { InterruptedError, InvalidArgumentError } from '../errors';
import { ProgressLine } from '../progress';
import { listCheckpoints } from '../training/checkpointFolder';
import { fromRecipe } from '../training/fromRecipe';
import { saveHistory } from '../training/historyFile';
import { dryRun } from './dryRun';
import { HELP, parseTrain } from './trainOptions';

/** @returns the exit code: 0 done, 130 stopped by Ctrl-C (what was trained so far is written, with --save-steps as a checkpoint too) */
export async function train(argv: readonly string[]): Promise<number> {
  const request = parseTrain(argv);
  if (!request) {
    process.stdout.write(HELP);
    return 0;
  }
  if (request.dryRun) {
    process.stdout.write(dryRun(request));
    return 0;
  }
  const { recipe, options, out } = request as typeof request & { out: string };
  const checkpoints = listCheckpoints(out);
  if (checkpoints.length > 0 && options.trainer?.checkpoints && !request.resume)
    throw new InvalidArgumentError(`--out ${out} holds ${path.basename(checkpoints[0].folder)} of an earlier run: go on from it with --resume, or name another folder`);
  if (request.resume && checkpoints.length === 0) process.stderr.write(`no checkpoint in ${out}: training begins at step 0\n`);
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  const engine = await chooseEngine(request.engine, { precision: request.precision });
  const run = await fromRecipe(recipe, { ...options, engine, hub: { ...options.hub, signal: stop.signal }, ...(request.resume && checkpoints.length > 0 && { resumeFromCheckpoint: out }), trainer: { ...options.trainer, signal: stop.signal } });
  const { trainer } = run;
  const steps = Math.min(request.steps ?? Infinity, trainer.totalSteps);
  process.stderr.write(`${recipe.name}: ${run.train.size} training and ${run.evaluation?.size ?? 0} development examples on ${engine.name}, ${engine.device}\n`);
  if (trainer.nextStep > 0) process.stderr.write(`going on after ${trainer.nextStep} of ${steps} steps\n`);
  let stopped = false;
  try {
    if (run.evaluation && !request.skipFirstEvaluation && trainer.nextStep === 0 && !trainer.history.metricsAt(0)) await trainer.evaluate();
    const progress = new ProgressLine('training', steps);
    try {
      for await (const record of trainer.steps(Math.max(0, steps - trainer.nextStep))) progress.update(record.step + 1, `loss ${record.loss.toFixed(4)}`);
    } finally {
      progress.end();
    }
  } catch (error) {
    if (!(error instanceof InterruptedError)) throw error;
    stopped = true;
    if (options.trainer?.checkpoints) await trainer.save();
  }
  // Also after Ctrl-C, so that the report is whole.
  const after = run.evaluation && trainer.nextStep > 0 ? await trainer.evaluate(undefined, { ignoreSignal: true }) : undefined;
  mkdirSync(out, { recursive: true });
  await run.save(out);
  saveHistory(trainer.history, out);
  const predictions = request.predictions && !stopped ? await run.writePredictions(out) : undefined;
  const waiting = trainer.history.column('dataMilliseconds').reduce((a, b) => a + b, 0);
  const took = trainer.history.column('milliseconds').reduce((a, b) => a + b, 0);
  const metrics = {
    task: recipe.name,
    steps: trainer.nextStep,
    stopped,
    policy: request.policy?.name ?? trainer.policy.name,
    ...(request.policy ? request.policy.options : { freezeRate: recipe.freezeRate }),
    engine: engine.name,
    precision: engine.precision,
    before: trainer.history.metricsAt(0),
    after: after && { loss: after.loss, ...after.metrics },
    peakBytes: Math.max(0, ...trainer.history.column('totalPeakBytes')),
    /** Share of the time of training that was spent waiting for data. */
    waitingForData: took > 0 ? Number((waiting / took).toFixed(4)) : 0,
    ...(predictions && { predictions: predictions.map((f) => path.basename(f)) }),
  };
  writeFileSync(path.join(out, 'metrics.json'), `${JSON.stringify(metrics, null, 2)}\n`);
  process.stdout.write(`${JSON.stringify(metrics)}\n`);
  run.dispose();
  engine.dispose();
  return stopped ? 130 : 0;
}
