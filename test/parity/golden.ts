/**
 * Reads a folder of golden values: for each name a JSON file and a safetensors file of reference numbers, computed independently in PyTorch. The
 * format's own README lies beside such a folder; the fields used here are typed below.
 */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { InvalidArgumentError } from '../../src/errors';
import { readSafetensors } from '../../src/hub/safetensors';

export interface GoldenTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array;
}

export interface GoldenStep {
  readonly step: number;
  readonly batch: number;
  readonly lr: number;
  readonly frozen: readonly number[];
  readonly loss: number;
  readonly distance_after: readonly (number | string)[];
}

export interface GoldenRun {
  readonly steps: readonly GoldenStep[];
  readonly optimizer_step_count: Readonly<Record<string, number>>;
  readonly suggested_tolerance?: Readonly<Record<'final_weights_max_rel_l2' | 'final_weights_max_abs' | 'loss_max_abs' | 'distance_max_rel', number>>;
}

export interface GoldenCase {
  readonly frozen: readonly number[];
  readonly loss: number;
  readonly parameters_with_gradient: readonly string[];
  readonly saved_bytes: { readonly encoder_layers: readonly number[]; readonly embeddings: number; readonly head: number; readonly total: number };
  readonly suggested_tolerance?: number;
}

export interface GoldenModel {
  readonly config: Readonly<Record<string, unknown>> & { readonly model_type: string };
  readonly batch_size: number;
  readonly tokens: number;
  readonly num_batches: number;
  readonly parameters: readonly { readonly name: string; readonly shape: readonly number[] }[];
  readonly units: readonly string[];
  readonly cases: Readonly<Record<string, GoldenCase>>;
  readonly training: {
    readonly num_steps: number;
    readonly freeze_rate: number;
    readonly optimizer: { readonly beta1: number; readonly beta2: number; readonly eps: number; readonly weight_decay: number; readonly no_decay_name_contains: readonly string[] };
    readonly distance_initial: readonly (number | string)[];
    readonly runs: Readonly<Record<string, GoldenRun>>;
  };
}

export interface GoldenOps {
  readonly adamw: { readonly lr: readonly number[]; readonly kind: readonly string[]; readonly weight_decay: number; readonly beta1: number; readonly beta2: number; readonly eps: number };
  readonly distance: Readonly<Record<'value' | 'value_if_old00_is_zero_and_new00_is_zero' | 'value_if_old00_is_zero', number | string>>;
  readonly selection: readonly { readonly distance: readonly (number | string)[]; readonly freeze_rate: number; readonly num_frozen: number; readonly frozen: readonly number[] }[];
  readonly shapes: Readonly<Record<'B' | 'T' | 'H' | 'F' | 'heads' | 'head_dim', number>>;
}

export interface GoldenFile {
  readonly name: string;
  readonly json: GoldenModel | GoldenOps;
  readonly tensor: (key: string) => GoldenTensor;
  readonly has: (key: string) => boolean;
}

/** All pairs of JSON and safetensors files of a folder, by name. */
export async function readGolden(folder: string): Promise<GoldenFile[]> {
  const names = readdirSync(folder)
    .filter((f) => f.endsWith('.json'))
    .map((f) => f.slice(0, -5))
    .sort();
  const files: GoldenFile[] = [];
  for (const name of names) {
    const tensors = await readSafetensors(path.join(folder, `${name}.safetensors`));
    files.push({
      name,
      json: JSON.parse(readFileSync(path.join(folder, `${name}.json`), 'utf8')),
      has: (key) => tensors.has(key),
      tensor: (key) => {
        const t = tensors.get(key);
        if (!t) throw new InvalidArgumentError(`${name}.safetensors has no tensor ${key}`);
        return t as GoldenTensor;
      },
    });
  }
  if (files.length === 0) throw new InvalidArgumentError(`no golden files in ${folder}`);
  return files;
}

/** |a − b|₂ / |b|₂, or |a − b|₂ / floor where |b|₂ is smaller than that. */
export function relativeL2(a: ArrayLike<number>, b: ArrayLike<number>, floor = 0): number {
  if (a.length !== b.length) return Infinity;
  let diff = 0;
  let norm = 0;
  for (let i = 0; i < a.length; i++) {
    diff += (a[i] - b[i]) ** 2;
    norm += b[i] ** 2;
  }
  return diff === 0 ? 0 : Math.sqrt(diff) / Math.max(Math.sqrt(norm), floor);
}

/** Euclidean norm. */
export function norm(a: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] ** 2;
  return Math.sqrt(sum);
}
