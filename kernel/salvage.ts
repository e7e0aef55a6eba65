/**
 * What stays of a cell that failed or was interrupted. tslab forgets all names of such a cell, although those that it reached have their values; a training run that was
 * stopped must not lose its trainer. Names that were not reached are left out, so that using one is an error of the checker and not `undefined`.
 */
import type * as TypeScript from 'typescript';

/** The declarations of a failed cell without the variables and classes that have no value. */
export function reachedDeclarations(ts: typeof TypeScript, declarations: string, hasValue: (name: string) => boolean): string {
  const file = ts.createSourceFile('cell.d.ts', declarations, ts.ScriptTarget.Latest, true);
  const kept: string[] = [];
  for (const statement of file.statements) {
    if (ts.isVariableStatement(statement)) {
      const keyword = statement.declarationList.flags & ts.NodeFlags.Const ? 'const' : 'let';
      for (const d of statement.declarationList.declarations) if (hasValue(d.name.getText(file))) kept.push(`declare ${keyword} ${d.getText(file)};`);
    } else if (!ts.isClassDeclaration(statement) || !statement.name || hasValue(statement.name.text)) kept.push(statement.getText(file));
  }
  return kept.map((s) => `${s}\n`).join('');
}
