/** Every parser takes or refuses whatever it is given: `npm run bench:fuzz` tries as many inputs as are wanted, here are a few of each, and mutations of real files where they are there. */
import assert from 'node:assert/strict';
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { damaged } from './mutations';
import { attack, targets } from './targets';

const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-attacks-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const all = targets(folder);

/** Inputs of each parser. */
const RUNS = 40;

test('every parser takes what fulfils its promise, or refuses by an error of its own that names file or field, and asks for no memory out of proportion', async (t) => {
  for (const target of await all)
    await t.test(target.name, async () => {
      const seen = { taken: 0, refused: 0 };
      await fc.assert(
        fc.asyncProperty(target.inputs, async (input) => void seen[await attack(target, input)]++),
        { numRuns: RUNS, seed: 7 },
      );
      assert.ok(seen.refused > 0 || target.name.startsWith('checkpoint manifest') || target.name.startsWith('result'), 'no input was refused: the attack misses');
    });
});

const SHARED = path.resolve(__dirname, '../../../shared/data');

/** The first bytes of a file that lies anywhere below a folder. */
function firstBytes(below: string, ending: string, most: number): Buffer | undefined {
  if (!existsSync(below)) return undefined;
  const name = readdirSync(below, { recursive: true, encoding: 'utf8' }).sort().find((n) => n.endsWith(ending));
  if (name === undefined) return undefined;
  const bytes = Buffer.alloc(most);
  const fd = openSync(path.join(below, name), 'r');
  try {
    return bytes.subarray(0, readSync(fd, bytes, 0, most, 0));
  } finally {
    closeSync(fd);
  }
}

/** Real files: parser, folder, ending, how much of the file; what is cut off is damaged already. */
const REAL: readonly (readonly [target: string, folder: string, ending: string, bytes: number])[] = [
  ['GLUE TSV, cola', 'glue/CoLA', 'dev.tsv', 20_000],
  ['GLUE TSV, stsb', 'glue/STS-B', 'dev.tsv', 20_000],
  ['GLUE TSV, mnli', 'glue/MNLI', 'dev_matched.tsv', 20_000],
  ['SQuAD JSON', 'squad', 'train-v2.0-small.json', 2 ** 22],
  ['CIFAR-10', 'cifar10', 'test.bin', 3073 * 4],
  ['CIFAR-100', 'cifar100', 'test.bin', 3074 * 4],
  ['images', 'imagenet-sample', '.JPEG', 2 ** 20],
  ['safetensors, whole', 'checkpoints', '.safetensors', 2 ** 23],
  ['config.json, image', 'checkpoints', 'config.json', 2 ** 16],
];

test('real files that were damaged are taken or refused as well', async (t) => {
  const byName = new Map((await all).map((x) => [x.name, x]));
  for (const [name, below, ending, most] of REAL)
    await t.test(name, async (t) => {
      const file = firstBytes(path.join(SHARED, below), ending, most) ?? firstBytes(path.join(SHARED, below), ending.toLowerCase(), most);
      if (!file) return t.skip(`no ${ending} below ../shared/data/${below}`);
      const target = byName.get(name)!;
      const inputs = damaged([file]).map((bytes) => (name.startsWith('CIFAR') ? { records: bytes, names: null } : bytes));
      await fc.assert(fc.asyncProperty(inputs, async (input) => void (await attack(target, input))), { numRuns: 8, seed: 11 });
    });
});

test('the judge sees what it is there for: an error that is not SlimFit’s, one that names nothing, a value that breaks its promise', async () => {
  const target = (parse: () => void) => ({ name: 't', inputs: fc.constant(0), names: ['x.json'], parse });
  const { DataEntryError } = await import('../../src/errors');
  await assert.rejects(attack(target(() => { throw new TypeError('x.json'); }), 0), /TypeError/);
  await assert.rejects(attack(target(() => { throw new DataEntryError('y', 'the file', 'bad'); }), 0), /names none/);
  await assert.rejects(attack(target(() => assert.ok(false, 'a broken promise')), 0), /a broken promise/);
  assert.equal(await attack(target(() => { throw new DataEntryError('x.json', 'the file', 'bad'); }), 0), 'refused');
  assert.equal(await attack(target(() => {}), 0), 'taken');
});
