/** One image to one example of a batch: decode, change at random, resize, crop, normalise. The same on the main thread and in the workers. */
import { randomBits } from '../../engine/randomBits';
import { ShapeError } from '../../errors';
import { Random } from '../../random';
import { keptBox, resizedSize, type ImageTransform } from '../imageProcessor';
import { colorJitter, erasedBox, randomPaddedCrop, randomResizedBox, type Augmentation } from './augmentation';
import { decodeImage, type StoredImage } from './decode';
import { parseRandAugment, randAugment } from './randAugment';
import { resize } from './resample';
import { crop, flipHorizontal, type ImageSize, type Rgb, type RgbImage } from './rgbImage';

/** Everything that pixels depend on, beside the image. Plain data. */
export interface RenderSettings {
  readonly transform: ImageTransform;
  readonly augmentation: Augmentation | undefined;
  readonly seed: number;
  readonly output: ImageSize;
}

/** The stream of random numbers of one example in one pass: a function of seed, epoch and example alone. */
export function exampleRandom(seed: number, epoch: number, index: number): Random {
  // 53 bits, the most that a number holds exactly; the second half is drawn under another seed.
  const high = randomBits(Math.floor(seed / 2 ** 32) ^ 0x5bd1e995, epoch, index) >>> 11;
  return new Random(2 ** 32 * high + randomBits(seed, epoch, index));
}

/** The image at its output size. @param random undefined for evaluation: nothing is drawn */
export function framed(image: RgbImage, { transform, augmentation, output }: RenderSettings, random: Random | undefined): RgbImage {
  let out = image;
  const how = random ? augmentation?.crop : undefined;
  if (how?.kind === 'resized') {
    const box = randomResizedBox(image, how.scale, how.ratio, random!);
    const drawn = how.resampling === 'random' ? (random!.uniform() < 0.5 ? 'bilinear' : 'bicubic') : how.resampling;
    out = resize(crop(image, box), output, drawn ?? transform.resampling);
  } else {
    if (how) out = randomPaddedCrop(image, how.padding, random!);
    const size = resizedSize(transform, out);
    const kept = keptBox(transform, size);
    const inside = kept.top >= 0 && kept.left >= 0;
    if (transform.resize) out = resize(out, size, transform.resampling, inside ? kept : undefined);
    if (!transform.resize || !inside) out = crop(out, kept);
  }
  if (!random || !augmentation) return out;
  if (random.uniform() < (augmentation.flip ?? 0)) out = flipHorizontal(out);
  if (augmentation.randAugment) {
    // timm takes the drawn interpolation here where the crop takes it.
    const fixed = how?.kind === 'resized' && how.resampling !== 'random' ? how.resampling : undefined;
    out = randAugment(out, parseRandAugment(augmentation.randAugment), random, meanColor(transform), fixed);
  }
  if (augmentation.colorJitter && (!augmentation.randAugment || augmentation.forceColorJitter)) out = colorJitter(out, augmentation.colorJitter, random);
  return out;
}

/** The mean as a colour: (124, 116, 104) for ImageNet's. */
function meanColor({ mean }: ImageTransform): Rgb {
  return mean.map((m) => Math.min(255, Math.round(255 * m))) as unknown as Rgb;
}

/** (value · factor − mean) / std of every byte, by channel. */
function normalizing({ rescaleFactor, mean, std }: ImageTransform): Float32Array[] {
  return mean.map((m, c) => Float32Array.from({ length: 256 }, (_, v) => (v * rescaleFactor - m) / std[c]));
}

/**
 * Some examples of a batch, float32 [images, 3, height, width]. While one is resized the next is being decoded.
 * @param epoch undefined for evaluation
 * @param indices numbers of the examples in their data set
 * @throws ImageDecodeError; ShapeError for an image that is not of the size that its source claims
 */
export async function render(images: readonly StoredImage[], settings: RenderSettings, indices: ArrayLike<number>, epoch: number | undefined): Promise<Float32Array> {
  const size = 3 * settings.output.height * settings.output.width;
  const pixels = new Float32Array(images.length * size);
  let next = decodeAhead(images[0]);
  for (let i = 0; i < images.length; i++) {
    const image = await next;
    if (i + 1 < images.length) next = decodeAhead(images[i + 1]);
    renderOne(image, settings, indices[i], epoch, pixels, i * size);
  }
  return pixels;
}

/** Its failure is heard when it is waited for. */
function decodeAhead(stored: StoredImage): Promise<RgbImage> {
  const image = decodeImage(stored);
  image.catch(() => {});
  return image;
}

function renderOne(image: RgbImage, settings: RenderSettings, index: number, epoch: number | undefined, target: Float32Array, offset: number): void {
  const random = epoch === undefined || !settings.augmentation ? undefined : exampleRandom(settings.seed, epoch, index);
  const { data, width, height } = framed(image, settings, random);
  if (width !== settings.output.width || height !== settings.output.height)
    throw new ShapeError(`image ${index} comes out as ${width}×${height} instead of ${settings.output.width}×${settings.output.height}: its source's imageSize is not that of every image`);
  const pixels = width * height;
  normalizing(settings.transform).forEach((table, c) => {
    const to = offset + c * pixels;
    for (let i = 0; i < pixels; i++) target[to + i] = table[data[3 * i + c]];
  });
  const erased = random && settings.augmentation?.randomErasing ? erasedBox(settings.output, settings.augmentation.randomErasing, random) : undefined;
  if (!random || !erased) return;
  for (let c = 0; c < 3; c++)
    for (let y = erased.top; y < erased.top + erased.height; y++)
      for (let x = erased.left; x < erased.left + erased.width; x++) target[offset + c * pixels + y * width + x] = random.normal();
}
