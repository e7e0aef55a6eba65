/** What Pillow and timm made of small images (pillow.json, written by pillow.py): the reference of the tests beside this file. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Resampling } from '../../../src/data/pixels/resample';
import type { ImageSize, RgbImage } from '../../../src/data/pixels/rgbImage';

export interface Stored extends ImageSize {
  readonly data: string;
}

interface Reference {
  readonly resize: { readonly images: readonly Stored[]; readonly cases: readonly { image: number; size: [number, number]; resampling: Resampling; data: string }[] };
  readonly ops: {
    readonly images: readonly Stored[];
    readonly fill: [number, number, number];
    readonly cases: readonly { op: string; image?: number; level: number | null; sign: 1 | -1; argument: number | null; resampling?: 'bilinear' | 'bicubic' | null; data?: string }[];
  };
  readonly files: readonly (Stored & { readonly name: string; readonly file: string })[];
  readonly gray16: ImageSize & { readonly file: string; readonly high: string };
  /** SHA-256 over the bytes of all images, one after the other. */
  readonly sample: readonly { side: number; resampling: Resampling; images: number; square: string; cropped: string }[];
  readonly pipeline: readonly (Stored & { readonly values: readonly number[] })[];
}

export const reference = JSON.parse(readFileSync(path.join(__dirname, 'pillow.json'), 'utf8')) as Reference;

export const bytes = (base64: string): Uint8Array => new Uint8Array(Buffer.from(base64, 'base64'));

export const imageOf = ({ width, height, data }: Stored): RgbImage => ({ width, height, data: bytes(data) });

/** Pixels of our own: a pattern without symmetry. */
export function pattern(width: number, height: number): RgbImage {
  return { width, height, data: Uint8Array.from({ length: 3 * width * height }, (_, i) => (i * i * 31 + i * 17) & 255) };
}
