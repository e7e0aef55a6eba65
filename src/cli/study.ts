/**
 * `slimfit study`: policies × freeze rates × modes × seeds on one task, in a folder that any number of processes can work on, one after the other or at the same time: each run is done by the process that
 * claims it first.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { embeddedModel } from '../data/embedded/embedded';
import { InterruptedError, InvalidArgumentError } from '../errors';
import { parsePolicyOptions, POLICIES, POLICY_NAMES, policyEntry } from '../freezing/policies';
import { studyFigure, type StudyMemory } from '../inspect/studyFigure';
import { studyRunsTable, studyTable } from '../inspect/studyResults';
import { tableBundle } from '../inspect/tableHtml';
import { complete, loadStudy, runJobs } from '../training/study';
import { describeJob, hasFunctions, type NamedStudyPolicy, type StudyDefinition, type StudyJob, studyJobs, type StudySettings } from '../training/studyDefinition';
import { isClaimed, readDefinition, readResult, writeDefinition, writeWhole } from '../training/studyFolder';
import { EMBEDDED_MODEL } from '../training/studyRun';
import { type ActivationMode, SCHEMES } from '../tape/scheme';
import { parseTrain } from './trainOptions';

export const HELP = `slimfit study init FOLDER --policies LIST [options]   defines a study; again with another grid, it changes the grid and keeps the results
slimfit study run FOLDER [--job K | --job I/N]        does the runs that are missing: all, the K-th of the list, or the I-th of N shares
slimfit study list FOLDER                             all runs with their numbers, and how they stand
slimfit study status FOLDER                           how many are done
slimfit study table FOLDER [--runs] [--csv]           means and standard deviations over the seeds, or every run; as text or CSV
slimfit study figure FOLDER [--metric NAME] [--memory peak|activations]   writes study.svg and study.html into FOLDER

of init, beside --recipe or --task and the other options of \`slimfit train\`:
  --policies LIST         of ${POLICY_NAMES.join(', ')}; with options: none,ils,random:intervalSteps=10,freeze-out:t0=0.3
  --freeze-rates LIST     for ${POLICY_NAMES.filter((n) => POLICIES[n].hasRate).join(', ')}: 0.5,0.9
  --seeds LIST            default: the recipe's seed
  --modes LIST            of ${Object.keys(SCHEMES).join(', ')}: each is a variant; without it, all runs have --mode

Several processes may run the same folder at once, on several machines that share it: no run is done twice. Stopped with Ctrl-C (or SIGTERM), finished runs stay; run it again to go on.
`;

/** Options of `slimfit train` that a study decides itself, or has no use for. */
const NOT_HERE = ['--out', '--policy', '--policy-option', '--freeze-rate', '--seed', '--predictions', '--skip-first-evaluation', '--dry-run', '--resume', '--save-steps', '--save-total-limit', '--metric-for-best-model'];

/** @returns the exit code: 0 done, 130 stopped */
export async function study(argv: readonly string[]): Promise<number> {
  const [command, folder, ...args] = argv;
  if (command === undefined || command === '--help' || command === '-h') {
    process.stdout.write(HELP);
    return command === undefined ? 2 : 0;
  }
  const commands: Readonly<Record<string, (folder: string, args: readonly string[]) => number | Promise<number>>> = { init, run, list, status, table, figure };
  if (!Object.hasOwn(commands, command)) throw new InvalidArgumentError(`slimfit study has no '${command}': it has ${Object.keys(commands).join(', ')}`);
  if (folder === undefined || folder.startsWith('-')) throw new InvalidArgumentError(`slimfit study ${command}: name the study's folder first`);
  return commands[command](folder, args);
}

function init(folder: string, args: readonly string[]): number {
  const rest = [...args];
  const [policies, rates, seeds, modes] = ['--policies', '--freeze-rates', '--seeds', '--modes'].map((o) => takeList(rest, o));
  const misplaced = rest.find((a) => NOT_HERE.some((o) => a === o || a.startsWith(`${o}=`)));
  if (misplaced !== undefined) throw new InvalidArgumentError(`${misplaced.split('=')[0]} is no option of a study, which has --policies, --freeze-rates and --seeds`);
  if (!policies) throw new InvalidArgumentError(`--policies LIST is missing\n\n${HELP}`);
  if (modes && rest.some((a) => a === '--mode' || a.startsWith('--mode='))) throw new InvalidArgumentError('give --modes or --mode, not both');
  const badMode = modes?.find((m) => !Object.hasOwn(SCHEMES, m));
  if (badMode !== undefined) throw new InvalidArgumentError(`--modes has '${badMode}'; it must be of ${Object.keys(SCHEMES).join(', ')}`);
  // Its freeze rate and seed are the grid's; `--dry-run` because nothing is written by it.
  const request = parseTrain([...rest, '--dry-run']);
  if (!request) {
    process.stdout.write(HELP);
    return 0;
  }
  const { recipe, options, steps, mode } = request;
  const { trainer, hub, model, tokenizer, data, ...others } = options;
  // Another process may stand in another folder.
  const place = (name: string | undefined) => (name !== undefined && existsSync(name) ? path.resolve(name) : name);
  const { policy: _, frozenBiases, warmupSteps } = trainer ?? {};
  const definition: StudyDefinition = complete({
    task: { recipe, options: { ...others, model: model === embeddedModel() ? EMBEDDED_MODEL : place(model), tokenizer: place(tokenizer), data: place(data), ...(hub?.offline && { offline: true }) } },
    policies: policies.map(namedPolicy),
    ...(rates && { freezeRates: rates.map((r) => numberOf('--freeze-rates', r)) }),
    seeds: seeds ? seeds.map((s) => numberOf('--seeds', s)) : [recipe.seed],
    ...(modes && { variants: Object.fromEntries(modes.map((m) => [m, { mode: m as ActivationMode }])) }),
    trainer: { ...(!modes && { mode }), frozenBiases, warmupSteps } satisfies StudySettings,
    ...(steps !== undefined && { steps }),
  });
  const jobs = studyJobs(definition);
  writeDefinition(folder, definition);
  process.stdout.write(`${folder}: ${jobs.length} runs of ${recipe.name}; do them with \`slimfit study run ${folder}\`\n`);
  return 0;
}

/** 'random:intervalSteps=10' as a policy of the grid. */
function namedPolicy(text: string): NamedStudyPolicy {
  const [name, ...texts] = text.split(':');
  const { label } = policyEntry(name);
  const options = parsePolicyOptions(name, texts);
  const said = Object.entries(options).map(([k, v]) => `${k} ${v}`);
  return { policy: name, ...(said.length > 0 && { options, label: `${label} (${said.join(', ')})` }) } as NamedStudyPolicy;
}

async function run(folder: string, args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: { job: { type: 'string' } } });
  const definition = readDefinition(folder);
  if (hasFunctions(definition)) throw new InvalidArgumentError(`${folder} is a study of a task or a policy that is a function: go on with it where it was defined, by \`study({ folder, … })\``);
  const jobs = studyJobs(definition);
  const wanted = chosen(jobs, values.job);
  const stop = new AbortController();
  const abort = () => stop.abort();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, abort);
  const notice = (text: string) => void process.stderr.write(`slimfit: ${text}\n`);
  try {
    const results = await runJobs(folder, definition, jobs, wanted, { signal: stop.signal, onNotice: notice });
    process.stdout.write(`${folder}: ${results.runs.length} of ${jobs.length} runs are done\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof InterruptedError)) throw error;
    process.stderr.write('slimfit: stopped; finished runs are kept, run it again to go on\n');
    return 130;
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, abort);
  }
}

/** The runs that `--job` names. */
export function chosen(jobs: readonly StudyJob[], text: string | undefined): readonly StudyJob[] {
  if (text === undefined) return jobs;
  const match = /^(\d+)(?:\/(\d+))?$/.exec(text);
  const [k, n] = [Number(match?.[1]), match?.[2] === undefined ? undefined : Number(match[2])];
  if (!match || k < 1 || (n === undefined ? k > jobs.length : k > n)) throw new InvalidArgumentError(`--job is '${text}'; it must be a number from 1 to ${jobs.length}, or a share such as 1/4`);
  return jobs.filter((j) => (n === undefined ? j.number === k : (j.number - 1) % n === k - 1));
}

function stateOf(folder: string, { id }: StudyJob): 'done' | 'damaged' | 'running' | 'open' {
  const { result, damage } = readResult(folder, id);
  return result ? 'done' : isClaimed(folder, id) ? 'running' : damage ? 'damaged' : 'open';
}

function list(folder: string, args: readonly string[]): number {
  parseArgs({ args: [...args], options: {} });
  const jobs = studyJobs(readDefinition(folder));
  const width = String(jobs.length).length;
  for (const job of jobs) process.stdout.write(`${String(job.number).padStart(width)}  ${stateOf(folder, job).padEnd(7)}  ${job.id}  ${describeJob(job)}\n`);
  return 0;
}

function status(folder: string, args: readonly string[]): number {
  parseArgs({ args: [...args], options: {} });
  const jobs = studyJobs(readDefinition(folder));
  const states = jobs.map((j) => stateOf(folder, j));
  const count = (s: (typeof states)[number]) => states.filter((x) => x === s).length;
  process.stdout.write(`${count('done')} of ${jobs.length} runs done, ${count('running')} running, ${count('open')} open${count('damaged') > 0 ? `, ${count('damaged')} damaged` : ''}\n`);
  return 0;
}

function table(folder: string, args: readonly string[]): number {
  const { values } = parseArgs({ args: [...args], options: { csv: { type: 'boolean' }, runs: { type: 'boolean' } } });
  const results = loadStudy(folder, (text) => void process.stderr.write(`slimfit: ${text}\n`));
  const shown = values.runs ? studyRunsTable(results) : studyTable(results);
  process.stdout.write(`${values.csv ? shown.toCSV() : tableBundle(shown)['text/plain']}\n`);
  if (results.missing.length > 0) process.stderr.write(`slimfit: ${results.missing.length} of ${results.jobs.length} runs are not done\n`);
  return 0;
}

function figure(folder: string, args: readonly string[]): number {
  const { values } = parseArgs({ args: [...args], options: { metric: { type: 'string' }, memory: { type: 'string' } } });
  const drawn = studyFigure(loadStudy(folder), { ...(values.metric !== undefined && { metric: values.metric }), ...(values.memory !== undefined && { memory: values.memory as StudyMemory }) });
  writeWhole(path.join(folder, 'study.svg'), drawn.toSvg());
  writeWhole(path.join(folder, 'study.html'), `<!doctype html><meta charset="utf-8"><title>${path.basename(path.resolve(folder)).replace(/[&<>]/g, ' ')}</title>\n${drawn.toHtml()}\n`);
  process.stdout.write(`${path.join(folder, 'study.svg')}\n${path.join(folder, 'study.html')}\n`);
  return 0;
}

function numberOf(option: string, text: string): number {
  const n = Number(text);
  if (text.trim() === '' || Number.isNaN(n)) throw new InvalidArgumentError(`${option} has '${text}', no number`);
  return n;
}

/** Takes an option and its list out of the words. */
function takeList(words: string[], option: string): string[] | undefined {
  const at = words.findIndex((w) => w === option || w.startsWith(`${option}=`));
  if (at < 0) return undefined;
  const joined = words[at].startsWith(`${option}=`);
  const value = joined ? words[at].slice(option.length + 1) : words[at + 1];
  if (value === undefined || value === '' || value.startsWith('--')) throw new InvalidArgumentError(`${option} needs a list, separated by commas`);
  words.splice(at, joined ? 1 : 2);
  return value.split(',').map((v) => v.trim());
}
