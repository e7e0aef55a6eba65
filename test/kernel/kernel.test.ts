/** A kernel in its own process, spoken to over its sockets, in a folder outside the project. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { KernelClient, makeKernelHome, writeConnection } from './kernelHome';

let home: Awaited<ReturnType<typeof makeKernelHome>>;
let cwd: string;
let k: KernelClient;

before(async () => {
  home = await makeKernelHome();
  cwd = mkdtempSync(path.join(tmpdir(), 'slimfit-elsewhere-'));
  writeFileSync(path.join(cwd, 'local.ts'), 'export const fromFile = 11;\n');
  k = await KernelClient.start(home.home, cwd);
});
after(async () => {
  await k?.stop();
  home?.remove();
  rmSync(cwd, { recursive: true, force: true });
});

/** Where a link leads; a descriptor may be gone by now. */
function linkOf(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return '';
  }
}

const kernelApi = "(globalThis as any)[Symbol.for('slimfit.kernel')]";
/** Sends a cell and waits until it prints 'begun'. */
async function begin(client: KernelClient, code: string, first = "console.log('begun')") {
  const cell = await client.send('shell', 'execute_request', { code: `${first}; ${code}`, silent: false });
  await client.until(() => client.received.some((m) => m.parent.msg_id === cell.msg_id && String(m.content.text).startsWith('begun')));
  return cell;
}
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('the last expression of a cell is its result, with the execution count of its input', async () => {
  const o = await k.run('const one = 1; one + 1');
  assert.equal(o.reply.content.status, 'ok');
  assert.deepEqual(o.result(), { 'text/plain': '2' });
  assert.equal(o.last('execute_input').execution_count, o.last('execute_result').execution_count);
  const types = o.published.map((m) => (m.header.msg_type === 'status' ? m.content.execution_state : m.header.msg_type));
  assert.deepEqual(types, ['busy', 'execute_input', 'execute_result', 'idle']);
});

test('slimfit, aq and tf are there without an import, and can be imported from a folder outside the project', async () => {
  assert.deepEqual((await k.run('[slimfit.answer, aq.table({ a: [1] }).numRows(), tf.tensor([2]).size]')).result(), { 'text/plain': '[ 42, 1, 1 ]' });
  const imported = await k.run("import { double } from 'slimfit';\nimport { table } from 'arquero';\nimport { fromFile } from './local';\ndouble(fromFile) + table({ a: [1] }).numCols()");
  assert.deepEqual(imported.result(), { 'text/plain': '23' }, JSON.stringify(imported.reply.content));
});

test('the types of the preloaded names are checked', async () => {
  const { content } = (await k.run("slimfit.double('x')")).reply;
  assert.equal(content.ename, 'TypeScriptError');
  assert.match(String(content.evalue), /^TS2345: Argument of type 'string'/);
});

test('a type error stops the cell before it runs and points at line and column of the source', async () => {
  const { content } = (await k.run('console.log("ran");\nconst shown = { one, z: missing };')).reply;
  assert.equal(content.status, 'error');
  assert.match(String(content.evalue), /^TS2304: Cannot find name 'missing'/);
  const [place, line, caret] = String((content.traceback as string[])[0]).replace(/\x1b\[\d+m/g, '').split('\n');
  assert.match(place, /^TS2304 2:25 - /);
  assert.equal(line.trim(), 'const shown = { one, z: missing };');
  assert.equal(caret.indexOf('~'), line.indexOf('missing'));
  assert.equal(caret.trim().length, 'missing'.length);
});

test('what a cell throws is an error whose traceback points into the sources of the cells', async () => {
  await k.run('interface Named { name: string }\n\nconst fail = (n: Named): number => {\n  // {one} is mended before it is compiled\n  const o = { one }; throw new RangeError(`no ${n.name}${o.one}`);\n};', { store_history: true });
  const o = await k.run('\nfail({ name: "x" });');
  const { ename, evalue, traceback } = o.last('error') as { ename: string; evalue: string; traceback: string[] };
  assert.equal(ename, 'RangeError');
  assert.equal(evalue, 'no x1');
  assert.equal(traceback[0], 'RangeError: no x1');
  assert.match(traceback[1], /^ {4}at .*cell-\d+\.ts:5:28\)$/);
  assert.match(traceback[2], /^ {4}at cell-\d+\.ts:2:1$/);
  assert.equal(traceback.length, 3);
  assert.equal(o.reply.content.status, 'error');
});

test('an error after an await keeps its place', async () => {
  const { traceback } = (await k.run('await Promise.resolve();\nthrow new Error("later");')).last('error') as { traceback: string[] };
  assert.match(traceback[1], /cell-\d+\.ts:2:7\)?$/);
});

test('printed text comes in the order it was printed, and ten thousand lines come whole in few messages', async () => {
  const o = await k.run('for (let i = 0; i < 10_000; i++) console.log(i); console.error("end")');
  assert.equal(o.text('stdout'), Array.from({ length: 10_000 }, (_, i) => `${i}\n`).join(''));
  assert.equal(o.text('stderr'), 'end\n');
  assert.ok(o.published.length < 200, `${o.published.length} messages`);
});

test('what a cell prints after it has ended still belongs to it', async () => {
  const first = await k.send('shell', 'execute_request', { code: 'setTimeout(() => console.log("late"), 300)', silent: false });
  await k.outcome(first);
  await k.run('1');
  await k.until(() => k.received.some((m) => m.parent.msg_id === first.msg_id && m.content.text === 'late\n'));
});

test('await works at top level in every form', async () => {
  const o = await k.run('const a1 = await Promise.resolve(1);\nconst list: number[] = [];\nfor await (const x of [Promise.resolve(2), Promise.resolve(3)]) list.push(x);\n[a1, ...list, await (Promise.resolve(4))]');
  assert.deepEqual(o.result(), { 'text/plain': '[ 1, 2, 3, 4 ]' });
});

test('a const can be declared again in a later cell, with another type', async () => {
  await k.run('const again = 1;');
  await k.run("const again = 'two';");
  assert.deepEqual((await k.run('again.toUpperCase()')).result(), { 'text/plain': 'TWO' });
});

test('variables of earlier cells work in shorthand and renaming patterns', async () => {
  await k.run('const y = 3; const { a: renamed } = { a: 5 };');
  assert.deepEqual((await k.run('({ y, renamed })')).result(), { 'text/plain': '{ y: 3, renamed: 5 }' });
});

test('a table is shown as HTML with its numbers to the right and its text escaped', async () => {
  const data = (await k.run("aq.table({ n: [1, 2.5], s: ['a', '<b>'] })")).result()!;
  assert.match(data['text/html'], /<table/);
  assert.ok(!data['text/html'].includes('<b>'));
  assert.match(data['text/html'], /text-align:right[^>]*>1/);
  assert.match(data['text/plain'], /2\.5/);
});

test('a value that knows how to be shown is, and an output shown before can be changed', async () => {
  const shown = await k.run("({ [Symbol.for('Jupyter.display')]: () => ({ 'text/html': '<i>x</i>', 'image/png': new Uint8Array([1, 2, 3]) }) })");
  assert.deepEqual(shown.result(), { 'text/html': '<i>x</i>', 'image/png': 'AQID' });
  const o = await k.run(`${kernelApi}.display({ 'text/plain': 'a' }, { displayId: 'd' }); ${kernelApi}.display({ 'text/plain': 'b' }, { displayId: 'd', update: true }); await ${kernelApi}.show(aq.table({ a: [1] }));`);
  const displays = o.published.filter((m) => m.header.msg_type === 'display_data');
  assert.deepEqual(displays[0].content, { data: { 'text/plain': 'a' }, metadata: {}, transient: { display_id: 'd' } });
  assert.match((displays[1].content.data as Record<string, string>)['text/html'], /<table/);
  assert.deepEqual(o.last('update_display_data').data, { 'text/plain': 'b' });
});

test('after a failed cell the ones already sent are aborted, and later ones run', async () => {
  const options = { silent: false, stop_on_error: true };
  const failing = await k.send('shell', 'execute_request', { code: 'throw new Error("stop")', ...options });
  const waiting = await k.send('shell', 'execute_request', { code: 'globalThis.wasRun = true', ...options });
  assert.equal((await k.outcome(failing)).reply.content.status, 'error');
  assert.equal((await k.outcome(waiting)).reply.content.status, 'aborted');
  assert.deepEqual((await k.run('typeof (globalThis as any).wasRun')).result(), { 'text/plain': 'undefined' });
});

test('a silent run publishes nothing but its status, and does not count', async () => {
  const before = (await k.run('1')).reply.content.execution_count as number;
  const o = await k.run('console.log("x"); 5', { silent: true });
  assert.deepEqual(new Set(o.published.map((m) => m.header.msg_type)), new Set(['status']));
  assert.equal((await k.run('1')).reply.content.execution_count, before + 1);
});

test('user expressions are evaluated beside the cell', async () => {
  const { content } = (await k.run('const u = 20', { user_expressions: { twice: 'u * 2', wrong: 'nope.x' } })).reply;
  const values = content.user_expressions as Record<string, { status: string; data?: object; ename?: string }>;
  assert.deepEqual(values.twice.data, { 'text/plain': '40' });
  assert.equal(values.wrong.status, 'error');
});

test('an interrupt stops a loop at its checkpoint, and the state stays', async () => {
  const cell = await begin(k, `let turns = 0;\nfor (;;) { turns++; await ${kernelApi}.checkpoint(); }`);
  await sleep(100);
  const started = Date.now();
  assert.equal((await k.ask('interrupt_request', {}, 'control')).reply.content.status, 'ok');
  const o = await k.outcome(cell);
  assert.equal(o.reply.content.ename, 'InterruptError');
  assert.ok(Date.now() - started < 1000);
  assert.deepEqual((await k.run('turns > 10')).result(), { 'text/plain': 'true' });
});

test('names that a failed cell reached stay, names that it did not reach are unknown', async () => {
  await k.run('const earlier = 1;');
  await k.run("interface Kept { a: number }\nconst reached: Kept = { a: 1 }, alsoReached = 'x';\nfunction hoisted() { return 2; }\nclass Made { b = 3 }\nthrow new Error('here');\nconst missed = 4;");
  assert.deepEqual((await k.run('const copy: Kept = reached;\n[copy.a, alsoReached, hoisted(), new Made().b, earlier]')).result(), { 'text/plain': "[ 1, 'x', 2, 3, 1 ]" });
  assert.match(String((await k.run('missed')).reply.content.evalue), /^TS2304/);
  assert.deepEqual((await k.ask('complete_request', { code: 'alsoRea', cursor_pos: 7 })).reply.content.matches, ['alsoReached']);
});

test('an interrupt stops a loop that never awaits', async () => {
  const cell = await begin(k, 'for (;;) {}');
  assert.equal(await k.beat(), 'are you there?', 'the heart beats while a cell keeps the thread');
  assert.equal((await k.ask('kernel_info_request', {})).reply.content.status, 'ok');
  await k.send('control', 'interrupt_request', {});
  assert.equal((await k.outcome(cell)).reply.content.ename, 'InterruptError');
  assert.equal((await k.run('1')).reply.content.status, 'ok');
});

test('an interrupt that comes while a cell waits its turn stops it before it runs', async () => {
  const first = await begin(k, `for (;;) await ${kernelApi}.checkpoint();`);
  const second = await k.send('shell', 'execute_request', { code: 'globalThis.secondRan = true; for (;;) {}', silent: false, stop_on_error: false });
  await k.ask('kernel_info_request', {});
  await k.send('control', 'interrupt_request', {});
  await k.outcome(first);
  assert.notEqual((await k.outcome(second)).reply.content.status, 'ok');
  assert.deepEqual((await k.run('typeof (globalThis as any).secondRan')).result(), { 'text/plain': 'undefined' });
});

test('an interrupt lets go of a cell that awaits something that never comes', async () => {
  const cell = await begin(k, 'await new Promise(() => {})');
  await k.send('control', 'interrupt_request', {});
  assert.equal((await k.outcome(cell)).reply.content.ename, 'InterruptError');
});

test('an aborted signal tells a cell that it was stopped', async () => {
  const cell = await begin(k, `await new Promise<void>((done) => ${kernelApi}.signal.addEventListener('abort', () => { console.log('heard'); done(); }));`);
  await k.send('control', 'interrupt_request', {});
  assert.match((await k.outcome(cell)).text('stdout'), /heard/);
});

test('a running cell is shown as busy again after other requests were answered', async () => {
  const cell = await begin(k, 'await new Promise((r) => setTimeout(r, 600)); "done"');
  const info = await k.ask('kernel_info_request', {});
  const idle = k.received.findIndex((m) => m.parent.msg_id === info.reply.parent.msg_id && m.content.execution_state === 'idle');
  const outcome = await k.outcome(cell);
  assert.ok(k.received.slice(idle).some((m) => m.parent.msg_id === cell.msg_id && m.content.execution_state === 'busy'));
  assert.equal(outcome.reply.content.status, 'ok');
});

test('completion knows the preloaded names and earlier cells, with positions in code points', async () => {
  await k.run('const something = { alpha: 1, beta: 2 };');
  const { content } = (await k.ask('complete_request', { code: "'😀'; something.al", cursor_pos: 17 })).reply;
  assert.deepEqual(content.matches, ['alpha']);
  assert.equal(content.cursor_start, 15);
  assert.equal(content.cursor_end, 17);
  assert.deepEqual((await k.ask('complete_request', { code: 'slimfit.dou', cursor_pos: 11 })).reply.content.matches, ['double']);
});

test('inspection tells signature and documentation, also inside the parentheses of a call', async () => {
  for (const [code, cursor_pos] of [['slimfit.double', 12], ['slimfit.double(', 15]] as const) {
    const { content } = (await k.ask('inspect_request', { code, cursor_pos, detail_level: 0 })).reply;
    assert.equal(content.found, true);
    assert.match((content.data as Record<string, string>)['text/plain'], /double\(x: number\): number\n\nTwice a number\./);
  }
  assert.equal((await k.ask('inspect_request', { code: '  ', cursor_pos: 1 })).reply.content.found, false);
});

test('completeness, history, comms and kernel information are answered', async () => {
  assert.deepEqual((await k.ask('is_complete_request', { code: 'if (x) {' })).reply.content, { status: 'incomplete', indent: '  ' });
  assert.equal((await k.ask('is_complete_request', { code: 'a b c' })).reply.content.status, 'invalid');
  await k.run('"remember me"');
  const { history } = (await k.ask('history_request', { hist_access_type: 'tail', n: 1, output: false, raw: true })).reply.content as { history: [number, number, string][] };
  assert.equal(history[0][2], '"remember me"');
  assert.deepEqual((await k.ask('comm_info_request', {})).reply.content, { status: 'ok', comms: {} });
  const opened = await k.send('shell', 'comm_open', { comm_id: 'c1', target_name: 'jupyter.widget', data: {} });
  await k.until(() => k.received.some((m) => m.parent.msg_id === opened.msg_id && m.header.msg_type === 'comm_close'));
  const info = (await k.ask('kernel_info_request', {})).reply.content;
  assert.equal(info.protocol_version, '5.4');
  assert.equal((info.language_info as { file_extension: string }).file_extension, '.ts');
});

test('a cell that is a question about a name shows what is known of it in the pager, and so does a cell that asks for a page', async () => {
  for (const code of ['slimfit.double?', ' ?slimfit.double\n']) {
    const asked = await k.run(code);
    const [page] = asked.reply.content.payload as { source: string; start: number; data: Record<string, string> }[];
    assert.equal(page.source, 'page');
    assert.match(page.data['text/plain'], /double\(x: number\): number\n\nTwice a number\./);
  }
  assert.equal((await k.run('nowhere.at.all?')).text('stdout'), 'Nothing is known of nowhere.at.all.\n');
  const o = await k.run(`${kernelApi}.page('long text', 3);`);
  assert.deepEqual(o.reply.content.payload, [{ source: 'page', data: { 'text/plain': 'long text' }, start: 3 }]);
  assert.deepEqual((await k.run('1')).reply.content.payload, []);
});

test('a cell can clear what it has shown', async () => {
  const o = await k.run(`console.log('gone'); ${kernelApi}.clearOutput(true); console.log('kept'); ${kernelApi}.clearOutput();`);
  const order = o.published.filter((m) => /stream|clear/.test(m.header.msg_type)).map((m) => m.content.text ?? m.content.wait);
  assert.deepEqual(order, ['gone\n', true, 'kept\n', false]);
});

test('a message with a wrong signature, one that is played back and one that is no message are dropped without an answer', async () => {
  const frames = k.wire.encode('kernel_info_request', {}, undefined);
  const forged = [frames[0], Buffer.from('0'.repeat(64)), ...frames.slice(2)];
  await k.sendFrames('shell', forged);
  await k.sendFrames('shell', ['nonsense']);
  await k.sendFrames('shell', frames);
  await k.sendFrames('shell', frames);
  await k.ask('kernel_info_request', {});
  const { msg_id } = JSON.parse(frames[2].toString());
  assert.equal(k.received.filter((m) => m.parent.msg_id === msg_id && m.header.msg_type === 'kernel_info_reply').length, 1);
});

test('whatever a cell throws is told as an error, and the next cell runs', async () => {
  const thrown: readonly (readonly [code: string, evalue: RegExp, ename?: string])[] = [
    ['5', /^5$/],
    ["'text'", /^'text'$/],
    ['undefined', /^undefined$/],
    ['null', /^null$/],
    ['Symbol("s")', /^Symbol\(s\)$/],
    ['{ a: 1 }', /^{ a: 1 }$/],
    ['Object.create(null)', /^\[Object: null prototype\] {}$/],
    ['{ toString() { throw new Error("no text") } }', /toString/],
    ['{ [Symbol.for("nodejs.util.inspect.custom")]() { throw new Error("not to be inspected") } }', /cannot be shown/],
    ['{ get stack() { throw new Error("no stack") } }', /stack/],
    ['{ stack: 7, name: 7 }', /stack: 7/],
    ['new Proxy({}, { get() { throw new Error("no get") }, getPrototypeOf() { throw new Error("no prototype") } })', /./],
    ['Object.freeze(new RangeError("frozen"))', /^frozen$/, 'RangeError'],
    ['Object.defineProperty(new Error("m"), "message", { get() { throw new Error("no message") } })', /cannot be shown/],
    ['Object.assign(new Error("same"), { name: undefined })', /^same$/, 'Error'],
    ['new AggregateError([new Error("first"), 2], "many")', /^many$/, 'AggregateError'],
  ];
  for (const [code, evalue, ename = 'Error'] of thrown)
    for (const wait of ['', 'await null; ']) {
      const { reply, last } = await k.run(`${wait}throw (${code});`);
      assert.equal(reply.content.status, 'error', code);
      assert.equal(reply.content.ename, ename, code);
      assert.match(String(reply.content.evalue), evalue, code);
      assert.ok((reply.content.traceback as unknown[]).every((l) => typeof l === 'string') && (reply.content.traceback as unknown[]).length > 0, code);
      assert.equal(last('error').evalue, reply.content.evalue);
    }
  assert.deepEqual((await k.run('one + 2')).result(), { 'text/plain': '3' });
});

test('a result or an output that cannot be sent is an error of its cell, and the kernel stays', async () => {
  for (const [value, evalue] of [
    ['{ [Symbol.for("nodejs.util.inspect.custom")]() { throw new Error("not to be inspected") } }', /not to be inspected/],
    ['{ [Symbol.for("Jupyter.display")]() { throw new Error("not to be shown") } }', /not to be shown/],
    ['{ [Symbol.for("Jupyter.display")]: () => ({ "application/json": (() => { const o: any = {}; o.o = o; return o; })() }) }', /circular/],
    ['{ [Symbol.for("Jupyter.display")]: () => ({ "application/json": { n: 1n } }) }', /BigInt/],
    ['{ [Symbol.for("Jupyter.display")]: () => ({ "application/json": { toJSON() { throw new Error("no JSON") } } }) }', /no JSON/],
  ] as const)
    for (const code of [`(${value})`, `await ${kernelApi}.show(${value})`]) {
      const { reply } = await k.run(code);
      assert.equal(reply.content.status, 'error', code);
      assert.match(String(reply.content.evalue), evalue, code);
    }
  // A function in a bundle is left out, as JSON does.
  const o = await k.run('({ [Symbol.for("Jupyter.display")]: () => ({ "application/json": { f: () => 1, n: 2 } }) })');
  assert.deepEqual(o.result(), { 'application/json': { n: 2 } });
});

test('a figure of twenty megabytes comes whole, and the kernel answers right after it', async () => {
  const o = await k.run(`
    const points = Array.from({ length: 1_200_000 }, (_, i) => Math.sin(i) * 1e6);
    ${kernelApi}.display({ 'application/vnd.plotly.v1+json': { data: [{ type: 'scatter', y: points }], layout: {} }, 'text/plain': 'a figure' });
    points.length`);
  assert.deepEqual(o.result(), { 'text/plain': '1200000' });
  const shown = (o.last('display_data').data as Record<string, { data: { y: number[] }[] }>)['application/vnd.plotly.v1+json'];
  assert.ok(JSON.stringify(shown).length > 20e6, `${JSON.stringify(shown).length} characters`);
  assert.deepEqual(shown.data[0].y, Array.from({ length: 1_200_000 }, (_, i) => Math.sin(i) * 1e6));
  assert.equal(await k.beat(), 'are you there?');
  assert.equal((await k.run('1')).reply.content.status, 'ok');
});

test('two front ends at once: each gets its own replies, both see every output, and the names are shared', async () => {
  const other = await k.beside();
  try {
    assert.notEqual(other.wire.session, k.wire.session);
    const cells = await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 ? other : k).run(`const from${i} = ${i}; console.log('cell ${i}'); from${i} * 10`)));
    cells.forEach((o, i) => {
      assert.deepEqual(o.result(), { 'text/plain': `${i * 10}` });
      assert.equal(o.text('stdout'), `cell ${i}\n`);
      assert.equal(o.reply.parent.session, (i % 2 ? other : k).wire.session);
    });
    const counts = cells.map((o) => o.reply.content.execution_count as number);
    assert.equal(new Set(counts).size, 20, 'every cell has a count of its own');
    // What one of them ran, the other one sees in its outputs, its names and its completion.
    const { msg_id } = cells[0].reply.parent;
    await other.until(() => other.received.some((m) => m.parent.msg_id === msg_id && m.content.text === 'cell 0\n'));
    assert.ok(!other.received.some((m) => m.parent.msg_id === msg_id && m.header.msg_type === 'execute_reply'), 'a reply goes to the front end that asked');
    assert.deepEqual((await other.run('from0 + from1')).result(), { 'text/plain': '1' });
    // One stops what the other one runs.
    const cell = await begin(k, 'await new Promise(() => {})');
    await other.ask('interrupt_request', {}, 'control');
    assert.equal((await k.outcome(cell)).reply.content.ename, 'InterruptError');
    // An error of one aborts what both had sent, as nothing tells the kernel that they do not belong together.
    assert.equal((await other.run('from2')).reply.content.status, 'ok');
  } finally {
    other.leave();
  }
  assert.equal((await k.run('1')).reply.content.status, 'ok');
});

test('an unhandled rejection and an uncaught exception are told and do not end the kernel', async () => {
  const o = await k.run('void Promise.reject(new Error("floating")); setTimeout(() => { throw new Error("thrown later"); }, 50); await new Promise((r) => setTimeout(r, 300));');
  assert.match(o.text('stderr'), /floating/);
  assert.match(o.text('stderr'), /thrown later/);
  assert.match(o.text('stderr'), /cell-\d+\.ts:1:21/);
  assert.equal((await k.run('1')).reply.content.status, 'ok');
});

test('a cell that calls process.exit fails and the kernel stays', async () => {
  assert.match(String((await k.run('process.exit(3)')).reply.content.evalue), /process\.exit\(3\)/);
  assert.equal((await k.run('1')).reply.content.status, 'ok');
});

test('where the library is missing the first cell says so, and cells run all the same', async () => {
  const bare = await makeKernelHome();
  rmSync(path.join(bare.home, 'node_modules/slimfit'), { recursive: true });
  const client = await KernelClient.start(bare.home, cwd);
  try {
    const o = await client.run('1 + 1');
    assert.match(o.text('stderr'), /slimfit, tf and aq are not there: TS2307.*'slimfit'/);
    assert.deepEqual(o.result(), { 'text/plain': '2' });
    assert.equal((await client.run('2')).text('stderr'), '');
  } finally {
    await client.stop();
    bare.remove();
  }
});

test('a kernel whose ports are taken ends with code 1 and says why', async () => {
  const { connection, file } = await writeConnection(home.home);
  writeFileSync(file, JSON.stringify({ ...connection, shell_port: k.connection.shell_port }));
  const second = spawn(process.execPath, [path.join(home.home, 'dist/kernel/main.cjs'), file], { cwd, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  second.stderr.on('data', (d) => (said += String(d)));
  const [code] = await once(second, 'close');
  assert.equal(code, 1);
  assert.match(said, /the kernel cannot start: .*address/i);
});

test('a kernel does not start with a connection file that others may read, says why, and does not tell the key', { skip: process.platform === 'win32' && 'files have no modes' }, async () => {
  const { connection, file } = await writeConnection(home.home);
  chmodSync(file, 0o644);
  const child = spawn(process.execPath, [path.join(home.home, 'dist/kernel/main.cjs'), file], { cwd, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (d) => (said += String(d)));
  const [code] = await once(child, 'close');
  assert.equal(code, 1);
  assert.match(said, /the kernel cannot start: others may read/);
  assert.ok(!said.includes(connection.key));
});

test('the kernel listens at the address and the five ports of its connection file, and nowhere else', { skip: process.platform !== 'linux' && 'there is no /proc' }, () => {
  const { pid } = k.process;
  const own = new Set(readdirSync(`/proc/${pid}/fd`).flatMap((fd) => /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${fd}`))?.[1] ?? []));
  const LISTENS = '0A';
  const listening = ['tcp', 'tcp6'].flatMap((table) =>
    readFileSync(`/proc/${pid}/net/${table}`, 'utf8').split('\n').slice(1).map((line) => line.trim().split(/\s+/)).filter((row) => row[3] === LISTENS && own.has(row[9])).map((row) => row[1]),
  );
  const { shell_port, control_port, iopub_port, stdin_port, hb_port } = k.connection;
  // 127.0.0.1 in the kernel's byte order.
  const wanted = [shell_port, control_port, iopub_port, stdin_port, hb_port].map((port) => `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`);
  assert.deepEqual(listening.sort(), wanted.sort());
});

test('a kernel whose server has died ends by itself', { skip: process.platform === 'win32' && 'there are no parent processes to watch' }, async () => {
  const { file } = await writeConnection(home.home);
  const script = `const c = require('child_process').spawn(process.execPath, ${JSON.stringify([path.join(home.home, 'dist/kernel/main.cjs'), file])}, { stdio: 'ignore' }); console.log(c.pid); setInterval(() => {}, 1000);`;
  const server = spawn(process.execPath, ['-e', script], { cwd, stdio: ['ignore', 'pipe', 'ignore'] });
  const [chunk] = await once(server.stdout, 'data');
  const pid = Number(String(chunk));
  const alive = () => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };
  await sleep(1500);
  assert.ok(alive());
  server.kill('SIGKILL');
  for (let i = 0; i < 60 && alive(); i++) await sleep(100);
  const left = alive();
  if (left) process.kill(pid, 'SIGKILL');
  assert.equal(left, false);
});

test('a shutdown is answered and ends the process with code 0, even while a cell keeps the thread', async () => {
  const quiet = await KernelClient.start(home.home, cwd);
  // Until the compiler is loaded the thread is busy, and a busy one is ended by force.
  await quiet.run('1');
  const reply = await quiet.ask('shutdown_request', { restart: false }, 'control');
  assert.deepEqual(reply.reply.content, { status: 'ok', restart: false });
  assert.equal(await quiet.exited, 0);
  await quiet.stop();

  const busy = await KernelClient.start(home.home, cwd);
  await busy.run('1');
  await begin(busy, 'await null; for (;;) {}');
  const started = Date.now();
  await busy.send('control', 'shutdown_request', { restart: false });
  await busy.exited;
  assert.ok(Date.now() - started < 4000);
  await busy.stop();
});

test('a cell that cannot hear an interrupt says so', async () => {
  const deaf = await KernelClient.start(home.home, cwd);
  try {
    await deaf.run('1');
    const cell = await begin(deaf, 'for (;;) {}', "await null; console.log('begun')");
    await deaf.send('control', 'interrupt_request', {});
    await deaf.until(() => deaf.received.some((m) => m.parent.msg_id === cell.msg_id && /restart the kernel/.test(String(m.content.text))));
  } finally {
    await deaf.stop();
  }
});
