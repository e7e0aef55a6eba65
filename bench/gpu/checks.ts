/** Whether the device computes what it must: the engine contract's conformance suite, and golden values. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { type GoldenModel, readGolden } from '../../test/parity/golden';
import { isImplemented, type ParityLine, replayModel } from '../../test/parity/model';
import { replayOps } from '../../test/parity/ops';
import { outcomes } from '../../test/engine/webgpu/softwareVulkan';
import { openEngine } from './openEngine';
import type { Precision } from './settings';

/** The suites that need a device and nothing else, by the name of their file in test/engine/webgpu. */
export const SUITES: readonly string[] = ['contract', 'kernels', 'mixed'];

/** What a suite reported. */
export interface SuiteResult {
  readonly suite: string;
  readonly tests: number;
  readonly failed: readonly string[];
  readonly tap: string;
}

/**
 * Runs the suites that there are, each in a process of its own.
 * @param home folder of the running script: bundled suites lie there, else the repository's are run
 */
export function* conformance(home: string, wanted: readonly string[]): Generator<SuiteResult> {
  for (const suite of wanted) {
    const file = [path.join(home, `suite-${suite}.mjs`), path.join(home, `../test/engine/webgpu/${suite}.ts`)].find((f) => existsSync(f));
    if (!file) continue;
    const env = { ...process.env };
    // Inside a test run it would make the suite report in binary.
    delete env.NODE_TEST_CONTEXT;
    const { stdout, stderr, status } = spawnSync(process.execPath, [...process.execArgv, '--test-reporter=tap', file], { encoding: 'utf8', maxBuffer: 2 ** 26, env });
    const found = outcomes(stdout);
    const failed = found.filter((t) => !t.ok).map((t) => `${t.name}\n${t.detail}`);
    if (status !== 0 && failed.length === 0) failed.push(`the suite ended with code ${status}\n${stderr.slice(-2000)}`);
    yield { suite, tests: found.length, failed, tap: stdout };
  }
}

/** Replays a folder of golden values. */
export async function* parity(folder: string, precision: Precision): AsyncGenerator<ParityLine> {
  const files = await readGolden(folder);
  const engine = await openEngine(precision);
  try {
    for (const file of files) {
      if (!('cases' in file.json)) yield* replayOps(engine, file);
      else if (isImplemented(file.json as GoldenModel)) yield* replayModel(engine, file);
    }
  } finally {
    engine.dispose();
  }
}
