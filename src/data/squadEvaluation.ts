/**
 * The official evaluation of SQuAD 2.0 (evaluate-v2.0.py, Rajpurkar et al. 2018), figure by figure, percentages and all. Its text rules are Python's: what is a letter, a white
 * space or punctuation is said here in Python's terms, not in those of JavaScript's \w and \s.
 */
import { InvalidArgumentError } from '../errors';
import type { SquadExample } from './squad';

/** Settings of the official script. */
export interface SquadEvaluationOptions {
  /** How much each question seems unanswerable, by id, in any unit (`--na-prob-file`); in the map's order where equal. Default: 0 for each, and no `best_…`. */
  readonly naScores?: ReadonlyMap<string, number>;
  /** An answer counts as 'none' where its naScore is above this (`--na-prob-thresh`). Default 1, as in the script. */
  readonly threshold?: number;
}

/** What the official script prints: percentages from 0 to 100, counts, and thresholds in the unit of the naScores. */
export interface SquadEvaluation {
  /** Share of answers that equal one of the annotators', normalised. */
  readonly exact: number;
  /** Mean overlap of words with the best of the annotators' answers. */
  readonly f1: number;
  readonly total: number;
  /** The same over the answerable questions, if there are any. */
  readonly HasAns_exact?: number;
  readonly HasAns_f1?: number;
  readonly HasAns_total?: number;
  /** The same over the unanswerable questions, if there are any. */
  readonly NoAns_exact?: number;
  readonly NoAns_f1?: number;
  readonly NoAns_total?: number;
  /** The most that any threshold on the naScores reaches, and that threshold; with naScores only. */
  readonly best_exact?: number;
  readonly best_exact_thresh?: number;
  readonly best_f1?: number;
  readonly best_f1_thresh?: number;
}

/**
 * Scores of predicted answers ('' for none) by question id. A prediction for another question is ignored, as in the script; a question without one is an error.
 * @throws InvalidArgumentError when a question has no prediction or no naScore, or a naScore is NaN
 */
export function evaluateSquad(examples: readonly SquadExample[], predictions: ReadonlyMap<string, string>, { naScores, threshold = 1 }: SquadEvaluationOptions = {}): SquadEvaluation {
  if (examples.length === 0) throw new InvalidArgumentError('no examples to evaluate');
  const hasAnswer = new Map(examples.map((e) => [e.id, e.answers.length > 0]));
  const exact = new Map<string, number>();
  const f1 = new Map<string, number>();
  for (const { id, answers } of examples) {
    const predicted = predictions.get(id);
    if (predicted === undefined) throw new InvalidArgumentError(`no prediction for question '${id}' (${examples.length} questions, ${predictions.size} predictions): predict '' where there is no answer`);
    let gold = answers.map((a) => a.text).filter((text) => normalizeAnswer(text) !== '');
    if (gold.length === 0) gold = [''];
    exact.set(id, Math.max(...gold.map((text) => exactMatch(text, predicted))));
    f1.set(id, Math.max(...gold.map((text) => overlapF1(text, predicted))));
  }
  const thresholded = (scores: ReadonlyMap<string, number>) => new Map([...scores].map(([id, s]) => [id, naScoreOf(naScores, id) > threshold ? Number(!hasAnswer.get(id)) : s]));
  const exactScores = thresholded(exact);
  const f1Scores = thresholded(f1);
  const ids = [...hasAnswer.keys()];
  const part = <P extends string>(prefix: P, of: readonly string[]) =>
    of.length === 0 ? {} : { [`${prefix}exact`]: percentage(exactScores, of), [`${prefix}f1`]: percentage(f1Scores, of), [`${prefix}total`]: of.length };
  const [bestExact, bestF1] = naScores ? [exact, f1].map((scores) => bestThreshold(predictions, scores, naScores, hasAnswer)) : [];
  return {
    exact: percentage(exactScores, ids),
    f1: percentage(f1Scores, ids),
    total: ids.length,
    ...part('HasAns_', ids.filter((id) => hasAnswer.get(id))),
    ...part('NoAns_', ids.filter((id) => !hasAnswer.get(id))),
    ...(bestExact && { best_exact: bestExact.score, best_exact_thresh: bestExact.threshold }),
    ...(bestF1 && { best_f1: bestF1.score, best_f1_thresh: bestF1.threshold }),
  };
}

/** Lower case, no punctuation of ASCII, no articles, single blanks (`normalize_answer`). */
export function normalizeAnswer(text: string): string {
  return words(text.toLowerCase().replace(PUNCTUATION, '').replace(ARTICLES, ' ')).join(' ');
}

/** Python's string.punctuation. */
const PUNCTUATION = /[!-/:-@[-`{-~]/g;
/** Python's \b(a|an|the)\b: a letter there is whatever is alphabetic or numeric (no mark: a decomposed á is an article and an accent), or an underscore. */
const ARTICLES = /(?<![\p{L}\p{N}_])(?:a|an|the)(?![\p{L}\p{N}_])/gu;
/** Python's str.split(): not JavaScript's \s, which has U+FEFF and lacks U+001C to U+001F and U+0085. */
const SPACES = /[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/u;
const words = (text: string): string[] => text.split(SPACES).filter((w) => w !== '');

const exactMatch = (gold: string, predicted: string): number => Number(normalizeAnswer(gold) === normalizeAnswer(predicted));

/** Harmonic mean of precision and recall of words, each counted as often as both have it; of two texts one of which has no words: whether both have none. */
function overlapF1(gold: string, predicted: string): number {
  const g = words(normalizeAnswer(gold));
  const p = words(normalizeAnswer(predicted));
  if (g.length === 0 || p.length === 0) return Number(g.length === p.length);
  const left = new Map<string, number>();
  for (const w of g) left.set(w, (left.get(w) ?? 0) + 1);
  let same = 0;
  for (const w of p) {
    const n = left.get(w) ?? 0;
    if (n === 0) continue;
    same++;
    left.set(w, n - 1);
  }
  if (same === 0) return 0;
  const precision = same / p.length;
  const recall = same / g.length;
  return (2 * precision * recall) / (precision + recall);
}

function percentage(scores: ReadonlyMap<string, number>, ids: readonly string[]): number {
  return (100 * ids.reduce((sum, id) => sum + scores.get(id)!, 0)) / ids.length;
}

/**
 * `find_best_thresh`: from 'no answer at all' on, questions are answered in the order of their naScores, equal ones in the map's order; the first of equally good
 * thresholds counts, 0 if answering nothing is best.
 */
function bestThreshold(
  predictions: ReadonlyMap<string, string>,
  scores: ReadonlyMap<string, number>,
  naScores: ReadonlyMap<string, number>,
  hasAnswer: ReadonlyMap<string, boolean>,
): { score: number; threshold: number } {
  let now = [...hasAnswer.values()].filter((has) => !has).length;
  let best = { score: now, threshold: 0 };
  for (const [id, na] of [...naScores].sort((x, y) => x[1] - y[1])) {
    const score = scores.get(id);
    if (score === undefined) continue;
    now += hasAnswer.get(id) ? score : predictions.get(id) === '' ? 0 : -1;
    if (now > best.score) best = { score: now, threshold: na };
  }
  return { score: (100 * best.score) / scores.size, threshold: best.threshold };
}

function naScoreOf(naScores: ReadonlyMap<string, number> | undefined, id: string): number {
  if (!naScores) return 0;
  const score = naScores.get(id);
  if (score === undefined || Number.isNaN(score)) throw new InvalidArgumentError(`the naScore of question '${id}' is ${score === undefined ? 'missing' : 'NaN'}: every question needs one`);
  return score;
}
