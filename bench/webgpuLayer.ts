/**
 * What the WebGPU engine gains by doing attention, LayerNorm in codes and codes themselves in one piece: dispatches of an encoder layer, forward and backward, and bytes of a training step
 * of BERT-base, each against the same composed of smaller operations. One JSON line each.
 *
 *   SLIMFIT_WEBGPU_ADAPTER=software npx tsx bench/webgpuLayer.ts
 *
 * Dispatches are those of two layers less those of one, 256 wide with heads of 64, on 2 × 128 tokens with padding, when all of the encoder trains or the classifier and the lowest LayerNorm of all alone. Bytes are the planner's, which are
 * the engine's to the byte (test/engine/webgpu/steps.ts).
 */
import { ComposedEngine } from '../src/engine/composedEngine';
import { type Engine, ROW_SCALED } from '../src/engine/engine';
import { ShapeEngine } from '../src/engine/shapeEngine';
import { createWebgpuEngine } from '../src/engine/webgpu/createWebgpuEngine';
import { WebgpuEngine } from '../src/engine/webgpu/webgpuEngine';
import { parseBertConfig } from '../src/hub/config';
import { planMemory } from '../src/memory/planner';
import { BertForSequenceClassification } from '../src/models/bert';
import { initialWeights } from '../src/models/model';
import { sequenceClassificationSpecs } from '../src/models/sequenceClassification';
import { ForwardContext } from '../src/nn/context';
import { type ActivationMode, SCHEMES } from '../src/tape/scheme';
import { randomTexts } from './randomTexts';

const print = (line: Readonly<Record<string, unknown>>) => process.stdout.write(`${JSON.stringify(line)}\n`);
const composed = ComposedEngine.prototype;
/** Row-scaled codes took two dispatches: how many were made. */
let encoded = 0;

/** Runs `fn` while a class composes what it has in one piece. */
async function withComposed<R>(of: typeof WebgpuEngine | typeof ShapeEngine, fn: () => R | Promise<R>): Promise<R> {
  const own = of.prototype as Engine;
  const { streamsAttention, normalizeEncoded, decodeAffine, layerNormGradInputEncoded, geluGradEncoded, encode } = own;
  Object.assign(own, {
    ...{ streamsAttention: () => false, normalizeEncoded: composed.normalizeEncoded, decodeAffine: composed.decodeAffine, layerNormGradInputEncoded: composed.layerNormGradInputEncoded },
    geluGradEncoded(this: Engine, ...args: Parameters<Engine['geluGradEncoded']>) {
      return (args[1].encoding in ROW_SCALED ? composed.geluGradEncoded : geluGradEncoded).apply(this as never, args);
    },
    encode(this: Engine, ...args: Parameters<Engine['encode']>) {
      if (args[1] in ROW_SCALED) encoded++;
      return encode.apply(this, args);
    },
  });
  try {
    return await fn();
  } finally {
    Object.assign(own, { streamsAttention, normalizeEncoded, decodeAffine, layerNormGradInputEncoded, geluGradEncoded, encode });
  }
}

/** Dispatches of a pass. */
async function dispatches(engine: WebgpuEngine, layers: number, mode: ActivationMode, all: boolean): Promise<number> {
  const config = parseBertConfig({ model_type: 'bert', vocab_size: 100, num_hidden_layers: layers, hidden_size: 256, num_attention_heads: 4, intermediate_size: 1024 });
  const model = new BertForSequenceClassification(engine, config, initialWeights(sequenceClassificationSpecs(config), 0.02, 1));
  for (const p of model.parameters.values()) p.trains = all ? /encoder|classifier/.test(p.name) : /embeddings\.LayerNorm|classifier/.test(p.name);
  const texts = randomTexts(100, 2, 128);
  const batch = { ...texts, attentionMask: texts.attentionMask.map((m, i) => (i % 128 === 127 ? 0 : m)) };
  const before = engine.counts().dispatches + encoded;
  const ctx = ForwardContext.training(engine, SCHEMES[mode], 1, 1);
  const { loss, logits } = model.forwardWithLoss(ctx, batch);
  ctx.tape.backward(loss, () => {});
  const count = engine.counts().dispatches + encoded - before;
  await engine.read(loss.tensor);
  engine.free(loss.tensor, logits.tensor);
  model.dispose();
  return count;
}

async function main(): Promise<void> {
  const config = parseBertConfig({ model_type: 'bert' });
  for (const [mode, freezeRate] of [['exact', 0], ['paper', 0.9], ['tuned', 0], ['tuned', 0.95]] as const)
    for (const [batchSize, length] of [[32, 128], [128, 384]] as const) {
      const plan = () => planMemory({ config, kind: 'sequence-classification', batchSize, length, mode, freezeRate, kernels: 'webgpu' });
      const mib = (bytes: number) => Math.round(bytes / 2 ** 20);
      const [before, after] = [await withComposed(ShapeEngine, plan), plan()];
      print({ mode, freezeRate, batchSize, length, temporaries: { composed: mib(before.temporaryBytes), onePiece: mib(after.temporaryBytes) }, peak: { composed: mib(before.peakBytes), onePiece: mib(after.peakBytes) } });
    }
  const engine = await createWebgpuEngine();
  for (const mode of ['exact', 'paper', 'tuned'] as const)
    for (const all of [true, false]) {
      const perLayer = async () => (await dispatches(engine, 2, mode, all)) - (await dispatches(engine, 1, mode, all));
      print({ mode, trains: all ? 'all' : 'nothing of the layer', dispatchesPerLayer: { composed: await withComposed(WebgpuEngine, perLayer), onePiece: await perLayer() } });
    }
  engine.dispose();
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
