/**
 * Embedding: y[i] = table[ids[i]]. Gradient: dtable[r] = Σ of g where ids = r; the padding row gets none (PyTorch's `padding_idx`). Of a table marked with the rows that the step touches
 * (`Parameter.touched`) the gradient is of these rows.
 */
import type { DeviceTensor } from '../engine/engine';
import { InvalidArgumentError } from '../errors';
import type { Parameter } from '../tape/parameter';
import type { Variable } from '../tape/tape';
import type { ForwardContext } from './context';

/** A table of vectors, looked up by id. The ids must stay alive until backward: the caller owns them. */
export class Embedding {
  constructor(
    readonly weight: Parameter,
    readonly paddingIndex?: number,
  ) {}

  /**
   * ids int32 [...] → [..., H].
   * @param onHost the same ids on the host: needed of a table that may be marked with the rows that a step touches
   */
  forward(ctx: ForwardContext, ids: DeviceTensor, onHost?: Int32Array): Variable {
    const { engine, tape } = ctx;
    const { weight } = this;
    const y = tape.variable(engine.gather(weight.data, ids), [], [weight]);
    if (y.needsGrad)
      tape.record(y, [], [weight], (g) => {
        const { touched } = weight;
        if (!touched) tape.accumulate(weight, engine.embeddingGrad(g, ids, weight.shape[0], this.paddingIndex));
        else {
          if (!onHost) throw new InvalidArgumentError(`${weight.name} is marked with the rows that this step touches, but was looked up without ids on the host`);
          const padding = this.paddingIndex === undefined ? undefined : touched.placeOf(this.paddingIndex);
          tape.accumulate(weight, engine.embeddingGrad(g, engine.upload(touched.placesOf(onHost), ids.shape), touched.rows.length, padding));
        }
        return [];
      });
    return y;
  }
}

/** Adds the first T rows of a position table [M, H] to every sequence of x [B, T, H]. dtable[t] = Σ over the batch. */
export function addPositions(ctx: ForwardContext, x: Variable, table: Parameter): Variable {
  const { engine, tape } = ctx;
  const [, T, H] = x.tensor.shape;
  const y = tape.variable(
    engine.scope(() => engine.add(x.tensor, engine.slice(table.data, [0, 0], [T, H]))),
    [x],
    [table],
  );
  if (y.needsGrad)
    tape.record(y, [x], [table], (g) => {
      if (table.trains) {
        const rows = engine.sum(g, 0);
        const rest = table.shape[0] - T;
        tape.accumulate(table, rest > 0 ? engine.concat([rows, engine.full([rest, H], 0)], 0) : rows);
      }
      return [x.needsGrad ? engine.share(g) : undefined];
    });
  return y;
}
