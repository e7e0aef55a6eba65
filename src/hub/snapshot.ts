/**
 * The cache that Python's huggingface_hub keeps, read and written the same way, so that what one has downloaded the other finds:
 *
 *   models--google-bert--bert-base-cased/
 *     blobs/<hash>                 contents, by SHA-256 (large file storage) or git's blob SHA-1
 *     refs/main                    the commit that the branch was at
 *     snapshots/<commit>/<file>    a link to ../../blobs/<hash>
 *     trees/<commit>.json          the commit's listing (huggingface_hub 2)
 *
 * https://huggingface.co/docs/huggingface_hub/guides/manage-cache
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { copyFile, lstat, mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { DownloadError, HubNotFoundError, OfflineError, SlimFitError, UnsafeFileNameError } from '../errors';
import { ProgressLine } from '../progress';
import { formatBytes } from '../units';
import { downloadBlob, partialBytes, type RepoFile } from './blob';
import { HubClient, shown } from './client';
import { checkFileName, checkRevision, checkStaysInside } from './names';
import type { HubSettings } from './settings';

const COMMIT = /^[0-9a-f]{40}$/;
const SHA1 = COMMIT;
const SHA256 = /^[0-9a-f]{64}$/;
/** Far more than any repository has: a listing without end is no listing. */
const MAX_FILES = 500_000;

/** A repository as the cache and the hub know it: at one commit. */
export interface Snapshot {
  readonly commit: string;
  /** Folder that holds the files of this commit; it exists once `load` has been called. */
  readonly folder: string;
  /** Paths of all files of the commit; offline and without a listing, of those in the cache. */
  readonly names: readonly string[];
  /** Whether `names` are those of the commit, and not of what happens to be in the cache. */
  readonly listed: boolean;
  /** Makes sure that these files are in the folder. @throws DownloadError, ChecksumError, OfflineError, HubNotFoundError, HubAccessError, UnsafeFileNameError, InterruptedError */
  load(names: readonly string[]): Promise<void>;
}

/** Entry of trees/<commit>.json. */
interface TreeEntry {
  readonly size: number;
  readonly blob_id: string;
  readonly lfs_sha256?: string;
  readonly lfs_size?: number;
  readonly xet_hash?: string;
}
type Tree = Map<string, TreeEntry>;

/**
 * Finds out which commit is meant and what it holds. Without a connection the cache's copy is taken, and `onNotice` told.
 * @throws DownloadError, OfflineError, HubNotFoundError, HubAccessError, UnsafeFileNameError, InterruptedError
 */
export async function openSnapshot(kind: 'model' | 'dataset', repo: string, settings: HubSettings): Promise<Snapshot> {
  const { revision, cacheDir, offline } = settings;
  checkRevision(revision);
  const { getRepoFolderName } = await import('@huggingface/hub');
  const storage = path.join(cacheDir, getRepoFolderName({ type: kind, name: repo }));
  const client = new HubClient(settings, repo);
  client.throwIfStopped();
  const cached = COMMIT.test(revision) ? revision : readRef(storage, revision);
  const fromCache = (): CachedSnapshot => {
    if (!cached || !existsSync(path.join(storage, 'snapshots', cached)))
      throw new OfflineError(`${repo}${revision === 'main' ? '' : ` at '${revision}'`} is not in the cache ${cacheDir}, and offline mode is on: unset HF_HUB_OFFLINE (or the option offline) once, with a connection`);
    return new CachedSnapshot(repo, storage, cached, readTree(storage, cached));
  };
  if (offline) return fromCache();
  try {
    const usable = cached !== undefined && existsSync(path.join(storage, 'snapshots', cached));
    const commit = COMMIT.test(revision) ? revision : await askCommit(kind, repo, client, usable ? 2 : undefined);
    const tree = readTree(storage, commit) ?? (await askTree(kind, repo, commit, client));
    return new HubSnapshot(kind, repo, storage, commit, tree, client);
  } catch (error) {
    if (!(error instanceof DownloadError) || !cached || !existsSync(path.join(storage, 'snapshots', cached))) throw error;
    settings.onNotice(`${error.message.split('. ')[0]}: using the copy of ${repo} in the cache (commit ${cached.slice(0, 7)})`);
    return fromCache();
  }
}

/** The commit that a branch or tag is at. */
async function askCommit(kind: 'model' | 'dataset', repo: string, client: HubClient, tries?: number): Promise<string> {
  const { modelInfo, datasetInfo } = await import('@huggingface/hub');
  const { endpoint, revision } = client.settings;
  const ask = { name: repo, revision, hubUrl: endpoint, fetch: client.apiFetch('repository', tries) };
  const answer = await understood(endpoint, async () => (kind === 'model' ? modelInfo({ ...ask, additionalFields: ['sha'] }) : datasetInfo({ ...ask, additionalFields: ['sha'] })));
  if (typeof answer.sha !== 'string' || !COMMIT.test(answer.sha)) throw new DownloadError(`${endpoint} names no commit of ${repo}: is HF_ENDPOINT the address of a hub?`, endpoint);
  return answer.sha;
}

/** All files of a commit. */
async function askTree(kind: 'model' | 'dataset', repo: string, commit: string, client: HubClient): Promise<Tree> {
  const { listFiles } = await import('@huggingface/hub');
  const { endpoint } = client.settings;
  return understood(endpoint, async () => {
    const tree: Tree = new Map();
    for await (const entry of listFiles({ repo: { type: kind, name: repo }, revision: commit, recursive: true, hubUrl: endpoint, fetch: client.apiFetch('revision') })) {
      if (entry.type !== 'file') continue;
      if (tree.size >= MAX_FILES) throw new DownloadError(`${endpoint}: the listing of ${repo} has more than ${MAX_FILES} files`, endpoint);
      const { path: name, size, oid, lfs, xetHash } = entry;
      tree.set(name, {
        size: lfs?.size ?? size,
        blob_id: oid!,
        ...(lfs ? { lfs_sha256: lfs.oid, lfs_size: lfs.size } : {}),
        ...(typeof xetHash === 'string' && SHA256.test(xetHash) ? { xet_hash: xetHash } : {}),
      });
    }
    return checkTree(tree, `${endpoint}, in the listing of ${repo},`);
  });
}

/** What the library throws when an answer is JSON, but none of a hub. */
async function understood<T>(endpoint: string, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof TypeError) throw new DownloadError(`${endpoint}: answered with JSON that is none of a hub: is HF_ENDPOINT right?`, shown(endpoint), 0, undefined, { cause: error });
    throw error;
  }
}

/** Looks at everything that will become a file's name or size. @throws UnsafeFileNameError, TypeError when it is no listing at all */
function checkTree(tree: Tree, from: string): Tree {
  for (const [name, e] of tree) {
    if (typeof name !== 'string' || name === '') throw new TypeError(`a file without a name`);
    checkStaysInside(name, from);
    const hash = hashOf(e);
    if (!(typeof hash === 'string' && (e.lfs_sha256 === undefined ? SHA1 : SHA256).test(hash)))
      throw new UnsafeFileNameError(`${from} names the contents of ${JSON.stringify(name)} ${JSON.stringify(hash)}, which is no hash; nothing was written. Do not use this repository`);
    if (!(Number.isSafeInteger(e.size) && e.size >= 0)) throw new TypeError(`size ${String(e.size)}`);
  }
  return tree;
}

const hashOf = (e: TreeEntry): string => e.lfs_sha256 ?? e.blob_id;

/** The listing in the cache; undefined when there is none that can be read. */
function readTree(storage: string, commit: string): Tree | undefined {
  const file = path.join(storage, 'trees', `${commit}.json`);
  try {
    const { format_version: version, files } = JSON.parse(readFileSync(file, 'utf8')) as { format_version: unknown; files: Record<string, TreeEntry> };
    return version === 1 ? checkTree(new Map(Object.entries(files)), file) : undefined;
  } catch (error) {
    if (error instanceof UnsafeFileNameError) throw error;
    return undefined;
  }
}

/** The commit that a branch was at when it was last asked for. */
function readRef(storage: string, revision: string): string | undefined {
  try {
    const commit = readFileSync(path.join(storage, 'refs', ...revision.split('/')), 'utf8').trim();
    return COMMIT.test(commit) ? commit : undefined;
  } catch {
    return undefined;
  }
}

let count = 0;
/** A name that no one else writes to, beside a file. */
const beside = (file: string): string => `${file}.${process.pid}-${count++}.tmp`;

/** Writes a small file whole or not at all. */
async function writeWhole(file: string, text: string): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true });
  const temporary = beside(file);
  await writeFile(temporary, text);
  await rename(temporary, file);
}

/** Size of what a path leads to; undefined when it leads to no file. */
function sizeOf(file: string): number | undefined {
  try {
    const s = statSync(file);
    return s.isFile() ? s.size : undefined;
  } catch {
    return undefined;
  }
}

/** A commit in the cache, without a hub. */
class CachedSnapshot implements Snapshot {
  readonly folder: string;
  readonly listed: boolean;
  readonly names: readonly string[];

  constructor(
    private readonly repo: string,
    storage: string,
    readonly commit: string,
    private readonly tree: Tree | undefined,
  ) {
    this.folder = path.join(storage, 'snapshots', commit);
    this.listed = tree !== undefined;
    this.names = tree ? [...tree.keys()] : readdirSync(this.folder, { recursive: true, encoding: 'utf8' }).map((n) => n.split(path.sep).join('/')).filter((n) => sizeOf(path.join(this.folder, n)) !== undefined);
  }

  async load(names: readonly string[]): Promise<void> {
    for (const name of names) checkFileName(name, this.folder);
    const missing = names.filter((n) => {
      const size = sizeOf(path.join(this.folder, n));
      return size === undefined || (this.tree?.has(n) && this.tree.get(n)!.size !== size);
    });
    if (missing.length > 0)
      throw new OfflineError(`the cache holds ${this.repo} without ${missing.slice(0, 3).join(', ')}${missing.length > 3 ? ` and ${missing.length - 3} more` : ''}: finish the download with a connection, and without HF_HUB_OFFLINE`);
  }
}

/** A commit whose missing files come from the hub. */
class HubSnapshot implements Snapshot {
  readonly folder: string;
  readonly listed = true;
  readonly names: readonly string[];

  constructor(
    private readonly kind: 'model' | 'dataset',
    private readonly repo: string,
    private readonly storage: string,
    readonly commit: string,
    private readonly tree: Tree,
    private readonly client: HubClient,
  ) {
    this.folder = path.join(storage, 'snapshots', commit);
    this.names = [...tree.keys()];
  }

  async load(names: readonly string[]): Promise<void> {
    const { endpoint } = this.client.settings;
    for (const name of names) {
      checkFileName(name, `${endpoint}, in the listing of ${this.repo},`);
      if (!this.tree.has(name)) throw new HubNotFoundError(`${endpoint} has no file ${name} in ${this.repo} (commit ${this.commit.slice(0, 7)}): check the name`, 'file');
    }
    const wanted: RepoFile[] = names.map((name) => {
      const e = this.tree.get(name)!;
      return { path: name, size: e.size, hash: hashOf(e), algorithm: e.lfs_sha256 === undefined ? 'git-sha1' : 'sha256' };
    });
    const missing = wanted.filter((f) => sizeOf(path.join(this.folder, f.path)) !== f.size);
    // A cache that holds everything may be read-only.
    if (missing.length === 0) return this.remember().catch(() => {});
    try {
      await this.fetch(missing);
      // Last: until all is here, the branch is where the older, whole copy is.
      await this.remember();
    } catch (error) {
      if (error instanceof SlimFitError) throw error;
      throw new DownloadError(`${this.repo} cannot be stored in ${this.storage}: ${(error as Error).message}: set HF_HOME to a folder that can be written`, endpoint, 0, undefined, { cause: error });
    }
  }

  private async fetch(missing: readonly RepoFile[]): Promise<void> {
    const { endpoint, progress } = this.client.settings;
    const blobs = path.join(this.storage, 'blobs');
    await mkdir(blobs, { recursive: true });
    for (const f of missing) await this.realFolder(path.dirname(path.join(this.folder, f.path)), f.path);
    const toCome = missing.filter((f) => sizeOf(path.join(blobs, f.hash)) !== f.size);
    let total = 0;
    for (const f of toCome) total += f.size - Math.min(f.size, await partialBytes(blobs, f.hash));
    const line = progress && toCome.length > 0 ? new ProgressLine(this.repo, total, progress, undefined, formatBytes) : undefined;
    let done = 0;
    try {
      for (const f of missing) {
        if (sizeOf(path.join(blobs, f.hash)) !== f.size) {
          const show = (note = f.path) => line?.update(Math.min(done, total), note);
          this.client.onWait = (text) => show(text || f.path);
          show();
          const url = `${endpoint}/${this.kind === 'model' ? '' : 'datasets/'}${this.repo}/resolve/${this.commit}/${f.path.split('/').map(encodeURIComponent).join('/')}`;
          await downloadBlob(this.client, f, url, blobs, (n) => {
            done += n;
            show();
          });
        }
        await link(path.join(blobs, f.hash), path.join(this.folder, f.path));
      }
    } finally {
      this.client.onWait = () => {};
      line?.update(Math.min(done, total));
      line?.end();
    }
  }

  /** Writes down what the commit holds, and that the branch is there. */
  private async remember(): Promise<void> {
    const { revision } = this.client.settings;
    if (readTree(this.storage, this.commit) === undefined) {
      const files = Object.fromEntries([...this.tree].sort(([a], [b]) => (a < b ? -1 : 1)));
      await writeWhole(path.join(this.storage, 'trees', `${this.commit}.json`), JSON.stringify({ format_version: 1, files }, null, 1));
    }
    if (!COMMIT.test(revision) && readRef(this.storage, revision) !== this.commit) await writeWhole(path.join(this.storage, 'refs', ...revision.split('/')), this.commit);
  }

  /** Makes a folder of the snapshot; none on the way to it may be a link that leads elsewhere. @throws UnsafeFileNameError */
  private async realFolder(folder: string, name: string): Promise<void> {
    let at = this.storage;
    for (const part of path.relative(this.storage, folder).split(path.sep)) {
      at = path.join(at, part);
      const s = await lstat(at).catch(() => undefined);
      if (!s) await mkdir(at, { recursive: true });
      else if (!s.isDirectory()) throw new UnsafeFileNameError(`${name} of ${this.repo} cannot be stored: ${at} is a ${s.isSymbolicLink() ? 'link' : 'file'}, no folder. Remove it, or do not use this repository`);
    }
  }
}

/** Points a snapshot's file to its blob, in place of whatever stands there; where links are not allowed (Windows) the file is copied. */
async function link(blob: string, pointer: string): Promise<void> {
  const temporary = beside(pointer);
  try {
    await symlink(path.relative(path.dirname(pointer), blob), temporary);
  } catch {
    await copyFile(blob, temporary);
  }
  await rename(temporary, pointer);
}
