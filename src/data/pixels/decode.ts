/**
 * Encoded images to 8-bit RGB by sharp (libvips), with the pixels that Pillow's `Image.open(…).convert('RGB')` gives: colour profiles are not applied, alpha is dropped (not blended), CMYK becomes RGB by
 * Pillow's formula, gray is repeated, of an animation the first picture counts. As in torchvision, the EXIF orientation is ignored.
 * Not Pillow's: 16-bit gray keeps its high byte, as 16-bit colour does in both; Pillow clips it at 255, which makes nearly all of it white.
 */
import { readFile } from 'node:fs/promises';
import type sharpModule from 'sharp';
import { ImageDecodeError } from '../../errors';
import type { RgbImage } from './rgbImage';

let sharpLoaded: typeof sharpModule | undefined;

/** sharp, loaded with the first image: it takes a tenth of a second, and text models do without it. */
export function loadSharp(): typeof sharpModule {
  return (sharpLoaded ??= require('sharp') as typeof sharpModule);
}

/** What a source hands out of one image: pixels, the bytes of an image file, or a file's path. */
export type StoredImage =
  | { readonly kind: 'rgb'; readonly image: RgbImage }
  | {
      readonly kind: 'encoded';
      readonly bytes: Uint8Array;
      /** What errors call it. */
      readonly name: string;
    }
  | { readonly kind: 'file'; readonly path: string };

/** Most pixels of an image: Pillow's limit against decompression bombs (twice its `MAX_IMAGE_PIXELS`). */
const MAX_PIXELS = 2 * Math.floor(1024 ** 3 / 4 / 3);

const ascii = (bytes: Uint8Array, from: number, to: number): string => String.fromCharCode(...bytes.subarray(from, to));

/** The format by its first bytes; undefined for anything else, SVG included, which libvips would draw. */
function imageFormat(bytes: Uint8Array): 'jpeg' | 'png' | 'gif' | 'webp' | 'tiff' | 'avif' | undefined {
  const starts = (...expected: number[]): boolean => expected.every((b, i) => bytes[i] === b);
  if (starts(0xff, 0xd8, 0xff)) return 'jpeg';
  if (starts(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a)) return 'png';
  if (ascii(bytes, 0, 4) === 'GIF8') return 'gif';
  if (ascii(bytes, 0, 4) === 'RIFF' && ascii(bytes, 8, 12) === 'WEBP') return 'webp';
  if (starts(0x49, 0x49, 0x2a, 0) || starts(0x4d, 0x4d, 0, 0x2a)) return 'tiff';
  if (ascii(bytes, 4, 8) === 'ftyp' && ['avif', 'avis', 'mif1', 'msf1'].includes(ascii(bytes, 8, 12))) return 'avif';
  return undefined;
}

/** a · b / 255, rounded, as Pillow's MULDIV255 computes it. */
const scaled = (a: number, b: number): number => {
  const t = a * b + 128;
  return ((t >> 8) + t) >> 8;
};

/** @throws ImageDecodeError naming the image: empty, no image, broken, truncated, too many pixels */
export async function decodeBytes(bytes: Uint8Array, name: string): Promise<RgbImage> {
  if (bytes.length === 0) throw new ImageDecodeError(name, 'the image is empty (0 bytes)');
  const format = imageFormat(bytes);
  if (!format) throw new ImageDecodeError(name, 'this is no JPEG, PNG, GIF, WebP, TIFF or AVIF image');
  const sharp = loadSharp();
  try {
    const input = sharp(bytes, { ignoreIcc: true, failOn: 'error', limitInputPixels: MAX_PIXELS });
    // Only these two hold CMYK, and to ask costs a look at the header.
    const cmyk = (format === 'jpeg' || format === 'tiff') && (await input.metadata()).space === 'cmyk';
    const pipeline = cmyk ? input.pipelineColourspace('cmyk').toColourspace('cmyk') : input.removeAlpha().toColourspace('srgb');
    const { data, info } = await pipeline.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
    return { width: info.width, height: info.height, data: toRgb(data, info.channels, cmyk) };
  } catch (cause) {
    throw new ImageDecodeError(name, `broken ${format.toUpperCase()} image: ${(cause as Error).message.replaceAll('\n', ' ').trim()}`, { cause });
  }
}

function toRgb(data: Uint8Array, channels: number, cmyk: boolean): Uint8Array {
  if (channels === 3) return data;
  const n = data.length / channels;
  const rgb = new Uint8Array(3 * n);
  for (let i = 0; i < n; i++) {
    const from = i * channels;
    const light = 255 - data[from + 3];
    for (let c = 0; c < 3; c++) rgb[3 * i + c] = cmyk ? light - scaled(data[from + c], light) : data[from];
  }
  return rgb;
}

/** Pixels of a stored image. @throws ImageDecodeError naming the file, also when it cannot be read */
export async function decodeImage(stored: StoredImage): Promise<RgbImage> {
  if (stored.kind === 'rgb') return stored.image;
  if (stored.kind === 'encoded') return decodeBytes(stored.bytes, stored.name);
  let bytes: Uint8Array;
  try {
    bytes = await readFile(stored.path);
  } catch (cause) {
    throw new ImageDecodeError(stored.path, `the file cannot be read: ${(cause as Error).message}`, { cause });
  }
  return decodeBytes(bytes, stored.path);
}
