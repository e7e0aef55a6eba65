/** Decoded images: 8-bit RGB, and the moves that change no value. Nothing here changes its input. */
import { InvalidArgumentError } from '../../errors';

/** Pixels, row-major, R G B of each beside each other: data has 3 · width · height bytes. */
export interface RgbImage {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** Height and width in pixels. */
export interface ImageSize {
  readonly height: number;
  readonly width: number;
}

/** A rectangle in pixels; may lie outside the image where a function says so. */
export interface CropBox extends ImageSize {
  readonly top: number;
  readonly left: number;
}

/** Three values, one a channel: red, green, blue. */
export type Rgb = readonly [number, number, number];

/** A black image. */
export function blackImage({ width, height }: ImageSize): RgbImage & { readonly data: Uint8Array } {
  return { width, height, data: new Uint8Array(3 * width * height) };
}

/** The pixels of a rectangle; what lies outside the image is black, as torchvision pads. @throws InvalidArgumentError for a rectangle without pixels */
export function crop(image: RgbImage, box: CropBox): RgbImage {
  if (!(box.width >= 1 && box.height >= 1)) throw new InvalidArgumentError(`a crop of ${box.width}×${box.height} pixels`);
  if (box.top === 0 && box.left === 0 && box.width === image.width && box.height === image.height) return image;
  const out = blackImage(box);
  const from = Math.max(0, box.left);
  const to = Math.min(image.width, box.left + box.width);
  if (to <= from) return out;
  for (let y = Math.max(0, box.top); y < Math.min(image.height, box.top + box.height); y++) {
    const row = 3 * y * image.width;
    out.data.set(image.data.subarray(row + 3 * from, row + 3 * to), 3 * ((y - box.top) * box.width + from - box.left));
  }
  return out;
}

/** The image mirrored left to right. */
export function flipHorizontal(image: RgbImage): RgbImage {
  const { width, height, data } = image;
  const out = new Uint8Array(data.length);
  for (let y = 0; y < height; y++) {
    let to = 3 * y * width;
    for (let from = 3 * (y * width + width - 1); to < 3 * (y + 1) * width; from -= 3) {
      out[to++] = data[from];
      out[to++] = data[from + 1];
      out[to++] = data[from + 2];
    }
  }
  return { width, height, data: out };
}

/** Python's `round`: to the nearest whole number, halves to the even one. */
export function roundHalfEven(x: number): number {
  const low = Math.floor(x);
  return x - low !== 0.5 ? Math.round(x) : low % 2 === 0 ? low : low + 1;
}

/** The rectangle that torchvision's `center_crop` takes; where the image is smaller, it reaches outside by as much as torchvision pads. */
export function centerBox(image: ImageSize, size: ImageSize): CropBox {
  // A smaller side is padded first, the odd pixel behind; a larger one is cut at round((side − crop) / 2).
  const begin = (side: number, wanted: number): number => (wanted > side ? -Math.floor((wanted - side) / 2) : roundHalfEven((side - wanted) / 2));
  return { top: begin(image.height, size.height), left: begin(image.width, size.width), ...size };
}
