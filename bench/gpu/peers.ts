/** The PyTorch side, by the peers' scripts: each row a process of its own, in turn with ours. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { AUTHORS_RATE, type PeerRun, type Setting } from './settings';

/** Where Python is, and what it has. */
export interface PeerHost {
  readonly python: string;
  /** Folders with the scripts. */
  readonly folders: readonly string[];
  /** `cuda`, or `cpu` for rehearsals. */
  readonly device: string;
}

/** One line of bench_torch.py. */
export interface PeerLine {
  readonly peer: string;
  readonly device: string;
  readonly ms: number;
  readonly ms_min: number;
  readonly ms_max: number;
  readonly weights_bytes: number;
  readonly optimizer_bytes: number;
  readonly weight_copies_bytes?: number;
  /** CUDA's allocator; on a CPU the whole process. */
  readonly peak_bytes?: number;
  readonly peak_rss_bytes?: number;
}

/** What a child process gave. */
export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
  readonly timedOut: boolean;
}

/** Runs a program for at most so many seconds. @param onLine told of each whole line of stdout as it comes */
export function runFor(seconds: number, program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}, onLine: (line: string) => void = () => {}): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    let [out, err, rest, timedOut] = ['', '', '', false];
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, 1000 * seconds);
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      lines.forEach(onLine);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err = (err + text).slice(-20_000)));
    const done = (code: number | null) => {
      clearTimeout(timer);
      resolve({ code, out, err, timedOut });
    };
    child.on('error', (error) => {
      err += error.message;
      done(null);
    });
    child.on('close', done);
  });
}

/** The last line of an error that says something. */
export function reasonOf({ code, err, timedOut }: Ended, seconds: number): string {
  if (timedOut) return `stopped after ${Math.round(seconds)} s`;
  const lines = err.split('\n').map((l) => l.trim()).filter((l) => l !== '' && !l.startsWith('at '));
  return (lines.reverse().find((l) => /error|exception|not |no /i.test(l)) ?? lines[0] ?? `code ${code}`).slice(0, 300);
}

/** PyTorch's version and device, or why there are no peers. Never throws. */
export async function findPeers(host: PeerHost): Promise<{ readonly version: string } | { readonly missing: string }> {
  if (!scriptOf(host, 'bench_torch.py')) return { missing: `no bench_torch.py in ${host.folders.join(', ')}` };
  const probe = await runFor(120, host.python, ['-c', 'import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available(), torch.cuda.get_device_name() if torch.cuda.is_available() else "none", sep="|")'], { PYTHONDONTWRITEBYTECODE: '1' });
  if (probe.code !== 0) return { missing: /No module named 'torch'/.test(probe.err) ? `${host.python} has no torch` : `${host.python} does not run torch (${reasonOf(probe, 120)})` };
  const [version, cuda, available, device] = probe.out.trim().split('|');
  if (host.device === 'cuda' && available !== 'True') return { missing: `torch ${version} sees no CUDA device` };
  return { version: `PyTorch ${version}, CUDA ${cuda}, ${host.device === 'cuda' ? device : host.device}` };
}

function scriptOf({ folders }: PeerHost, name: string): string | undefined {
  return folders.map((f) => path.join(f, name)).find((f) => existsSync(f));
}

/** Runs a script of the peers, which finds the others on its path, and takes the JSON of its last line. */
async function runPython<T>(host: PeerHost, script: string, args: readonly string[], seconds: number): Promise<T | { readonly why: string }> {
  const file = scriptOf(host, script);
  if (!file) return { why: `no ${script} in ${host.folders.join(', ')}` };
  const ended = await runFor(seconds, host.python, [file, ...args], { PYTHONDONTWRITEBYTECODE: '1', PYTHONPATH: host.folders.join(path.delimiter) });
  if (ended.code !== 0) return { why: reasonOf(ended, seconds) };
  try {
    return JSON.parse(ended.out.trim().split('\n').pop()!) as T;
  } catch {
    return { why: `${script} gave no JSON: ${ended.out.slice(-200)}` };
  }
}

/** One peer's row. */
export function measurePeer(host: PeerHost, s: Setting, peer: PeerRun, rounds: { readonly warmup: number; readonly steps: number }, seconds: number): Promise<PeerLine | { readonly why: string }> {
  const args = [
    ...['--model', s.model, '--batch', `${s.batch}`, '--tokens', `${s.tokens}`, '--labels', `${s.labels}`, '--dropout', `${s.dropout}`, '--device', host.device],
    ...['--precision', peer.precision, '--warmup', `${rounds.warmup}`, '--steps', `${rounds.steps}`],
    ...(peer.mode === 'full' ? ['--mode', 'full'] : ['--mode', 'slim', '--rate', `${AUTHORS_RATE}`]),
    ...(peer.compiled ? ['--compile'] : []),
  ];
  return runPython<PeerLine>(host, peer.script, args, seconds);
}

/** What PyTorch's own products and copies reach on the device. */
export interface PeerPeaks {
  readonly fp32: number;
  readonly tf32: number;
  readonly bf16: number;
  /** GB/s, reading and writing counted. */
  readonly copy: number;
}

export function measurePeerPeaks(host: PeerHost, tiny: boolean, seconds: number): Promise<PeerPeaks | { readonly why: string }> {
  return runPython<PeerPeaks>(host, 'peaks.py', ['--device', host.device, ...(tiny ? ['--size', '128'] : [])], seconds);
}
