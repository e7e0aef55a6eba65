/** Jupyter counts positions in code points (protocol 5.2 and later), JavaScript in UTF-16 units: they differ after an emoji. */

/** From Jupyter's position to JavaScript's. */
export function toUtf16(text: string, codePoints: number): number {
  let units = 0;
  for (let n = 0; n < codePoints && units < text.length; n++) units += text.codePointAt(units)! > 0xffff ? 2 : 1;
  return units;
}

/** From JavaScript's position to Jupyter's. */
export function toCodePoints(text: string, units: number): number {
  return [...text.slice(0, units)].length;
}
