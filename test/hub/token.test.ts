/** The access token goes to the hub alone. What is looked at: every file that a run writes, everything that it prints, what a notebook would show of its objects, and the requests. Errors are looked at by every test with `withHub`. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { bundleOf } from '../../kernel/display';
import { embeddedModel } from '../../src/data/embedded/embedded';
import { dataset } from '../../src/hub/dataset';
import { fromRecipe } from '../../src/training/fromRecipe';
import { saveHistory } from '../../src/training/historyFile';
import { recipes } from '../../src/training/recipes';
import { cpuEngine } from '../models/fixtures';
import { FakeHub } from './fakeHub';

const TOKEN = 'hf_MadeUpTokenOfThisTest';

test('a run from the hub with HF_TOKEN leaves the token in no file, no output and no object, and sends it to the hub alone', async () => {
  const fake = await FakeHub.start();
  const root = mkdtempSync(path.join(tmpdir(), 'slimfit-token-'));
  const before = { ...process.env };
  const streams = [process.stdout, process.stderr] as const;
  const writes = streams.map((s) => s.write);
  const printed: string[] = [];
  streams.forEach((s, i) => (s.write = ((text: string | Uint8Array, ...more: never[]) => (printed.push(String(text)), writes[i].call(s, text, ...more))) as typeof s.write));
  try {
    Object.assign(process.env, { HF_TOKEN: TOKEN, HF_ENDPOINT: fake.endpoint, HF_HUB_CACHE: path.join(root, 'cache') });
    const file = (name: string) => ({ data: readFileSync(path.join(embeddedModel(), name)) });
    fake.commit('models/owner/grammar', { 'config.json': file('config.json'), 'vocab.txt': file('vocab.txt'), 'model.safetensors': { ...file('model.safetensors'), lfs: true } });
    const rows = { data: Buffer.from(parquetWriteBuffer({ columnData: [{ name: 'sentence', data: ['the dog sees a cat', 'a cat'], type: 'STRING' }, { name: 'label', data: [1n, 0n], type: 'INT64' }] })), lfs: true };
    fake.commit('datasets/nyu-mll/glue', { 'cola/train-00000-of-00001.parquet': rows, 'cola/validation-00000-of-00001.parquet': rows });
    const engine = await cpuEngine();
    const run = await fromRecipe({ ...recipes.glue.cola, batchSize: 2, maxLength: 12 }, { model: 'owner/grammar', engine, trainer: { checkpoints: { dir: path.join(root, 'run') } } });
    const record = await run.trainer.step();
    await run.trainer.evaluate();
    await run.trainer.save();
    await run.save(path.join(root, 'saved'));
    saveHistory(run.trainer.history, path.join(root, 'saved'));
    const data = await dataset('glue', 'cola');
    for (const value of [run, run.trainer, run.model, record, run.trainer.history, run.trainer.layers(), data]) {
      assert.ok(!JSON.stringify(await bundleOf(value, [])).includes(TOKEN));
      assert.ok(!inspect(value, { depth: 12, showHidden: true, maxArrayLength: 3, maxStringLength: 200 }).includes(TOKEN));
    }
    run.dispose();
    assert.equal(engine.memory().tensors, 0);
    engine.dispose();
    const files = (readdirSync(root, { recursive: true, encoding: 'utf8' }) as string[]).map((f) => path.join(root, f)).filter((f) => statSync(f).isFile());
    assert.ok(files.length > 15);
    for (const f of files) assert.ok(!readFileSync(f).includes(TOKEN), f);
    assert.ok(printed.join('').includes('owner/grammar'), 'progress was drawn');
    assert.ok(!printed.join('').includes(TOKEN));
    for (const { kind, authorization, url } of fake.asked) {
      assert.equal(authorization, kind === 'storage' ? undefined : `Bearer ${TOKEN}`);
      assert.ok(!url.includes(TOKEN));
    }
    assert.ok(fake.count('storage') >= 2);
  } finally {
    streams.forEach((s, i) => (s.write = writes[i]));
    for (const name of ['HF_TOKEN', 'HF_ENDPOINT', 'HF_HUB_CACHE']) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
    await fake.stop();
    rmSync(root, { recursive: true, force: true });
  }
});
