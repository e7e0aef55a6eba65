/** Labelled images wherever they come from, and those that are rows of a table. */
import { DataRowError, InvalidArgumentError } from '../errors';
import { shown } from '../shown';
import type { StoredImage } from './pixels/decode';
import type { ImageSize } from './pixels/rgbImage';

/** Labelled images, each handed out as it is stored. */
export interface ImageSource {
  /** Number of images. */
  readonly size: number;
  /** Class of each image. */
  readonly labels: Int32Array;
  /** Names of the classes. */
  readonly labelNames: readonly string[];
  /** The size that all images have, when it is known that they share one. */
  readonly imageSize?: ImageSize;
  /** The image of number `index`, from 0 to size − 1. */
  image(index: number): StoredImage;
}

/** A row of a Hugging Face image data set: `img` or `image` holds an encoded image, `label` or `fine_label` its class. */
export type ImageRow = Readonly<Record<string, unknown>>;

/** Which columns hold what. */
export interface ImageRowOptions {
  /** Column of the image. Default `image` or `img`. */
  readonly imageColumn?: string;
  /** Column of the class. Default `label` or `fine_label`. */
  readonly labelColumn?: string;
  /** Names of the classes. Default: LABEL_0 … up to the largest label there is. */
  readonly labelNames?: readonly string[];
}

/** LABEL_0, LABEL_1, …, as Hugging Face names classes without names. */
export function numberedLabels(n: number): string[] {
  return Array.from({ length: n }, (_, i) => `LABEL_${i}`);
}

/** Images in rows, such as those of a Parquet file: { img: { bytes }, label }. The bytes stay encoded until a batch needs them. */
export class ImageRows implements ImageSource {
  readonly labels: Int32Array;
  readonly labelNames: readonly string[];
  private readonly encoded: readonly Uint8Array[];

  /** @throws DataRowError naming the row (from 1); InvalidArgumentError for no rows or a missing column */
  constructor(
    rows: readonly ImageRow[],
    options: ImageRowOptions = {},
    /** What errors call the rows, usually the file that they are from. */
    readonly name: string = 'rows',
  ) {
    if (rows.length === 0) throw new InvalidArgumentError(`${name}: no rows`);
    const column = (given: string | undefined, usual: readonly string[]): string => {
      const found = (given === undefined ? usual : [given]).find((c) => Object.hasOwn(rows[0], c));
      if (found === undefined) throw new InvalidArgumentError(`${name}: no column '${given ?? usual.join("' or '")}' among ${Object.keys(rows[0]).map((c) => `'${c}'`).join(', ')}`);
      return found;
    };
    const imageColumn = column(options.imageColumn, ['image', 'img']);
    const labelColumn = column(options.labelColumn, ['label', 'fine_label']);
    this.encoded = rows.map((row, i) => {
      const value = row[imageColumn] as { bytes?: unknown } | Uint8Array | null | undefined;
      const bytes = value instanceof Uint8Array ? value : value?.bytes;
      if (!(bytes instanceof Uint8Array)) throw new DataRowError(name, i + 1, `column '${imageColumn}' holds no { bytes } of an encoded image`);
      return bytes;
    });
    this.labels = Int32Array.from(rows, (row, i) => {
      // Parquet's 64-bit integers come as bigint.
      const label = typeof row[labelColumn] === 'bigint' ? Number(row[labelColumn]) : row[labelColumn];
      const most = options.labelNames?.length ?? 2 ** 20;
      if (!(Number.isInteger(label) && (label as number) >= 0 && (label as number) < most)) throw new DataRowError(name, i + 1, `label ${shown(label)} in column '${labelColumn}' is no class from 0 to ${most - 1}`);
      return label as number;
    });
    this.labelNames = options.labelNames ?? numberedLabels(this.labels.reduce((a, b) => Math.max(a, b), 0) + 1);
  }

  get size(): number {
    return this.encoded.length;
  }

  image(index: number): StoredImage {
    return { kind: 'encoded', bytes: this.encoded[index], name: `${this.name}, row ${index + 1}` };
  }
}
