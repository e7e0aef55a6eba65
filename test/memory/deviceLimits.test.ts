/** The largest single tensor of a step, which a WebGPU device must hold in one buffer: BERT-base and ViT-Base at batch 128, run on shapes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ShapeEngine } from '../../src/engine/shapeEngine';
import { parseBertConfig } from '../../src/hub/config';
import { parseViTConfig } from '../../src/hub/vitConfig';
import { type MemoryQuery, planMemory } from '../../src/memory/planner';

const MIB = 2 ** 20;
/** What Dawn gives of a large NVIDIA GPU: maxStorageBufferBindingSize. */
const LARGE_GPU = 2 ** 31 - 4;
/** What every WebGPU device promises (maxStorageBufferBindingSize), and the next size of buffers (maxBufferSize). */
const [PROMISED_BINDING, PROMISED_BUFFER] = [128 * MIB, 256 * MIB];

/** Bytes of the largest tensor that a step makes. */
function largestTensor(query: MemoryQuery): number {
  const books = ShapeEngine.prototype as unknown as { own(raw: undefined, shape: readonly number[], ...rest: unknown[]): unknown };
  const own = books.own;
  let largest = 0;
  books.own = function (raw, shape, ...rest) {
    largest = Math.max(largest, 4 * shape.reduce((a, b) => a * b, 1));
    return own.call(this, raw, shape, ...rest);
  };
  try {
    planMemory(query);
  } finally {
    // Inherited: what was put in front of it goes.
    delete (books as Partial<typeof books>).own;
  }
  assert.equal(books.own, own);
  return largest;
}

const bert = { kind: 'sequence-classification', config: parseBertConfig({ model_type: 'bert' }), batchSize: 128, length: 384 } as const;
const vit = { kind: 'image-classification', config: parseViTConfig({ model_type: 'vit', num_labels: 10 }), batchSize: 128 } as const;
const CASES: readonly (readonly [string, MemoryQuery])[] = [
  ['BERT-base, 128 × 384 tokens', bert],
  ['ViT-Base, 128 images of 224 pixels', { ...vit, imageSize: 224 }],
  ['ViT-Base, 128 images of 384 pixels (577 tokens)', { ...vit, imageSize: 384 }],
];

for (const [name, query] of CASES) {
  test(`${name}: every tensor of a step fits in a buffer of a large GPU, in every mode`, (t) => {
    for (const [mode, freezeRate] of [['exact', 0], ['paper', 0.9], ['tuned', 0.95]] as const) {
      const largest = largestTensor({ ...query, mode, freezeRate });
      t.diagnostic(`${mode}: ${(largest / MIB).toFixed(1)} MiB`);
      assert.ok(largest <= LARGE_GPU, `${mode}: ${largest}`);
    }
  });
  test(`${name}: in blocks of 64 MiB no tensor is larger than 256 MiB, and N·H elements are there in one piece`, () => {
    for (const settings of [{ mode: 'tuned', freezeRate: 0.95 }, { mode: 'exact', freezeRate: 0, blockBytes: 64 * MIB }] as const) {
      const largest = largestTensor({ ...query, ...settings });
      assert.ok(largest <= PROMISED_BUFFER, `${settings.mode}: ${largest}`);
      const tokens = query.length ?? (query.imageSize! / 16) ** 2 + 1;
      assert.ok(largest >= 4 * 128 * tokens * 768, `${settings.mode}: ${largest}`);
    }
  });
}

test('the binding of 128 MiB that WebGPU promises is too small for BERT-base at 128 × 384, so that a device is opened with its own limits', () => {
  assert.ok(largestTensor({ ...bert, mode: 'tuned', freezeRate: 0.95 }) > PROMISED_BINDING);
});
