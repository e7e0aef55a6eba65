/** Bytes as people read them. */

import { InvalidArgumentError } from './errors';

/** Bytes in a MiB. */
export const MIB = 2 ** 20;

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** The largest unit that leaves at least one whole of so many bytes, and its size. */
export function byteUnit(bytes: number): { readonly unit: string; readonly size: number } {
  let i = 0;
  while (Math.abs(bytes) >= 1024 ** (i + 1) && i < UNITS.length - 1) i++;
  return { unit: UNITS[i], size: 1024 ** i };
}

/** Bytes of a text such as '8GiB', '500 MB' (millions), '1048576'. @throws InvalidArgumentError */
export function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?$/i.exec(text.trim());
  // 'i' alone is no unit.
  if (!match || (match[3] && !match[2])) throw new InvalidArgumentError(`'${text}' is no number of bytes: write 8GiB, 500MB or 1048576`);
  return Number(match[1]) * (match[3] ? 1024 : 1000) ** ' kmgt'.indexOf(match[2].toLowerCase() || ' ');
}

/** Bytes as '12.3 MiB'. */
export function formatBytes(bytes: number): string {
  const { unit, size } = byteUnit(bytes);
  const n = bytes / size;
  return `${size === 1 ? n : Math.abs(n) >= 1000 ? Math.round(n) : n.toPrecision(n < 10 ? 2 : 3)} ${unit}`;
}
