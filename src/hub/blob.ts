/**
 * One file's contents, downloaded into `blobs/<hash>` of a cache: checked against the hash that is its name, and whole or not there at all.
 *
 * What has come so far lies in `blobs/<hash>.incomplete` and is gone on with by a Range request. While a download runs the file has its owner in its name, so that no two ever
 * write to the same one: taking it over is one rename, which one of them wins. A file whose owner has died is taken over as well. No If-Range is sent: the hash shows at the end
 * whether the parts belong together, while the entity tag of a storage server tells nothing across two signed addresses.
 */
import { createHash, type Hash } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { type FileHandle, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { ChecksumError, DownloadError, SlimFitError } from '../errors';
import { formatBytes } from '../units';
import { type HubClient, shown, Transient } from './client';

/** A file as the hub's listing describes it. */
export interface RepoFile {
  /** Path in the repository. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** The hash of the contents, in hex: SHA-256 of a file in large file storage, else git's blob SHA-1. Name of the blob, as Python's etag. */
  readonly hash: string;
  readonly algorithm: 'sha256' | 'git-sha1';
}

/** A file of another machine that has not grown for so long is nobody's. */
const ABANDONED_MS = 600_000;
const HOST = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);
/** Files that this process writes to now. */
const writing = new Set<string>();
let count = 0;

function hasherOf(file: RepoFile): Hash {
  return file.algorithm === 'sha256' ? createHash('sha256') : createHash('sha1').update(`blob ${file.size}\0`);
}

/** Whether nobody writes to this partial file. */
async function isFree(folder: string, name: string, owner: string | undefined): Promise<boolean> {
  if (owner === undefined) return true;
  const [, host, pid] = /^([0-9a-f]{8})-(\d+)-\d+$/.exec(owner) ?? [];
  if (host !== HOST) return Date.now() - (await stat(path.join(folder, name))).mtimeMs > ABANDONED_MS;
  if (Number(pid) === process.pid) return !writing.has(name);
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

/** Partial files of a blob that nobody writes to, the longest first. */
async function freePartials(folder: string, hash: string): Promise<string[]> {
  const found: { name: string; size: number }[] = [];
  for (const name of await readdir(folder)) {
    const match = new RegExp(`^${hash}(?:\\.([\\w-]+))?\\.incomplete$`).exec(name);
    try {
      if (match && (await isFree(folder, name, match[1]))) found.push({ name, size: (await stat(path.join(folder, name))).size });
    } catch {
      // Its owner has finished in the meantime.
    }
  }
  return found.sort((a, b) => b.size - a.size).map((f) => f.name);
}

/** Takes the longest free partial file over, if there is one. */
async function takeOver(folder: string, hash: string, mine: string): Promise<void> {
  for (const name of await freePartials(folder, hash)) {
    try {
      await rename(path.join(folder, name), mine);
      return;
    } catch {
      // Another process was faster.
    }
  }
}

/** Bytes of a file that have come before. */
export async function partialBytes(folder: string, hash: string): Promise<number> {
  const [name] = await freePartials(folder, hash);
  return name ? (await stat(path.join(folder, name))).size : 0;
}

/**
 * Downloads a file into a cache's folder of blobs, which exists.
 * @param url address at the endpoint
 * @param onBytes told how many bytes more (or, when it starts anew, fewer) have come
 * @throws DownloadError (the partial file is kept), ChecksumError (nothing is kept), HubAccessError, HubNotFoundError, InterruptedError (the partial file is kept)
 */
export async function downloadBlob(client: HubClient, file: RepoFile, url: string, folder: string, onBytes: (n: number) => void): Promise<void> {
  const name = `${file.hash}.${HOST}-${process.pid}-${count++}.incomplete`;
  const working = path.join(folder, name);
  const blob = path.join(folder, file.hash);
  writing.add(name);
  let handle: FileHandle | undefined;
  let keep = true;
  try {
    await takeOver(folder, file.hash, working);
    handle = await open(working, constants.O_RDWR | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0), 0o666);
    let have = (await handle.stat()).size;
    let old = have;
    let hash = hasherOf(file);
    const startAnew = async () => {
      onBytes(old - have);
      have = old = 0;
      hash = hasherOf(file);
      await handle!.truncate(0);
    };
    if (have > file.size) await startAnew();
    else if (have > 0) for await (const piece of createReadStream(working)) hash.update(piece as Buffer);
    await checkSpace(folder, file, file.size - have, url);
    for (;;) {
      if (have < file.size) {
        await client.retry(
          url,
          async () => {
            const answer = await client.get(url, { 'accept-encoding': 'identity', ...(have > 0 ? { range: `bytes=${have}-` } : {}) }, 'file', file.path);
            const fits = await expectSize(answer.status, answer.headers, have, file, () => answer.close());
            if (!fits) {
              await startAnew();
              if (answer.status === 206) {
                answer.close();
                throw new Transient('answered with another part of the file than was asked for');
              }
            }
            for await (const piece of answer.pieces()) {
              if (have + piece.length > file.size) {
                keep = false;
                throw new ChecksumError(`${shown(url)}: sends more than the ${file.size} bytes of the hub's listing; nothing was kept. The server or a proxy in between is wrong`);
              }
              await write(handle!, piece, have, working);
              hash.update(piece);
              have += piece.length;
              onBytes(piece.length);
            }
            if (have < file.size) throw new Transient(`the answer ended after ${have} of ${file.size} bytes`);
          },
          () => have,
        );
      }
      const found = hash.digest('hex');
      if (found === file.hash) break;
      if (old > 0) {
        // Some of it came in an earlier download, which may have been of something else.
        await startAnew();
        continue;
      }
      keep = false;
      throw new ChecksumError(`${shown(url)}: has ${file.algorithm} ${found}, but the hub's listing says ${file.hash}; nothing was kept. Try again; if it stays so, the server or a proxy in between changes the file`);
    }
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(working, blob);
    for (const left of await freePartials(folder, file.hash)) await rm(path.join(folder, left), { force: true });
  } catch (error) {
    await handle?.close().catch(() => {});
    const partial = `${blob}.incomplete`;
    const size = async (f: string) => (await stat(f).catch(() => undefined))?.size ?? 0;
    if (keep && (await size(working)) > (await size(partial))) await rename(working, partial);
    else await rm(working, { force: true });
    if (error instanceof SlimFitError) throw error;
    throw new DownloadError(`${shown(url)}: cannot be stored in ${folder}: ${(error as Error).message}`, shown(url), await size(partial), undefined, { cause: error });
  } finally {
    writing.delete(name);
  }
}

/** Whether an answer goes on where the partial file ends. @throws ChecksumError when it announces another size than the listing */
async function expectSize(status: number, headers: Headers, have: number, file: RepoFile, close: () => void): Promise<boolean> {
  const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get('content-range') ?? '');
  const announced = status === 206 ? (range?.[2] ?? '*') : headers.has('content-encoding') ? '*' : (headers.get('content-length') ?? '*');
  // Fewer bytes than announced by the listing are taken for a cut, more are never read.
  if (announced !== '*' && Number(announced) > file.size) {
    close();
    throw new ChecksumError(`${file.path}: the server announces ${announced} bytes, the hub's listing ${file.size}; nothing was read. The server or a proxy in between is wrong`);
  }
  return status === 206 ? Number(range?.[1] ?? -1) === have : have === 0;
}

async function write(handle: FileHandle, piece: Uint8Array, at: number, file: string): Promise<void> {
  for (let done = 0; done < piece.length; ) {
    const { bytesWritten } = await handle.write(piece, done, piece.length - done, at + done);
    if (bytesWritten === 0) throw new Error(`${file} takes no more bytes`);
    done += bytesWritten;
  }
}

/** A full disk is told before the download, not after an hour of it. */
async function checkSpace(folder: string, file: RepoFile, bytes: number, url: string): Promise<void> {
  const free = await statfs(folder).then((s) => s.bavail * s.bsize, () => Infinity);
  if (bytes > free)
    throw new DownloadError(`${file.path} needs ${formatBytes(bytes)} more, but ${formatBytes(free)} are free in ${folder}: make room, or set HF_HOME to a folder on another disk`, shown(url), 0);
}
