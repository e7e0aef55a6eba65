/**
 * The 0/1 knapsack over groups whose members share a price: max Σ value subject to Σ cost ≤ budget, where the first member chosen of a group pays its `entry` and each member its own `cost`. Query, key
 * and value of an encoder block are such a group: they share their input. Solved exactly by lists of undominated (cost, value) pairs (Nemhauser & Ullmann 1969), which stay short where few costs
 * differ, as those of layers do.
 */

/** Something to choose. */
export interface KnapsackItem {
  readonly id: number;
  /** Not negative. */
  readonly cost: number;
  /** Not negative. */
  readonly value: number;
}

/** Items that share a price. */
export interface KnapsackGroup {
  /** Paid once when any item is chosen. */
  readonly entry: number;
  readonly items: readonly KnapsackItem[];
}

/** A choice that no other beats in both cost and value. */
interface State {
  readonly cost: number;
  readonly value: number;
  readonly last: { readonly id: number; readonly before: State['last'] } | undefined;
}

/** Longest list that is kept; beyond it, the best state of each of so many equal shares of the budget. */
const LONGEST = 20_000;

/** Both lists, ascending in cost, as one without the states that another one beats. */
function undominated(a: readonly State[], b: readonly State[]): State[] {
  const out: State[] = [];
  for (let i = 0, j = 0; i < a.length || j < b.length; ) {
    const takesA = j >= b.length || (i < a.length && (a[i].cost < b[j].cost || (a[i].cost === b[j].cost && a[i].value >= b[j].value)));
    const s = takesA ? a[i++] : b[j++];
    if (out.length === 0 || s.value > out[out.length - 1].value) out.push(s);
  }
  return out;
}

/** Keeps costs true, so that the budget holds; only which states survive is then a matter of rounding. */
function thinned(states: readonly State[], budget: number): readonly State[] {
  if (states.length <= LONGEST) return states;
  const share = (s: State) => Math.floor((s.cost / budget) * LONGEST);
  return states.filter((s, i) => i === 0 || i === states.length - 1 || share(states[i + 1]) !== share(s));
}

/** Ids of a choice of largest value within the budget, ascending; of equal values, one of least cost. Items of no value are not chosen. Exact up to 20,000 undominated states. */
export function solveKnapsack(groups: readonly KnapsackGroup[], budget: number): number[] {
  let front: readonly State[] = [{ cost: 0, value: 0, last: undefined }];
  const plus = (states: readonly State[], cost: number, value = 0, id?: number): State[] =>
    states.filter((s) => s.cost + cost <= budget).map((s) => ({ cost: s.cost + cost, value: s.value + value, last: id === undefined ? s.last : { id, before: s.last } }));
  for (const { entry, items } of groups) {
    let inside: readonly State[] = plus(front, entry);
    for (const { id, cost, value } of items) inside = thinned(undominated(inside, plus(inside, cost, value, id)), budget);
    front = thinned(undominated(front, inside), budget);
  }
  const ids: number[] = [];
  for (let at = front[front.length - 1].last; at; at = at.before) ids.push(at.id);
  return ids.sort((a, b) => a - b);
}
