/**
 * The image operations of RandAugment and colour jitter, with Pillow's arithmetic (ImageOps, ImageEnhance, Image.transform, Image.rotate in Pillow 13): the same bytes, test/data/pixels holds them to it.
 */
import { InvalidArgumentError } from '../../errors';
import { blackImage, type Rgb, type RgbImage } from './rgbImage';

const { fround } = Math;

/** Every value of channel c through table c. */
function lookUp(image: RgbImage, tables: readonly [Uint8Array, Uint8Array, Uint8Array]): RgbImage {
  const data = new Uint8Array(image.data.length);
  for (let i = 0; i < data.length; i += 3) {
    data[i] = tables[0][image.data[i]];
    data[i + 1] = tables[1][image.data[i + 1]];
    data[i + 2] = tables[2][image.data[i + 2]];
  }
  return { ...image, data };
}

function lookUpAll(image: RgbImage, value: (v: number) => number): RgbImage {
  const table = Uint8Array.from({ length: 256 }, (_, v) => value(v));
  return lookUp(image, [table, table, table]);
}

/** How often each value occurs, by channel. */
function histograms({ data }: RgbImage): [Int32Array, Int32Array, Int32Array] {
  const h: [Int32Array, Int32Array, Int32Array] = [new Int32Array(256), new Int32Array(256), new Int32Array(256)];
  for (let i = 0; i < data.length; i += 3) {
    h[0][data[i]]++;
    h[1][data[i + 1]]++;
    h[2][data[i + 2]]++;
  }
  return h;
}

const IDENTITY = Uint8Array.from({ length: 256 }, (_, v) => v);
const tablesOf = (image: RgbImage, table: (histogram: Int32Array) => Uint8Array): [Uint8Array, Uint8Array, Uint8Array] => histograms(image).map(table) as [Uint8Array, Uint8Array, Uint8Array];
const clip = (v: number): number => (v < 0 ? 0 : v > 255 ? 255 : v);

/** ImageOps.autocontrast: each channel stretched to 0 … 255. */
export function autoContrast(image: RgbImage): RgbImage {
  return lookUp(
    image,
    tablesOf(image, (h) => {
      const low = h.findIndex((n) => n > 0);
      const high = h.findLastIndex((n) => n > 0);
      if (high <= low) return IDENTITY;
      const scale = 255 / (high - low);
      return Uint8Array.from({ length: 256 }, (_, v) => clip(Math.trunc(v * scale - low * scale)));
    }),
  );
}

/** ImageOps.equalize: each channel's histogram flattened. */
export function equalize(image: RgbImage): RgbImage {
  return lookUp(
    image,
    tablesOf(image, (h) => {
      const used = h.filter((n) => n > 0);
      const step = used.length <= 1 ? 0 : Math.floor((used.reduce((a, b) => a + b, 0) - used[used.length - 1]) / 255);
      if (step === 0) return IDENTITY;
      let n = Math.floor(step / 2);
      return Uint8Array.from({ length: 256 }, (_, v) => {
        const value = Math.min(255, Math.floor(n / step));
        n += h[v];
        return value;
      });
    }),
  );
}

/** ImageOps.invert: 255 − value. */
export function invert(image: RgbImage): RgbImage {
  return lookUpAll(image, (v) => 255 - v);
}

/** ImageOps.posterize: the highest `bits` bits of each value; 0 makes black. */
export function posterize(image: RgbImage, bits: number): RgbImage {
  return bits >= 8 ? image : lookUpAll(image, (v) => v & ~(2 ** (8 - bits) - 1));
}

/** ImageOps.solarize: values from `threshold` on inverted. */
export function solarize(image: RgbImage, threshold: number): RgbImage {
  return lookUpAll(image, (v) => (v < threshold ? v : 255 - v));
}

/** timm's solarize_add: `add` more for values below 128. */
export function solarizeAdd(image: RgbImage, add: number): RgbImage {
  return lookUpAll(image, (v) => (v < 128 ? Math.min(255, v + add) : v));
}

/** ITU-R 601-2 luma in Pillow's fixed point. */
const luma = (r: number, g: number, b: number): number => (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;

/** Image.blend: from + factor · (to − from) in float32, cut off; `from` gives the value at a place. */
function blend(image: RgbImage, factor: number, from: (i: number) => number): RgbImage {
  const alpha = fround(factor);
  if (alpha === 1) return image;
  const { data } = image;
  const out = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i++) {
    const a = from(i);
    out[i] = clip(Math.trunc(fround(a + fround(alpha * (data[i] - a)))));
  }
  return { ...image, data: out };
}

/** ImageEnhance.Color: 0 is gray, 1 the image, more is more colour. */
export function color(image: RgbImage, factor: number): RgbImage {
  const { data } = image;
  const gray = new Uint8Array(data.length / 3);
  for (let i = 0; i < gray.length; i++) gray[i] = luma(data[3 * i], data[3 * i + 1], data[3 * i + 2]);
  return blend(image, factor, (i) => gray[(i / 3) | 0]);
}

/** ImageEnhance.Contrast: 0 is the mean gray, 1 the image. */
export function contrast(image: RgbImage, factor: number): RgbImage {
  const { data } = image;
  let sum = 0;
  for (let i = 0; i < data.length; i += 3) sum += luma(data[i], data[i + 1], data[i + 2]);
  const mean = Math.trunc(sum / (data.length / 3) + 0.5);
  return blend(image, factor, () => mean);
}

/** ImageEnhance.Brightness: 0 is black, 1 the image. */
export function brightness(image: RgbImage, factor: number): RgbImage {
  return blend(image, factor, () => 0);
}

/** ImageEnhance.Sharpness: 0 is smoothed by (1 1 1, 1 5 1, 1 1 1) / 13, 1 the image; the border stays. */
export function sharpness(image: RgbImage, factor: number): RgbImage {
  const smooth = smoothed(image).data;
  return blend(image, factor, (i) => smooth[i]);
}

/** ImageFilter.SMOOTH, summed in float32 in Pillow's order: the row below, the row, the row above. */
function smoothed(image: RgbImage): RgbImage {
  const { width, height, data } = image;
  if (width < 3 || height < 3) return image;
  const out = Uint8Array.from(data);
  const side = fround(1 / 13);
  const middle = fround(5 / 13);
  const stride = 3 * width;
  const row = (i: number, center: number): number => fround(fround(fround(data[i - 3] * side) + fround(data[i] * center)) + fround(data[i + 3] * side));
  for (let y = 1; y < height - 1; y++) {
    for (let i = y * stride + 3; i < (y + 1) * stride - 3; i++) {
      let sum = fround(0.5 + row(i + stride, side));
      sum = fround(sum + row(i, middle));
      sum = fround(sum + row(i - stride, side));
      out[i] = clip(Math.trunc(sum));
    }
  }
  return { width, height, data: out };
}

/** Where a pixel of the result comes from: x' = a x + b y + c, y' = d x + e y + f, in pixel centres. */
type Affine = readonly [number, number, number, number, number, number];

/** Image.transform(size, AFFINE): interpolated without antialiasing; what comes from outside is `fill`. */
export function affine(image: RgbImage, [a, b, c, d, e, f]: Affine, resampling: 'bilinear' | 'bicubic', fill: Rgb): RgbImage {
  const { width, height, data } = image;
  const out = blackImage(image);
  const reach = resampling === 'bilinear' ? 2 : 4;
  const column = new Int32Array(reach);
  const rows = new Float64Array(4);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at += 3) {
      const fromX = a * (x + 0.5) + b * (y + 0.5) + c;
      const fromY = d * (x + 0.5) + e * (y + 0.5) + f;
      if (fromX < 0 || fromX >= width || fromY < 0 || fromY >= height) {
        out.data[at] = fill[0];
        out.data[at + 1] = fill[1];
        out.data[at + 2] = fill[2];
        continue;
      }
      const left = Math.floor(fromX - 0.5);
      const top = Math.floor(fromY - 0.5);
      const dx = fromX - 0.5 - left;
      const dy = fromY - 0.5 - top;
      // Outside the image the last column and row go on.
      const before = reach / 2 - 1;
      for (let k = 0; k < reach; k++) column[k] = 3 * Math.min(width - 1, Math.max(0, left - before + k));
      for (let channel = 0; channel < 3; channel++) {
        for (let k = 0; k < reach; k++) {
          const from = 3 * width * Math.min(height - 1, Math.max(0, top - before + k)) + channel;
          rows[k] =
            reach === 2 ? linear(data[from + column[0]], data[from + column[1]], dx) : cubic(data[from + column[0]], data[from + column[1]], data[from + column[2]], data[from + column[3]], dx);
        }
        out.data[at + channel] = clip(Math.trunc(reach === 2 ? linear(rows[0], rows[1], dy) : cubic(rows[0], rows[1], rows[2], rows[3], dy)));
      }
    }
  }
  return out;
}

const linear = (v1: number, v2: number, d: number): number => v1 + (v2 - v1) * d;

/** Keys' cubic with a = −1, Pillow's for geometric transforms (its resize has −1/2). */
function cubic(v1: number, v2: number, v3: number, v4: number, d: number): number {
  const p2 = -v1 + v3;
  const p3 = 2 * (v1 - v2) + v3 - v4;
  const p4 = -v1 + v2 - v3 + v4;
  return v2 + d * (p2 + d * (p3 + d * p4));
}

/** Image.rotate: counter-clockwise around the middle, same size. */
export function rotate(image: RgbImage, degrees: number, resampling: 'bilinear' | 'bicubic', fill: Rgb): RgbImage {
  if (!Number.isFinite(degrees)) throw new InvalidArgumentError(`a turn by ${degrees} degrees`);
  const turned = ((degrees % 360) + 360) % 360;
  if (turned === 0) return image;
  const angle = -(turned * (Math.PI / 180));
  const round15 = (v: number): number => Number(v.toFixed(15));
  const cos = round15(Math.cos(angle));
  const sin = round15(Math.sin(angle));
  const x = image.width / 2;
  const y = image.height / 2;
  return affine(image, [cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y], resampling, fill);
}
