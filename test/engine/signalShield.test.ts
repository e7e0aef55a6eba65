/** Signals that come while TensorFlow multiplies matrices: they are heard, and the heap stays whole (native/signals.cc tells why it would not). */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { engineChoice } from '../../src/engine/choose';
import { shieldFromSignals } from '../../src/engine/tfjs/signalShield';

/** Another thread sends some thousand signals to the process while it multiplies; without the shield it dies of a corrupted heap within a second. */
const PROGRAM = `
import { Worker } from 'node:worker_threads';
import { chooseEngine } from ${JSON.stringify(path.resolve(__dirname, '../../src/engine/choose.ts'))};
(async () => {
  let heard = 0;
  process.on('SIGINT', () => heard++);
  const engine = await chooseEngine('tensorflow');
  const sender = new Worker("let n = 0; const t = setInterval(() => { for (let i = 0; i < 40; i++) process.kill(process.pid, 'SIGINT'); if (++n > 300) clearInterval(t); }, 1)", { eval: true });
  let done = false;
  sender.on('exit', () => (done = true));
  const values = (n: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(i));
  const tall = engine.upload(values(768 * 256), [768, 256]);
  const narrow = engine.upload(values(768 * 128), [768, 128]);
  let products = 0;
  while (!done) {
    for (let i = 0; i < 20; i++, products += 2) engine.scope(() => [engine.linearGradWeight(tall, tall), engine.linearGradWeight(narrow, tall)].length);
    await new Promise((resolve) => setImmediate(resolve));
  }
  console.log(JSON.stringify({ heard, products }));
})();
`;

test('where the shield was not built it says so', () => {
  const empty = mkdtempSync(path.join(tmpdir(), 'slimfit-shield-'));
  try {
    assert.equal(shieldFromSignals(empty), false);
  } finally {
    rmSync(empty, { recursive: true, force: true });
  }
});

test('signals during matrix products are heard and do no harm', async (t) => {
  if (process.platform === 'win32') return t.skip('Windows has no such signals');
  const { reasons } = await engineChoice();
  if (!reasons.some((r) => r.name === 'tensorflow' && r.available)) return t.skip('TensorFlow is not set up');
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-shield-'));
  const file = path.join(folder, 'program.ts');
  writeFileSync(file, PROGRAM);
  const run = spawnSync(process.execPath, ['--import', 'tsx', file], { encoding: 'utf8', timeout: 120_000, cwd: path.resolve(__dirname, '../..') });
  rmSync(folder, { recursive: true, force: true });
  assert.equal(run.signal, null, run.stderr);
  assert.equal(run.status, 0, run.stderr);
  const { heard, products } = JSON.parse(run.stdout.trim().split('\n').at(-1)!) as { heard: number; products: number };
  assert.ok(heard > 0 && products > 100, run.stdout);
});
