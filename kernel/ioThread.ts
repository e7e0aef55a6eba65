/**
 * The thread that holds all five ZeroMQ sockets. Code of the user never runs here, so a long step never silences the kernel: kernel_info, heartbeat,
 * interrupt and shutdown are answered at once.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Reply, Router, XPublisher } from 'zeromq';
import { SessionHistory } from './history';
import type { FromIo, IoSetup, ToIo } from './ioMessages';
import { type Header, Wire } from './wire';

/** Printed text is sent at most this often, because Jupyter drops streams over 1,000 messages a second. */
const STREAM_MS = 40;
/** How long a blocked main thread is waited for at shutdown. */
const SHUTDOWN_MS = 1500;
/** The same for one that has begun to end in order. */
const ORDERLY_MS = 8000;
/** After how long a cell that does not notice an interrupt is told of. */
const DEAF_MS = 2000;
/** What awaits hears an interrupt sooner than this, and needs no signal. */
const HEARS_MS = 100;
/** How long a signal may take to arrive on a loaded machine. */
const SIGNAL_MS = 100;
/** After how long the signal is sent again. */
const AGAIN_MS = 500;

const { connection, interrupts, kernelInfo } = workerData as IoSetup;
const port = parentPort!;
const wire = new Wire(connection);
const flag = new Int32Array(interrupts);
const tell = (m: FromIo) => port.postMessage(m);

/** How long messages on their way may hold up the end; without a limit a peer that is gone holds it up for ever. */
const linger = 300;
const shell = new Router({ linger });
const control = new Router({ linger });
const stdin = new Router({ linger });
const heartbeat = new Reply({ linger });
const iopub = new XPublisher({ linger, sendHighWaterMark: 0, verbosity: 'allSubs' });
const routers = { shell, control };

/** ZeroMQ takes one message at a time from each socket: sends are queued. */
function sender(socket: Router | XPublisher): (frames?: Buffer[]) => Promise<void> {
  let tail = Promise.resolve();
  return (frames) =>
    (tail = tail
      .then(() => (frames ? socket.send(frames) : undefined))
      .catch((e: Error) => tell({ kind: 'log', text: `send: ${e.message}` })));
}
const send = { shell: sender(shell), control: sender(control), iopub: sender(iopub) };

// ---- printed text, in batches of one cell and one stream
let pending: { name: 'stdout' | 'stderr'; text: string; parent: Header } | undefined;
let timer: NodeJS.Timeout | undefined;
let lastFlush = 0;

function flush(): void {
  clearTimeout(timer);
  timer = undefined;
  lastFlush = Date.now();
  if (pending) void send.iopub(wire.encode('stream', { name: pending.name, text: pending.text }, pending.parent));
  pending = undefined;
}

function stream(name: 'stdout' | 'stderr', text: string, parent: Header): void {
  if (pending && (pending.name !== name || pending.parent.msg_id !== parent.msg_id)) flush();
  pending ??= { name, text: '', parent };
  pending.text += text;
  if (Date.now() - lastFlush > STREAM_MS || pending.text.length > 100_000) flush();
  else timer ??= setTimeout(flush, STREAM_MS);
}

// ---- publishing
let running: Header | undefined;
const history = new SessionHistory();

function publish(type: string, content: object | string, parent: Header | undefined, metadata?: object): void {
  flush();
  void send.iopub(wire.encode(type, content, parent, [], metadata));
}

/** Publishes a status; the idle of another request makes JupyterLab show 'idle' in the middle of a training run, unless 'busy' follows. */
function status(state: 'busy' | 'idle', parent: Header): void {
  publish('status', { execution_state: state }, parent);
  if (state === 'busy' || !running) return;
  if (parent.msg_id === running.msg_id) running = undefined;
  else publish('status', { execution_state: 'busy' }, running);
}

let killTimer: NodeJS.Timeout | undefined;

/** The last resort: ends the process by force unless it has ended by then. */
function killIn(milliseconds: number): void {
  clearTimeout(killTimer);
  killTimer = setTimeout(() => process.kill(process.pid, 'SIGKILL'), milliseconds);
}

async function leave(): Promise<void> {
  // The language thread answers, so there is no need for force: a loaded machine gets its time.
  killIn(ORDERLY_MS);
  flush();
  await Promise.all([send.shell(), send.control(), send.iopub()]);
  closeAll(0);
}

/** Sockets first, then this thread, then (main.ts) the process: in another order ZeroMQ aborts. */
function closeAll(exitCode: number): void {
  for (const s of [shell, control, stdin, heartbeat, iopub]) s.close();
  clearInterval(orphanCheck);
  setTimeout(() => process.exit(exitCode), 30);
}

port.on('message', (m: ToIo) => {
  switch (m.kind) {
    case 'publish':
      if (m.type === 'execute_input') running = m.parent;
      return publish(m.type, m.json, m.parent, m.metadata);
    case 'status':
      return status(m.state, m.parent);
    case 'cell':
      return history.add(m.count, m.source);
    case 'result':
      return history.addResult(m.count, m.text);
    case 'stream':
      return stream(m.name, m.text, m.parent);
    case 'reply':
      flush();
      return void send[m.to.channel](wire.encode(m.type, m.json, m.to.header, m.to.identities));
    case 'interrupted':
      return clearTimeout(unheard);
    case 'exit':
      return void leave();
  }
});

// ---- requests
/** Requests that are answered here; the others go to the thread that runs user code. */
const QUICK: Readonly<Record<string, (content: Record<string, unknown>, header: Header) => object | undefined>> = {
  kernel_info_request: () => kernelInfo,
  comm_info_request: () => ({ status: 'ok', comms: {} }),
  history_request: (content) => ({ status: 'ok', history: history.query(content) }),
  comm_open: (content, header) => {
    publish('comm_close', { comm_id: content.comm_id, data: {} }, header);
    return undefined;
  },
  comm_msg: () => undefined,
  comm_close: () => undefined,
  interrupt_request: () => {
    Atomics.add(flag, 0, 1);
    tell({ kind: 'interrupt' });
    clearTimeout(unheard);
    unheard = setTimeout(() => signal(0), HEARS_MS);
    return { status: 'ok' };
  },
  shutdown_request: (content) => {
    tell({ kind: 'shutdown' });
    killIn(SHUTDOWN_MS);
    return { status: 'ok', restart: content.restart === true };
  },
};

let unheard: NodeJS.Timeout | undefined;
/** When the last signal was sent. */
let signalled = 0;

/**
 * SIGINT to ourselves breaks a cell that loops without ever awaiting (elsewhere it does nothing; Windows would end the process). It is sent again until the interrupt is heard, because a cell that
 * was just being compiled misses it. A loop that never awaits, after an await, hears nothing: the user is told.
 */
function signal(waited: number): void {
  clearTimeout(unheard);
  if (process.platform !== 'win32') {
    process.kill(process.pid, 'SIGINT');
    signalled = Date.now();
  }
  if (waited === DEAF_MS && running) stream('stderr', 'The cell does not stop: it runs a loop that never awaits. It stops at its next step or await; otherwise restart the kernel.\n', running);
  if (waited < DEAF_MS) unheard = setTimeout(() => signal(waited + AGAIN_MS), AGAIN_MS);
}

async function listen(channel: 'shell' | 'control'): Promise<void> {
  for await (const frames of routers[channel]) {
    let message: ReturnType<Wire['decode']>;
    try {
      message = wire.decode(frames);
    } catch (error) {
      tell({ kind: 'log', text: `dropped on ${channel}: ${(error as Error).message}` });
      continue;
    }
    const { header, content, identities } = message;
    if (!Object.hasOwn(QUICK, header.msg_type)) {
      // A signal on its way is not meant for the cell that comes next.
      const wait = signalled + SIGNAL_MS - Date.now();
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      tell({ kind: 'request', request: { ...message, channel, interruptsBefore: Atomics.load(flag, 0) } });
      continue;
    }
    status('busy', header);
    const reply = QUICK[header.msg_type](content, header);
    if (reply) void send[channel](wire.encode(header.msg_type.replace('_request', '_reply'), reply, header, identities));
    status('idle', header);
  }
}

/** Tells who subscribes that from now on nothing is missed (protocol 5.4: iopub_welcome). A subscription comes as a byte 1 and the topic. */
async function welcome(): Promise<void> {
  for await (const [subscription] of iopub) {
    if (subscription[0] !== 1) continue;
    const topic = subscription.subarray(1);
    void send.iopub(wire.encode('iopub_welcome', { subscription: topic.toString() }, undefined, topic.length > 0 ? [topic] : []));
  }
}

async function beat(): Promise<void> {
  for await (const m of heartbeat) await heartbeat.send(m);
}

/** The Jupyter server died: do not stay behind as an orphan. */
const parent = process.ppid;
const orphanCheck = setInterval(() => {
  if (process.ppid !== parent) process.kill(process.pid, 'SIGKILL');
}, 2000);

async function start(): Promise<void> {
  const address = (p: number) => `${connection.transport}://${connection.ip}:${p}`;
  // All settled before any failure counts: a socket must not be closed, nor the process end, in the middle of a bind.
  const binds = await Promise.allSettled([
    shell.bind(address(connection.shell_port)),
    control.bind(address(connection.control_port)),
    stdin.bind(address(connection.stdin_port)),
    heartbeat.bind(address(connection.hb_port)),
    iopub.bind(address(connection.iopub_port)),
  ]);
  for (const b of binds) if (b.status === 'rejected') throw b.reason;
  tell({ kind: 'bound' });
  publish('status', { execution_state: 'starting' }, undefined);
  await Promise.all([listen('shell'), listen('control'), welcome(), beat()]);
}

start().catch((error: Error) => {
  if (/closed/i.test(error.message)) return;
  tell({ kind: 'failed', text: error.message });
  closeAll(1);
});
