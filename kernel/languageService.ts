/**
 * The only file that knows tslab's insides: it gives tslab's language engine the compiler settings, type roots and mends that a notebook needs. The engine keeps
 * the declarations of earlier cells, type-checks a new cell against them, and runs it in this process.
 */
import { existsSync } from 'node:fs';
import Module from 'node:module';
import path from 'node:path';
import type * as TypeScript from 'typescript';
import { completeness, hasTopLevelAwait, mend } from './mend';
import { reachedDeclarations } from './salvage';
import { type CompiledMaps, type LineColumn, SourcePositions } from './sourcePositions';

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
  output?: string;
  declOutput?: string;
  hasToplevelAwait?: boolean;
}
interface Converter {
  convert(previous: string, source: string): Converted;
  complete(previous: string, source: string, position: number): Completion;
  inspect(previous: string, source: string, position: number): QuickInfo | null;
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
  /** Values of the names that cells declare. */
  readonly locals: Readonly<Record<string, unknown>>;
}

/** What the kernel needs to run cells. */
export interface LanguageService {
  /** Type-checks and runs a cell, which stack traces call `cell-<name>.ts`. @returns whether it succeeded; a failure was reported before */
  execute(source: string, name: string): Promise<boolean>;
  complete(source: string, position: number): Completion;
  inspect(source: string, position: number): QuickInfo | null;
  isComplete(source: string): ReturnType<typeof completeness>;
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
  /** Called when a cell is compiled and before it runs; what it throws stops the cell. */
  readonly beforeRun: () => void;
}

/** Starts tslab's engine. Takes a second or two: the compiler reads its library types. */
export function startLanguageService(options: LanguageServiceOptions): LanguageService {
  const { rootDir, home, onResult, onFailure, beforeRun } = options;
  // Run time: packages of the project can be required from any folder.
  process.env.NODE_PATH = [process.env.NODE_PATH, path.join(home, 'node_modules')].filter(Boolean).join(path.delimiter);
  (Module as unknown as { _initPaths(): void })._initPaths();
  const compiled = new Map<string, CompiledMaps>();
  const ts = patchCompiler(home, compiled);
  // Patched first: tslab's converter takes the compiler when it is loaded.
  const { createConverter } = require('tslab/dist/converter.js') as { createConverter(o: object): Converter };
  const { createExecutor } = require('tslab/dist/executor.js') as { createExecutor(root: string, converters: object, console: object): Executor };
  const positions = new SourcePositions();
  positions.install();

  const base = createConverter({ isJS: false, isBrowser: false });
  let diagnostics: CellDiagnostic[] | undefined;
  let reported = false;
  let fileName = '';
  /** The declarations that the executor knows, and those that the last cell to run would add. */
  let latest = { known: '', added: '' };
  /** Declarations after a cell that failed, which the executor does not know of. */
  let salvaged: { readonly known: string; readonly instead: string } | undefined;
  const declared = (known: string): string => (known === salvaged?.known ? salvaged.instead : known);
  const node: Converter = {
    ...base,
    complete: (previous, source, position) => base.complete(declared(previous), source, position),
    inspect: (previous, source, position) => base.inspect(declared(previous), source, position),
    convert(previous, source) {
      const { code, original } = mend(ts, source);
      const place = offsets(ts, code, source, original);
      const converted = base.convert(declared(previous), code);
      diagnostics = converted.diagnostics.length > 0 ? converted.diagnostics.map(place.diagnostic) : undefined;
      if (!diagnostics && !converted.hasToplevelAwait && hasTopLevelAwait(ts, source)) converted.hasToplevelAwait = true;
      if (!diagnostics) latest = { known: previous, added: converted.declOutput ?? '' };
      const maps = compiled.get(converted.output ?? '');
      compiled.clear();
      if (maps) positions.add(fileName, maps, (converted.hasToplevelAwait ? ASYNC_WRAPPER : WRAPPER).length, place.position);
      if (converted.output) converted.output += `\n//# sourceURL=${fileName}`;
      beforeRun();
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
    async execute(source, name) {
      reported = false;
      diagnostics = undefined;
      fileName = `cell-${name}.ts`;
      const ok = await executor.execute(source);
      if (ok) salvaged = undefined;
      else if (!diagnostics) salvaged = { known: latest.known, instead: reachedDeclarations(ts, latest.added, (n) => executor.locals[n] !== undefined) };
      return ok;
    },
    complete: (source, position) => executor.complete(source, position),
    inspect: (source, position) => executor.inspect(source, position) ?? inspectCallee(ts, executor, source, position),
    isComplete: (source) => completeness(ts, source),
    interrupt: () => executor.interrupt(),
  };
}

/** What tslab's executor puts before a cell's code, on its first line. */
const WRAPPER = '(function(exports, require) { ';
const ASYNC_WRAPPER = '(async function(exports, require) { ';

/** From places in a mended cell to those in the user's source. */
function offsets(ts: typeof TypeScript, code: string, source: string, original: (offset: number) => number) {
  const mended = ts.createSourceFile('cell.ts', code, ts.ScriptTarget.Latest);
  const written = ts.createSourceFile('cell.ts', source, ts.ScriptTarget.Latest);
  const position = (offset: number): Position => {
    const at = Math.max(0, Math.min(original(offset), source.length));
    return { offset: at, ...written.getLineAndCharacterOfPosition(at) };
  };
  return {
    diagnostic: (d: CellDiagnostic): CellDiagnostic => (d.fileName ? d : { ...d, start: position(d.start.offset), end: position(d.end.offset) }),
    position({ line, column }: LineColumn): LineColumn {
      const start = mended.getLineStarts()[line] ?? code.length;
      const at = position(start + column);
      return { line: at.line, column: at.character };
    },
  };
}

/** Gives tslab a compiler with our settings and a view of the file system in which the project's packages are everywhere. */
function patchCompiler(home: string, compiled: Map<string, CompiledMaps>): typeof TypeScript {
  const id = require.resolve('@tslab/typescript-for-tslab', { paths: [require.resolve('tslab/package.json')] });
  const ts = require(id) as typeof TypeScript;
  const patched = {};
  for (const key of Object.getOwnPropertyNames(ts))
    if (key !== 'createWatchCompilerHost' && key !== 'transpileModule') Object.defineProperty(patched, key, { enumerable: true, configurable: true, get: () => ts[key as keyof typeof ts] });
  Object.assign(patched, {
    createWatchCompilerHost(roots: string[], settings: TypeScript.CompilerOptions & { typeRoots: string[] }, sys: TypeScript.System, ...rest: unknown[]) {
      Object.assign(settings, {
        moduleResolution: 100, // Bundler: reads `exports` maps
        lib: ['lib.es2023.d.ts'],
        types: ['node'],
        inlineSourceMap: true,
        // npm hoists @types away from where tslab looks for them.
        typeRoots: [...settings.typeRoots, path.join(home, 'node_modules/@types')],
      });
      // Installed packages do not change while the kernel runs.
      const watchFile = sys.watchFile!.bind(sys);
      sys.watchFile = (p, callback, interval) => (/\/node_modules\/|\/typescript-for-tslab\//.test(p) ? { close() {} } : watchFile(p, callback, interval));
      overlayPackages(sys, process.cwd(), home);
      return (ts.createWatchCompilerHost as (...a: unknown[]) => unknown)(roots, settings, sys, ...rest);
    },
    /** tslab's second compilation, to CommonJS: keeps both source maps of what comes out. */
    transpileModule(input: string, options: TypeScript.TranspileOptions): TypeScript.TranspileOutput {
      const inline = /\/\/# sourceMappingURL=data:application\/json;base64,([\w+/=]+)\s*$/.exec(input);
      const result = ts.transpileModule(inline ? input.slice(0, inline.index) : input, { ...options, compilerOptions: { ...options.compilerOptions, sourceMap: true } });
      const outputText = result.outputText.replace(/\/\/# sourceMappingURL=.*\s*$/, '');
      if (inline) compiled.set(outputText, { first: Buffer.from(inline[1], 'base64').toString('utf8'), second: result.sourceMapText! });
      return { ...result, outputText };
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
