/**
 * Pre-trains the small BERT that SlimFit brings along, by masked language modelling on sentences of its own grammar, and writes it to this folder's
 * `bert-grammar`. Reproducible: same seed, same engine, same weights. `npm run pretrain [-- --steps N]`
 */
import path from 'node:path';
import { parseArgs } from 'node:util';
import { chooseEngine } from '../../engine/choose';
import { parseBertConfig } from '../../hub/config';
import { BertForMaskedLM } from '../../models/bert';
import { ProgressLine } from '../../progress';
import { SlimFitTrainer } from '../../training/trainer';
import { MaskedLmDataset } from '../maskedLm';
import { Tokenizer } from '../tokenizer';
import { generateText, GRAMMAR_WORDS } from './grammar';

const SEED = 43;
const LENGTH = 24;

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { steps: { type: 'string', default: '4000' }, out: { type: 'string', default: path.join(__dirname, 'bert-grammar') } } });
  const steps = Number(values.steps);
  const tokenizer = Tokenizer.fromVocabulary(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', ...GRAMMAR_WORDS]);
  const config = parseBertConfig({
    model_type: 'bert',
    vocab_size: tokenizer.vocabSize,
    hidden_size: 128,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    intermediate_size: 512,
    max_position_embeddings: 64,
    hidden_dropout_prob: 0.1,
    attention_probs_dropout_prob: 0.1,
  });
  const engine = await chooseEngine();
  const model = BertForMaskedLM.fresh(engine, config, SEED);
  const trainer = new SlimFitTrainer({
    model,
    train: new MaskedLmDataset(generateText(60_000, SEED), tokenizer, LENGTH, SEED),
    batchSize: 64,
    totalSteps: steps,
    learningRate: 1e-3,
    warmupSteps: Math.min(200, Math.floor(steps / 10)),
    freezeRate: 0,
    mode: 'exact',
    dropout: false,
    seed: SEED,
  });
  const progress = new ProgressLine('pre-training', steps);
  let smooth = NaN;
  for await (const { step, loss } of trainer.steps(steps)) {
    smooth = Number.isNaN(smooth) ? loss : 0.98 * smooth + 0.02 * loss;
    progress.update(step + 1, `loss ${smooth.toFixed(3)}`);
  }
  progress.end();
  await model.savePretrained(values.out, tokenizer);
  process.stdout.write(`wrote ${values.out}\n`);
  trainer.dispose();
  model.dispose();
  engine.dispose();
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
