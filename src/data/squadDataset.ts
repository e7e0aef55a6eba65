/**
 * Questions and their contexts as windows of tokens, as in BERT's original run_squad.py: [CLS] question [SEP] part of the context [SEP], or as the tokenizer puts pairs together
 * (RoBERTa: <s> question </s></s> part of the context </s>). A context that does not fit is cut in overlapping windows, each a feature of its own; the starts of two windows are `docStride` tokens apart (Hugging Face's `stride` would be their overlap; its
 * run_squad.py, which the SlimFit paper used, means the same by `doc_stride` as here).
 */
import { InvalidArgumentError, UnsupportedModelError } from '../errors';
import type { BatchShape, BatchSource, Predictions, TextBatch } from '../models/model';
import type { SquadExample } from './squad';
import { evaluateSquad } from './squadEvaluation';
import { squadPredictions } from './squadPredictions';
import type { TemplatePart } from './template';
import type { TokenOffsets, Tokenizer } from './tokenizer';

/** How questions become batches. */
export interface SquadDatasetOptions {
  /** Most tokens of a feature. Default 384 (the paper's). */
  readonly maxLength?: number;
  /** Tokens from the start of one window to that of the next. Default 128 (the paper's). */
  readonly docStride?: number;
  /** Most tokens of a question; the rest is cut off. Default 64. */
  readonly maxQueryLength?: number;
  /** Whether every batch is `maxLength` long (as in the paper; what metrics need) or as long as its longest feature. Default `max`. */
  readonly padding?: 'max' | 'longest';
}

/** One window over the context of one question. */
export interface SquadFeature {
  /** Number of the example among the data set's. */
  readonly example: number;
  /** Tokens of the feature, special ones included. */
  readonly length: number;
  /** Position of the first token of the context: after [CLS], the question and [SEP]; RoBERTa's has two `</s>`. */
  readonly contextBegin: number;
  /** Tokens of the context from number `firstToken` on, `tokenCount` of them. */
  readonly firstToken: number;
  readonly tokenCount: number;
  /** Positions of the first and the last token of the answer; 0 and 0 ([CLS]) when it has none, or not the whole of it in this window. */
  readonly startLabel: number;
  readonly endLabel: number;
}

/**
 * Features of questions. Labels of a batch are an Int32Array [batchSize, 2], row-major: start and end position of the answer, from the first annotator. A context is tokenized
 * once for all its questions.
 */
export class SquadDataset implements BatchSource<TextBatch> {
  readonly features: readonly SquadFeature[];
  readonly maxLength: number;
  readonly padding: 'max' | 'longest';
  /** Whether any question has no answer: SQuAD 2.0. */
  readonly hasImpossible: boolean;
  private readonly questions: readonly Int32Array[];
  private readonly contexts = new Map<string, TokenOffsets>();
  private readonly padTokenId: number;
  private readonly template: readonly TemplatePart[];

  /** @throws InvalidArgumentError for lengths that leave no room, UnsupportedModelError for a tokenizer without offsets, or whose pairs do not begin with [CLS] */
  constructor(
    readonly examples: readonly SquadExample[],
    tokenizer: Tokenizer,
    { maxLength = 384, docStride = 128, maxQueryLength = 64, padding = 'max' }: SquadDatasetOptions = {},
  ) {
    for (const [name, value] of Object.entries({ maxLength, docStride, maxQueryLength }))
      if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError(`${name} is ${value}; it must be a whole number from 1`);
    this.template = pairTemplate(tokenizer);
    const specials = specialTokens(this.template);
    if (maxLength < maxQueryLength + specials + 1)
      throw new InvalidArgumentError(`maxLength is ${maxLength}: with questions of up to ${maxQueryLength} tokens (maxQueryLength) and ${specials} special ones it must be ${maxQueryLength + specials + 1} or more`);
    this.maxLength = maxLength;
    this.padding = padding;
    this.hasImpossible = examples.some((e) => e.isImpossible);
    this.padTokenId = tokenizer.padTokenId;
    this.questions = examples.map((e) => tokenizer.idsWithOffsets(e.question).ids.slice(0, maxQueryLength));
    for (const { context } of examples) if (!this.contexts.has(context)) this.contexts.set(context, tokenizer.idsWithOffsets(context));
    const contextAt = this.template.findIndex((p) => 'text' in p && p.text === 'B');
    const before = specialTokens(this.template.slice(0, contextAt));
    const behind = specials - before;
    this.features = examples.flatMap((e, example) => {
      const tokens = this.tokensOf(e);
      const answer = answerTokens(e, tokens);
      const contextBegin = this.questions[example].length + before;
      return windows(tokens.ids.length, maxLength - contextBegin - behind, docStride).map(([firstToken, tokenCount]) => {
        const labels = answer && answer[0] >= firstToken && answer[1] < firstToken + tokenCount ? answer.map((t) => contextBegin + t - firstToken) : [0, 0];
        return { example, length: contextBegin + tokenCount + behind, contextBegin, firstToken, tokenCount, startLabel: labels[0], endLabel: labels[1] };
      });
    });
  }

  /** Number of features: at least one for each question. */
  get size(): number {
    return this.features.length;
  }

  shape(indices: ArrayLike<number>): BatchShape<TextBatch> {
    const lengths = Array.from(indices, (i) => {
      if (!Number.isInteger(i) || i < 0 || i >= this.size) throw new InvalidArgumentError(`feature ${i} of a data set of ${this.size}`);
      return this.features[i].length;
    });
    return { batchSize: lengths.length, length: this.padding === 'max' ? this.maxLength : Math.max(...lengths) };
  }

  batch(indices: ArrayLike<number>): TextBatch {
    const { batchSize, length } = this.shape(indices);
    const inputIds = new Int32Array(batchSize * length).fill(this.padTokenId);
    const tokenTypeIds = new Int32Array(batchSize * length);
    const attentionMask = new Int32Array(batchSize * length);
    const labels = new Int32Array(batchSize * 2);
    for (let row = 0; row < batchSize; row++) {
      const f = this.features[indices[row]];
      const context = this.tokensOf(this.examples[f.example]).ids.subarray(f.firstToken, f.firstToken + f.tokenCount);
      let at = row * length;
      attentionMask.fill(1, at, at + f.length);
      for (const part of this.template) {
        const ids = 'ids' in part ? part.ids : part.text === 'A' ? this.questions[f.example] : context;
        inputIds.set(ids, at);
        tokenTypeIds.fill(part.type, at, at + ids.length);
        at += ids.length;
      }
      labels.set([f.startLabel, f.endLabel], row * 2);
    }
    return { inputIds, tokenTypeIds, attentionMask, labels, batchSize, length };
  }

  /** Tokens of an example's context, and their places in it. */
  tokensOf(example: SquadExample): TokenOffsets {
    const tokens = this.contexts.get(example.context);
    if (!tokens) throw new InvalidArgumentError(`the context of question '${example.id}' is not of this data set`);
    return tokens;
  }

  /**
   * Official figures in percent of what a model predicted for every feature in order, with the default settings of `squadPredictions`: `f1` and `exact`; for SQuAD 2.0 also
   * `HasAns_f1`, `NoAns_f1` and `best_f1` (the most that a threshold below the default would reach, as the official script counts it). Bound to the data set: give it to the
   * trainer as it is. @throws InvalidArgumentError as `squadPredictions` does
   */
  readonly metrics = (predictions: Predictions): Readonly<Record<string, number>> => {
    const { texts, naScores } = squadPredictions(this, predictions);
    const { f1, exact, HasAns_f1, NoAns_f1, best_f1 } = evaluateSquad(this.examples, texts, this.hasImpossible ? { naScores, threshold: Infinity } : {});
    return { f1, exact, ...(this.hasImpossible && { ...(HasAns_f1 !== undefined && { HasAns_f1 }), NoAns_f1: NoAns_f1!, best_f1: best_f1! }) };
  };
}

const specialTokens = (template: readonly TemplatePart[]): number => template.reduce((n, p) => n + ('ids' in p ? p.ids.length : 0), 0);

/** What a question and its context become. Labels and predictions need [CLS] at position 0 (no answer) and the question before the context. */
function pairTemplate({ pairTemplate, clsTokenId }: Tokenizer): readonly TemplatePart[] {
  const texts = pairTemplate.flatMap((p) => ('text' in p ? [p.text] : [])).join();
  const [first] = pairTemplate;
  if (texts !== 'A,B' || !('ids' in first && first.ids[0] === clsTokenId))
    throw new UnsupportedModelError('pairs of this tokenizer are not [CLS] (or <s>), the first text, then the second: with the order of its post_processor position 0 could not stand for no answer');
  return pairTemplate;
}

/** First token and number of tokens of each window; one empty window for a context without tokens, so that no question goes unanswered. */
function windows(tokens: number, room: number, stride: number): [first: number, count: number][] {
  const out: [number, number][] = [];
  for (let first = 0; ; ) {
    const count = Math.min(tokens - first, room);
    out.push([first, count]);
    if (first + count === tokens) return out;
    first += Math.min(count, stride);
  }
}

/** First and last token that hold any of the answer; undefined when there is none, or no token has any of it (white space or control characters alone). */
function answerTokens({ answers }: SquadExample, { starts, ends }: TokenOffsets): [first: number, last: number] | undefined {
  if (answers.length === 0) return undefined;
  const [{ text, start }] = answers;
  // A token of blanks alone (RoBERTa's) has an empty place, and holds nothing.
  const first = ends.findIndex((end, i) => end > start && starts[i] < end);
  const last = starts.findLastIndex((s, i) => s < start + text.length && s < ends[i]);
  return first >= 0 && first <= last ? [first, last] : undefined;
}
