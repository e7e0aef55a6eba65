/**
 * Attention on matrix units: what attention.ts computes, operands rounded to float16 on their way into workgroup memory, products summed in float32, softmax and dropout in float32, and the weights of the second product
 * (P, dS) rounded to float16 (Dao et al. 2022, FlashAttention, arXiv 2205.14135, algorithms 1 and 4).
 *
 * A workgroup is four subgroups with 64 rows of one head (queries; of the gradients of keys and values: keys). Each subgroup holds its 16 rows as left operands in registers, and what is added up over the other side, which is
 * walked over in blocks. Products of rows and columns go through `cells` to the threads, since a matrix's elements cannot be told apart in registers; the threads, lanes/16 of them for a row, make weights of them and put these into
 * `tile`, from where the second product takes them. The next block is fetched into registers meanwhile. A block has two barriers (forward's, whose threads must agree, four).
 *
 * Sums in matrix registers cannot be scaled row by row either. Forward weighs by exp(s − top) where `top` is a row's largest score when it was last looked for; only when a score of the workgroup exceeds it by more than SLACK
 * do the sums go through `cells` and are scaled (as FlashAttention-4 does): seldom after the first block, where there are none yet. Backward's rows take two walks, one for top, sum and D and one for dS = P·(dP − D): the
 * single walk of attention.ts, Σ P·dP·k − D·Σ P·k, would be a difference of two large sums of rounded weights. Scales (1/sqrt(d), dropout's 1/(1 − p)) are applied to finished sums, not to what is rounded.
 *
 * Bound, not measured: forward multiplies 4·T²·d a head, backward 18·T²·d (rows 10, columns 8). For 16 rows and 32 columns of d = 64 forward moves 16 KiB through workgroup memory (right operands 8, scores 4, weights and the next
 * block 2 each) for 131 kFLOP: 8 FLOP a byte, backward's walks 7, 8 and 8. At 128 bytes a clock and core that is 1,024 FLOP, between a quarter (H100) and all (RTX 4090) of what a core's matrix units do. An exponential and about ten
 * other instructions for each 4·d FLOP of forward (with dropout 30) keep a core's other units about as long. A workgroup reads all columns once a walk, 8·T·d bytes for 64·T·4·d FLOP: 32 FLOP a byte, from caches, since the workgroups
 * of a head share them.
 */
import type { Kernel } from '../kernel';
import type { MatrixAccess, MatrixShape, MatrixUnit } from '../matrixUnit';
import { type AttentionColumns, type AttentionGradKind, type AttentionKind, type AttentionRows, DROPOUT_PARAMS, LANES, LOWEST, operand, PARAMS } from './attention';
import { RANDOM_BITS } from './mathFunctions';

/** The fewest tokens of a sequence that it is used for: a block of forward's. Below, float32 costs nothing. */
const FEWEST = 32;

/** Rows of a subgroup. */
const ROWS = 16;

/** Columns of `cells` and of the weights: forward has so many scores at a time; backward half as many of S and of dP, and of P and of dS. */
const COLUMNS = 32;
const HALF = COLUMNS / 2;

/** From a row to the next of `cells` and of the weights, in fours: eight rows apart lie in different banks, of 16 bytes as of 4 (that is, (32 + 8) floats, or halves). */
const STEP = (COLUMNS + 8) / 4;

/** Where the operands begin in `tile`, after the weights. */
const OPERANDS = 64 * STEP;

/** How far a score may exceed `top`: weights stay below 2⁸. */
const SLACK = '5.5';

/** Whether matrix units compute attention of T tokens in heads of d values. */
export function mixedAttentionFits(T: number, d: number, { M, N, K, lanes, mostLanes }: MatrixShape): boolean {
  return T >= FEWEST && d <= 64 && d % K === 0 && d % N === 0 && d % 4 === 0 && HALF % N === 0 && HALF % K === 0 && ROWS % M === 0 && [16, 32, 64].includes(lanes) && (4 * lanes) % mostLanes === 0;
}

/** What is the same in every kernel of a head's width on a unit, and the pieces of text that they are made of. */
function parts(unit: MatrixUnit, d: number) {
  const { M, N, K, lanes } = unit;
  const count = (n: number) => Array.from({ length: n }, (_, i) => i);
  const W = 4 * lanes;
  const D = d / 4;
  /** From a token to the next in `tile`, in fours; eight tokens lie in different banks. */
  const token = (d + 8) / 4;
  /** Threads that share a row. */
  const perRow = W / 64;
  const down = count(ROWS / M);
  const across = count(d / N);
  /** A subgroup's matrices of sums of d values a row, `<name>i_j`. */
  const sums = (name: string) => down.flatMap((i) => across.map((j) => ({ i, j, name: `${name}${i}_${j}` })));
  /** Where matrix i of a subgroup's rows begins in `cells`, or in the weights. */
  const corner = (i: number) => `(sg * ${ROWS}u + ${i * M}u) * ${STEP}u`;
  const access = (name: string, of: MatrixAccess['of'], array: string, step: number, rows: boolean): MatrixAccess => ({ name, of, array, vectors: true, step, rows });
  const accesses = [
    access('rowOperand', 'Left', 'tile', token, true),
    access('weight', 'Left', 'tile', STEP, true),
    access('transposed', 'Right', 'tile', token, false),
    access('plain', 'Right', 'tile', token, true),
    access('store', 'put', 'cells', STEP, true),
    access('again', 'Sum', 'cells', STEP, true),
  ];

  /** `<name>i_k`: the 64 rows of an operand as left operands of their subgroups. They pass through the tile. */
  const hold = (operand: string, name: string) => `
    workgroupBarrier();
    for (var l = lid; l < ${64 * D}u; l += W) { tile[${OPERANDS}u + l / ${D}u * ${token}u + l % ${D}u] = halves(at_${operand}(base, r0 + l / ${D}u, l % ${D}u)); }
    workgroupBarrier();
    ${down.flatMap((i) => count(d / K).map((k) => `let ${name}${i}_${k} = rowOperand(${OPERANDS}u + (sg * ${ROWS}u + ${i * M}u) * ${token}u + ${(k * K) / 4}u);`)).join('\n    ')}`;

  /** Products of the held rows and of so many tokens in the tile from `from` on, into `cells` from column `to` on. */
  const products = (name: string, from: string, columns: number, to: number) => `
      ${count(columns / N)
        .map((j) => {
          const each = (text: (i: number) => string) => down.map(text).join(' ');
          const steps = count(d / K).map((k) => `{ let r = transposed(${from} + ${j * N * token + (k * K) / 4}u); ${each((i) => `s${i} = multiply(${name}${i}_${k}, r, s${i});`)} }`);
          return `{ ${each((i) => `var s${i} = Sum();`)}\n        ${steps.join('\n        ')}\n        ${each((i) => `store(${corner(i)} + ${(to + j * N) / 4}u, s${i});`)} }`;
        })
        .join('\n      ')}`;

  /** Adds products of weights, from column `of` on, and of so many tokens from `from` on to `<name>i_j`. */
  const weigh = (name: string, of: number, from: string, columns: number) => `
      ${count(columns / K)
        .map((k) => {
          const rights = across.map((j) => `let r${j} = plain(${from} + ${k * K * token + (j * N) / 4}u);`);
          return `{ ${rights.join(' ')}\n        ${down.map((i) => `{ let l = weight(${corner(i)} + ${(of + k * K) / 4}u); ${across.map((j) => `${name}${i}_${j} = multiply(l, r${j}, ${name}${i}_${j});`).join(' ')} }`).join('\n        ')} }`;
        })
        .join('\n      ')}`;

  /** Does `each` with the thread's fours `c` of its row of sums, which lie at `cells[own + c]`, COLUMNS at a time from four `first` on; then `after` with each matrix. */
  const throughCells = (name: string, each: (first: number) => string, after?: (at: string, matrix: string) => string) =>
    count(Math.ceil(d / COLUMNS))
      .map((h) => {
        const columns = Math.min(COLUMNS, d - h * COLUMNS);
        const here = sums(name).filter(({ j }) => Math.floor((j * N) / COLUMNS) === h);
        const place = (i: number, j: number) => `${corner(i)} + ${(j * N - h * COLUMNS) / 4}u`;
        return `
    ${here.map((s) => `store(${place(s.i, s.j)}, ${s.name});`).join(' ')}
    workgroupBarrier();
    for (var c = part; c < ${columns / 4}u; c += ${perRow}u) { ${each((h * COLUMNS) / 4)} }
    workgroupBarrier();${after ? `\n    ${here.map((s) => after(place(s.i, s.j), s.name)).join(' ')}\n    workgroupBarrier();` : ''}`;
      })
      .join('');

  /** Fetches of a block of so many tokens: `next_<name><f>`, and how they go into the tile. */
  const staging = (columns: number) => {
    const fetches = count(Math.ceil((columns * D) / W));
    const l = (f: number) => `lid + ${f * W}u`;
    const guard = (f: number) => ((f + 1) * W > columns * D ? `if (${l(f)} < ${columns * D}u) ` : '');
    return {
      declare: (name: string) => fetches.map((f) => `var next_${name}${f} = vec4f();`).join(' '),
      fetch: (name: string, first: string) => fetches.map((f) => `next_${name}${f} = at_${name}(base, ${first} + (${l(f)}) / ${D}u, (${l(f)}) % ${D}u);`).join(' '),
      place: (name: string, to: string) => fetches.map((f) => `${guard(f)}{ tile[${to} + (${l(f)}) / ${D}u * ${token}u + (${l(f)}) % ${D}u] = halves(next_${name}${f}); }`).join(' '),
    };
  };

  return {
    D,
    token,
    perRow,
    hold,
    products,
    weigh,
    throughCells,
    staging,
    declare: (name: string) => sums(name).map((s) => `var ${s.name} = Sum();`).join(' '),
    /** Writes <name>·factor to the rows that there are. */
    write: (name: string, out: string, factor: string) =>
      throughCells(name, (first) => `if (r0 + row < p.T) { ${out}[base + (r0 + row) * p.A * ${D}u + ${first}u + c] = cells[own + c] * ${factor}; }`),
    kernel: ({ mask, dropout }: AttentionKind, operands: readonly { readonly reads: readonly string[]; readonly functions: string }[], more: readonly string[], writes: readonly string[], functions: string, body: string): Kernel => ({
      params: [...PARAMS, ...(dropout ? DROPOUT_PARAMS : [])],
      reads: [...operands.flatMap((o) => o.reads), ...more, ...(mask ? ['mask: f32'] : [])],
      writes,
      workgroup: W,
      enables: unit.enables,
      attributes: unit.attributes,
      builtins: unit.builtins,
      functions: `${unit.functions(accesses)}
// Weights, then two blocks of one operand and two of another; or of forward one of each, twice as long; or 64 rows on their way into registers.
var<workgroup> tile: array<Halves, ${OPERANDS + 64 * token}>;
var<workgroup> cells: array<vec4f, ${64 * STEP}>;
${EXP}${dropout ? KEPT : ''}${operands.map((o) => o.functions).join('')}${functions}`,
      body: `
  ${unit.prologue}
  let row = lid / ${perRow}u;
  let part = lid % ${perRow}u;
  let own = row * ${STEP}u;
  let r0 = wg.x * 64u;
  for (var head = wg.y; head < p.heads; head += grid.y) {
    let base = (head / p.A * p.T * p.A + head % p.A) * ${D}u;
    ${body}
  }`,
    }),
  };
}

/** The device's own exponential: off by (3 + 2·|x|)·2⁻²⁴ at most, where what it gives is rounded to float16 or only summed. A NaN stays one on every device. */
const EXP = `
fn exp4(x: vec4f) -> vec4f { return select(exp(x), x, (bitcast<vec4u>(x) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u)); }
fn exp1(x: f32) -> f32 { return select(exp(x), x, (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u); }
fn most(x: vec4f) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }
fn sumOf(x: vec4f) -> f32 { return (x.x + x.y) + (x.z + x.w); }
`;

/** `kept4(first, step)`: which of four probabilities dropout keeps. Positions are those of attention.ts. */
const KEPT = `${RANDOM_BITS}
fn kept(at: u32) -> bool { return randomBits(p.seed, p.counter, p.offset + at) >= p.threshold; }
fn kept4(first: u32, step: u32) -> vec4<bool> { return vec4<bool>(kept(first), kept(first + step), kept(first + 2u * step), kept(first + 3u * step)); }
`;

/** Four neighbours of a row of `mask`, the last one's beyond the end: those from `first` on. */
const maskFour = (first: string): string => `vec4f(${LANES.map((_, i) => `mask[masks + min(${first} + ${i}u, p.T - 1u)]`).join(', ')})`;

/** The largest of a thread's scores, `s<j>`. */
const highestOf = (fours: readonly number[]): string => fours.reduce((m, j) => (j === 0 ? 'most(s0)' : `max(${m}, most(s${j}))`), '');

/** Which of four columns from `first` on there are. */
const inside = (first: string): string => `vec4u(${first}) + vec4u(0u, 1u, 2u, 3u) < vec4u(p.T)`;

/** The context, `y`: params, storage and workgroups as of `attentionKernel`. */
export function mixedAttentionKernel(kind: AttentionKind, unit: MatrixUnit): Kernel {
  const { d, mask, dropout } = kind;
  const { token, perRow, hold, products, weigh, throughCells, staging, declare, write, kernel } = parts(unit, d);
  const fours = Array.from({ length: COLUMNS / 4 / perRow }, (_, j) => j);
  const [K, V] = [`${OPERANDS}u`, `${OPERANDS + COLUMNS * token}u`];
  const { declare: declareNext, fetch, place } = staging(COLUMNS);
  // Beyond the last token are the last one's scores, so that none of them is the largest by itself; their weights are 0.
  const score = (j: number) => `cells[own + part + ${j * perRow}u] * p.scale${mask ? ` + hidden[seen + part + ${j * perRow}u]` : ''}`;
  const column = (j: number) => `c0 + 4u * part + ${4 * j * perRow}u`;
  /** Weights of scores below `top` into the tile; their sum into `more`. */
  const weights = (score: (j: number) => string) => `
        more = 0.0;
        ${fours
          .map((j) => {
            const w = `select(vec4f(), exp4(${score(j)} - top), ${inside(column(j))})`;
            return `{ let w = ${w}; more += sumOf(w); tile[own + part + ${j * perRow}u] = halves(${dropout ? `select(vec4f(), w, kept4((head * p.T + r0 + row) * p.T + ${column(j)}, 1u))` : 'w'}); }`;
          })
          .join('\n        ')}`;
  const acrossRow = (into: string, op: (a: string, b: string) => string) =>
    `var ${into} = rowCells[row * ${perRow}u]; ${Array.from({ length: perRow - 1 }, (_, k) => `${into} = ${op(into, `rowCells[row * ${perRow}u + ${k + 1}u]`)};`).join(' ')}`;
  return kernel(
    kind,
    ['q', 'k', 'v'].map((name) => operand(name, 'f32', d, 'last')),
    [],
    ['y: vec4f'],
    `var<workgroup> rowCells: array<f32, W>;
// The block in which a score was last beyond its row's slack.
var<workgroup> exceeded: atomic<u32>;
${mask ? `var<workgroup> hidden: array<vec4f, ${COLUMNS / 2}>;` : ''}`,
    `${mask ? 'let masks = head / p.A * p.T;' : ''}
    ${hold('q', 'q')}
    workgroupBarrier();
    ${declareNext('k')} ${declareNext('v')}
    ${fetch('k', '0u')} ${place('k', K)}
    ${mask ? `if (lid < ${COLUMNS / 4}u) { hidden[lid] = ${maskFour('4u * lid')}; }` : ''}
    if (lid == 0u) { atomicStore(&exceeded, 0u); }
    workgroupBarrier();
    var top = ${LOWEST};
    var total = 0.0;
    ${declare('o')}
    for (var c0 = 0u; c0 < p.T; c0 += ${COLUMNS}u) {
      ${fetch('v', 'c0')}
      ${fetch('k', `c0 + ${COLUMNS}u`)}
      ${mask ? `let seen = c0 / 4u % ${COLUMNS / 2}u;\n      let nextHidden = ${maskFour(`c0 + ${COLUMNS}u + lid % ${COLUMNS / 4}u * 4u`)};` : ''}
      ${products('q', K, COLUMNS, 0)}
      workgroupBarrier();
      ${fours.map((j) => `let s${j} = ${score(j)};`).join('\n      ')}
      let high = ${highestOf(fours)};
      if (high > top + ${SLACK}) { atomicStore(&exceeded, c0); }
      var more = 0.0;
      if (c0 > 0u) { ${weights((j) => `s${j}`)}
      }
      ${place('v', V)}
      ${place('k', K)}
      ${mask ? `if (lid < ${COLUMNS / 4}u) { hidden[${COLUMNS / 4}u - seen + lid] = nextHidden; }` : ''}
      // The first block is always beyond.
      if (workgroupUniformLoad(&exceeded) == c0) {
        rowCells[lid] = max(high, top);
        workgroupBarrier();
        ${acrossRow('highest', (a, b) => `max(${a}, ${b})`)}
        let less = exp1(top - highest);
        top = highest;
        total *= less;
        ${weights(score)}
        workgroupBarrier();
        if (c0 > 0u) {${throughCells('o', () => 'cells[own + c] *= less;', (at, o) => `${o} = again(${at});`)}
        }
      }
      total += more;
      ${weigh('o', 0, V, COLUMNS)}
    }
    rowCells[lid] = total;
    workgroupBarrier();
    ${acrossRow('sums', (a, b) => `${a} + ${b}`)}
    ${write('o', 'y', dropout ? '(p.keep / sums)' : '(1.0 / sums)')}`,
  );
}

/** Backward's two blocks of either operand: where those of the block under way begin, and those of the next one. */
const backwardTiles = (token: number) => `
      let here = c0 / ${HALF}u % 2u * ${HALF * token}u;
      let next = ${HALF * token}u - here;`;

/** Which four of `cells` are a thread's: j of S; of dP 4 further. */
const fourOf = (perRow: number, j: number, of: 'S' | 'dP'): string => `cells[own + part + ${j * perRow + (of === 'S' ? 0 : HALF / 4)}u]`;

/** One block of queries against all keys: params, storage and workgroups as of `attentionRowsKernel`. */
export function mixedAttentionRowsKernel(kind: AttentionGradKind, { gradient, statistics }: AttentionRows, unit: MatrixUnit): Kernel {
  const { d, mask, dropout, v: formV, ...forms } = kind;
  const { token, perRow, hold, products, weigh, staging, declare, write, kernel } = parts(unit, d);
  const fours = Array.from({ length: HALF / 4 / perRow }, (_, j) => j);
  const v = formV && [operand('v', formV, d, 'last'), operand('g', 'f32', d, 'last')];
  const [K, V] = [OPERANDS, OPERANDS + 2 * HALF * token];
  const { declare: declareNext, fetch, place } = staging(HALF);
  const columns = ['k', ...(v ? ['v'] : [])];
  const first = (name: string) => (name === 'k' ? K : V);
  const score = (j: number) => `${fourOf(perRow, j, 'S')} * p.scale${mask ? ` + hidden[seen + part + ${j * perRow}u]` : ''}`;
  const column = (j: number) => `c0 + 4u * part + ${4 * j * perRow}u`;
  const there = (j: number, value: string) => `select(vec4f(), ${value}, ${inside(column(j))})`;
  const drawn = (j: number, value: string) => (dropout ? `select(vec4f(), ${value} * p.keep, kept4((head * p.T + r0 + row) * p.T + ${column(j)}, 1u))` : value);
  const walk = (threads: string, after: string) => `
    workgroupBarrier();
    ${columns.map((name) => `${fetch(name, '0u')} ${place(name, `${first(name)}u`)}`).join('\n    ')}
    ${mask ? `if (lid < ${HALF / 4}u) { hidden[lid] = ${maskFour('4u * lid')}; }` : ''}
    workgroupBarrier();
    for (var c0 = 0u; c0 < p.T; c0 += ${HALF}u) {
      ${columns.map((name) => fetch(name, `c0 + ${HALF}u`)).join('\n      ')}
      ${mask ? `let seen = c0 / 4u % ${HALF / 2}u;\n      let nextHidden = ${maskFour(`c0 + ${HALF}u + lid % ${HALF / 4}u * 4u`)};` : ''}
      ${backwardTiles(token)}
      ${products('q', `${K}u + here`, HALF, 0)}
      ${v ? products('g', `${V}u + here`, HALF, HALF) : ''}
      workgroupBarrier();
      ${threads}
      ${columns.map((name) => place(name, `${first(name)}u + next`)).join('\n      ')}
      ${mask ? `if (lid < ${HALF / 4}u) { hidden[${HALF / 4}u - seen + lid] = nextHidden; }` : ''}
      workgroupBarrier();${after}
    }`;
  const scores = fours.map((j) => `let s${j} = ${score(j)};`).join('\n      ');
  return kernel(
    kind,
    [operand('q', forms.q, d, 'last'), operand('k', forms.k, d, 'last'), ...(v ?? [])],
    [],
    [...(gradient ? ['dq: vec4f'] : []), ...(statistics ? ['rows: vec4f'] : [])],
    mask ? `var<workgroup> hidden: array<vec4f, ${HALF / 2}>;` : '',
    `${mask ? 'let masks = head / p.A * p.T;' : ''}
    ${hold('q', 'q')}
    ${v ? hold('g', 'g') : ''}
    ${columns.map(declareNext).join(' ')}
    // Each thread looks at columns of its own; the threads of a row come together after the last.
    var high = ${LOWEST};
    var sum = 0.0;
    var along = 0.0;
    ${walk(
      `${scores}
      let higher = max(high, ${highestOf(fours)});
      let less = exp1(high - higher);
      high = higher;
      sum *= less;
      ${v ? 'along *= less;' : ''}
      ${fours.map((j) => `{ let e = ${there(j, `exp4(s${j} - high)`)}; sum += sumOf(e);${v ? ` along += sumOf(e * ${drawn(j, fourOf(perRow, j, 'dP'))});` : ''} }`).join('\n      ')}`,
      '',
    )}
    cells[lid] = vec4f(high, sum, along, 0.0);
    workgroupBarrier();
    var top = ${LOWEST};
    for (var k = 0u; k < ${perRow}u; k++) { top = max(top, cells[row * ${perRow}u + k].x); }
    var sums = vec2f();
    for (var k = 0u; k < ${perRow}u; k++) { let other = cells[row * ${perRow}u + k]; sums += other.yz * exp1(other.x - top); }
    let inverse = 1.0 / sums.x;
    let dot = sums.y * inverse;
    ${statistics ? 'if (part == 0u && r0 + row < p.T) { rows[head * p.T + r0 + row] = vec4f(top, inverse, dot, 0.0); }' : ''}
    ${
      gradient
        ? `${declare('m')}
    ${walk(
      fours
        .map((j) => `{ let e = exp4(${score(j)} - top) * inverse; tile[own + part + ${j * perRow}u] = halves(${there(j, `e * (${drawn(j, fourOf(perRow, j, 'dP'))} - dot)`)}); }`)
        .join('\n      '),
      weigh('m', 0, `${K}u + here`, HALF),
    )}
    ${write('m', 'dq', 'p.scale')}`
        : ''
    }`,
  );
}

/** One block of keys and values against all queries: params, storage and workgroups as of `attentionColumnsKernel`. */
export function mixedAttentionColumnsKernel(kind: AttentionGradKind, { dk, dv }: AttentionColumns, unit: MatrixUnit): Kernel {
  const { d, mask, dropout, ...forms } = kind;
  const { token, perRow, hold, products, weigh, staging, declare, write, kernel } = parts(unit, d);
  const fours = Array.from({ length: HALF / 4 / perRow }, (_, j) => j);
  const [Q, G] = [OPERANDS, OPERANDS + 2 * HALF * token];
  const { declare: declareNext, fetch, place } = staging(HALF);
  const columns = [['q', Q], ['g', G]] as const;
  /** Of the four queries of a thread: its largest score, 1/sum, D. */
  const ofRows = (of: string) => `vec4f(${LANES.map((_, i) => `of${i}.${of}`).join(', ')})`;
  const block = (j: number) => {
    const column = `c0 + 4u * part + ${4 * j * perRow}u`;
    const at = `own + part + ${j * perRow}u`;
    const queries = LANES.map((_, i) => `let of${i} = known[seen + 4u * part + ${4 * j * perRow + i}u];`).join(' ');
    const w = `let w = select(vec4f(), exp4(${fourOf(perRow, j, 'S')} * p.scale${mask ? ' + hidden' : ''} - ${ofRows('x')}) * ${ofRows('y')}, ${inside(column)});`;
    const kept = dropout ? ` let kept = kept4((head * p.T + ${column}) * p.T + r0 + row, p.T);` : '';
    const drop = (x: string) => (dropout ? `select(vec4f(), ${x}, kept)` : x);
    const values = dv ? ` tile[${at}] = halves(${drop('w')});` : '';
    const keys = dk ? ` tile[${at} + ${HALF / 4}u] = halves(w * (${drop(`${fourOf(perRow, j, 'dP')}${dropout ? ' * p.keep' : ''}`)} - ${ofRows('z')}));` : '';
    return `{ ${queries} ${w}${kept}${values}${keys} }`;
  };
  return kernel(
    kind,
    [operand('q', forms.q, d, 'last'), operand('k', forms.k, d, 'last'), ...(dk ? [operand('v', forms.v!, d, 'last')] : []), operand('g', 'f32', d, 'last')],
    ['rows: vec4f'],
    [...(dk ? ['dk: vec4f'] : []), ...(dv ? ['dv: vec4f'] : [])],
    `var<workgroup> known: array<vec4f, ${COLUMNS}>;`,
    `${mask ? `let hidden = vec4f(mask[head / p.A * p.T + min(r0 + row, p.T - 1u)]);` : ''}
    ${hold('k', 'k')}
    ${dk ? hold('v', 'v') : ''}
    workgroupBarrier();
    ${columns.map(([name, first]) => `${declareNext(name)} ${fetch(name, '0u')} ${place(name, `${first}u`)}`).join('\n    ')}
    if (lid < ${HALF}u) { known[lid] = rows[head * p.T + min(lid, p.T - 1u)]; }
    workgroupBarrier();
    ${dk ? declare('m') : ''}
    ${dv ? declare('n') : ''}
    for (var c0 = 0u; c0 < p.T; c0 += ${HALF}u) {
      ${columns.map(([name]) => fetch(name, `c0 + ${HALF}u`)).join('\n      ')}
      let nextKnown = rows[head * p.T + min(c0 + ${HALF}u + lid % ${HALF}u, p.T - 1u)];
      let seen = c0 % ${COLUMNS}u;
      ${backwardTiles(token)}
      ${products('k', `${Q}u + here`, HALF, 0)}
      ${dk ? products('v', `${G}u + here`, HALF, HALF) : ''}
      workgroupBarrier();
      ${fours.map(block).join('\n      ')}
      ${columns.map(([name, first]) => place(name, `${first}u + next`)).join('\n      ')}
      if (lid < ${HALF}u) { known[${HALF}u - seen + lid] = nextKnown; }
      workgroupBarrier();
      ${dv ? weigh('n', 0, `${G}u + here`, HALF) : ''}
      ${dk ? weigh('m', HALF, `${Q}u + here`, HALF) : ''}
    }
    ${dk ? write('m', 'dk', 'p.scale') : ''}
    ${dv ? write('n', 'dv', dropout ? 'p.keep' : '1.0') : ''}`,
  );
}
