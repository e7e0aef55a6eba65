/**
 * `dataset('glue', 'cola')`: the Parquet files of a data set, from the cache or the Hugging Face Hub, as rows. Three layouts are known:
 *
 *   <config>/<split>-00000-of-00001.parquet     what `push_to_hub` writes; `data/` or no folder is the configuration `default`
 *   <config>/<split>.parquet                    one file for each split
 *   <config>/<split>/0000.parquet               the hub's own conversion, on the revision refs/convert/parquet, asked for when the main branch has no Parquet file
 */
import { existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { DownloadError, HubNotFoundError, InvalidArgumentError, OfflineError, ParquetError } from '../errors';
import { checkRepoName } from './names';
import { type ParquetInfo, type ParquetReadOptions, type ParquetRow, readParquetFile, readParquetInfo } from './parquet';
import { type HubOptions, settingsOf } from './settings';
import { openSnapshot, type Snapshot } from './snapshot';

/** Options of `dataset()`. */
export interface DatasetOptions extends HubOptions {
  /** Splits to fetch, such as `['train', 'validation']`. Default: all. */
  readonly splits?: readonly string[];
}

/** Short names of data sets that have moved under their owner's name. */
export const DATASET_ALIASES: Readonly<Record<string, string>> = {
  beans: 'AI-Lab-Makerere/beans',
  cifar10: 'uoft-cs/cifar10',
  cifar100: 'uoft-cs/cifar100',
  glue: 'nyu-mll/glue',
  imdb: 'stanfordnlp/imdb',
  mnist: 'ylecun/mnist',
  squad: 'rajpurkar/squad',
  squad_v2: 'rajpurkar/squad_v2',
};

const CONVERTED = 'refs/convert/parquet';

/** A data set whose files are on this machine; rows are read when they are asked for. */
export class HubDataset {
  /** @param parts files and what they say about themselves, by split */
  constructor(
    /** Name of the repository, or the folder. */
    readonly repo: string,
    /** Name of the configuration: a GLUE task, or `default`. */
    readonly config: string,
    /** Commit of the repository; undefined for a folder on this machine. */
    readonly commit: string | undefined,
    private readonly parts: ReadonlyMap<string, readonly { readonly file: string; readonly info: ParquetInfo }[]>,
  ) {}

  /** Names of the splits. */
  get splits(): readonly string[] {
    return [...this.parts.keys()];
  }

  /** Names of the columns, in order. */
  get columns(): readonly string[] {
    return [...this.parts.values()][0][0].info.columns;
  }

  /** Parquet files of a split, in order. @throws HubNotFoundError */
  files(split: string): readonly string[] {
    return this.part(split).map((p) => p.file);
  }

  /** Rows of a split. @throws HubNotFoundError */
  numRows(split: string): number {
    return this.part(split).reduce((n, p) => n + p.info.numRows, 0);
  }

  /** Names of the classes of a column by index, as its author gave them; undefined when the files name none. */
  classNames(column: string): readonly string[] | undefined {
    const { classNames } = [...this.parts.values()][0][0].info;
    return Object.hasOwn(classNames, column) ? classNames[column] : undefined;
  }

  /**
   * Rows of a split, all of them or from one to another.
   * @throws HubNotFoundError (no such split), InvalidArgumentError (no such column or rows), ParquetError
   */
  async rows(split: string, options: ParquetReadOptions = {}): Promise<ParquetRow[]> {
    const size = this.numRows(split);
    const { from = 0, to = size } = options;
    if (!(Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from <= to && to <= size)) throw new InvalidArgumentError(`rows ${from} to ${to} were asked for, but '${split}' of ${this.repo} has ${size}`);
    const rows: ParquetRow[] = [];
    let first = 0;
    for (const { file, info } of this.part(split)) {
      const begin = Math.max(0, from - first);
      const end = Math.min(info.numRows, to - first);
      if (begin < end) for (const row of await readParquetFile(file, { columns: options.columns, from: begin, to: end })) rows.push(row);
      first += info.numRows;
    }
    return rows;
  }

  private part(split: string) {
    const part = this.parts.get(split);
    if (!part) throw new HubNotFoundError(`${this.repo} (${this.config}) has no split '${split}': choose of ${this.splits.join(', ')}`, 'split');
    return part;
  }
}

/** Files by configuration and split. */
type Layout = Map<string, Map<string, string[]>>;

/** Sorts a listing into configurations and splits. */
export function layoutOf(names: readonly string[]): Layout {
  const layout: Layout = new Map();
  for (const name of [...names].sort()) {
    const [, config, split] =
      /^([^/]+)\/([^/]+)\/\d{4,}\.parquet$/.exec(name) ?? /^(?:([^/]+)\/)?([^/]+?)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?\.parquet$/.exec(name) ?? /^(?:([^/]+)\/)?([^/]+?)\.parquet$/.exec(name) ?? [];
    if (split === undefined) continue;
    const key = config === undefined || config === 'data' ? 'default' : config;
    const splits = layout.get(key) ?? new Map<string, string[]>();
    layout.set(key, splits);
    const files = splits.get(split);
    if (files) files.push(name);
    else splits.set(split, [name]);
  }
  return layout;
}

/**
 * A data set: `const cola = await dataset('glue', 'cola'); await cola.rows('train')`.
 *
 * Files are kept in the cache of Python's huggingface_hub, and downloads go on, are checked and fail as those of `hub()`. A folder of Parquet files on this machine works as well.
 *
 * @param repo `owner/name`, a short name such as `glue`, `squad_v2`, `cifar10`, or a folder
 * @param config a configuration such as `cola`; may be left out when there is only one, or one called `default`
 * @throws HubNotFoundError (repository, configuration or split; no Parquet files), DownloadError, HubAccessError, ChecksumError, OfflineError, UnsafeFileNameError, ParquetError,
 * InterruptedError, InvalidArgumentError
 */
export async function dataset(repo: string, config?: string, options: DatasetOptions = {}): Promise<HubDataset> {
  const local = !Object.hasOwn(DATASET_ALIASES, repo) && existsSync(repo) && statSync(repo).isDirectory();
  const name = Object.hasOwn(DATASET_ALIASES, repo) ? DATASET_ALIASES[repo] : repo;
  if (!local) checkRepoName(name);
  const snapshot: Pick<Snapshot, 'folder' | 'names' | 'listed' | 'load'> & { readonly commit?: string } = local
    ? { folder: path.resolve(repo), names: readdirSync(repo, { recursive: true, encoding: 'utf8' }).map((n) => n.split(path.sep).join('/')), listed: true, load: async () => {} }
    : await openWithParquet(name, options);
  const layout = layoutOf(snapshot.names);
  if (layout.size === 0) throw new HubNotFoundError(`${name} has no Parquet files, and the hub has not converted it: it has ${snapshot.names.slice(0, 5).join(', ') || 'no files'}`, 'file');
  const chosen = config ?? (layout.size === 1 ? [...layout.keys()][0] : 'default');
  const splits = layout.get(chosen);
  if (!splits) throw new HubNotFoundError(`${name} ${config === undefined ? 'has several configurations: name one' : `has no configuration '${config}': choose one`} of ${[...layout.keys()].join(', ')}`, 'configuration');
  const wanted = options.splits ?? [...splits.keys()];
  for (const split of wanted) if (!splits.has(split)) throw new HubNotFoundError(`${name} (${chosen}) has no split '${split}': choose of ${[...splits.keys()].join(', ')}`, 'split');
  if (wanted.length === 0) throw new InvalidArgumentError('splits is empty: name at least one, or leave it out for all');
  for (const split of wanted) {
    const files = splits.get(split)!;
    const due = Number(/-of-(\d{5})/.exec(files[0])?.[1] ?? files.length);
    const text = `split '${split}' of ${name} should have ${due} files, ${files.length} are there: ${files.slice(0, 3).join(', ')}`;
    // Offline without a listing, what is in the cache may be half a split.
    if (files.length !== due) throw snapshot.listed ? new HubNotFoundError(text, 'file') : new OfflineError(`${text}; finish the download with a connection`);
  }
  await snapshot.load(wanted.flatMap((split) => splits.get(split)!));
  const parts = new Map<string, { file: string; info: ParquetInfo }[]>();
  let columns: string | undefined;
  for (const split of wanted) {
    const part = await Promise.all(splits.get(split)!.map((n) => path.join(snapshot.folder, n)).map(async (file) => ({ file, info: await readParquetInfo(file) })));
    for (const { file, info } of part) {
      columns ??= info.columns.join();
      if (info.columns.join() !== columns) throw new ParquetError(`${file}: has the columns ${info.columns.join(', ')}, other files of ${name} (${chosen}) have ${columns}`);
    }
    parts.set(split, part);
  }
  return new HubDataset(name, chosen, snapshot.commit, parts);
}

/** The main branch, or the hub's conversion where that has no Parquet files. */
async function openWithParquet(repo: string, options: DatasetOptions): Promise<Snapshot> {
  let main: Snapshot;
  try {
    main = await openSnapshot('dataset', repo, settingsOf(options));
  } catch (error) {
    // Without a connection the conversion may be all that the cache has.
    if (options.revision !== undefined || !(error instanceof OfflineError || error instanceof DownloadError)) throw error;
    return openSnapshot('dataset', repo, settingsOf({ ...options, revision: CONVERTED, offline: true })).catch(() => {
      throw error;
    });
  }
  if (options.revision !== undefined || main.names.some((n) => n.endsWith('.parquet'))) return main;
  try {
    return await openSnapshot('dataset', repo, settingsOf({ ...options, revision: CONVERTED }));
  } catch (error) {
    if (error instanceof HubNotFoundError) return main;
    throw error;
  }
}
