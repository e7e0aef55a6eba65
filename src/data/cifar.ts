/**
 * CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their original binary files. A record is the label (CIFAR-10: one byte; CIFAR-100: coarse, then fine) and 3072 bytes: 32×32 red, then green, then blue,
 * row by row. Their Parquet form is read by `ImageRows`.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { DataRowError, InvalidArgumentError } from '../errors';
import { readDataFile, utf8 } from './dataFile';
import { numberedLabels, type ImageSource } from './imageSource';
import type { StoredImage } from './pixels/decode';

const SIDE = 32;
const PLANE = SIDE * SIDE;

/** CIFAR images in memory, as many as the files hold. */
export class Cifar implements ImageSource {
  readonly imageSize = { height: SIDE, width: SIDE };
  readonly labels: Int32Array;

  /** @param records label bytes, of which the last counts unless `labelByte` says otherwise, and three planes of 1024 bytes, one record behind the other */
  constructor(
    private readonly records: readonly Uint8Array[],
    labelByte: number,
    private readonly labelBytes: number,
    readonly labelNames: readonly string[],
  ) {
    this.labels = Int32Array.from(records, (r) => r[labelByte]);
  }

  get size(): number {
    return this.records.length;
  }

  image(index: number): StoredImage {
    const planes = this.records[index].subarray(this.labelBytes);
    const data = new Uint8Array(3 * PLANE);
    for (let i = 0; i < PLANE; i++) {
      data[3 * i] = planes[i];
      data[3 * i + 1] = planes[PLANE + i];
      data[3 * i + 2] = planes[2 * PLANE + i];
    }
    return { kind: 'rgb', image: { ...this.imageSize, data } };
  }
}

/**
 * CIFAR-10, for example from data_batch_1.bin … data_batch_5.bin. Class names come from batches.meta.txt beside the first file, if it is there.
 * @throws FileMissingError; DataRowError naming file, record (from 1) and reason: a file that is no whole number of records, a label above 9
 */
export function readCifar10(files: string | readonly string[]): Cifar {
  return readRecords(files, ['label'], 0, [10], 'batches.meta.txt');
}

/**
 * CIFAR-100, for example from train.bin. Class names come from fine_label_names.txt or coarse_label_names.txt beside the first file, if they are there.
 * @param options labels `fine` (default): 100 classes; `coarse`: their 20 groups
 * @throws as `readCifar10`
 */
export function readCifar100(files: string | readonly string[], options: { readonly labels?: 'fine' | 'coarse' } = {}): Cifar {
  const labels = options.labels ?? 'fine';
  if (labels !== 'fine' && labels !== 'coarse') throw new InvalidArgumentError(`CIFAR-100 has fine and coarse labels, not '${String(labels)}'`);
  return readRecords(files, ['coarse label', 'fine label'], labels === 'fine' ? 1 : 0, [20, 100], `${labels}_label_names.txt`);
}

function readRecords(files: string | readonly string[], kinds: readonly string[], labelByte: number, classes: readonly number[], namesFile: string): Cifar {
  const list = typeof files === 'string' ? [files] : files;
  if (list.length === 0) throw new InvalidArgumentError('no CIFAR files were named');
  const length = kinds.length + 3 * PLANE;
  const records: Uint8Array[] = [];
  for (const file of list) {
    const bytes = readDataFile(file, "CIFAR's binary version has it");
    const count = Math.floor(bytes.length / length);
    if (bytes.length === 0 || bytes.length % length !== 0) throw new DataRowError(file, count + 1, `the file has ${bytes.length} bytes, no whole number of records of ${length}: it is cut off or of another kind`);
    for (let i = 0; i < count; i++) {
      const record = bytes.subarray(i * length, (i + 1) * length);
      kinds.forEach((kind, k) => {
        if (record[k] >= classes[k]) throw new DataRowError(file, i + 1, `${kind} ${record[k]} is no class from 0 to ${classes[k] - 1}`);
      });
      records.push(record);
    }
  }
  return new Cifar(records, labelByte, kinds.length, readNames(path.join(path.dirname(list[0]), namesFile), classes[labelByte]));
}

/** One name a line. */
function readNames(file: string, classes: number): readonly string[] {
  if (!existsSync(file)) return numberedLabels(classes);
  const text = utf8(readDataFile(file, 'it names the classes'));
  if (text === undefined) throw new DataRowError(file, 1, 'the file is no UTF-8 text');
  const names = text.split(/\r?\n/).map((l) => l.trim()).filter((l) => l !== '');
  if (names.length !== classes) throw new DataRowError(file, names.length + 1, `${names.length} class names instead of ${classes}`);
  return names;
}
