/**
 * Mends what tslab gets wrong in a cell's source, by insertions alone, so that every position can be found again. In the rewriting of variables of earlier cells:
 * `{y}` becomes `{y: y}` (else: y is not defined), and `const {a: b} = o` becomes `const {"a": b} = o` (else: `exports` is declared twice).
 */
import type * as TypeScript from 'typescript';

/** A mended source. */
export interface Mended {
  readonly code: string;
  /** From an offset in `code` to the one in the user's source. */
  original(offset: number): number;
}

/** Text put in at an offset of the source; its characters stand for those from `meant` on. */
interface Insertion {
  readonly at: number;
  readonly text: string;
  readonly meant: number;
}

export function mend(ts: typeof TypeScript, source: string): Mended {
  const file = ts.createSourceFile('cell.ts', source, ts.ScriptTarget.Latest, true);
  const insertions: Insertion[] = [];
  const visit = (n: TypeScript.Node): void => {
    if (ts.isShorthandPropertyAssignment(n) && !n.objectAssignmentInitializer) insertions.push({ at: n.name.end, text: `: ${n.name.text}`, meant: n.name.getStart(file) - 2 });
    if (ts.isBindingElement(n) && n.propertyName && ts.isIdentifier(n.propertyName))
      for (const at of [n.propertyName.getStart(file), n.propertyName.end]) insertions.push({ at, text: '"', meant: at });
    ts.forEachChild(n, visit);
  };
  visit(file);
  insertions.sort((a, b) => a.at - b.at);
  let code = '';
  let last = 0;
  for (const { at, text } of insertions) {
    code += source.slice(last, at) + text;
    last = at;
  }
  code += source.slice(last);
  return {
    code,
    original(offset) {
      let added = 0;
      for (const { at, text, meant } of insertions) {
        const into = offset - added - at;
        if (into < 0) break;
        if (into < text.length) return meant + into;
        added += text.length;
      }
      return Math.min(offset - added, source.length);
    },
  };
}

/** Whether a cell awaits at top level. tslab emits `await (x)` and `for await` rightly but does not see that they are. */
export function hasTopLevelAwait(ts: typeof TypeScript, source: string): boolean {
  const file = ts.createSourceFile('cell.ts', `export {};\n${source}`, ts.ScriptTarget.Latest, true);
  const visit = (n: TypeScript.Node): boolean => {
    if (ts.isAwaitExpression(n) || (ts.isForOfStatement(n) && n.awaitModifier)) return true;
    if (ts.isFunctionLike(n) || ts.isClassLike(n) || ts.isModuleDeclaration(n)) return false;
    return ts.forEachChild(n, (c) => visit(c) || undefined) ?? false;
  };
  return visit(file);
}

/** What a front end's Enter key should do: run the cell, go on writing (with an indent), or run it to see the error. */
export function completeness(ts: typeof TypeScript, source: string): { status: 'complete' | 'invalid' } | { status: 'incomplete'; indent: string } {
  const file = ts.createSourceFile('cell.tsx', source, ts.ScriptTarget.Latest, true, ts.ScriptKind.TS) as TypeScript.SourceFile & { parseDiagnostics: readonly TypeScript.Diagnostic[] };
  if (file.parseDiagnostics.length === 0) return { status: 'complete' };
  const end = source.trimEnd().length;
  // What is only missing at the end may still come: "'}' expected", "Expression expected", an open comment or template.
  const open = file.parseDiagnostics.every((d) => (d.start ?? 0) >= end || d.code === 1160 || d.code === 1010);
  if (!open) return { status: 'invalid' };
  const lastLine = source.trimEnd().split('\n').at(-1) ?? '';
  const indent = /^\s*/.exec(lastLine)![0];
  return { status: 'incomplete', indent: /[{[(]$/.test(lastLine) ? `${indent}  ` : indent };
}
