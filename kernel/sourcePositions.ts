/**
 * Stack traces that point into the user's cell. A cell is compiled twice (TypeScript to an ES module by tslab, that to CommonJS), so a position in the code that runs goes
 * back through two source maps, and then past what was inserted into the cell (mend.ts).
 */
import { SourceMap, type SourceMapPayload } from 'node:module';

/** A line and a column, from 0. */
export interface LineColumn {
  readonly line: number;
  readonly column: number;
}

/** The two maps of one compiled cell, as JSON. */
export interface CompiledMaps {
  /** From the user's TypeScript (with one line before it) to an ES module. */
  readonly first: string;
  /** From the ES module to the code that runs. */
  readonly second: string;
}

/** Lines that tslab puts before a cell's source, so that it counts as a module. */
const LINES_BEFORE = 1;

/** Where running code came from: cells by the name that stands in stack traces. */
export class SourcePositions {
  private readonly cells = new Map<string, (at: LineColumn) => LineColumn | undefined>();

  /** Names the code of a cell. @param shift columns before the code in its first line @param back from the compiled source to what the user wrote */
  add(name: string, maps: CompiledMaps, shift: number, back: (at: LineColumn) => LineColumn): void {
    let parsed: { first: SourceMap; second: SourceMap } | undefined;
    this.cells.set(name, ({ line, column }) => {
      parsed ??= { first: parse(maps.first), second: parse(maps.second) };
      const middle = originOf(parsed.second, { line, column: line === 0 ? column - shift : column });
      const origin = middle && originOf(parsed.first, middle);
      return origin && origin.line >= LINES_BEFORE ? back({ line: origin.line - LINES_BEFORE, column: origin.column }) : undefined;
    });
  }

  /** One line of a stack trace with the user's position; `undefined` when it is a line of a cell's wrapping. */
  translate(frame: string): string | undefined {
    let known = true;
    const text = frame.replace(/(cell-\w+\.ts):(\d+):(\d+)/, (whole, name: string, line: string, column: string) => {
      const cell = this.cells.get(name);
      if (!cell) return whole;
      const at = cell({ line: Number(line) - 1, column: Number(column) - 1 });
      if (!at) known = false;
      return at ? `${name}:${at.line + 1}:${at.column + 1}` : whole;
    });
    return known ? text : undefined;
  }

  /** Makes `error.stack` of every error in this process speak of the user's source. */
  install(): void {
    Error.prepareStackTrace = (error, frames) => {
      const lines = frames.map((f) => this.translate(`    at ${String(f)}`)).filter((l) => l !== undefined);
      return [headline(error), ...lines].join('\n');
    };
  }
}

/** Some errors cannot be turned into text; a stack trace must not fail for that. */
function headline(error: unknown): string {
  try {
    return String(error);
  } catch {
    return 'Error';
  }
}

function parse(json: string): SourceMap {
  return new SourceMap(JSON.parse(json) as SourceMapPayload);
}

function originOf(map: SourceMap, { line, column }: LineColumn): LineColumn | undefined {
  const entry = map.findEntry(line, column);
  return 'originalLine' in entry && entry.generatedLine === line ? { line: entry.originalLine, column: entry.originalColumn } : undefined;
}
