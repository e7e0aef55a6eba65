/**
 * What the WebGPU engine costs on the CPU, on Dawn's null device, which computes nothing: processor time of bare calls into Dawn (the floor), of a chain of small operations, and of whole training steps of a
 * BERT with BERT-base's 12 layers and 12 heads, so that a step has about as many dispatches as one of BERT-base. Each is measured with buffers and bind groups made each time, with them
 * found again, and with commands that go nowhere, which leaves JavaScript alone. One JSON line each.
 *
 *   npm run bench:dispatch [-- --rounds 60]
 *
 * The null device has 512 MiB, and BERT-base with its moments needs 1.3 GiB: the model is a quarter of it wide (192, 768 in the MLP), with a vocabulary of 1,000, on 8 × 128 tokens.
 */
import { parseArgs } from 'node:util';
import type { DeviceTensor } from '../src/engine/engine';
import { type OpenedDevice, openDevice } from '../src/engine/webgpu/dawn';
import { wgsl } from '../src/engine/webgpu/kernel';
import { elementwise } from '../src/engine/webgpu/kernels/elementwise';
import { WebgpuEngine } from '../src/engine/webgpu/webgpuEngine';
import { parseBertConfig } from '../src/hub/config';
import { BertForSequenceClassification } from '../src/models/bert';
import type { ActivationMode } from '../src/tape/scheme';
import { SlimFitTrainer } from '../src/training/trainer';
import { randomTexts } from './randomTexts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '60' } } });
const rounds = Number(values.rounds);

const print = (line: Readonly<Record<string, unknown>>) => process.stdout.write(`${JSON.stringify(line)}\n`);
const nullDevice = () => openDevice('hardware', ['backend=null']);

/** Milliseconds of processor time of each round, which other work on the machine does not stretch as it does wall time; the median. */
async function median(fn: () => unknown): Promise<number> {
  const ms: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const start = process.cpuUsage();
    await fn();
    const { user, system } = process.cpuUsage(start);
    ms.push((user + system) / 1000);
  }
  return ms.sort((a, b) => a - b)[rounds >> 1];
}

/** Dawn by itself: 640 dispatches of two pipelines and two bind groups in turn, submitted 64 at a time. */
async function floor(): Promise<void> {
  const { device } = await nullDevice();
  const types = ['read-only-storage', 'read-only-storage', 'storage'] as const;
  const layout = device.createBindGroupLayout({ entries: types.map((type, binding) => ({ binding, visibility: 4, buffer: { type } })) });
  const pipelineLayout = device.createPipelineLayout({ bindGroupLayouts: [layout], immediateSize: 64 } as GPUPipelineLayoutDescriptor);
  const two = ['+', '*'].map((operator) => {
    const code = wgsl(elementwise(`a[i] ${operator} b[i]`, ['a: f32', 'b: f32']));
    const entries = types.map((_, binding) => ({ binding, resource: { buffer: device.createBuffer({ size: 1024, usage: 128 }) } }));
    return { pipeline: device.createComputePipeline({ layout: pipelineLayout, compute: { module: device.createShaderModule({ code }) } }), group: device.createBindGroup({ layout, entries }) };
  });
  const words = Uint32Array.of(256).buffer;
  const all = () => {
    for (let batch = 0; batch < 10; batch++) {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      for (let i = 0; i < 64; i++) {
        const { pipeline, group } = two[i % 2];
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.setImmediates(0, words, 0, 4);
        pass.dispatchWorkgroups(1, 1, 1);
      }
      pass.end();
      device.queue.submit([encoder.finish()]);
    }
  };
  for (let i = 0; i < 30; i++) all();
  const milliseconds = await median(all);
  print({ what: 'bare calls into Dawn', microsecondsPerDispatch: +((1000 * milliseconds) / 640).toFixed(2) });
  device.destroy();
}

/** Runs `fn` some times after it has settled: processor time, and what was recorded and made. */
async function measure(engine: WebgpuEngine, line: Readonly<Record<string, unknown>>, fn: () => unknown): Promise<void> {
  for (let i = 0; i < rounds; i++) await fn();
  const before = engine.counts();
  const milliseconds = await median(fn);
  const after = engine.counts();
  const each = (count: 'dispatches' | 'submissions' | 'made' | 'bindGroupsMade') => +((after[count] - before[count]) / rounds).toFixed(1);
  const dispatches = each('dispatches');
  print({ ...line, milliseconds: +milliseconds.toFixed(2), dispatches, submissions: each('submissions'), microsecondsPerDispatch: +((1000 * milliseconds) / dispatches).toFixed(2), buffersMade: each('made'), bindGroupsMade: each('bindGroupsMade') });
}

/** What a null device gives back is whatever its memory held: it is read, and taken for 0. */
class NullEngine extends WebgpuEngine {
  override async read(tensor: DeviceTensor): Promise<Float32Array | Int32Array> {
    return (await super.read(tensor)).fill(0);
  }
}

/** A null device whose commands go nowhere: what is left is JavaScript. Buffers, bind groups and reads are Dawn's. */
async function withoutCommands(): Promise<OpenedDevice> {
  const opened = await nullDevice();
  const { device } = opened;
  const { queue } = device;
  const nothing = () => {};
  const pass = { setPipeline: nothing, setBindGroup: nothing, setImmediates: nothing, dispatchWorkgroups: nothing, end: nothing };
  const encoder = { beginComputePass: () => pass, copyBufferToBuffer: nothing, finish: nothing };
  Object.defineProperty(device, 'createCommandEncoder', { value: () => encoder });
  Object.defineProperty(device, 'queue', { value: { submit: nothing, writeBuffer: queue.writeBuffer.bind(queue) } });
  return opened;
}

async function main(): Promise<void> {
  await floor();
  for (const [kept, reuse, open] of [
    ['made each time', false, nullDevice],
    ['found again', true, nullDevice],
    ['found again, commands go nowhere', true, withoutCommands],
  ] as const) {
    const how = { buffersAndBindGroups: kept };
    const engine = new NullEngine(await open(), { reuse });
    const x = engine.full([64, 64], 1);
    await measure(engine, { what: '640 additions', ...how }, () =>
      engine.scope(() => {
        let y = x;
        for (let i = 0; i < 640; i++) y = engine.add(y, x);
      }),
    );
    engine.free(x);
    const config = parseBertConfig({ model_type: 'bert', vocab_size: 1000, hidden_size: 192, num_hidden_layers: 12, num_attention_heads: 12, intermediate_size: 768, max_position_embeddings: 128 });
    const model = BertForSequenceClassification.fresh(engine, config, 1);
    const [B, T] = [8, 128];
    const batch = randomTexts(config.vocabSize, B, T);
    for (const [mode, freezeRate] of [['exact', 0], ['paper', 0.9], ['tuned', 0.95]] as readonly [ActivationMode, number][]) {
      const trainer = new SlimFitTrainer({ model, train: { size: B, batch: () => batch }, batchSize: B, freezeRate, mode, schedule: 'constant', totalSteps: 1000, seed: 43, measureEncodingsEvery: 0, onWarning: () => {} });
      // The layers that the policy draws first, in every step: a null device's magnitudes are no numbers to go by.
      const { frozen, active } = trainer.peek();
      trainer.freeze(...frozen.map((l) => l.name));
      trainer.thaw(...active.map((l) => l.name));
      await measure(engine, { what: 'training step', mode, freezeRate, ...how }, () => trainer.step());
      trainer.dispose();
    }
    model.dispose();
    engine.dispose();
  }
}

main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
