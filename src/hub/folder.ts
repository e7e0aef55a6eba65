/**
 * Hugging Face model folders: `config.json` and `model.safetensors`. Loading checks every name and shape before anything is handed out: a folder that does not fit changes nothing.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { CheckpointError, CheckpointKeysError, FileMissingError, ShapeError } from '../errors';
import { readSafetensors, writeSafetensors } from './safetensors';

/** Float32 values by name. */
export type WeightMap = Map<string, { readonly shape: readonly number[]; readonly data: Float32Array }>;

/** What a model wants of a checkpoint. */
export interface WantedParameter {
  readonly name: string;
  readonly shape: readonly number[];
}

/** Which names may be missing, and which may be too many. */
export interface LoadRules {
  /** Parts of a head: drawn afresh when they are missing, or when they are of another size and `replaceHead` is set. */
  readonly isHead: (name: string) => boolean;
  /** Parts of other heads: ignored. */
  readonly isOtherHead: (name: string) => boolean;
  readonly replaceHead: boolean;
  /** Values for a parameter that is stored in another shape, such as position embeddings of another image size; undefined where that is an error. */
  readonly adapt?: (name: string, stored: { readonly shape: readonly number[]; readonly data: ArrayLike<number> }) => Float32Array | undefined;
}

/** Names in one checkpoint format that mean a parameter of the other. */
function canonical(name: string): string {
  return name.replace(/LayerNorm\.gamma$/, 'LayerNorm.weight').replace(/LayerNorm\.beta$/, 'LayerNorm.bias');
}

/** Reads `config.json`. @throws FileMissingError, CheckpointError */
export function readConfig(folder: string): Record<string, unknown> {
  const file = path.join(folder, 'config.json');
  if (!existsSync(file)) throw new FileMissingError(`no config.json in ${folder}: is it a Hugging Face model folder?`);
  try {
    const json: unknown = JSON.parse(readFileSync(file, 'utf8'));
    if (json && typeof json === 'object' && !Array.isArray(json)) return json as Record<string, unknown>;
  } catch (cause) {
    throw new CheckpointError(`${file}: no JSON: ${(cause as Error).message}`, { cause });
  }
  throw new CheckpointError(`${file}: no JSON object`);
}

/**
 * Reads the weights that a model wants. A checkpoint of the bare encoder (names without `prefix`) is understood.
 * @returns what was found, what must be drawn afresh, and what was ignored
 * @throws FileMissingError, CheckpointError, CheckpointKeysError (missing or unexpected names, listed), ShapeError
 */
export async function readWeights(folder: string, wanted: readonly WantedParameter[], prefix: string, rules: LoadRules): Promise<{ weights: WeightMap; fresh: string[]; ignored: string[] }> {
  const file = path.join(folder, 'model.safetensors');
  if (!existsSync(file)) {
    const pickled = existsSync(path.join(folder, 'pytorch_model.bin'));
    throw new FileMissingError(
      pickled
        ? `${folder} has pytorch_model.bin but no model.safetensors: SlimFit runs no code from checkpoints; convert it with save_pretrained(…, safe_serialization=True)`
        : `no model.safetensors in ${folder}`,
    );
  }
  const shapes = new Map(wanted.map((w) => [w.name, w.shape]));
  const weights: WeightMap = new Map();
  const unexpected: string[] = [];
  const ignored: string[] = [];
  for (const [stored, t] of await readSafetensors(file)) {
    const plain = canonical(stored);
    const name = shapes.has(plain) || !shapes.has(`${prefix}${plain}`) ? plain : `${prefix}${plain}`;
    const shape = shapes.get(name);
    if (!shape) {
      // Old checkpoints carry the constant 0, 1, 2, … of the positions.
      if (rules.isOtherHead(name) || name.endsWith('embeddings.position_ids')) ignored.push(stored);
      else unexpected.push(stored);
      continue;
    }
    if (t.shape.join() !== shape.join()) {
      if (rules.isHead(name) && rules.replaceHead) continue;
      const adapted = rules.adapt?.(name, t);
      if (adapted) {
        weights.set(name, { shape, data: adapted });
        continue;
      }
      throw new ShapeError(`${file}: ${stored} has shape [${t.shape}], the model wants [${shape}]${rules.isHead(name) ? ': give numLabels to replace the head' : ''}`);
    }
    weights.set(name, { shape, data: t.data instanceof Float32Array ? t.data : Float32Array.from(t.data) });
  }
  const absent = wanted.map((w) => w.name).filter((n) => !weights.has(n));
  const missing = absent.filter((n) => !rules.isHead(n));
  if (missing.length > 0 || unexpected.length > 0) {
    const list = (what: string, names: readonly string[]) => (names.length === 0 ? '' : `; ${what}: ${names.slice(0, 8).join(', ')}${names.length > 8 ? ` and ${names.length - 8} more` : ''}`);
    throw new CheckpointKeysError(`${file} does not fit the model of config.json${list('missing', missing)}${list('unexpected', unexpected)}`, missing, unexpected);
  }
  return { weights, fresh: absent, ignored };
}

/** Writes `config.json` and `model.safetensors`; each appears whole or not at all. */
export function writeFolder(folder: string, config: Readonly<Record<string, unknown>>, weights: ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: Float32Array }>): void {
  mkdirSync(folder, { recursive: true });
  writeSafetensors(path.join(folder, 'model.safetensors'), weights);
  const file = path.join(folder, 'config.json');
  writeFileSync(`${file}.tmp`, `${JSON.stringify(config, null, 2)}\n`);
  renameSync(`${file}.tmp`, file);
}
