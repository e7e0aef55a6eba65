/**
 * Seconds per training step of a BERT of given shape: one JSON line. The PyTorch side of the comparison does the same work: fresh weights, random ids of the full length, dropout
 * 0.1, AdamW. `npm run bench -- --rate 0.9 --mode paper`
 */
import { parseArgs } from 'node:util';
import { chooseEngine } from '../src/engine/choose';
import { parseBertConfig } from '../src/hub/config';
import { BertForSequenceClassification } from '../src/models/bert';
import { SlimFitTrainer } from '../src/training/trainer';
import { parseBytes } from '../src/units';
import { randomTexts } from './randomTexts';

const { values } = parseArgs({
  options: {
    layers: { type: 'string', default: '6' },
    hidden: { type: 'string', default: '384' },
    heads: { type: 'string', default: '12' },
    intermediate: { type: 'string', default: '1536' },
    vocab: { type: 'string', default: '30522' },
    batch: { type: 'string', default: '16' },
    tokens: { type: 'string', default: '64' },
    rate: { type: 'string', default: '0' },
    mode: { type: 'string', default: 'exact' },
    'block-bytes': { type: 'string' },
    steps: { type: 'string', default: '10' },
    warmup: { type: 'string', default: '3' },
  },
});

async function main(): Promise<void> {
  const n = (name: keyof typeof values) => Number(values[name]);
  const engine = await chooseEngine();
  const config = parseBertConfig({
    model_type: 'bert',
    vocab_size: n('vocab'),
    hidden_size: n('hidden'),
    num_hidden_layers: n('layers'),
    num_attention_heads: n('heads'),
    intermediate_size: n('intermediate'),
  });
  const model = BertForSequenceClassification.fresh(engine, config, 1);
  const [B, T] = [n('batch'), n('tokens')];
  const batch = randomTexts(config.vocabSize, B, T);
  const blockBytes = values['block-bytes'] === undefined ? undefined : parseBytes(values['block-bytes']);
  const trainer = new SlimFitTrainer({ blockBytes, model, train: { size: B, batch: () => batch }, batchSize: B, freezeRate: n('rate'), mode: values.mode as 'exact' | 'paper', schedule: 'constant', totalSteps: 1000 });
  for await (const _ of trainer.steps(n('warmup')));
  const ms: number[] = [];
  let activationBytes = 0;
  let peak = 0;
  for await (const r of trainer.steps(n('steps'))) {
    ms.push(r.milliseconds);
    activationBytes += r.activationBytes / n('steps');
    peak = Math.max(peak, r.memory.totalPeak);
  }
  ms.sort((a, b) => a - b);
  const { weights, optimizer } = engine.memory().live;
  process.stdout.write(
    `${JSON.stringify({
      engine: engine.name,
      device: engine.device,
      ...Object.fromEntries(['layers', 'hidden', 'batch', 'tokens', 'rate'].map((k) => [k, n(k as 'rate')])),
      mode: values.mode,
      block_bytes: values['block-bytes'],
      ms: Math.round(ms[ms.length >> 1]),
      ms_min: Math.round(ms[0]),
      ms_max: Math.round(ms[ms.length - 1]),
      weights_bytes: weights,
      optimizer_bytes: optimizer,
      activation_bytes: Math.round(activationBytes),
      engine_peak_bytes: peak,
      peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
    })}\n`,
  );
  trainer.dispose();
  model.dispose();
  engine.dispose();
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
