/**
 * Real fine-tuning over seeds, as studies that go on where they stopped:
 *
 *   npm run bench:studies -- rates|policies|levers --task mrpc|cifar100|… --model DIR --data DIR --folder DIR [--steps N] [--seeds 43,44,45] [--rate 0.9] …
 *
 * `rates`: full fine-tuning against SlimFit's freeze rates. `policies`: all policies. `levers`: what makes a step smaller, one at a time, under inter-layer scheduling. Ends with a table in Markdown and writes
 * the figure beside the results.
 */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { type PolicyName, POLICY_NAMES } from '../src/freezing/policies';
import { studyFigure } from '../src/inspect/studyFigure';
import { spreadOf, studyPoints, type StudyResults } from '../src/inspect/studyResults';
import { study } from '../src/training/study';
import type { NamedStudyPolicy, StudyPolicy, StudySettings } from '../src/training/studyDefinition';
import { LEVERS } from './leverSettings';
import { cifar100, glue } from './tasks';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    task: { type: 'string', default: 'mrpc' },
    model: { type: 'string' },
    data: { type: 'string' },
    folder: { type: 'string' },
    rates: { type: 'string', default: '0.75,0.9,0.95' },
    /** Of the levers. */
    rate: { type: 'string', default: '0.9' },
    seeds: { type: 'string', default: '43,44,45' },
    steps: { type: 'string', default: '640' },
    'batch-size': { type: 'string', default: '16' },
    'max-length': { type: 'string', default: '64' },
    'learning-rate': { type: 'string', default: '1e-4' },
    magnitude: { type: 'string', default: 'mean-relative' },
    /** Rows to run: labels, or names of policies, that contain one of these; all by default. */
    only: { type: 'string', multiple: true, default: [''] },
  },
});

const numbers = (text: string) => text.split(',').map(Number);
function required(name: 'model' | 'data' | 'folder'): string {
  const v = values[name];
  if (!v) throw new Error(`--${name} DIR is missing`);
  return v;
}

const full: NamedStudyPolicy = { policy: 'none', label: 'full fine-tuning', trainer: { mode: 'exact' } };

/** Policies that have no rate of their own and others at one rate. */
const POLICY_RATES: Partial<Record<PolicyName, readonly number[]>> = { ils: [0.75, 0.9], random: [0.75], 'memory-budget': [0.75], knapsack: [0.75] };
const policies = (): StudyPolicy[] => [full, ...POLICY_NAMES.filter((p) => p !== 'none').map((policy) => ({ policy, ...(POLICY_RATES[policy] && { freezeRates: POLICY_RATES[policy] }) }) as NamedStudyPolicy)];

/** Each lever by itself on the paper's scheme, then together. */
const levers = (rate: number): StudyPolicy[] => [full, ...LEVERS.map(([label, trainer]) => ({ policy: 'ils' as const, label, freezeRates: [rate], trainer }))];

/** Markdown: means and standard deviations over the seeds. */
function markdown(results: StudyResults): string {
  const mib = (x: readonly number[]) => (spreadOf(x).mean / 2 ** 20).toFixed(1);
  const rows = studyPoints(results).map(({ policy, freezeRate, results: runs }) => {
    const metrics = results.metrics.map((m) => {
      const { mean, sd } = spreadOf(runs.map((r) => 100 * r.metrics[m]));
      return `${mean.toFixed(1)} ± ${sd.toFixed(1)}`;
    });
    const seconds = Math.min(...runs.map((r) => r.secondsPerStep));
    return [policy, freezeRate ?? '', ...metrics, mib(runs.map((r) => r.activationBytes)), mib(runs.map((r) => r.peakBytes)), seconds.toFixed(3)];
  });
  const heads = ['', 'freeze rate', ...results.metrics.map((m) => `${m} %`), 'activations MiB', 'peak MiB', 's a step, fastest seed'];
  return [heads, heads.map(() => '---'), ...rows].map((r) => `| ${r.join(' | ')} |`).join('\n');
}

async function main(): Promise<void> {
  const [kind] = positionals;
  const grids: Readonly<Record<string, () => StudyPolicy[]>> = {
    rates: () => [full, { policy: 'ils', freezeRates: numbers(values.rates!) }],
    policies,
    levers: () => levers(Number(values.rate)),
  };
  if (!kind || !Object.hasOwn(grids, kind)) throw new Error(`say which study: ${Object.keys(grids).join(', ')}`);
  const nameOf = (p: StudyPolicy) => (typeof p === 'string' ? p : (p.label ?? String(p.policy)));
  const chosen = grids[kind]().filter((p) => values.only!.some((text) => nameOf(p).includes(text)));
  const [model, data, folder] = (['model', 'data', 'folder'] as const).map(required);
  const common = {
    folder,
    policies: chosen,
    seeds: numbers(values.seeds!),
    trainer: { batchSize: Number(values['batch-size']), totalSteps: Number(values.steps), learningRate: Number(values['learning-rate']), magnitude: values.magnitude as StudySettings['magnitude'] },
    onNotice: () => {},
  };
  const results = values.task === 'cifar100' ? await study({ ...common, task: cifar100(model, data) }) : await study({ ...common, task: glue(values.task!, model, data, Number(values['max-length'])) });
  for (const memory of ['peak', 'activations'] as const) writeFileSync(path.join(folder, `${memory}.svg`), studyFigure(results, { memory }).toSvg());
  process.stdout.write(`${markdown(results)}\n`);
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
