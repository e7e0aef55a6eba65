/**
 * `preprocessor_config.json` as settings: what happens to an image before the model sees it. Resize, centre crop, value · rescaleFactor, (value − mean) / std, in this order. Defaults are those of
 * `ViTImageProcessor` (also under its old name `ViTFeatureExtractor`) and `DeiTImageProcessor` in Hugging Face's transformers.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { CheckpointError, FileMissingError, InvalidArgumentError, UnsupportedModelError } from '../errors';
import { refuseRemoteCode } from '../hub/remoteCode';
import { cut, shown } from '../shown';
import type { Resampling } from './pixels/resample';
import { centerBox, type ImageSize, type Rgb } from './pixels/rgbImage';

/** How images become the model's input. */
export interface ImageTransform {
  /** New height and width, or the new length of the shorter side (the other keeps the ratio, rounded down); undefined: no resize. */
  readonly resize: ImageSize | { readonly shortestEdge: number } | undefined;
  readonly resampling: Resampling;
  /** Cut from the middle after the resize; undefined: no crop. What is too small is padded with black. */
  readonly centerCrop: ImageSize | undefined;
  /** Factor of pixel values; usually 1/255. */
  readonly rescaleFactor: number;
  /** Subtracted after rescaling, by channel. */
  readonly mean: Rgb;
  /** Divided by, by channel. */
  readonly std: Rgb;
}

/** Mean of ImageNet's pixels in [0, 1], and their standard deviation: timm's and torchvision's models. */
export const IMAGENET_MEAN: Rgb = [0.485, 0.456, 0.406];
export const IMAGENET_STD: Rgb = [0.229, 0.224, 0.225];

const HALVES: Rgb = [0.5, 0.5, 0.5];
/** PIL's numbers of resampling filters. */
const RESAMPLING: readonly Resampling[] = ['nearest', 'lanczos', 'bilinear', 'bicubic'];

type Json = Readonly<Record<string, unknown>>;

const DEFAULTS: Readonly<Record<'ViT' | 'DeiT', Json>> = {
  ViT: { do_resize: true, size: 224, resample: 2, do_center_crop: false, crop_size: 224, do_rescale: true, rescale_factor: 1 / 255, do_normalize: true, image_mean: HALVES, image_std: HALVES },
  DeiT: { do_resize: true, size: 256, resample: 3, do_center_crop: true, crop_size: 224, do_rescale: true, rescale_factor: 1 / 255, do_normalize: true, image_mean: HALVES, image_std: HALVES },
};

/** Steps that are not written here: a config that asks for one is refused. */
const REFUSED = ['do_pad', 'do_thumbnail', 'do_align_long_axis', 'do_flip_channel_order', 'do_color_quantize', 'rescale_offset', 'do_split_image', 'do_image_splitting'];

/** What `ViTImageProcessor` does unless told otherwise: 224×224, bilinear, mean and std 0.5. */
export const VIT_TRANSFORM: ImageTransform = parseImageProcessor({});

/**
 * Settings of a parsed `preprocessor_config.json`.
 * @throws UnsupportedModelError for a processor or step that is not supported; InvalidArgumentError for a value that can never work
 */
export function parseImageProcessor(config: Json): ImageTransform {
  const type = config.image_processor_type ?? config.feature_extractor_type ?? 'ViTImageProcessor';
  const family = typeof type === 'string' ? /^(ViT|DeiT)(ImageProcessor(Fast|Pil)?|FeatureExtractor)$/.exec(type)?.[1] : undefined;
  if (!family) throw new UnsupportedModelError(`preprocessor_config.json: image processor ${typeof type === 'string' ? `'${cut(type)}'` : shown(type)} is not supported: ViTImageProcessor and DeiTImageProcessor are; give the settings as an ImageTransform instead`);
  for (const key of REFUSED) if (config[key]) throw new UnsupportedModelError(`preprocessor_config.json: ${key} = ${shown(config[key])} is not supported`);
  const defaults = DEFAULTS[family as 'ViT' | 'DeiT'];
  const value = (key: string): unknown => config[key] ?? defaults[key];
  const flag = (key: string): boolean => {
    const v = value(key);
    return typeof v === 'boolean' ? v : bad(key, v, 'true or false');
  };
  const size = sizeOf('size', value('size'));
  const cropSize = sizeOf('crop_size', value('crop_size'));
  if ('shortestEdge' in cropSize) bad('crop_size', config.crop_size, 'a height and a width');
  const resample = value('resample');
  if (!Number.isInteger(resample)) bad('resample', resample, "one of PIL's numbers");
  if (!((resample as number) in RESAMPLING)) throw new UnsupportedModelError(`preprocessor_config.json: resample = ${String(resample)} is not supported: 0 (nearest), 1 (lanczos), 2 (bilinear) and 3 (bicubic) are`);
  const factor = value('rescale_factor');
  if (!(typeof factor === 'number' && Number.isFinite(factor) && factor > 0)) bad('rescale_factor', factor, 'a number above 0');
  const normalize = flag('do_normalize');
  const mean = rgbOf('image_mean', value('image_mean'));
  const std = rgbOf('image_std', value('image_std'));
  if (!std.every((v) => Number.isFinite(1 / v))) bad('image_std', std, 'no zeros, nor what is all but zero: it is divided by');
  return {
    resize: flag('do_resize') ? size : undefined,
    resampling: RESAMPLING[resample as number],
    centerCrop: flag('do_center_crop') ? (cropSize as ImageSize) : undefined,
    rescaleFactor: flag('do_rescale') ? (factor as number) : 1,
    mean: normalize ? mean : [0, 0, 0],
    std: normalize ? std : [1, 1, 1],
  };
}

/** Settings from the `preprocessor_config.json` of a model folder. @throws FileMissingError, CheckpointError (no JSON object), UnsupportedModelError, InvalidArgumentError */
export function readImageProcessor(folder: string): ImageTransform {
  const file = path.join(folder, 'preprocessor_config.json');
  if (!existsSync(file)) throw new FileMissingError(`no preprocessor_config.json in ${folder}: is it the folder of an image model? VIT_TRANSFORM holds ViT's usual settings`);
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new CheckpointError(`${file}: no JSON: ${(cause as Error).message}`, { cause });
  }
  if (!json || typeof json !== 'object' || Array.isArray(json)) throw new CheckpointError(`${file}: no JSON object`);
  refuseRemoteCode(json as Json, file);
  return parseImageProcessor(json as Json);
}

/** Writes `preprocessor_config.json` into a model folder, as Hugging Face's image processors read it. */
export function writeImageProcessor(folder: string, t: ImageTransform): void {
  const { resize, centerCrop } = t;
  const json = {
    image_processor_type: centerCrop || (resize && 'shortestEdge' in resize) ? 'DeiTImageProcessor' : 'ViTImageProcessor',
    do_resize: resize !== undefined,
    ...(resize && { size: 'shortestEdge' in resize ? { shortest_edge: resize.shortestEdge } : resize }),
    resample: RESAMPLING.indexOf(t.resampling),
    do_center_crop: centerCrop !== undefined,
    ...(centerCrop && { crop_size: centerCrop }),
    do_rescale: t.rescaleFactor !== 1,
    rescale_factor: t.rescaleFactor,
    do_normalize: true,
    image_mean: t.mean,
    image_std: t.std,
  };
  const file = path.join(folder, 'preprocessor_config.json');
  writeFileSync(`${file}.tmp`, `${JSON.stringify(json, null, 2)}\n`);
  renameSync(`${file}.tmp`, file);
}

function bad(key: string, value: unknown, wanted: string): never {
  throw new InvalidArgumentError(`preprocessor_config.json: ${key} = ${shown(value)}: wanted ${wanted}`);
}

/** A number means a square, in these processors. */
function sizeOf(key: string, value: unknown): ImageSize | { readonly shortestEdge: number } {
  const side = (v: unknown): number => (Number.isInteger(v) && (v as number) >= 1 && (v as number) <= 2 ** 15 ? (v as number) : bad(key, value, `whole numbers from 1 to ${2 ** 15}`));
  if (typeof value === 'number') return { height: side(value), width: side(value) };
  if (Array.isArray(value)) return value.length === 2 ? { height: side(value[0]), width: side(value[1]) } : bad(key, value, 'two numbers: height and width');
  if (value === null || typeof value !== 'object') return bad(key, value, 'a number, {height, width} or {shortest_edge}');
  const given = Object.entries(value).filter(([, v]) => v !== null && v !== undefined);
  const sides = Object.fromEntries(given);
  const names = given.map(([k]) => k).sort().join();
  if (names === 'height,width') return { height: side(sides.height), width: side(sides.width) };
  if (names === 'shortest_edge') return { shortestEdge: side(sides.shortest_edge) };
  throw new UnsupportedModelError(`preprocessor_config.json: ${key} = ${shown(value)} is not supported: a number, {height, width} and {shortest_edge} are`);
}

function rgbOf(key: string, value: unknown): Rgb {
  if (!Array.isArray(value) || value.length !== 3 || !value.every((v) => typeof v === 'number' && Number.isFinite(v))) return bad(key, value, 'three numbers');
  return value as unknown as Rgb;
}

/** Size after the resize step, as torchvision rounds it. */
export function resizedSize(transform: ImageTransform, image: ImageSize): ImageSize {
  const { resize } = transform;
  if (!resize) return image;
  if (!('shortestEdge' in resize)) return resize;
  const { shortestEdge } = resize;
  const long = Math.trunc((shortestEdge * Math.max(image.width, image.height)) / Math.min(image.width, image.height));
  return image.width <= image.height ? { width: shortestEdge, height: long } : { width: long, height: shortestEdge };
}

/**
 * Size of every image after the transform.
 * @param images the size that all images have, when they have one
 * @throws InvalidArgumentError when images would come out in different sizes, so that they fit no batch
 */
export function outputSize(transform: ImageTransform, images?: ImageSize): ImageSize {
  const { resize, centerCrop } = transform;
  const only = ({ height, width }: ImageSize): ImageSize => ({ height, width });
  if (centerCrop) return only(centerCrop);
  if (resize && !('shortestEdge' in resize)) return only(resize);
  if (images) return only(resizedSize(transform, images));
  throw new InvalidArgumentError('images of different sizes would not fit one batch: give the transform a centerCrop, or resize to {height, width}');
}

/** The part of the resized image that the centre crop keeps. */
export function keptBox(transform: ImageTransform, resized: ImageSize): ReturnType<typeof centerBox> {
  return centerBox(resized, transform.centerCrop ?? resized);
}
