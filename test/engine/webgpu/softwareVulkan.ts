/** A Vulkan driver that computes on the CPU, so that the WebGPU engine is tested on machines without a GPU: SwiftShader, as Debian's package `chromium` ships it. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';

const FOLDER = '/usr/lib/chromium';
const DRIVER = path.join(FOLDER, 'vk_swiftshader_icd.json');
const ROOT = path.resolve(__dirname, '../../..');

/** Why the tests on SwiftShader are skipped, or false. */
export const noSoftwareVulkan: string | false = ['libvulkan.so.1', 'libvk_swiftshader.so', 'vk_swiftshader_icd.json'].every((f) => existsSync(path.join(FOLDER, f)))
  ? false
  : `no SwiftShader in ${FOLDER} (Debian's package chromium)`;

/** What a process of its own gave. */
export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs a TypeScript file in a process of its own, with a TAP report if it has tests. */
export function runApart(file: string, args: readonly string[] = [], changes: NodeJS.ProcessEnv = {}): Ran {
  const env: NodeJS.ProcessEnv = { ...process.env, ...changes };
  // Without it a file of tests believes to be part of the test run that started it, and reports in binary.
  delete env.NODE_TEST_CONTEXT;
  const r = spawnSync(process.execPath, ['--import', 'tsx', '--test-reporter=tap', path.resolve(ROOT, file), ...args], { cwd: ROOT, encoding: 'utf8', env, maxBuffer: 64 * 2 ** 20 });
  return { code: r.status, out: r.stdout, err: r.stderr };
}

/** What a process needs to find SwiftShader: the loader and its driver must be known before it starts. Nothing chooses it yet. */
export const SOFTWARE_VULKAN: NodeJS.ProcessEnv = { VK_ICD_FILENAMES: DRIVER, VK_DRIVER_FILES: DRIVER, LD_LIBRARY_PATH: [FOLDER, process.env.LD_LIBRARY_PATH].filter(Boolean).join(':') };

/** The same on SwiftShader. */
export function onSoftwareVulkan(file: string, ...args: readonly string[]): Ran {
  return runApart(file, args, { ...SOFTWARE_VULKAN, SLIMFIT_WEBGPU_ADAPTER: 'software' });
}

/** One test of a TAP report. */
export interface Outcome {
  readonly name: string;
  readonly ok: boolean;
  /** What the report says of a failure. */
  readonly detail: string;
}

/** The outermost tests of a TAP report. */
export function outcomes(tap: string): Outcome[] {
  const lines = tap.split('\n');
  return lines.flatMap((line, i) => {
    const m = /^(not )?ok \d+ - (.*?)( # SKIP.*)?$/.exec(line);
    if (!m) return [];
    const end = lines.findIndex((l, k) => k > i && l === '  ...');
    return [{ name: m[2], ok: m[1] === undefined, detail: lines.slice(i, end).join('\n') }];
  });
}
