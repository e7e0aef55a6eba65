/** `hub('bert-base-cased')`: the folder of a model, from the cache or the Hugging Face Hub. */
import { existsSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { FileMissingError, HubNotFoundError, UnsupportedModelError } from '../errors';
import { INDEX_FILE, readShardNames, WEIGHTS_FILE } from './folder';
import { checkRepoName } from './names';
import { type HubOptions, settingsOf } from './settings';
import { openSnapshot } from './snapshot';

/** Options of `hub()`. */
export interface HubModelOptions extends HubOptions {
  /** Files to fetch instead of a model's: paths in the repository, where `*` stands for any text. Default: config, safetensors weights, tokenizer and image settings. */
  readonly files?: readonly string[];
}

/** What is read beside config and weights, where a repository has it. */
const BESIDE = ['tokenizer.json', 'tokenizer_config.json', 'vocab.txt', 'vocab.json', 'merges.txt', 'special_tokens_map.json', 'added_tokens.json', 'preprocessor_config.json'];
/** Weights in formats that are not loaded. */
const OTHER_WEIGHTS = /^(pytorch_model.*\.bin(\.index\.json)?|tf_model\.h5|flax_model\.msgpack|model\.ckpt.*|.*\.(pt|pth))$/;

/**
 * The folder of a model: `fromPretrained(await hub('bert-base-cased'))`.
 *
 * A folder that exists here is returned as it is. Otherwise the repository's config, safetensors weights, tokenizer and image settings are looked for in the cache of Python's
 * huggingface_hub, and what is missing is downloaded into it: gone on with where an earlier download was cut, checked against its hash, and never half there. With a copy in the
 * cache, one small request asks whether the branch has moved; without a connection the copy is used.
 *
 * @param repo a folder here, or a repository such as `bert-base-cased` or `google/vit-base-patch16-224-in21k`
 * @returns absolute path of the folder (as given, when it is a folder here)
 * @throws DownloadError (no connection, or cut too often), HubAccessError (private or gated: HF_TOKEN), HubNotFoundError, ChecksumError, OfflineError, UnsafeFileNameError,
 * UnsupportedModelError (only pickled weights: no code from checkpoints is run), CheckpointError (broken index of shards), InterruptedError, InvalidArgumentError, FileMissingError
 */
export async function hub(repo: string, options: HubModelOptions = {}): Promise<string> {
  const local = repo.startsWith('~/') ? path.join(homedir(), repo.slice(2)) : repo;
  if (existsSync(local) && statSync(local).isDirectory()) return local;
  if (/^[./~\\]|^[a-z]:[\\/]|\\|\/.*\//i.test(repo)) throw new FileMissingError(`no folder ${repo}`);
  checkRepoName(repo);
  const settings = settingsOf(options);
  const snapshot = await openSnapshot('model', repo, settings);
  const listed = new Set(snapshot.names);
  if (options.files) {
    await snapshot.load(options.files.flatMap((pattern) => matching(snapshot.names, pattern, repo)));
    return snapshot.folder;
  }
  const weights = listed.has(WEIGHTS_FILE) ? WEIGHTS_FILE : listed.has(INDEX_FILE) ? INDEX_FILE : undefined;
  if (!weights) {
    const other = snapshot.names.filter((n) => OTHER_WEIGHTS.test(n));
    if (other.length > 0)
      throw new UnsupportedModelError(
        `${repo} has ${other[0]}, but no ${WEIGHTS_FILE}: SlimFit reads safetensors alone and runs no code from checkpoints. Convert it once in Python with ` +
          "AutoModel.from_pretrained(…).save_pretrained(folder, safe_serialization=True) and give that folder, or name a revision that has it (the hub's converter offers 'refs/pr/…' ones)",
      );
    if (!snapshot.listed) await snapshot.load([WEIGHTS_FILE]);
    throw new HubNotFoundError(`${repo} has no ${WEIGHTS_FILE}: is it a model? It has ${snapshot.names.slice(0, 5).join(', ') || 'no files'}`, 'file');
  }
  await snapshot.load(['config.json', weights, ...BESIDE.filter((n) => listed.has(n))]);
  if (weights === INDEX_FILE) await snapshot.load(readShardNames(snapshot.folder));
  return snapshot.folder;
}

/** The files that a pattern means. A plain name is left for `load` to look for. */
function matching(names: readonly string[], pattern: string, repo: string): string[] {
  if (!pattern.includes('*')) return [pattern];
  const rule = new RegExp(`^${pattern.split('*').map((s) => s.replace(/[\\^$.|?+()[\]{}]/g, '\\$&')).join('.*')}$`, 's');
  const found = names.filter((n) => rule.test(n));
  if (found.length === 0) throw new HubNotFoundError(`${repo} has no file like ${pattern}: it has ${names.slice(0, 5).join(', ')}`, 'file');
  return found;
}
