/** The notebooks: as committed they read without a kernel; run from a folder outside the project they run through. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';

const ROOT = path.resolve(__dirname, '../..');
const FOLDER = path.join(ROOT, 'notebooks');
const JUPYTER = path.join(ROOT, '.slimfit/python/bin/jupyter');

interface Output {
  readonly output_type: string;
  readonly data?: Readonly<Record<string, string | readonly string[]>>;
  readonly evalue?: string;
}
interface Notebook {
  readonly metadata: { readonly kernelspec: { readonly name: string } };
  readonly cells: readonly { readonly cell_type: string; readonly source: readonly string[] | string; readonly outputs?: readonly Output[]; readonly execution_count?: number | null }[];
}
const read = (file: string): Notebook => JSON.parse(readFileSync(file, 'utf8')) as Notebook;
const text = (t: string | readonly string[] | undefined): string => (typeof t === 'string' ? t : (t ?? []).join(''));
const outputsOf = (notebook: Notebook): Output[] => notebook.cells.flatMap((c) => c.outputs ?? []);

for (const name of readdirSync(FOLDER).filter((f) => f.endsWith('.ipynb'))) {
  test(`${name} reads without a kernel: every cell was run in order, figures are pictures, no script and no path of a machine is in it`, () => {
    const notebook = read(path.join(FOLDER, name));
    assert.equal(notebook.metadata.kernelspec.name, 'slimfit');
    const code = notebook.cells.filter((c) => c.cell_type === 'code');
    assert.deepEqual(code.map((c) => c.execution_count), code.map((_, i) => i + 1));
    const outputs = outputsOf(notebook);
    assert.ok(outputs.some((o) => o.data?.['image/svg+xml']), 'a figure');
    for (const o of outputs) {
      assert.notEqual(o.output_type, 'error', o.evalue);
      assert.ok(!text(o.data?.['text/html']).includes('<script'));
      if (text(o.data?.['text/plain']).startsWith('Figure: ')) assert.match(text(o.data?.['image/svg+xml']), /^<svg/);
    }
    assert.doesNotMatch(JSON.stringify(notebook), /"(\/home|\/root|\/tmp|\/work|[A-Z]:\\\\)/);
  });

  test(`${name} runs by \`jupyter execute\` in a folder outside the project`, { skip: existsSync(JUPYTER) ? false : 'the project’s Jupyter is not set up' }, () => {
    const elsewhere = mkdtempSync(path.join(tmpdir(), 'slimfit-notebook-'));
    try {
      copyFileSync(path.join(FOLDER, name), path.join(elsewhere, name));
      const run = spawnSync(JUPYTER, ['execute', '--inplace', name], { cwd: elsewhere, encoding: 'utf8', timeout: 300_000 });
      assert.equal(run.status, 0, run.stderr);
      const fresh = read(path.join(elsewhere, name));
      const kinds = (n: Notebook) => n.cells.map((c) => (c.outputs ?? []).filter((o) => o.output_type !== 'stream').map((o) => o.output_type));
      assert.deepEqual(kinds(fresh), kinds(read(path.join(FOLDER, name))), 'the same outputs as committed');
    } finally {
      rmSync(elsewhere, { recursive: true, force: true });
    }
  });
}
