/** A hub on this machine's loopback: the answers of huggingface.co that `hub()`, `dataset()` and Python's huggingface_hub need, with faults on demand. Large files redirect to a storage server of another origin. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What a request is for. */
export type Kind = 'info' | 'tree' | 'file' | 'storage';

export interface FakeFile {
  readonly data: Buffer;
  /** In large file storage. */
  readonly lfs?: boolean;
}

export interface Asked {
  readonly kind: Kind;
  readonly method: string;
  readonly url: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
}

export const sha256 = (data: Buffer): string => createHash('sha256').update(data).digest('hex');
export const gitSha1 = (data: Buffer): string => createHash('sha1').update(`blob ${data.length}\0`).update(data).digest('hex');

interface Repo {
  /** Commit by branch. */
  readonly branches: Map<string, string>;
  readonly commits: Map<string, ReadonlyMap<string, FakeFile>>;
}

export class FakeHub {
  readonly asked: Asked[] = [];
  /** Answers in place of the hub; returns whether it did. */
  fault: (request: IncomingMessage, response: ServerResponse, kind: Kind, file: FakeFile | undefined) => boolean = () => false;
  /** Changes entries of a listing before they are sent. */
  listing: (entries: Record<string, unknown>[]) => unknown = (e) => e;
  private readonly repos = new Map<string, Repo>();
  private readonly hub: Server;
  private readonly storage: Server;

  private constructor() {
    this.hub = createServer((q, r) => this.answer(q, r));
    this.storage = createServer((q, r) => this.store(q, r));
  }

  static async start(): Promise<FakeHub> {
    const fake = new FakeHub();
    for (const server of [fake.hub, fake.storage]) await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    return fake;
  }

  async stop(): Promise<void> {
    for (const server of [this.hub, this.storage]) {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    }
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.hub.address() as AddressInfo).port}`;
  }

  get storageEndpoint(): string {
    return `http://127.0.0.1:${(this.storage.address() as AddressInfo).port}`;
  }

  /** Makes a commit. @param name such as `models/owner/name` @returns its hash */
  commit(name: string, files: Readonly<Record<string, FakeFile>>, branch = 'main'): string {
    const repo = this.repos.get(name) ?? { branches: new Map<string, string>(), commits: new Map<string, ReadonlyMap<string, FakeFile>>() };
    const hash = createHash('sha1').update(name).update(branch).update(String(repo.commits.size)).digest('hex');
    repo.commits.set(hash, new Map(Object.entries(files)));
    repo.branches.set(branch, hash);
    this.repos.set(name, repo);
    return hash;
  }

  /** Requests of a kind so far. */
  count(kind: Kind): number {
    return this.asked.filter((a) => a.kind === kind).length;
  }

  private note(q: IncomingMessage, kind: Kind): void {
    this.asked.push({ kind, method: q.method!, url: q.url!, authorization: q.headers.authorization, range: q.headers.range });
  }

  private answer(q: IncomingMessage, r: ServerResponse): void {
    const url = new URL(q.url!, 'http://x');
    const api = /^\/api\/(models|datasets)\/(.+?)\/(revision|tree)\/([^/]+)$/.exec(url.pathname) ?? /^\/api\/(models|datasets)\/([^/]+(?:\/[^/]+)?)$/.exec(url.pathname);
    const resolve = /^\/(datasets\/)?(.+?)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname);
    const kind: Kind = resolve ? 'file' : api?.[3] === 'tree' ? 'tree' : 'info';
    this.note(q, kind);
    const name = resolve ? `${resolve[1] ? 'datasets' : 'models'}/${resolve[2]}` : `${api?.[1]}/${api?.[2]}`;
    const revision = decodeURIComponent((resolve ? resolve[3] : api?.[4]) ?? 'main');
    const repo = this.repos.get(name);
    const commit = repo?.branches.get(revision === 'HEAD' ? 'main' : revision) ?? revision;
    const files = repo?.commits.get(commit);
    const path = resolve && decodeURIComponent(resolve[4]);
    const file = path ? files?.get(path) : undefined;
    if (this.fault(q, r, kind, file)) return;
    if (!repo) return fail(r, 404, 'RepoNotFound');
    if (!files) return fail(r, 404, 'RevisionNotFound');
    if (kind === 'info') return json(r, { _id: '1', id: name, sha: commit, private: false, siblings: [...files.keys()].map((rfilename) => ({ rfilename })) });
    if (kind === 'tree') {
      const entries = [...files].map(([p, f]) => ({ type: 'file', path: p, size: f.data.length, oid: gitSha1(f.data), ...(f.lfs ? { lfs: { oid: sha256(f.data), size: f.data.length, pointerSize: 130 } } : {}) }));
      return json(r, this.listing(entries));
    }
    if (!file) return fail(r, 404, 'EntryNotFound');
    r.setHeader('x-repo-commit', commit);
    if (!file.lfs) {
      r.setHeader('etag', `"${gitSha1(file.data)}"`);
      return body(q, r, file.data);
    }
    r.setHeader('x-linked-etag', `"${sha256(file.data)}"`);
    r.setHeader('x-linked-size', String(file.data.length));
    r.writeHead(302, { location: `${this.storageEndpoint}/${encodeURIComponent(name)}/${commit}/${encodeURIComponent(path!)}?signature=signed-secret` });
    r.end();
  }

  private store(q: IncomingMessage, r: ServerResponse): void {
    const [, name, commit, path] = new URL(q.url!, 'http://x').pathname.split('/').map(decodeURIComponent);
    const file = this.repos.get(name)?.commits.get(commit)?.get(path);
    this.note(q, 'storage');
    if (this.fault(q, r, 'storage', file)) return;
    if (!file) return fail(r, 404, 'EntryNotFound');
    r.setHeader('etag', '"of-the-storage-server"');
    body(q, r, file.data);
  }
}

export function fail(r: ServerResponse, status: number, code?: string, headers: Readonly<Record<string, string>> = {}): void {
  r.writeHead(status, { ...(code ? { 'x-error-code': code } : {}), ...headers });
  r.end();
}

export function json(r: ServerResponse, value: unknown, headers: Readonly<Record<string, string>> = {}): void {
  r.writeHead(200, { 'content-type': 'application/json', ...headers });
  r.end(JSON.stringify(value));
}

/** Part of a file that a Range header asks for. */
export function partOf(q: IncomingMessage, data: Buffer): { status: number; part: Buffer; headers: Record<string, string> } {
  const begin = /^bytes=(\d+)-/.exec(q.headers.range ?? '')?.[1];
  if (begin === undefined) return { status: 200, part: data, headers: { 'content-length': String(data.length), 'accept-ranges': 'bytes' } };
  const part = data.subarray(Number(begin));
  return { status: 206, part, headers: { 'content-length': String(part.length), 'content-range': `bytes ${begin}-${data.length - 1}/${data.length}` } };
}

function body(q: IncomingMessage, r: ServerResponse, data: Buffer): void {
  const { status, part, headers } = partOf(q, data);
  r.writeHead(status, headers);
  r.end(q.method === 'HEAD' ? undefined : part);
}

/** Sends the first bytes of what was asked for; once they have arrived (a client drops what it has not read when a connection breaks), breaks the connection. */
export function cutAfter(q: IncomingMessage, r: ServerResponse, data: Buffer, bytes: number, arrived: (size: number) => Promise<void>): void {
  const { status, part, headers } = partOf(q, data);
  r.writeHead(status, headers);
  if (part.length <= bytes) return void r.end(part);
  r.write(part.subarray(0, bytes));
  void arrived(data.length - part.length + bytes).then(() => r.destroy());
}
