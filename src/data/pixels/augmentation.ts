/**
 * Random changes of training images, each a function of an image and a stream of random numbers: crops and flips as torchvision draws them, colour jitter, random erasing (Zhong et al. 2020,
 * arXiv 1708.04896) as timm draws it. The settings are plain data, so that threads can be given them.
 */
import { InvalidArgumentError } from '../../errors';
import type { Random } from '../../random';
import { brightness, color, contrast } from './imageOps';
import { parseRandAugment } from './randAugment';
import { crop, roundHalfEven, type CropBox, type ImageSize, type RgbImage } from './rgbImage';

/** What is drawn for each training image, in this order. */
export interface Augmentation {
  /**
   * `resized`: a random part (area × scale, ratio of its sides) is resized to the output; takes the place of the transform's resize and centre crop. `padded`: black rows and columns around the image as it is
   * stored, and a random cut of its own size, before the transform. Undefined: the transform alone.
   */
  readonly crop?:
    | {
        readonly kind: 'resized';
        /** Least and most part of the area. */
        readonly scale: readonly [number, number];
        /** Least and most width / height. */
        readonly ratio: readonly [number, number];
        /** `random`: bilinear or bicubic, drawn (timm). Default: the transform's. */
        readonly resampling?: 'bilinear' | 'bicubic' | 'random';
      }
    | { readonly kind: 'padded'; readonly padding: number };
  /** Probability of a horizontal flip. Default 0. */
  readonly flip?: number;
  /** timm's text, such as 'rand-m9-mstd0.5-inc1'; colours what comes from outside with the transform's mean. */
  readonly randAugment?: string;
  /** Brightness, contrast and colour times U(1 − j, 1 + j), in random order. As in timm it does nothing beside `randAugment` unless forced. */
  readonly colorJitter?: number;
  readonly forceColorJitter?: boolean;
  /** Probability that a rectangle of 2 % to a third of the image becomes noise N(0, 1), after normalisation. Default 0. */
  readonly randomErasing?: number;
}

/** torchvision's RandomResizedCrop and RandomHorizontalFlip: the usual augmentation for fine-tuning. */
export function randomResizedCrop(options: { scale?: readonly [number, number]; ratio?: readonly [number, number]; flip?: number } = {}): Augmentation {
  return { crop: { kind: 'resized', scale: options.scale ?? [0.08, 1], ratio: options.ratio ?? [3 / 4, 4 / 3] }, flip: options.flip ?? 0.5 };
}

/** CIFAR's usual augmentation: 4 black pixels around, a random cut of the old size, a flip. */
export function cifarAugmentation(options: { padding?: number; flip?: number } = {}): Augmentation {
  return { crop: { kind: 'padded', padding: options.padding ?? 4 }, flip: options.flip ?? 0.5 };
}

/**
 * SlimFit's recipe for ImageNet (timm's arguments): random resized crop with drawn interpolation, flip, RandAugment, random erasing 0.25. Its colour jitter 0.3 is there as in the recipe, and as in timm it does
 * nothing beside RandAugment.
 */
export function imagenetAugmentation(): Augmentation {
  return {
    crop: { kind: 'resized', scale: [0.08, 1], ratio: [3 / 4, 4 / 3], resampling: 'random' },
    flip: 0.5,
    randAugment: 'rand-m9-mstd0.5-inc1',
    colorJitter: 0.3,
    randomErasing: 0.25,
  };
}

/** @throws InvalidArgumentError for settings that can never work */
export function checkAugmentation(a: Augmentation): void {
  const probability = (name: string, p: number | undefined): void => {
    if (p !== undefined && !(p >= 0 && p <= 1)) throw new InvalidArgumentError(`augmentation: ${name} = ${p} is no probability from 0 to 1`);
  };
  probability('flip', a.flip);
  probability('randomErasing', a.randomErasing);
  if (a.colorJitter !== undefined && !(a.colorJitter >= 0 && Number.isFinite(a.colorJitter))) throw new InvalidArgumentError(`augmentation: colorJitter = ${a.colorJitter} is no number from 0`);
  if (a.randAugment !== undefined) parseRandAugment(a.randAugment);
  if (a.crop?.kind === 'padded' && !(Number.isInteger(a.crop.padding) && a.crop.padding >= 0 && a.crop.padding <= 1024)) throw new InvalidArgumentError(`augmentation: padding = ${a.crop.padding} is no whole number from 0 to 1024`);
  if (a.crop?.kind === 'resized') {
    const { scale, ratio } = a.crop;
    if (!(scale[0] > 0 && scale[0] <= scale[1] && scale[1] <= 1)) throw new InvalidArgumentError(`augmentation: scale = [${scale.join(', ')}] must rise, above 0 and to 1 at most`);
    if (!(ratio[0] > 0 && ratio[0] <= ratio[1] && Number.isFinite(ratio[1]))) throw new InvalidArgumentError(`augmentation: ratio = [${ratio.join(', ')}] must rise, above 0`);
  }
}

const between = (random: Random, low: number, high: number): number => low + (high - low) * random.uniform();

/** torchvision's RandomResizedCrop.get_params: ten tries at a part of random area and ratio, then the largest middle part of an allowed ratio. Always inside the image. */
export function randomResizedBox(image: ImageSize, scale: readonly [number, number], ratio: readonly [number, number], random: Random): CropBox {
  const area = image.width * image.height;
  for (let i = 0; i < 10; i++) {
    const target = area * between(random, scale[0], scale[1]);
    const aspect = Math.exp(between(random, Math.log(ratio[0]), Math.log(ratio[1])));
    const width = roundHalfEven(Math.sqrt(target * aspect));
    const height = roundHalfEven(Math.sqrt(target / aspect));
    if (width > 0 && width <= image.width && height > 0 && height <= image.height)
      return { top: random.int(image.height - height + 1), left: random.int(image.width - width + 1), width, height };
  }
  let { width, height } = image;
  // A side is never cut to nothing, as torchvision would cut that of a 1×100 image.
  if (width / height < ratio[0]) height = Math.min(height, Math.max(1, roundHalfEven(width / ratio[0])));
  else if (width / height > ratio[1]) width = Math.min(width, Math.max(1, roundHalfEven(height * ratio[1])));
  return { top: Math.floor((image.height - height) / 2), left: Math.floor((image.width - width) / 2), width, height };
}

/** torchvision's RandomCrop(size of the image, padding): black around. */
export function randomPaddedCrop(image: RgbImage, padding: number, random: Random): RgbImage {
  const { width, height } = image;
  return crop(image, { top: random.int(2 * padding + 1) - padding, left: random.int(2 * padding + 1) - padding, width, height });
}

/** torchvision's ColorJitter(brightness = contrast = saturation = amount). */
export function colorJitter(image: RgbImage, amount: number, random: Random): RgbImage {
  const order = random.permutation(3);
  const factors = [0, 1, 2].map(() => between(random, Math.max(0, 1 - amount), 1 + amount));
  const steps = [brightness, contrast, color];
  return order.reduce((out, k) => steps[k](out, factors[k]), image);
}

/** timm's RandomErasing in mode `pixel`: of area 2 % … 1/3 and ratio 0.3 … 1/0.3, smaller than the image; ten tries. @returns the rectangle, or undefined when none is to be erased */
export function erasedBox(image: ImageSize, probability: number, random: Random): CropBox | undefined {
  if (random.uniform() >= probability) return undefined;
  const area = image.width * image.height;
  for (let i = 0; i < 10; i++) {
    const target = between(random, 0.02, 1 / 3) * area;
    const aspect = Math.exp(between(random, Math.log(0.3), -Math.log(0.3)));
    const height = roundHalfEven(Math.sqrt(target * aspect));
    const width = roundHalfEven(Math.sqrt(target / aspect));
    if (width < image.width && height < image.height) return { top: random.int(image.height - height + 1), left: random.int(image.width - width + 1), width, height };
  }
  return undefined;
}
