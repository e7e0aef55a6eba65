/** A hub with a small model, a fresh cache for each test, and what must hold after every one: nothing written outside of the cache, no token in any text. */
import assert from 'node:assert/strict';
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { inspect } from 'node:util';
import { writeSafetensors } from '../../src/hub/safetensors';
import type { HubModelOptions } from '../../src/hub/hub';
import { type FakeFile, FakeHub } from './fakeHub';

export const TOKEN = 'hf_MadeUpTokenOfThisTest';
export const REPO = 'owner/tiny-bert';

/** 200,000 bytes without a pattern. */
export const WEIGHTS = Buffer.from(Uint8Array.from({ length: 200_000 }, (_, i) => Math.imul(i + 1, 2654435761) >>> 24));
export const MODEL: Readonly<Record<string, FakeFile>> = {
  'config.json': { data: Buffer.from('{"model_type":"bert"}') },
  'vocab.txt': { data: Buffer.from('[PAD]\n[UNK]\n') },
  'README.md': { data: Buffer.from('not fetched') },
  'model.safetensors': { data: WEIGHTS, lfs: true },
};

export interface Bench {
  readonly fake: FakeHub;
  readonly commit: string;
  readonly cache: string;
  /** Folder of the repository in the cache. */
  readonly storage: string;
  /** Path of a file in the cache's repository folder. */
  at(...parts: string[]): string;
  /** Everything written by progress and notices. */
  readonly written: string[];
  readonly options: HubModelOptions;
  /** Runs what must fail, and returns the error. */
  fails(run: () => Promise<unknown>): Promise<Error & Record<string, unknown>>;
}

/** Names of all that is below a folder, links not followed. */
export function below(folder: string): string[] {
  return existsSync(folder) ? (readdirSync(folder, { recursive: true, encoding: 'utf8' }) as string[]).sort() : [];
}

/** Runs one test on a fresh hub and cache. */
export async function withHub(run: (bench: Bench) => Promise<void>): Promise<void> {
  const fake = await FakeHub.start();
  const home = mkdtempSync(path.join(tmpdir(), 'slimfit-hub-'));
  const cache = path.join(home, 'a', 'b', 'cache');
  mkdirSync(cache, { recursive: true });
  const written: string[] = [];
  const storage = path.join(cache, `models--${REPO.replace('/', '--')}`);
  const noToken = (text: string, what: string) => assert.ok(!text.includes(TOKEN) && !text.includes('signed-secret'), `${what} shows a secret: ${text}`);
  try {
    await run({
      fake,
      commit: fake.commit(`models/${REPO}`, MODEL),
      cache,
      storage,
      at: (...parts) => path.join(storage, ...parts),
      written,
      options: { endpoint: fake.endpoint, cacheDir: cache, token: TOKEN, offline: false, progress: { write: (t) => written.push(t) }, onNotice: (t) => written.push(t), retry: { tries: 3, firstDelayMs: 1, stallMs: 20_000 } },
      fails: async (failing) => {
        try {
          await failing();
        } catch (error) {
          noToken(inspect(error, { depth: 8 }), 'the error');
          return error as Error & Record<string, unknown>;
        }
        throw new assert.AssertionError({ message: 'nothing was thrown' });
      },
    });
    written.forEach((t) => noToken(t, 'the progress'));
    assert.deepEqual(below(home).filter((n) => !n.startsWith(path.join('a', 'b', 'cache'))), ['a', path.join('a', 'b')], 'nothing lies outside of the cache');
    for (const { kind, authorization } of fake.asked) if (kind === 'storage') assert.equal(authorization, undefined, 'the token went to the storage server');
    // A file in a snapshot is whole: its size is that of its blob, and no partial file is linked.
    for (const name of below(cache)) if (name.includes(`snapshots${path.sep}`) && lstatSync(path.join(cache, name)).isSymbolicLink()) assert.ok(existsSync(path.join(cache, name)), `${name} leads nowhere`);
  } finally {
    await fake.stop();
    rmSync(home, { recursive: true, force: true });
  }
}

/** A file of the snapshot folder. */
export const read = (folder: string, name: string): Buffer => readFileSync(path.join(folder, name));

/** The bytes of a safetensors file. */
export function safetensors(tensors: Readonly<Record<string, readonly number[]>>): Buffer {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-hub-st-'));
  const file = path.join(folder, 'x.safetensors');
  writeSafetensors(file, new Map(Object.entries(tensors).map(([n, v]) => [n, { shape: [v.length], data: Float32Array.from(v) }])));
  const bytes = readFileSync(file);
  rmSync(folder, { recursive: true });
  return bytes;
}

/** Puts a file into a folder that may not be there yet. */
export function put(file: string, data: string | Buffer): void {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, data);
}
