/**
 * The rows of an embedding table that a step looks up. The gradient of all others is 0, so that of a table marked with these only the rows themselves have one: [n, H] instead of [V, H] (PyTorch's sparse
 * gradients, `nn.Embedding(sparse=True)`). Of BERT-base's 30,522 rows a batch of 32 × 128 tokens touches 4,096 at most, and of real text about a thousand.
 */
import type { DeviceTensor, Engine } from '../engine/engine';

/** Distinct rows, ascending. Owns their tensor: `dispose` frees it. */
export class TouchedRows {
  readonly rows: Int32Array;
  /** `rows` on the device, int32 [n]. */
  readonly tensor: DeviceTensor;
  private readonly places: ReadonlyMap<number, number>;

  /** @param lists ids that are looked up, each list in any order and with repetitions */
  constructor(
    private readonly engine: Engine,
    lists: readonly Int32Array[],
  ) {
    const distinct = new Set<number>();
    for (const ids of lists) for (const id of ids) distinct.add(id);
    this.rows = Int32Array.from(distinct).sort();
    this.places = new Map(Array.from(this.rows, (row, place) => [row, place]));
    this.tensor = engine.upload(this.rows, [this.rows.length]);
  }

  /** Place of a row among these; undefined for one that is not. */
  placeOf(row: number): number | undefined {
    return this.places.get(row);
  }

  /** Places of ids, each of them one of these rows. */
  placesOf(ids: Int32Array): Int32Array {
    return ids.map((id) => this.places.get(id)!);
  }

  dispose(): void {
    if (!this.tensor.freed) this.engine.free(this.tensor);
  }
}
