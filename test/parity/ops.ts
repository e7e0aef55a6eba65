/** Replays the golden values of single operations. */
import type { DeviceTensor, Engine, FixedPoint } from '../../src/engine/engine';
import { FIXED_POINT } from '../../src/engine/engine';
import { InterLayerScheduling } from '../../src/freezing/ils';
import { type GoldenFile, type GoldenOps, relativeL2 } from './golden';
import type { ParityLine } from './model';

const TOLERANCE = 1e-4;

/** What one operation's replay found: relative errors by field, and whether codes and positions are equal. */
interface Found {
  readonly errors: Readonly<Record<string, number>>;
  readonly codesEqual?: boolean;
  readonly frozenSetsEqual?: boolean;
}

/** Every operation of an `ops` file on one engine. */
export async function* replayOps(engine: Engine, file: GoldenFile): AsyncGenerator<ParityLine> {
  for (const [name, replay] of Object.entries(REPLAYS)) {
    const before = engine.memory().tensors;
    const found = await replay(engine, file);
    const tensorsLeft = engine.memory().tensors - before;
    const worst = Math.max(0, ...Object.values(found.errors).map((e) => (Number.isNaN(e) ? Infinity : e)));
    const { errors, ...flags } = found;
    yield {
      file: file.name,
      case: name,
      engine: engine.name,
      ...errors,
      ...flags,
      tensorsLeft,
      tolerance: TOLERANCE,
      ok: worst <= TOLERANCE && found.codesEqual !== false && found.frozenSetsEqual !== false && tensorsLeft === 0,
    };
  }
}

/** Runs `fn` over uploaded fields and returns the relative error of each result against the field of that name. */
async function errorsOf(engine: Engine, file: GoldenFile, op: string, fn: (field: (name: string) => DeviceTensor) => Record<string, DeviceTensor>): Promise<Record<string, number>> {
  const field = (name: string) => {
    const { data, shape } = file.tensor(`${op}.${name}`);
    return engine.upload(data, shape);
  };
  const results = engine.scope(() => fn(field));
  const errors: Record<string, number> = {};
  for (const [name, tensor] of Object.entries(results)) {
    errors[name] = relativeL2(await engine.read(tensor), file.tensor(`${op}.${name}`).data);
    engine.free(tensor);
  }
  return errors;
}

/** Codes of a golden field as the engine's decoded values show them. */
async function codes(engine: Engine, values: DeviceTensor, encoding: FixedPoint): Promise<Int32Array> {
  const decoded = engine.scope(() => engine.decode(engine.encode(values, encoding)));
  const data = await engine.read(decoded);
  engine.free(decoded);
  return Int32Array.from(data, (v) => v * FIXED_POINT[encoding].scale);
}

const same = (a: ArrayLike<number>, b: ArrayLike<number>): boolean => a.length === b.length && Array.prototype.every.call(a, (v: number, i: number) => v === b[i]);

const linear =
  (op: string, trains: boolean, q8: boolean) =>
  async (engine: Engine, file: GoldenFile): Promise<Found> => {
    const errors = await errorsOf(engine, file, op, (f) => {
      const x = f('x');
      const g = f('grad_out');
      const w = f('weight');
      const seen = q8 ? engine.decode(engine.encode(x, 'q3.4')) : x;
      return { y: engine.linear(x, w), grad_x: engine.linearGradInput(g, w), ...(trains ? { grad_weight: engine.linearGradWeight(g, seen) } : {}) };
    });
    if (!q8) return { errors };
    const x = file.tensor(`${op}.x`);
    const t = engine.upload(x.data, x.shape);
    const mine = await codes(engine, t, 'q3.4');
    engine.free(t);
    return { errors, codesEqual: same(mine, file.tensor(`${op}.codes`).data) };
  };

const REPLAYS: Readonly<Record<string, (engine: Engine, file: GoldenFile) => Promise<Found>>> = {
  async gelu(engine, file) {
    const errors = await errorsOf(engine, file, 'gelu', (f) => {
      const packed = engine.encode(f('x'), 'q2.1');
      return { y: engine.gelu(f('x')), dequantised: engine.decode(packed), grad_x: engine.geluGradEncoded(f('grad_out'), packed) };
    });
    const x = file.tensor('gelu.x');
    const packed = engine.scope(() => engine.encode(engine.upload(x.data, x.shape), 'q2.1'));
    const words = (await engine.read(packed.words)) as Int32Array;
    engine.free(packed.words);
    const bytes = new Uint8Array(words.buffer, words.byteOffset, packed.payloadBytes);
    return { errors, codesEqual: same(bytes, file.tensor('gelu.packed').data) };
  },
  linear_active: linear('linear_active', true, false),
  linear_active_q8: linear('linear_active_q8', true, true),
  linear_frozen: linear('linear_frozen', false, false),
  async layernorm_active(engine, file) {
    return {
      errors: await errorsOf(engine, file, 'layernorm_active', (f) => {
        const [x, g, w] = [f('x'), f('grad_out'), f('weight')];
        const stats = engine.rowStats(x, 1e-12);
        const y = engine.normalize(x, stats);
        return {
          y: engine.layerNorm(x, w, f('bias'), 1e-12),
          grad_x: engine.layerNormGradInput(g, y, stats.rstd, w),
          grad_weight: engine.layerNormGradWeight(g, y),
          grad_bias: engine.biasGrad(g),
        };
      }),
    };
  },
  async layernorm_frozen(engine, file) {
    const kept = file.tensor('layernorm_frozen.kept_index').data;
    const x = file.tensor('layernorm_frozen.x');
    const prune = () => {
      const t = engine.upload(x.data, x.shape);
      const stats = engine.rowStats(t, 1e-12);
      return { stats, sparse: engine.topK(engine.normalize(t, stats), kept.length) };
    };
    const errors = await errorsOf(engine, file, 'layernorm_frozen', (f) => {
      const { stats, sparse } = prune();
      return {
        y: engine.layerNorm(f('x'), f('weight'), f('bias'), 1e-12),
        kept_value: sparse.values,
        grad_x: engine.layerNormGradInputSparse(f('grad_out'), sparse, stats.rstd, f('weight')),
        grad_bias: engine.biasGrad(f('grad_out')),
      };
    });
    const { sparse } = engine.scope(() => ({ sparse: prune().sparse }));
    const indices = await engine.read(sparse.indices);
    engine.free(sparse.values, sparse.indices);
    return { errors, codesEqual: same(indices, kept) };
  },
  async matmul(engine, file) {
    const errors = await errorsOf(engine, file, 'matmul', (f) => {
      const [a, b, g] = [f('a'), f('b'), f('grad_out')];
      const [qa, qb] = [a, b].map((t) => engine.decode(engine.encode(t, 'q3.4')));
      return { y: engine.matmul(a, b), grad_a: engine.matmul(g, qb, { transposeB: true }), grad_b: engine.matmul(qa, g, { transposeA: true }) };
    });
    let codesEqual = true;
    for (const n of ['a', 'b']) {
      const t = file.tensor(`matmul.${n}`);
      const up = engine.upload(t.data, t.shape);
      codesEqual &&= same(await codes(engine, up, 'q3.4'), file.tensor(`matmul.codes_${n}`).data);
      engine.free(up);
    }
    return { errors, codesEqual };
  },
  async softmax_matmul(engine, file) {
    const errors = await errorsOf(engine, file, 'softmax_matmul', (f) => {
      const [v, g] = [f('v'), f('grad_out')];
      const p = engine.softmax(f('scores'));
      const seenP = engine.decode(engine.encode(p, 'q0.8'));
      const seenV = engine.decode(engine.encode(v, 'q3.4'));
      return { y: engine.matmul(p, v), grad_v: engine.matmul(seenP, g, { transposeA: true }), grad_scores: engine.softmaxGrad(engine.matmul(g, seenV, { transposeB: true }), seenP) };
    });
    const s = file.tensor('softmax_matmul.scores');
    const v = file.tensor('softmax_matmul.v');
    const up = engine.scope(() => ({ p: engine.softmax(engine.upload(s.data, s.shape)), v: engine.upload(v.data, v.shape) }));
    const codesEqual =
      same(await codes(engine, up.p, 'q0.8'), file.tensor('softmax_matmul.codes_p').data) && same(await codes(engine, up.v, 'q3.4'), file.tensor('softmax_matmul.codes_v').data);
    engine.free(up.p, up.v);
    return { errors, codesEqual };
  },
  async adamw(engine, file) {
    const o = (file.json as GoldenOps).adamw;
    const start = file.tensor('adamw.p0');
    const weight = engine.upload(start.data, start.shape, 'weights');
    const [m, v] = [0, 1].map(() => engine.full(start.shape, 0, 'optimizer'));
    let count = 0;
    const errors: Record<string, number> = {};
    for (const [i, kind] of o.kind.entries()) {
      if (kind !== 'none') {
        const g = kind === 'zero' ? engine.full(start.shape, 0) : engine.upload(file.tensor(`adamw.grad${i}`).data, start.shape);
        engine.adamwStep({ weight, m, v }, g, { lr: o.lr[i], beta1: o.beta1, beta2: o.beta2, eps: o.eps, weightDecay: o.weight_decay, step: ++count, magnitude: undefined });
        engine.free(g);
      }
      errors[`p${i + 1}`] = relativeL2(await engine.read(weight), file.tensor(`adamw.p${i + 1}`).data);
    }
    engine.free(weight, m, v);
    return { errors };
  },
  async distance(engine, file) {
    const want = (file.json as GoldenOps).distance;
    const old = file.tensor('distance.old');
    const fresh = file.tensor('distance.new');
    // A step whose gradient and second moment are 0 moves the weight by lr·sqrt(1−β2)/(1−β1)·β1·m/eps: choose m so that it lands on `new`.
    const [beta1, beta2] = [0.5, 0.75];
    const factor = (Math.sqrt(1 - beta2) / (1 - beta1)) * beta1;
    const magnitude = async (from: Float32Array, to: Float32Array): Promise<number> => {
      const weight = engine.upload(from, old.shape, 'weights');
      const m = engine.upload(from.map((w, i) => (w - to[i]) / factor), old.shape, 'optimizer');
      const v = engine.full(old.shape, 0, 'optimizer');
      const g = engine.full(old.shape, 0);
      const d = engine.adamwStep({ weight, m, v }, g, { lr: 1, beta1, beta2, eps: 1, weightDecay: 0, step: 1, magnitude: 'mean-relative' })!;
      const value = (await engine.read(d))[0];
      engine.free(weight, m, v, g, d);
      return value;
    };
    const zeroed = (a: GoldenFile['tensor'] extends (k: string) => infer T ? T : never) => (a.data as Float32Array).map((x, i) => (i === 0 ? 0 : x));
    const error = (got: number, w: number | string) => (Object.is(got, Number(w)) ? 0 : Math.abs(got - Number(w)) / Math.abs(Number(w)));
    return {
      errors: {
        value: error(await magnitude(old.data as Float32Array, fresh.data as Float32Array), want.value),
        zeroUnchanged: error(await magnitude(zeroed(old), zeroed(fresh)), want.value_if_old00_is_zero_and_new00_is_zero),
        zeroChanged: error(await magnitude(zeroed(old), fresh.data as Float32Array), want.value_if_old00_is_zero),
      },
    };
  },
  async selection(_engine, file) {
    const frozenSetsEqual = (file.json as GoldenOps).selection.every(({ distance, freeze_rate, num_frozen, frozen }) => {
      const layers = distance.map((_, index) => ({ index, name: `layer ${index}`, kind: 'linear' as const, shape: [1], parameters: 1 }));
      const ils = new InterLayerScheduling(layers, { freezeRate: freeze_rate, seed: 0, initialMagnitudes: distance.map(Number) });
      return ils.frozenCount === num_frozen && same(ils.select(), frozen);
    });
    return { errors: {}, frozenSetsEqual };
  },
};
