/**
 * Time of a training step under each lever of memory, all on the same batch and the same layers, step by step in turn, so that what else the machine does falls on all alike:
 *
 *   npx tsx bench/leverTimes.ts [--rounds 15]
 *
 * BERT of 6 layers, hidden 384, vocabulary 30,522, 16 × 64 tokens, freeze rate 0.9. Prints Markdown: milliseconds (median, and least), that median beside the paper's scheme, MiB kept for backward.
 */
import { parseArgs } from 'node:util';
import { chooseEngine } from '../src/engine/choose';
import { parseBertConfig } from '../src/hub/config';
import { BertForSequenceClassification } from '../src/models/bert';
import { SlimFitTrainer } from '../src/training/trainer';
import { LEVERS } from './leverSettings';
import { randomTexts } from './randomTexts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '15' } } });
const [B, T] = [16, 64];

async function main(): Promise<void> {
  const engine = await chooseEngine();
  const config = parseBertConfig({ model_type: 'bert', vocab_size: 30522, hidden_size: 384, num_hidden_layers: 6, num_attention_heads: 12, intermediate_size: 1536 });
  const batch = randomTexts(config.vocabSize, B, T);
  const rows = LEVERS.map(([label, settings]) => {
    const model = BertForSequenceClassification.fresh(engine, config, 1);
    const trainer = new SlimFitTrainer({ model, train: { size: B, batch: () => batch, shape: () => ({ batchSize: B, length: T }) }, batchSize: B, schedule: 'constant', totalSteps: 1000, seed: 43, measureEncodingsEvery: 0, onWarning: () => {}, ...settings });
    return { label, model, trainer, times: [] as number[], kept: 0 };
  });
  // The layers that inter-layer scheduling would draw first, in every row and every step.
  const { frozen, active } = rows[0].trainer.peek();
  for (const { trainer } of rows) {
    trainer.freeze(...frozen.map((l) => l.name));
    trainer.thaw(...active.map((l) => l.name));
  }
  const rounds = Number(values.rounds);
  for (let round = -2; round < rounds; round++)
    for (const row of rows) {
      const { milliseconds, activationBytes } = await row.trainer.step();
      row.kept = activationBytes;
      if (round >= 0) row.times.push(milliseconds);
    }
  const median = (v: readonly number[]) => [...v].sort((a, b) => a - b)[v.length >> 1];
  const paper = rows.find((r) => r.label === 'paper')!;
  process.stdout.write(`| | ms a step, median | least | beside paper | kept for backward MiB |\n|---|---|---|---|---|\n`);
  for (const { label, times, kept } of rows)
    process.stdout.write(`| ${label} | ${median(times).toFixed(0)} | ${Math.min(...times).toFixed(0)} | ${(median(times) / median(paper.times)).toFixed(2)} | ${(kept / 2 ** 20).toFixed(1)} |\n`);
  for (const { trainer, model } of rows) {
    trainer.dispose();
    model.dispose();
  }
  engine.dispose();
}

void main();
