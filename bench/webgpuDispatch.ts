/**
 * What the WebGPU engine costs in JavaScript, on Dawn's null device, which computes nothing: one JSON line for a chain of small operations, and one for forward and backward of six layers of BERT-base's
 * width in each mode, with the processor's time for each dispatch. `npx tsx bench/webgpuDispatch.ts`
 */
import { openDevice } from '../src/engine/webgpu/dawn';
import { WebgpuEngine } from '../src/engine/webgpu/webgpuEngine';
import { parseBertConfig } from '../src/hub/config';
import { initialWeights } from '../src/models/model';
import { BertForSequenceClassification } from '../src/models/bert';
import { sequenceClassificationSpecs } from '../src/models/sequenceClassification';
import { ForwardContext } from '../src/nn/context';
import { SCHEMES } from '../src/tape/scheme';

const median = (x: number[]): number => x.sort((a, b) => a - b)[Math.floor(x.length / 2)];

/** Runs `fn` some times: processor time, which other work on the machine does not stretch as it does wall time, and what was recorded. */
async function measure(engine: WebgpuEngine, what: string, rounds: number, fn: () => Promise<void> | void): Promise<void> {
  const ms: number[] = [];
  const before = engine.counts();
  for (let i = 0; i < rounds; i++) {
    const start = process.cpuUsage();
    await fn();
    const { user, system } = process.cpuUsage(start);
    ms.push((user + system) / 1000);
  }
  const after = engine.counts();
  const dispatches = (after.dispatches - before.dispatches) / rounds;
  const milliseconds = median(ms);
  const made = { buffers: after.made - before.made, bindGroups: after.bindGroupsMade - before.bindGroupsMade };
  const submissions = (after.submissions - before.submissions) / rounds;
  process.stdout.write(`${JSON.stringify({ what, milliseconds: +milliseconds.toFixed(3), dispatches, submissions, microsecondsPerDispatch: +((1000 * milliseconds) / dispatches).toFixed(2), made })}\n`);
}

async function main(): Promise<void> {
  const engine = new WebgpuEngine(await openDevice('hardware', ['backend=null']));
  const x = engine.full([64, 64], 1);
  const chain = () =>
    engine.scope(() => {
      let y = x;
      for (let i = 0; i < 640; i++) y = engine.add(y, x);
    });
  for (let i = 0; i < 30; i++) chain();
  await measure(engine, '640 additions', 50, chain);
  engine.free(x);

  // The null device has 512 MiB: six layers of BERT-base's width, a small vocabulary and batch.
  const config = parseBertConfig({ model_type: 'bert', vocab_size: 1000, hidden_size: 768, num_hidden_layers: 6, num_attention_heads: 12, intermediate_size: 3072, max_position_embeddings: 64 });
  const model = new BertForSequenceClassification(engine, config, initialWeights(sequenceClassificationSpecs(config), 0.02, 1));
  const [B, T] = [2, 32];
  const batch = { inputIds: new Int32Array(B * T).fill(1), tokenTypeIds: new Int32Array(B * T), attentionMask: new Int32Array(B * T).fill(1), labels: new Int32Array(B), batchSize: B, length: T };
  for (const mode of ['exact', 'paper'] as const) {
    // Forward and backward without an optimizer: a null device's losses are no numbers to step by.
    const pass = async () => {
      const ctx = ForwardContext.deterministic(engine, SCHEMES[mode]);
      const { loss, logits } = model.forwardWithLoss(ctx, batch);
      await engine.read(loss.tensor);
      ctx.tape.backward(loss, () => {});
      engine.free(loss.tensor, logits.tensor);
    };
    for (let i = 0; i < 100; i++) await pass();
    await measure(engine, `forward and backward of 6 layers, ${mode}`, 100, pass);
  }
  model.dispose();
  engine.dispose();
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
