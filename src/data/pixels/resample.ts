/**
 * Pillow's resize for 8-bit RGB, bit for bit: out(x) = Σ w((i − center) / scale) · in(i) / Σ w, with the kernel widened by the ratio when an image shrinks, so that it does not alias;
 * first along rows, then along columns, weights in fixed point with 22 bits behind the point and a rounding to 8 bits after each pass. From libImaging/Resample.c (Pillow 13).
 * libvips has kernels of its own, which differ by up to dozens of grey levels at edges; therefore sharp only decodes.
 */
import { InvalidArgumentError } from '../../errors';
import { blackImage, type CropBox, type ImageSize, type RgbImage } from './rgbImage';

/** How to resize; Pillow's numbers in `preprocessor_config.json` are 0, 1, 2 and 3 for nearest, lanczos, bilinear and bicubic. */
export type Resampling = 'nearest' | 'lanczos' | 'bilinear' | 'bicubic';

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

const KERNELS: Readonly<Record<Exclude<Resampling, 'nearest'>, { readonly support: number; readonly weight: (x: number) => number }>> = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  // Keys' cubic with a = −1/2.
  bicubic: {
    support: 2,
    weight(signed) {
      const x = Math.abs(signed);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
    },
  },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/** The taps of one direction: output i sums `count[i]` inputs from `first[i]` on, with the weights from `taps · i` on. */
interface Taps {
  readonly taps: number;
  readonly first: Int32Array;
  readonly count: Int32Array;
  readonly weights: Int32Array;
}

function tapsOf(inSize: number, outSize: number, filter: Exclude<Resampling, 'nearest'>): Taps {
  const { support: unit, weight } = KERNELS[filter];
  const scale = inSize / outSize;
  const filterScale = Math.max(1, scale);
  const support = unit * filterScale;
  const taps = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(outSize);
  const count = new Int32Array(outSize);
  const weights = new Int32Array(outSize * taps);
  const row = new Float64Array(taps);
  const inverse = 1 / filterScale;
  for (let i = 0; i < outSize; i++) {
    const center = (i + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(center - support + 0.5));
    const n = Math.min(inSize, Math.trunc(center + support + 0.5)) - begin;
    let sum = 0;
    for (let k = 0; k < n; k++) sum += row[k] = weight((k + begin - center + 0.5) * inverse);
    for (let k = 0; k < n; k++) {
      const w = (sum === 0 ? row[k] : row[k] / sum) * 2 ** PRECISION_BITS;
      weights[i * taps + k] = Math.trunc(w < 0 ? w - 0.5 : w + 0.5);
    }
    first[i] = begin;
    count[i] = n;
  }
  return { taps, first, count, weights };
}

/** Taps by sizes and filter: a data set resizes most images between few sizes. */
const known = new Map<string, Taps>();

function cachedTaps(inSize: number, outSize: number, filter: Exclude<Resampling, 'nearest'>): Taps {
  const key = `${inSize} ${outSize} ${filter}`;
  let taps = known.get(key);
  if (!taps) {
    if (known.size >= 64) known.clear();
    known.set(key, (taps = tapsOf(inSize, outSize, filter)));
  }
  return taps;
}

const clip = (fixed: number): number => {
  const v = fixed >> PRECISION_BITS;
  return v < 0 ? 0 : v > 255 ? 255 : v;
};

/** Columns [left, left + width) of the resized rows [top, bottom); the result has bottom − top rows. */
function alongRows(image: RgbImage, taps: Taps, left: number, width: number, top: number, bottom: number): RgbImage {
  const out = blackImage({ width, height: bottom - top });
  const { data } = image;
  const to = out.data;
  const { weights } = taps;
  let at = 0;
  for (let y = top; y < bottom; y++) {
    const row = 3 * y * image.width;
    for (let x = left; x < left + width; x++) {
      let r = HALF;
      let g = HALF;
      let b = HALF;
      let from = row + 3 * taps.first[x];
      let k = x * taps.taps;
      const end = k + taps.count[x];
      // Two taps at a time, for speed.
      for (; k + 1 < end; k += 2, from += 6) {
        const w = weights[k];
        const next = weights[k + 1];
        r = (r + Math.imul(data[from], w) + Math.imul(data[from + 3], next)) | 0;
        g = (g + Math.imul(data[from + 1], w) + Math.imul(data[from + 4], next)) | 0;
        b = (b + Math.imul(data[from + 2], w) + Math.imul(data[from + 5], next)) | 0;
      }
      if (k < end) {
        const w = weights[k];
        r = (r + Math.imul(data[from], w)) | 0;
        g = (g + Math.imul(data[from + 1], w)) | 0;
        b = (b + Math.imul(data[from + 2], w)) | 0;
      }
      to[at++] = clip(r);
      to[at++] = clip(g);
      to[at++] = clip(b);
    }
  }
  return out;
}

/** Resized rows [top, top + height); row 0 of `image` is row `offset` of the whole. */
function alongColumns(image: RgbImage, taps: Taps, top: number, height: number, offset: number): RgbImage {
  const out = blackImage({ width: image.width, height });
  const { data } = image;
  const stride = 3 * image.width;
  const sums = new Int32Array(stride);
  for (let y = 0; y < height; y++) {
    sums.fill(HALF);
    const first = taps.first[top + y] - offset;
    const n = taps.count[top + y];
    const at = (top + y) * taps.taps;
    // Three rows at a time: the sums are read and written less often. A tap that is too many has weight 0 on a row that is there.
    for (let k = 0; k < n; k += 3) {
      const w0 = taps.weights[at + k];
      const w1 = k + 1 < n ? taps.weights[at + k + 1] : 0;
      const w2 = k + 2 < n ? taps.weights[at + k + 2] : 0;
      const row0 = (first + k) * stride;
      const row1 = k + 1 < n ? row0 + stride : row0;
      const row2 = k + 2 < n ? row1 + stride : row0;
      for (let i = 0; i < stride; i++) sums[i] += Math.imul(data[row0 + i], w0) + Math.imul(data[row1 + i], w1) + Math.imul(data[row2 + i], w2);
    }
    const to = y * stride;
    for (let i = 0; i < stride; i++) out.data[to + i] = clip(sums[i]);
  }
  return out;
}

/** Pillow's nearest neighbour: positions are added up step by step, as ImagingScaleAffine does. */
function nearest(image: RgbImage, size: ImageSize, box: CropBox): RgbImage {
  const out = blackImage(box);
  const positions = (inSize: number, outSize: number): Int32Array => {
    const step = inSize / outSize;
    const p = new Int32Array(outSize);
    for (let i = 0, x = step * 0.5; i < outSize; i++, x += step) p[i] = Math.min(inSize - 1, Math.trunc(x));
    return p;
  };
  const xs = positions(image.width, size.width);
  const ys = positions(image.height, size.height);
  let at = 0;
  for (let y = box.top; y < box.top + box.height; y++) {
    for (let x = box.left; x < box.left + box.width; x++) {
      const from = 3 * (ys[y] * image.width + xs[x]);
      out.data[at++] = image.data[from];
      out.data[at++] = image.data[from + 1];
      out.data[at++] = image.data[from + 2];
    }
  }
  return out;
}

/**
 * The image at another size, as `PIL.Image.resize(size, resample)` makes it.
 * @param window the part of the result that is wanted (default all): the same pixels as a crop afterwards, without the work for the others
 * @throws InvalidArgumentError for a size below 1 or a window that is not inside
 */
export function resize(image: RgbImage, size: ImageSize, resampling: Resampling, window?: CropBox): RgbImage {
  for (const n of [size.width, size.height]) if (!Number.isInteger(n) || n < 1) throw new InvalidArgumentError(`resize to ${size.width}×${size.height}: both sides must be whole numbers from 1`);
  const box = window ?? { top: 0, left: 0, ...size };
  if (!(box.top >= 0 && box.left >= 0 && box.width >= 1 && box.height >= 1 && box.top + box.height <= size.height && box.left + box.width <= size.width))
    throw new InvalidArgumentError(`a window of ${box.width}×${box.height} at (${box.left}, ${box.top}) is not inside ${size.width}×${size.height}`);
  if (resampling === 'nearest') return nearest(image, size, box);
  // Pillow 13 takes the columns first where that makes less work; until Pillow 12 rows were always first. Bicubic and lanczos cut off overshoots in between, so the order shows.
  if (image.height > size.height && image.height - size.height > 2 * (image.width - size.width)) {
    const low = alongColumns(image, cachedTaps(image.height, size.height, resampling), box.top, box.height, 0);
    return size.width === image.width ? cutColumns(low, box) : alongRows(low, cachedTaps(image.width, size.width, resampling), box.left, box.width, 0, box.height);
  }
  // A direction that keeps its size is not filtered.
  const vertical = size.height === image.height ? undefined : cachedTaps(image.height, size.height, resampling);
  const last = box.top + box.height - 1;
  const top = vertical ? vertical.first[box.top] : box.top;
  const bottom = vertical ? vertical.first[last] + vertical.count[last] : last + 1;
  const rows =
    size.width === image.width
      ? cutColumns({ width: image.width, height: bottom - top, data: image.data.subarray(3 * top * image.width, 3 * bottom * image.width) }, box)
      : alongRows(image, cachedTaps(image.width, size.width, resampling), box.left, box.width, top, bottom);
  return vertical ? alongColumns(rows, vertical, box.top, box.height, top) : rows;
}

/** The columns of a window, all rows. */
function cutColumns(image: RgbImage, { left, width }: CropBox): RgbImage {
  if (left === 0 && width === image.width) return image;
  const out = blackImage({ width, height: image.height });
  for (let y = 0; y < image.height; y++) out.data.set(image.data.subarray(3 * (y * image.width + left), 3 * (y * image.width + left + width)), 3 * y * width);
  return out;
}
