/**
 * Requests to a hub: redirects followed by hand so that the token goes to the endpoint alone, answers that may get better asked for again (RFC 9110 §10.2.3 for Retry-After),
 * connections that bring nothing cut, and every refusal told as an error that says what to do. The library's own calls go through `apiFetch`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { DownloadError, HubAccessError, HubNotFoundError, InterruptedError } from '../errors';
import { formatDuration } from '../progress';
import type { HubSettings } from './settings';

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const MAX_REDIRECTS = 10;
/** Statuses of a server that may do better later. */
const TRANSIENT = new Set([408, 429, 500, 502, 503, 504]);
/** A page of a listing has at most 1000 files: some hundred kilobytes. */
const MAX_API_BYTES = 64 * 2 ** 20;
/** So much of a file makes a connection worth its try. */
const PROGRESS_BYTES = 2 ** 20;

/** A failure that another try may mend. */
export class Transient extends Error {
  constructor(
    message: string,
    readonly options: { readonly status?: number; readonly waitMs?: number; readonly cause?: unknown } = {},
  ) {
    super(message);
  }
}

/** An address as it may be shown: a query may be a signature. */
export function shown(url: string | URL): string {
  const { origin, pathname } = new URL(url);
  return `${origin}${pathname}`;
}

/** A body that is being read. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** The body, piece by piece; throws Transient when the connection is cut or stalls. */
  pieces(): AsyncGenerator<Uint8Array>;
  /** Closes the connection. */
  close(): void;
}

/** One hub, with one set of options. */
export class HubClient {
  /** Told what is waited for; set by whoever draws progress. */
  onWait: (text: string) => void = () => {};

  /** @param repo name for errors, as the user wrote it */
  constructor(
    readonly settings: HubSettings,
    private readonly repo: string,
  ) {}

  /** @throws InterruptedError when the caller's signal or the notebook's stop button asks for it */
  throwIfStopped(): void {
    const { signal } = this.settings;
    if (signal?.aborted) throw new InterruptedError(`the download of ${this.repo} was stopped; what has come is kept, and the next call goes on from there`, { cause: signal.reason });
  }

  /**
   * Tries until it works, or too many tries in a row brought nothing.
   * @param bytes how much of the file is on the disk now
   * @throws DownloadError, InterruptedError, and whatever `attempt` throws that is not Transient
   */
  async retry<T>(url: string, attempt: () => Promise<T>, bytes: () => number = () => 0, tries = this.settings.retry.tries): Promise<T> {
    const { firstDelayMs, longestWaitMs } = this.settings.retry;
    for (let failures = 0; ; ) {
      this.throwIfStopped();
      const before = bytes();
      try {
        return await attempt();
      } catch (error) {
        this.throwIfStopped();
        if (!(error instanceof Transient)) throw error;
        failures = bytes() - before >= PROGRESS_BYTES ? 1 : failures + 1;
        const { status, waitMs, cause } = error.options;
        const wait = waitMs ?? Math.min(firstDelayMs * 2 ** (failures - 1), firstDelayMs * 8);
        const tooLong = wait > longestWaitMs;
        if (failures >= tries || tooLong) {
          const kept = bytes() > 0 ? ` ${bytes()} bytes are kept, and the next call goes on from there.` : '';
          const advice =
            status === 429
              ? ` Too many requests: wait${tooLong ? ` ${formatDuration(wait / 1000)} as it asks` : ' some minutes'}, or set HF_TOKEN, which is allowed more.`
              : status
                ? ' The hub is in trouble: try again later.'
                : ' Is there a connection, and is HF_ENDPOINT right? With HF_HUB_OFFLINE=1 the cache alone is used; a folder can be given instead of a name.';
          throw new DownloadError(`${shown(url)}: ${error.message}${failures > 1 ? `, ${failures} times in a row` : ''}.${kept}${advice}`, shown(url), bytes(), status, { cause });
        }
        this.onWait(`${error.message}; trying again in ${formatDuration(wait / 1000)}`);
        await sleep(wait, undefined, { signal: this.settings.signal }).catch(() => this.throwIfStopped());
        this.onWait('');
      }
    }
  }

  /**
   * One request, redirects followed.
   * @param what what is not there when the answer is 404 and does not say
   * @throws Transient, DownloadError, HubAccessError, HubNotFoundError, InterruptedError
   */
  async get(url: string, headers: Readonly<Record<string, string>>, what: HubNotFoundError['what'], name: string): Promise<Answer> {
    const { endpoint, token, signal, fetch, retry } = this.settings;
    const home = new URL(endpoint);
    const stall = new AbortController();
    const stop = signal ? AbortSignal.any([signal, stall.signal]) : stall.signal;
    let timer: NodeJS.Timeout | undefined;
    const patience = () => {
      clearTimeout(timer);
      timer = setTimeout(() => stall.abort(), retry.stallMs);
    };
    const failed = (what: string, error: unknown): Transient => {
      const { message, cause } = error as Error & { cause?: Error & { code?: string } };
      const reason = stall.signal.aborted ? `no byte came for ${formatDuration(retry.stallMs / 1000)}` : `${cause ? what : message}${cause?.code ? ` (${cause.code})` : ''}`;
      return new Transient(reason, { cause: error });
    };
    let at = new URL(url);
    for (let redirects = 0; ; redirects++) {
      const atHome = at.origin === home.origin;
      let response: Response;
      patience();
      try {
        response = await fetch(at, { redirect: 'manual', signal: stop, headers: { 'user-agent': 'slimfit', ...headers, ...(token && atHome ? { authorization: `Bearer ${token}` } : {}) } });
      } catch (error) {
        this.throwIfStopped();
        throw failed('no connection', error);
      } finally {
        clearTimeout(timer);
      }
      const { status } = response;
      if (status === 200 || status === 206) {
        const client = this;
        return {
          status,
          headers: response.headers,
          close: () => void response.body?.cancel().catch(() => {}),
          async *pieces() {
            if (!response.body) return;
            const reader = response.body.getReader();
            try {
              for (;;) {
                patience();
                const { done, value } = await reader.read();
                clearTimeout(timer);
                if (done) return;
                yield value;
              }
            } catch (error) {
              client.throwIfStopped();
              throw failed('the connection was cut', error);
            } finally {
              clearTimeout(timer);
              // Whoever stops reading early leaves no connection open.
              await reader.cancel().catch(() => {});
            }
          },
        };
      }
      void response.body?.cancel().catch(() => {});
      const location = response.headers.get('location');
      if (REDIRECTS.has(status) && location) {
        if (redirects >= MAX_REDIRECTS) throw new DownloadError(`${shown(url)}: redirected more than ${MAX_REDIRECTS} times: the hub is set up wrongly, or HF_ENDPOINT is`, shown(url), 0, status);
        let next: URL | undefined;
        try {
          next = new URL(location, at);
        } catch {
          // No address: told below.
        }
        if (!next || !/^https?:$/.test(next.protocol) || next.username || next.password || (at.protocol === 'https:' && next.protocol === 'http:'))
          throw new DownloadError(`${shown(url)}: redirected to ${next ? `a ${next.protocol} address` : 'no address'}, which is not followed`, shown(url), 0, status);
        at = next;
        continue;
      }
      throw this.refusal(status, response.headers, atHome, url, what, name);
    }
  }

  private refusal(status: number, headers: Headers, fromHub: boolean, url: string, what: HubNotFoundError['what'], name: string): Error {
    const { endpoint, token, revision } = this.settings;
    // The link to a storage server expires; the next try gets a fresh one.
    if (TRANSIENT.has(status) || (!fromHub && status === 403)) return new Transient(`answered with status ${status}`, { status, waitMs: retryAfter(headers.get('retry-after')) });
    const code = headers.get('x-error-code');
    if (status === 401 || status === 403) {
      const advice = token
        ? 'the token that was sent does not allow it: ask for access on its page, or use another token in HF_TOKEN'
        : 'it is private or gated, or there is no such repository. Check the name; if it is right, ask for access on its page and set HF_TOKEN to your access token';
      return new HubAccessError(`${endpoint} refuses ${code === 'GatedRepo' ? 'the gated repository ' : ''}${this.repo} (status ${status}): ${advice}`, status);
    }
    if (status === 404) {
      const missing = code === 'RepoNotFound' ? 'repository' : code === 'RevisionNotFound' ? 'revision' : code === 'EntryNotFound' ? 'file' : what;
      const text = { repository: `no repository ${this.repo}`, revision: `no revision '${revision}' of ${this.repo}` }[missing as string] ?? `no file ${name} in ${this.repo}`;
      return new HubNotFoundError(`${endpoint} has ${text}: check the name${token ? '' : '; a private one needs HF_TOKEN'}`, missing);
    }
    return new DownloadError(`${shown(url)}: answered with status ${status}: is HF_ENDPOINT the address of a hub?`, shown(url), 0, status);
  }

  /** A `fetch` for the library's calls: whole JSON answers, tried again as all else. */
  apiFetch(what: HubNotFoundError['what'], tries?: number): typeof globalThis.fetch {
    const seen = new Set<string>();
    return async (input) => {
      const url = String(input);
      if (seen.has(url)) throw new DownloadError(`${shown(url)}: the listing leads back to a page that was there before: the hub is set up wrongly`, shown(url));
      seen.add(url);
      return this.retry(
        url,
        async () => {
          const answer = await this.get(url, { accept: 'application/json' }, what, this.repo);
          const pieces: Uint8Array[] = [];
          let bytes = 0;
          for await (const piece of answer.pieces()) {
            bytes += piece.length;
            if (bytes > MAX_API_BYTES) throw new DownloadError(`${shown(url)}: an answer of more than ${MAX_API_BYTES} bytes: is HF_ENDPOINT the address of a hub?`, shown(url));
            pieces.push(piece);
          }
          const text = Buffer.concat(pieces).toString();
          try {
            JSON.parse(text);
          } catch {
            const type = answer.headers.get('content-type')?.split(';')[0];
            throw new DownloadError(`${shown(url)}: answered with ${type === 'application/json' || !type ? 'broken JSON' : type}, not with JSON: is HF_ENDPOINT the address of a hub, and no proxy's page in between?`, shown(url), 0, answer.status);
          }
          return new Response(text, { headers: { 'content-type': 'application/json', ...(answer.headers.has('link') ? { link: answer.headers.get('link')! } : {}) } });
        },
        undefined,
        tries,
      );
    };
  }
}

/** Retry-After in milliseconds: a number of seconds, or a date. */
function retryAfter(value: string | null): number | undefined {
  if (!value) return undefined;
  const ms = /^\d+$/.test(value.trim()) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}
