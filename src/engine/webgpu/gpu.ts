/**
 * Work for the device: pipelines compiled once, bind groups kept with their buffers, dispatches recorded into one command encoder and submitted in batches. Parameters travel as immediate data, so that a
 * dispatch makes no buffer: it costs four calls into Dawn.
 */
import { DeviceLostError, OutOfMemoryError } from '../../errors';
import { BufferPool, GPU_BUFFER, lost, type PoolCounts, type Slot, sizeClass } from './bufferPool';
import type { OpenedDevice } from './dawn';
import { type Kernel, MAX_PARAMS, wgsl } from './kernel';

/** How many dispatches are recorded before they are submitted: enough to hide what a submission costs, few enough that the device starts early. */
const BATCH = 64;

/** The most bind groups that are kept. A step of a large model uses about two thousand; another choice of frozen layers brings others. */
export const MOST_BIND_GROUPS = 16_384;

/** A kernel that is compiled. */
interface Compiled {
  readonly pipeline: GPUComputePipeline;
  readonly layout: Layout;
  /** Whether each parameter is a float. */
  readonly floats: readonly boolean[];
}

/** How many buffers a kernel reads and writes: kernels of equal counts share bind groups. */
interface Layout {
  /** Unique; what hashes of its bind groups start with. */
  readonly id: number;
  readonly group: GPUBindGroupLayout;
  readonly pipeline: GPUPipelineLayout;
}

/** A bind group that is kept, and the next one of equal hash. */
export interface KeptGroup {
  readonly hash: number;
  readonly layout: Layout;
  readonly slots: readonly Slot[];
  readonly group: GPUBindGroup;
  next: KeptGroup | undefined;
}

/** Counts of everything that could grow. */
export interface GpuCounts extends PoolCounts {
  readonly pipelines: number;
  readonly bindGroups: number;
  readonly bindGroupsMade: number;
  readonly stagingBuffers: number;
  readonly dispatches: number;
  readonly submissions: number;
}

/** For measurements. */
export interface GpuOptions {
  /** Whether buffers and bind groups are found again; else each is made when it is needed. Default true. */
  readonly reuse?: boolean;
  /** Whether `warm` compiles ahead. Default: on a GPU, whose driver compiles on many threads; a software driver needs them for itself. */
  readonly warms?: boolean;
}

/** Whether a bind group is of these buffers, in this order. */
function holds({ layout, slots }: KeptGroup, of: Layout, reads: readonly Slot[], writes: readonly Slot[]): boolean {
  if (layout !== of) return false;
  for (let i = 0; i < reads.length; i++) if (slots[i] !== reads[i]) return false;
  for (let i = 0; i < writes.length; i++) if (slots[reads.length + i] !== writes[i]) return false;
  return true;
}

/** One device, its memory, and the commands under way. */
export class Gpu {
  readonly pool: BufferPool;
  private readonly device: GPUDevice;
  /** The most workgroups along one dimension. */
  private readonly mostGroups: number;
  private readonly compiled = new Map<string, Compiled>();
  /** While `warm` looks on: the kernels that are not compiled yet. Nothing is recorded then. */
  private met: Map<string, Kernel> | undefined;
  private readonly layouts = new Map<string, Layout>();
  /** By a hash of layout and buffers: a key that is a text would cost more to write than everything else does that finds a bind group. */
  private readonly bindGroups = new Map<number, KeptGroup>();
  private bindGroupCount = 0;
  private readonly staging = new Map<number, GPUBuffer[]>();
  /** Buffers to destroy as soon as no unsubmitted command uses them. */
  private condemned: GPUBuffer[] = [];
  private encoder: GPUCommandEncoder | undefined;
  private pass: GPUComputePassEncoder | undefined;
  /** What is set in the pass: pipeline, bind group, and so many words of parameters. */
  private current: GPUComputePipeline | undefined;
  private bound: GPUBindGroup | undefined;
  private set = 0;
  /** Number of the batch that is being recorded. */
  private batch = 1;
  private recorded = 0;
  private readonly words = new ArrayBuffer(4 * MAX_PARAMS);
  private readonly wordsU32 = new Uint32Array(this.words);
  private readonly scratchF32 = new Float32Array(1);
  private readonly scratchU32 = new Uint32Array(this.scratchF32.buffer);
  /**
   * On the device, how many batches were done. A batch that uses a buffer that the device had no memory for is dropped as a whole, and that is known only later; since this number then lags behind `begun`,
   * updates in place see it and leave the weights as they are.
   */
  private readonly done: Slot;
  private begun = 0;
  /** The last batch that counts itself. */
  private counted = 0;
  private lostInfo: GPUDeviceLostInfo | undefined;
  private failure: string | undefined;
  /** Scopes of batches that are not answered yet. */
  private readonly scopes = new Set<Promise<void>>();
  /** How often the device refused a buffer. */
  private refusals = 0;
  private closed = false;
  private counters = { bindGroupsMade: 0, stagingBuffers: 0, dispatches: 0, submissions: 0 };

  constructor(
    private readonly opened: OpenedDevice,
    { reuse = true }: GpuOptions = {},
  ) {
    this.device = opened.device;
    this.mostGroups = this.device.limits.maxComputeWorkgroupsPerDimension;
    this.pool = new BufferPool(this.device, (slot) => this.drop(slot), reuse);
    void this.device.lost.then((info) => (this.lostInfo = info));
    this.done = this.pool.take(4);
    this.device.onuncapturederror = ({ error }) => void (this.failure ??= error.message);
  }

  /** @throws DeviceLostError, OutOfMemoryError when the device is known to have refused a buffer since the last call */
  check(): void {
    if (this.lostInfo && !this.closed) throw lost(this.opened.name, this.lostInfo);
    const refused = this.pool.takeRefusal();
    if (!refused) return;
    this.flush();
    this.failure = undefined;
    this.refusals++;
    // What was lost is told; from here on updates count again.
    this.device.queue.writeBuffer(this.done.buffer, 0, Uint32Array.of(this.begun));
    throw refused;
  }

  /** For updates in place, which must not use what a dropped batch left out: a buffer and the number that it holds unless one was dropped. The update is recorded next. */
  nothingLost(): { readonly done: Slot; readonly begun: number } {
    this.begin();
    return { done: this.done, begun: this.begun };
  }

  /**
   * The encoder of the batch under way. What goes wrong in a batch is caught by a scope of its own: Dawn would write each error of a batch that uses a buffer which the device had no memory for to the
   * terminal, dozens of them.
   */
  private open(): GPUCommandEncoder {
    if (this.encoder) return this.encoder;
    this.device.pushErrorScope('validation');
    return (this.encoder = this.device.createCommandEncoder());
  }

  /** The pass of the batch under way. A new batch counts itself first. */
  private begin(): GPUComputePassEncoder {
    if (this.pass) return this.pass;
    this.pass = this.open().beginComputePass();
    if (this.counted !== this.batch) {
      this.counted = this.batch;
      this.begun = (this.begun + 1) >>> 0;
      this.run('done', () => ({ params: ['one: u32'], reads: [], writes: ['done: u32'], workgroup: 1, body: '  done[0] += p.one;' }), [], [this.done], [1], 1);
    }
    return this.pass;
  }

  /**
   * Records one dispatch.
   * @param key names the kernel and its specialisation: `make` is called for the first one
   * @param params in the order of the kernel's own
   */
  run(key: string, make: () => Kernel, reads: readonly Slot[], writes: readonly Slot[], params: readonly number[], x: number, y = 1, z = 1): void {
    if (x * y * z === 0) return;
    if (this.met) {
      if (!this.compiled.has(key) && !this.met.has(key)) this.met.set(key, make());
      return;
    }
    const kernel = this.compiled.get(key) ?? this.compile(key, make());
    const pass = this.begin();
    const group = this.bindGroup(kernel.layout, reads, writes);
    if (this.current !== kernel.pipeline) pass.setPipeline((this.current = kernel.pipeline));
    if (this.bound !== group) pass.setBindGroup(0, (this.bound = group));
    if (this.differ(kernel.floats, params)) pass.setImmediates(0, this.words, 0, 4 * params.length);
    pass.dispatchWorkgroups(x, y, z);
    for (let i = 0; i < reads.length; i++) reads[i].batch = this.batch;
    for (let i = 0; i < writes.length; i++) writes[i].batch = this.batch;
    this.counters.dispatches++;
    if (++this.recorded >= BATCH) this.flush();
  }

  /** Puts parameters in their place. @returns whether the pass has others: each call into Dawn costs about as much as all the rest of `run` */
  private differ(floats: readonly boolean[], params: readonly number[]): boolean {
    const { wordsU32, scratchU32, scratchF32 } = this;
    let changed = params.length > this.set;
    for (let i = 0; i < params.length; i++) {
      if (floats[i]) scratchF32[0] = params[i];
      else scratchU32[0] = params[i];
      if (scratchU32[0] === wordsU32[i]) continue;
      wordsU32[i] = scratchU32[0];
      changed = true;
    }
    if (changed && params.length > this.set) this.set = params.length;
    return changed;
  }

  /** The same for one thread each of `n` elements, or, with `perGroup` = 1, one workgroup each. */
  each(key: string, make: () => Kernel, reads: readonly Slot[], writes: readonly Slot[], params: readonly number[], n: number, perGroup = 256): void {
    const groups = Math.ceil(n / perGroup);
    const y = Math.ceil(groups / this.mostGroups);
    this.run(key, make, reads, writes, params, y > 1 ? Math.ceil(groups / y) : groups, y);
  }

  private compile(key: string, kernel: Kernel): Compiled {
    return this.compiledTo(key, kernel, this.device.createComputePipeline(this.described(key, kernel)));
  }

  private described(key: string, kernel: Kernel): GPUComputePipelineDescriptor {
    const module = this.device.createShaderModule({ label: key, code: wgsl(kernel) });
    return { label: key, layout: this.layout(kernel.reads.length, kernel.writes.length).pipeline, compute: { module, entryPoint: 'main' } };
  }

  private compiledTo(key: string, { params, reads, writes }: Kernel, pipeline: GPUComputePipeline): Compiled {
    const compiled = { pipeline, layout: this.layout(reads.length, writes.length), floats: params.map((p) => p.endsWith('f32')) };
    this.compiled.set(key, compiled);
    return compiled;
  }

  /** Calls `work` without recording anything, and compiles the kernels that it would have run, all at once. A kernel compiled one by one holds up the thread that trains. */
  async warm(work: () => void): Promise<void> {
    const met = (this.met = new Map<string, Kernel>());
    try {
      work();
    } finally {
      this.met = undefined;
    }
    await Promise.all([...met].map(async ([key, kernel]) => this.compiledTo(key, kernel, await this.device.createComputePipelineAsync(this.described(key, kernel)))));
  }

  private layout(reads: number, writes: number): Layout {
    const key = `${reads}r${writes}w`;
    let layout = this.layouts.get(key);
    if (!layout) {
      const entries = Array.from({ length: reads + writes }, (_, binding) => ({ binding, visibility: 4, buffer: { type: binding < reads ? 'read-only-storage' : 'storage' } as const }));
      const group = this.device.createBindGroupLayout({ entries });
      const pipeline = this.device.createPipelineLayout({ bindGroupLayouts: [group], immediateSize: 4 * MAX_PARAMS } as GPUPipelineLayoutDescriptor);
      this.layouts.set(key, (layout = { id: this.layouts.size + 1, group, pipeline }));
    }
    return layout;
  }

  private bindGroup(layout: Layout, reads: readonly Slot[], writes: readonly Slot[]): GPUBindGroup {
    let hash = layout.id;
    for (let i = 0; i < reads.length; i++) hash = (Math.imul(hash, 0x01000193) + reads[i].id) | 0;
    for (let i = 0; i < writes.length; i++) hash = (Math.imul(hash, 0x01000193) + writes[i].id) | 0;
    for (let known = this.bindGroups.get(hash); known; known = known.next) if (holds(known, layout, reads, writes)) return known.group;
    if (this.bindGroupCount >= MOST_BIND_GROUPS) this.forgetAll();
    const slots = [...reads, ...writes];
    const group = this.device.createBindGroup({ layout: layout.group, entries: slots.map(({ buffer }, binding) => ({ binding, resource: { buffer } })) });
    const kept: KeptGroup = { hash, layout, slots, group, next: this.bindGroups.get(hash) };
    this.bindGroups.set(hash, kept);
    for (const s of slots) s.groups.add(kept);
    this.bindGroupCount++;
    this.counters.bindGroupsMade++;
    return group;
  }

  /** Copies host values into a buffer. */
  upload(slot: Slot, data: Float32Array | Int32Array): void {
    if (data.length === 0 || this.met) return;
    // A write takes effect before commands that are not submitted yet: those that use the buffer go first.
    if (slot.batch === this.batch) this.flush();
    this.device.queue.writeBuffer(slot.buffer, 0, data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  }

  private endPass(): void {
    this.pass?.end();
    this.pass = this.current = this.bound = undefined;
    this.set = 0;
  }

  /** Notes what the scope of a batch caught. */
  private caught(): void {
    const { refusals } = this;
    const check: Promise<void> = this.device.popErrorScope().then(
      (error) => {
        this.scopes.delete(check);
        // What follows from a buffer that was refused is told with it.
        if (error && refusals === this.refusals) this.failure ??= error.message;
      },
      () => void this.scopes.delete(check),
    );
    this.scopes.add(check);
  }

  /** Waits until it is known what became of everything submitted so far. */
  private async settled(): Promise<void> {
    await Promise.all([...this.scopes, this.pool.settled()]);
  }

  /** Submits what is recorded. */
  flush(): void {
    if (this.encoder) {
      this.endPass();
      this.device.queue.submit([this.encoder.finish()]);
      this.encoder = undefined;
      this.caught();
      this.counters.submissions++;
      this.recorded = 0;
      this.batch++;
    }
    for (const buffer of this.condemned) buffer.destroy();
    this.condemned = [];
  }

  /** Bytes of a buffer, once all work before is done. @throws DeviceLostError, OutOfMemoryError when the device had no memory for a tensor made before */
  async read(slot: Slot, bytes: number): Promise<ArrayBuffer> {
    this.check();
    const size = sizeClass(bytes);
    const waiting = this.staging.get(size)?.pop();
    // A copy into a buffer that does not come about is dropped with its batch: it gets one of its own.
    if (!waiting) this.flush();
    if (!waiting) this.device.pushErrorScope('out-of-memory');
    const staging = waiting ?? this.device.createBuffer({ size, usage: GPU_BUFFER.MAP_READ | GPU_BUFFER.COPY_DST });
    const refused = waiting ? undefined : this.device.popErrorScope().catch(() => null);
    if (!waiting) this.counters.stagingBuffers++;
    if (bytes > 0) {
      this.endPass();
      this.open().copyBufferToBuffer(slot.buffer, 0, staging, 0, bytes);
    }
    this.flush();
    try {
      await staging.mapAsync(GPU_BUFFER.MAP_READ, 0, size);
    } catch (cause) {
      staging.destroy();
      this.counters.stagingBuffers--;
      await this.settled();
      // The event of a lost device comes after the failed wait.
      await new Promise((resolve) => setImmediate(resolve));
      this.check();
      if (!(await refused)) throw new DeviceLostError(`${this.opened.name} gave no values (${(cause as Error).message}): start a new engine and load the last checkpoint`, { cause });
      this.failure = undefined;
      this.refusals++;
      this.pool.trim(Infinity);
      throw new OutOfMemoryError(`the device has no memory to read a tensor of ${bytes} bytes: free tensors, and read again`, bytes, { cause });
    }
    const data = staging.getMappedRange(0, size).slice(0, bytes);
    staging.unmap();
    const others = this.staging.get(size);
    if (others) others.push(staging);
    else this.staging.set(size, [staging]);
    await this.settled();
    this.check();
    const failure = this.failure;
    this.failure = undefined;
    if (failure) throw new Error(`WebGPU refused a command: ${failure}`);
    return data;
  }

  private forget(gone: KeptGroup): void {
    for (const s of gone.slots) s.groups.delete(gone);
    const first = this.bindGroups.get(gone.hash)!;
    if (first !== gone) {
      let before = first;
      while (before.next !== gone) before = before.next!;
      before.next = gone.next;
    } else if (gone.next) this.bindGroups.set(gone.hash, gone.next);
    else this.bindGroups.delete(gone.hash);
    this.bindGroupCount--;
  }

  private forgetAll(): void {
    for (const first of this.bindGroups.values()) for (let g: KeptGroup | undefined = first; g; g = g.next) for (const s of g.slots) s.groups.delete(g);
    this.bindGroups.clear();
    this.bindGroupCount = 0;
  }

  private drop(slot: Slot): void {
    for (const group of [...slot.groups]) this.forget(group);
    if (slot.batch === this.batch) this.condemned.push(slot.buffer);
    else slot.buffer.destroy();
  }

  counts(): GpuCounts {
    return { ...this.pool.counts(), ...this.counters, pipelines: this.compiled.size, bindGroups: this.bindGroupCount };
  }

  /** Gives the device back. */
  close(): void {
    this.closed = true;
    this.encoder = this.pass = undefined;
    this.device.destroy();
  }
}
