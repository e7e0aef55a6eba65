/** Asks officialSquad.py, the published algorithms in Python. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';

/** Why a test that needs Python 3 is skipped, or false. */
export const noPython: string | false = spawnSync('python3', ['-c', 'import sys; sys.exit(sys.version_info[0] != 3)']).status === 0 ? false : 'no python3';

export interface Official {
  readonly evaluate: readonly Readonly<Record<string, number>>[];
  readonly decode: readonly { readonly text: string; readonly scoreDifference: number; readonly nBest: readonly (readonly [string, number])[] }[];
}

export function official(cases: { readonly evaluate?: readonly object[]; readonly decode?: readonly object[] }): Official {
  const run = spawnSync('python3', [path.join(__dirname, 'officialSquad.py')], { input: JSON.stringify(cases), encoding: 'utf8', maxBuffer: 2 ** 30 });
  if (run.status !== 0) throw new Error(run.stderr);
  return JSON.parse(run.stdout) as Official;
}
