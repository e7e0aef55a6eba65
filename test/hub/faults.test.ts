/**
 * What happens when the network, the server or the disk does not do as it should. Each row is a test of that name below; "kept" is the partial file, from which the next call
 * goes on, and "nothing left" means neither a blob nor a file in a snapshot.
 *
 * | fault                                               | what happens                                                                  |
 * |-----------------------------------------------------|-------------------------------------------------------------------------------|
 * | connection cut once in the middle                   | goes on from that byte; the file is checked and whole                         |
 * | connection cut every time                           | DownloadError after as many tries as were asked for; partial file kept        |
 * | connection cut often, each time after a MiB         | goes on as long as it takes                                                   |
 * | no byte for a while                                 | counts as a cut; goes on from there                                           |
 * | process killed in the middle                        | the next one takes the partial file over and goes on                          |
 * | stopped by a signal                                 | InterruptedError at once; partial file kept; the next call goes on            |
 * | stopped by the notebook's stop button               | InterruptedError at once; partial file kept                                   |
 * | stopped while it waits for the next try             | InterruptedError at once                                                      |
 * | partial file of other contents                      | found by its hash, thrown away, loaded once more from the start               |
 * | partial file longer than the file                   | thrown away, loaded from the start                                            |
 * | partial file of another version of the file         | not touched, not used                                                         |
 * | partial file complete                               | checked and taken without a request                                           |
 * | server that ignores Range                           | loaded from the start                                                         |
 * | server that answers with another range              | loaded from the start                                                         |
 * | status 401                                          | HubAccessError that names HF_TOKEN; one request                               |
 * | status 403 of a gated repository                    | HubAccessError that says to ask for access; one request                       |
 * | status 404 of a repository                          | HubNotFoundError: repository                                                  |
 * | status 404 of a revision                            | HubNotFoundError: revision                                                    |
 * | status 404 of a file                                | HubNotFoundError: file                                                        |
 * | status 429 with Retry-After                         | waits as long as it says, then done                                           |
 * | status 429 with a Retry-After of a day              | DownloadError at once, with the time to wait                                  |
 * | status 500 twice                                    | tried again, done                                                             |
 * | status 503 for ever                                 | DownloadError with the status after as many tries as were asked for           |
 * | status 418                                          | DownloadError at once: is it a hub?                                           |
 * | storage server refuses an expired link              | a fresh link is asked for                                                     |
 * | redirect to another origin                          | followed without the token                                                    |
 * | redirect without end                                | DownloadError after ten                                                       |
 * | redirect to a file: address                         | DownloadError, not followed                                                   |
 * | wrong contents of a large file (SHA-256)            | ChecksumError; nothing left                                                   |
 * | wrong contents of a small file (git SHA-1)          | ChecksumError; nothing left                                                   |
 * | Content-Length larger than the listing says         | ChecksumError before a byte is read; nothing left                             |
 * | Content-Length smaller than the listing says        | DownloadError after as many tries as were asked for                           |
 * | Content-Length larger than what comes               | counts as a cut; DownloadError when it stays so                               |
 * | body without end                                    | ChecksumError at the announced size; nothing left                             |
 * | body shorter than the listing says                  | DownloadError after as many tries as were asked for                           |
 * | listing that claims more bytes than the disk has    | DownloadError that says how much is free; no request for the file             |
 * | hostile file name in a listing                      | UnsafeFileNameError; nothing written                                          |
 * | hostile hash in a listing                           | UnsafeFileNameError; nothing written                                          |
 * | hostile commit                                      | DownloadError; nothing written                                                |
 * | hostile ETag header                                 | not used: blobs are named by the hash that is checked                         |
 * | folder of the snapshot is a link                    | UnsafeFileNameError; nothing written behind it                                |
 * | file and folder of one name in a listing            | UnsafeFileNameError; nothing written outside                                  |
 * | HTML instead of JSON                                | DownloadError: is it a hub?; one request                                      |
 * | JSON of something else                              | DownloadError: is it a hub?                                                   |
 * | listing whose pages lead in a circle                | DownloadError                                                                 |
 * | answer without end instead of a listing             | DownloadError at 64 MiB                                                       |
 * | no server, nothing in the cache                     | DownloadError that names address and reason, and says what to do              |
 * | no server, model in the cache                       | the cache's copy, and a notice                                                |
 * | hub in trouble, model in the cache                  | the cache's copy, and a notice                                                |
 * | two processes at once                               | both get the whole file                                                       |
 * | cache that cannot be written                        | DownloadError that names the folder                                           |
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import { ChecksumError, DownloadError, HubAccessError, HubNotFoundError, InterruptedError, UnsafeFileNameError } from '../../src/errors';
import { hub } from '../../src/hub/hub';
import { cutAfter, fail, type FakeFile, gitSha1, json, type Kind, partOf, sha256 } from './fakeHub';
import { below, type Bench, MODEL, put, read, REPO, TOKEN, WEIGHTS, withHub } from './helpers';

const HASH = sha256(WEIGHTS);
const TRIES = 3;
const LONG = 100_000_000;
const get = (b: Bench, more: object = {}) => hub(REPO, { ...b.options, ...more });
const partials = (b: Bench) => below(b.at('blobs')).filter((n) => n.endsWith('.incomplete'));
const ranges = (b: Bench) => b.fake.asked.filter((a) => a.kind === 'storage').map((a) => a.range);

/** Answers requests for one file's contents in place of the server, the n-th (from 0) as `act` says. */
function onWeights(b: Bench, act: (q: IncomingMessage, r: ServerResponse, n: number, file: FakeFile) => boolean | void): void {
  let n = 0;
  b.fake.fault = (q, r, kind, file) => kind === 'storage' && act(q, r, n++, file!) !== false;
}
function onKind(b: Bench, wanted: Kind, act: (q: IncomingMessage, r: ServerResponse, n: number) => boolean | void): void {
  let n = 0;
  b.fake.fault = (q, r, kind) => kind === wanted && act(q, r, n++) !== false;
}

/** The model is here, whole. */
async function whole(b: Bench, folder: string): Promise<void> {
  assert.deepEqual(read(folder, 'model.safetensors'), WEIGHTS);
  assert.deepEqual(partials(b), []);
}
/** Neither blob nor partial file nor link of the weights is here. */
function nothingLeft(b: Bench, file = 'model.safetensors', hash = HASH): void {
  assert.ok(!existsSync(b.at('snapshots', b.commit, file)));
  assert.deepEqual(below(b.at('blobs')).filter((n) => n.startsWith(hash)), []);
}
function kept(b: Bench, bytes: number): void {
  assert.deepEqual(partials(b), [`${HASH}.incomplete`]);
  assert.deepEqual(readFileSync(b.at('blobs', `${HASH}.incomplete`)), WEIGHTS.subarray(0, bytes), 'the bytes that came');
  assert.ok(!existsSync(b.at('snapshots', b.commit, 'model.safetensors')));
}
async function failsWith<E extends Error>(b: Bench, kind: abstract new (...args: never[]) => E, text: RegExp, more: object = {}): Promise<E> {
  const error = await b.fails(() => get(b, more));
  assert.ok(error instanceof kind, `${error.name}: ${error.message}`);
  assert.match(error.message, text);
  return error as E;
}
/** Waits until something is so. */
async function until(so: () => boolean): Promise<void> {
  for (let i = 0; !so(); i++) {
    if (i > 2000) throw new assert.AssertionError({ message: `never came: ${so}` });
    await new Promise((done) => setTimeout(done, 10));
  }
}
/** Waits until so many bytes of the one partial file are on the disk. */
const arrived = (b: Bench) => (bytes: number) => until(() => partials(b).some((n) => statSync(b.at('blobs', n), { throwIfNoEntry: false })?.size === bytes));
const cut = (b: Bench, q: IncomingMessage, r: ServerResponse, f: FakeFile, bytes: number) => cutAfter(q, r, f.data, bytes, arrived(b));
const child = (b: Bench) => spawn(process.execPath, ['--import', 'tsx', path.join(__dirname, 'downloadChild.ts'), b.fake.endpoint, b.cache, REPO], { stdio: ['ignore', 'pipe', 'inherit'] });

const ROWS: readonly [fault: string, happens: string, run: (b: Bench) => Promise<unknown>][] = [
  ['connection cut once in the middle', 'goes on from that byte; the file is checked and whole', async (b) => {
    onWeights(b, (q, r, n, f) => (n === 0 ? cut(b, q, r, f, 70_000) : false));
    await whole(b, await get(b));
    assert.deepEqual(ranges(b), [undefined, 'bytes=70000-']);
  }],
  ['connection cut every time', 'DownloadError after as many tries as were asked for; partial file kept', async (b) => {
    onWeights(b, (q, r, _n, f) => cut(b, q, r, f, 1000));
    const error = await failsWith(b, DownloadError, /the connection was cut \([A-Z_]+\), 3 times in a row\. 3000 bytes are kept/);
    assert.equal(error.bytes, 3000);
    assert.equal(b.fake.count('storage'), TRIES);
    assert.ok(!error.url.includes('?'));
    kept(b, 3000);
    b.fake.fault = () => false;
    await whole(b, await get(b));
    assert.equal(ranges(b).at(-1), 'bytes=3000-');
  }],
  ['connection cut often, each time after a MiB', 'goes on as long as it takes', async (b) => {
    const data = Buffer.alloc(7 * 2 ** 20 + 5, 'made up');
    b.fake.commit(`models/${REPO}`, { ...MODEL, 'model.safetensors': { data, lfs: true } });
    onWeights(b, (q, r, _n, f) => cut(b, q, r, f, 2 ** 20 + 100_000));
    assert.deepEqual(read(await get(b), 'model.safetensors'), data);
    assert.ok(b.fake.count('storage') > TRIES);
  }],
  ['no byte for a while', 'counts as a cut; goes on from there', async (b) => {
    onWeights(b, (q, r, n, f) => {
      if (n > 0) return false;
      r.writeHead(200, partOf(q, f.data).headers);
      r.write(f.data.subarray(0, 500));
    });
    await whole(b, await get(b, { retry: { tries: TRIES, firstDelayMs: 1, stallMs: 1000 } }));
    assert.deepEqual(ranges(b), [undefined, 'bytes=500-']);
    b.fake.fault = (_q, _r, kind) => kind === 'info';
    await failsWith(b, DownloadError, /no byte came/, { revision: 'other', retry: { tries: 1, stallMs: 50 } });
  }],
  ['process killed in the middle', 'the next one takes the partial file over and goes on', async (b) => {
    onWeights(b, (q, r, n, f) => {
      if (n > 0) return false;
      r.writeHead(200, partOf(q, f.data).headers);
      r.write(f.data.subarray(0, 40_000));
    });
    const process = child(b);
    await arrived(b)(40_000);
    process.kill('SIGKILL');
    await once(process, 'exit');
    assert.match(partials(b)[0], new RegExp(`^${HASH}\\.[0-9a-f]{8}-${process.pid}-\\d+\\.incomplete$`));
    await whole(b, await get(b));
    assert.deepEqual(ranges(b), [undefined, 'bytes=40000-']);
  }],
  ['stopped by a signal', 'InterruptedError at once; partial file kept; the next call goes on', async (b) => {
    const stop = new AbortController();
    onWeights(b, (q, r, n, f) => {
      if (n > 0) return false;
      r.writeHead(200, partOf(q, f.data).headers);
      r.write(f.data.subarray(0, 900));
      void arrived(b)(900).then(() => stop.abort());
    });
    await failsWith(b, InterruptedError, /was stopped; what has come is kept/, { signal: stop.signal, retry: { tries: TRIES, stallMs: 60_000 } });
    kept(b, 900);
    await whole(b, await get(b));
    assert.equal(ranges(b).at(-1), 'bytes=900-');
    await failsWith(b, InterruptedError, /was stopped/, { signal: AbortSignal.abort() });
  }],
  ["stopped by the notebook's stop button", 'InterruptedError at once; partial file kept', async (b) => {
    const stop = new AbortController();
    const key = Symbol.for('slimfit.kernel');
    (globalThis as { [key: symbol]: unknown })[key] = { signal: stop.signal };
    try {
      onWeights(b, (q, r, _n, f) => {
        r.writeHead(200, partOf(q, f.data).headers);
        r.write(f.data.subarray(0, 900));
        void arrived(b)(900).then(() => stop.abort());
      });
      await failsWith(b, InterruptedError, /was stopped/, { signal: new AbortController().signal, retry: { tries: TRIES, stallMs: 60_000 } });
      kept(b, 900);
    } finally {
      delete (globalThis as { [key: symbol]: unknown })[key];
    }
  }],
  ['stopped while it waits for the next try', 'InterruptedError at once', async (b) => {
    const stop = new AbortController();
    onKind(b, 'info', (_q, r) => (fail(r, 503), void setTimeout(() => stop.abort(), 20)));
    await failsWith(b, InterruptedError, /was stopped/, { signal: stop.signal, retry: { tries: TRIES, firstDelayMs: 3_600_000, longestWaitMs: 1e8 } });
  }],
  ['partial file of other contents', 'found by its hash, thrown away, loaded once more from the start', async (b) => {
    put(b.at('blobs', `${HASH}.incomplete`), Buffer.alloc(5000, 'other'));
    await whole(b, await get(b));
    assert.deepEqual(ranges(b), ['bytes=5000-', undefined]);
  }],
  ['partial file longer than the file', 'thrown away, loaded from the start', async (b) => {
    put(b.at('blobs', `${HASH}.incomplete`), Buffer.alloc(WEIGHTS.length + 1));
    await whole(b, await get(b));
    assert.deepEqual(ranges(b), [undefined]);
  }],
  ['partial file of another version of the file', 'not touched, not used', async (b) => {
    const other = b.at('blobs', `${'a'.repeat(64)}.incomplete`);
    put(other, 'other');
    assert.deepEqual(read(await get(b), 'model.safetensors'), WEIGHTS);
    assert.deepEqual(ranges(b), [undefined]);
    assert.equal(readFileSync(other, 'utf8'), 'other');
  }],
  ['partial file complete', 'checked and taken without a request', async (b) => {
    put(b.at('blobs', `${HASH}.incomplete`), WEIGHTS);
    await whole(b, await get(b));
    assert.deepEqual(ranges(b), []);
  }],
  ['server that ignores Range', 'loaded from the start', async (b) => {
    put(b.at('blobs', `${HASH}.incomplete`), WEIGHTS.subarray(0, 5000));
    onWeights(b, (_q, r, _n, f) => void r.writeHead(200, { 'content-length': f.data.length }).end(f.data));
    await whole(b, await get(b));
    assert.deepEqual(ranges(b), ['bytes=5000-']);
  }],
  ['server that answers with another range', 'loaded from the start', async (b) => {
    put(b.at('blobs', `${HASH}.incomplete`), WEIGHTS.subarray(0, 5000));
    onWeights(b, (_q, r, n, f) => (n === 0 ? void r.writeHead(206, { 'content-range': `bytes 4000-199999/${f.data.length}` }).end(f.data.subarray(4000)) : false));
    await whole(b, await get(b));
    assert.deepEqual(ranges(b), ['bytes=5000-', undefined]);
  }],
  ['status 401', 'HubAccessError that names HF_TOKEN; one request', async (b) => {
    onKind(b, 'info', (_q, r) => fail(r, 401));
    const error = await failsWith(b, HubAccessError, /owner\/tiny-bert \(status 401\).*HF_TOKEN/, { token: false });
    assert.equal(error.status, 401);
    await failsWith(b, HubAccessError, /the token that was sent does not allow it/);
    assert.equal(b.fake.asked.length, 2);
  }],
  ['status 403 of a gated repository', 'HubAccessError that says to ask for access; one request', async (b) => {
    onKind(b, 'file', (_q, r) => fail(r, 403, 'GatedRepo'));
    await failsWith(b, HubAccessError, /gated repository owner\/tiny-bert \(status 403\).*ask for access/);
    assert.equal(b.fake.count('file'), 1);
  }],
  ['status 404 of a repository', 'HubNotFoundError: repository', async (b) => {
    const error = await b.fails(() => hub('owner/absent', b.options));
    assert.ok(error instanceof HubNotFoundError && error.what === 'repository');
    assert.match(error.message, /no repository owner\/absent/);
    assert.deepEqual(below(b.cache), []);
  }],
  ['status 404 of a revision', 'HubNotFoundError: revision', async (b) => {
    assert.equal((await failsWith(b, HubNotFoundError, /no revision 'v9' of owner\/tiny-bert/, { revision: 'v9' })).what, 'revision');
    assert.equal((await failsWith(b, HubNotFoundError, /no revision/, { revision: 'f'.repeat(40) })).what, 'revision');
  }],
  ['status 404 of a file', 'HubNotFoundError: file', async (b) => {
    onKind(b, 'file', (q, r) => (q.url!.endsWith('vocab.txt') ? fail(r, 404, 'EntryNotFound') : false));
    assert.equal((await failsWith(b, HubNotFoundError, /no file vocab\.txt/)).what, 'file');
  }],
  ['status 429 with Retry-After', 'waits as long as it says, then done', async (b) => {
    const at: number[] = [];
    onKind(b, 'tree', (_q, r, n) => (at.push(performance.now()), n === 0 ? fail(r, 429, undefined, { 'retry-after': '1' }) : false));
    await whole(b, await get(b));
    // The wait is at least what was asked for (the first delay of this test is 1 ms); nothing is asserted about its end.
    assert.ok(at[1] - at[0] >= 990);
    onKind(b, 'storage', (_q, r, n) => (n === 0 ? fail(r, 429, undefined, { 'retry-after': new Date(Date.now() - 5000).toUTCString() }) : false));
    b.fake.commit(`models/${REPO}`, { ...MODEL, 'model.safetensors': { data: Buffer.from('later'), lfs: true } });
    assert.equal(read(await get(b), 'model.safetensors').toString(), 'later');
  }],
  ['status 429 with a Retry-After of a day', 'DownloadError at once, with the time to wait', async (b) => {
    onKind(b, 'info', (_q, r) => fail(r, 429, undefined, { 'retry-after': '86400' }));
    assert.equal((await failsWith(b, DownloadError, /Too many requests: wait 24:00:00 as it asks, or set HF_TOKEN/)).status, 429);
    assert.equal(b.fake.asked.length, 1);
  }],
  ['status 500 twice', 'tried again, done', async (b) => {
    onKind(b, 'info', (_q, r, n) => (n < 2 ? fail(r, 500) : false));
    await whole(b, await get(b));
  }],
  ['status 503 for ever', 'DownloadError with the status after as many tries as were asked for', async (b) => {
    onKind(b, 'file', (_q, r) => fail(r, 503));
    assert.equal((await failsWith(b, DownloadError, /status 503, 3 times in a row\. The hub is in trouble/)).status, 503);
    assert.equal(b.fake.count('file'), TRIES);
  }],
  ['status 418', 'DownloadError at once: is it a hub?', async (b) => {
    onKind(b, 'info', (_q, r) => fail(r, 418));
    await failsWith(b, DownloadError, /status 418: is HF_ENDPOINT the address of a hub/);
    assert.equal(b.fake.asked.length, 1);
  }],
  ['storage server refuses an expired link', 'a fresh link is asked for', async (b) => {
    onWeights(b, (_q, r, n) => (n === 0 ? fail(r, 403) : false));
    await whole(b, await get(b));
    assert.equal(b.fake.asked.filter((a) => a.kind === 'file' && a.url.endsWith('model.safetensors')).length, 2);
  }],
  ['redirect to another origin', 'followed without the token', async (b) => {
    await whole(b, await get(b));
    const sent = (kind: Kind) => new Set(b.fake.asked.filter((a) => a.kind === kind).map((a) => a.authorization));
    assert.deepEqual([...sent('file')], [`Bearer ${TOKEN}`]);
    assert.deepEqual([...sent('storage')], [undefined]);
    // A page of the listing on another host gets none either.
    b.fake.commit(`models/${REPO}`, MODEL);
    onKind(b, 'tree', (_q, r) => json(r, [], { link: `<${b.fake.storageEndpoint}/a/b/c>; rel="next"` }));
    b.fake.asked.length = 0;
    await b.fails(() => get(b));
    assert.deepEqual([b.fake.count('storage'), ...sent('storage')], [1, undefined]);
  }],
  ['redirect without end', 'DownloadError after ten', async (b) => {
    onKind(b, 'file', (q, r) => void r.writeHead(302, { location: `${q.url}` }).end());
    await failsWith(b, DownloadError, /redirected more than 10 times/);
    assert.equal(b.fake.count('file'), 11);
  }],
  ['redirect to a file: address', 'DownloadError, not followed', async (b) => {
    for (const location of ['file:///etc/passwd', 'http://', 'http://me:secret@127.0.0.1/', 'data:,x']) {
      onKind(b, 'file', (_q, r) => void r.writeHead(302, { location }).end());
      assert.ok(!(await failsWith(b, DownloadError, /which is not followed/)).message.includes('secret'));
    }
  }],
  ['wrong contents of a large file (SHA-256)', 'ChecksumError; nothing left', async (b) => {
    const wrong = Buffer.from(WEIGHTS);
    wrong[100] ^= 1;
    onWeights(b, (_q, r) => void r.writeHead(200, { 'content-length': wrong.length }).end(wrong));
    await failsWith(b, ChecksumError, new RegExp(`sha256 ${sha256(wrong)}, but the hub's listing says ${HASH}`));
    nothingLeft(b);
    assert.equal(b.fake.count('storage'), 1);
  }],
  ['wrong contents of a small file (git SHA-1)', 'ChecksumError; nothing left', async (b) => {
    onKind(b, 'file', (q, r) => (q.url!.endsWith('config.json') ? void r.end('{"model_type":"bart"}') : false));
    await failsWith(b, ChecksumError, /config\.json: has git-sha1/);
    nothingLeft(b, 'config.json', gitSha1(MODEL['config.json'].data));
  }],
  ['Content-Length larger than the listing says', 'ChecksumError before a byte is read; nothing left', async (b) => {
    onWeights(b, (_q, r) => void r.writeHead(200, { 'content-length': '300000' }).end(Buffer.alloc(300_000)));
    await failsWith(b, ChecksumError, /announces 300000 bytes, the hub's listing 200000/);
    nothingLeft(b);
  }],
  ['Content-Length smaller than the listing says', 'DownloadError after as many tries as were asked for', async (b) => {
    onWeights(b, (_q, r) => void r.writeHead(200, { 'content-length': '1000' }).end(WEIGHTS.subarray(0, 1000)));
    await failsWith(b, DownloadError, /ended after 1000 of 200000 bytes, 3 times in a row/);
    kept(b, 1000);
  }],
  ['Content-Length larger than what comes', 'counts as a cut; DownloadError when it stays so', async (b) => {
    onWeights(b, (q, r) => {
      const { status, headers, part } = partOf(q, WEIGHTS);
      r.writeHead(status, headers);
      r.write(part.subarray(0, 10));
      void arrived(b)(WEIGHTS.length - part.length + 10).then(() => r.socket!.end());
    });
    await failsWith(b, DownloadError, /3 times in a row\. 30 bytes are kept/);
    kept(b, 30);
  }],
  ['body without end', 'ChecksumError at the announced size; nothing left', async (b) => {
    let sent = 0;
    onWeights(b, (_q, r) => {
      r.writeHead(200);
      const more = () => {
        while (!r.destroyed) {
          // Far beyond what sockets hold back; an end after all, so that a client without a bound fails instead of hanging.
          if (sent > LONG) return void r.end();
          sent += 10_000;
          if (!r.write(Buffer.alloc(10_000, 7))) return void r.once('drain', more);
        }
      };
      more();
    });
    await failsWith(b, ChecksumError, /sends more than the 200000 bytes/);
    nothingLeft(b);
    assert.ok(sent < LONG, 'and it is not listened to');
  }],
  ['body shorter than the listing says', 'DownloadError after as many tries as were asked for', async (b) => {
    onWeights(b, (_q, r) => void r.writeHead(200).end(WEIGHTS.subarray(0, 1234)));
    await failsWith(b, DownloadError, /ended after 1234 of 200000 bytes/);
    kept(b, 1234);
  }],
  ['listing that claims more bytes than the disk has', 'DownloadError that says how much is free; no request for the file', async (b) => {
    b.fake.listing = (entries) => entries.map((e) => (e.path === 'model.safetensors' ? { ...e, size: 2 ** 52, lfs: { oid: HASH, size: 2 ** 52 } } : e));
    await failsWith(b, DownloadError, /model\.safetensors needs 4096 TiB more, but .* are free in .*HF_HOME/);
    assert.equal(b.fake.asked.filter((a) => a.url.endsWith('model.safetensors')).length, 0);
  }],
  ['hostile file name in a listing', 'UnsafeFileNameError; nothing written', async (b) => {
    for (const name of ['../config.json', 'a/../../b', '/etc/x', 'a\\..\\b', 'C:\\x', 'd:x', 'a/C:x', 'x\0y', 'x\ny', '..', 'config.json/..']) {
      b.fake.listing = (entries) => [...entries, { ...entries[0], path: name }];
      await failsWith(b, UnsafeFileNameError, /nothing was written/);
    }
    // Names that some system cannot store matter when they are wanted.
    for (const name of ['con', 'sub/NUL.txt', 'lpt1.json', 'a.', 'a /b', 'a//b', './a', 'a?', 'a:b', 'x'.repeat(256)]) {
      b.fake.listing = (entries) => [...entries, { ...entries[0], path: name }];
      await failsWith(b, UnsafeFileNameError, /nothing was written/, { files: [name] });
    }
    assert.deepEqual(below(b.cache), []);
  }],
  ['hostile hash in a listing', 'UnsafeFileNameError; nothing written', async (b) => {
    for (const oid of ['../../../evil', '/tmp/evil', 'a'.repeat(39), 'A'.repeat(40), `${'a'.repeat(40)}\n`, '', 7, null, undefined]) {
      b.fake.listing = (entries) => entries.map((e, i) => (i === 0 ? { ...e, oid } : e));
      await failsWith(b, UnsafeFileNameError, /no hash; nothing was written/);
      b.fake.listing = (entries) => entries.map((e) => (e.lfs ? { ...e, lfs: { oid: oid ?? '..', size: 5 } } : e));
      await failsWith(b, UnsafeFileNameError, /no hash; nothing was written/);
    }
    assert.deepEqual(below(b.cache), []);
  }],
  ['hostile commit', 'DownloadError; nothing written', async (b) => {
    for (const sha of ['../../evil', '', 'main', 5, undefined, `${'a'.repeat(40)}\n`]) {
      onKind(b, 'info', (_q, r) => json(r, { _id: '1', id: REPO, sha }));
      await failsWith(b, DownloadError, /names no commit/);
    }
    assert.deepEqual(below(b.cache), []);
  }],
  ['hostile ETag header', 'not used: blobs are named by the hash that is checked', async (b) => {
    b.fake.fault = (_q, r, kind) => (kind === 'file' && (r.setHeader('etag', '"../../../../evil"'), r.setHeader('x-linked-etag', '"../../evil"'), r.setHeader('x-repo-commit', '../evil')), false);
    await get(b);
    assert.deepEqual(readdirSync(b.at('blobs')).sort(), [HASH, gitSha1(MODEL['config.json'].data), gitSha1(MODEL['vocab.txt'].data)].sort());
  }],
  ['folder of the snapshot is a link', 'UnsafeFileNameError; nothing written behind it', async (b) => {
    const elsewhere = path.join(b.cache, 'elsewhere');
    mkdirSync(elsewhere);
    b.fake.commit(`models/${REPO}`, { ...MODEL, 'sub/x': { data: Buffer.from('x') } });
    const commit = path.basename(await get(b));
    symlinkSync(elsewhere, b.at('snapshots', commit, 'sub'));
    await failsWith(b, UnsafeFileNameError, /is a link, no folder/, { files: ['sub/x'] });
    assert.deepEqual(readdirSync(elsewhere), []);
  }],
  ['file and folder of one name in a listing', 'UnsafeFileNameError; nothing written outside', async (b) => {
    b.fake.listing = (entries) => [...entries, { ...entries[0], path: 'config.json/x' }];
    await get(b);
    await failsWith(b, UnsafeFileNameError, /no folder/, { files: ['config.json/x'] });
  }],
  ['HTML instead of JSON', 'DownloadError: is it a hub?; one request', async (b) => {
    for (const kind of ['info', 'tree'] as const) {
      b.fake.asked.length = 0;
      onKind(b, kind, (_q, r) => void r.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end('<html>Please log in'));
      await failsWith(b, DownloadError, /answered with text\/html, not with JSON: is HF_ENDPOINT/);
      assert.equal(b.fake.count(kind), 1);
    }
  }],
  ['JSON of something else', 'DownloadError: is it a hub?', async (b) => {
    for (const value of [{ error: 'x' }, null, 5, [null], [{ type: 'file' }], [{ type: 'file', path: 'x', oid: 'a'.repeat(40), size: -1 }], [{ type: 'file', path: 'x', oid: 'a'.repeat(40), size: 1e300 }]]) {
      onKind(b, 'tree', (_q, r) => json(r, value));
      await failsWith(b, DownloadError, /none of a hub/);
    }
    for (const value of [null, [], 5]) {
      onKind(b, 'info', (_q, r) => json(r, value));
      await failsWith(b, DownloadError, /none of a hub|names no commit/);
    }
    assert.deepEqual(below(b.cache), []);
  }],
  ['listing whose pages lead in a circle', 'DownloadError', async (b) => {
    onKind(b, 'tree', (_q, r) => json(r, [], { link: `<${b.fake.endpoint}/api/models/${REPO}/tree/x?page=2>; rel="next"` }));
    await failsWith(b, DownloadError, /leads back to a page/);
    assert.equal(b.fake.count('tree'), 2);
  }],
  ['answer without end instead of a listing', 'DownloadError at 64 MiB', async (b) => {
    onKind(b, 'tree', (_q, r) => {
      const more = () => {
        while (!r.destroyed) if (!r.write(Buffer.alloc(2 ** 20, ' '))) return void r.once('drain', more);
      };
      more();
    });
    await failsWith(b, DownloadError, /more than 67108864 bytes/);
  }],
  ['no server, nothing in the cache', 'DownloadError that names address and reason, and says what to do', async (b) => {
    await b.fake.stop().catch(() => {});
    const error = await failsWith(b, DownloadError, /^http:\/\/127\.0\.0\.1:\d+\/api\/models\/owner\/tiny-bert\/revision\/main: no connection \(ECONNREFUSED\), 3 times in a row\..*HF_ENDPOINT.*HF_HUB_OFFLINE=1/);
    assert.deepEqual([error.bytes, error.status], [0, undefined]);
  }],
  ['no server, model in the cache', "the cache's copy, and a notice", async (b) => {
    const folder = await get(b);
    await b.fake.stop().catch(() => {});
    b.written.length = 0;
    assert.equal(await get(b), folder);
    assert.equal(b.written.length, 1);
    assert.match(b.written[0], /no connection \([A-Z_]+\), 2 times in a row: using the copy of owner\/tiny-bert in the cache \(commit [0-9a-f]{7}\)/);
  }],
  ['hub in trouble, model in the cache', "the cache's copy, and a notice", async (b) => {
    const folder = await get(b);
    b.fake.asked.length = 0;
    onKind(b, 'info', (_q, r) => fail(r, 502));
    assert.equal(await get(b), folder);
    assert.match(b.written.at(-1)!, /status 502.*using the copy/);
    assert.equal(b.fake.asked.length, 2, 'two tries are enough where there is a copy');
  }],
  ['two processes at once', 'both get the whole file', async (b) => {
    // Both are answered slowly, so that both write for a while.
    onWeights(b, (q, r, _n, f) => {
      const { status, headers, part } = partOf(q, f.data);
      r.writeHead(status, headers);
      let at = 0;
      const timer = setInterval(() => {
        r.write(part.subarray(at, (at += 10_000)));
        if (at >= part.length) (clearInterval(timer), r.end());
      }, 10);
    });
    const both = [child(b), child(b)];
    const said = await Promise.all(both.map(async (c) => {
      let text = '';
      c.stdout.on('data', (t) => (text += t));
      const [code] = await once(c, 'close');
      return [code, text];
    }));
    assert.deepEqual(said, [[0, b.at('snapshots', b.commit)], [0, b.at('snapshots', b.commit)]]);
    await whole(b, b.at('snapshots', b.commit));
    assert.equal(readdirSync(b.at('blobs')).length, 3);
  }],
  ['cache that cannot be written', 'DownloadError that names the folder', async (b) => {
    const file = path.join(b.cache, 'file');
    writeFileSync(file, '');
    await failsWith(b, DownloadError, /cannot be stored in .*file/, { cacheDir: file });
  }],
];

const source = readFileSync(__filename, 'utf8');
test('the table at the head of this file lists these tests and no others', () => {
  const listed = [...source.matchAll(/^ \* \| (.+?) +\| (.+?) +\|$/gm)].map(([, fault, happens]) => `${fault}: ${happens}`).slice(1);
  assert.deepEqual(listed, ROWS.map(([fault, happens]) => `${fault}: ${happens}`));
});

for (const [fault, happens, run] of ROWS) test(`${fault}: ${happens}`, () => withHub(async (b) => void (await run(b))));

test('a partial file of a process that lives, or of another machine, is left alone until it is abandoned', () =>
  withHub(async (b) => {
    const theirs = b.at('blobs', `${HASH}.0123abcd-1-0.incomplete`);
    put(theirs, WEIGHTS.subarray(0, 100));
    await get(b);
    assert.deepEqual(ranges(b), [undefined]);
    assert.ok(existsSync(theirs));
    utimesSync(theirs, new Date(0), new Date(0));
    b.fake.asked.length = 0;
    writeFileSync(b.at('blobs', HASH), 'damaged');
    await whole(b, await get(b));
    assert.deepEqual(ranges(b), ['bytes=100-']);
  }));
