/** The official metrics of GLUE. */
import { InvalidArgumentError } from '../errors';

type Numbers = ArrayLike<number>;

function check(predictions: Numbers, labels: Numbers): number {
  if (predictions.length !== labels.length || labels.length === 0) throw new InvalidArgumentError(`${predictions.length} predictions for ${labels.length} labels`);
  return labels.length;
}

/** Share of equal elements. */
export function accuracy(predictions: Numbers, labels: Numbers): number {
  const n = check(predictions, labels);
  let hits = 0;
  for (let i = 0; i < n; i++) if (predictions[i] === labels[i]) hits++;
  return hits / n;
}

/** Harmonic mean of precision and recall of class 1; 0 when nothing was right. */
export function f1(predictions: Numbers, labels: Numbers): number {
  const [tp, , fp, fn] = confusion(predictions, labels);
  return tp === 0 ? 0 : (2 * tp) / (2 * tp + fp + fn);
}

/** Matthews correlation of classes 0 and 1; 0 when either side has one class only. */
export function matthewsCorrelation(predictions: Numbers, labels: Numbers): number {
  const [tp, tn, fp, fn] = confusion(predictions, labels);
  const scale = Math.sqrt(tp + fp) * Math.sqrt(tp + fn) * Math.sqrt(tn + fp) * Math.sqrt(tn + fn);
  return scale === 0 ? 0 : (tp * tn - fp * fn) / scale;
}

function confusion(predictions: Numbers, labels: Numbers): [tp: number, tn: number, fp: number, fn: number] {
  const n = check(predictions, labels);
  const count: [number, number, number, number] = [0, 0, 0, 0];
  for (let i = 0; i < n; i++) count[predictions[i] === 1 ? (labels[i] === 1 ? 0 : 2) : labels[i] === 1 ? 3 : 1]++;
  return count;
}

/** Pearson correlation; NaN when one side is constant. */
export function pearson(x: Numbers, y: Numbers): number {
  const n = check(x, y);
  let [mx, my] = [0, 0];
  for (let i = 0; i < n; i++) {
    mx += x[i] / n;
    my += y[i] / n;
  }
  let [xy, xx, yy] = [0, 0, 0];
  for (let i = 0; i < n; i++) {
    xy += (x[i] - mx) * (y[i] - my);
    xx += (x[i] - mx) ** 2;
    yy += (y[i] - my) ** 2;
  }
  return xy / Math.sqrt(xx * yy);
}

/** Spearman correlation: Pearson's of the ranks, ties sharing their mean rank. */
export function spearman(x: Numbers, y: Numbers): number {
  check(x, y);
  return pearson(ranks(x), ranks(y));
}

function ranks(x: Numbers): Float64Array {
  const order = Array.from({ length: x.length }, (_, i) => i).sort((a, b) => x[a] - x[b]);
  const out = new Float64Array(x.length);
  for (let i = 0; i < order.length; ) {
    let j = i;
    while (j < order.length && x[order[j]] === x[order[i]]) j++;
    for (let k = i; k < j; k++) out[order[k]] = (i + j + 1) / 2;
    i = j;
  }
  return out;
}

/** Index of the largest of each row of [n, classes]; of equal ones the first. */
export function argmaxRows(values: Float32Array, classes: number): Int32Array {
  return Int32Array.from({ length: values.length / classes }, (_, r) => {
    let best = 0;
    for (let c = 1; c < classes; c++) if (values[r * classes + c] > values[r * classes + best]) best = c;
    return best;
  });
}
