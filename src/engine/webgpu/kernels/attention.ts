/**
 * Attention whose probabilities are never in memory (Dao et al. 2022, FlashAttention, arXiv 2205.14135, algorithms 1 and 4): P = softmax(q·kᵀ·scale + mask), context = drop(P)·v, and its gradients.
 * Operands are [B, T, A, d], as linear maps write them.
 *
 * A workgroup has 64 rows (queries; of the gradients of keys and values: keys) of one head and walks over the other side, 64 columns at a time. Products of rows and columns are made as matrix products
 * are, over 32 of the d at a time; thread (tx, ty) of 16×16 has the rows ty + 16·i and the columns tx + 16·j, and one vec4 over its four rows for each of its columns. These are weights of a second
 * product, which adds up d values a row, over 16 columns at a time. Every sum has one order, and nothing is added atomically.
 *
 * Row by row the largest score and the sum of exponentials so far are kept, and what was added up is scaled when the largest changes. The gradient of a query needs D = Σ P·dP of its row before
 * dS = P·(dP − D); two sums, of P·dP·k and of P·k, spare the second walk: dq = scale·(Σ P·dP·k − D·Σ P·k). Keys and values then read each row's largest score, 1/sum and D.
 */
import type { Kernel } from '../kernel';
import { EXP, RANDOM_BITS } from './mathFunctions';

/** How an operand lies in memory: as float32, or in signed 8-bit codes (steps of 1/`scale`, or of a row's own step, a row being the d values of one head). */
export type OperandForm = 'f32' | { readonly scale: number; readonly steps: boolean };

/** What a kernel of attention is specialised for. */
export interface AttentionKind {
  /** Width of a head: a multiple of 4, at most 128. */
  readonly d: number;
  readonly mask: boolean;
  readonly dropout: boolean;
}

/** Of the kernels of backward: how the kept operands lie in memory. */
export interface AttentionGradKind extends AttentionKind {
  readonly q: OperandForm;
  readonly k: OperandForm;
  /** Undefined where it is not read. */
  readonly v: OperandForm | undefined;
}

/** Rows and columns of a block. */
export const ATTENTION_BLOCK = 64;

/** The widest head. */
export const WIDEST_HEAD = 128;

const formKey = (f: OperandForm | undefined): string => (f === undefined ? '-' : f === 'f32' ? f : `i8/${f.scale}${f.steps ? '·step' : ''}`);

export const attentionKey = ({ d, mask, dropout }: AttentionKind): string => `${d}${mask ? ' mask' : ''}${dropout ? ' dropout' : ''}`;
export const attentionGradKey = (k: AttentionGradKind): string => `${attentionKey(k)} ${[k.q, k.k, k.v].map(formKey).join(' ')}`;

/** Params of every kernel of attention, and with dropout. */
export const PARAMS = ['T: u32', 'A: u32', 'heads: u32', 'scale: f32'];
export const DROPOUT_PARAMS = ['seed: u32', 'counter: u32', 'offset: u32', 'threshold: u32', 'keep: f32'];
/** Columns, or rows, of a thread. */
const FOUR = [0, 1, 2, 3];
export const LANES = ['x', 'y', 'z', 'w'];
export const LOWEST = '-3.4028234e38';

/** Storage of an operand, and a function that reads 4 values of it: token `t` of the head whose first value has position `base`. Beyond the last token they are 0, or the last token's, which takes no branch. */
export function operand(name: string, form: OperandForm, d: number, beyond: 'zero' | 'last' = 'zero'): { reads: string[]; functions: string } {
  const token = beyond === 'last' ? 'min(t, p.T - 1u)' : 't';
  const at = (value: string) => `fn at_${name}(base: u32, t: u32, c: u32) -> vec4f { ${beyond === 'zero' ? 'if (t >= p.T) { return vec4f(); } ' : ''}let o = base + ${token} * p.A * ${d / 4}u + c; return ${value}; }\n`;
  if (form === 'f32') return { reads: [`${name}: vec4f`], functions: at(`${name}[o]`) };
  const codes = `vec4f((vec4i(bitcast<i32>(${name}[o])) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u))`;
  const scaled = form.scale === 1 ? codes : `${codes} * ${1 / form.scale}`;
  return { reads: [`${name}: u32`, ...(form.steps ? [`${name}_steps: f32`] : [])], functions: at(form.steps ? `${scaled} * ${name}_steps[o / ${d / 4}u]` : scaled) };
}

const TILES = `
var<workgroup> tile_a: array<vec4f, 512>;
var<workgroup> tile_b: array<vec4f, 512>;
${EXP}
fn exp4(x: vec4f) -> vec4f { return vec4f(expOf(x.x), expOf(x.y), expOf(x.z), expOf(x.w)); }
`;

/** `drawn4(first, step)`: what dropout multiplies four probabilities by. */
const DRAWN = `${RANDOM_BITS}
fn drawn(at: u32) -> f32 { return select(0.0, p.keep, randomBits(p.seed, p.counter, p.offset + at) >= p.threshold); }
fn drawn4(first: u32, step: u32) -> vec4f { return vec4f(drawn(first), drawn(first + step), drawn(first + 2u * step), drawn(first + 3u * step)); }
`;

/** A block of products of rows of `a` and columns of `b`, added to `<out>0` to `<out>3`. */
function products(out: string, a: string, a0: string, b: string, b0: string, d: number): string {
  const rows = (name: string, first: string) => FOUR.map((i) => `at_${name}(base, ${first} + rg + ${16 * i}u, c)`).join(', ');
  const fill = (tile: string, name: string, first: string) => `let t = transpose(mat4x4f(${rows(name, first)})); ${FOUR.map((j) => `${tile}[(kq * 4u + ${j}u) * 16u + rg] = t[${j}];`).join(' ')}`;
  const whole = d % 32 === 0;
  return `
      for (var d0 = 0u; d0 < ${d / 4}u; d0 += 8u) {
        workgroupBarrier();
        let kq = (lid & 1u) | (((lid >> 5u) & 3u) << 1u);
        let rg = (lid >> 1u) & 15u;
        let c = d0 + kq;
        ${whole ? '' : `if (c < ${d / 4}u) `}{ if (lid < 128u) { ${fill('tile_a', a, a0)} } else { ${fill('tile_b', b, b0)} } }
        workgroupBarrier();
        for (var k = 0u; k < ${whole ? '32u' : `min(32u, ${d}u - 4u * d0)`}; k++) {
          let a = tile_a[k * 16u + ty];
          let b = tile_b[k * 16u + tx];
          ${FOUR.map((j) => `${out}${j} += a * b.${LANES[j]};`).join(' ')}
        }
      }`;
}

/** Sums of d values a row: for each [sums, weights], <sums> += <weights>·x over the block's columns, which begin at `first`. */
function weigh(pairs: readonly (readonly [sums: string, weights: string])[], x: string, first: string, d: number): string {
  const D = d / 4;
  const vectors = Array.from({ length: Math.ceil(D / 16) }, (_, n) => n);
  const chunk = (j: number) => `
      if (${first} + ${16 * j}u < p.T) {
        workgroupBarrier();
        ${pairs.map(([, weights], n) => `tile_a[${256 * n}u + tx * 16u + ty] = ${weights}${j};`).join(' ')}
        for (var l = lid; l < ${16 * D}u; l += W) { tile_b[l] = at_${x}(base, ${first} + ${16 * j}u + l / ${D}u, l % ${D}u); }
        workgroupBarrier();
        for (var k = 0u; k < 16u; k++) {
          ${vectors.map((n) => `let x${n} = tile_b[k * ${D}u + tx + ${16 * n}u];`).join(' ')}
          ${pairs.map(([sums], n) => `let w${n} = tile_a[${256 * n}u + k * 16u + ty]; ${eachSum(d, (i, v) => `${sums}${i}${v} += w${n}.${LANES[i]} * x${v};`)}`).join('\n          ')}
        }
      }`;
  return FOUR.map(chunk).join('');
}

/** A statement for each of a thread's sums: its row i of 4, and its vec4 v of those that it has of the row. */
const eachSum = (d: number, statement: (i: number, v: number) => string): string => FOUR.flatMap((i) => Array.from({ length: Math.ceil(d / 64) }, (_, v) => statement(i, v))).join(' ');

/** `<name>0` to `<name>3` = statement. */
const each = (statement: (j: number) => string): string => FOUR.map(statement).join('\n      ');

const declare = (d: number, ...sums: readonly string[]): string => sums.map((s) => eachSum(d, (i, v) => `var ${s}${i}${v} = vec4f();`)).join('\n    ');

/** Writes a value of each of the thread's rows and columns of d. */
const write = (out: string, first: string, d: number, value: (i: number, v: number) => string): string =>
  eachSum(d, (i, v) => `if (${first} + ty + ${16 * i}u < p.T && tx + ${16 * v}u < ${d / 4}u) { ${out}[base + (${first} + ty + ${16 * i}u) * p.A * ${d / 4}u + tx + ${16 * v}u] = ${value(i, v)}; }`);

/** The walk over the heads of one block of rows: `head` = b·A + a, `base` where its values begin. */
const overHeads = (d: number, body: string): string => `
  let tx = lid % 16u;
  let ty = lid / 16u;
  let r0 = wg.x * 64u;
  for (var head = wg.y; head < p.heads; head += grid.y) {
    let base = (head / p.A * p.T * p.A + head % p.A) * ${d / 4}u;
    ${body}
  }`;

/** Largest or sum over the threads that share their rows: a vec4 of each. The result is in `into`. */
const acrossRow = (value: string, into: string, op: (a: string, b: string) => string): string => `
      workgroupBarrier();
      tile_a[tx * 16u + ty] = ${value};
      workgroupBarrier();
      var ${into} = tile_a[ty];
      for (var k = 1u; k < 16u; k++) { ${into} = ${op(into, 'tile_a[k * 16u + ty]')}; }`;

/** Scores become exponentials `s<j>` below the largest so far, `top`; `total` and what `scaled` lists follow. Rows are queries. */
const softmaxBlock = (mask: boolean, scaled: string): string => `
      ${each((j) => `let in${j} = c0 + tx + ${16 * j}u < p.T; s${j} = select(vec4f(${LOWEST}), s${j} * p.scale${mask ? ` + mask[head / p.A * p.T + min(c0 + tx + ${16 * j}u, p.T - 1u)]` : ''}, in${j});`)}
      ${acrossRow('max(max(s0, s1), max(s2, s3))', 'high', (a, b) => `max(${a}, ${b})`)}
      high = max(high, top);
      let less = exp4(top - high);
      top = high;
      ${each((j) => `s${j} = select(vec4f(), exp4(s${j} - top), in${j});`)}
      total = total * less + ((s0 + s1) + (s2 + s3));
      ${scaled}`;

const rowsDrawn = (j: number): string => `drawn4((head * p.T + r0 + ty) * p.T + c0 + tx + ${16 * j}u, 16u * p.T)`;

const start = (...blocks: readonly string[]): string => blocks.map((s) => FOUR.map((j) => `var ${s}${j} = vec4f();`).join(' ')).join(' ');
const sum = (a: string, b: string): string => `${a} + ${b}`;

/** The context, `y`: params T, A, heads (B·A), scale and those of dropout; workgroups (T/64, heads). */
export function attentionKernel({ d, mask, dropout }: AttentionKind): Kernel {
  const operands = ['q', 'k', 'v'].map((name) => operand(name, 'f32', d));
  return {
    params: [...PARAMS, ...(dropout ? DROPOUT_PARAMS : [])],
    reads: [...operands.flatMap((o) => o.reads), ...(mask ? ['mask: f32'] : [])],
    writes: ['y: vec4f'],
    workgroup: 256,
    functions: TILES + (dropout ? DRAWN : '') + operands.map((o) => o.functions).join(''),
    body: overHeads(
      d,
      `var top = vec4f(${LOWEST});
    var total = vec4f();
    ${declare(d, 'y')}
    for (var c0 = 0u; c0 < p.T; c0 += 64u) {
      ${start('s')}
      ${products('s', 'q', 'r0', 'k', 'c0', d)}
      ${softmaxBlock(mask, eachSum(d, (i, n) => `y${i}${n} *= less.${LANES[i]};`))}
      ${dropout ? each((j) => `s${j} *= ${rowsDrawn(j)};`) : ''}
      ${weigh([['y', 's']], 'v', 'c0', d)}
    }
    ${acrossRow('total', 'sums', sum)}
    ${write('y', 'r0', d, (i, n) => `y${i}${n} / sums.${LANES[i]}`)}`,
    ),
  };
}

/** What backward's walk over keys gives. */
export interface AttentionRows {
  /** dq. */
  readonly gradient: boolean;
  /** For `attentionColumnsKernel`, as `rows` [B·A, T] of vec4: each query's largest score, 1/sum, D (0 where v is not read). */
  readonly statistics: boolean;
}

/** One block of queries against all keys: params and workgroups as of `attentionKernel`. */
export function attentionRowsKernel({ d, mask, dropout, ...forms }: AttentionGradKind, { gradient, statistics }: AttentionRows): Kernel {
  const [q, k] = [operand('q', forms.q, d), operand('k', forms.k, d)];
  const v = forms.v && operand('v', forms.v, d);
  const g = v && operand('g', 'f32', d);
  const operands = [q, k, ...(v ? [v] : []), ...(g ? [g] : [])];
  const row = (i: number) => `r0 + ty + ${16 * i}u`;
  return {
    params: [...PARAMS, ...(dropout ? DROPOUT_PARAMS : [])],
    reads: [...operands.flatMap((o) => o.reads), ...(mask ? ['mask: f32'] : [])],
    writes: [...(gradient ? ['dq: vec4f'] : []), ...(statistics ? ['rows: vec4f'] : [])],
    workgroup: 256,
    functions: TILES + (dropout ? DRAWN : '') + operands.map((o) => o.functions).join(''),
    body: overHeads(
      d,
      `var top = vec4f(${LOWEST});
    var total = vec4f();
    var along = vec4f();
    ${gradient ? declare(d, 'm', 'n') : ''}
    for (var c0 = 0u; c0 < p.T; c0 += 64u) {
      ${start('s', ...(v ? ['t'] : []))}
      ${products('s', 'q', 'r0', 'k', 'c0', d)}
      ${v ? products('t', 'g', 'r0', 'v', 'c0', d) : ''}
      ${softmaxBlock(mask, gradient ? eachSum(d, (i, n) => `m${i}${n} *= less.${LANES[i]}; n${i}${n} *= less.${LANES[i]};`) : '')}
      ${v ? `${each((j) => `t${j} *= s${j}${dropout ? ` * ${rowsDrawn(j)}` : ''};`)}\n      along = along * less + ((t0 + t1) + (t2 + t3));` : ''}
      ${gradient ? weigh([['m', 't'], ['n', 's']], 'k', 'c0', d) : ''}
    }
    ${acrossRow('total', 'sums', sum)}
    ${v ? `${acrossRow('along', 'dots', sum)}\n    dots = dots / sums;` : 'let dots = vec4f();'}
    ${gradient ? write('dq', 'r0', d, (i, n) => `(m${i}${n} - dots.${LANES[i]} * n${i}${n}) * (p.scale / sums.${LANES[i]})`) : ''}
    ${statistics ? `if (tx == 0u) { ${FOUR.map((i) => `if (${row(i)} < p.T) { rows[head * p.T + ${row(i)}] = vec4f(top.${LANES[i]}, 1.0 / sums.${LANES[i]}, dots.${LANES[i]}, 0.0); }`).join(' ')} }` : ''}`,
    ),
  };
}

/** Which gradients a walk over queries gives. */
export interface AttentionColumns {
  readonly dk: boolean;
  readonly dv: boolean;
}

/** One block of keys and values against all queries: params as of `attentionKernel`, workgroups (T/64, heads). `v` of the kind is read for dk alone. */
export function attentionColumnsKernel({ d, mask, dropout, ...forms }: AttentionGradKind, { dk, dv }: AttentionColumns): Kernel {
  const v = dk && operand('v', forms.v!, d);
  const operands = [operand('q', forms.q, d), operand('k', forms.k, d), ...(v ? [v] : []), operand('g', 'f32', d)];
  const drawn = (j: number) => `drawn4((head * p.T + c0 + tx + ${16 * j}u) * p.T + r0 + ty, 16u)`;
  const block = (j: number) => {
    const column = `c0 + tx + ${16 * j}u`;
    const weights = dropout ? `let z${j} = ${drawn(j)}; ` : '';
    const drop = (x: string) => (dropout ? `${x} * z${j}` : x);
    return `let row${j} = rows[head * p.T + min(${column}, p.T - 1u)];
      s${j} = select(vec4f(), exp4(s${j} * p.scale${mask ? ' + hidden' : ''} - row${j}.x) * row${j}.y, ${column} < p.T);
      ${weights}${dk ? `t${j} = s${j} * (${drop(`t${j}`)} - row${j}.z); ` : ''}${dropout && dv ? `s${j} = ${drop(`s${j}`)};` : ''}`;
  };
  return {
    params: [...PARAMS, ...(dropout ? DROPOUT_PARAMS : [])],
    reads: [...operands.flatMap((o) => o.reads), 'rows: vec4f', ...(mask ? ['mask: f32'] : [])],
    writes: [...(dk ? ['dk: vec4f'] : []), ...(dv ? ['dv: vec4f'] : [])],
    workgroup: 256,
    functions: TILES + (dropout ? DRAWN : '') + operands.map((o) => o.functions).join(''),
    body: overHeads(
      d,
      `${mask ? `let hidden = vec4f(${FOUR.map((i) => `mask[head / p.A * p.T + min(r0 + ty + ${16 * i}u, p.T - 1u)]`).join(', ')});` : ''}
    ${declare(d, ...(dk ? ['m'] : []), ...(dv ? ['n'] : []))}
    for (var c0 = 0u; c0 < p.T; c0 += 64u) {
      ${start('s', ...(dk ? ['t'] : []))}
      ${products('s', 'k', 'r0', 'q', 'c0', d)}
      ${dk ? products('t', 'v', 'r0', 'g', 'c0', d) : ''}
      ${each(block)}
      ${dv ? weigh([['n', 's']], 'g', 'c0', d) : ''}
      ${dk ? weigh([['m', 't']], 'q', 'c0', d) : ''}
    }
    ${dk ? write('dk', 'r0', d, (i, n) => `m${i}${n} * p.scale`) : ''}
    ${dv ? write('dv', 'r0', d, (i, n) => `n${i}${n}`) : ''}`,
    ),
  };
}
