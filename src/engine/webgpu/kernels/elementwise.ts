/** One thread for each element of the result: chains of arithmetic, and copies in another order. */
import { EACH, type Kernel, MAX_PARAMS } from '../kernel';

/**
 * An expression over elements of equal position.
 * @param reads 'x: f32', … seen in the expression as `x[i]`
 * @param params beside `n`, which is the first
 */
export function elementwise(expression: string, reads: readonly string[], params: readonly string[] = [], functions = '', out = 'f32'): Kernel {
  return { params: ['n: u32', ...params], reads, writes: [`y: ${out}`], workgroup: 256, functions, body: `${EACH}\n  y[i] = ${expression};` };
}

/** A shape as a kernel walks through it: dimensions of the walk, and for each operand the step in elements that each dimension takes in it (0 where it is repeated). */
export interface Walk {
  readonly dims: readonly number[];
  readonly strides: readonly (readonly number[])[];
}

/** Steps of a tensor in row-major order. */
export function rowMajor(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

/** Steps of a tensor that is broadcast to `shape`. */
export function broadcastStrides(from: readonly number[], shape: readonly number[]): number[] {
  const own = rowMajor(from);
  return shape.map((_, i) => {
    const at = i - shape.length + from.length;
    return at < 0 || from[at] === 1 ? 0 : own[at];
  });
}

/** The same walk in as few dimensions as will do: those of length 1 go, and neighbours that every operand walks in one go are one. */
export function collapse({ dims, strides }: Walk): Walk {
  const d: number[] = [];
  const s: number[][] = strides.map(() => []);
  dims.forEach((n, i) => {
    if (n === 1) return;
    const last = d.length - 1;
    if (last >= 0 && strides.every((of, k) => s[k][last] === of[i] * n)) {
      d[last] *= n;
      s.forEach((of, k) => (of[last] = strides[k][i]));
    } else {
      d.push(n);
      s.forEach((of, k) => of.push(strides[k][i]));
    }
  });
  return d.length > 0 ? { dims: d, strides: s } : { dims: [1], strides: strides.map(() => [0]) };
}

/** A kernel over a walk, its key, and the values of its parameters. */
export interface Strided {
  readonly key: string;
  readonly make: () => Kernel;
  readonly params: readonly number[];
  readonly n: number;
}

/**
 * y[…] = expression of operands found by steps: the position of operand k is `o<k>`, that of the thread `i`.
 * @param bases names of positions that are added: one for each operand, a parameter's value
 */
export function strided(name: string, { dims, strides }: Walk, reads: readonly string[], statement: string, offsets: readonly number[] = strides.map(() => 0), out = 'f32'): Strided {
  const rank = dims.length;
  const names = ['n', ...dims.slice(1).map((_, d) => `d${d + 1}`), ...strides.flatMap((of, k) => of.map((_, d) => `s${k}_${d}`)), ...offsets.map((_, k) => `b${k}`)];
  const values = [dims.reduce((a, b) => a * b, 1), ...dims.slice(1), ...strides.flat(), ...offsets];
  // More numbers than immediate data holds are written into the kernel.
  const baked = names.length > MAX_PARAMS;
  const p = (word: string) => (baked && word !== 'n' ? `${values[names.indexOf(word)]}u` : `p.${word}`);
  const make = (): Kernel => {
    const index: string[] = ['var rest = i;'];
    for (let d = rank - 1; d > 0; d--) index.push(`let i${d} = rest % ${p(`d${d}`)}; rest = rest / ${p(`d${d}`)};`);
    index.push('let i0 = rest;');
    strides.forEach((of, k) => index.push(`let o${k} = ${p(`b${k}`)} + ${of.map((_, d) => `i${d} * ${p(`s${k}_${d}`)}`).join(' + ')};`));
    return { params: (baked ? ['n'] : names).map((w) => `${w}: u32`), reads, writes: [`y: ${out}`], workgroup: 256, body: `${EACH}\n  ${index.join('\n  ')}\n  ${statement}` };
  };
  return { key: `${name} ${strides.length}·${rank}${baked ? ` ${values}` : ''}`, make, params: baked ? values.slice(0, 1) : values, n: values[0] };
}
