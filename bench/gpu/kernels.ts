/**
 * Single operations beside what bounds them: the bytes that they must read and write at the measured speed of a copy, or their FLOPs at the measured speed of a large matrix product, whichever takes
 * longer. Both are measured in the same run.
 */
import { openDevice } from '../../src/engine/webgpu/dawn';
import type { WebgpuEngine } from '../../src/engine/webgpu/webgpuEngine';
import type { DeviceTensor } from '../../src/engine/engine';
import { Random } from '../../src/random';
import { openEngine } from './openEngine';
import type { Precision, Setting } from './settings';

/** What the device does at best. */
export interface Peak {
  readonly device: string;
  readonly precision: Precision;
  readonly tflops: number;
  /** Rows and columns of the square product that was fastest. */
  readonly size: number;
}

/** One operation's figures. */
export interface KernelFigures {
  readonly kernel: string;
  readonly shape: string;
  readonly precision: Precision;
  readonly ms: number;
  /** Bytes that it must move at least, and FLOPs. */
  readonly bytes: number;
  readonly flops: number;
  readonly gigabytesPerSecond: number;
  readonly tflops: number;
  /** Milliseconds that the device would take at its measured peaks. */
  readonly boundMs: number;
  readonly boundBy: 'bytes' | 'FLOPs';
}

/** Milliseconds of one call: enough calls that the wait at the end does not count, the median of three rounds. */
async function timeOf(engine: WebgpuEngine, call: () => void, leastMs: number): Promise<number> {
  const one = engine.full([1], 1);
  const run = async (n: number): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < n; i++) engine.scope(call);
    await engine.read(one);
    return performance.now() - start;
  };
  await run(2);
  let n = 1;
  while ((await run(n)) < leastMs) n *= 2;
  const rounds = [await run(n), await run(n), await run(n)].sort((a, b) => a - b);
  engine.free(one);
  return rounds[1] / n;
}

/** Bytes a second of copies from buffer to buffer by Dawn itself, reading and writing counted: no kernel of ours is faster than what this says of memory. */
export async function copyBandwidth(tiny: boolean): Promise<number> {
  const { device } = await openDevice();
  const size = Math.min(tiny ? 2 ** 22 : 2 ** 28, device.limits.maxBufferSize);
  const usage = 4 | 8;
  const [from, to] = [0, 1].map(() => device.createBuffer({ size, usage }));
  let best = 0;
  for (let round = 0, n = 1; round < 6; round++) {
    const start = performance.now();
    const encoder = device.createCommandEncoder();
    for (let i = 0; i < n; i++) encoder.copyBufferToBuffer(from, 0, to, 0, size);
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    const ms = performance.now() - start;
    // The first round also clears both buffers.
    if (round > 0) best = Math.max(best, (2 * size * n * 1000) / ms);
    if (ms < (tiny ? 10 : 100)) n *= 4;
  }
  device.destroy();
  return best;
}

/** The fastest large square product of the engine. */
export async function matmulPeak(precision: Precision, tiny: boolean): Promise<Peak> {
  const engine = await openEngine(precision);
  const { device } = engine;
  try {
    let best = { tflops: 0, size: 0 };
    for (const size of tiny ? [128] : [2048, 4096, 8192]) {
      const [a, b] = [1, 2].map((x) => engine.full([size, size], x / size));
      const ms = await timeOf(engine, () => void engine.linear(a, b), tiny ? 5 : 200);
      const tflops = (2 * size ** 3) / ms / 1e9;
      if (tflops > best.tflops) best = { tflops, size };
      engine.free(a, b);
    }
    return { device, precision, ...best };
  } finally {
    engine.dispose();
  }
}

/** What a kernel must do: called once for each timing, with its operands ready. */
interface Case {
  readonly kernel: string;
  readonly shape: string;
  readonly bytes: number;
  readonly flops?: number;
  readonly operands: Readonly<Record<string, readonly number[] | { readonly ids: number; readonly below: number }>>;
  call(e: WebgpuEngine, t: Readonly<Record<string, DeviceTensor>>): void;
  /** Whether mixed precision changes it. */
  readonly product?: boolean;
}

const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** Matrix products of a setting's layers. */
function products(s: Setting): Case[] {
  const N = s.batch * s.tokens;
  const linear = (O: number, K: number): Case[] => {
    const common = { bytes: 4 * (N * K + O * K + N * O), flops: 2 * N * O * K, product: true };
    return [
      { ...common, kernel: 'linear', shape: `${N} × ${K} → ${O}`, operands: { x: [N, K], w: [O, K], b: [O] }, call: (e, t) => void e.linear(t.x, t.w, t.b) },
      { ...common, kernel: 'linear, input gradient', shape: `${N} × ${O} → ${K}`, operands: { g: [N, O], w: [O, K] }, call: (e, t) => void e.linearGradInput(t.g, t.w) },
      { ...common, kernel: 'linear, weight gradient', shape: `${O} × ${N} × ${K}`, operands: { g: [N, O], x: [N, K] }, call: (e, t) => void e.linearGradWeight(t.g, t.x) },
    ];
  };
  const heads = [s.batch, s.heads, s.tokens, s.hidden / s.heads];
  const scores = [s.batch, s.heads, s.tokens, s.tokens];
  const attention = { flops: 2 * s.batch * s.tokens ** 2 * s.hidden, bytes: 4 * (2 * sizeOf(heads) + sizeOf(scores)), product: true };
  // In one piece: no scores in memory. Backward needs five products at least: the scores again, and one for each gradient, and that of the probabilities.
  const [whole, values] = [[s.batch, s.tokens, s.hidden], s.batch * s.tokens * s.hidden];
  const settings = { heads: s.heads, scale: 0.125 };
  const streamed: Case[] = [
    { kernel: 'attention, forward', shape: heads.join(' × '), bytes: 16 * values, flops: 2 * attention.flops, product: true, operands: { q: whole, k: whole, v: whole }, call: (e, t) => void e.attention(t.q, t.k, t.v, settings) },
    {
      kernel: 'attention, backward',
      shape: heads.join(' × '),
      bytes: 28 * values,
      flops: 5 * attention.flops,
      product: true,
      operands: { g: whole, q: whole, k: whole, v: whole },
      call: (e, t) => void e.attentionGrad(t.g, t.q, t.k, t.v, settings, { dq: true, dk: true, dv: true }),
    },
  ];
  return [
    ...streamed,
    ...linear(s.hidden, s.hidden),
    ...linear(s.intermediate, s.hidden),
    ...linear(s.hidden, s.intermediate),
    { ...attention, kernel: 'attention, q·kᵀ', shape: scores.join(' × '), operands: { q: heads, k: heads }, call: (e, t) => void e.matmul(t.q, t.k, { transposeB: true }) },
    { ...attention, kernel: 'attention, p·v', shape: heads.join(' × '), operands: { p: scores, v: heads }, call: (e, t) => void e.matmul(t.p, t.v) },
    {
      ...attention,
      kernel: 'attention, probabilities from q and k',
      shape: scores.join(' × '),
      operands: { q: heads, k: heads },
      call: (e, t) => void e.attentionProbs(t.q, t.k, 0.125),
    },
  ];
}

/** Everything that is bound by memory. */
function passes(s: Setting, vocabulary: number): Case[] {
  const [N, H, F] = [s.batch * s.tokens, s.hidden, s.intermediate];
  const [rows, wide] = [[N, H], [N, F]];
  const scores = [s.batch, s.heads, s.tokens, s.tokens];
  const [nh, nf, ns] = [N * H, N * F, sizeOf(scores)];
  const count = Math.max(1, Math.floor(nh / 10));
  const most = Math.min(N, 1024);
  const options = { lr: 5e-5, beta1: 0.9, beta2: 0.999, eps: 1e-6, weightDecay: 0.01, step: 10 };
  const weight = [F, H];
  const adamw = (magnitude: 'mean-relative' | undefined): Case => ({
    kernel: magnitude ? 'AdamW with the magnitude' : 'AdamW',
    shape: weight.join(' × '),
    bytes: 28 * F * H,
    operands: { weight, m: weight, v: weight, g: weight },
    call: (e, t) => void e.adamwStep({ weight: t.weight, m: t.m, v: t.v }, t.g, { ...options, magnitude }),
  });
  const encode = (encoding: 'q3.4' | 'q2.1' | 'q8-row', shape: readonly number[], bytes: number): Case => ({
    kernel: `encode ${encoding}`,
    shape: shape.join(' × '),
    bytes: (4 + bytes) * sizeOf(shape) + (encoding === 'q8-row' ? 4 * N : 0),
    operands: { x: shape },
    call: (e, t) => void e.encode(t.x, encoding),
  });
  return [
    { kernel: 'layer norm', shape: rows.join(' × '), bytes: 8 * nh, operands: { x: rows, w: [H], b: [H] }, call: (e, t) => void e.layerNorm(t.x, t.w, t.b, 1e-12) },
    { kernel: 'layer norm, input gradient', shape: rows.join(' × '), bytes: 12 * nh, operands: { g: rows, y: rows, rstd: [N, 1], w: [H] }, call: (e, t) => void e.layerNormGradInput(t.g, t.y, t.rstd, t.w) },
    { kernel: 'layer norm, weight gradient', shape: rows.join(' × '), bytes: 8 * nh, operands: { g: rows, y: rows }, call: (e, t) => void e.layerNormGradWeight(t.g, t.y) },
    { kernel: 'softmax', shape: scores.join(' × '), bytes: 8 * ns, operands: { x: scores }, call: (e, t) => void e.softmax(t.x) },
    { kernel: 'softmax, gradient', shape: scores.join(' × '), bytes: 12 * ns, operands: { g: scores, p: scores }, call: (e, t) => void e.softmaxGrad(t.g, t.p) },
    { kernel: 'GELU', shape: wide.join(' × '), bytes: 8 * nf, operands: { x: wide }, call: (e, t) => void e.gelu(t.x) },
    { kernel: 'GELU, gradient', shape: wide.join(' × '), bytes: 12 * nf, operands: { g: wide, x: wide }, call: (e, t) => void e.geluGrad(t.g, t.x) },
    { kernel: 'bias gradient', shape: wide.join(' × '), bytes: 4 * nf, operands: { g: wide }, call: (e, t) => void e.biasGrad(t.g) },
    { kernel: 'dropout', shape: rows.join(' × '), bytes: 8 * nh, operands: { x: rows }, call: (e, t) => void e.dropout(t.x, 0.1, { seed: 1, counter: 2 }) },
    { kernel: 'addition', shape: rows.join(' × '), bytes: 12 * nh, operands: { x: rows, y: rows }, call: (e, t) => void e.add(t.x, t.y) },
    { kernel: 'split into heads', shape: `${s.batch} × ${s.tokens} × ${H}`, bytes: 8 * nh, operands: { x: [s.batch, s.tokens, H] }, call: (e, t) => void e.splitHeads(t.x, s.heads) },
    encode('q3.4', wide, 1),
    encode('q2.1', wide, 0.5),
    encode('q8-row', rows, 1),
    { kernel: 'encode q3.4 and decode', shape: wide.join(' × '), bytes: 10 * nf, operands: { x: wide }, call: (e, t) => void e.decode(e.encode(t.x, 'q3.4')) },
    { kernel: 'largest tenth (topK)', shape: rows.join(' × '), bytes: 4 * nh + 8 * count, operands: { x: rows }, call: (e, t) => void e.topK(t.x, count) },
    { kernel: 'embedding gradient', shape: `${N} rows of ${H} into ${vocabulary}`, bytes: 4 * (nh + vocabulary * H), operands: { g: rows, ids: { ids: N, below: vocabulary } }, call: (e, t) => void e.embeddingGrad(t.g, t.ids, vocabulary, 0) },
    adamw(undefined),
    adamw('mean-relative'),
    { kernel: 'cross-entropy', shape: `${most} × ${vocabulary}`, bytes: 8 * most * vocabulary, operands: { x: [most, vocabulary], labels: { ids: most, below: vocabulary } }, call: (e, t) => void e.crossEntropy(t.x, t.labels) },
  ];
}

/**
 * Every operation in the shapes of the given settings, matrix products of all, the rest of the first.
 * @param peak TFLOP/s of a large product, and bytes a second of a copy
 */
export async function* measureKernels(settings: readonly Setting[], precision: Precision, peak: { readonly tflops: number; readonly bytesPerSecond: number }, tiny: boolean): AsyncGenerator<KernelFigures> {
  const engine = await openEngine(precision);
  const random = new Random(3);
  // A noise of 4,096 values repeated: topK and encodings see a spread, and drawing costs nothing.
  const block = Float32Array.from({ length: 4096 }, () => random.normal());
  try {
    const cases = [...settings.flatMap(products), ...(precision === 'float32' ? passes(settings[0], settings[0].vocabulary) : [])];
    for (const c of cases) {
      const tensors = Object.fromEntries(
        Object.entries(c.operands).map(([name, o]) => {
          if ('ids' in o) return [name, engine.upload(Int32Array.from({ length: o.ids }, () => random.int(o.below)), [o.ids])];
          const data = new Float32Array(sizeOf(o));
          for (let at = 0; at < data.length; at += block.length) data.set(block.subarray(0, Math.min(block.length, data.length - at)), at);
          // Second moments and 1/σ are positive.
          return [name, engine.upload(name === 'v' && c.kernel.startsWith('AdamW') ? data.map(Math.abs) : data, o)];
        }),
      );
      const ms = await timeOf(engine, () => c.call(engine, tensors), tiny ? 2 : 60);
      engine.free(...Object.values(tensors));
      const flops = c.flops ?? 0;
      const [byBytes, byFlops] = [(1000 * c.bytes) / peak.bytesPerSecond, flops / peak.tflops / 1e9];
      yield {
        kernel: c.kernel,
        shape: c.shape,
        precision,
        ms,
        bytes: c.bytes,
        flops,
        gigabytesPerSecond: c.bytes / ms / 1e6,
        tflops: flops / ms / 1e9,
        boundMs: Math.max(byBytes, byFlops),
        boundBy: byFlops > byBytes ? 'FLOPs' : 'bytes',
      };
    }
  } finally {
    engine.dispose();
  }
}
