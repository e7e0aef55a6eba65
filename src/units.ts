/** Bytes as people read them. */

/** Bytes in a MiB. */
export const MIB = 2 ** 20;

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** The largest unit that leaves at least one whole of so many bytes, and its size. */
export function byteUnit(bytes: number): { readonly unit: string; readonly size: number } {
  let i = 0;
  while (Math.abs(bytes) >= 1024 ** (i + 1) && i < UNITS.length - 1) i++;
  return { unit: UNITS[i], size: 1024 ** i };
}

/** Bytes as '12.3 MiB'. */
export function formatBytes(bytes: number): string {
  const { unit, size } = byteUnit(bytes);
  const n = bytes / size;
  return `${size === 1 ? n : Math.abs(n) >= 1000 ? Math.round(n) : n.toPrecision(n < 10 ? 2 : 3)} ${unit}`;
}
