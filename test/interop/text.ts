/**
 * Part of `npm run test:interop`: a model of every text architecture and head, trained for a few steps and saved with its tokenizer, is loaded by Python's transformers as the same class, with no missing
 * or unexpected key, the same token ids of texts and pairs, and the same logits.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { embeddedModel } from '../../src/data/embedded/embedded';
import { TextDataset } from '../../src/data/textDataset';
import { Tokenizer } from '../../src/data/tokenizer';
import type { Engine } from '../../src/engine/engine';
import { AutoModelForQuestionAnswering, AutoModelForSequenceClassification } from '../../src/models/auto';
import type { TextBatch } from '../../src/models/model';
import { predict, SlimFitTrainer } from '../../src/training/trainer';

const LENGTH = 20;
const TEXTS: readonly (readonly [string, string?])[] = [
  ['the dog barks at every cat .'],
  ['a wonderful small cat', 'the big dog'],
  ['don’t naïve café 日本語 😀', 'мир'],
  ['the dog barks at some every cat the dog barks at some every cat the dog barks', 'a dog barks'],
];

/** @returns whether all of them agreed */
export async function textInterop(engine: Engine, python: string): Promise<boolean> {
  let ok = true;
  const wordPiece = Tokenizer.fromFolder(embeddedModel());
  const bytes = Tokenizer.fromFolder(path.join(__dirname, '../data/fixtures/bpe'));
  for (const [modelType, tokenizer] of [['bert', wordPiece], ['distilbert', wordPiece], ['roberta', bytes], ['xlm-roberta', bytes], ['camembert', bytes]] as const) {
    const sizes =
      modelType === 'distilbert'
        ? { dim: 32, n_layers: 2, n_heads: 4, hidden_dim: 64 }
        : { hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64, ...(tokenizer === bytes ? { type_vocab_size: 1, layer_norm_eps: 1e-5 } : {}) };
    const config = mkdtempSync(path.join(tmpdir(), 'slimfit-interop-'));
    writeFileSync(path.join(config, 'config.json'), JSON.stringify({ model_type: modelType, vocab_size: tokenizer.vocabSize, max_position_embeddings: 24, pad_token_id: tokenizer.padTokenId, ...sizes }));
    const data = new TextDataset(TEXTS.map(([text, pair], i) => ({ text, pair, label: i % 3 })), tokenizer, { maxLength: LENGTH });
    const all = Int32Array.from(TEXTS.keys());
    for (const head of ['sequence classification', 'question answering'] as const) {
      const answers = head === 'question answering';
      const model = answers
        ? await AutoModelForQuestionAnswering.fromConfigFolder(config, { engine })
        : await AutoModelForSequenceClassification.fromConfigFolder(config, { engine, labels: ['a', 'b', 'c'] });
      const batchOf = (indices: ArrayLike<number>): TextBatch => {
        const batch = data.batch(indices);
        return answers ? { ...batch, labels: Int32Array.from({ length: 2 * batch.batchSize }, (_, i) => i % 4) } : batch;
      };
      const source = { size: TEXTS.length, batch: batchOf };
      const trainer = new SlimFitTrainer({ model, train: source, batchSize: TEXTS.length, freezeRate: 0.5, totalSteps: 6, learningRate: 1e-2, onWarning: () => {} });
      for await (const _ of trainer.steps());
      trainer.dispose();
      const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-interop-'));
      await model.savePretrained(folder, tokenizer);
      const { logits } = await predict(model, source, TEXTS.length);
      const { inputIds } = batchOf(all);
      writeFileSync(path.join(folder, 'expected.json'), JSON.stringify({ head, texts: TEXTS, length: LENGTH, input_ids: Array.from(inputIds), logits: Array.from(logits) }));
      const run = spawnSync(python, [path.join(__dirname, 'check_text.py'), folder], { stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, HF_HUB_OFFLINE: '1' } });
      model.dispose();
      ok = run.status === 0 && ok;
    }
  }
  return ok;
}
