/** Mean cross-entropy and its gradient in three kernels: how many rows count, each row's loss and gradient, and the mean. */
import { EACH_ROW, type Kernel } from '../kernel';
import { EXP, LOG, MAX_ALL, SUM_ALL } from './mathFunctions';

const COUNTS = 'fn counts(label: i32) -> bool { return label >= 0 && label < i32(p.width) && label != p.ignore; }';

/** Rows whose label is one of the classes and not the ignored one: params rows, width, ignore → [1]. */
export function countLabels(): Kernel {
  return {
    params: ['rows: u32', 'width: u32', 'ignore: i32'],
    reads: ['labels: i32'],
    writes: ['count: f32'],
    workgroup: 256,
    functions: COUNTS + SUM_ALL,
    body: `
  var own = 0.0;
  for (var k = lid; k < p.rows; k += W) { if (counts(labels[k])) { own += 1.0; } }
  let all = sumAll(own, lid);
  if (lid == 0u) { count[0] = all; }`,
  };
}

/** −log softmax(x)[label] of each row and (softmax(x) − onehot)/count: params rows, width, ignore. */
export function crossEntropyRows(workgroup: number): Kernel {
  return {
    params: ['rows: u32', 'width: u32', 'ignore: i32'],
    reads: ['x: f32', 'labels: i32', 'count: f32'],
    writes: ['losses: f32', 'grad: f32'],
    workgroup,
    functions: COUNTS + EXP + LOG + SUM_ALL + MAX_ALL,
    body: `${EACH_ROW}
  let base = row * p.width;
  let label = labels[row];
  let counted = counts(label);
  var top = x[base];
  for (var k = lid; k < p.width; k += W) { top = max(top, x[base + k]); }
  top = maxAll(top, lid);
  var total = 0.0;
  for (var k = lid; k < p.width; k += W) { total += expOf(x[base + k] - top); }
  let logZ = logOf(sumAll(total, lid));
  for (var k = lid; k < p.width; k += W) {
    let target_k = select(0.0, 1.0, i32(k) == label);
    grad[base + k] = select(0.0, (expOf(x[base + k] - top - logZ) - target_k) / count[0], counted);
  }
  if (lid == 0u) { losses[row] = select(0.0, logZ - (x[base + u32(max(label, 0))] - top), counted); }`,
  };
}

/** Σ losses / count: params rows. */
export function meanLoss(): Kernel {
  return {
    params: ['rows: u32'],
    reads: ['losses: f32', 'count: f32'],
    writes: ['loss: f32'],
    workgroup: 256,
    functions: SUM_ALL,
    body: `
  var own = 0.0;
  for (var k = lid; k < p.rows; k += W) { own += losses[k]; }
  let all = sumAll(own, lid);
  if (lid == 0u) { loss[0] = all / count[0]; }`,
  };
}
