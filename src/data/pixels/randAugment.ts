/**
 * RandAugment (Cubuk et al. 2020, arXiv 1909.13719) as timm has it: `rand-m9-mstd0.5-inc1` draws 2 of 15 operations with replacement, applies each with probability 0.5, at a level from N(9, 0.5²) cut to
 * [0, 10]; `inc1` takes the variants that get stronger with the level. From timm/data/auto_augment.py.
 */
import { InvalidArgumentError } from '../../errors';
import type { Random } from '../../random';
import { affine, autoContrast, brightness, color, contrast, equalize, invert, posterize, rotate, sharpness, solarize, solarizeAdd } from './imageOps';
import type { Rgb, RgbImage } from './rgbImage';

/** What a geometric operation needs beside its argument. */
interface Geometry {
  readonly resampling: 'bilinear' | 'bicubic';
  /** Colour of what comes from outside. */
  readonly fill: Rgb;
}

interface AugmentOp {
  /** Argument at a level from 0 to 10; `sign` is 1 or −1, for operations that go both ways. */
  readonly argument?: (level: number, sign: 1 | -1) => number;
  readonly apply: (image: RgbImage, argument: number, geometry: Geometry) => RgbImage;
}

/** 1 changes nothing; further away in either direction changes more. */
const enhance = (level: number, sign: number): number => Math.max(0.1, 1 + sign * (level / 10) * 0.9);
const shear = (level: number, sign: number): number => sign * (level / 10) * 0.3;
/** Part of the side. */
const translate = (level: number, sign: number): number => sign * (level / 10) * 0.45;

/** The 15 operations of timm's increasing set, in its order. */
export const AUGMENT_OPS: Readonly<Record<string, AugmentOp>> = {
  AutoContrast: { apply: autoContrast },
  Equalize: { apply: equalize },
  Invert: { apply: invert },
  // Degrees.
  Rotate: { argument: (level, sign) => sign * (level / 10) * 30, apply: (image, degrees, g) => rotate(image, degrees, g.resampling, g.fill) },
  // Bits that stay, 4 … 0: at level 10 the image is black.
  PosterizeIncreasing: { argument: (level) => 4 - Math.trunc((level / 10) * 4), apply: posterize },
  // Threshold, 256 … 0.
  SolarizeIncreasing: { argument: (level) => 256 - Math.min(256, Math.trunc((level / 10) * 256)), apply: solarize },
  SolarizeAdd: { argument: (level) => Math.min(128, Math.trunc((level / 10) * 110)), apply: solarizeAdd },
  ColorIncreasing: { argument: enhance, apply: color },
  ContrastIncreasing: { argument: enhance, apply: contrast },
  BrightnessIncreasing: { argument: enhance, apply: brightness },
  SharpnessIncreasing: { argument: enhance, apply: sharpness },
  ShearX: { argument: shear, apply: (image, s, g) => affine(image, [1, s, 0, 0, 1, 0], g.resampling, g.fill) },
  ShearY: { argument: shear, apply: (image, s, g) => affine(image, [1, 0, 0, s, 1, 0], g.resampling, g.fill) },
  TranslateXRel: { argument: translate, apply: (image, part, g) => affine(image, [1, 0, part * image.width, 0, 1, 0], g.resampling, g.fill) },
  TranslateYRel: { argument: translate, apply: (image, part, g) => affine(image, [1, 0, 0, 0, 1, part * image.height], g.resampling, g.fill) },
};

const NAMES = Object.keys(AUGMENT_OPS);

/** Settings of RandAugment. */
export interface RandAugmentSettings {
  /** Mean level, 0 to 10. */
  readonly magnitude: number;
  /** Standard deviation of the level. */
  readonly magnitudeStd: number;
  /** Operations per image. */
  readonly operations: number;
  /** Probability that a drawn operation is applied. */
  readonly probability: number;
}

/**
 * timm's configuration text: `rand`, then m (level, default 10), n (operations, 2), p (probability, 0.5), mstd (0) and inc1, each after a dash. The non-increasing set (without inc1) and timm's other keys
 * are not supported.
 * @throws InvalidArgumentError
 */
export function parseRandAugment(text: string): RandAugmentSettings {
  const [kind, ...parts] = text.split('-');
  const settings: Record<string, number> = { m: 10, n: 2, p: 0.5, mstd: 0, inc: 0 };
  for (const part of parts) {
    const match = /^([a-z]+)(\d+(?:\.\d+)?)$/.exec(part);
    if (!match || !Object.hasOwn(settings, match[1])) throw new InvalidArgumentError(`RandAugment '${text}': '${part}' is not understood: m9, n2, p0.5, mstd0.5 and inc1 are`);
    settings[match[1]] = Number(match[2]);
  }
  if (kind !== 'rand' || settings.inc !== 1) throw new InvalidArgumentError(`RandAugment '${text}': only the increasing variant is supported, as in 'rand-m9-mstd0.5-inc1'`);
  const { m, n, p, mstd } = settings;
  if (!(m <= 10 && p <= 1 && Number.isInteger(n) && mstd <= 100)) throw new InvalidArgumentError(`RandAugment '${text}': m is at most 10, p at most 1, mstd at most 100, n a whole number`);
  return { magnitude: m, magnitudeStd: mstd, operations: n, probability: p };
}

/** Applies drawn operations. @param resampling of geometric operations; undefined draws bilinear or bicubic each time, as timm does by default */
export function randAugment(image: RgbImage, settings: RandAugmentSettings, random: Random, fill: Rgb, resampling?: 'bilinear' | 'bicubic'): RgbImage {
  const drawn = Array.from({ length: settings.operations }, () => NAMES[random.int(NAMES.length)]);
  let out = image;
  for (const name of drawn) {
    if (random.uniform() >= settings.probability) continue;
    const level = Math.min(10, Math.max(0, settings.magnitude + settings.magnitudeStd * random.normal()));
    const sign = random.uniform() < 0.5 ? 1 : -1;
    const op = AUGMENT_OPS[name];
    out = op.apply(out, op.argument?.(level, sign) ?? 0, { resampling: resampling ?? (random.uniform() < 0.5 ? 'bilinear' : 'bicubic'), fill });
  }
  return out;
}
