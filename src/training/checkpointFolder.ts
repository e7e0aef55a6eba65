/**
 * Checkpoints on disk: `checkpoint-<step>` folders as Hugging Face's Trainer names them, each whole or not there at all.
 *
 * A checkpoint is written into `.checkpoint-<step>.tmp`: every file is synced, the folder renamed, and the folder above synced, so that neither a kill nor a power cut leaves half of one under its name. `manifest.json`
 * holds bytes and SHA-256 of every other file: what a disk lost or changed afterwards is recognised. One of the same step steps aside as `.checkpoint-<step>.old` until the new one stands.
 */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statfsSync, statSync } from 'node:fs';
import { open, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { CheckpointWriteError } from '../errors';
import { cut, shown } from '../shown';
import { formatBytes } from '../units';

export const MANIFEST_FILE = 'manifest.json';

/** What a checkpoint folder holds. */
export interface CheckpointManifest {
  readonly format: 'slimfit-checkpoint';
  readonly version: 1;
  /** Steps that were done. */
  readonly step: number;
  /** Drawn when a run begins; those that go on from a checkpoint keep it. */
  readonly run: string;
  /** Counts the checkpoints of a folder in the order in which they were written, which after a rewind is not that of their steps. */
  readonly sequence: number;
  /** ISO 8601. */
  readonly savedAt: string;
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}

/** A checkpoint folder, before its files are looked at. */
export interface StoredCheckpoint {
  readonly folder: string;
  /** Steps that were done, from the folder's name, else from the manifest; NaN when neither tells. */
  readonly step: number;
  /** Undefined when it cannot be read: then the checkpoint is damaged. */
  readonly manifest: CheckpointManifest | undefined;
}

const NAME = /^checkpoint-(\d+)$/;
const LEFT_OVER = /^\.checkpoint-(\d+)\.(tmp|old)$/;

/** One checkpoint folder. */
export function checkpointAt(folder: string): StoredCheckpoint {
  const step = Number(NAME.exec(path.basename(folder))?.[1] ?? NaN);
  try {
    const m = JSON.parse(readFileSync(path.join(folder, MANIFEST_FILE), 'utf8')) as CheckpointManifest;
    const isCount = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 0;
    const whole = m.format === 'slimfit-checkpoint' && m.version === 1 && isCount(m.step) && isCount(m.sequence) && typeof m.run === 'string' && m.files !== null && typeof m.files === 'object' && !Array.isArray(m.files);
    // A checkpoint may be copied under another name, but not one step's under another's.
    return { folder, step: Number.isNaN(step) && whole ? m.step : step, manifest: whole && (Number.isNaN(step) || m.step === step) ? m : undefined };
  } catch {
    return { folder, step, manifest: undefined };
  }
}

/** The checkpoints in a folder, those without a readable manifest first, then the one written last, and so on. Empty where there are none, or no such folder. */
export function listCheckpoints(dir: string): StoredCheckpoint[] {
  if (!statSync(dir, { throwIfNoEntry: false })?.isDirectory()) return [];
  const folders = readdirSync(dir, { withFileTypes: true }).filter((e) => e.isDirectory() && NAME.test(e.name));
  const order = ({ manifest }: StoredCheckpoint) => manifest?.sequence ?? Infinity;
  return folders.map((e) => checkpointAt(path.join(dir, e.name))).sort((a, b) => (order(a) === order(b) ? b.step - a.step : order(b) - order(a)));
}

/** What is wrong with a checkpoint, in words; undefined when every file is there with the bytes that were written. Reads all of it. @param needed files without which it is none */
export async function damageOf({ folder, manifest }: StoredCheckpoint, needed: readonly string[]): Promise<string | undefined> {
  if (!manifest) return `${MANIFEST_FILE} is missing, cut off or not of this checkpoint`;
  for (const name of needed) if (!Object.hasOwn(manifest.files, name)) return `${MANIFEST_FILE} names no ${name}`;
  for (const [name, want] of Object.entries(manifest.files)) {
    if (name !== path.basename(name) || name === '..' || name === '.') return `${MANIFEST_FILE} names ${shown(name)}, no file of this folder`;
    if (typeof want?.bytes !== 'number' || typeof want.sha256 !== 'string') return `${MANIFEST_FILE} says of ${cut(name)} ${shown(want)}`;
    const file = path.join(folder, name);
    try {
      const stats = statSync(file);
      if (!stats.isFile()) return `${cut(name)} is no file`;
      if (stats.size !== want.bytes) return `${cut(name)} has ${stats.size} bytes, not ${want.bytes}`;
      if ((await sha256Of(file)) !== want.sha256) return `${cut(name)} is not what was written (its SHA-256 differs)`;
    } catch (error) {
      return `${cut(name)} cannot be read (${cut((error as Error).message)})`;
    }
  }
  return undefined;
}

async function sha256Of(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const part of createReadStream(file, { highWaterMark: 2 ** 20 })) hash.update(part as Buffer);
  return hash.digest('hex');
}

/** Removes what a killed save left behind, and gives a checkpoint its name back that stepped aside for one that never came. */
export function cleanUp(dir: string): void {
  if (!existsSync(dir)) return;
  for (const name of readdirSync(dir)) {
    const [, step, kind] = LEFT_OVER.exec(name) ?? [];
    if (step === undefined) continue;
    const folder = path.join(dir, `checkpoint-${step}`);
    if (kind === 'old' && !existsSync(folder)) renameSync(path.join(dir, name), folder);
    else rmSync(path.join(dir, name), { recursive: true, force: true });
  }
}

/** What files are written with while a checkpoint is made. */
export interface CheckpointWriter {
  /** The folder, under its temporary name: whatever else is put there becomes part of the checkpoint. */
  readonly folder: string;
  /** Writes a file from pieces, as they come. */
  write(name: string, contents: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void>;
}

/**
 * Writes a checkpoint.
 * @param neededBytes about how large it will be, for the error of a full disk
 * @param fill writes the files
 * @returns the folder
 * @throws CheckpointWriteError when the disk is full or refuses: the temporary folder is gone then, and older checkpoints are as they were; what `fill` throws, likewise
 */
export async function writeCheckpointFolder(
  dir: string,
  head: Pick<CheckpointManifest, 'step' | 'run' | 'sequence'>,
  neededBytes: number,
  fill: (writer: CheckpointWriter) => Promise<void>,
): Promise<string> {
  const final = path.join(dir, `checkpoint-${head.step}`);
  const temporary = path.join(dir, `.checkpoint-${head.step}.tmp`);
  const aside = path.join(dir, `.checkpoint-${head.step}.old`);
  try {
    const made = mkdirSync(dir, { recursive: true });
    if (made) await syncFolder(path.dirname(made));
    cleanUp(dir);
    mkdirSync(temporary);
    const files: Record<string, { bytes: number; sha256: string }> = {};
    const write = async (name: string, contents: AsyncIterable<Uint8Array> | Iterable<Uint8Array>) => {
      const hash = createHash('sha256');
      let bytes = 0;
      const handle = await open(path.join(temporary, name), 'wx');
      try {
        for await (const part of contents) {
          await handle.writeFile(part);
          hash.update(part);
          bytes += part.length;
        }
        await handle.sync();
      } finally {
        await handle.close();
      }
      files[name] = { bytes, sha256: hash.digest('hex') };
    };
    await fill({ folder: temporary, write });
    for (const name of readdirSync(temporary)) {
      if (Object.hasOwn(files, name)) continue;
      const file = path.join(temporary, name);
      await syncFile(file);
      const contents = await readFile(file);
      files[name] = { bytes: contents.length, sha256: createHash('sha256').update(contents).digest('hex') };
    }
    const manifest: CheckpointManifest = { format: 'slimfit-checkpoint', version: 1, ...head, savedAt: new Date().toISOString(), files: { ...files } };
    await write(MANIFEST_FILE, [Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`)]);
    await syncFolder(temporary);
    if (existsSync(final)) await rename(final, aside);
    await rename(temporary, final);
    await syncFolder(dir);
    await rm(aside, { recursive: true, force: true });
    return final;
  } catch (error) {
    try {
      cleanUp(dir);
    } catch {
      // The next save or resume tries again; the error that matters is the one above.
    }
    throw ofDisk(error) ? writeError(error, final, dir, neededBytes) : error;
  }
}

/** An error of the operating system. */
function ofDisk(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).errno === 'number';
}

function writeError(error: NodeJS.ErrnoException, folder: string, dir: string, neededBytes: number): CheckpointWriteError {
  const full = error.code === 'ENOSPC' || error.code === 'EDQUOT';
  const what = full ? `the disk is full: it needs about ${formatBytes(neededBytes)} (${neededBytes} bytes), ${freeBytes(dir)} are free. Free some, or save to another folder` : `${error.message}. Make the folder writable, or save to another one`;
  return new CheckpointWriteError(`${folder} cannot be written, ${what}, then call save() again; older checkpoints and the training are as they were`, folder, neededBytes, { cause: error });
}

function freeBytes(dir: string): string {
  try {
    const { bavail, bsize } = statfsSync(dir);
    return formatBytes(bavail * bsize);
  } catch {
    return 'an unknown number of bytes';
  }
}

async function syncFile(file: string): Promise<void> {
  const handle = await open(file, 'r+');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes names durable. Windows has no such call and needs none. */
async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
