/** The GPU benchmark's bundle: made, carried elsewhere, and run on a software driver by a machine that has no Node. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import type { Row } from '../../bench/gpu/report';
import { rowName, rowsOf, TINY_SETTINGS } from '../../bench/gpu/settings';
import { noSoftwareVulkan } from '../engine/webgpu/softwareVulkan';

const ROOT = path.resolve(__dirname, '../..');
const FOLDER = mkdtempSync(path.join(tmpdir(), 'slimfit-bundle-test-'));
after(() => rmSync(FOLDER, { recursive: true, force: true }));

const within = (...parts: string[]) => path.join(FOLDER, ...parts);

function bytesIn(folder: string): number {
  return readdirSync(folder, { withFileTypes: true, recursive: true }).reduce((n, e) => n + (e.isFile() ? statSync(path.join(e.parentPath, e.name)).size : 0), 0);
}

/** Runs the copied bundle with nothing of this machine but a few programs of the system. */
function elsewhere(...args: string[]): Promise<{ readonly code: number | null; readonly out: string; readonly err: string }> {
  return new Promise((resolve) => {
    const child = spawn(within('elsewhere/run.sh'), args, { cwd: within('elsewhere'), env: { PATH: within('bin'), TMPDIR: within('tmp'), LD_LIBRARY_PATH: within('driver'), SLIMFIT_WEBGPU_ADAPTER: 'software' } });
    let [out, err] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (t: string) => (out += t));
    child.stderr.setEncoding('utf8').on('data', (t: string) => (err += t));
    child.on('close', (code) => resolve({ code, out, err }));
  });
}

test('the bundle has at most 60 MB, and runs where there is a driver but no Node, no package, no loader and no file that names the driver: conformance passes, and the table has every row', { skip: noSoftwareVulkan }, async () => {
  const made = spawnSync(process.execPath, ['--import', 'tsx', 'bench/bundle.ts', within('bundle')], { cwd: ROOT, encoding: 'utf8' });
  assert.equal(made.status, 0, made.stderr);
  assert.ok(bytesIn(within('bundle')) <= 60e6, made.stdout);
  // A folder with other things in it is left alone.
  const refused = spawnSync(process.execPath, ['--import', 'tsx', 'bench/bundle.ts', path.join(ROOT, 'bench')], { cwd: ROOT, encoding: 'utf8' });
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /holds other things/);

  cpSync(within('bundle'), within('elsewhere'), { recursive: true });
  rmSync(within('bundle'), { recursive: true });
  for (const f of ['bin', 'tmp', 'driver']) mkdirSync(within(f));
  for (const program of ['sh', 'gzip', 'mktemp', 'mkdir', 'cp', 'rm', 'chmod', 'cat', 'dirname', 'ldd']) {
    const found = ['/usr/bin', '/bin'].map((d) => path.join(d, program)).find((f) => statSync(f, { throwIfNoEntry: false }));
    if (found) symlinkSync(found, within('bin', program));
  }
  // Under the name of a driver that a container has without its driver file.
  symlinkSync('/usr/lib/chromium/libvk_swiftshader.so', within('driver/libGLX_nvidia.so.0'));

  const [conformance, bench] = await Promise.all([elsewhere('conformance', 'contract'), elsewhere('bench', '--tiny', '--steps', '1', '--warmup', '1', '--parts', 'training,kernels', '--out', within('results'))]);
  assert.equal(conformance.code, 0, conformance.out + conformance.err);
  const [, passed, all] = /^contract: (\d+) of (\d+) tests pass$/m.exec(conformance.out)!;
  assert.ok(passed === all && Number(all) >= 28, conformance.out);
  assert.match(conformance.err, /^run\.sh: Vulkan driver: /m);

  assert.equal(bench.code, 0, bench.err);
  const lines = readFileSync(within('results/gpu.jsonl'), 'utf8').trim().split('\n').map((l) => JSON.parse(l) as { readonly kind: string } & Row);
  const table = readFileSync(within('results/gpu.md'), 'utf8');
  assert.equal(bench.out, table);
  for (const setting of TINY_SETTINGS) {
    const part = table.slice(table.indexOf(`### ${setting.name}`)).split('\n### ')[0];
    for (const plan of rowsOf(setting)) {
      const row = lines.find((l) => l.kind === 'row' && l.setting.name === setting.name && rowName(l) === rowName(plan));
      assert.ok(row && part.includes(`| ${rowName(plan)} | `), rowName(plan));
      if (plan.system === 'pytorch') assert.match(row.why!, /^no PyTorch: python3 does not run torch/);
      else if (plan.precision === 'mixed') {
        // A row of mixed precision never holds figures of float32.
        assert.equal(row.figures, undefined);
        assert.match(row.why!, /computes in float32, not in mixed precision/);
      } else {
        const f = row.figures!;
        assert.ok(f.ms > 0 && f.perSecond > 0 && f.tflops > 0 && f.loss > 0 && f.dispatches > 100, JSON.stringify(f));
        assert.ok(f.bytes.weights > 0 && f.bytes.optimizer > 0 && f.bytes.activations > 0 && f.peakBytes <= f.poolBytes && f.bytes.weights + f.bytes.optimizer < f.peakBytes, JSON.stringify(f));
      }
    }
  }
  const kernels = lines.filter((l) => l.kind === 'kernel');
  assert.ok(kernels.length >= 40, `${kernels.length} operations`);
  for (const k of ['linear, weight gradient', 'layer norm', 'softmax', 'attention, forward', 'attention, backward', 'attention, q·kᵀ', 'GELU', 'encode q3.4', 'largest tenth (topK)', 'embedding gradient', 'AdamW with the magnitude', 'cross-entropy']) assert.match(table, new RegExp(`\\| ${k.replace(/[()]/g, '\\$&')} \\| `));
  assert.match(table, /Rehearsal with tiny shapes/);
  assert.match(table, /copy [\d.]+ GB\/s/);
  // What was unpacked is gone again.
  assert.deepEqual(readdirSync(within('tmp')), []);
});
