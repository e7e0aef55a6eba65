/**
 * Floating point operations of a training step, matrix products alone, a multiplication and an addition counted as two. N = B·T tokens, hidden size H, MLP size F, L layers:
 *
 *   forward          L·(2N·(4H² + 2HF) + 4·B·T²·H), patch projection 2·B·(T − 1)·C·P²·H
 *   input gradients  the same for the linear layers, 8·B·T²·H for attention, in every layer that a gradient flows through
 *   weight gradients 2N·O·K for each weight [O, K] that trains
 *
 * What is computed twice, because it was not kept, counts once. Heads and element-wise work are left out.
 */
import type { Setting } from './settings';

/** FLOPs of forward. */
export function forwardFlops(s: Setting): number {
  return s.layers * (linearFlops(s) + attentionFlops(s)) + projectionFlops(s);
}

const linearFlops = ({ batch, tokens, hidden: H, intermediate: F }: Setting) => 2 * batch * tokens * (4 * H * H + 2 * H * F);
const attentionFlops = ({ batch, tokens, hidden }: Setting) => 4 * batch * tokens ** 2 * hidden;
const projectionFlops = ({ kind, batch, tokens, hidden, patch }: Setting) => (kind === 'image' ? 2 * batch * (tokens - 1) * 3 * patch ** 2 * hidden : 0);

/** FLOPs of a step in which everything trains. */
export function fullStepFlops(s: Setting): number {
  return forwardFlops(s) + s.layers * (2 * linearFlops(s) + 2 * attentionFlops(s)) + projectionFlops(s);
}

/**
 * FLOPs of a step in which the named weights train.
 * @param frozenBiases whether backward stops below the lowest of them; in that layer the input gradients are not counted then, some of which are needed
 */
export function stepFlops(s: Setting, active: readonly string[], frozenBiases: boolean): number {
  const { batch, tokens, hidden: H, intermediate: F } = s;
  const layerOf = (name: string) => Number(/encoder\.layer\.(\d+)\./.exec(name)?.[1] ?? (/embeddings/.test(name) ? -1 : s.layers));
  const lowest = active.length > 0 ? Math.min(...active.map(layerOf)) : s.layers;
  const reached = frozenBiases ? Math.min(s.layers, Math.max(0, s.layers - 1 - lowest)) : s.layers;
  let weights = 0;
  for (const name of active) {
    if (/patch_embeddings/.test(name)) weights += projectionFlops(s);
    else if (/encoder\.layer\.\d+\.(intermediate|output)\.dense\.weight$/.test(name)) weights += 2 * batch * tokens * H * F;
    else if (/encoder\.layer\.\d+\..*(query|key|value|dense)\.weight$/.test(name)) weights += 2 * batch * tokens * H * H;
  }
  return forwardFlops(s) + reached * (linearFlops(s) + 2 * attentionFlops(s)) + weights;
}
