/**
 * From logits to answers, as in BERT's original run_squad.py (`write_predictions`): of each window the 20 best starts and the 20 best ends are combined; a span counts if it lies in
 * the context, is not too long, and begins in the window that shows its first token with the most context around it (`token_is_max_context`). The score of a span is the sum of
 * its two logits; that of no answer is the least start[0] + end[0] of all windows of the question.
 *
 * Other than there, the text is cut out of the context by the tokens' offsets, with the accents of its last letter (there: whole words, put right afterwards).
 */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { InvalidArgumentError } from '../errors';
import type { Predictions } from '../models/model';
import type { SquadDataset, SquadFeature } from './squadDataset';

/** How answers are chosen. */
export interface SquadPredictionOptions {
  /** Starts and ends that are combined, and candidates that are kept. Default 20. */
  readonly nBestSize?: number;
  /** Most tokens of an answer. Default 30. */
  readonly maxAnswerLength?: number;
  /**
   * 'No answer' is predicted where the score of none is above that of the best span by more than this. Infinity: always an answer, as SQuAD 1.1 wants it.
   * Default 0; Infinity when no question of the data set is impossible.
   */
  readonly nullThreshold?: number;
}

/** One possible answer. */
export interface SquadCandidate {
  /** '' for no answer. */
  readonly text: string;
  /** Place [start, end) in the context, in UTF-16 units; 0 and 0 for no answer. */
  readonly start: number;
  readonly end: number;
  readonly startLogit: number;
  readonly endLogit: number;
  /** Softmax of the scores of the question's candidates. */
  readonly probability: number;
}

/** What is predicted for one question. */
export interface SquadPrediction {
  readonly id: string;
  /** The answer, '' for none. */
  readonly text: string;
  /** Score of no answer less that of the best span; where no span counts, less 0 (as in the original). Above the threshold nothing is answered. */
  readonly scoreDifference: number;
  /** Probability of no answer among the candidates; 0 with a threshold of Infinity. */
  readonly naProbability: number;
  /** Best first, texts all different. With a finite threshold no answer is among them. */
  readonly nBest: readonly SquadCandidate[];
}

/** Predictions of a data set, in the order of its examples. */
export interface SquadPredictions {
  readonly questions: readonly SquadPrediction[];
  /** Answers by id: what predictions.json holds. */
  readonly texts: ReadonlyMap<string, string>;
  /** Score differences by id: what null_odds.json holds, and the naScores of `evaluateSquad`. */
  readonly naScores: ReadonlyMap<string, number>;
}

/**
 * Answers to every question of a data set.
 * @param predictions logits [features, 2·T] of every feature in order: T for the start, then T for the end
 * @throws InvalidArgumentError when the logits are not those of this data set, or any is NaN
 */
export function squadPredictions(dataset: SquadDataset, predictions: Predictions, options: SquadPredictionOptions = {}): SquadPredictions {
  const { nBestSize = 20, maxAnswerLength = 30, nullThreshold = dataset.hasImpossible ? 0 : Infinity } = options;
  for (const [name, value] of Object.entries({ nBestSize, maxAnswerLength }))
    if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError(`${name} is ${value}; it must be a whole number from 1`);
  if (Number.isNaN(nullThreshold)) throw new InvalidArgumentError('nullThreshold is NaN; it must be a number');
  const rows = logitRows(dataset, predictions);
  const settings = { nBestSize, maxAnswerLength, nullThreshold };
  const questions: SquadPrediction[] = [];
  for (let begin = 0; begin < dataset.size; ) {
    let end = begin + 1;
    while (end < dataset.size && dataset.features[end].example === dataset.features[begin].example) end++;
    questions.push(predictionOf(dataset, begin, end, rows, settings));
    begin = end;
  }
  return { questions, texts: new Map(questions.map((q) => [q.id, q.text])), naScores: new Map(questions.map((q) => [q.id, q.scoreDifference])) };
}

/** Writes `predictions.json` and `null_odds.json`, as the official script reads them, in the order of the examples. Creates the folder. */
export function writeSquadPredictions(folder: string, { texts, naScores }: SquadPredictions): void {
  mkdirSync(folder, { recursive: true });
  const write = (name: string, values: ReadonlyMap<string, unknown>) => {
    const file = path.join(folder, name);
    // By hand: an object would put ids that are numbers first.
    const lines = [...values].map(([id, value]) => `  ${JSON.stringify(id)}: ${JSON.stringify(value)}`);
    writeFileSync(`${file}.tmp`, `{\n${lines.join(',\n')}\n}\n`);
    renameSync(`${file}.tmp`, file);
  };
  write('predictions.json', texts);
  write('null_odds.json', naScores);
}

/** Start and end logits of a feature. */
type LogitRows = (feature: number) => { readonly start: Float32Array; readonly end: Float32Array };

function logitRows(dataset: SquadDataset, { logits, numLabels }: Predictions): LogitRows {
  const length = numLabels / 2;
  const longest = dataset.features.reduce((most, f) => Math.max(most, f.length), 0);
  if (!Number.isInteger(length) || length < longest || logits.length !== dataset.size * numLabels)
    throw new InvalidArgumentError(
      `${logits.length} logits, ${numLabels} a feature, for ${dataset.size} features of up to ${longest} tokens: they must be [features, 2·length] of every feature in order` +
        (dataset.padding === 'longest' ? "; batches of different length cannot be put together: evaluate a data set with padding 'max'" : ''),
    );
  if (logits.some(Number.isNaN)) throw new InvalidArgumentError('there are NaN among the logits: the model that made them has diverged');
  return (feature) => {
    const middle = feature * numLabels + length;
    return { start: logits.subarray(middle - length, middle), end: logits.subarray(middle, middle + length) };
  };
}

interface Span {
  readonly feature: SquadFeature;
  readonly start: number;
  readonly end: number;
  readonly startLogit: number;
  readonly endLogit: number;
}

/** The prediction of the question whose windows are the features [begin, end). */
function predictionOf(dataset: SquadDataset, begin: number, end: number, rows: LogitRows, { nBestSize, maxAnswerLength, nullThreshold }: Required<SquadPredictionOptions>): SquadPrediction {
  const features = dataset.features.slice(begin, end);
  const example = dataset.examples[features[0].example];
  const { starts, ends } = dataset.tokensOf(example);
  const spans: Span[] = [];
  let none: Span | undefined;
  features.forEach((feature, w) => {
    const { start: startLogits, end: endLogits } = rows(begin + w);
    const span = (start: number, end: number): Span => ({ feature, start, end, startLogit: startLogits[start], endLogit: endLogits[end] });
    const noneHere = span(0, 0);
    if (!none || scoreOf(noneHere) < scoreOf(none)) none = noneHere;
    const inContext = (position: number) => position >= feature.contextBegin && position < feature.contextBegin + feature.tokenCount;
    const bestEnds = bestPositions(endLogits, nBestSize).filter(inContext);
    for (const start of bestPositions(startLogits, nBestSize)) {
      if (!inContext(start) || bestWindow(features, feature.firstToken + start - feature.contextBegin) !== w) continue;
      for (const end of bestEnds) if (start <= end && end - start < maxAnswerLength) spans.push(span(start, end));
    }
  });
  const answersAlways = nullThreshold === Infinity;
  if (!answersAlways) spans.push(none!);
  spans.sort((a, b) => scoreOf(b) - scoreOf(a));
  const candidates = new Map<string, Omit<SquadCandidate, 'probability'>>();
  const add = ({ feature, start, end, startLogit, endLogit }: Span) => {
    const token = (position: number) => feature.firstToken + position - feature.contextBegin;
    const place = start === 0 ? { start: 0, end: 0 } : { start: starts[token(start)], end: withItsMarks(example.context, ends[token(end)]) };
    const text = example.context.slice(place.start, place.end);
    // A token of RoBERTa's may be nothing but blanks: no answer, but not what stands for none either.
    if (start > 0 && !/\P{White_Space}/u.test(text)) return;
    if (!candidates.has(text)) candidates.set(text, { text, ...place, startLogit, endLogit });
  };
  for (const s of spans) if (candidates.size < nBestSize) add(s);
  // None is a candidate even if twenty are better.
  if (!answersAlways) add(none!);
  if (candidates.size === 0) candidates.set('', { text: '', start: 0, end: 0, startLogit: 0, endLogit: 0 });
  const found = [...candidates.values()];
  const probabilities = softmax(found.map(scoreOf));
  const nBest = found.map((c, i) => ({ ...c, probability: probabilities[i] }));
  const best = nBest.find((c) => c.text !== '');
  const scoreDifference = scoreOf(none!) - (best ? scoreOf(best) : 0);
  return {
    id: example.id,
    text: !best || scoreDifference > nullThreshold ? '' : best.text,
    scoreDifference,
    naProbability: answersAlways ? 0 : nBest.find((c) => c.text === '')!.probability,
    nBest,
  };
}

const scoreOf = (s: { readonly startLogit: number; readonly endLogit: number }): number => s.startLogit + s.endLogit;

/** Positions of the n largest, the largest first; of equal ones the first. */
function bestPositions(values: Float32Array, n: number): number[] {
  const best: number[] = [];
  for (let i = 0; i < values.length; i++) {
    if (best.length === n && !(values[i] > values[best[n - 1]])) continue;
    let at = best.length;
    while (at > 0 && values[i] > values[best[at - 1]]) at--;
    best.splice(at, 0, i);
    if (best.length > n) best.pop();
  }
  return best;
}

/** Number of the window that shows a token of the context best: with the most tokens on its poorer side, a longer window being better by a hundredth a token, the first of equals. */
function bestWindow(windows: readonly SquadFeature[], token: number): number {
  let best = -1;
  let bestScore = -Infinity;
  windows.forEach(({ firstToken, tokenCount }, w) => {
    const before = token - firstToken;
    const after = tokenCount - 1 - before;
    const score = Math.min(before, after) + 0.01 * tokenCount;
    if (before < 0 || after < 0 || score <= bestScore) return;
    bestScore = score;
    best = w;
  });
  return best;
}

/** The end of a character with the marks that belong to it: the tokenizer drops accents, the answer keeps them. */
function withItsMarks(text: string, end: number): number {
  const marks = /\p{M}+/uy;
  marks.lastIndex = end;
  return marks.test(text) ? marks.lastIndex : end;
}

function softmax(scores: readonly number[]): number[] {
  const most = Math.max(...scores);
  const e = scores.map((s) => Math.exp(s - most));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}
