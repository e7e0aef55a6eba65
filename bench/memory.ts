/**
 * Activation bytes of BERT-base (B=32, T=128) after a real forward pass: the ledger's count, the engine's count and the formula, for full fine-tuning and several freeze
 * rates. Markdown on standard output. `npx tsx bench/memory.ts`
 */
import { chooseEngine } from '../src/engine/choose';
import { InterLayerScheduling } from '../src/freezing/ils';
import { parseBertConfig } from '../src/hub/config';
import { bertActivationBytes } from '../src/memory/activationBytes';
import { BertForSequenceClassification } from '../src/models/bert';
import { ForwardContext } from '../src/nn/context';
import { Random } from '../src/random';
import { SCHEMES } from '../src/tape/scheme';

const [B, T] = [32, 128];
const MIB = 2 ** 20;

async function main(): Promise<void> {
  const engine = await chooseEngine();
  const config = parseBertConfig({ model_type: 'bert', hidden_dropout_prob: 0, attention_probs_dropout_prob: 0 });
  const model = BertForSequenceClassification.fresh(engine, config, 1);
  const random = new Random(1);
  const batch = {
    inputIds: Int32Array.from({ length: B * T }, () => 1 + random.int(config.vocabSize - 1)),
    tokenTypeIds: new Int32Array(B * T),
    attentionMask: new Int32Array(B * T).fill(1),
    labels: new Int32Array(B),
    batchSize: B,
    length: T,
  };
  process.stdout.write('| mode | freeze rate | trains | ledger MiB | engine − ledger | formula − ledger | full / this |\n|---|---|---|---|---|---|---|\n');
  let full = 0;
  for (const rate of [0, 0.75, 0.9, 0.95]) {
    const mode = rate === 0 ? 'exact' : 'paper';
    const frozen = new Set(rate === 0 ? [] : new InterLayerScheduling(model.layers, { freezeRate: rate, seed: 43 }).select().map((i) => model.layers[i].name));
    for (const p of model.parameters.values()) p.trains = !frozen.has(p.name);
    const ctx = ForwardContext.deterministic(engine, SCHEMES[mode]);
    const out = model.forwardWithLoss(ctx, batch);
    const ledger = ctx.tape.ledger.totalBytes;
    const counted = engine.memory().live.activations;
    const formula = bertActivationBytes({ config, batchSize: B, length: T, mode, trains: (n) => !frozen.has(n), dropout: false }).total;
    if (rate === 0) full = ledger;
    ctx.tape.dispose();
    engine.free(out.loss.tensor, out.logits.tensor);
    process.stdout.write(`| ${mode} | ${rate} | ${model.layers.length - frozen.size} of ${model.layers.length} | ${(ledger / MIB).toFixed(1)} | ${counted - ledger} B | ${formula - ledger} B | ${(full / ledger).toFixed(2)} |\n`);
  }
  model.dispose();
  engine.dispose();
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
