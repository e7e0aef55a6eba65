/** Whether the device computes what it must: the engine contract's conformance suite, and golden values. */
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import type { Engine } from '../../src/engine/engine';
import { type GoldenModel, readGolden } from '../../test/parity/golden';
import { isImplemented, type ParityLine, replayModel } from '../../test/parity/model';
import { replayOps } from '../../test/parity/ops';
import { outcomes } from '../../test/engine/webgpu/softwareVulkan';
import type { Precision } from './settings';

/** The suites that need a device and nothing else, and their files in the repository. */
export const SUITES: Readonly<Record<string, string>> = {
  contract: 'test/engine/webgpu/contract.ts',
  kernels: 'test/engine/webgpu/kernels.ts',
  mixed: 'test/engine/webgpu/mixed.ts',
  products: 'bench/gpu/productsSuite.ts',
};

/** What a suite reported. */
export interface SuiteResult {
  readonly suite: string;
  readonly tests: number;
  /** Names of what was skipped, with the reason. */
  readonly skipped: readonly string[];
  readonly failed: readonly string[];
  readonly tap: string;
}

/**
 * Runs the suites that there are, each in a process of its own.
 * @param home folder of the running script: bundled suites lie there, else the repository's are run
 */
export function* conformance(home: string, wanted: readonly string[]): Generator<SuiteResult> {
  for (const suite of wanted) {
    const file = [path.join(home, `suite-${suite}.mjs`), path.join(home, '..', SUITES[suite] ?? '')].find((f) => existsSync(f) && statSync(f).isFile());
    if (!file) continue;
    const env = { ...process.env };
    // Inside a test run it would make the suite report in binary.
    delete env.NODE_TEST_CONTEXT;
    const { stdout, stderr, status } = spawnSync(process.execPath, [...process.execArgv, '--test-reporter=tap', file], { encoding: 'utf8', maxBuffer: 2 ** 26, env });
    const found = outcomes(stdout);
    const failed = found.filter((t) => !t.ok).map((t) => `${t.name}\n${t.detail}`);
    if (status !== 0 && failed.length === 0) failed.push(`the suite ended with code ${status}\n${stderr.slice(-2000)}`);
    const skipped = stdout.split('\n').flatMap((l) => /^ok \d+ - (.*)$/.exec(l)?.[1].match(/^.* # SKIP.*/)?.[0] ?? []);
    yield { suite, tests: found.length, skipped, failed, tap: stdout };
  }
}

/**
 * Most that a result in mixed precision may be off, by the name that the replay gives it. On an engine that rounds the operands of every product to float16 and is exact otherwise, the same replay is off by at
 * most a third of each: operations 3.5e-4, logits 1.6e-3, loss 2.7e-3, gradients of exact fine-tuning 3.1e-3, weights after a step 6.6e-3, after all 2.3e-2, distances 2.0e-2. Not looked at are gradients under the paper's
 * encodings: codes that flip make those of key biases, which are nothing but the codes' error, another number.
 */
export const MIXED_LIMITS: Readonly<Record<string, number>> = { logits: 5e-3, loss: 5e-3, lossAbs: 1e-2, gradients: 1e-2, afterStep0: 2e-2, finalWeights: 7e-2, distance: 6e-2, operation: 1.1e-3 };

/** Whether a case is right in mixed precision. */
export function judgedMixed(line: ParityLine): ParityLine {
  const limitOf = (field: string): number => {
    if (line.file === 'ops') return MIXED_LIMITS.operation;
    if (field === 'gradients' && line.case !== 'exact') return Infinity;
    return MIXED_LIMITS[field] ?? Infinity;
  };
  const ignored = ['tolerance', 'tensorsLeft', 'finalWeightsAbs'];
  const bad = Object.entries(line).filter(([field, v]) => (typeof v === 'number' && !ignored.includes(field) && !(v <= limitOf(field))) || (field !== 'ok' && v === false));
  return { ...line, ok: bad.length === 0 && !((line.tensorsLeft as number | undefined) ?? 0), outside: bad.map(([field]) => field) };
}

/** Replays a folder of golden values on an engine. */
export async function* parity(folder: string, engine: Engine, precision: Precision): AsyncGenerator<ParityLine> {
  for (const file of await readGolden(folder)) {
    const lines = !('cases' in file.json) ? replayOps(engine, file) : isImplemented(file.json as GoldenModel) ? replayModel(engine, file) : [];
    for await (const line of lines) yield precision === 'mixed' ? judgedMixed(line) : line;
  }
}
