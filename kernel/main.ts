/**
 * Entry of the kernel: `node dist/kernel/main.cjs CONNECTION_FILE`. This thread runs the user's code; the sockets live in another
 * (ioThread.ts). Exit codes: 0 after a shutdown, 1 when it cannot start.
 */
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { version } from '../package.json';
import type { DisplayOptions, Formatter, KernelApi, MimeBundle } from '../src/inspect/kernelApi';
import { tableBundle } from '../src/inspect/tableHtml';
import { ANSWERS, inspection } from './answers';
import { Cell, InterruptError, runningCell, within } from './cell';
import { readConnection } from './connection';
import { bundleOf, encodeBytes } from './display';
import { type ErrorContent, errorContent, textOf } from './errors';
import type { FromIo, IoSetup, Request, ToIo } from './ioMessages';
import { type LanguageService, startLanguageService } from './languageService';
import { lazyModule, PRELUDE } from './prelude';
import { questionIn } from './question';
import type { ConnectionInfo, Header } from './wire';

const [, , connectionFile] = process.argv;
if (!connectionFile) {
  process.stderr.write('usage: main.cjs CONNECTION_FILE (Jupyter starts the kernel; see `slimfit lab`)\n');
  process.exit(1);
}
let connection: ConnectionInfo;
try {
  connection = readConnection(connectionFile);
} catch (error) {
  process.stderr.write(`slimfit: the kernel cannot start: ${(error as Error).message}\n`);
  process.exit(1);
}
/** The project: dist/kernel/main.cjs lies two folders below. */
const HOME = path.resolve(__dirname, '../..');

const exit = process.exit.bind(process);
const toTerminal = process.stderr.write.bind(process.stderr);
const log = (text: string): void => {
  if (process.env.SLIMFIT_KERNEL_DEBUG) toTerminal(`kernel: ${text}\n`);
};

// ---- the thread with the sockets
const interrupts = new SharedArrayBuffer(4);
const interruptCount = new Int32Array(interrupts);
const kernelInfo = {
  status: 'ok',
  protocol_version: '5.4',
  implementation: 'slimfit',
  implementation_version: version,
  banner: `SlimFit ${version}: fine-tune transformers in TypeScript`,
  language_info: {
    name: 'typescript',
    version: '5.0.4',
    mimetype: 'text/typescript',
    file_extension: '.ts',
    pygments_lexer: 'typescript',
    codemirror_mode: { name: 'javascript', typescript: true },
    nbconvert_exporter: 'script',
  },
  help_links: [],
  supported_features: [],
};
const io = new Worker(path.join(__dirname, 'ioThread.cjs'), { workerData: { connection, interrupts, kernelInfo } satisfies IoSetup });
const tell = (m: ToIo) => io.postMessage(m);
const publish = (type: string, content: object, parent: Header | undefined, metadata?: object) => tell({ kind: 'publish', type, json: JSON.stringify(content), parent, metadata });
const status = (state: 'busy' | 'idle', parent: Header) => tell({ kind: 'status', state, parent });
const reply = (type: string, content: object | string, to: Request) => tell({ kind: 'reply', type, json: typeof content === 'string' ? content : JSON.stringify(content), to });

// ---- what user code prints belongs to the cell that started it
function intoCell(name: 'stdout' | 'stderr'): typeof process.stdout.write {
  return ((chunk: string | Uint8Array, encoding?: unknown, callback?: unknown): boolean => {
    const text = typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('utf8');
    const cell = runningCell();
    if (!cell?.header) toTerminal(text);
    else if (!cell.silent && text) tell({ kind: 'stream', name, text, parent: cell.header });
    const done = typeof encoding === 'function' ? encoding : callback;
    if (typeof done === 'function') done();
    return true;
  }) as typeof process.stdout.write;
}
process.stdout.write = intoCell('stdout');
process.stderr.write = intoCell('stderr');

// ---- what the library sees of the kernel
const formatters: Formatter[] = [{ test: isTable, format: (t) => tableBundle(t as Parameters<typeof tableBundle>[0]) }];

function isTable(value: unknown): boolean {
  const t = value as { columnNames?: unknown; numRows?: unknown; objects?: unknown };
  return typeof t.columnNames === 'function' && typeof t.numRows === 'function' && typeof t.objects === 'function';
}

/** Shows something now; with a display id it can be updated later. */
function display(data: MimeBundle, options: DisplayOptions = {}): void {
  const cell = runningCell();
  if (!cell?.header || cell.silent) return;
  const { metadata = {}, displayId, update = false } = options;
  publish(update ? 'update_display_data' : 'display_data', { data: encodeBytes(data), metadata, transient: displayId ? { display_id: displayId } : {} }, cell.header);
}

function wasInterrupted(cell: Cell): boolean {
  return cell.abort.signal.aborted || Atomics.load(interruptCount, 0) !== cell.interruptsBefore;
}

/** Marks a cell as interrupted. @returns what it throws */
function interruption(cell: Cell): unknown {
  if (!cell.abort.signal.aborted) cell.abort.abort(new InterruptError());
  return cell.abort.signal.reason;
}

function throwIfInterrupted(): void {
  const cell = runningCell();
  if (cell?.header && wasInterrupted(cell)) throw interruption(cell);
}

const kernel: KernelApi = {
  version: 1,
  display,
  show: async (value, options) => display(await bundleOf(value, formatters), options),
  clearOutput(wait = false) {
    const cell = runningCell();
    if (cell?.header && !cell.silent) publish('clear_output', { wait }, cell.header);
  },
  page: (data, start = 0) => void runningCell()?.payload.push({ source: 'page', data: typeof data === 'string' ? { 'text/plain': data } : encodeBytes(data), start }),
  registerFormatter: (f) => void formatters.unshift(f),
  get signal() {
    return runningCell()?.abort.signal;
  },
  throwIfInterrupted,
  async checkpoint() {
    throwIfInterrupted();
    await new Promise((resolve) => setImmediate(resolve));
    throwIfInterrupted();
  },
  lazyModule: (names) => lazyModule(names, HOME),
};
Object.assign(globalThis, { [Symbol.for('slimfit.kernel')]: kernel });

// ---- the language
let language: LanguageService;
let ready: Promise<void> | undefined;
/** Why `slimfit`, `tf` and `aq` are missing; told once, below the first cell. */
let preludeFailure: ErrorContent | undefined;

function start(): Promise<void> {
  ready ??= (async () => {
    language = startLanguageService({
      rootDir: process.cwd(),
      home: HOME,
      onResult: (value) => {
        const cell = runningCell();
        if (cell) cell.result = { value };
      },
      onFailure: (failure) => {
        const cell = runningCell();
        if (cell) cell.error ??= failure;
      },
      beforeRun: throwIfInterrupted,
    });
    log('compiler ready');
    const cell = new Cell(undefined, true, 0);
    if (!(await within(cell, () => language.execute(PRELUDE, 'prelude')))) preludeFailure = errorContent(cell.error, PRELUDE);
    log('ready');
  })();
  return ready;
}

// ---- execution, one cell after the other
const queue: Request[] = [];
let draining = false;
let current: Cell | undefined;
let executionCount = 0;
/** Runs that do not count: silent ones and user expressions. */
let uncounted = 0;
let letGo: NodeJS.Timeout | undefined;

async function drain(): Promise<void> {
  if (draining) return;
  draining = true;
  for (let r = queue.shift(); r; r = queue.shift()) await execute(r);
  draining = false;
}

/** Fields of an execute_request, with the protocol's defaults. */
function executeOptions(content: Record<string, unknown>) {
  const { code = '', silent = false, stop_on_error = true, user_expressions } = content as {
    code?: string;
    silent?: boolean;
    stop_on_error?: boolean;
    user_expressions?: Record<string, string>;
  };
  const { store_history = true } = content as { store_history?: boolean };
  return { code, silent, stopOnError: stop_on_error, counted: store_history && !silent, userExpressions: user_expressions ?? {} };
}

async function execute(request: Request): Promise<void> {
  const { header } = request;
  const { code, silent, stopOnError, counted, userExpressions } = executeOptions(request.content);
  const cell = new Cell(header, silent, request.interruptsBefore);
  current = cell;
  status('busy', header);
  if (counted) {
    executionCount++;
    tell({ kind: 'cell', count: executionCount, source: code });
  }
  const count = { execution_count: executionCount };
  if (!silent) publish('execute_input', { code, ...count }, header);
  let answered: string;
  let failed = false;
  try {
    await start();
    if (preludeFailure && !silent) {
      tell({ kind: 'stream', name: 'stderr', text: `slimfit, tf and aq are not there: ${preludeFailure.evalue}\n${preludeFailure.traceback.join('\n')}\n`, parent: header });
      preludeFailure = undefined;
    }
    within(cell, throwIfInterrupted);
    const asked = questionIn(code);
    if (asked) await within(cell, () => explain(asked));
    else await evaluate(cell, code, counted ? String(executionCount) : `x${++uncounted}`);
    if (cell.result && !silent) {
      const data = await within(cell, () => bundleOf(cell.result!.value, formatters));
      publish('execute_result', { ...count, data, metadata: {} }, header);
      if (counted) tell({ kind: 'result', count: executionCount, text: String(data['text/plain'] ?? '') });
    }
    answered = JSON.stringify({ status: 'ok', ...count, payload: silent ? [] : cell.payload, user_expressions: await evaluateAll(userExpressions, cell) });
  } catch (error) {
    failed = true;
    const content = errorContent(wasInterrupted(cell) ? interruption(cell) : error, code);
    if (!silent) publish('error', content, header);
    answered = JSON.stringify({ status: 'error', ...count, ...content });
  }
  clearTimeout(letGo);
  letGo = undefined;
  current = undefined;
  if (failed && stopOnError) await abortWaiting();
  reply('execute_reply', answered, request);
  status('idle', header);
}

/** Answers a cell that is a question about a name. */
function explain(name: string): void {
  const data = inspection(language, name, name.length);
  if (data) kernel.page(data);
  else process.stdout.write(`Nothing is known of ${name}.\n`);
}

/** Runs code as a cell. @throws what it failed with */
async function evaluate(cell: Cell, code: string, name: string): Promise<void> {
  if (!(await within(cell, () => language.execute(code, name)))) throw cell.error;
}

/** Values that a front end asks for beside the cell's own, without output. */
async function evaluateAll(expressions: Record<string, string>, parent: Cell): Promise<object> {
  const values: Record<string, object> = {};
  for (const [key, code] of Object.entries(expressions)) {
    const cell = new Cell(parent.header, true, parent.interruptsBefore);
    try {
      await evaluate(cell, `(${code})`, `x${++uncounted}`);
      const data = await within(cell, () => bundleOf(cell.result?.value, formatters));
      JSON.stringify(data); // what cannot be sent is this expression's error, not the cell's
      values[key] = { status: 'ok', data, metadata: {} };
    } catch (error) {
      values[key] = { status: 'error', ...errorContent(error, code) };
    }
  }
  return values;
}

/** Cells that the front end sent after one that failed are not run; those on their way get a moment to arrive. */
async function abortWaiting(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 15));
  for (const waiting of queue.splice(0)) {
    status('busy', waiting.header);
    reply('execute_reply', { status: 'aborted', execution_count: executionCount }, waiting);
    status('idle', waiting.header);
  }
}

function interrupt(): void {
  const cell = current;
  if (!cell || !wasInterrupted(cell)) return;
  interruption(cell);
  // A cell that awaits something without asking whether it was stopped is let go of; its next checkpoint still throws.
  letGo ??= setTimeout(() => language?.interrupt(), 2000);
}
// The signal breaks a cell that loops without awaiting (vm's breakOnSigint); all else comes with the message.
process.on('SIGINT', () => {});
// Leaving with open sockets aborts the process, and a library that gives up should not take the user's variables with it.
process.exit = (code) => {
  throw new Error(`process.exit(${code ?? ''}) in a cell would end the kernel; to end it, shut it down or restart it`);
};
process.on('uncaughtException', (error) => void process.stderr.write(`Uncaught ${textOf(error)}\n`));
process.on('unhandledRejection', (reason) => {
  if (!(reason instanceof InterruptError)) process.stderr.write(`Unhandled rejection: ${textOf(reason)}\n`);
});

// ---- other requests
async function answer(request: Request): Promise<void> {
  const type = request.header.msg_type;
  if (type === 'execute_request') {
    queue.push(request);
    return drain();
  }
  if (!Object.hasOwn(ANSWERS, type)) return log(`unknown request ${type}`);
  status('busy', request.header);
  const replyType = type.replace('_request', '_reply');
  try {
    await start();
    reply(replyType, ANSWERS[type](language, request.content), request);
  } catch (error) {
    reply(replyType, { status: 'error', ...errorContent(error, '') }, request);
  } finally {
    status('idle', request.header);
  }
}

io.on('exit', (code) => exit(code));
io.on('message', (m: FromIo) => {
  switch (m.kind) {
    case 'bound':
      return void setImmediate(() => void start());
    case 'request':
      return void answer(m.request);
    case 'interrupt':
      tell({ kind: 'interrupted' });
      return interrupt();
    case 'failed':
      // The thread closes its sockets and ends with code 1; this one follows, by force if the thread does not get that far.
      setTimeout(() => process.kill(process.pid, 'SIGKILL'), 5000).unref();
      return void toTerminal(`slimfit: the kernel cannot start: ${m.text}\n`);
    case 'shutdown':
      return tell({ kind: 'exit' });
    case 'log':
      return log(m.text);
  }
});
