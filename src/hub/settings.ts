/**
 * Where the hub is, where its files are kept, and who asks: the environment variables of Python's huggingface_hub, so that both share one cache and one login.
 * https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
 */
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { InvalidArgumentError } from '../errors';
import type { ProgressOutput } from '../progress';

/** How often and how patiently a request is tried again. */
export interface RetryOptions {
  /** Requests in a row that may fail without bringing anything (1 MiB or more of a file counts as something). Default 5. */
  readonly tries?: number;
  /** Milliseconds before the second try; doubled before each further one, at most 8 times as long. Default 1000. */
  readonly firstDelayMs?: number;
  /** Milliseconds without a byte after which a connection counts as cut. Default 30,000. */
  readonly stallMs?: number;
  /** The longest wait that a server may ask for with Retry-After, in milliseconds. Default 300,000. */
  readonly longestWaitMs?: number;
}

/** Options of `hub()` and `dataset()`. */
export interface HubOptions {
  /** Branch, tag or commit. Default `main`. A whole commit that is in the cache needs no connection. */
  readonly revision?: string;
  /** Folder of the cache. Default: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `~/.cache/huggingface/hub`. */
  readonly cacheDir?: string;
  /** Address of the hub. Default: `HF_ENDPOINT`, else https://huggingface.co. */
  readonly endpoint?: string;
  /** Access token, sent to the endpoint alone; `false` for none. Default: `HF_TOKEN`, else the file `HF_TOKEN_PATH`, else `token` in `HF_HOME`, as `hf auth login` writes it. */
  readonly token?: string | false;
  /** Uses the cache alone and makes no request. Default: whether `HF_HUB_OFFLINE` is 1. */
  readonly offline?: boolean;
  /** Stops the download; what has come is kept, and the next call goes on from there. In a notebook the stop button does the same without it. */
  readonly signal?: AbortSignal;
  /** Where progress is drawn; `false` for nowhere. Default: standard error, unless `HF_HUB_DISABLE_PROGRESS_BARS` is 1. */
  readonly progress?: ProgressOutput | false;
  /** Told when the cache's copy is used because the hub cannot be reached. Default: console.warn. */
  readonly onNotice?: (text: string) => void;
  /** Makes the requests; for a proxy. Default: the global fetch. */
  readonly fetch?: typeof globalThis.fetch;
  /** How often and how patiently a request is tried again. */
  readonly retry?: RetryOptions;
}

/** Options with everything decided. */
export interface HubSettings {
  readonly revision: string;
  readonly cacheDir: string;
  /** Without a slash at the end. */
  readonly endpoint: string;
  readonly token: string | undefined;
  readonly offline: boolean;
  readonly signal: AbortSignal | undefined;
  readonly progress: ProgressOutput | undefined;
  readonly onNotice: (text: string) => void;
  readonly fetch: typeof globalThis.fetch;
  readonly retry: Required<RetryOptions>;
}

type Environment = Readonly<Record<string, string | undefined>>;

const isTrue = (value: string | undefined): boolean => ['1', 'ON', 'YES', 'TRUE'].includes((value ?? '').toUpperCase());

/** `~` and `$NAME` in a folder's name, which Python resolves as well. */
function expand(folder: string, env: Environment): string {
  const home = folder === '~' || folder.startsWith('~/') ? path.join(homedir(), folder.slice(1)) : folder;
  return path.resolve(home.replace(/\$(\w+)|\$\{(\w+)\}/g, (all, a?: string, b?: string) => env[(a ?? b)!] ?? all));
}

function homeOf(env: Environment): string {
  return expand(env.HF_HOME ?? path.join(env.XDG_CACHE_HOME ?? path.join(homedir(), '.cache'), 'huggingface'), env);
}

/** Folder of the cache. */
function cacheOf(env: Environment): string {
  return expand(env.HF_HUB_CACHE ?? env.HUGGINGFACE_HUB_CACHE ?? path.join(homeOf(env), 'hub'), env);
}

/** The token that the user has set or logged in with. */
function tokenOf(env: Environment): string | undefined {
  const set = env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN;
  if (set) return set;
  const file = env.HF_TOKEN_PATH ? expand(env.HF_TOKEN_PATH, env) : path.join(homeOf(env), 'token');
  return existsSync(file) ? readFileSync(file, 'utf8') : undefined;
}

/** Decides what the options leave open. @throws InvalidArgumentError, which never shows a token */
export function settingsOf(options: HubOptions, env: Environment = process.env): HubSettings {
  const token = (options.token === false ? undefined : (options.token ?? tokenOf(env)))?.trim() || undefined;
  // A header with a line break would be refused by fetch, in words that hold the token.
  if (token && !/^[\x21-\x7e]+$/.test(token)) throw new InvalidArgumentError('the access token holds characters that no token has: copy it again from the settings of your account');
  const address = options.endpoint ?? (env.HF_ENDPOINT || 'https://huggingface.co');
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    throw new InvalidArgumentError(`the hub's endpoint '${address}' is no address: it must look like https://huggingface.co`);
  }
  if (url.username || url.password) throw new InvalidArgumentError("the hub's endpoint holds a user name or password: give a token instead, in HF_TOKEN");
  if (!/^https?:$/.test(url.protocol) || url.search || url.hash) throw new InvalidArgumentError(`the hub's endpoint '${address}' must look like https://huggingface.co`);
  const retry = { tries: 5, firstDelayMs: 1000, stallMs: 30_000, longestWaitMs: 300_000, ...options.retry };
  if (!(Number.isInteger(retry.tries) && retry.tries >= 1)) throw new InvalidArgumentError(`retry.tries is ${retry.tries}; it must be a whole number of at least 1`);
  return {
    revision: options.revision ?? 'main',
    cacheDir: options.cacheDir ? path.resolve(options.cacheDir) : cacheOf(env),
    endpoint: url.href.replace(/\/+$/, ''),
    token,
    offline: options.offline ?? isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE),
    signal: stopOf(options.signal),
    progress: options.progress === false ? undefined : (options.progress ?? (isTrue(env.HF_HUB_DISABLE_PROGRESS_BARS) ? undefined : process.stderr)),
    onNotice: options.onNotice ?? console.warn,
    fetch: options.fetch ?? globalThis.fetch,
    retry,
  };
}

/** The caller's signal and, in a notebook, the stop button of the running cell. The kernel is found by its symbol: its interface lies above this folder. */
function stopOf(signal: AbortSignal | undefined): AbortSignal | undefined {
  const kernel = (globalThis as { [key: symbol]: { readonly signal?: AbortSignal } | undefined })[Symbol.for('slimfit.kernel')]?.signal;
  return signal && kernel ? AbortSignal.any([signal, kernel]) : (signal ?? kernel);
}
