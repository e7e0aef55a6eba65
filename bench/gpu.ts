/**
 * The GPU benchmark: training steps of SlimFit's WebGPU engine and of PyTorch in turn, on one machine in one run; single operations beside what bounds them; conformance and golden values on the real
 * device.
 *
 *   npm run bench:gpu -- [bench] [--seconds 540] [--out FOLDER] [--settings 1,2] [--parts training,kernels,compiled] [--python PROGRAM] [--peers FOLDER] [--peers-device cpu] [--steps 20] [--warmup 12] [--tiny]
 *   npm run bench:gpu -- conformance [SUITE …] | parity [--golden FOLDER] [--precision mixed] | adapters
 *
 * Each row is a process of its own, so that a device that is lost, or has no memory left, costs one row. Results are written as they come: gpu.jsonl, a line each, and gpu.md, the tables. What the time does
 * not reach stands there as not run. The first setting comes first as a whole, then single operations, then the others, `torch.compile` last.
 */
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { arch, cpus, release, totalmem, type } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { listAdapters } from '../src/engine/webgpu/dawn';
import { SlimFitError } from '../src/errors';
import { conformance, parity, SUITES } from './gpu/checks';
import { copyBandwidth, type KernelFigures, matmulPeak, measureKernels, type Peak } from './gpu/kernels';
import { openEngine } from './gpu/openEngine';
import { findPeers, measurePeer, measurePeerPeaks, type PeerHost, type PeerPeaks, reasonOf, runFor } from './gpu/peers';
import { markdown, type Row } from './gpu/report';
import { compiledRowsOf, type Mode, type Precision, type RowPlan, rowName, rowsOf, type Setting, SETTINGS, TINY_SETTINGS } from './gpu/settings';
import { measureTraining, type Rounds, type TrainingFigures } from './gpu/training';

const HOME = path.dirname(path.resolve(process.argv[1]));
const PRECISIONS: readonly Precision[] = ['float32', 'mixed'];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '3600' },
    out: { type: 'string', default: process.env.OUT || 'gpu-results' },
    settings: { type: 'string' },
    parts: { type: 'string', default: 'training,kernels,compiled' },
    python: { type: 'string', default: 'python3' },
    peers: { type: 'string' },
    'peers-device': { type: 'string', default: 'cuda' },
    golden: { type: 'string' },
    precision: { type: 'string', default: 'float32' },
    steps: { type: 'string' },
    warmup: { type: 'string' },
    tiny: { type: 'boolean', default: false },
  },
});
const tiny = values.tiny;
const settings = (tiny ? TINY_SETTINGS : SETTINGS).filter((_, i) => values.settings?.split(',').includes(`${i + 1}`) ?? true);
const deadline = performance.now() + 1000 * Number(values.seconds);
/** Seconds left. */
const left = () => (deadline - performance.now()) / 1000;
const say = (text: string) => void process.stderr.write(`${text}\n`);

/** A part that a process of its own measures, with what it needs to know. */
type Job =
  | { readonly what: 'row'; readonly setting: Setting; readonly mode: Mode; readonly precision: Precision; readonly rounds: Rounds }
  | { readonly what: 'copy' }
  | { readonly what: 'peak'; readonly precision: Precision }
  | { readonly what: 'kernels'; readonly precision: Precision; readonly settings: readonly Setting[]; readonly peak: { readonly tflops: number; readonly bytesPerSecond: number } };

async function work(job: Job & { readonly tiny: boolean }): Promise<void> {
  const tell = (value: unknown) => void process.stdout.write(`${JSON.stringify(value)}\n`);
  if (job.what === 'row') tell(await measureTraining(job.setting, job.mode, job.precision, job.rounds));
  if (job.what === 'copy') tell(await copyBandwidth(job.tiny));
  if (job.what === 'peak') tell(await matmulPeak(job.precision, job.tiny));
  if (job.what === 'kernels') for await (const k of measureKernels(job.settings, job.precision, job.peak, job.tiny)) tell(k);
}

/** Runs a job apart. @returns its lines, and why it ended early if it did */
async function apart<T>(job: Job, onLine: (line: T) => void = () => {}): Promise<{ readonly lines: readonly T[]; readonly why?: string }> {
  const seconds = Math.min(left(), job.what === 'row' ? 240 : 180);
  if (seconds < 2) return { lines: [], why: 'the time was up' };
  const lines: T[] = [];
  const ended = await runFor(seconds, process.execPath, [...process.execArgv, process.argv[1], 'job', JSON.stringify({ ...job, tiny })], {}, (line) => {
    const parsed = JSON.parse(line) as T;
    lines.push(parsed);
    onLine(parsed);
  });
  return ended.code === 0 ? { lines } : { lines, why: reasonOf(ended, seconds) };
}

async function bench(): Promise<void> {
  mkdirSync(values.out, { recursive: true });
  const log = path.join(values.out, 'gpu.jsonl');
  writeFileSync(log, '');
  const parts = values.parts.split(',');
  const host: PeerHost = { python: values.python, folders: [values.peers, path.join(HOME, 'peers'), path.join(HOME, '../../shared/peers')].filter((f) => f !== undefined && existsSync(f)) as string[], device: values['peers-device'] };
  const found = await findPeers(host);
  const [missing, peers] = 'missing' in found ? [`no PyTorch: ${found.missing}`, `No PyTorch in this run: ${found.missing}`] : [undefined, found.version];
  const driver = existsSync('/proc/driver/nvidia/version') ? `, ${readFileSync('/proc/driver/nvidia/version', 'utf8').split('\n')[0].replace(/^NVRM version: /, '').replace(/ +/g, ' ').trim()}` : '';
  const results = {
    started: new Date().toISOString().slice(0, 16).replace('T', ' '),
    machine: `${cpus().length} CPUs (${cpus()[0]?.model.trim()}), ${Math.round(totalmem() / 2 ** 30)} GiB, ${type()} ${release()} ${arch()}, Node ${process.versions.node}${driver}`,
    tiny,
    peers,
    peaks: [] as (Peak | { precision: Precision; why: string })[],
    copy: undefined as number | undefined,
    peerPeaks: undefined as PeerPeaks | undefined,
    rows: [] as Row[],
    kernels: [] as KernelFigures[],
    notes: [] as string[],
  };
  const planned = [...(parts.includes('training') ? settings.flatMap(rowsOf) : []), ...(parts.includes('compiled') ? settings.flatMap(compiledRowsOf) : [])];
  const done = new Map<RowPlan, Row>();
  const write = () => {
    results.rows = planned.map((plan) => done.get(plan) ?? plan);
    writeFileSync(path.join(values.out, 'gpu.md'), markdown(results, settings));
  };
  const record = (kind: string, value: object) => {
    appendFileSync(log, `${JSON.stringify({ kind, ...value })}\n`);
    write();
  };
  record('run', { started: results.started, machine: results.machine, peers, tiny });
  say(peers);

  const copied = await apart<number>({ what: 'copy' });
  if (copied.lines.length > 0) results.copy = copied.lines[0] / 1e9;
  else results.notes.push(`No copy: ${copied.why}.`);
  record('copy', { gigabytesPerSecond: results.copy, why: copied.why });
  /** Why a precision is not there: asked once. */
  const absent = new Map<Precision, string>();
  for (const precision of PRECISIONS) {
    const { lines, why = 'nothing was measured' } = await apart<Peak>({ what: 'peak', precision });
    if (lines.length === 0) absent.set(precision, why);
    results.peaks.push(lines[0] ?? { precision, why });
    record('peak', results.peaks.at(-1)!);
    say(`product ${precision}: ${lines.length > 0 ? `${lines[0].tflops.toFixed(2)} TFLOP/s` : why}`);
  }
  if (missing === undefined) {
    const p = await measurePeerPeaks(host, tiny, Math.min(left(), 120));
    if ('why' in p) results.notes.push(`No peaks of PyTorch: ${p.why}.`);
    else results.peerPeaks = p;
    record('peer peaks', p);
  }

  const rounds: Rounds = { warmup: Number(values.warmup ?? (tiny ? 1 : 12)), steps: Number(values.steps ?? (tiny ? 3 : 20)), seconds: 30 };
  const runRow = async (plan: RowPlan): Promise<void> => {
    let row: Row;
    if (left() < 2) row = { ...plan, why: 'the time was up' };
    else if (plan.system === 'slimfit') {
      const why = absent.get(plan.precision);
      const r = why === undefined ? await apart<TrainingFigures>({ what: 'row', setting: plan.setting, mode: plan.mode, precision: plan.precision, rounds }) : { lines: [], why };
      row = r.lines.length > 0 ? { ...plan, figures: r.lines[0] } : { ...plan, why: r.why ?? 'no figures came' };
    } else if (missing !== undefined) row = { ...plan, why: missing };
    else {
      const p = await measurePeer(host, plan.setting, plan.peer, rounds, Math.min(left(), 240));
      row = 'why' in p ? { ...plan, why: p.why } : { ...plan, peerFigures: p };
    }
    done.set(plan, row);
    record('row', { name: rowName(plan), ...row });
    say(`${plan.setting.name}, ${rowName(plan)}: ${row.figures ? `${row.figures.ms.toFixed(1)} ms` : row.peerFigures ? `${row.peerFigures.ms} ms` : `not run: ${row.why}`}`);
  };
  const kernels = async (): Promise<void> => {
    for (const precision of PRECISIONS) {
      const peak = results.peaks.find((p): p is Peak => 'tflops' in p && p.precision === precision);
      if (!peak || results.copy === undefined) continue;
      const { why } = await apart<KernelFigures>({ what: 'kernels', precision, settings: settings.slice(0, 2), peak: { tflops: peak.tflops, bytesPerSecond: 1e9 * results.copy } }, (k) => {
        results.kernels.push(k);
        record('kernel', k);
      });
      if (why) results.notes.push(`Operations in ${precision} are not complete: ${why}.`);
    }
    write();
  };
  const training = planned.filter((p) => !(p.system === 'pytorch' && p.peer.compiled));
  for (const plan of training.filter((p) => p.setting === settings[0])) await runRow(plan);
  if (parts.includes('kernels')) await kernels();
  for (const plan of [...training, ...planned].filter((p) => !done.has(p))) if (!done.has(plan)) await runRow(plan);
  write();
  process.stdout.write(readFileSync(path.join(values.out, 'gpu.md')));
}

/** The checks that end with code 1 when anything fails. */
async function checkConformance(): Promise<void> {
  mkdirSync(values.out, { recursive: true });
  let [tests, failed] = [0, 0];
  for (const r of conformance(HOME, positionals.length > 1 ? positionals.slice(1) : Object.keys(SUITES))) {
    writeFileSync(path.join(values.out, `conformance-${r.suite}.tap`), r.tap);
    tests += r.tests;
    failed += r.failed.length;
    process.stdout.write(`${r.suite}: ${r.tests - r.failed.length} of ${r.tests} tests pass${r.skipped.length > 0 ? `, ${r.skipped.length} of them skipped` : ''}\n${r.skipped.map((s) => `  skipped: ${s}\n`).join('')}${r.failed.map((f) => `FAILED ${f}\n`).join('')}`);
  }
  if (tests === 0 || failed > 0) process.exitCode = 1;
}

async function checkParity(): Promise<void> {
  const folder = values.golden ?? [path.join(HOME, 'golden'), path.join(HOME, '../../shared/golden')].find((f) => existsSync(f) && readdirSync(f).length > 0);
  if (!folder) throw new Error('no golden values: name their folder with --golden');
  if (!PRECISIONS.some((p) => p === values.precision)) throw new Error(`--precision is ${values.precision}: it must be ${PRECISIONS.join(' or ')}`);
  mkdirSync(values.out, { recursive: true });
  const lines = [];
  const engine = await openEngine(values.precision as Precision);
  for await (const line of parity(folder, engine, values.precision as Precision)) {
    lines.push(line);
    process.stdout.write(`${line.ok ? 'ok' : 'NOT OK'} ${line.file} ${line.case}${line.ok ? '' : ` ${JSON.stringify(line)}`}\n`);
  }
  engine.dispose();
  writeFileSync(path.join(values.out, `parity-${values.precision}.jsonl`), lines.map((l) => `${JSON.stringify(l)}\n`).join(''));
  process.stdout.write(`${lines.filter((l) => l.ok).length} of ${lines.length} cases are within their tolerance in ${values.precision}\n`);
  if (lines.length === 0 || lines.some((l) => !l.ok)) process.exitCode = 1;
}

async function main(): Promise<void> {
  const [command = 'bench', argument] = positionals;
  if (command === 'bench') await bench();
  else if (command === 'job') await work(JSON.parse(argument));
  else if (command === 'conformance') await checkConformance();
  else if (command === 'parity') await checkParity();
  else if (command === 'adapters') for (const a of await listAdapters()) process.stdout.write(`${JSON.stringify(a)}\n`);
  else throw new Error(`no command '${command}': bench, conformance, parity or adapters`);
}

main().catch((error: Error) => {
  process.stderr.write(`${error instanceof SlimFitError ? error.message : error.stack}\n`);
  process.exitCode = 1;
});
