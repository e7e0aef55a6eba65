/**
 * The activation ledger: who keeps what between forward and backward, in which encoding, in how many bytes. Its total equals
 * the engine's count of live `activations` bytes, always: both are counted, neither is estimated.
 */
import type { DeviceTensor } from '../engine/engine';
import type { LedgerEntry } from './roles';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Every tensor kept by one forward pass. A storage kept by several layers counts once, for the first of them. */
export class ActivationLedger {
  private readonly list: Mutable<LedgerEntry>[] = [];
  /** Live storages with how many entries hold them, and their bytes. */
  private readonly alive: { readonly holders: Map<number, number>; bytes: number };

  /** @param within ledger of a pass that this one is part of: entries are apart, what is alive is counted in common */
  constructor(within?: ActivationLedger) {
    this.alive = within?.alive ?? { holders: new Map(), bytes: 0 };
  }

  /** Everything kept since the start, in order of forward, freed or not. */
  get entries(): readonly LedgerEntry[] {
    return this.list;
  }

  /** Bytes kept now, by the pass that this one is part of too. */
  get liveBytes(): number {
    return this.alive.bytes;
  }

  /** Bytes of all entries: what forward left alive for backward. */
  get totalBytes(): number {
    return this.list.reduce((sum, e) => sum + e.bytes, 0);
  }

  /** Notes that tensors are kept on behalf of one layer. @returns the entry, for `extend` */
  add(entry: Omit<LedgerEntry, 'bytes'>, tensors: readonly DeviceTensor[]): LedgerEntry {
    const noted = { ...entry, bytes: 0 };
    this.list.push(noted);
    this.extend(noted, tensors);
    return noted;
  }

  /** Notes that an entry keeps further tensors. */
  extend(entry: LedgerEntry, tensors: readonly DeviceTensor[], padding = 0): void {
    const { holders } = this.alive;
    let bytes = 0;
    for (const t of tensors) {
      const n = holders.get(t.storageId) ?? 0;
      if (n === 0) bytes += t.bytes;
      holders.set(t.storageId, n + 1);
    }
    this.alive.bytes += bytes;
    const noted: Mutable<LedgerEntry> = entry;
    noted.bytes += bytes;
    noted.padding += padding;
  }

  /** Notes that one entry no longer needs its tensors (call before freeing them). */
  remove(tensors: readonly DeviceTensor[]): void {
    const { holders } = this.alive;
    for (const t of tensors) {
      const n = holders.get(t.storageId) ?? 0;
      if (n === 1) {
        holders.delete(t.storageId);
        this.alive.bytes -= t.bytes;
      } else holders.set(t.storageId, n - 1);
    }
  }
}
