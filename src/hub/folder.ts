/**
 * Hugging Face model folders: `config.json` and `model.safetensors`, or the weights in several files (shards) with `model.safetensors.index.json`, whose `weight_map` names the
 * file of every weight. Loading checks every name and shape before anything is handed out: a folder that does not fit changes nothing.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { CheckpointError, CheckpointKeysError, FileMissingError, ShapeError } from '../errors';
import { cut, shown } from '../shown';
import { checkPlainName } from './names';
import { refuseRemoteCode } from './remoteCode';
import { readSafetensors, type StoredTensor, writeSafetensorsFrom } from './safetensors';

/** The weights in one file. */
export const WEIGHTS_FILE = 'model.safetensors';
/** Names the file of each weight when there are several. */
export const INDEX_FILE = 'model.safetensors.index.json';

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

/** Reads `config.json`. @throws FileMissingError, CheckpointError, UnsupportedModelError when it wants code of its repository run */
export function readConfig(folder: string): Record<string, unknown> {
  const file = path.join(folder, 'config.json');
  if (!existsSync(file)) throw new FileMissingError(`no config.json in ${folder}: is it a Hugging Face model folder? One from the hub is fetched by await hub('bert-base-cased')`);
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new CheckpointError(`${file}: no JSON: ${(cause as Error).message}`, { cause });
  }
  if (!json || typeof json !== 'object' || Array.isArray(json)) throw new CheckpointError(`${file}: no JSON object`);
  refuseRemoteCode(json as Record<string, unknown>, file);
  return json as Record<string, unknown>;
}

/** Weight names by shard. @throws CheckpointError, UnsafeFileNameError */
function readIndex(folder: string): Map<string, string[]> {
  const file = path.join(folder, INDEX_FILE);
  const shards = new Map<string, string[]>();
  let map: unknown;
  try {
    map = (JSON.parse(readFileSync(file, 'utf8')) as { weight_map?: unknown } | null)?.weight_map;
  } catch (cause) {
    throw new CheckpointError(`${file}: no JSON: ${(cause as Error).message}`, { cause });
  }
  if (!map || typeof map !== 'object' || Array.isArray(map)) throw new CheckpointError(`${file}: no weight_map: download it again`);
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== 'string') throw new CheckpointError(`${file}: the file of ${cut(name)} is ${shown(shard)}, no name`);
    checkPlainName(shard, file);
    if (!shard.endsWith('.safetensors')) throw new CheckpointError(`${file}: the file of ${cut(name)} is ${cut(shard)}, no safetensors file`);
    const names = shards.get(shard);
    if (names) names.push(name);
    else shards.set(shard, [name]);
  }
  if (shards.size === 0) throw new CheckpointError(`${file}: names no weight`);
  return shards;
}

/** Names of the files that a folder's index names, each a plain name. @throws CheckpointError, UnsafeFileNameError */
export function readShardNames(folder: string): string[] {
  return [...readIndex(folder).keys()];
}

/** All tensors of a folder, one file after another. */
async function* storedTensors(folder: string): AsyncGenerator<{ file: string; name: string; tensor: StoredTensor }> {
  const single = path.join(folder, WEIGHTS_FILE);
  if (existsSync(single)) {
    for (const [name, tensor] of await readSafetensors(single)) yield { file: single, name, tensor };
    return;
  }
  if (!existsSync(path.join(folder, INDEX_FILE))) {
    const pickled = existsSync(path.join(folder, 'pytorch_model.bin'));
    throw new FileMissingError(
      pickled
        ? `${folder} has pytorch_model.bin but no model.safetensors: SlimFit runs no code from checkpoints; convert it with save_pretrained(…, safe_serialization=True)`
        : `no model.safetensors in ${folder}`,
    );
  }
  const shards = readIndex(folder);
  for (const shard of shards.keys())
    if (!existsSync(path.join(folder, shard))) throw new FileMissingError(`no ${shard} in ${folder}, although ${INDEX_FILE} names it: download the model again`);
  for (const [shard, names] of shards) {
    const file = path.join(folder, shard);
    const tensors = await readSafetensors(file);
    const due = new Set(names);
    const missing = names.filter((n) => !tensors.has(n));
    const extra = [...tensors.keys()].filter((n) => !due.has(n));
    if (missing.length > 0) throw new CheckpointError(`${file}: lacks ${missing.slice(0, 8).join(', ')}, which ${INDEX_FILE} says it holds: index and shards are not of one model`);
    if (extra.length > 0) throw new CheckpointError(`${file}: holds ${extra.slice(0, 8).join(', ')}, which ${INDEX_FILE} does not say: index and shards are not of one model`);
    for (const [name, tensor] of tensors) yield { file, name, tensor };
  }
}

/**
 * Reads the weights that a model wants. A checkpoint of the bare encoder (names without `prefix`) is understood.
 * @returns what was found, what must be drawn afresh, and what was ignored
 * @throws FileMissingError, CheckpointError, CheckpointKeysError (missing or unexpected names, listed), ShapeError, UnsafeFileNameError (from an index)
 */
export async function readWeights(folder: string, wanted: readonly WantedParameter[], prefix: string, rules: LoadRules): Promise<{ weights: WeightMap; fresh: string[]; ignored: string[] }> {
  const shapes = new Map(wanted.map((w) => [w.name, w.shape]));
  const weights: WeightMap = new Map();
  const unexpected: string[] = [];
  const ignored: string[] = [];
  for await (const { file, name: stored, tensor: t } of storedTensors(folder)) {
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
    throw new CheckpointKeysError(`${folder} does not fit the model of config.json${list('missing', missing)}${list('unexpected', unexpected)}`, missing, unexpected);
  }
  return { weights, fresh: absent, ignored };
}

/** Writes `config.json` and `model.safetensors`, each of which appears whole or not at all. @param read values of a weight, asked for one at a time */
export async function writeFolder(folder: string, config: Readonly<Record<string, unknown>>, weights: readonly WantedParameter[], read: (name: string) => Promise<Float32Array>): Promise<void> {
  mkdirSync(folder, { recursive: true });
  await writeSafetensorsFrom(path.join(folder, WEIGHTS_FILE), weights, read);
  const file = path.join(folder, 'config.json');
  writeFileSync(`${file}.tmp`, `${JSON.stringify(config, null, 2)}\n`);
  renameSync(`${file}.tmp`, file);
}
