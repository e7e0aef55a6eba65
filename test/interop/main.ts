/**
 * `npm run test:interop`: what `savePretrained` and a trainer's checkpoints write is loaded by Python's transformers, with no missing or unexpected key, the same tokens and the same logits. Exit code 1
 * when not.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { embeddedModel } from '../../src/data/embedded/embedded';
import { generateAcceptability } from '../../src/data/embedded/grammar';
import { TextDataset } from '../../src/data/textDataset';
import { Tokenizer } from '../../src/data/tokenizer';
import { chooseEngine } from '../../src/engine/choose';
import { BertForSequenceClassification } from '../../src/models/bert';
import { ForwardContext } from '../../src/nn/context';
import { SlimFitTrainer } from '../../src/training/trainer';
import { textInterop } from './text';
import { vitInterop } from './vit';

async function main(): Promise<void> {
  const python = process.argv[2];
  const engine = await chooseEngine();
  const tokenizer = Tokenizer.fromFolder(embeddedModel());
  const examples = generateAcceptability(64, 7);
  const data = new TextDataset(examples, tokenizer, { maxLength: 24 });
  for (const labels of [['bad', 'good'], ['score'], ['a', 'b', 'c']]) {
    const model = await BertForSequenceClassification.fromPretrained(embeddedModel(), { engine, labels, onNotice: () => {} });
    // A few steps, so that no part is as it was drawn.
    const train = { size: 64, batch: (i: ArrayLike<number>) => ({ ...data.batch(i), labels: labels.length === 1 ? new Float32Array(i.length).fill(1) : data.batch(i).labels }) };
    const trainer = new SlimFitTrainer({ model, train, freezeRate: 0.5, totalSteps: 4, learningRate: 1e-3, processingClass: tokenizer });
    for await (const _ of trainer.steps());
    const made = mkdtempSync(path.join(tmpdir(), 'slimfit-interop-'));
    // A checkpoint is such a folder too.
    const folder = labels.length === 3 ? await trainer.save(made) : made;
    if (folder === made) await model.savePretrained(folder, tokenizer);
    const batch = data.batch(Int32Array.from({ length: 64 }, (_, i) => i));
    const ctx = ForwardContext.evaluation(engine);
    const { tensor } = model.forward(ctx, batch);
    const logits = Array.from(await engine.read(tensor));
    engine.free(tensor);
    ctx.tape.dispose();
    writeFileSync(path.join(folder, 'expected.json'), JSON.stringify({ texts: examples.map((e) => e.text), length: 24, input_ids: Array.from(batch.inputIds), logits, labels }));
    const run = spawnSync(python, [path.join(__dirname, 'check.py'), folder], { stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, HF_HUB_OFFLINE: '1' } });
    trainer.dispose();
    model.dispose();
    if (run.status !== 0) process.exitCode = 1;
  }
  if (!(await textInterop(engine, python))) process.exitCode = 1;
  if (!(await vitInterop(engine, python))) process.exitCode = 1;
  engine.dispose();
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
