/**
 * Images in folders, a class each, as torchvision's ImageFolder reads them: classes in sorted order, files of a class in sorted order, folders in it too. Hidden files are left out. Nothing outside the folder is
 * read: a link that leads out is an error.
 */
import { lstatSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { FileMissingError, ImageDecodeError, InvalidArgumentError } from '../errors';
import type { ImageSource } from './imageSource';
import { decodeImage, type StoredImage } from './pixels/decode';

/** An image that cannot be used, and why. */
export interface BrokenImage {
  /** Path within the folder. */
  readonly file: string;
  readonly reason: string;
}

const EXTENSIONS = new Set(['.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.gif', '.webp', '.tif', '.tiff', '.avif']);

interface Listing {
  readonly labelNames: readonly string[];
  /** Paths within the folder, with `/`. */
  readonly files: readonly string[];
  readonly labels: Int32Array;
  readonly ignored: readonly string[];
  readonly broken: readonly BrokenImage[];
}

/** Images of one folder, listed but not decoded. */
export class ImageFolder implements ImageSource {
  private constructor(
    /** Its real path. */
    readonly folder: string,
    private readonly listing: Listing,
  ) {}

  /** Lists a folder. @throws FileMissingError for no such folder; InvalidArgumentError for no classes, a class without images, a link that leads out or to a folder */
  static open(folder: string): ImageFolder {
    let root: string;
    try {
      root = realpathSync(folder);
      if (!statSync(root).isDirectory()) throw new Error('it is no folder');
    } catch (cause) {
      throw new FileMissingError(`no folder ${folder}: ${(cause as Error).message}`, { cause });
    }
    return new ImageFolder(root, list(root));
  }

  get size(): number {
    return this.listing.files.length;
  }

  /** Names of the classes: the sub-folders. */
  get labelNames(): readonly string[] {
    return this.listing.labelNames;
  }

  get labels(): Int32Array {
    return this.listing.labels;
  }

  /** The images' paths within the folder, in order. */
  get files(): readonly string[] {
    return this.listing.files;
  }

  /** Files that are not taken for images: of another extension, or in no class. Hidden ones are not listed. */
  get ignored(): readonly string[] {
    return this.listing.ignored;
  }

  /** What `check('skip')` left out. */
  get broken(): readonly BrokenImage[] {
    return this.listing.broken;
  }

  image(index: number): StoredImage {
    return { kind: 'file', path: path.join(this.folder, this.listing.files[index]) };
  }

  /**
   * Decodes every image once, before training, so that broken ones are found now and not in the middle of an epoch; batches keep their size and a run repeats, as the list never changes afterwards.
   * @param onBroken `error` (default): throws; `skip`: the result is a folder without them, which names them in `broken`
   * @throws ImageDecodeError naming the first broken file and how many there are; InvalidArgumentError when `skip` leaves a class without images
   */
  async check(onBroken: 'error' | 'skip' = 'error'): Promise<ImageFolder> {
    const { files, labels, labelNames } = this.listing;
    const found: (ImageDecodeError | undefined)[] = new Array(files.length).fill(undefined);
    let next = 0;
    const worker = async (): Promise<void> => {
      for (let i = next++; i < files.length; i = next++) {
        try {
          await decodeImage(this.image(i));
        } catch (error) {
          if (!(error instanceof ImageDecodeError)) throw error;
          found[i] = error;
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(4, availableParallelism()) }, worker));
    const errors = found.filter((e): e is ImageDecodeError => e !== undefined);
    if (errors.length === 0) return this;
    if (onBroken === 'error') throw new ImageDecodeError(errors[0].file, `${errors[0].reason}${errors.length > 1 ? `; ${errors.length - 1} more images of ${this.folder} are broken` : ''}: remove them, or leave them out with check('skip')`);
    const kept = files.flatMap((_, i) => (found[i] ? [] : [i]));
    const left = new Set(kept.map((i) => labels[i]));
    const empty = labelNames.find((_, label) => !left.has(label));
    if (empty !== undefined) throw new InvalidArgumentError(`${this.folder}: every image of class '${empty}' is broken: ${errors[0].message}`);
    return new ImageFolder(this.folder, {
      ...this.listing,
      files: kept.map((i) => files[i]),
      labels: Int32Array.from(kept, (i) => labels[i]),
      broken: [...this.broken, ...errors.map((e) => ({ file: path.relative(this.folder, e.file), reason: e.reason }))],
    });
  }
}

const bySpelling = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function list(root: string): Listing {
  const ignored: string[] = [];
  const labelNames: string[] = [];
  const files: string[] = [];
  const labels: number[] = [];
  for (const name of visible(root)) {
    if (kindOf(root, name) === 'file') {
      ignored.push(name);
      continue;
    }
    const images = imagesBelow(root, name, ignored);
    if (images.length === 0) throw new InvalidArgumentError(`${root}: class '${name}' has no images (${[...EXTENSIONS].join(', ')}): remove the sub-folder, or fill it`);
    for (const file of images) {
      files.push(file);
      labels.push(labelNames.length);
    }
    labelNames.push(name);
  }
  if (labelNames.length === 0) throw new InvalidArgumentError(`${root}: no sub-folders: each class is a folder of images`);
  return { labelNames, files, labels: Int32Array.from(labels), ignored, broken: [] };
}

const visible = (folder: string): string[] =>
  readdirSync(folder)
    .filter((name) => !name.startsWith('.'))
    .sort(bySpelling);

/** What stands at a path within the root; links are looked through, unless they lead out or to a folder (which could lead in circles). */
function kindOf(root: string, inside: string): 'folder' | 'file' {
  const at = path.join(root, inside);
  const own = lstatSync(at);
  if (!own.isSymbolicLink()) return own.isDirectory() ? 'folder' : 'file';
  let target: string;
  try {
    target = realpathSync(at);
  } catch (cause) {
    throw new InvalidArgumentError(`${at} is a link to nothing: remove it`, { cause });
  }
  if (!target.startsWith(root + path.sep)) throw new InvalidArgumentError(`${at} is a link out of the folder, to ${target}: copy what it points at into the folder`);
  if (statSync(target).isDirectory()) throw new InvalidArgumentError(`${at} is a link to a folder: copy the folder`);
  return 'file';
}

/** Images of one class. torchvision's order: folders sorted by path, in each its files sorted. */
function imagesBelow(root: string, className: string, ignored: string[]): string[] {
  const folders: string[] = [];
  const filesOf = new Map<string, string[]>();
  const walk = (folder: string): void => {
    folders.push(folder);
    const files: string[] = [];
    filesOf.set(folder, files);
    for (const name of visible(path.join(root, folder))) {
      const inside = `${folder}/${name}`;
      if (kindOf(root, inside) === 'folder') walk(inside);
      else if (EXTENSIONS.has(path.extname(name).toLowerCase()) && statSync(path.join(root, inside)).isFile()) files.push(inside);
      else ignored.push(inside);
    }
  };
  walk(className);
  return folders.sort(bySpelling).flatMap((f) => filesOf.get(f)!);
}
