/** One run of a study: model and data of its seed, all steps, the evaluation, and what of it is kept. Nothing is left on the device, however it ends. */
import { embeddedModel } from '../data/embedded/embedded';
import type { Engine } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import { policyOf } from '../freezing/policies';
import type { PolicyFactory } from '../freezing/policy';
import type { BatchSource, LabelledBatch } from '../models/model';
import { fromRecipe } from './fromRecipe';
import type { Recipe } from './recipes';
import { isNamed, type StudyDefinition, type StudyJob } from './studyDefinition';
import type { StudyResult } from './studyFolder';
import { SlimFitTrainer } from './trainer';

/** As the model of a recipe's task: the small BERT that SlimFit brings along, wherever it is installed. */
export const EMBEDDED_MODEL = 'slimfit:bert-grammar';

interface Opened {
  readonly trainer: Pick<SlimFitTrainer, 'steps' | 'evaluate' | 'history' | 'totalSteps' | 'freezableLayers' | 'engine'>;
  dispose(): void;
}

/** What a run needs beside its settings. */
export interface StudyRunContext {
  readonly engine: Engine;
  readonly signal?: AbortSignal;
  /** Told before the first step and after every one. */
  readonly onStep: (step: number, steps: number) => void;
  readonly onNotice: (text: string) => void;
}

function policyOfJob({ entry, freezeRate }: StudyJob): PolicyFactory {
  if (isNamed(entry)) return policyOf(entry.policy, { ...entry.options, ...(freezeRate !== undefined && { freezeRate }) } as never);
  return (layers, run) => entry.policy(layers, { ...run, ...(freezeRate !== undefined && { freezeRate }) });
}

async function open<Batch extends LabelledBatch>({ task }: StudyDefinition<Batch>, job: StudyJob, { engine, signal, onNotice }: StudyRunContext): Promise<Opened> {
  // What encodings do to activations is no question of a study, and measuring it costs a forward pass.
  const settings = { ...job.settings, measureEncodingsEvery: 0, policy: policyOfJob(job), ...(signal && { signal }), onWarning: onNotice };
  if ('recipe' in task) {
    const { offline, ...options } = task.options ?? {};
    const run = await fromRecipe(
      { ...(task.recipe as Recipe), seed: job.seed },
      { ...options, ...(options.model === EMBEDDED_MODEL && { model: embeddedModel() }), engine, onNotice, hub: { ...(offline && { offline }), ...(signal && { signal }) }, trainer: settings },
    );
    try {
      checkEvaluation(run.evaluation);
    } catch (error) {
      run.dispose();
      throw error;
    }
    return { trainer: run.trainer as unknown as Opened['trainer'], dispose: () => run.dispose() };
  }
  const { model, train, evaluation, metrics, options, dispose } = await task.prepare({ seed: job.seed, engine, ...(signal && { signal }) });
  let trainer: SlimFitTrainer<Batch> | undefined;
  const close = () => {
    trainer?.dispose();
    model.dispose();
    dispose?.();
  };
  try {
    checkEvaluation(evaluation);
    trainer = new SlimFitTrainer<Batch>({ model, train, evaluation, metrics, ...(options as object), ...(settings as object), seed: job.seed });
  } catch (error) {
    close();
    throw error;
  }
  return { trainer: trainer as unknown as Opened['trainer'], dispose: close };
}

/** Before the run, not after it. */
function checkEvaluation(evaluation: Pick<BatchSource<LabelledBatch>, 'size'> | undefined): void {
  if (!evaluation || evaluation.size === 0) throw new InvalidArgumentError('a study compares runs by their evaluation: give the task data to evaluate');
}

const mean = (a: ArrayLike<number>): number => Array.from(a).reduce((s, v) => s + v, 0) / a.length;

/** Middle value; of an even number of values, the mean of the middle two. */
function median(a: ArrayLike<number>): number {
  const s = Float64Array.from(a).sort();
  return (s[(s.length - 1) >> 1] + s[s.length >> 1]) / 2;
}

/** @throws InterruptedError (or the kernel's own) at a step boundary, and what task, policy and trainer throw */
export async function runJob<Batch extends LabelledBatch>(definition: StudyDefinition<Batch>, job: StudyJob, context: StudyRunContext): Promise<StudyResult> {
  const began = performance.now();
  const before = context.engine.memory().totalLive;
  const { trainer, dispose } = await open(definition, job, context);
  try {
    const steps = Math.min(definition.steps ?? Infinity, trainer.totalSteps);
    context.onStep(0, steps);
    for await (const record of trainer.steps(steps)) context.onStep(record.step + 1, steps);
    const { loss, metrics } = await trainer.evaluate();
    const { history, engine } = trainer;
    // A model on an engine of its own stands beside nothing.
    const others = engine === context.engine ? before : 0;
    return {
      format: 'slimfit-study-run',
      version: 1,
      id: job.id,
      policy: job.policy,
      variant: job.variant,
      freezeRate: job.freezeRate ?? null,
      seed: job.seed,
      steps: history.length,
      loss,
      metrics,
      activationBytes: Math.round(mean(history.column('activationBytes'))),
      fullActivationBytes: Math.round(mean(history.column('fullActivationBytes'))),
      peakBytes: Math.max(...history.column('totalPeakBytes')) - others,
      secondsPerStep: median(history.column('milliseconds')) / 1000,
      frozenShare: mean(history.column('frozenLayers')) / trainer.freezableLayers.length,
      seconds: (performance.now() - began) / 1000,
      engine: engine.name,
      device: engine.device,
      finished: new Date().toISOString(),
    };
  } finally {
    dispose();
  }
}
