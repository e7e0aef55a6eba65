/**
 * Every parser under attack: `npm run bench:fuzz -- --seconds 20 --seed 1`, or `--inputs 5000` of each, `--only NAME` for one. Each parser has a process of its own, so that a hang, a lack of memory or a death is seen
 * and counted, and memory is its own. A Markdown table on standard output; the exit code is 1 when a parser crashed.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import fc from 'fast-check';
import { attack, targets } from '../test/attacks/targets';

const { values } = parseArgs({ options: { seconds: { type: 'string' }, inputs: { type: 'string' }, seed: { type: 'string', default: '1' }, only: { type: 'string' }, child: { type: 'string' } } });
const SECONDS = values.seconds === undefined ? (values.inputs === undefined ? 5 : Infinity) : Number(values.seconds);
const INPUTS = values.inputs === undefined ? Infinity : Number(values.inputs);
const SEED = Number(values.seed);
if (![SECONDS, INPUTS].every((n) => n > 0) || !Number.isSafeInteger(SEED)) throw new Error('--seconds and --inputs are numbers above 0, --seed is a whole number');
/** An input that takes longer hangs. */
const HANG_MS = 20_000;
/** Inputs that are drawn at a time. */
const CHUNK = 64;

interface Report {
  readonly tried: number;
  readonly taken: number;
  readonly refused: number;
  readonly crashes: number;
  readonly longestMs: number;
  /** Of one input, all threads. */
  readonly cpuMs: number;
  readonly grownBytes: number;
}

/** Attacks one parser, telling after each input how far it is. */
async function attackOne(name: string): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-fuzz-'));
  try {
    const target = (await targets(folder)).find((t) => t.name === name);
    if (!target) throw new Error(`no parser is called ${name}`);
    const report = { tried: 0, taken: 0, refused: 0, crashes: 0, longestMs: 0, cpuMs: 0, grownBytes: 0 };
    const begin = performance.now();
    const more = (): boolean => report.tried < INPUTS && performance.now() - begin < 1000 * SECONDS;
    for (let chunk = 0; more(); chunk++)
      for (const input of fc.sample(target.inputs, { seed: SEED * 1_000_003 + chunk, numRuns: CHUNK })) {
        if (!more()) break;
        process.send!({ begun: true });
        const { rss } = process.memoryUsage();
        const cpu = process.cpuUsage();
        const from = performance.now();
        try {
          report[await attack(target, input)]++;
        } catch (error) {
          if (report.crashes++ < 5) console.error(`${name}, seed ${SEED}, input ${report.tried}: ${(error as Error).message}`);
        }
        // The first inputs load code.
        if (report.tried++ >= CHUNK) {
          report.longestMs = Math.max(report.longestMs, performance.now() - from);
          const { user, system } = process.cpuUsage(cpu);
          report.cpuMs = Math.max(report.cpuMs, (user + system) / 1000);
          report.grownBytes = Math.max(report.grownBytes, process.memoryUsage().rss - rss);
        }
        // Whoever leaves before a message is gone takes it along.
        await new Promise((sent) => process.send!(report, sent));
      }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  process.disconnect();
}

/** Starts the process of a parser, and ends it when an input hangs. */
function watched(name: string): Promise<Report> {
  return new Promise((resolve) => {
    let report: Report = { tried: 0, taken: 0, refused: 0, crashes: 0, longestMs: 0, cpuMs: 0, grownBytes: 0 };
    let busy = false;
    let hung = false;
    const args = process.argv.slice(2).filter((a, i, all) => a !== '--only' && all[i - 1] !== '--only');
    const child = spawn(process.execPath, [...process.execArgv, __filename, ...args, '--child', name], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    const kill = (): void => {
      hung = true;
      child.kill('SIGKILL');
    };
    let timer = setTimeout(kill, 10 * HANG_MS);
    child.on('message', (m: Report | { begun: true }) => {
      clearTimeout(timer);
      timer = setTimeout(kill, 'begun' in m ? HANG_MS : 10 * HANG_MS);
      busy = 'begun' in m;
      if (!('begun' in m)) report = m;
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (code === 0) return resolve(report);
      console.error(`${name}, seed ${SEED}, input ${report.tried}: the process ${hung ? `hung for ${HANG_MS / 1000} s` : `ended with ${signal ?? code}`}`);
      resolve({ ...report, tried: report.tried + (busy ? 1 : 0), crashes: report.crashes + 1, longestMs: hung ? HANG_MS : report.longestMs });
    });
  });
}

async function main(): Promise<void> {
  if (values.child !== undefined) return attackOne(values.child);
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-fuzz-'));
  const names = (await targets(folder)).map((t) => t.name);
  rmSync(folder, { recursive: true, force: true });
  if (values.only !== undefined && !names.includes(values.only)) throw new Error(`--only: no parser is called ${values.only}: choose of ${names.join('; ')}`);
  console.log('| parser | inputs | taken | refused, typed | crashes | longest input: ms | CPU ms | largest growth of resident memory by one input, MiB |\n|---|---|---|---|---|---|---|---|');
  let crashes = 0;
  for (const name of values.only === undefined ? names : [values.only]) {
    const r = await watched(name);
    crashes += r.crashes;
    console.log(`| ${name} | ${r.tried} | ${r.taken} | ${r.refused} | ${r.crashes} | ${r.longestMs.toFixed(0)} | ${r.cpuMs.toFixed(0)} | ${(r.grownBytes / 2 ** 20).toFixed(1)} |`);
  }
  process.exitCode = crashes > 0 ? 1 : 0;
}

void main();
