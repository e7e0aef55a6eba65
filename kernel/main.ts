/**
 * Entry of the kernel: `node dist/kernel/main.cjs CONNECTION_FILE`. This thread runs the user's code; the sockets live in another
 * (ioThread.ts). Exit codes: 0 after a shutdown, 1 when it cannot start.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { inspect } from 'node:util';
import { Worker } from 'node:worker_threads';
import { version } from '../package.json';
import { tableBundle } from '../src/inspect/tableHtml';
import { Cell, InterruptError, runningCell, within } from './cell';
import { bundleOf, encodeBytes, type Formatter, type MimeBundle } from './display';
import { errorContent } from './errors';
import type { FromIo, IoSetup, Request, ToIo } from './ioMessages';
import { type CellFailure, type LanguageService, startLanguageService } from './languageService';
import { lazyModule, PRELUDE } from './prelude';
import type { ConnectionInfo, Header } from './wire';

const [, , connectionFile] = process.argv;
if (!connectionFile) {
  process.stderr.write('usage: main.cjs CONNECTION_FILE (Jupyter starts the kernel; see `slimfit lab`)\n');
  process.exit(1);
}
const connection = JSON.parse(readFileSync(connectionFile, 'utf8')) as ConnectionInfo;
/** The project: dist/kernel/main.cjs lies two folders below. */
const HOME = path.resolve(__dirname, '../..');

const toTerminal = process.stderr.write.bind(process.stderr);
const log = (text: string): void => {
  if (process.env.SLIMFIT_KERNEL_DEBUG) toTerminal(`kernel: ${text}\n`);
};

// ---- the thread with the sockets
const interrupts = new SharedArrayBuffer(4);
const interruptCount = new Int32Array(interrupts);
const kernelInfo = {
  status: 'ok',
  protocol_version: '5.3',
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
const publish = (type: string, content: object, parent: Header | undefined, metadata?: object) => tell({ kind: 'publish', type, content, parent, metadata });

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
function display(data: MimeBundle, options: { metadata?: object; displayId?: string; update?: boolean } = {}): void {
  const cell = runningCell();
  if (!cell?.header || cell.silent) return;
  const { metadata = {}, displayId, update = false } = options;
  publish(update ? 'update_display_data' : 'display_data', { data: encodeBytes(data), metadata, transient: displayId ? { display_id: displayId } : {} }, cell.header);
}

function throwIfInterrupted(): void {
  const cell = runningCell();
  if (!cell || (!cell.abort.signal.aborted && Atomics.load(interruptCount, 0) === cell.interruptsBefore)) return;
  cell.abort.abort(new InterruptError());
  throw cell.abort.signal.reason;
}

const kernel = {
  version: 1,
  display,
  registerFormatter: (f: Formatter) => void formatters.unshift(f),
  get signal() {
    return runningCell()?.abort.signal;
  },
  throwIfInterrupted,
  /** Every training step calls this: a turn of the event loop, then stops a cell that was interrupted. */
  async checkpoint() {
    throwIfInterrupted();
    await new Promise((resolve) => setImmediate(resolve));
    throwIfInterrupted();
  },
  lazyModule: (names: readonly string[]) => lazyModule(names, HOME),
};
Object.assign(globalThis, { [Symbol.for('slimfit.kernel')]: kernel });

// ---- the language
let language: LanguageService;
let ready: Promise<void> | undefined;

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
    });
    const cell = new Cell(undefined, true, 0);
    if (!(await within(cell, () => language.execute(PRELUDE)))) toTerminal(`slimfit: the prelude failed: ${inspect(cell.error)}\n`);
    log('ready');
  })();
  return ready;
}

// ---- execution, one cell after the other
const queue: Request[] = [];
let draining = false;
let current: Cell | undefined;
let executionCount = 0;
let letGo: NodeJS.Timeout | undefined;

async function drain(): Promise<void> {
  if (draining) return;
  draining = true;
  for (let r = queue.shift(); r; r = queue.shift()) await execute(r);
  draining = false;
}

async function execute(request: Request): Promise<void> {
  const { header } = request;
  const { code = '', silent = false, stop_on_error = true, store_history = !silent } = request.content as { code?: string; silent?: boolean; stop_on_error?: boolean; store_history?: boolean };
  const cell = new Cell(header, silent, request.interruptsBefore);
  current = cell;
  publish('status', { execution_state: 'busy' }, header);
  await start();
  if (!silent && store_history) executionCount++;
  if (!silent) publish('execute_input', { code, execution_count: executionCount }, header);
  let reply: object;
  let failed = false;
  try {
    within(cell, throwIfInterrupted);
    const ok = await within(cell, () => language.execute(code));
    if (!ok) throw cell.error;
    if (cell.result && !silent) {
      const data = await within(cell, () => bundleOf(cell.result!.value, formatters));
      publish('execute_result', { execution_count: executionCount, data, metadata: {} }, header);
    }
    reply = { status: 'ok', execution_count: executionCount, payload: [], user_expressions: {} };
  } catch (error) {
    failed = true;
    const content = errorContent(cell.abort.signal.aborted ? cell.abort.signal.reason : error, code);
    if (!silent) publish('error', content, header);
    reply = { status: 'error', execution_count: executionCount, ...content };
  }
  clearTimeout(letGo);
  current = undefined;
  if (failed && stop_on_error) {
    // Cells that the front end has sent already are aborted; give those on their way a moment to arrive.
    await new Promise((resolve) => setTimeout(resolve, 15));
    for (const waiting of queue.splice(0)) {
      publish('status', { execution_state: 'busy' }, waiting.header);
      tell({ kind: 'reply', type: 'execute_reply', content: { status: 'aborted', execution_count: executionCount }, to: waiting });
      publish('status', { execution_state: 'idle' }, waiting.header);
    }
  }
  tell({ kind: 'reply', type: 'execute_reply', content: reply, to: request });
  publish('status', { execution_state: 'idle' }, header);
}

function interrupt(): void {
  const cell = current;
  if (!cell) return;
  cell.abort.abort(new InterruptError());
  // A cell that awaits something without asking whether it was stopped is let go of; its next checkpoint still throws.
  letGo = setTimeout(() => language?.interrupt(), 2000);
}
process.on('SIGINT', interrupt);
process.on('uncaughtException', (error) => void process.stderr.write(`Uncaught ${inspect(error)}\n`));
process.on('unhandledRejection', (reason) => {
  if (!(reason instanceof InterruptError)) process.stderr.write(`Unhandled rejection: ${inspect(reason)}\n`);
});

// ---- completion, inspection
const text = (parts: readonly { readonly text: string }[] | undefined): string => (parts ?? []).map((p) => p.text).join('');

const ANSWERS: Readonly<Record<string, (content: Record<string, unknown>) => object>> = {
  is_complete_request({ code }) {
    const { completed, indent = '' } = language.isComplete(String(code));
    return completed ? { status: 'complete' } : { status: 'incomplete', indent };
  },
  complete_request({ code, cursor_pos }) {
    const { start: from, end, candidates, original } = language.complete(String(code), Number(cursor_pos));
    const kinds = new Map((original?.entries ?? []).map((e) => [e.name, e.kind]));
    const types = candidates.slice(0, 300).map((c) => ({ start: from, end, text: c, type: kinds.get(c) ?? '' }));
    return { status: 'ok', matches: candidates, cursor_start: from, cursor_end: end, metadata: { _jupyter_types_experimental: types } };
  },
  inspect_request({ code, cursor_pos }) {
    const info = language.inspect(String(code), Number(cursor_pos));
    if (!info) return { status: 'ok', found: false, data: {}, metadata: {} };
    const signature = text(info.displayParts);
    const docs = text(info.documentation);
    const tags = (info.tags ?? []).map((t) => `@${t.name} ${text(t.text)}`);
    return {
      status: 'ok',
      found: true,
      metadata: {},
      data: {
        'text/plain': [signature, docs, ...tags].filter(Boolean).join('\n\n'),
        'text/markdown': [`\`\`\`typescript\n${signature}\n\`\`\``, docs, ...tags].filter(Boolean).join('\n\n'),
      },
    };
  },
};

async function answer(request: Request): Promise<void> {
  const type = request.header.msg_type;
  if (type === 'execute_request') {
    queue.push(request);
    return drain();
  }
  if (!Object.hasOwn(ANSWERS, type)) return log(`unknown request ${type}`);
  publish('status', { execution_state: 'busy' }, request.header);
  const replyType = type.replace('_request', '_reply');
  try {
    await start();
    tell({ kind: 'reply', type: replyType, content: ANSWERS[type](request.content), to: request });
  } catch (error) {
    tell({ kind: 'reply', type: replyType, content: { status: 'error', ...errorContent({ kind: 'throw', error } satisfies CellFailure, '') }, to: request });
  } finally {
    publish('status', { execution_state: 'idle' }, request.header);
  }
}

io.on('exit', () => process.exit(0));
io.on('message', (m: FromIo) => {
  switch (m.kind) {
    case 'bound':
      return void setImmediate(() => void start());
    case 'request':
      return void answer(m.request);
    case 'interrupt':
      return interrupt();
    case 'shutdown':
      return tell({ kind: 'exit' });
    case 'log':
      return log(m.text);
  }
});
