/** What attacks are made of: files that were valid and are not any more, and JSON that is valid and is not what was asked for. Everything comes from fast-check, so that a seed repeats it. */
import fc from 'fast-check';

/** Numbers that stand at an edge of some type. */
const EDGES: readonly number[] = [0, 1, 2, 127, 128, 255, 256, 2 ** 15, 2 ** 16 - 1, 2 ** 20, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 40, 2 ** 53 - 1];

/** One change of a file. Places are parts of its length in 2^-20. */
interface Change {
  readonly how: 'flip' | 'set' | 'cut' | 'drop' | 'insert' | 'double' | 'swap' | 'number' | 'splice';
  readonly at: number;
  readonly to: number;
  readonly value: number;
  readonly edge: number;
  readonly width: 1 | 2 | 4 | 8;
}

const change: fc.Arbitrary<Change> = fc.record({
  how: fc.constantFrom('flip', 'flip', 'set', 'cut', 'drop', 'insert', 'double', 'swap', 'number', 'number', 'splice'),
  at: fc.nat(2 ** 20 - 1),
  to: fc.nat(2 ** 20 - 1),
  value: fc.nat(255),
  edge: fc.constantFrom(...EDGES),
  width: fc.constantFrom(1, 2, 4, 8),
});

/** @param other what a part of is put in (`splice`) */
function changed(bytes: Buffer, c: Change, other: Buffer): Buffer {
  const place = (share: number): number => Math.floor((share / 2 ** 20) * bytes.length);
  const [at, to] = [place(c.at), place(c.to)];
  const [first, last] = [Math.min(at, to), Math.max(at, to)];
  const out = Buffer.from(bytes);
  switch (c.how) {
    case 'flip':
      if (out.length > 0) out[at] ^= 1 << c.value % 8;
      return out;
    case 'set':
      if (out.length > 0) out[at] = c.value;
      return out;
    case 'cut':
      return out.subarray(0, at);
    case 'drop':
      return Buffer.concat([out.subarray(0, first), out.subarray(Math.min(last, first + c.value))]);
    case 'insert':
      return Buffer.concat([out.subarray(0, at), Buffer.alloc(c.value % 16, c.value), out.subarray(at)]);
    case 'double':
      return Buffer.concat([out.subarray(0, last), out.subarray(first)]);
    case 'swap': {
      const n = Math.min(1 + (c.value % 16), last - first, out.length - last);
      out.copyWithin(first, last, last + n);
      bytes.copy(out, last, first, first + n);
      return out;
    }
    case 'number': {
      // A length or an offset that lies.
      const number = Buffer.alloc(8);
      number.writeBigUInt64LE(BigInt(c.edge));
      number.copy(out, at, 0, Math.min(c.width, out.length - at));
      return out;
    }
    case 'splice': {
      const from = Math.floor((c.to / 2 ** 20) * other.length);
      return Buffer.concat([out.subarray(0, at), other.subarray(from)]);
    }
  }
}

/** Some valid file with one to four changes. The first quarter of the file, where headers are, and its end are changed more often. */
export function damaged(...files: readonly (readonly [Uint8Array, ...Uint8Array[]])[]): fc.Arbitrary<Buffer> {
  const all = files.flat();
  const near = fc.constantFrom<(at: number) => number>((at) => at, (at) => at >> 2, (at) => at >> 5, (at) => 2 ** 20 - 1 - (at >> 5));
  return fc
    .tuple(fc.constantFrom(...all), fc.constantFrom(...all), fc.array(fc.tuple(change, near), { minLength: 1, maxLength: 4 }))
    .map(([file, other, changes]) => changes.reduce((bytes, [c, place]) => changed(bytes, { ...c, at: place(c.at) }, Buffer.from(other)), Buffer.from(file)));
}

/** Texts that stand for what JSON.stringify cannot write. */
const WRITTEN: readonly (readonly [string, string])[] = [
  ['@huge', '1e999'],
  ['@tiny', '1e-400'],
  ['@digits', '123456789012345678901234567890'],
  ['@lists', `${'['.repeat(20_000)}${']'.repeat(20_000)}`],
  ['@objects', `${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`],
];

/** A value as JSON, with what `hostileValue` means by its marks; undefined, which an edit may copy, as null. */
export function jsonOf(value: unknown): string {
  return WRITTEN.reduce((text, [mark, json]) => text.replaceAll(`"${mark}"`, json), JSON.stringify(value) ?? 'null');
}

const KEYS: readonly string[] = ['__proto__', 'constructor', 'toString', 'valueOf', 'length', 'hasOwnProperty', '', 'a', '0', '1', 'type', 'name', 'id'];

/** Own properties whatever the key, `__proto__` included. */
const objectOf = (entries: readonly (readonly [string, unknown])[]): object => Object.fromEntries(entries);

/** Any JSON value, those more often at which programs stumble. */
export const hostileValue: fc.Arbitrary<unknown> = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.constantFrom<unknown>(null, true, false, 0, -0, 1, -1, 0.5, 1e300, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 31), '', 'a', '0', 'NaN', 'Infinity', '__proto__', '\ud83d', '\u0000', '\ufeff', '[UNK]', [], {}, [[]], [null]),
    fc.constantFrom<unknown>(...WRITTEN.map(([mark]) => mark), 'x'.repeat(5000), { toString: 1, valueOf: 2 }, { toString: null }, { length: 2 ** 32 }),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.string({ maxLength: 8, unit: 'grapheme' }),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.array(fc.tuple(fc.oneof(fc.constantFrom(...KEYS), fc.string({ maxLength: 4 })), tie('value')), { maxLength: 4 }).map(objectOf),
  ),
})).value;

interface Edit {
  readonly at: number;
  readonly how: 'replace' | 'replace' | 'remove' | 'rename' | 'add' | 'copy' | 'wrap' | 'double' | 'number';
  readonly key: string;
  readonly value: unknown;
  readonly from: number;
  readonly edge: number;
}

const edit: fc.Arbitrary<Edit> = fc.record({
  at: fc.nat(2 ** 20),
  how: fc.constantFrom('replace', 'replace', 'remove', 'rename', 'add', 'copy', 'wrap', 'double', 'number'),
  key: fc.constantFrom(...KEYS),
  value: hostileValue,
  from: fc.nat(2 ** 20),
  edge: fc.constantFrom(...EDGES, -1, 0.5, 2 ** 53),
});

type Place = { readonly holder: Record<string, unknown>; readonly key: string };

function placesOf(value: unknown, out: Place[] = []): Place[] {
  if (value === null || typeof value !== 'object') return out;
  for (const key of Object.keys(value)) {
    out.push({ holder: value as Record<string, unknown>, key });
    placesOf((value as Record<string, unknown>)[key], out);
  }
  return out;
}

const put = (holder: object, key: string, value: unknown): void => void Object.defineProperty(holder, key, { value, enumerable: true, configurable: true, writable: true });

function edited(document: unknown, edits: readonly Edit[]): unknown {
  const root = { document: structuredClone(document) };
  for (const e of edits) {
    const places = placesOf(root);
    // The root itself seldom: it is one of many places.
    const { holder, key } = places[e.at % places.length];
    const from = places[e.from % places.length];
    switch (e.how) {
      case 'replace':
        put(holder, key, e.value);
        break;
      case 'remove':
        if (Array.isArray(holder)) holder.splice(Number(key), 1);
        else if (holder !== root) delete holder[key];
        break;
      case 'rename':
        if (holder === root || Array.isArray(holder)) break;
        put(holder, e.key, holder[key]);
        delete holder[key];
        break;
      case 'add':
        if (holder[key] !== null && typeof holder[key] === 'object') put(holder[key] as object, Array.isArray(holder[key]) ? String((holder[key] as unknown[]).length) : e.key, e.value);
        break;
      case 'copy':
        put(holder, key, structuredClone(from.holder[from.key]));
        break;
      case 'wrap':
        put(holder, key, [holder[key]]);
        break;
      case 'double':
        if (Array.isArray(holder[key])) put(holder, key, [...(holder[key] as unknown[]), ...(holder[key] as unknown[])]);
        break;
      case 'number':
        if (typeof holder[key] === 'number') put(holder, key, e.edge);
        break;
    }
  }
  return root.document;
}

/** Valid documents with none to three edits. */
export function editedJson(...documents: readonly unknown[]): fc.Arbitrary<unknown> {
  return fc.tuple(fc.constantFrom(...documents), fc.array(edit, { maxLength: 3 })).map(([document, edits]) => edited(document, edits));
}

/** Text of a JSON file: edited documents, any other value, damaged text, any bytes. */
export function jsonFile(...documents: readonly unknown[]): fc.Arbitrary<Uint8Array> {
  const [first, ...more] = documents.map((d) => Buffer.from(jsonOf(d)));
  return fc.oneof(
    { weight: 12, arbitrary: editedJson(...documents).map((v) => Buffer.from(jsonOf(v))) },
    { weight: 2, arbitrary: hostileValue.map((v) => Buffer.from(jsonOf(v))) },
    { weight: 3, arbitrary: damaged([first, ...more]) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }).map((b) => Buffer.from(b)) },
  );
}

/** Binary files: damaged ones and any bytes. */
export function binaryFile(first: Uint8Array, ...more: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  return fc.oneof({ weight: 12, arbitrary: damaged([first, ...more]) }, { weight: 1, arbitrary: fc.uint8Array({ maxLength: 300 }).map((b) => Buffer.from(b)) });
}
