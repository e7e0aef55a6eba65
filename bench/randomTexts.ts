/** Random sentences of full length, for benchmarks of time: what they say does not matter to it. */
import type { TextBatch } from '../src/models/model';
import { Random } from '../src/random';

/** B sequences of T tokens without padding, two classes; the same ones every time. */
export function randomTexts(vocabSize: number, B: number, T: number): TextBatch {
  const random = new Random(1);
  return {
    inputIds: Int32Array.from({ length: B * T }, () => 1 + random.int(vocabSize - 1)),
    tokenTypeIds: new Int32Array(B * T),
    attentionMask: new Int32Array(B * T).fill(1),
    labels: Int32Array.from({ length: B }, () => random.int(2)),
    batchSize: B,
    length: T,
  };
}
