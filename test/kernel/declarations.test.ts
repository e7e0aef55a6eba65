/** The types of the library as a notebook's cell sees them: read by the TypeScript inside tslab, which is older than the one that wrote them. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';
import { test } from 'node:test';
import ts from 'typescript';

const ROOT = path.resolve(__dirname, '../..');

/** Emits the library's declarations. @returns text by file name */
function emitDeclarations(): Map<string, string> {
  const { config } = ts.readConfigFile(path.join(ROOT, 'tsconfig.build.json'), ts.sys.readFile);
  const { options, fileNames } = ts.parseJsonConfigFileContent(config, ts.sys, ROOT);
  const files = new Map<string, string>();
  ts.createProgram(fileNames, options).emit(undefined, (name, text) => files.set(name, text));
  return files;
}

test("tslab's TypeScript reads the library's declarations without an error, and no public value is silently any", () => {
  const files = emitDeclarations();
  const entry = [...files.keys()].find((f) => f.endsWith('dist/types/index.d.ts'));
  assert.ok(entry, 'the library has declarations');
  const fromTslab = createRequire(createRequire(__filename).resolve('tslab/package.json'));
  const old = fromTslab('@tslab/typescript-for-tslab') as typeof ts;
  assert.match(old.version, /^5\.0\./);
  const options: ts.CompilerOptions = { target: old.ScriptTarget.ES2022, module: old.ModuleKind.ESNext, moduleResolution: 100, lib: ['lib.es2023.d.ts'], types: ['node'], typeRoots: [path.join(ROOT, 'node_modules/@types')], strict: true, noEmit: true };
  const host = old.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile, directoryExists } = host;
  host.fileExists = (f) => files.has(f) || fileExists.call(host, f);
  host.readFile = (f) => files.get(f) ?? readFile.call(host, f);
  host.getSourceFile = (f, language, ...rest) => (files.has(f) ? old.createSourceFile(f, files.get(f)!, language) : getSourceFile.call(host, f, language, ...rest));
  host.directoryExists = (d) => [...files.keys()].some((f) => f.startsWith(`${d}/`)) || directoryExists!.call(host, d);
  const program = old.createProgram([entry], options, host);
  const ours = [...files.keys()].flatMap((f) => {
    const file = program.getSourceFile(f);
    return file ? [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)] : [];
  });
  assert.deepEqual(ours.map((d) => `${d.file!.fileName}: ${old.flattenDiagnosticMessageText(d.messageText, ' ')}`), []);
  const checker = program.getTypeChecker();
  const names = checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(entry)!)!);
  assert.ok(names.length > 20);
  const any = names.filter((s) => {
    const symbol = s.flags & old.SymbolFlags.Alias ? checker.getAliasedSymbol(s) : s;
    return symbol.flags & old.SymbolFlags.Value && checker.getTypeOfSymbolAtLocation(symbol, program.getSourceFile(entry)!).flags & old.TypeFlags.Any;
  });
  assert.deepEqual(any.map((s) => s.name), []);
});
