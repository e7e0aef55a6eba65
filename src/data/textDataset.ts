/** Labelled texts as token ids, ready to be made into batches. */
import { InvalidArgumentError } from '../errors';
import type { BatchShape, BatchSource, TextBatch } from '../models/model';
import type { Example, UnlabelledExample } from './glue';
import type { Encoding, Tokenizer } from './tokenizer';

/** How texts become batches. */
export interface TextDatasetOptions {
  /** Most tokens of a sequence. Default 128 (the paper's for GLUE). */
  readonly maxLength?: number;
  /** Whether every batch is `maxLength` long (as in the paper) or as long as its longest sequence. Default `max`. */
  readonly padding?: 'max' | 'longest';
  /** Whether labels are scores. Default: whether any is no whole number. */
  readonly regression?: boolean;
}

/** No class: an example without label can be predicted, not trained on. */
const UNKNOWN = -1;
const labelOf = (e: Example | UnlabelledExample): number => ('label' in e ? e.label : UNKNOWN);

/** Tokenized examples; those without label are for `predict`. */
export class TextDataset implements BatchSource<TextBatch> {
  private readonly encodings: readonly Encoding[];
  private readonly maxLength: number;
  private readonly padding: 'max' | 'longest';
  private readonly regression: boolean;
  private readonly padTokenId: number;

  constructor(
    readonly examples: readonly (Example | UnlabelledExample)[],
    tokenizer: Tokenizer,
    options: TextDatasetOptions = {},
  ) {
    this.maxLength = options.maxLength ?? 128;
    this.padding = options.padding ?? 'max';
    this.regression = options.regression ?? examples.some((e) => 'label' in e && !Number.isInteger(e.label));
    this.padTokenId = tokenizer.padTokenId;
    this.encodings = examples.map((e) => tokenizer.encode(e.text, e.pair, { maxLength: this.maxLength }));
  }

  get size(): number {
    return this.examples.length;
  }

  shape(indices: ArrayLike<number>): BatchShape<TextBatch> {
    const lengths = Array.from(indices, (i) => {
      if (!(i >= 0 && i < this.size)) throw new InvalidArgumentError(`example ${i} of a data set of ${this.size}`);
      return this.encodings[i].inputIds.length;
    });
    return { batchSize: lengths.length, length: this.padding === 'max' ? this.maxLength : Math.max(...lengths) };
  }

  batch(indices: ArrayLike<number>): TextBatch {
    const { length } = this.shape(indices);
    const rows = Array.from(indices);
    const inputIds = new Int32Array(rows.length * length).fill(this.padTokenId);
    const tokenTypeIds = new Int32Array(rows.length * length);
    const attentionMask = new Int32Array(rows.length * length);
    rows.forEach((i, row) => {
      const e = this.encodings[i];
      inputIds.set(e.inputIds, row * length);
      tokenTypeIds.set(e.tokenTypeIds, row * length);
      attentionMask.fill(1, row * length, row * length + e.inputIds.length);
    });
    const labels = rows.map((i) => labelOf(this.examples[i]));
    return { inputIds, tokenTypeIds, attentionMask, labels: this.regression ? Float32Array.from(labels) : Int32Array.from(labels), batchSize: rows.length, length };
  }
}
