/**
 * What every engine shares: the book-keeping of tensors, storages, scopes and bytes. An engine below says how a raw handle
 * (a tf.Tensor, an id of TensorFlow, a GPU buffer) is released; this class decides when.
 */
import { InvalidArgumentError, ShapeError, UseAfterFreeError } from '../errors';
import { formatBytes } from '../units';
import { CATEGORIES, type Category, type DeviceTensor, type DType, type EngineName, type MemoryReport, type Precision } from './engine';

/** Device memory that one or more tensors look at. */
interface Storage {
  readonly id: number;
  readonly bytes: number;
  /** How many live tensors of each category look at it. */
  readonly holders: Record<Category, number>;
  category: Category;
  refs: number;
}

/** The one implementation of DeviceTensor; `raw` is the engine's own handle. */
export class Handle<Raw> implements DeviceTensor {
  readonly size: number;
  freed = false;
  /** The tensors of the scope that frees this one; undefined for one that belongs to none. */
  scope: Set<Handle<Raw>> | undefined;
  constructor(
    /** The engine that it belongs to. */
    readonly engine: BaseEngine<Raw>,
    readonly id: number,
    readonly shape: readonly number[],
    readonly dtype: DType,
    readonly category: Category,
    public raw: Raw,
    public storage: Storage,
  ) {
    this.size = sizeOf(shape);
  }
  get bytes(): number {
    return this.storage.bytes;
  }
  get storageId(): number {
    return this.storage.id;
  }
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (let i = 0; i < shape.length; i++) size *= shape[i];
  return size;
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Shape of a NumPy broadcast. @throws ShapeError */
export function broadcast(a: readonly number[], b: readonly number[]): readonly number[] {
  if (b.length === 0 || sameShape(a, b)) return a;
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1;
    const y = b[i - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) throw new ShapeError(`shapes [${a}] and [${b}] do not broadcast`);
    return x === 1 ? y : x;
  });
}

const zero = (): Record<Category, number> => ({ weights: 0, optimizer: 0, gradients: 0, activations: 0, workspace: 0 });

/** Tensors, storages, scopes and bytes. `Raw` is the engine's own handle of a tensor. */
export abstract class BaseEngine<Raw> {
  abstract readonly name: EngineName;
  abstract readonly device: string;
  readonly precision: Precision = 'float32';
  private nextId = 1;
  private readonly alive = new Set<Handle<Raw>>();
  private readonly scopes: Set<Handle<Raw>>[] = [];
  private readonly liveBytes = zero();
  private readonly peakBytes = zero();
  private totalLive = 0;
  private totalPeak = 0;

  /** Gives a raw handle back to the device. */
  protected abstract release(raw: Raw): void;
  /** A raw handle in another shape on the same memory as `raw`. */
  protected abstract rawView(raw: Raw, shape: readonly number[], dtype: DType): Raw;

  /** Enters a fresh raw handle into the books as a tensor with a storage of its own. */
  protected own(raw: Raw, shape: readonly number[], dtype: DType = 'float32', category: Category = 'workspace'): DeviceTensor {
    const storage: Storage = { id: this.nextId++, bytes: 4 * sizeOf(shape), holders: zero(), category, refs: 0 };
    return this.enter(raw, shape, dtype, category, storage);
  }

  /** The raw handle of a live tensor of this engine. @throws UseAfterFreeError, InvalidArgumentError for another engine's tensor. */
  protected raw(tensor: DeviceTensor): Raw {
    return this.handle(tensor).raw;
  }

  /** Replaces the values of a tensor: the new raw handle takes the place of the old one, which is released. Shape and bytes stay. */
  protected replaceRaw(tensor: DeviceTensor, raw: Raw): void {
    this.checkUpdatable(tensor);
    const old = this.raw(tensor);
    this.setRaw(tensor, raw);
    this.release(old);
  }

  /** Gives a tensor another raw handle. The old one is the caller's. */
  protected setRaw(tensor: DeviceTensor, raw: Raw): void {
    this.handle(tensor).raw = raw;
  }

  /** @throws InvalidArgumentError when other tensors would see an update in place */
  protected checkUpdatable(tensor: DeviceTensor): void {
    const { id, shape, storage } = this.handle(tensor);
    if (storage.refs !== 1) throw new InvalidArgumentError(`cannot update tensor ${id} [${shape}] in place: ${storage.refs - 1} other tensors share its storage`);
  }

  share(tensor: DeviceTensor, category: Category = 'workspace'): DeviceTensor {
    const h = this.handle(tensor);
    return this.enter(this.rawView(h.raw, h.shape, h.dtype), h.shape, h.dtype, category, h.storage);
  }

  reshape(tensor: DeviceTensor, shape: readonly number[]): DeviceTensor {
    const h = this.handle(tensor);
    if (sizeOf(shape) !== h.size) throw new ShapeError(`cannot reshape [${h.shape}] (${h.size} elements) to [${shape}]`);
    return this.enter(this.rawView(h.raw, shape, h.dtype), shape, h.dtype, 'workspace', h.storage);
  }

  free(...tensors: readonly DeviceTensor[]): void {
    for (const t of tensors) {
      const h = this.handle(t);
      h.freed = true;
      this.alive.delete(h);
      h.scope?.delete(h);
      const st = h.storage;
      st.holders[h.category]--;
      st.refs--;
      if (st.refs === 0) this.count(st.category, -st.bytes);
      else this.recategorize(st);
      this.release(h.raw);
    }
  }

  scope<R>(fn: () => R): R {
    const made = new Set<Handle<Raw>>();
    this.scopes.push(made);
    let result: R;
    try {
      result = fn();
    } catch (error) {
      this.scopes.pop();
      for (const h of made) if (h.category === 'workspace') this.free(h);
      throw error;
    }
    this.scopes.pop();
    if (made.size === 0) return result;
    const kept = new Set<unknown>();
    collect(result, kept);
    const outer = this.scopes.at(-1);
    for (const h of made) {
      h.scope = undefined;
      if (kept.has(h)) hold(outer, h);
      else if (h.category === 'workspace') this.free(h);
    }
    return result;
  }

  attempt<R>(fn: () => R): R {
    const made = new Set<Handle<Raw>>();
    this.scopes.push(made);
    try {
      const result = fn();
      this.scopes.pop();
      const outer = this.scopes.at(-1);
      for (const h of made) hold(outer, h);
      return result;
    } catch (error) {
      this.scopes.pop();
      for (const h of made) if (h.category === 'workspace') this.free(h);
      throw error;
    }
  }

  memory(): MemoryReport {
    return {
      live: { ...this.liveBytes },
      peak: { ...this.peakBytes },
      totalLive: this.totalLive,
      totalPeak: this.totalPeak,
      tensors: this.alive.size,
    };
  }

  resetPeak(): void {
    Object.assign(this.peakBytes, this.liveBytes);
    this.totalPeak = this.totalLive;
  }

  dispose(): void {
    this.free(...this.alive);
  }

  /** What Jupyter shows: what computes, and bytes by category. */
  [Symbol.for('Jupyter.display')](): Record<string, string> {
    const { live, peak, totalLive, totalPeak, tensors, held } = this.memory();
    const rows = [...CATEGORIES.map((c) => [c, live[c], peak[c]] as const), ['all together', totalLive, totalPeak] as const];
    const lines = [
      `${this.name} on ${this.device}: ${tensors} tensor${tensors === 1 ? '' : 's'}`,
      `${''.padEnd(14)}${'now'.padStart(10)}${'at most'.padStart(12)}`,
      ...rows.map(([what, now, most]) => `${what.padEnd(14)}${formatBytes(now).padStart(10)}${formatBytes(most).padStart(12)}`),
      ...(held ? [`It holds ${formatBytes(held.bytes)} of the device in ${held.buffers} buffer${held.buffers === 1 ? '' : 's'}; ${formatBytes(held.idleBytes)} wait for tensors to come.`] : []),
    ];
    return { 'text/plain': lines.join('\n') };
  }

  private handle(tensor: DeviceTensor): Handle<Raw> {
    const h = tensor as Handle<Raw>;
    if (h.freed) throw new UseAfterFreeError(`tensor ${h.id} [${h.shape}] (${h.category}) was freed before this use`);
    if (h.engine !== this) throw new InvalidArgumentError(`tensor ${h.id} [${h.shape}] belongs to another engine`);
    return h;
  }

  private enter(raw: Raw, shape: readonly number[], dtype: DType, category: Category, storage: Storage): DeviceTensor {
    const h = new Handle<Raw>(this, this.nextId++, shape, dtype, category, raw, storage);
    storage.holders[category]++;
    storage.refs++;
    if (storage.refs === 1) this.count(storage.category, storage.bytes);
    else this.recategorize(storage);
    this.alive.add(h);
    hold(this.scopes.at(-1), h);
    return h;
  }

  /** A storage counts for the first category that any of its tensors has. */
  private recategorize(storage: Storage): void {
    const category = CATEGORIES.find((c) => storage.holders[c] > 0)!;
    if (category === storage.category) return;
    this.count(storage.category, -storage.bytes);
    storage.category = category;
    this.count(category, storage.bytes);
  }

  private count(category: Category, bytes: number): void {
    this.liveBytes[category] += bytes;
    this.totalLive += bytes;
    if (this.liveBytes[category] > this.peakBytes[category]) this.peakBytes[category] = this.liveBytes[category];
    if (this.totalLive > this.totalPeak) this.totalPeak = this.totalLive;
  }
}

/** Makes a scope, or none, the one that frees a tensor. */
function hold<Raw>(scope: Set<Handle<Raw>> | undefined, h: Handle<Raw>): void {
  h.scope = scope;
  scope?.add(h);
}

/** Every object reachable through arrays and plain objects. */
function collect(value: unknown, into: Set<unknown>): void {
  if (value === null || typeof value !== 'object' || into.has(value)) return;
  into.add(value);
  if (value instanceof Handle) return;
  if (Array.isArray(value)) for (const v of value) collect(v, into);
  else if (Object.getPrototypeOf(value) === Object.prototype) for (const v of Object.values(value)) collect(v, into);
}
