/**
 * Names from a server become names of files: each is looked at before it touches the disk. The rules are those of all systems at once, so that a cache written on one can be
 * read on another (huggingface_hub's `_validate_relative_filename`, and Windows' naming rules).
 */
import { InvalidArgumentError, UnsafeFileNameError } from '../errors';
import { shown } from '../shown';

/** Windows opens a device under these names, whatever ending they have. */
const DEVICE = /^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?$/i;
const CONTROL = /[\u0000-\u001f\u007f]/;

/** Why a path relative to a folder could lead out of it on some system; undefined when it cannot. */
function escape(name: string): string | undefined {
  if (CONTROL.test(name)) return 'it holds a control character';
  if (name.includes('\\')) return 'it holds a backslash';
  if (name.startsWith('/')) return 'it is absolute';
  if (/(^|\/)[a-z]:/i.test(name)) return 'it begins with a drive';
  if (name.split('/').includes('..')) return "it holds '..'";
  return undefined;
}

/** Refuses a name that only an attack would hold: git itself lists no such one. @throws UnsafeFileNameError */
export function checkStaysInside(name: string, from: string): void {
  const reason = escape(name);
  if (reason) throw new UnsafeFileNameError(`${from} names a file ${shown(name)}: ${reason}; nothing was written. Do not use this repository`);
}

/** Refuses a relative path that cannot be stored safely on every system. @throws UnsafeFileNameError */
export function checkFileName(name: string, from: string): void {
  checkStaysInside(name, from);
  const segments = name.split('/');
  const reason = segments.some((s) => s === '' || s === '.')
    ? 'it has an empty part'
    : segments.some((s) => DEVICE.test(s))
      ? 'Windows takes it for a device'
      : segments.some((s) => /[. ]$/.test(s))
        ? 'a part ends in a dot or a space'
        : /[<>:"|?*]/.test(name)
          ? 'it holds a character that Windows does not allow'
          : segments.some((s) => Buffer.byteLength(s) > 255) || name.length > 1024
            ? 'it is too long'
            : undefined;
  if (reason) throw new UnsafeFileNameError(`${from} names a file ${shown(name)}: ${reason}; nothing was written. Ask the owner of the repository to rename it`);
}

/** Refuses anything but the plain name of a file in the same folder. @throws UnsafeFileNameError */
export function checkPlainName(name: string, from: string): void {
  checkFileName(name, from);
  if (name.includes('/')) throw new UnsafeFileNameError(`${from} names a file ${shown(name)}: it must lie in the same folder`);
}

/** Refuses what is no repository name, `name` or `owner/name`, as huggingface_hub's `validate_repo_id`. @throws InvalidArgumentError */
export function checkRepoName(repo: string): void {
  if (!/^[\w.-]+(\/[\w.-]+)?$/.test(repo) || repo.length > 96 || /--|\.\./.test(repo) || repo.endsWith('.git') || repo.split('/').some((s) => /^[.-]|[.-]$/.test(s) || DEVICE.test(s)))
    throw new InvalidArgumentError(`'${repo}' is neither a folder here nor the name of a repository, such as 'bert-base-cased' or 'nyu-mll/glue'`);
}

/** Refuses what can be no branch, tag or commit. @throws InvalidArgumentError */
export function checkRevision(revision: string): void {
  if (!/^[\w.+@-]+(\/[\w.+@-]+)*$/.test(revision) || revision.length > 256 || revision.split('/').some((s) => /^\.|\.$|\.\./.test(s) || DEVICE.test(s)))
    throw new InvalidArgumentError(`'${revision}' is no branch, tag or commit`);
}
