/** TypeScript in cells, construct by construct: it runs with the right value, or says clearly what is wrong. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { KernelClient, makeKernelHome } from './kernelHome';

let home: Awaited<ReturnType<typeof makeKernelHome>>;
let cwd: string;
let k: KernelClient;

before(async () => {
  home = await makeKernelHome();
  cwd = mkdtempSync(path.join(tmpdir(), 'slimfit-syntax-'));
  writeFileSync(path.join(cwd, 'local.ts'), 'export const eleven = 11;\nexport default class Box { constructor(readonly n: number) {} }\nexport type Id = string;\n');
  k = await KernelClient.start(home.home, cwd);
});
after(async () => {
  await k?.stop();
  home?.remove();
  rmSync(cwd, { recursive: true, force: true });
});

/** Cells, run in turn, and the last one's text; or a pattern that its error must match. */
type Row = readonly [what: string, cells: readonly string[], outcome: string | RegExp];

const TABLE: readonly Row[] = [
  ['named import of a package', ["import { table } from 'arquero';\ntable({ a: [1, 2] }).numRows()"], '2'],
  ['namespace import of a builtin', ["import * as os from 'node:os';\ntypeof os.EOL"], 'string'],
  ['default import of a builtin', ["import fs from 'node:fs';\ntypeof fs.readFileSync"], 'function'],
  ['import of a file beside the notebook', ["import { eleven } from './local';\neleven"], '11'],
  ['default import of a file', ["import Box from './local';\nnew Box(3).n"], '3'],
  ['type-only import', ["import type { Id } from './local';\nconst id: Id = 'x'; id"], 'x'],
  ['import used in a later cell', ["import { eleven as e2 } from './local';", 'e2 + 1'], '12'],
  ['dynamic import', ["const { sep } = await import('node:path'); sep.length"], '1'],
  ['import of what is not there', ["import { x } from 'no-such-package';"], /TS2307/],
  ['const declared again', ['const c = 1;', "const c = 'two'; c"], 'two'],
  ['let declared again', ['let l = 1;', 'let l = [1]; l.length'], '1'],
  ['let changed in a later cell', ['let n = 1;', 'n += 4; n'], '5'],
  ['function declared again', ['function f() { return 1; }', 'function f() { return 2; }\nf()'], '2'],
  ['class across cells', ['class A { x = 1; }', 'class B extends A { y = 2; }\nnew B().x + new B().y'], '3'],
  ['private fields, static blocks, accessors', ['class P { #v = 2; static s = 0; static { P.s = 5; } get v() { return this.#v; } }\nnew P().v + P.s'], '7'],
  ['abstract class', ['abstract class Shape { abstract area(): number; }\nclass Sq extends Shape { area() { return 4; } }\nnew Sq().area()'], '4'],
  ['interface and type across cells', ['interface I { a: number } type T = I | null;', 'const t: T = { a: 1 }; t.a'], '1'],
  ['generics', ['function id<T extends object>(x: T): T { return x; }\nid({ a: 1 }).a'], '1'],
  ['overloads', ['function o(x: string): string;\nfunction o(x: number): number;\nfunction o(x: unknown) { return x; }\no(1)'], '1'],
  ['enum', ['enum E { A = 3, B }', 'E.B'], '4'],
  ['namespace', ['namespace N { export const a = 8; }\nN.a'], '8'],
  ['destructuring with rest and default', ['const { a: aa, ...rest } = { a: 1, b: 2 }; const [p = 4, ...q] = [undefined, 5]; [aa, rest.b, p, q[0]].join()'], '1,2,4,5'],
  ['nested destructuring, used later', ['const { u: { v: deep } } = { u: { v: 6 } };', 'deep'], '6'],
  ['shorthand of an earlier variable', ['const sh = 1;', '({ sh }).sh'], '1'],
  ['await', ['const w = await Promise.resolve(9); w'], '9'],
  ['await in parentheses, in a template', ['`${await (Promise.resolve(1))}`'], '1'],
  ['for await', ['let sum = 0; for await (const x of [1, Promise.resolve(2)]) sum += x;\nsum'], '3'],
  ['async generator', ['async function* g() { yield 1; yield 2; }\nlet s2 = 0; for await (const x of g()) s2 += x;\ns2'], '3'],
  // Each cell is a module of its own: its functions keep the value that their cell saw.
  ['closure over a variable that a later cell changes (it keeps its own)', ['let cl = 1; const see = () => cl;', 'cl = 2; see()'], '1'],
  ['satisfies', ['const sat = { a: 1 } satisfies Record<string, number>; sat.a'], '1'],
  ['template literal type', ["type Px = `${number}px`; const px: Px = '3px'; px"], '3px'],
  ['optional chaining, nullish assignment', ['let oc: { a?: { b: number } } = {}; oc.a ??= { b: 2 }; oc?.a?.b'], '2'],
  ['bigint, numeric separators', ['2n ** 64n === 18_446_744_073_709_551_616n'], 'true'],
  ['labelled break', ['let lb = 0; outer: for (;;) { for (;;) { lb++; break outer; } }\nlb'], '1'],
  ['tagged template', ['const tag = (t: TemplateStringsArray, ...v: number[]) => t.raw.join("|") + v; tag`a${1}b`'], 'a|b1'],
  ['require', ["require('node:path').basename('/a/b')"], 'b'],
  ['object literal as last expression', ['({ z: 1 })'], '{ z: 1 }'],
  ['nothing but a comment', ['// just a note', '1'], '1'],
  ['decorator', ['function deco(f: () => number, _: ClassMethodDecoratorContext) { return f; }\nclass D { @deco m() { return 4; } }'], /TS1241/],
  ['export in a cell', ['export const exported = 4;'], /TS\d+|Error/],
  ['using (TypeScript 5.2)', ['using r = { [Symbol.dispose]() {} };'], /TS\d+|SyntaxError/],
  ['JSX', ['const el = <div/>;'], /TS\d+|SyntaxError/],
  ['a type error', ["const te: number = 'x';"], /TS2322/],
  ['an unknown name', ['nowhere'], /TS2304/],
  ['a syntax error', ['const = 1;'], /TS1134/],
];

for (const [what, cells, outcome] of TABLE)
  test(`${what}: ${typeof outcome === 'string' ? 'runs' : 'is refused with a clear error'}`, async () => {
    for (const cell of cells.slice(0, -1)) assert.equal((await k.run(cell)).reply.content.status, 'ok', cell);
    const last = await k.run(cells.at(-1)!);
    const { status, ename, evalue } = last.reply.content;
    if (typeof outcome === 'string') assert.deepEqual([status, last.result()?.['text/plain']], ['ok', outcome], `${String(ename)}: ${String(evalue)}`);
    else assert.match(status === 'ok' ? 'it ran' : `${String(ename)} ${String(evalue)}`, outcome);
    assert.equal((await k.run('1')).reply.content.status, 'ok', 'the next cell runs');
  });

test('kernel/SYNTAX.md is this table', () => {
  const lines = TABLE.map(([what, cells, outcome]) => `| ${what} | ${cells.map((c) => `\`${c.replace(/\n/g, ' ⏎ ').replace(/\|/g, '\\|').replace(/`/g, "'")}\``).join(' then ')} | ${typeof outcome === 'string' ? `\`${outcome.replace(/\|/g, '\\|')}\`` : 'an error that says what is wrong'} |`);
  const text = `# What of TypeScript runs in cells\n\nEvery row is a test (test/kernel/syntax.test.ts). "then" parts cells.\n\n| construct | cells | last cell gives |\n|---|---|---|\n${lines.join('\n')}\n`;
  const file = path.resolve(__dirname, '../../kernel/SYNTAX.md');
  if (process.env.WRITE_SYNTAX) writeFileSync(file, text);
  assert.equal(readFileSync(file, 'utf8'), text);
});
