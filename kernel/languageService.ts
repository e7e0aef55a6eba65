/**
 * The only file that knows tslab's insides: it gives tslab's language engine the compiler settings, type roots and mends that a notebook needs. The engine keeps
 * the declarations of earlier cells, type-checks a new cell against them, and runs it in this process.
 */
import { existsSync } from 'node:fs';
import Module from 'node:module';
import path from 'node:path';
import type * as TypeScript from 'typescript';

/** A position in a cell's source, from 0. */
interface Position {
  readonly offset: number;
  readonly line: number;
  readonly character: number;
}

/** A type or syntax error, at a place in the user's source. */
export interface CellDiagnostic {
  readonly start: Position;
  readonly end: Position;
  readonly messageText: string;
  readonly code: number;
  readonly fileName?: string;
}

/** What a cell failed with: diagnostics before it ran, or what it threw. */
export type CellFailure = { readonly kind: 'types'; readonly diagnostics: readonly CellDiagnostic[] } | { readonly kind: 'throw'; readonly error: unknown };

interface Converted {
  diagnostics: CellDiagnostic[];
  hasToplevelAwait?: boolean;
}
interface Converter {
  convert(previous: string, source: string): Converted;
  close(): void;
}
interface Completion {
  readonly start: number;
  readonly end: number;
  readonly candidates: readonly string[];
  readonly original?: { readonly entries?: readonly { readonly name: string; readonly kind: string }[] };
}
interface QuickInfo {
  readonly displayParts?: readonly { readonly text: string }[];
  readonly documentation?: readonly { readonly text: string }[];
  readonly tags?: readonly { readonly name: string; readonly text?: readonly { readonly text: string }[] }[];
}
interface Executor {
  execute(source: string): Promise<boolean>;
  complete(source: string, position: number): Completion;
  inspect(source: string, position: number): QuickInfo | null;
  interrupt(): void;
}

/** What the kernel needs to run cells. */
export interface LanguageService {
  /** Type-checks and runs a cell. @returns whether it succeeded; a failure was reported before */
  execute(source: string): Promise<boolean>;
  complete(source: string, position: number): Completion;
  inspect(source: string, position: number): QuickInfo | null;
  isComplete(source: string): { readonly completed: boolean; readonly indent?: string };
  /** Lets go of a cell that does not stop by itself. */
  interrupt(): void;
}

/** Where results and failures go. */
export interface LanguageServiceOptions {
  /** Folder that `./` imports start from. */
  readonly rootDir: string;
  /** Folder whose node_modules every notebook can import from. */
  readonly home: string;
  readonly onResult: (value: unknown) => void;
  readonly onFailure: (failure: CellFailure) => void;
}

/** Starts tslab's engine. Takes a second or two: the compiler reads its library types. */
export function startLanguageService(options: LanguageServiceOptions): LanguageService {
  const { rootDir, home, onResult, onFailure } = options;
  // Run time: packages of the project can be required from any folder.
  process.env.NODE_PATH = [process.env.NODE_PATH, path.join(home, 'node_modules')].filter(Boolean).join(path.delimiter);
  (Module as unknown as { _initPaths(): void })._initPaths();
  const ts = patchCompiler(home);
  // Patched first: tslab's converter takes the compiler when it is loaded.
  const { createConverter, isCompleteCode } = require('tslab/dist/converter.js') as {
    createConverter(o: object): Converter;
    isCompleteCode(s: string): { completed: boolean; indent?: string };
  };
  const { createExecutor } = require('tslab/dist/executor.js') as { createExecutor(root: string, converters: object, console: object): Executor };

  const base = createConverter({ isJS: false, isBrowser: false });
  let diagnostics: CellDiagnostic[] | undefined;
  let reported = false;
  const node: Converter = {
    ...base,
    convert(previous, source) {
      const mended = mend(ts, source);
      const converted = base.convert(previous, mended.code);
      diagnostics = converted.diagnostics.length > 0 ? converted.diagnostics.map(mended.back) : undefined;
      if (!diagnostics && !converted.hasToplevelAwait && hasTopLevelAwait(ts, source)) converted.hasToplevelAwait = true;
      return converted;
    },
  };
  const executor = createExecutor(
    rootDir,
    { node, browser: node, close: () => base.close() },
    {
      log: (value: unknown) => onResult(value),
      error: (first: unknown) => {
        if (!diagnostics) onFailure({ kind: 'throw', error: first });
        else if (!reported) {
          reported = true;
          onFailure({ kind: 'types', diagnostics });
        }
      },
    },
  );
  return {
    execute(source) {
      reported = false;
      diagnostics = undefined;
      return executor.execute(source);
    },
    complete: (source, position) => executor.complete(source, position),
    inspect: (source, position) => executor.inspect(source, position) ?? inspectCallee(ts, executor, source, position),
    isComplete: isCompleteCode,
    interrupt: () => executor.interrupt(),
  };
}

/** Gives tslab a compiler with our settings and a view of the file system in which the project's packages are everywhere. */
function patchCompiler(home: string): typeof TypeScript {
  const id = require.resolve('@tslab/typescript-for-tslab', { paths: [require.resolve('tslab/package.json')] });
  const ts = require(id) as typeof TypeScript;
  const patched = {};
  for (const key of Object.getOwnPropertyNames(ts))
    if (key !== 'createWatchCompilerHost') Object.defineProperty(patched, key, { enumerable: true, configurable: true, get: () => ts[key as keyof typeof ts] });
  Object.assign(patched, {
    createWatchCompilerHost(roots: string[], settings: TypeScript.CompilerOptions & { typeRoots: string[] }, sys: TypeScript.System, ...rest: unknown[]) {
      Object.assign(settings, {
        moduleResolution: 100, // Bundler: reads `exports` maps
        lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'].filter((l) => existsSync(path.join(path.dirname(id), l))),
        types: ['node'],
        // npm hoists @types away from where tslab looks for them.
        typeRoots: [...settings.typeRoots, path.join(home, 'node_modules/@types')],
      });
      // Installed packages do not change while the kernel runs.
      const watchFile = sys.watchFile!.bind(sys);
      sys.watchFile = (p, callback, interval) => (/\/node_modules\/|\/typescript-for-tslab\//.test(p) ? { close() {} } : watchFile(p, callback, interval));
      overlayPackages(sys, process.cwd(), home);
      return (ts.createWatchCompilerHost as (...a: unknown[]) => unknown)(roots, settings, sys, ...rest);
    },
  });
  require.cache[id]!.exports = patched;
  return ts;
}

/**
 * Shows the type checker <home>/node_modules/X as <cwd>/node_modules/X where neither cwd nor a folder above has X. (A fallback in module resolution instead makes declarations fail:
 * TS2742, "cannot be named without a reference to".)
 */
function overlayPackages(sys: TypeScript.System, cwd: string, home: string): void {
  const root = `${cwd.replace(/\\/g, '/')}/node_modules`;
  const above: string[] = [];
  for (let d = cwd; ; d = path.dirname(d)) {
    above.push(path.join(d, 'node_modules'));
    if (d === path.dirname(d)) break;
  }
  const fromHome = new Map<string, boolean>();
  const isFromHome = (name: string): boolean => {
    if (!fromHome.has(name)) fromHome.set(name, !above.some((d) => existsSync(path.join(d, name))) && existsSync(path.join(home, 'node_modules', name)));
    return fromHome.get(name)!;
  };
  const forward = (p: string): string => {
    if (!p.startsWith(`${root}/`)) return p;
    const parts = p.slice(root.length + 1).split('/');
    const name = parts[0].startsWith('@') && parts[1] ? `${parts[0]}/${parts[1]}` : parts[0];
    return isFromHome(name) ? path.join(home, 'node_modules', ...parts) : p;
  };
  const { fileExists, readFile, directoryExists, getDirectories, realpath } = sys;
  sys.fileExists = (p) => fileExists.call(sys, forward(p));
  sys.readFile = (p, encoding) => readFile.call(sys, forward(p), encoding);
  sys.directoryExists = (p) => p === root || directoryExists.call(sys, forward(p));
  sys.getDirectories = (p) => (p === root ? [] : getDirectories.call(sys, forward(p)));
  sys.realpath = (p) => (forward(p) !== p ? p : realpath!.call(sys, p));
}

/** tslab emits `await (x)` and `for await` at top level rightly but does not see them as top-level await. */
function hasTopLevelAwait(ts: typeof TypeScript, source: string): boolean {
  const file = ts.createSourceFile('cell.ts', `export {};\n${source}`, ts.ScriptTarget.Latest, true);
  const visit = (n: TypeScript.Node): boolean => {
    if (ts.isAwaitExpression(n) || (ts.isForOfStatement(n) && n.awaitModifier)) return true;
    if (ts.isFunctionLike(n) || ts.isClassLike(n) || ts.isModuleDeclaration(n)) return false;
    return ts.forEachChild(n, (c) => visit(c) || undefined) ?? false;
  };
  return visit(file);
}

/**
 * Mends two faults of tslab's rewriting of earlier cells' variables, by insertions alone: `{y}` becomes `{y: y}`, and `const {a: b} = o` becomes `const {"a": b} = o`.
 * `back` moves a diagnostic to where it belongs in the user's source.
 */
function mend(ts: typeof TypeScript, source: string): { code: string; back: (d: CellDiagnostic) => CellDiagnostic } {
  const file = ts.createSourceFile('cell.ts', source, ts.ScriptTarget.Latest, true);
  const insertions: [at: number, text: string][] = [];
  const visit = (n: TypeScript.Node): void => {
    if (ts.isShorthandPropertyAssignment(n)) insertions.push([n.name.end, `: ${n.name.text}`]);
    if (ts.isBindingElement(n) && n.propertyName && ts.isIdentifier(n.propertyName)) insertions.push([n.propertyName.getStart(file), '"'], [n.propertyName.end, '"']);
    ts.forEachChild(n, visit);
  };
  visit(file);
  insertions.sort((a, b) => a[0] - b[0]);
  let code = '';
  let last = 0;
  for (const [at, text] of insertions) {
    code += source.slice(last, at) + text;
    last = at;
  }
  code += source.slice(last);
  const original = (offset: number): number => {
    let added = 0;
    for (const [at, text] of insertions) {
      if (at + added + text.length <= offset) added += text.length;
      else return at + added < offset ? at : offset - added;
    }
    return offset - added;
  };
  const position = (offset: number): Position => {
    const at = Math.max(0, Math.min(original(offset), source.length));
    return { offset: at, ...file.getLineAndCharacterOfPosition(at) };
  };
  return { code, back: (d) => (d.fileName || insertions.length === 0 ? d : { ...d, start: position(d.start.offset), end: position(d.end.offset) }) };
}

/** Inside the parentheses of a call, what is being called. */
function inspectCallee(ts: typeof TypeScript, executor: Executor, source: string, position: number): QuickInfo | null {
  const file = ts.createSourceFile('cell.ts', source, ts.ScriptTarget.Latest, true);
  let callee: TypeScript.Node | undefined;
  const visit = (n: TypeScript.Node): void => {
    if (n.pos > position || n.end < position) return;
    if ((ts.isCallExpression(n) || ts.isNewExpression(n)) && n.expression.end <= position) callee = n.expression;
    ts.forEachChild(n, visit);
  };
  visit(file);
  return callee ? executor.inspect(source, callee.end - 1) : null;
}
