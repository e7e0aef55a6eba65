/** The notebooks: as committed they read without a kernel; run from a folder outside the project they run through. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { noSoftwareVulkan, SOFTWARE_VULKAN } from '../engine/webgpu/softwareVulkan';

const ROOT = path.resolve(__dirname, '../..');
const FOLDER = path.join(ROOT, 'notebooks');
const JUPYTER = path.join(ROOT, '.slimfit/python/bin/jupyter');
const noJupyter: string | false = existsSync(JUPYTER) ? false : 'the project’s Jupyter is not set up';

interface Output {
  readonly output_type: string;
  readonly data?: Readonly<Record<string, string | readonly string[]>>;
  /** Of a stream. */
  readonly text?: string | readonly string[];
  readonly evalue?: string;
}
interface Notebook {
  readonly metadata: { readonly kernelspec: { readonly name: string } };
  readonly cells: readonly { readonly cell_type: string; readonly source: readonly string[] | string; readonly outputs?: readonly Output[]; readonly execution_count?: number | null }[];
}
const read = (file: string): Notebook => JSON.parse(readFileSync(file, 'utf8')) as Notebook;
const text = (t: string | readonly string[] | undefined): string => (typeof t === 'string' ? t : (t ?? []).join(''));
const outputsOf = (notebook: Notebook): Output[] => notebook.cells.flatMap((c) => c.outputs ?? []);

/** Runs a notebook in a folder of its own, with changes of the environment, and checks that it shows as much as the committed one. @returns its outputs */
function execute(name: string, changes: NodeJS.ProcessEnv = {}): Output[] {
  const elsewhere = mkdtempSync(path.join(tmpdir(), 'slimfit-notebook-'));
  try {
    copyFileSync(path.join(FOLDER, name), path.join(elsewhere, name));
    const run = spawnSync(JUPYTER, ['execute', '--inplace', name], { cwd: elsewhere, encoding: 'utf8', timeout: 300_000, env: { ...process.env, ...changes } });
    assert.equal(run.status, 0, run.stderr);
    const fresh = read(path.join(elsewhere, name));
    const kinds = (n: Notebook) => n.cells.map((c) => (c.outputs ?? []).filter((o) => o.output_type !== 'stream').map((o) => o.output_type));
    assert.deepEqual(kinds(fresh), kinds(read(path.join(FOLDER, name))), 'the same outputs as committed');
    return outputsOf(fresh);
  } finally {
    rmSync(elsewhere, { recursive: true, force: true });
  }
}

// 08-gpu has two ways to run, each with a test below.
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

  if (name !== '08-gpu.ipynb') test(`${name} runs by \`jupyter execute\` in a folder outside the project`, { skip: noJupyter }, () => void execute(name));
}

test('08-gpu.ipynb trains by WebGPU where there is an adapter, here SwiftShader, and shows what it holds', { skip: noJupyter || noSoftwareVulkan }, () => {
  const shown = execute('08-gpu.ipynb', SOFTWARE_VULKAN).map((o) => text(o.data?.['text/plain']));
  assert.ok(shown.some((s) => /^webgpu on (GPU|CPU) \(WebGPU, /.test(s) && /It holds .* of the device/.test(s)), 'the engine');
  assert.ok(shown.some((s) => /^held by the engine +[1-9]/m.test(s)), 'what it holds');
  assert.ok(shown.some((s) => /^engines compared: .*webgpu.*: losses /m.test(s)), 'the comparison');
});

test('08-gpu.ipynb runs where WebGPU finds nothing, and says so', { skip: noJupyter || (process.platform === 'linux' ? false : 'WebGPU cannot be hidden here') }, () => {
  const shown = execute('08-gpu.ipynb', { VK_DRIVER_FILES: '/nonexistent.json', VK_ICD_FILENAMES: '' });
  assert.ok(shown.some((o) => /WebGPU has no adapter here \(.+\), so the rest runs on (tensorflow|wasm)/.test(text(o.text))), 'it says so');
});
