/** Every parser takes or refuses whatever it is given; `npm run bench:fuzz` does the same for as long as is wanted. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { attack, type Target, targets } from './targets';

const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-attacks-'));
let all: Target[] = [];
before(async () => {
  all = await targets(folder);
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** Inputs of each parser here: many are looked at by the benchmark. */
const RUNS = 60;

for (let i = 0; i < 28; i++)
  test(`parser ${i}`, async () => {
    const target = all[i];
    if (!target) return;
    await fc.assert(fc.asyncProperty(target.inputs, async (input) => void (await attack(target, input))), { numRuns: RUNS, seed: 1 });
  });
