/**
 * Every large operation of the contract, composed of primitives: an engine starts by writing the primitives and then overrides what
 * it can do faster. This file is the readable version of each formula; overrides are checked against the same conformance suite.
 */
import { ShapeError } from '../errors';
import { BaseEngine, sizeOf } from './baseEngine';
import {
  type AdamWOptions,
  type AdamWState,
  type AttentionGradients,
  type AttentionOperand,
  type AttentionSettings,
  type Category,
  type CodeEncoding,
  type DeviceTensor,
  type EncodedTensor,
  type Engine,
  type FixedPoint,
  type LossResult,
  type MatmulOptions,
  type NormalizedCodes,
  type RandomKey,
  type RowScaled,
  type RowStats,
  type SparseTensor,
  type UpdateMagnitude,
  ROW_SCALED,
} from './engine';

/** A tensor in fixed-point codes. */
export type FixedPointTensor = EncodedTensor & { readonly encoding: FixedPoint };

function isRowScaled(encoding: CodeEncoding): encoding is RowScaled {
  return encoding in ROW_SCALED;
}

/** An engine whose large operations are compositions. `Raw` is its own handle of a tensor. */
export abstract class ComposedEngine<Raw> extends BaseEngine<Raw> implements Engine {
  abstract upload(data: Float32Array | Int32Array, shape: readonly number[], category?: Category): DeviceTensor;
  abstract full(shape: readonly number[], value: number, category?: Category): DeviceTensor;
  abstract read(tensor: DeviceTensor): Promise<Float32Array | Int32Array>;

  abstract add(a: DeviceTensor, b: DeviceTensor): DeviceTensor;
  abstract sub(a: DeviceTensor, b: DeviceTensor): DeviceTensor;
  abstract mul(a: DeviceTensor, b: DeviceTensor): DeviceTensor;
  abstract div(a: DeviceTensor, b: DeviceTensor): DeviceTensor;
  abstract affine(a: DeviceTensor, scale: number, shift?: number): DeviceTensor;
  abstract abs(a: DeviceTensor): DeviceTensor;
  abstract sqrt(a: DeviceTensor): DeviceTensor;
  abstract exp(a: DeviceTensor): DeviceTensor;
  abstract log(a: DeviceTensor): DeviceTensor;
  abstract tanh(a: DeviceTensor): DeviceTensor;
  abstract erf(a: DeviceTensor): DeviceTensor;
  abstract sum(a: DeviceTensor, axis: number, keepDims?: boolean): DeviceTensor;
  abstract mean(a: DeviceTensor, axis: number, keepDims?: boolean): DeviceTensor;
  abstract max(a: DeviceTensor, axis: number, keepDims?: boolean): DeviceTensor;
  abstract matmul(a: DeviceTensor, b: DeviceTensor, options?: MatmulOptions): DeviceTensor;
  abstract transpose(a: DeviceTensor, perm: readonly number[]): DeviceTensor;
  abstract slice(a: DeviceTensor, begin: readonly number[], size: readonly number[]): DeviceTensor;
  abstract concat(parts: readonly DeviceTensor[], axis: number): DeviceTensor;
  abstract gather(table: DeviceTensor, ids: DeviceTensor): DeviceTensor;
  abstract scatterAdd(updates: DeviceTensor, ids: DeviceTensor, rows: number): DeviceTensor;
  abstract writeRows(table: DeviceTensor, ids: DeviceTensor, rows: DeviceTensor): void;
  abstract topK(x: DeviceTensor, count: number): SparseTensor;

  /** Codes of a fixed-point encoding, as the contract packs them. */
  protected abstract pack(x: DeviceTensor, encoding: FixedPoint): EncodedTensor;
  /** The values that fixed-point codes stand for. */
  protected abstract unpack(x: FixedPointTensor): DeviceTensor;

  /** [n] int32 → [n, depth] float32: 1 at the id, 0 elsewhere; a row of zeros for an id outside [0, depth). */
  protected abstract oneHot(ids: DeviceTensor, depth: number): DeviceTensor;
  /** 1 where an int32 element differs from the value, else 0; float32. */
  protected abstract differs(ids: DeviceTensor, value: number): DeviceTensor;
  /** float32 of the shape: 1/(1 − p) with probability 1 − p, else 0; a pure function of key and element position. */
  protected abstract dropoutMask(shape: readonly number[], p: number, key: RandomKey): DeviceTensor;

  // ---- linear -----------------------------------------------------------------------------------------------------------
  linear(x: DeviceTensor, weight: DeviceTensor, bias?: DeviceTensor): DeviceTensor {
    return this.scope(() => {
      const y = this.matmul(this.rows(x), weight, { transposeB: true });
      return this.reshape(bias ? this.addBias(y, bias) : y, [...x.shape.slice(0, -1), weight.shape[0]]);
    });
  }

  linearGradInput(grad: DeviceTensor, weight: DeviceTensor): DeviceTensor {
    return this.scope(() => this.reshape(this.matmul(this.rows(grad), weight), [...grad.shape.slice(0, -1), weight.shape[1]]));
  }

  linearGradWeight(grad: DeviceTensor, x: DeviceTensor): DeviceTensor {
    return this.scope(() => this.matmul(this.rows(grad), this.rows(x), { transposeA: true }));
  }

  biasGrad(grad: DeviceTensor): DeviceTensor {
    return this.scope(() => this.sum(this.rows(grad), 0));
  }

  /** y + b: y [N, O], b [O]. May write into y, which nothing else uses. */
  protected addBias(y: DeviceTensor, bias: DeviceTensor): DeviceTensor {
    return this.add(y, bias);
  }

  // ---- activations ------------------------------------------------------------------------------------------------------
  gelu(x: DeviceTensor): DeviceTensor {
    return this.scope(() => this.mul(x, this.phi(x)));
  }

  geluGrad(grad: DeviceTensor, x: DeviceTensor): DeviceTensor {
    return this.scope(() => {
      const density = this.affine(this.exp(this.affine(this.mul(x, x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
      return this.mul(grad, this.add(this.phi(x), this.mul(x, density)));
    });
  }

  geluGradEncoded(grad: DeviceTensor, x: EncodedTensor): DeviceTensor {
    return this.scope(() => this.geluGrad(grad, this.decode(x)));
  }

  /** Φ(x) = (1 + erf(x/√2))/2. */
  private phi(x: DeviceTensor): DeviceTensor {
    return this.affine(this.erf(this.affine(x, Math.SQRT1_2)), 0.5, 0.5);
  }

  tanhGrad(grad: DeviceTensor, y: DeviceTensor): DeviceTensor {
    return this.scope(() => this.mul(grad, this.affine(this.mul(y, y), -1, 1)));
  }

  // ---- layer norm ---------------------------------------------------------------------------------------------------------
  layerNorm(x: DeviceTensor, weight: DeviceTensor, bias: DeviceTensor, eps: number): DeviceTensor {
    return this.scope(() => this.add(this.mul(this.normalize(x, this.rowStats(x, eps)), weight), bias));
  }

  rowStats(x: DeviceTensor, eps: number): RowStats {
    return this.scope(() => {
      const rows = this.rows(x);
      const mean = this.mean(rows, 1, true);
      const centred = this.sub(rows, mean);
      const variance = this.mean(this.mul(centred, centred), 1, true);
      return { mean, rstd: this.div(this.full([], 1), this.sqrt(this.affine(variance, 1, eps))) };
    });
  }

  normalize(x: DeviceTensor, stats: RowStats): DeviceTensor {
    return this.scope(() => this.reshape(this.mul(this.sub(this.rows(x), stats.mean), stats.rstd), x.shape));
  }

  layerNormGradInput(grad: DeviceTensor, normalized: DeviceTensor, rstd: DeviceTensor, weight: DeviceTensor): DeviceTensor {
    return this.scope(() => {
      const h = this.mul(this.rows(grad), weight);
      const y = this.rows(normalized);
      const along = this.mul(y, this.mean(this.mul(h, y), 1, true));
      return this.reshape(this.mul(rstd, this.sub(this.sub(h, this.mean(h, 1, true)), along)), grad.shape);
    });
  }

  layerNormGradWeight(grad: DeviceTensor, normalized: DeviceTensor): DeviceTensor {
    return this.scope(() => this.biasGrad(this.mul(grad, normalized)));
  }

  layerNormGradInputSparse(grad: DeviceTensor, normalized: SparseTensor, rstd: DeviceTensor, weight: DeviceTensor): DeviceTensor {
    return this.scope(() => this.layerNormGradInput(grad, this.densify(normalized), rstd, weight));
  }

  layerNormGradInputEncoded(grad: DeviceTensor, normalized: EncodedTensor, rstd: DeviceTensor, weight: DeviceTensor): DeviceTensor {
    return this.scope(() => this.layerNormGradInput(grad, this.decode(normalized), rstd, weight));
  }

  normalizeEncoded(x: DeviceTensor, eps: number, encoding: CodeEncoding): NormalizedCodes {
    return this.scope(() => {
      const stats = this.rowStats(x, eps);
      return { encoded: this.encode(this.normalize(x, stats), encoding), rstd: stats.rstd };
    });
  }

  // ---- attention ------------------------------------------------------------------------------------------------------------
  splitHeads(x: DeviceTensor, heads: number): DeviceTensor {
    const [B, T, H] = x.shape;
    return this.scope(() => this.transpose(this.reshape(x, [B, T, heads, H / heads]), [0, 2, 1, 3]));
  }

  mergeHeads(x: DeviceTensor): DeviceTensor {
    const [B, A, T, d] = x.shape;
    return this.scope(() => this.reshape(this.transpose(x, [0, 2, 1, 3]), [B, T, A * d]));
  }

  attentionProbs(q: DeviceTensor, k: DeviceTensor, scale: number, mask?: DeviceTensor): DeviceTensor {
    return this.scope(() => {
      const scores = this.matmul(this.affine(q, scale), k, { transposeB: true });
      return this.softmax(mask ? this.add(scores, mask) : scores);
    });
  }

  softmax(x: DeviceTensor): DeviceTensor {
    return this.scope(() => {
      const e = this.exp(this.sub(x, this.max(x, -1, true)));
      return this.div(e, this.sum(e, -1, true));
    });
  }

  softmaxGrad(grad: DeviceTensor, probs: DeviceTensor): DeviceTensor {
    return this.scope(() => {
      const t = this.mul(grad, probs);
      return this.sub(t, this.mul(probs, this.sum(t, -1, true)));
    });
  }

  streamsAttention(_headWidth: number): boolean {
    return false;
  }

  attention(q: DeviceTensor, k: DeviceTensor, v: DeviceTensor, { heads, scale, mask, dropout }: AttentionSettings): DeviceTensor {
    return this.scope(() => {
      const [qh, kh, vh] = [q, k, v].map((x) => this.splitHeads(x, heads));
      const probs = this.attentionProbs(qh, kh, scale, mask);
      return this.mergeHeads(this.matmul(dropout ? this.dropout(probs, dropout.p, dropout.key) : probs, vh));
    });
  }

  attentionGrad(grad: DeviceTensor, q: AttentionOperand, k: AttentionOperand, v: AttentionOperand | undefined, settings: AttentionSettings, wanted: Readonly<Record<'dq' | 'dk' | 'dv', boolean>>): AttentionGradients {
    const { heads, scale, mask, dropout } = settings;
    const drop = (x: DeviceTensor) => (dropout ? this.dropout(x, dropout.p, dropout.key) : x);
    return this.scope(() => {
      const split = (x: AttentionOperand) => this.splitHeads(this.reshape(this.valuesOf(x), grad.shape), heads);
      const [g, qh, kh] = [grad, q, k].map(split);
      const probs = this.attentionProbs(qh, kh, scale, mask);
      const merged = (x: DeviceTensor) => this.mergeHeads(x);
      const dv = wanted.dv ? merged(this.matmul(drop(probs), g, { transposeA: true })) : undefined;
      if (!(wanted.dq || wanted.dk)) return { dv };
      if (!v) throw new ShapeError('attentionGrad: gradients of queries and keys need the values');
      const ds = this.affine(this.softmaxGrad(drop(this.matmul(g, split(v), { transposeB: true })), probs), scale);
      return { dq: wanted.dq ? merged(this.matmul(ds, kh)) : undefined, dk: wanted.dk ? merged(this.matmul(ds, qh, { transposeA: true })) : undefined, dv };
    });
  }

  /** The values of an operand that may be in codes. */
  protected valuesOf(x: AttentionOperand): DeviceTensor {
    return 'encoding' in x ? this.decode(x) : x;
  }

  // ---- embeddings, dropout ----------------------------------------------------------------------------------------------------
  embeddingGrad(grad: DeviceTensor, ids: DeviceTensor, rows: number, paddingIndex?: number): DeviceTensor {
    return this.scope(() => {
      const flat = this.reshape(ids, [ids.size]);
      const updates = this.rows(grad);
      const counted = paddingIndex === undefined ? updates : this.mul(updates, this.reshape(this.differs(flat, paddingIndex), [ids.size, 1]));
      return this.scatterAdd(counted, flat, rows);
    });
  }

  dropout(x: DeviceTensor, p: number, key: RandomKey): DeviceTensor {
    return this.scope(() => this.mul(x, this.dropoutMask(x.shape, p, key)));
  }

  // ---- losses ------------------------------------------------------------------------------------------------------------------
  crossEntropy(logits: DeviceTensor, labels: DeviceTensor, ignoreIndex?: number): LossResult {
    // A row of zeros in `target` adds nothing to loss, count or gradient; a label outside the classes has one already.
    return this.scope(() => {
      const [n, C] = logits.shape;
      const classes = this.oneHot(labels, C);
      const isClass = ignoreIndex !== undefined && ignoreIndex >= 0 && ignoreIndex < C;
      const target = isClass ? this.mul(classes, this.reshape(this.differs(labels, ignoreIndex), [n, 1])) : classes;
      const counted = this.sum(target, 1, true);
      const count = this.sum(this.reshape(counted, [n]), 0);
      const shifted = this.sub(logits, this.max(logits, 1, true));
      const logZ = this.log(this.sum(this.exp(shifted), 1, true));
      const logP = this.sub(shifted, logZ);
      const total = this.sum(this.reshape(this.mul(target, logP), [n * C]), 0);
      const grad = this.div(this.sub(this.mul(this.exp(logP), counted), target), count);
      return { loss: this.div(this.affine(total, -1), count), grad };
    });
  }

  meanSquaredError(x: DeviceTensor, target: DeviceTensor): LossResult {
    return this.scope(() => {
      const diff = this.sub(x, target);
      return { loss: this.mean(this.reshape(this.mul(diff, diff), [x.size]), 0), grad: this.affine(diff, 2 / x.size) };
    });
  }

  // ---- encodings, optimizer ---------------------------------------------------------------------------------------------------
  encode(x: DeviceTensor, encoding: CodeEncoding): EncodedTensor {
    if (!isRowScaled(encoding)) return this.pack(x, encoding);
    const { codes, hi } = ROW_SCALED[encoding];
    return this.scope(() => {
      const rows = this.rows(x);
      const steps = this.div(this.max(this.abs(rows), 1, true), this.full([], hi));
      // The smallest normal number changes no step from 2⁻¹⁰¹ up, and makes the codes of a row of zeros 0.
      const scaled = this.scope(() => this.div(rows, this.affine(steps, 1, 2 ** -126)));
      return { ...this.pack(scaled, codes), encoding, shape: x.shape, steps };
    });
  }

  decode(x: EncodedTensor): DeviceTensor {
    const { encoding, steps } = x;
    if (!isRowScaled(encoding)) return this.unpack({ ...x, encoding });
    return this.scope(() => this.reshape(this.mul(this.unpack({ ...x, encoding: ROW_SCALED[encoding].codes, shape: [steps!.size, sizeOf(x.shape) / steps!.size] }), steps!), x.shape));
  }

  decodeAffine(x: EncodedTensor, weight: DeviceTensor, bias: DeviceTensor): DeviceTensor {
    return this.scope(() => this.add(this.mul(this.decode(x), weight), bias));
  }

  densify(x: SparseTensor): DeviceTensor {
    return this.scope(() => this.reshape(this.scatterAdd(x.values, x.indices, sizeOf(x.shape)), x.shape));
  }

  adamwStep(state: AdamWState, grad: DeviceTensor, o: AdamWOptions): DeviceTensor | undefined {
    return this.scope(() => {
      const { weight, m, v } = state;
      this.checkAdamW(state, grad);
      const rate = (o.lr * Math.sqrt(1 - o.beta2 ** o.step)) / (1 - o.beta1 ** o.step);
      // A scope for each value: temporaries of one are gone before the next, which matters for an embedding table.
      const m1 = this.scope(() => this.add(this.affine(m, o.beta1), this.affine(grad, 1 - o.beta1)));
      const v1 = this.scope(() => this.add(this.affine(v, o.beta2), this.affine(this.mul(grad, grad), 1 - o.beta2)));
      const direction = this.scope(() => this.div(m1, this.affine(this.sqrt(v1), 1, o.eps)));
      const stepped = this.scope(() => this.sub(weight, this.affine(direction, rate)));
      this.free(direction);
      const w1 = o.weightDecay > 0 ? this.scope(() => this.sub(stepped, this.affine(stepped, o.lr * o.weightDecay))) : stepped;
      const magnitude = this.updateMagnitude(o.magnitude, weight, w1, grad);
      this.moveInto(weight, w1);
      this.moveInto(m, m1);
      this.moveInto(v, v1);
      return magnitude;
    });
  }

  /** @throws ShapeError, InvalidArgumentError when a tensor of the state cannot be updated in place */
  protected checkAdamW({ weight, m, v }: AdamWState, grad: DeviceTensor): void {
    for (const t of [weight, m, v]) this.checkUpdatable(t);
    this.checkSizes('AdamW', weight.size, m, v, grad);
  }

  /** What `writeRows` may rely on. @throws ShapeError, InvalidArgumentError */
  protected checkRows(table: DeviceTensor, ids: DeviceTensor, rows: DeviceTensor): void {
    this.checkUpdatable(table);
    const width = sizeOf(table.shape.slice(1));
    if (rows.size !== ids.size * width || rows.dtype !== table.dtype) throw new ShapeError(`${rows.dtype} rows of shape [${rows.shape}] for ${ids.size} rows of a ${table.dtype} table of shape [${table.shape}]`);
  }

  /** @throws ShapeError unless each tensor has that many elements */
  protected checkSizes(what: string, size: number, ...tensors: readonly DeviceTensor[]): void {
    for (const t of tensors) if (t.size !== size) throw new ShapeError(`${what}: a tensor of shape [${t.shape}] where ${size} elements are needed`);
  }

  /** The update magnitude of a step, from the weight on both sides of it. */
  protected updateMagnitude(kind: UpdateMagnitude | undefined, before: DeviceTensor, after: DeviceTensor, grad: DeviceTensor): DeviceTensor | undefined {
    if (kind === undefined) return undefined;
    return this.scope(() => {
      if (kind === 'mean-relative') return this.meanOver(this.abs(this.div(this.sub(before, after), before)));
      if (kind === 'loss-change') return this.affine(this.abs(this.meanOver(this.mul(this.scope(() => this.sub(before, after)), grad))), before.size);
      return this.relativeNorm(this.meanSquare(before), this.meanSquare(this.sub(before, after)));
    });
  }

  /** ‖step‖/‖weight‖ from both mean squares: sqrt(s/max(w, s)), and 0/2⁻¹²⁶ where both are 0; max(a, b) = (a + b + |a − b|)/2. */
  private relativeNorm(weight: DeviceTensor, step: DeviceTensor): DeviceTensor {
    return this.scope(() => {
      const larger = this.affine(this.add(this.add(weight, step), this.abs(this.sub(weight, step))), 0.5, 2 ** -126);
      return this.sqrt(this.div(step, larger));
    });
  }

  /** Mean of x², a scalar. */
  private meanSquare(x: DeviceTensor): DeviceTensor {
    return this.scope(() => this.meanOver(this.mul(x, x)));
  }

  /**
   * Mean of all elements, a scalar. Axis by axis: a running float32 sum over all of a large table would lose the small terms
   * (16 million equal ones in one go come out 2 % short on wasm).
   */
  private meanOver(x: DeviceTensor): DeviceTensor {
    return this.scope(() => {
      let mean = this.share(x);
      while (mean.shape.length > 0) mean = this.mean(mean, -1);
      return mean;
    });
  }

  write(tensor: DeviceTensor, data: Float32Array): void {
    this.checkUpdatable(tensor);
    this.scope(() => this.moveInto(tensor, this.upload(data, tensor.shape)));
  }

  /** Gives the values of a fresh tensor to a long-lived one. */
  protected moveInto(target: DeviceTensor, fresh: DeviceTensor): void {
    this.replaceRaw(target, this.rawView(this.raw(fresh), target.shape, target.dtype));
  }

  /** [..., K] seen as [N, K]. */
  protected rows(x: DeviceTensor): DeviceTensor {
    const K = x.shape[x.shape.length - 1];
    return this.reshape(x, [x.size / K, K]);
  }
}
