/**
 * The engine contract: tensors on a device, and the operations that training a transformer needs, at the size of a
 * transformer's parts. An engine knows nothing of models, freezing or training; nothing above `engine/` knows which library
 * or which device computes.
 *
 * Ownership. Every operation returns new tensors that belong to the caller, who frees them (`free`) or lets a `scope` do it.
 * Arguments are never freed by an operation. A view (`reshape`, `share`) is a tensor of its own that must be freed too; the bytes of a storage are
 * counted once, however many tensors look at it, and are given back with the last of them.
 *
 * Words: N = product of all leading dimensions (batch·tokens), B batch, T tokens, H hidden, A heads, d = H/A, V vocabulary,
 * O outputs, K inputs. All floats are IEEE float32.
 */

/** Names an engine can be chosen by. */
export type EngineName = 'tensorflow' | 'wasm' | 'cpu' | 'webgpu';

/**
 * In what matrix products are computed. `mixed`: operands are rounded to float16 (11 bits, up to 65,504), products summed in float32, results float32. Everything else, and all that is stored, is float32 in either. Where an engine streams attention its probabilities, and the gradients of its scores, are operands like others.
 */
export type Precision = 'float32' | 'mixed';

/** Element type of a tensor on the device. Every element takes 4 bytes; packed codes travel as int32 words. */
export type DType = 'float32' | 'int32';

/** What a tensor's bytes are for. A storage seen by several tensors counts for the first of these that any of them has. */
export type Category = 'weights' | 'optimizer' | 'gradients' | 'activations' | 'workspace';

/** All categories, in order of precedence. */
export const CATEGORIES: readonly Category[] = ['weights', 'optimizer', 'gradients', 'activations', 'workspace'];

/** A tensor on an engine's device. Immutable but for `adamwStep`, which replaces the values of weights and moments, `write` and `writeRows`. */
export interface DeviceTensor {
  /** Unique within the engine. */
  readonly id: number;
  readonly shape: readonly number[];
  readonly dtype: DType;
  /** Number of elements. */
  readonly size: number;
  /** Bytes of the storage that this tensor looks at. */
  readonly bytes: number;
  /** Equal for tensors that share a storage (views). */
  readonly storageId: number;
  readonly category: Category;
  readonly freed: boolean;
}

/** Live and peak bytes. */
export interface MemoryReport {
  /** Bytes alive now, by category. */
  readonly live: Readonly<Record<Category, number>>;
  /** For each category, the most bytes alive at any moment since the last `resetPeak`. */
  readonly peak: Readonly<Record<Category, number>>;
  readonly totalLive: number;
  /** The most bytes alive at one moment, all categories together (not the sum of `peak`). */
  readonly totalPeak: number;
  /** Tensors alive now. */
  readonly tensors: number;
  /** Of an engine that keeps buffers for the tensors to come: what it has taken from the device. */
  readonly held?: HeldMemory;
}

/** What an engine has taken from its device: the buffers of live tensors, which are somewhat larger than these, and buffers that wait. */
export interface HeldMemory {
  readonly buffers: number;
  /** Bytes of all of them. */
  readonly bytes: number;
  /** Of these, bytes of buffers that wait for their next tensor. */
  readonly idleBytes: number;
}

/**
 * Fixed-point encodings of SlimFit (SLIMFIT paper §3.2): code = clamp(roundHalfEven(x·2^b), lo, hi), value = code/2^b.
 * - `q3.4`: signed 8 bits, [−8, 7.9375], steps of 1/16: linear inputs, attention operands
 * - `q0.8`: unsigned 8 bits, [0, 255/256], steps of 1/256: attention probabilities
 * - `q2.1`: signed 4 bits, [−4, 3.5], steps of 1/2: GELU inputs
 * - `q7.0`, `q8.0`, `q3.0`: whole numbers of 8 bits, signed and unsigned, and of 4 bits, signed: what the row-scaled encodings are made of
 */
export type FixedPoint = 'q3.4' | 'q0.8' | 'q2.1' | 'q7.0' | 'q8.0' | 'q3.0';

/** What each fixed-point encoding is made of. */
export const FIXED_POINT: Readonly<Record<FixedPoint, { bits: 4 | 8; scale: number; lo: number; hi: number }>> = {
  'q3.4': { bits: 8, scale: 16, lo: -128, hi: 127 },
  'q0.8': { bits: 8, scale: 256, lo: 0, hi: 255 },
  'q2.1': { bits: 4, scale: 2, lo: -8, hi: 7 },
  'q7.0': { bits: 8, scale: 1, lo: -128, hi: 127 },
  'q8.0': { bits: 8, scale: 1, lo: 0, hi: 255 },
  'q3.0': { bits: 4, scale: 1, lo: -8, hi: 7 },
};

/**
 * Encodings whose step is a row's own: step = max(abs(row))/hi, code = roundHalfEven(x/step), value = code·step; a row is the last dimension. Nothing clips, whatever the range of the values, and the
 * error of an element is at most half a step; costs 4 bytes a row for the step.
 * - `q8-row`: signed 8 bits, codes in [−127, 127]: attention operands, linear inputs
 * - `u8-row`: unsigned 8 bits, codes in [0, 255]: attention probabilities
 * - `q4-row`: signed 4 bits, codes in [−7, 7]: GELU inputs
 */
export type RowScaled = 'q8-row' | 'u8-row' | 'q4-row';

/** The codes of each row-scaled encoding, and the largest one. */
export const ROW_SCALED: Readonly<Record<RowScaled, { codes: FixedPoint; hi: number }>> = {
  'q8-row': { codes: 'q7.0', hi: 127 },
  'u8-row': { codes: 'q8.0', hi: 255 },
  'q4-row': { codes: 'q3.0', hi: 7 },
};

/** Everything that `encode` writes. */
export type CodeEncoding = FixedPoint | RowScaled;

/** The fixed-point codes that an encoding is made of. */
export const codesOf = (encoding: CodeEncoding): FixedPoint => (encoding in ROW_SCALED ? ROW_SCALED[encoding as RowScaled].codes : (encoding as FixedPoint));

/**
 * A tensor in packed codes. The bytes of the codes lie in row-major order in little-endian int32 words, the last word filled up with zero bytes.
 * 8-bit codes: one byte an element (two's complement for signed ones). 4-bit codes: byte i = (code[i] + 8)·16 + (code[i + half] + 8), half =
 * ceil(size/2) (the authors' layout: first half of the flattened codes in the high nibble; a missing last element counts as code −8).
 */
export interface EncodedTensor {
  readonly encoding: CodeEncoding;
  /** Shape of the tensor that was encoded. */
  readonly shape: readonly number[];
  /** int32 [ceil(payloadBytes / 4)]. */
  readonly words: DeviceTensor;
  /** Bytes that carry codes; `words.bytes` minus this (0 to 3) is padding to the word. */
  readonly payloadBytes: number;
  /** Of a row-scaled encoding: the step of each row, float32 [rows, 1]. */
  readonly steps?: DeviceTensor;
}

/** The largest elements of a tensor, by absolute value; all others count as 0. */
export interface SparseTensor {
  readonly shape: readonly number[];
  /** float32 [k]. */
  readonly values: DeviceTensor;
  /** int32 [k], flat row-major positions, ascending. */
  readonly indices: DeviceTensor;
}

/** Names one draw of random numbers: equal keys give equal masks on one engine, on any shape of equal size. */
export interface RandomKey {
  /** 32-bit unsigned. */
  readonly seed: number;
  /** 32-bit unsigned; one number for each draw of a run. */
  readonly counter: number;
  /** Position in the draw of the tensor's first element: a block of a larger tensor gets the mask that it has there. Default 0. */
  readonly offset?: number;
}

/** Row statistics of a layer norm: each [N, 1] over rows of a [N, H] tensor. */
export interface RowStats {
  readonly mean: DeviceTensor;
  /** 1/sqrt(variance + eps). */
  readonly rstd: DeviceTensor;
}

/** Normalised rows in codes. */
export interface NormalizedCodes {
  readonly encoded: EncodedTensor;
  /** As of `RowStats`. */
  readonly rstd: DeviceTensor;
}

/** A parameter's optimizer state on the device. */
export interface AdamWState {
  readonly weight: DeviceTensor;
  /** First moment, same shape as the weight. */
  readonly m: DeviceTensor;
  /** Second moment, same shape as the weight. */
  readonly v: DeviceTensor;
}

/**
 * How far a step moved a weight, as one number:
 * - `mean-relative`: mean(abs((W_before − W_after)/W_before)), SlimFit's distance: the smallest weights decide it; NaN where a weight of 0 did not move, infinite where one did
 * - `relative-l2`: ‖W_before − W_after‖/‖W_before‖, the same for a weight of any scale, and finite: 1 where the step is larger than the weight was (a weight of zeros), 0 where nothing moved
 * - `loss-change`: abs(Σ g·(W_after − W_before)), how far the step moves the loss to first order: the function's movement instead of the weight's, comparable between weights of any size and scale
 */
export type UpdateMagnitude = 'mean-relative' | 'relative-l2' | 'loss-change';

/** All of them. */
export const UPDATE_MAGNITUDES: readonly UpdateMagnitude[] = ['mean-relative', 'relative-l2', 'loss-change'];

/** Numbers of one AdamW step. */
export interface AdamWOptions {
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** This parameter's own count of updates, this one included (from 1). */
  readonly step: number;
  /** Which update magnitude to compute; costs up to three transient tensors of the size of this one weight, where it is not fused with the step. */
  readonly magnitude: UpdateMagnitude | undefined;
}

/** Result of a loss: the mean over the counted elements, and its gradient. */
export interface LossResult {
  /** Scalar, shape []. */
  readonly loss: DeviceTensor;
  /** d loss / d input, same shape as the input. */
  readonly grad: DeviceTensor;
}

/** What attention is computed with, beside its operands. */
export interface AttentionSettings {
  /** A. */
  readonly heads: number;
  /** What scores are multiplied by. */
  readonly scale: number;
  /** Added to the scores: [B, 1, 1, T]. */
  readonly mask?: DeviceTensor;
  /** Drops probabilities, as `dropout` would those of [B, A, T, T]. */
  readonly dropout?: { readonly p: number; readonly key: RandomKey };
}

/** An operand of attention as backward has it: [B, T, H], or codes of as many values in rows of d. */
export type AttentionOperand = DeviceTensor | EncodedTensor;

/** Gradients of attention's operands, those that were asked for: [B, T, H]. */
export interface AttentionGradients {
  readonly dq?: DeviceTensor;
  readonly dk?: DeviceTensor;
  readonly dv?: DeviceTensor;
}

/** Options of `matmul`. */
export interface MatmulOptions {
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
}

/** Tensors on one device and what can be done with them. */
export interface Engine {
  readonly name: EngineName;
  /** What computes, for people: 'CPU (TensorFlow 2.21, oneDNN)', 'NVIDIA H200', … */
  readonly device: string;
  /** In what its matrix products are computed. Under `mixed` gradients need a loss scale, or small ones become 0: the trainer sees to it. */
  readonly precision: Precision;

  // ---- tensors ------------------------------------------------------------------------------------------------------
  /** Copies host values to the device. @throws ShapeError when the number of values is not that of the shape. */
  upload(data: Float32Array | Int32Array, shape: readonly number[], category?: Category): DeviceTensor;
  /** A tensor of equal values, float32. */
  full(shape: readonly number[], value: number, category?: Category): DeviceTensor;
  /** Copies values back to the host. The only operation that waits for the device. */
  read(tensor: DeviceTensor): Promise<Float32Array | Int32Array>;
  /** Replaces the values of a tensor that shares its storage with none. @throws ShapeError, InvalidArgumentError when other tensors would see it */
  write(tensor: DeviceTensor, data: Float32Array): void;
  /** Another tensor on the same storage, with its own owner and category. */
  share(tensor: DeviceTensor, category?: Category): DeviceTensor;
  /** A view in another shape of equal size. */
  reshape(tensor: DeviceTensor, shape: readonly number[]): DeviceTensor;
  /** Frees tensors. Freeing twice throws UseAfterFreeError. */
  free(...tensors: readonly DeviceTensor[]): void;
  /**
   * Runs `fn` and frees every workspace tensor made in it that is not in its result (a tensor, or an array or plain object of such, at any depth). Tensors of other
   * categories, and those made by an outer scope, stay. Also frees when `fn` throws.
   */
  scope<R>(fn: () => R): R;
  /** Runs `fn` as if it stood by itself; only when it throws, every workspace tensor that it made is freed. For long passes, whose tensors have owners of their own when all goes well. */
  attempt<R>(fn: () => R): R;
  /**
   * Compiles what `work` will need, side by side, before it is run: `work` is called once, its tensors have shapes but no values, nothing is computed or written, and it reads nothing. There only on engines that gain by it (WebGPU
   * on a GPU). @throws OutOfMemoryError as `work` itself would
   */
  warm?(work: () => void): Promise<void>;
  memory(): MemoryReport;
  /** Sets every peak to what is alive now. */
  resetPeak(): void;
  /** Frees everything and releases the device. */
  dispose(): void;

  // ---- primitives (broadcasting as in NumPy) ---------------------------------------------------------------------------
  add(a: DeviceTensor, b: DeviceTensor): DeviceTensor;
  sub(a: DeviceTensor, b: DeviceTensor): DeviceTensor;
  mul(a: DeviceTensor, b: DeviceTensor): DeviceTensor;
  div(a: DeviceTensor, b: DeviceTensor): DeviceTensor;
  /** a·scale + shift. */
  affine(a: DeviceTensor, scale: number, shift?: number): DeviceTensor;
  abs(a: DeviceTensor): DeviceTensor;
  sqrt(a: DeviceTensor): DeviceTensor;
  exp(a: DeviceTensor): DeviceTensor;
  log(a: DeviceTensor): DeviceTensor;
  tanh(a: DeviceTensor): DeviceTensor;
  erf(a: DeviceTensor): DeviceTensor;
  /** Sum over one axis (negative counts from the end), which stays with length 1 if `keepDims`. */
  sum(a: DeviceTensor, axis: number, keepDims?: boolean): DeviceTensor;
  mean(a: DeviceTensor, axis: number, keepDims?: boolean): DeviceTensor;
  /** Largest value over one axis. */
  max(a: DeviceTensor, axis: number, keepDims?: boolean): DeviceTensor;
  /** [..., M, K]·[..., K, N], leading dimensions equal; transposes swap the last two. */
  matmul(a: DeviceTensor, b: DeviceTensor, options?: MatmulOptions): DeviceTensor;
  transpose(a: DeviceTensor, perm: readonly number[]): DeviceTensor;
  slice(a: DeviceTensor, begin: readonly number[], size: readonly number[]): DeviceTensor;
  concat(parts: readonly DeviceTensor[], axis: number): DeviceTensor;
  /** Rows of `table` [V, ...], of its element type, by int32 `ids` (any shape): [...ids, ...]. Ids must lie in [0, V): not checked on the device. */
  gather(table: DeviceTensor, ids: DeviceTensor): DeviceTensor;
  /** out[ids[i]] += updates[i]: `updates` [n, ...], `ids` int32 [n] → [rows, ...]. Repeated ids add up. */
  scatterAdd(updates: DeviceTensor, ids: DeviceTensor, rows: number): DeviceTensor;
  /**
   * Replaces rows of a table in place: table[ids[i]] = rows[i]. `table` [V, ...] shares its storage with none; `rows` [n, ...] is of its element type; int32 `ids` [n] are distinct and in [0, V): not checked
   * on the device. @throws ShapeError, InvalidArgumentError when other tensors would see it
   */
  writeRows(table: DeviceTensor, ids: DeviceTensor, rows: DeviceTensor): void;

  // ---- linear: y = x·Wᵀ + b, x [..., K], W [O, K], b [O] ----------------------------------------------------------------
  linear(x: DeviceTensor, weight: DeviceTensor, bias?: DeviceTensor): DeviceTensor;
  /** dx = g·W: g [..., O] → [..., K]. */
  linearGradInput(grad: DeviceTensor, weight: DeviceTensor): DeviceTensor;
  /** dW = gᵀ·x over all leading dimensions: [O, K]. */
  linearGradWeight(grad: DeviceTensor, x: DeviceTensor): DeviceTensor;
  /** db = Σ g over all leading dimensions: [O]. */
  biasGrad(grad: DeviceTensor): DeviceTensor;

  // ---- activations -----------------------------------------------------------------------------------------------------
  /** x·Φ(x), exact (erf). */
  gelu(x: DeviceTensor): DeviceTensor;
  /** g·(Φ(x) + x·φ(x)). */
  geluGrad(grad: DeviceTensor, x: DeviceTensor): DeviceTensor;
  /** The same from a packed x. */
  geluGradEncoded(grad: DeviceTensor, x: EncodedTensor): DeviceTensor;
  /** g·(1 − y²), y = tanh(x). */
  tanhGrad(grad: DeviceTensor, y: DeviceTensor): DeviceTensor;

  // ---- layer norm over the last dimension, H ------------------------------------------------------------------------------
  /** y = (x − mean)·rstd·weight + bias. */
  layerNorm(x: DeviceTensor, weight: DeviceTensor, bias: DeviceTensor, eps: number): DeviceTensor;
  /** Mean and 1/sqrt(var + eps) of each row of x [..., H], as [N, 1]. */
  rowStats(x: DeviceTensor, eps: number): RowStats;
  /** ŷ = (x − mean)·rstd, the shape of x. */
  normalize(x: DeviceTensor, stats: RowStats): DeviceTensor;
  /**
   * From ŷ (normalised, before the affine) and rstd [N, 1]: with h = g·weight, dx = rstd·(h − mean(h) − mean(h·ŷ)·ŷ).
   * For the pruned ŷ of a frozen LayerNorm the same formula holds with the pruned values.
   */
  layerNormGradInput(grad: DeviceTensor, normalized: DeviceTensor, rstd: DeviceTensor, weight: DeviceTensor): DeviceTensor;
  /** Σ g·ŷ over all rows: [H]. */
  layerNormGradWeight(grad: DeviceTensor, normalized: DeviceTensor): DeviceTensor;
  /** The same input gradient, from a sparse ŷ. */
  layerNormGradInputSparse(grad: DeviceTensor, normalized: SparseTensor, rstd: DeviceTensor, weight: DeviceTensor): DeviceTensor;
  /** The same input gradient, from a packed ŷ. */
  layerNormGradInputEncoded(grad: DeviceTensor, normalized: EncodedTensor, rstd: DeviceTensor, weight: DeviceTensor): DeviceTensor;
  /** ŷ of x [..., H] in codes, and 1/sqrt(var + eps) of each row as [N, 1]. */
  normalizeEncoded(x: DeviceTensor, eps: number, encoding: CodeEncoding): NormalizedCodes;

  // ---- attention, per head: q, k, v [B, A, T, d] ----------------------------------------------------------------------------
  /** [B, T, H] → [B, A, T, d]. */
  splitHeads(x: DeviceTensor, heads: number): DeviceTensor;
  /** [B, A, T, d] → [B, T, H]. */
  mergeHeads(x: DeviceTensor): DeviceTensor;
  /** softmax(q·kᵀ·scale + mask) over the last dimension: [B, A, T, T]; mask [B, 1, 1, T] is added. */
  attentionProbs(q: DeviceTensor, k: DeviceTensor, scale: number, mask?: DeviceTensor): DeviceTensor;
  softmax(x: DeviceTensor): DeviceTensor;
  /** p∘(g − rowsum(g∘p)). */
  softmaxGrad(grad: DeviceTensor, probs: DeviceTensor): DeviceTensor;
  /**
   * Whether `attention` and `attentionGrad` of heads of that width, of a mask [B, 1, 1, T] or none, make no tensor of B·A·T² elements. Where they do, attention is better composed in blocks.
   */
  streamsAttention(headWidth: number): boolean;
  /** drop(softmax(q·kᵀ·scale + mask))·v in every head: q, k, v [B, T, H] → [B, T, H]. */
  attention(q: DeviceTensor, k: DeviceTensor, v: DeviceTensor, settings: AttentionSettings): DeviceTensor;
  /**
   * Gradients of `attention` from that of its result and its operands, from which the probabilities are computed again.
   * @param v may be left out where dv alone is wanted
   */
  attentionGrad(grad: DeviceTensor, q: AttentionOperand, k: AttentionOperand, v: AttentionOperand | undefined, settings: AttentionSettings, wanted: Readonly<Record<'dq' | 'dk' | 'dv', boolean>>): AttentionGradients;

  // ---- embeddings ----------------------------------------------------------------------------------------------------------
  /**
   * Gradient of a gathered table: grad [..., H], ids int32 of the leading shape → [rows, H]. The row `paddingIndex` gets none.
   */
  embeddingGrad(grad: DeviceTensor, ids: DeviceTensor, rows: number, paddingIndex?: number): DeviceTensor;

  // ---- dropout ---------------------------------------------------------------------------------------------------------------
  /**
   * x·mask/(1 − p), mask = 1 with probability 1 − p, from a counter-based stream: the same key draws the same mask, so that backward
   * applies it to the gradient without having kept it.
   */
  dropout(x: DeviceTensor, p: number, key: RandomKey): DeviceTensor;

  // ---- losses ------------------------------------------------------------------------------------------------------------------
  /**
   * Mean cross-entropy of logits [n, C] and int32 labels [n], over the rows whose label is not `ignoreIndex` (there must be one). Labels are checked by the caller, not on the
   * device.
   */
  crossEntropy(logits: DeviceTensor, labels: DeviceTensor, ignoreIndex?: number): LossResult;
  /** Mean of (x − target)² over all elements. */
  meanSquaredError(x: DeviceTensor, target: DeviceTensor): LossResult;

  // ---- encodings ---------------------------------------------------------------------------------------------------------------
  encode(x: DeviceTensor, encoding: CodeEncoding): EncodedTensor;
  /** float32, of the original shape; equal to the bit on every engine. */
  decode(x: EncodedTensor): DeviceTensor;
  /** The values times `weight` plus `bias`, both [H] over the last dimension. */
  decodeAffine(x: EncodedTensor, weight: DeviceTensor, bias: DeviceTensor): DeviceTensor;
  /** The `count` elements of largest absolute value of the whole tensor; of equal ones, those of lower index first. */
  topK(x: DeviceTensor, count: number): SparseTensor;
  /** The dense tensor, zero where nothing was kept. */
  densify(x: SparseTensor): DeviceTensor;

  // ---- optimizer ------------------------------------------------------------------------------------------------------------------
  /**
   * One AdamW step in the older Hugging Face form: m ← β1·m + (1−β1)·g; v ← β2·v + (1−β2)·g²; w ← w − lr·sqrt(1−β2ⁿ)/(1−β1ⁿ)·m/(sqrt(v)+eps);
   * **then** w ← w − lr·weightDecay·w. Replaces the values of `state` in place (same tensors, new values).
   * @returns with `magnitude`, a scalar tensor: that update magnitude; else undefined.
   */
  adamwStep(state: AdamWState, grad: DeviceTensor, options: AdamWOptions): DeviceTensor | undefined;
}
