/**
 * The tape: reverse-mode differentiation by closures over parts of a transformer (not over scalar operations).
 *
 * A part computes its output, asks the tape for a variable of it, and, if that variable needs a gradient, keeps exactly what its
 * backward will read (`keep`, which the ledger notes) and leaves a closure. `backward` runs the closures in reverse; what a
 * closure kept is freed as soon as it has run, and each weight gradient is handed over and freed as soon as it is complete.
 * So a layer that does not train costs no memory for its input, and nothing at all is kept below the lowest part that trains.
 */
import { InvalidArgumentError } from '../errors';
import { type CodeEncoding, type DeviceTensor, type EncodedTensor, type Engine, FIXED_POINT, type FixedPoint, type SparseTensor } from '../engine/engine';
import { type EncodingError, encodingError, encodingErrorSums } from './encodingError';
import { ActivationLedger } from './ledger';
import type { Parameter } from './parameter';
import type { ActivationRole, CoursePoint, LedgerEntry } from './roles';

/** A value that flows through the model. A plain object, so that `engine.scope` sees the tensor in it. */
export interface Variable {
  readonly tensor: DeviceTensor;
  readonly needsGrad: boolean;
}

/** Who keeps an activation, and why. */
export interface KeepReason {
  readonly layer: string;
  readonly what: string;
  readonly role: ActivationRole;
}

/** A kept activation: `load` gives its float32 values back as a workspace tensor of the caller's scope. */
export interface Kept {
  load(): DeviceTensor;
  readonly tensors: readonly DeviceTensor[];
}

/** A kept activation in packed codes; operations that can read codes take `encoded`. */
export interface KeptEncoded extends Kept {
  readonly encoded: EncodedTensor;
}

/** A kept pruned activation. */
export interface KeptSparse extends Kept {
  readonly sparse: SparseTensor;
}

/** An activation that is kept piece by piece and never there as a whole: the pieces are those of its flattened values, in their order. */
export interface KeptPieces {
  /** Keeps the next piece as `keep` would. Its tensor stays the caller's. */
  add(piece: DeviceTensor): void;
  /** A piece: its values, or its codes where it has some. */
  piece(index: number): Kept | KeptEncoded;
  /** Frees a piece that backward has done with; the rest goes when its closure has run. */
  release(index: number): void;
}

/** Gradients of a closure's inputs, in their order; undefined for an input that needs none. The incoming gradient may be freed before the closure returns. */
export type Backward = (grad: DeviceTensor) => readonly (DeviceTensor | undefined)[];

/** Takes the finished gradient of one parameter. The tape frees the gradient afterwards. */
export type GradientSink = (parameter: Parameter, grad: DeviceTensor) => void;

/** A kept activation and the module that keeps it. */
interface Holding {
  readonly kept: Pick<Kept, 'tensors'>;
  readonly layer: string;
}

/** Codes that are kept, and what turns them into the values of a tensor: nothing where they are its own. */
interface Codes {
  readonly encoded: EncodedTensor;
  readonly from?: (codes: EncodedTensor) => DeviceTensor;
}

const codesKey = (tensor: DeviceTensor, encoding: CodeEncoding) => `${tensor.storageId} ${encoding} ${tensor.shape.join()}`;

interface Entry {
  readonly output: Variable;
  readonly inputs: readonly Variable[];
  readonly parameters: readonly Parameter[];
  readonly kept: readonly Holding[];
  readonly run: Backward;
}

/** What a tape records beside what backward needs. */
export interface TapeOptions {
  /** false for evaluation: nothing needs a gradient, nothing is kept. Default true. */
  readonly recording?: boolean;
  /** Whether to measure what each encoding does to its values. Default false. */
  readonly measuring?: boolean;
  /** Shown the output of every part that has parameters, once for each of them, while it is computed. */
  readonly watch?: (parameter: Parameter, output: DeviceTensor) => void;
  /** Tape of the pass that this one repeats a part of: kept bytes and the course of the step are counted in common, the list of what is kept is apart; measures where that one does. */
  readonly within?: Tape;
}

/** One forward pass and its backward. */
export class Tape {
  readonly ledger: ActivationLedger;
  /** Bytes alive after each activation that was kept or let go, in the order of the step. */
  readonly course: CoursePoint[];
  readonly measuring: boolean;
  private readonly recording: boolean;
  private readonly watch: TapeOptions['watch'];
  private readonly within: Tape | undefined;
  private readonly measured: Map<LedgerEntry, { readonly size: number; readonly sums: DeviceTensor }>;
  private readonly entries: Entry[] = [];
  private readonly grads = new Map<Variable, DeviceTensor>();
  /** Parameters in use: how many closures still owe them a gradient, and the sum so far. */
  private readonly pending = new Map<Parameter, { owed: number; sum: DeviceTensor | undefined }>();
  private keptNow: Holding[] = [];
  /** Codes that forward has kept already, by the tensor whose values they give (`codesKey`). */
  private readonly codes = new Map<string, Codes>();
  private readonly held: DeviceTensor[] = [];
  private sink: GradientSink | undefined;

  constructor(
    readonly engine: Engine,
    { recording = true, within, measuring = within?.measuring ?? false, watch }: TapeOptions = {},
  ) {
    this.recording = recording;
    this.measuring = measuring;
    this.watch = watch;
    this.within = within;
    this.ledger = new ActivationLedger(within?.ledger);
    this.course = within?.course ?? [];
    this.measured = within?.measured ?? new Map();
  }

  /** A value that no gradient flows into (ids, masks, pixels). */
  constant(tensor: DeviceTensor): Variable {
    return { tensor, needsGrad: false };
  }

  /** Whether what a part makes of these needs a gradient: when an input does or one of the part's parameters trains. */
  needsGrad(inputs: readonly Variable[], parameters: readonly Parameter[] = []): boolean {
    return this.recording && (inputs.some((v) => v.needsGrad) || parameters.some((p) => p.trains));
  }

  /** A part's output. */
  variable(tensor: DeviceTensor, inputs: readonly Variable[], parameters: readonly Parameter[] = []): Variable {
    if (this.watch) for (const p of parameters) this.watch(p, tensor);
    return { tensor, needsGrad: this.needsGrad(inputs, parameters) };
  }

  /** Keeps a tensor for the closure that is recorded next, as float32 or in codes. The tensor itself stays the caller's. */
  keep(tensor: DeviceTensor, reason: KeepReason): Kept;
  keep(tensor: DeviceTensor, reason: KeepReason, encoding: CodeEncoding): KeptEncoded;
  keep(tensor: DeviceTensor, reason: KeepReason, encoding: CodeEncoding | 'float32'): Kept;
  keep(tensor: DeviceTensor, reason: KeepReason, encoding: CodeEncoding | 'float32' = 'float32'): Kept {
    const { kept, padding } = this.hold(tensor, encoding);
    return this.note({ ...reason, encoding: encoding === 'float32' ? tensor.dtype : encoding, shape: tensor.shape, padding }, kept, encoding === 'float32' ? undefined : tensor);
  }

  /** As `keep`, of codes that an operation has made; they are taken over. @param original gives the tensor that was encoded, for measuring */
  keepEncoded(codes: EncodedTensor, reason: KeepReason, original: () => DeviceTensor): KeptEncoded {
    const { engine } = this;
    const { kept, padding } = this.takeOver(codes);
    const entry = { ...reason, encoding: codes.encoding, shape: codes.shape, padding };
    return this.measuring ? engine.scope(() => this.note(entry, kept, original())) : this.note(entry, kept);
  }

  /**
   * As `keep`, for a tensor that several parts read: codes that one of them keeps already, or that give its values (`offerCodes`), serve the others too and count for the first.
   */
  keepShared(tensor: DeviceTensor, reason: KeepReason, encoding: CodeEncoding | 'float32'): Kept {
    if (encoding === 'float32') return this.keep(tensor, reason);
    const { engine } = this;
    const there = this.codes.get(codesKey(tensor, encoding));
    if (!there) {
      const kept = this.keep(tensor, reason, encoding);
      this.codes.set(codesKey(tensor, encoding), { encoded: kept.encoded });
      return kept;
    }
    const { from } = there;
    const own = (t: DeviceTensor) => engine.share(t, 'activations');
    const encoded: EncodedTensor = { ...there.encoded, words: own(there.encoded.words), ...(there.encoded.steps && { steps: own(there.encoded.steps) }) };
    const kept: Kept = {
      tensors: encoded.steps ? [encoded.words, encoded.steps] : [encoded.words],
      load: () => (from ? engine.scope(() => from(encoded)) : engine.decode(encoded)),
    };
    return this.note({ ...reason, encoding, shape: tensor.shape, padding: 0 }, kept, tensor);
  }

  /** Says that what was kept gives the values of another tensor too, by `from`: until backward, `keepShared` of that tensor under the same encoding keeps nothing more. */
  offerCodes(tensor: DeviceTensor, { encoded }: KeptEncoded, from: (codes: EncodedTensor) => DeviceTensor): void {
    this.codes.set(codesKey(tensor, encoded.encoding), { encoded, from });
  }

  /** Keeps a tensor that is never there as a whole, for the closure that is recorded next: one entry of the ledger, however many pieces there will be. @param shape of the whole */
  keepPieces(reason: KeepReason, encoding: CodeEncoding | 'float32', shape: readonly number[]): KeptPieces {
    const pieces: Kept[] = [];
    const tensors: DeviceTensor[] = [];
    const entry = this.ledger.add({ ...reason, encoding, shape, padding: 0 }, tensors);
    this.keptNow.push({ kept: { tensors }, layer: reason.layer });
    return {
      add: (piece) => {
        const { kept, padding } = this.hold(piece, encoding);
        pieces.push(kept);
        tensors.push(...kept.tensors);
        this.ledger.extend(entry, kept.tensors, padding);
        this.markKept(reason.layer);
        if (this.measuring && encoding !== 'float32') this.measure(entry, kept, piece);
      },
      piece: (index) => pieces[index],
      release: (index) => {
        const gone = pieces[index].tensors;
        tensors.splice(0, tensors.length, ...tensors.filter((t) => !gone.includes(t)));
        this.drop([{ kept: { tensors: gone }, layer: reason.layer }]);
      },
    };
  }

  /** A tensor as it is kept, and the bytes of that which only fill up a word. */
  private hold(tensor: DeviceTensor, encoding: CodeEncoding | 'float32'): { kept: Kept; padding: number } {
    const { engine } = this;
    if (encoding === 'float32') {
      const held = engine.share(tensor, 'activations');
      return { kept: { tensors: [held], load: () => engine.share(held) }, padding: 0 };
    }
    return this.takeOver(engine.encode(tensor, encoding));
  }

  /** Fresh codes as they are kept. */
  private takeOver(fresh: EncodedTensor): { kept: KeptEncoded; padding: number } {
    const { engine } = this;
    const own = (t: DeviceTensor) => {
      const held = engine.share(t, 'activations');
      engine.free(t);
      return held;
    };
    const words = own(fresh.words);
    const encoded: EncodedTensor = { ...fresh, words, ...(fresh.steps && { steps: own(fresh.steps) }) };
    const kept: KeptEncoded = { tensors: encoded.steps ? [words, encoded.steps] : [words], encoded, load: () => engine.decode(encoded) };
    return { kept, padding: words.bytes - fresh.payloadBytes };
  }

  /** Keeps the `count` largest elements by absolute value. */
  keepLargest(tensor: DeviceTensor, count: number, reason: KeepReason): KeptSparse {
    const { engine } = this;
    const fresh = engine.topK(tensor, count);
    const sparse: SparseTensor = {
      shape: tensor.shape,
      values: engine.share(fresh.values, 'activations'),
      indices: engine.share(fresh.indices, 'activations'),
    };
    engine.free(fresh.values, fresh.indices);
    const kept: KeptSparse = { tensors: [sparse.values, sparse.indices], sparse, load: () => engine.densify(sparse) };
    return this.note({ ...reason, encoding: 'top10', shape: tensor.shape, padding: 0 }, kept, tensor);
  }

  /** Hands over a tensor that is no activation (a loss's own gradient) but must live until the tape is done. */
  holdUntilBackward(tensor: DeviceTensor): void {
    this.held.push(tensor);
  }

  /** Leaves the closure that gives the inputs' gradients; it owns everything kept since the last call. `parameters` are those it calls `accumulate` for. */
  record(output: Variable, inputs: readonly Variable[], parameters: readonly Parameter[], run: Backward): void {
    for (const p of parameters) {
      if (!p.trains) continue;
      const state = this.pending.get(p) ?? { owed: 0, sum: undefined };
      state.owed++;
      this.pending.set(p, state);
    }
    this.entries.push({ output, inputs, parameters, kept: this.keptNow, run });
    this.keptNow = [];
  }

  /** Adds to a parameter's gradient, from inside a closure; the last of the closures that use the parameter completes it. */
  accumulate(parameter: Parameter, grad: DeviceTensor): void {
    const state = this.pending.get(parameter);
    if (!state || !this.sink) throw new InvalidArgumentError(`no gradient of ${parameter.name} was announced with record()`);
    const { engine } = this;
    const held = state.sum
      ? engine.scope(() => engine.share(engine.add(state.sum!, grad), 'gradients'))
      : engine.share(grad, 'gradients');
    if (state.sum) engine.free(state.sum);
    state.sum = held;
    state.owed--;
    this.complete(parameter, state);
  }

  /** Hands a gradient on that no closure adds to any more. */
  private complete(parameter: Parameter, { owed, sum }: { owed: number; sum: DeviceTensor | undefined }): void {
    if (owed > 0) return;
    this.pending.delete(parameter);
    if (!sum) return;
    try {
      this.sink!(parameter, sum);
    } finally {
      this.engine.free(sum);
    }
  }

  /** A part whose output does not reach the loss adds nothing to its parameters' gradients. */
  private forgo(parameters: readonly Parameter[]): void {
    for (const p of parameters) {
      const state = this.pending.get(p);
      if (!state) continue;
      state.owed--;
      this.complete(p, state);
    }
  }

  /** Runs all closures in reverse from a scalar loss. Afterwards nothing that the tape kept is alive. */
  backward(loss: Variable, sink: GradientSink): void {
    if (!loss.needsGrad) return this.dispose();
    this.grads.set(loss, this.engine.full([], 1));
    this.unwind(sink);
  }

  /**
   * Runs all closures in reverse from the output of a part of a model. Afterwards nothing that the tape kept is alive.
   * @param grad gradient of the output; taken over, and freed as soon as it was used
   * @param input the part's input: a variable that no closure of this tape has for its output
   * @returns the input's gradient, the caller's; undefined if it needs none
   */
  backwardFrom(output: Variable, grad: DeviceTensor, input: Variable, sink: GradientSink): DeviceTensor | undefined {
    this.grads.set(output, grad);
    return this.unwind(sink, input);
  }

  private unwind(sink: GradientSink, input?: Variable): DeviceTensor | undefined {
    const { engine, grads } = this;
    this.sink = sink;
    this.codes.clear();
    try {
      for (let entry = this.entries.pop(); entry; entry = this.entries.pop()) {
        const { output, inputs, parameters, kept, run } = entry;
        const grad = grads.get(output);
        grads.delete(output);
        try {
          if (grad) {
            let inputGrads: ReturnType<Backward>;
            try {
              inputGrads = engine.scope(() => run(grad));
            } finally {
              if (!grad.freed) engine.free(grad);
            }
            inputGrads.forEach((g, i) => g && this.addGrad(inputs[i], g));
          } else this.forgo(parameters);
        } finally {
          this.drop(kept);
        }
        if (kept.length > 0) this.mark('backward', kept[0].layer);
      }
      const inputGrad = input && grads.get(input);
      if (inputGrad) grads.delete(input);
      return inputGrad;
    } finally {
      this.sink = undefined;
      this.dispose();
    }
  }

  /** Reads what was measured of the encodings; empty when this tape does not measure. */
  async readEncodingErrors(): Promise<EncodingError[]> {
    const { engine, measured } = this;
    if (measured.size === 0) return [];
    const all = engine.concat(
      [...measured.values()].map((m) => m.sums),
      0,
    );
    let values: Float32Array | Int32Array;
    try {
      values = await engine.read(all);
    } finally {
      engine.free(all);
    }
    return [...measured].map(([{ layer, what, encoding }, { size }], i) => encodingError({ layer, what, encoding }, size, values.subarray(4 * i, 4 * i + 4)));
  }

  /** Frees everything that is still kept. For a forward pass whose backward will not run. */
  dispose(): void {
    this.codes.clear();
    for (const e of this.entries.splice(0)) this.drop(e.kept);
    this.drop(this.keptNow);
    this.keptNow = [];
    // What a failed pass made in a scope, or in `attempt`, is gone already.
    this.engine.free(...[...this.grads.values()].filter((g) => !g.freed));
    this.grads.clear();
    for (const p of this.pending.values()) if (p.sum) this.engine.free(p.sum);
    this.pending.clear();
    this.engine.free(...this.held.splice(0).filter((t) => !t.freed));
    // What was measured is read from the tape of the whole pass.
    if (this.within) return;
    this.engine.free(...[...this.measured.values()].map((m) => m.sums));
    this.measured.clear();
  }

  /** @param original the values that `kept` stands for, when it is not they themselves */
  private note<K extends Kept>(entry: Omit<LedgerEntry, 'bytes'>, kept: K, original?: DeviceTensor): K {
    const noted = this.ledger.add(entry, kept.tensors);
    this.keptNow.push({ kept, layer: entry.layer });
    this.markKept(entry.layer);
    if (this.measuring && original) this.measure(noted, kept, original);
    return kept;
  }

  private measure(of: LedgerEntry, kept: Kept, original: DeviceTensor): void {
    const { engine, measured } = this;
    const code = of.encoding in FIXED_POINT ? (of.encoding as FixedPoint) : undefined;
    const before = measured.get(of);
    // Of a category that no scope frees.
    const sums = engine.scope(() => {
      const own = encodingErrorSums(engine, original, kept.load(), code);
      return engine.share(before ? engine.add(before.sums, own) : own, 'activations');
    });
    if (before) engine.free(before.sums);
    measured.set(of, { size: (before?.size ?? 0) + original.size, sums });
  }

  private drop(holdings: readonly Holding[]): void {
    for (const { kept } of holdings) {
      this.ledger.remove(kept.tensors);
      this.engine.free(...kept.tensors);
    }
  }

  private markKept(layer: string): void {
    this.mark(this.within ? 'recompute' : 'forward', layer);
  }

  private mark(phase: CoursePoint['phase'], layer: string): void {
    this.course.push({ phase, layer, activationBytes: this.ledger.liveBytes, deviceBytes: this.engine.memory().totalLive });
  }

  private addGrad(variable: Variable, grad: DeviceTensor): void {
    const { engine, grads } = this;
    if (!variable.needsGrad) return engine.free(grad);
    const sum = grads.get(variable);
    if (!sum) return void grads.set(variable, grad);
    grads.set(variable, engine.add(sum, grad));
    engine.free(sum, grad);
  }
}
