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
const MOST_BIND_GROUPS = 16_384;

/** A kernel that is compiled. */
interface Compiled {
  readonly pipeline: GPUComputePipeline;
  readonly layout: Layout;
  /** Whether each parameter is a float. */
  readonly floats: readonly boolean[];
}

/** How many buffers a kernel reads and writes: kernels of equal counts share bind groups. */
interface Layout {
  readonly key: string;
  readonly group: GPUBindGroupLayout;
  readonly pipeline: GPUPipelineLayout;
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

/** One device, its memory, and the commands under way. */
export class Gpu {
  readonly pool: BufferPool;
  private readonly device: GPUDevice;
  private readonly compiled = new Map<string, Compiled>();
  private readonly layouts = new Map<string, Layout>();
  private readonly bindGroups = new Map<string, { readonly group: GPUBindGroup; readonly slots: readonly Slot[] }>();
  private readonly staging = new Map<number, GPUBuffer[]>();
  /** Buffers to destroy as soon as no unsubmitted command uses them. */
  private condemned: GPUBuffer[] = [];
  private encoder: GPUCommandEncoder | undefined;
  private pass: GPUComputePassEncoder | undefined;
  private current: GPUComputePipeline | undefined;
  /** Number of the batch that is being recorded. */
  private batch = 1;
  private recorded = 0;
  private readonly words = new ArrayBuffer(4 * MAX_PARAMS);
  private readonly wordsU32 = new Uint32Array(this.words);
  private readonly wordsF32 = new Float32Array(this.words);
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
  private closed = false;
  private counters = { bindGroupsMade: 0, stagingBuffers: 0, dispatches: 0, submissions: 0 };

  constructor(private readonly opened: OpenedDevice) {
    this.device = opened.device;
    this.pool = new BufferPool(this.device, (slot) => this.drop(slot));
    void this.device.lost.then((info) => (this.lostInfo = info));
    this.done = this.pool.take(4);
    this.device.onuncapturederror = ({ error }) => void (this.failure ??= error.message);
  }

  /** @throws DeviceLostError, OutOfMemoryError when the device is known to have refused a buffer since the last call */
  check(): void {
    if (this.lostInfo && !this.closed) throw lost(this.opened.name, this.lostInfo);
    const refused = this.pool.takeRefusal();
    if (!refused) return;
    this.failure = undefined;
    this.flush();
    // What was lost is told; from here on updates count again.
    this.device.queue.writeBuffer(this.done.buffer, 0, Uint32Array.of(this.begun));
    throw refused;
  }

  /** For updates in place, which must not use what a dropped batch left out: a buffer and the number that it holds unless one was dropped. The update is recorded next. */
  nothingLost(): { readonly done: Slot; readonly begun: number } {
    this.begin();
    return { done: this.done, begun: this.begun };
  }

  /** The pass of the batch under way. A new batch counts itself first. */
  private begin(): GPUComputePassEncoder {
    if (this.pass) return this.pass;
    this.encoder ??= this.device.createCommandEncoder();
    this.pass = this.encoder.beginComputePass();
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
    const kernel = this.compiled.get(key) ?? this.compile(key, make());
    const group = this.bindGroup(kernel.layout, reads, writes);
    const pass = this.begin();
    if (this.current !== kernel.pipeline) pass.setPipeline((this.current = kernel.pipeline));
    pass.setBindGroup(0, group);
    for (let i = 0; i < params.length; i++) {
      if (kernel.floats[i]) this.wordsF32[i] = params[i];
      else this.wordsU32[i] = params[i];
    }
    pass.setImmediates(0, this.words, 0, 4 * params.length);
    pass.dispatchWorkgroups(x, y, z);
    for (const s of reads) s.batch = this.batch;
    for (const s of writes) s.batch = this.batch;
    this.counters.dispatches++;
    if (++this.recorded >= BATCH) this.flush();
  }

  /** The same for one thread each of `n` elements, or, with `perGroup` = 1, one workgroup each. */
  each(key: string, make: () => Kernel, reads: readonly Slot[], writes: readonly Slot[], params: readonly number[], n: number, perGroup = 256): void {
    const groups = Math.ceil(n / perGroup);
    const most = this.device.limits.maxComputeWorkgroupsPerDimension;
    const y = Math.ceil(groups / most);
    this.run(key, make, reads, writes, params, y > 1 ? Math.ceil(groups / y) : groups, y);
  }

  private compile(key: string, kernel: Kernel): Compiled {
    const layout = this.layout(kernel.reads.length, kernel.writes.length);
    const module = this.device.createShaderModule({ label: key, code: wgsl(kernel) });
    const pipeline = this.device.createComputePipeline({ label: key, layout: layout.pipeline, compute: { module, entryPoint: 'main' } });
    const compiled = { pipeline, layout, floats: kernel.params.map((p) => p.endsWith('f32')) };
    this.compiled.set(key, compiled);
    return compiled;
  }

  private layout(reads: number, writes: number): Layout {
    const key = `${reads}r${writes}w`;
    let layout = this.layouts.get(key);
    if (!layout) {
      const entries = Array.from({ length: reads + writes }, (_, binding) => ({ binding, visibility: 4, buffer: { type: binding < reads ? 'read-only-storage' : 'storage' } as const }));
      const group = this.device.createBindGroupLayout({ entries });
      const pipeline = this.device.createPipelineLayout({ bindGroupLayouts: [group], immediateSize: 4 * MAX_PARAMS } as GPUPipelineLayoutDescriptor);
      this.layouts.set(key, (layout = { key, group, pipeline }));
    }
    return layout;
  }

  private bindGroup(layout: Layout, reads: readonly Slot[], writes: readonly Slot[]): GPUBindGroup {
    let key = layout.key;
    for (const s of reads) key += `,${s.id}`;
    for (const s of writes) key += `,${s.id}`;
    const known = this.bindGroups.get(key);
    if (known) return known.group;
    if (this.bindGroups.size >= MOST_BIND_GROUPS) for (const old of [...this.bindGroups.keys()]) this.forget(old);
    const slots = [...reads, ...writes];
    const group = this.device.createBindGroup({ layout: layout.group, entries: slots.map(({ buffer }, binding) => ({ binding, resource: { buffer } })) });
    this.bindGroups.set(key, { group, slots });
    for (const s of slots) s.groups.add(key);
    this.counters.bindGroupsMade++;
    return group;
  }

  /** Copies host values into a buffer. */
  upload(slot: Slot, data: Float32Array | Int32Array): void {
    if (data.length === 0) return;
    // A write takes effect before commands that are not submitted yet: those that use the buffer go first.
    if (slot.batch === this.batch) this.flush();
    this.device.queue.writeBuffer(slot.buffer, 0, data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  }

  /** Submits what is recorded. */
  flush(): void {
    if (this.encoder) {
      this.pass?.end();
      this.device.queue.submit([this.encoder.finish()]);
      this.encoder = this.pass = this.current = undefined;
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
      this.pass?.end();
      this.pass = this.current = undefined;
      this.encoder ??= this.device.createCommandEncoder();
      this.encoder.copyBufferToBuffer(slot.buffer, 0, staging, 0, bytes);
    }
    this.flush();
    try {
      await staging.mapAsync(GPU_BUFFER.MAP_READ, 0, size);
    } catch (cause) {
      staging.destroy();
      this.counters.stagingBuffers--;
      await this.pool.settled();
      // The event of a lost device comes after the failed wait.
      await new Promise((resolve) => setImmediate(resolve));
      this.check();
      if (!(await refused)) throw new DeviceLostError(`${this.opened.name} gave no values (${(cause as Error).message}): start a new engine and load the last checkpoint`, { cause });
      this.failure = undefined;
      this.pool.trim(Infinity);
      throw new OutOfMemoryError(`the device has no memory to read a tensor of ${bytes} bytes: free tensors, and read again`, bytes, { cause });
    }
    const data = staging.getMappedRange(0, size).slice(0, bytes);
    staging.unmap();
    const others = this.staging.get(size);
    if (others) others.push(staging);
    else this.staging.set(size, [staging]);
    await this.pool.settled();
    this.check();
    const failure = this.failure;
    this.failure = undefined;
    if (failure) throw new Error(`WebGPU refused a command: ${failure}`);
    return data;
  }

  private forget(key: string): void {
    for (const s of this.bindGroups.get(key)!.slots) s.groups.delete(key);
    this.bindGroups.delete(key);
  }

  private drop(slot: Slot): void {
    for (const key of [...slot.groups]) this.forget(key);
    if (slot.batch === this.batch) this.condemned.push(slot.buffer);
    else slot.buffer.destroy();
  }

  counts(): GpuCounts {
    return { ...this.pool.counts(), ...this.counters, pipelines: this.compiled.size, bindGroups: this.bindGroups.size };
  }

  /** Gives the device back. */
  close(): void {
    this.closed = true;
    this.encoder = this.pass = undefined;
    this.device.destroy();
  }
}
