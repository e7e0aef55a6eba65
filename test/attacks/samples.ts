/** Small valid files of every kind, made here: what attacks begin with. */
import { createHmac } from 'node:crypto';
import fc from 'fast-check';
import { robertaTokenizerJson } from '../../src/data/robertaVocabulary';
import { CATEGORIES, type Category } from '../../src/engine/engine';
import { type RawArray, rawTypeOf } from '../../src/hub/safetensors';
import { History } from '../../src/training/history';
import { historyContents } from '../../src/training/historyFile';
import { editedJson, hostileValue, jsonOf } from './mutations';

/** A WordPiece vocabulary. */
export const VOCABULARY: readonly string[] = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'b', 'ab', '##b', 'x', 'é', '中', '.'];

/** Printable characters for all bytes, as GPT-2 has them. */
const BYTES = Array.from({ length: 256 }, (_, b) => b).reduce<{ out: string[]; next: number }>(
  ({ out, next }, b) => ((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xff && b !== 0xad) ? { out: [...out, String.fromCharCode(b)], next } : { out: [...out, String.fromCharCode(next)], next: next + 1 }),
  { out: [], next: 0x100 },
).out;

/** RoBERTa's files of a tiny vocabulary, and the tokenizer.json of the same. */
export function bpeFolder(): { readonly vocab: Record<string, number>; readonly merges: string; readonly tokenizer: object } {
  const tokens = ['<s>', '<pad>', '</s>', '<unk>', ...BYTES, 'ab', 'Ġa', '<mask>'];
  const vocab = Object.fromEntries(tokens.map((t, i) => [t, i]));
  const merges = '#version: 0.2\na b\nĠ a\n';
  return { vocab, merges, tokenizer: robertaTokenizerJson({ vocabulary: vocab, merges }) };
}

/** A small SQuAD file, with characters beyond the BMP. */
export const SQUAD = {
  version: 'v2.0',
  data: [
    {
      title: 'T',
      paragraphs: [
        {
          context: '😀 Ann and Bob.',
          qas: [
            { id: '1', question: 'Who?', answers: [{ text: 'Ann', answer_start: 2 }, { text: 'Bob', answer_start: 10 }], is_impossible: false },
            { id: '2', question: 'Where?', answers: [], is_impossible: true, plausible_answers: [{ text: 'Ann', answer_start: 2 }] },
          ],
        },
      ],
    },
    { title: 'U', paragraphs: [{ context: 'Cy.', qas: [{ id: '3', question: 'Who?', answers: [{ text: 'Cy', answer_start: 0 }] }] }] },
  ],
};

/** A CIFAR file of so many records. */
export function cifarFile(classes: number, records: number): Buffer {
  const labels = classes === 10 ? 1 : 2;
  return Buffer.concat(Array.from({ length: records }, (_, r) => Buffer.concat([Buffer.alloc(labels, r + 3), Buffer.from(Array.from({ length: 3072 }, (_, i) => (i * 7 + r) % 256))])));
}

/** A safetensors file of any header and data. @param claimed length of the header, when it lies */
export function safetensorsFile(header: unknown, data: Uint8Array, claimed?: bigint): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : jsonOf(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(claimed ?? BigInt(json.length));
  return Buffer.concat([prefix, json, data]);
}

/** Tensors as a file, for arrays that are written as they are. */
function fileOf(arrays: Readonly<Record<string, RawArray>>): Buffer {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let at = 0;
  const parts = Object.entries(arrays).map(([name, a]) => {
    header[name] = { dtype: rawTypeOf(name, a), shape: [a.length], data_offsets: [at, at + a.byteLength] };
    at += a.byteLength;
    return Buffer.from(a.buffer, a.byteOffset, a.byteLength);
  });
  return safetensorsFile(header, Buffer.concat(parts));
}

/** Valid files, and headers that lie. */
export function craftedSafetensors(): { readonly plain: Buffer; readonly mixed: Buffer; readonly raw: Buffer; readonly attacks: fc.Arbitrary<Buffer> } {
  const header = {
    __metadata__: { format: 'pt' },
    a: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
    empty: { dtype: 'F32', shape: [0, 5], data_offsets: [24, 24] },
    h: { dtype: 'F16', shape: [4], data_offsets: [24, 32] },
    i: { dtype: 'I64', shape: [1], data_offsets: [32, 40] },
    scalar: { dtype: 'F64', shape: [], data_offsets: [40, 48] },
  };
  const data = Buffer.alloc(48, 7);
  data.writeBigInt64LE(5n, 32);
  const plain = fileOf({ a: Float32Array.of(1, 2, 3), b: Int32Array.of(4) });
  const lies = fc.constantFrom<bigint | undefined>(undefined, undefined, undefined, 0n, 1n, 7n, 8n, 100_000_000n, 100_000_001n, 2n ** 31n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n);
  return {
    plain,
    mixed: safetensorsFile(header, data),
    raw: fileOf({ a: Float64Array.of(1, NaN), b: Uint8Array.of(1, 2, 3, 4), c: Int32Array.of(1), d: Int8Array.of(1), e: Uint8Array.of(3, 4, 5) }),
    attacks: fc.tuple(fc.oneof(editedJson(header), editedJson(header), hostileValue), fc.constantFrom(data, data, data.subarray(0, 47), Buffer.concat([data, data])), lies).map(([h, d, n]) => safetensorsFile(h, d, n)),
  };
}

/** A history of a few steps. */
function history(): History {
  const layers = [
    { index: 0, name: 'e.weight', kind: 'embedding', shape: [5, 4], parameters: 20 },
    { index: 1, name: 'l.weight', kind: 'linear', shape: [4, 8], parameters: 32 },
  ] as const;
  const h = new History(layers, 'run');
  const byCategory = Object.fromEntries(CATEGORIES.map((c, i) => [c, 100 * i])) as Record<Category, number>;
  for (let step = 0; step < 3; step++) {
    h.append({
      step, epoch: 0, loss: 1 / (step + 1), learningRate: 0.001, frozen: [step % 2], active: [1 - (step % 2)], overruled: step === 1 ? [0] : [], updateMagnitudes: Float64Array.of(step, NaN),
      activations: [{ layer: 'l', what: 'input', role: 'dynamic', encoding: 'q3.4', shape: [4], bytes: 4, padding: 0 }],
      activationBytes: 4, fullActivations: { total: 10, parts: { embeddings: 10 } }, freezingSaves: Float64Array.of(1, 2), course: [{ phase: 'forward', layer: 'l', activationBytes: 4, deviceBytes: 8 }],
      encodingErrors: [{ layer: 'l', what: 'input', encoding: 'q3.4', clipped: 0, zeroed: 0.5, relativeError: 0.1 }],
      memory: { live: byCategory, peak: byCategory, totalLive: 1, totalPeak: 2, tensors: 3 }, milliseconds: 1, dataMilliseconds: 0.5, examples: 4, tokens: 16,
    });
  }
  h.addEvaluation(3, { accuracy: 0.5, loss: NaN });
  return h;
}

/** What `saveHistory` writes. */
export const historyDocument = (): object => JSON.parse(JSON.stringify(history())) as object;

/** What a checkpoint holds of a history. */
export async function historyTensors(): Promise<{ readonly head: object; readonly columns: Buffer }> {
  const contents = historyContents(history());
  const columns: Uint8Array[] = [];
  for await (const part of contents.columns()) columns.push(part.slice());
  return { head: JSON.parse(Buffer.concat([...contents.head()]).toString()) as object, columns: Buffer.concat(columns) };
}

/** Frames of kernel messages: most signed with the key 'key', so that what is in them is looked at. */
export function signedFrames(): fc.Arbitrary<Buffer[]> {
  const header = { msg_id: '1', session: 's', username: 'u', date: '2024-01-01T00:00:00Z', msg_type: 'execute_request', version: '5.3' };
  const part = (document: object) => fc.oneof(editedJson(document).map((v) => Buffer.from(jsonOf(v))), fc.constant(Buffer.from(JSON.stringify(document))), fc.uint8Array({ maxLength: 20 }).map((b) => Buffer.from(b)));
  const frame = fc.oneof(fc.uint8Array({ maxLength: 12 }).map((b) => Buffer.from(b)), fc.constantFrom(Buffer.from('<IDS|MSG>'), Buffer.from('{}'), Buffer.alloc(0)));
  const signed = fc.tuple(fc.array(frame, { maxLength: 2 }), part(header), part({}), part({}), part({ code: '1 + 1', silent: false }), fc.array(frame, { maxLength: 2 })).map(([identities, h, parent, metadata, content, buffers]) => {
    const parts = [h, parent, metadata, content];
    const hmac = createHmac('sha256', 'key');
    for (const p of parts) hmac.update(p);
    return [...identities, Buffer.from('<IDS|MSG>'), Buffer.from(hmac.digest('hex')), ...parts, ...buffers];
  });
  return fc.oneof({ weight: 5, arbitrary: signed }, { weight: 1, arbitrary: fc.array(frame, { maxLength: 9 }) });
}
