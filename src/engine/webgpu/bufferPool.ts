/**
 * Device memory that is found again: a freed buffer waits for the next tensor of its size class, so that a training step after the first makes no buffer, and (since bind groups are kept with their
 * buffers) no bind group either. All work is on one queue, in order: a buffer can be given away as soon as the operation that reads it is recorded.
 */
import { DeviceLostError, OutOfMemoryError } from '../../errors';
import type { KeptGroup } from './gpu';

/** A buffer, and the tensors that look at it. */
export interface Slot {
  /** Never used twice, not even after the buffer is gone. */
  readonly id: number;
  readonly buffer: GPUBuffer;
  /** Bytes of the buffer: those of its size class. */
  readonly bytes: number;
  refs: number;
  /** The batch of commands that used it last. */
  batch: number;
  /** The device had no memory for it. */
  failed: boolean;
  /** The bind groups that hold it. */
  readonly groups: Set<KeptGroup>;
}

/** Counts, for tests and people. */
export interface PoolCounts {
  /** Buffers that exist, in use or waiting. */
  readonly buffers: number;
  /** Their bytes. */
  readonly bytes: number;
  /** Bytes of those that wait. */
  readonly idleBytes: number;
  /** Buffers made since the start. */
  readonly made: number;
}

/** Below this, no buffer is given back for being idle. */
const SLACK = 32 * 2 ** 20;

/** Bytes of the size class: multiples of 256, and of a sixteenth of the power of two below, so that at most 6.25 % of a large buffer is empty. */
export function sizeClass(bytes: number): number {
  // Below 8 KiB a sixteenth is less than 256 bytes.
  const step = bytes < 8192 ? 256 : bytes < 2 ** 31 ? 1 << (27 - Math.clz32(bytes)) : 2 ** (Math.floor(Math.log2(bytes)) - 4);
  return Math.max(256, Math.ceil(bytes / step) * step);
}

/** Buffers by size class. `dropped` is told of each buffer that goes, before it does. */
export class BufferPool {
  /** By size class, those given back longest ago first; within a class the lowest id last, which is taken first: equal work then gets equal buffers, whatever order they were freed in. */
  private readonly idle = new Map<number, Slot[]>();
  private nextId = 1;
  private buffers = 0;
  private bytes = 0;
  private idleBytes = 0;
  private peakInUse = 0;
  private made = 0;
  private readonly limit: number;
  private readonly checks = new Set<Promise<void>>();
  /** The first allocation that the device refused since it was last asked. */
  private refused: OutOfMemoryError | undefined;

  constructor(
    private readonly device: GPUDevice,
    private readonly dropped: (slot: Slot) => void,
    private readonly reuse = true,
  ) {
    this.limit = Math.min(device.limits.maxBufferSize, device.limits.maxStorageBufferBindingSize);
  }

  /** A buffer of at least that many bytes, of any contents, with one reference. @throws OutOfMemoryError when no buffer can be that large */
  take(bytes: number): Slot {
    const size = Math.min(sizeClass(bytes), Math.max(bytes, this.limit));
    const waiting = this.idle.get(size);
    const slot = waiting?.pop();
    if (slot) {
      if (waiting!.length === 0) this.idle.delete(size);
      this.idleBytes -= size;
      slot.refs = 1;
    }
    return this.counted(slot ?? this.make(bytes, size));
  }

  private counted(slot: Slot): Slot {
    this.peakInUse = Math.max(this.peakInUse, this.bytes - this.idleBytes);
    return slot;
  }

  private make(bytes: number, size: number): Slot {
    if (bytes > this.limit) throw new OutOfMemoryError(`a tensor of ${bytes} bytes is larger than this device's largest buffer (${this.limit} bytes): make the batch or the length smaller`, bytes);
    // Sizes that come no more must not keep their memory: what waits is given back where it would exceed a quarter of what was ever in use at once.
    const allowed = Math.max(this.peakInUse, this.bytes - this.idleBytes + size) * 1.25 + SLACK;
    if (this.bytes + size > allowed) this.trim(this.bytes + size - allowed);
    this.device.pushErrorScope('out-of-memory');
    const buffer = this.device.createBuffer({ size, usage: GPU_BUFFER.STORAGE | GPU_BUFFER.COPY_SRC | GPU_BUFFER.COPY_DST });
    const slot: Slot = { id: this.nextId++, buffer, bytes: size, refs: 1, batch: 0, failed: false, groups: new Set() };
    const check: Promise<void> = this.device.popErrorScope().then(
      (error) => {
        this.checks.delete(check);
        if (!error) return;
        slot.failed = true;
        this.refused ??= new OutOfMemoryError(`the device has no memory for a tensor of ${bytes} bytes (${this.bytes - this.idleBytes} bytes are in use): free tensors, or make the batch smaller`, bytes);
        this.trim(Infinity);
      },
      () => void this.checks.delete(check),
    );
    this.checks.add(check);
    this.buffers++;
    this.made++;
    this.bytes += size;
    return slot;
  }

  /** Gives back one reference; with the last one the buffer waits for its next use. */
  give(slot: Slot): void {
    if (--slot.refs > 0) return;
    if (slot.failed || !this.reuse) return this.destroy(slot);
    const waiting = this.idle.get(slot.bytes) ?? [];
    let at = waiting.length;
    while (at > 0 && waiting[at - 1].id < slot.id) at--;
    waiting.splice(at, 0, slot);
    this.idle.delete(slot.bytes);
    this.idle.set(slot.bytes, waiting);
    this.idleBytes += slot.bytes;
  }

  /** Destroys waiting buffers, first those of the size class that was given back longest ago, until so many bytes are given back. */
  trim(bytes: number): void {
    for (const [size, slots] of [...this.idle]) {
      while (bytes > 0 && slots.length > 0) {
        const slot = slots.shift()!;
        this.idleBytes -= size;
        bytes -= size;
        this.destroy(slot);
      }
      if (slots.length === 0) this.idle.delete(size);
    }
  }

  private destroy(slot: Slot): void {
    this.buffers--;
    this.bytes -= slot.bytes;
    this.dropped(slot);
  }

  /** Waits until every buffer made so far is known to be there or not. */
  async settled(): Promise<void> {
    await Promise.all(this.checks);
  }

  /** The error of the first buffer that the device has refused since the last call, if it did. */
  takeRefusal(): OutOfMemoryError | undefined {
    const refused = this.refused;
    this.refused = undefined;
    // What was in use when memory ran out is no measure of what to hold from here on.
    if (refused) this.peakInUse = 0;
    return refused;
  }

  counts(): PoolCounts {
    return { buffers: this.buffers, bytes: this.bytes, idleBytes: this.idleBytes, made: this.made };
  }
}

/** WebGPU's usage flags, which Dawn has no globals for unless they are put there. */
export const GPU_BUFFER = { MAP_READ: 1, COPY_SRC: 4, COPY_DST: 8, STORAGE: 128 } as const;

/** The error of a device that is gone. */
export function lost(name: string, { reason, message }: GPUDeviceLostInfo): DeviceLostError {
  return new DeviceLostError(`${name} is lost (${reason}: ${message.split('\n')[0]}): start a new engine and load the last checkpoint`);
}
