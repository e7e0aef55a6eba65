/** What the thread that runs user code and the thread that holds the sockets say to each other. */
import type { ConnectionInfo, Header, Message } from './wire';

/** Handed to the I/O thread at its start. */
export interface IoSetup {
  readonly connection: ConnectionInfo;
  /** One Int32: how many interrupts have been asked for. Read by every training step. */
  readonly interrupts: SharedArrayBuffer;
  readonly kernelInfo: object;
}

/** To the I/O thread. */
export type ToIo =
  /** Content is JSON already: what a user shows may not be fit for it, which is to fail in the user's cell. */
  | { readonly kind: 'publish'; readonly type: string; readonly json: string; readonly parent: Header | undefined; readonly metadata?: object }
  | { readonly kind: 'status'; readonly state: 'busy' | 'idle'; readonly parent: Header }
  /** A cell that counts begins, and the text of its result: for the history. */
  | { readonly kind: 'cell'; readonly count: number; readonly source: string }
  | { readonly kind: 'result'; readonly count: number; readonly text: string }
  | { readonly kind: 'stream'; readonly name: 'stdout' | 'stderr'; readonly text: string; readonly parent: Header }
  | { readonly kind: 'reply'; readonly type: string; readonly json: string; readonly to: Request }
  /** An interrupt has reached the thread that runs user code. */
  | { readonly kind: 'interrupted' }
  | { readonly kind: 'exit' };

/** A request for the thread that runs user code, and how many interrupts had been asked for when it came. */
export interface Request extends Message {
  readonly channel: 'shell' | 'control';
  readonly interruptsBefore: number;
}

/** From the I/O thread. */
export type FromIo =
  | { readonly kind: 'bound' }
  | { readonly kind: 'request'; readonly request: Request }
  | { readonly kind: 'interrupt' }
  | { readonly kind: 'shutdown' }
  | { readonly kind: 'log'; readonly text: string }
  /** The sockets cannot be had: the kernel cannot start. */
  | { readonly kind: 'failed'; readonly text: string };
