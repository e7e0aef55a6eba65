/** Reads files of data sets whole. */
import { readFileSync, statSync } from 'node:fs';
import { FileMissingError } from '../errors';

/**
 * Bytes of a file. A folder or a pipe is none: a pipe would be waited for.
 * @param missing what to do when there is no such file
 * @throws FileMissingError
 */
export function readDataFile(file: string, missing: string): Buffer {
  let isFile: boolean;
  try {
    isFile = statSync(file).isFile();
  } catch (cause) {
    throw new FileMissingError(`no ${file}: ${missing}`, { cause });
  }
  if (!isFile) throw new FileMissingError(`${file} is no file: ${missing}`);
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new FileMissingError(`${file} cannot be read: ${(cause as Error).message}`, { cause });
  }
}

/** Bytes as text; undefined when they are no UTF-8. */
export function utf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
