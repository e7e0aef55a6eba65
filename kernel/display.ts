/**
 * How a value is shown: as a bundle of mime types. A value says so itself by a method under `Symbol.for('Jupyter.display')` (Deno's convention, may be
 * async); classes of others get a formatter; everything else is inspected as text.
 */
import { inspect } from 'node:util';
import type { Formatter, MimeBundle } from '../src/inspect/kernelApi';

const DISPLAY = Symbol.for('Jupyter.display');

/** The bundle of a value. */
export async function bundleOf(value: unknown, formatters: readonly Formatter[]): Promise<MimeBundle> {
  if (value !== null && (typeof value === 'object' || typeof value === 'function')) {
    const own = (value as { [DISPLAY]?: () => unknown })[DISPLAY];
    if (typeof own === 'function') {
      const bundle = await own.call(value);
      if (bundle && typeof bundle === 'object') return encodeBytes(bundle as MimeBundle);
    }
    const formatter = formatters.find((f) => f.test(value));
    if (formatter) return encodeBytes(formatter.format(value));
  }
  return { 'text/plain': typeof value === 'string' ? value : inspect(value, { depth: 4, maxArrayLength: 100, breakLength: 100 }) };
}

/** Bytes (a PNG) travel as base64. */
export function encodeBytes(bundle: MimeBundle): MimeBundle {
  return Object.fromEntries(Object.entries(bundle).map(([mime, v]) => [mime, v instanceof Uint8Array ? Buffer.from(v).toString('base64') : v]));
}
