/**
 * Masked language modelling (Devlin et al. 2019, §3.1): 15 % of the tokens are to be guessed; of these 80 % are replaced by [MASK], 10 % by a random token, 10 % stay.
 */
import { IGNORED_LABEL } from '../models/bert';
import type { BatchSource, TextBatch } from '../models/model';
import { Random } from '../random';
import type { Tokenizer } from './tokenizer';

/** Unlabelled texts; every batch draws its masks anew, from a stream seeded by the examples in it and a count. */
export class MaskedLmDataset implements BatchSource<TextBatch> {
  private readonly sequences: readonly (readonly number[])[];
  private drawn = 0;

  constructor(
    texts: readonly string[],
    private readonly tokenizer: Tokenizer,
    private readonly maxLength: number,
    private readonly seed: number,
  ) {
    this.sequences = texts.map((t) => tokenizer.encode(t, undefined, { maxLength }).inputIds);
  }

  get size(): number {
    return this.sequences.length;
  }

  batch(indices: ArrayLike<number>): TextBatch {
    const random = new Random(this.seed + 2 ** 32 * ++this.drawn);
    const special = this.tokenizer.specialIds;
    const batchSize = indices.length;
    const length = this.maxLength;
    const inputIds = new Int32Array(batchSize * length).fill(this.tokenizer.padTokenId);
    const attentionMask = new Int32Array(batchSize * length);
    const labels = new Int32Array(batchSize * length).fill(IGNORED_LABEL);
    for (let row = 0; row < batchSize; row++) {
      const ids = this.sequences[indices[row]];
      const candidates = ids.flatMap((id, i) => (special.has(id) ? [] : [i]));
      const wanted = Math.max(1, Math.round(0.15 * candidates.length));
      const order = random.permutation(candidates.length);
      const chosen = new Set(Array.from(order.subarray(0, wanted), (k) => candidates[k]));
      ids.forEach((id, i) => {
        const at = row * length + i;
        attentionMask[at] = 1;
        inputIds[at] = id;
        if (!chosen.has(i)) return;
        labels[at] = id;
        const u = random.uniform();
        if (u < 0.8) inputIds[at] = this.tokenizer.maskTokenId;
        else if (u < 0.9) inputIds[at] = random.int(this.tokenizer.vocabSize);
      });
    }
    return { inputIds, tokenTypeIds: new Int32Array(batchSize * length), attentionMask, labels, batchSize, length };
  }
}
