/** float16 on the host: 11 bits, from 2⁻²⁴ to 65,504. */

/** The nearest float16, ties to even; infinite from 65,520 on. */
export function half(x: number): number {
  if (!Number.isFinite(x) || x === 0) return x;
  const step = 2 ** (Math.max(Math.floor(Math.log2(Math.abs(x))), -14) - 10);
  const down = Math.floor(x / step);
  const over = x / step - down;
  const y = (over > 0.5 || (over === 0.5 && down % 2 !== 0) ? down + 1 : down) * step;
  return Math.abs(y) > 65_504 ? Math.sign(y) * Infinity : y;
}
