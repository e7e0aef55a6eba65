/**
 * The GPU benchmark as one folder that runs on a Linux machine with a GPU's driver and nothing else: no Node, no packages, no clone.
 *
 *   npm run bench:bundle -- [FOLDER] [--peers FOLDER] [--golden FOLDER]      (default: .slimfit/bundle)
 *   FOLDER/run.sh bench --seconds 540                                         (on the other machine)
 *
 * It holds the running Node and Dawn, stripped and packed (run.sh unpacks them into a temporary folder), the benchmark and the conformance suites as bundled scripts, the peers' Python scripts and the golden
 * values where this machine has them, and a Vulkan loader for machines that have a driver but no loader. Node must be one that needs only the C and C++ libraries, as nodejs.org's does.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { SUITES } from './gpu/checks';

const ROOT = path.resolve(__dirname, '..');
const SHARED = path.resolve(ROOT, '../shared');

/** The most bytes of a bundle. */
const LIMIT = 60e6;

/** Libraries that every glibc system has, or that a driver's user has anyway. */
const COMMON_LIBRARIES = /^(linux-vdso|ld-linux|libc|libm|libdl|libpthread|librt|libatomic|libstdc\+\+|libgcc_s)[.-]/;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { peers: { type: 'string', default: path.join(SHARED, 'peers') }, golden: { type: 'string', default: path.join(SHARED, 'golden') } },
});

/** The bytes of everything in a folder. */
function bytesIn(folder: string): number {
  return readdirSync(folder, { withFileTypes: true }).reduce((n, e) => n + (e.isDirectory() ? bytesIn(path.join(folder, e.name)) : statSync(path.join(folder, e.name)).size), 0);
}

/** Copies the files of a folder, if it is there, as files that can be deleted again. */
function copyInto(folder: string, from: string, names: RegExp): void {
  if (!existsSync(from)) return;
  mkdirSync(folder, { recursive: true });
  for (const f of readdirSync(from).filter((n) => names.test(n))) writeFileSync(path.join(folder, f), readFileSync(path.join(from, f)));
}

/** What a program or library is linked with. */
function linkedWith(file: string): string[] {
  return spawnSync('ldd', [file], { encoding: 'utf8' }).stdout.split('\n').flatMap((l) => /^\s*(\S+)/.exec(l)?.[1] ?? []).map((l) => path.basename(l));
}

/** Packs a binary without its symbols. */
function pack(from: string, to: string, scratch: string): void {
  const copy = path.join(scratch, path.basename(to));
  copyFileSync(from, copy);
  chmodSync(copy, 0o755);
  const { error } = spawnSync('strip', [copy]);
  if (error) process.stderr.write(`strip is not installed: ${path.basename(from)} is packed with its symbols\n`);
  writeFileSync(to, gzipSync(readFileSync(copy)));
}

/** A Vulkan loader of this machine: the system's, or the one that Chromium brings along (both are Khronos' own, Apache-2.0). */
function vulkanLoader(): string | undefined {
  const known = spawnSync('/sbin/ldconfig', ['-p'], { encoding: 'utf8' }).stdout ?? '';
  return [/libvulkan\.so\.1 \(.*\) => (\S+)/.exec(known)?.[1], '/usr/lib/chromium/libvulkan.so.1', '/usr/lib/chromium-browser/libvulkan.so.1'].find((f) => f !== undefined && existsSync(f));
}

const README = `SlimFit's GPU benchmark. Needs Linux with glibc, a GPU's driver with Vulkan, gzip, and for the comparison python3 with torch.

    ./run.sh bench --seconds 540      training steps, peers, single operations; results in ./gpu-results, or $OUT, or --out FOLDER
    ./run.sh conformance              the engine contract on this device
    ./run.sh parity                   golden values in float32; --precision mixed
    ./run.sh adapters                 what Vulkan offers

node.gz is Node.js (licences/node), dawn.node.gz Dawn by the npm package webgpu (licences/dawn), lib/libvulkan.so.1 the Khronos Vulkan loader (Apache-2.0), the scripts SlimFit and its dependencies (Apache-2.0; others as named at
their end).
`;

async function main(): Promise<void> {
  if (process.platform !== 'linux') throw new Error(`a bundle is made on the system that it runs on, and for Linux only; this is ${process.platform}`);
  const folder = path.resolve(positionals[0] ?? path.join(ROOT, '.slimfit/bundle'));
  if (existsSync(folder) && readdirSync(folder).length > 0 && !existsSync(path.join(folder, 'node.gz'))) throw new Error(`${folder} holds other things: name an empty folder, or one with an older bundle`);
  const platform = `${process.platform}-${process.arch}`;
  const dawn = path.join(ROOT, 'node_modules/webgpu/dist', platform, 'dawn.node');
  if (!existsSync(dawn)) throw new Error(`the package webgpu has no ${platform}: run npm ci`);
  const foreign = linkedWith(process.execPath).filter((l) => !COMMON_LIBRARIES.test(l));
  if (foreign.length > 0) throw new Error(`${process.execPath} needs ${foreign.join(', ')}, which other machines lack: run this with a Node from nodejs.org`);

  rmSync(folder, { recursive: true, force: true });
  const [app, peers, licences] = ['app', 'peers', 'licences'].map((f) => path.join(folder, f));
  for (const f of [app, peers, licences]) mkdirSync(f, { recursive: true });
  const suites = Object.entries(SUITES).filter(([, file]) => existsSync(path.join(ROOT, file)));
  await build({
    absWorkingDir: ROOT,
    entryPoints: { run: 'bench/gpu.ts', ...Object.fromEntries(suites.map(([name, file]) => [`suite-${name}`, file])) },
    outdir: app,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    minify: true,
    keepNames: true,
    legalComments: 'eof',
    platform: 'node',
    target: 'node20',
    format: 'esm',
    // TensorFlow's native parts and the image library stay behind: nothing here asks for them.
    external: ['@tensorflow/tfjs-node-gpu', 'sharp', 'zeromq'],
    logLevel: 'error',
    banner: { js: "import { createRequire as slimfitRequire } from 'node:module'; const require = slimfitRequire(import.meta.url); const __dirname = import.meta.dirname;" },
  });
  const scratch = mkdtempSync(path.join(tmpdir(), 'slimfit-bundle-'));
  try {
    pack(process.execPath, path.join(folder, 'node.gz'), scratch);
    pack(dawn, path.join(folder, 'dawn.node.gz'), scratch);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  copyFileSync(path.join(ROOT, 'bench/bundle.sh'), path.join(folder, 'run.sh'));
  chmodSync(path.join(folder, 'run.sh'), 0o755);
  writeFileSync(path.join(folder, 'platform'), `${platform}\n`);
  writeFileSync(path.join(folder, 'README.txt'), README);
  const loader = vulkanLoader();
  if (loader) {
    mkdirSync(path.join(folder, 'lib'));
    copyFileSync(loader, path.join(folder, 'lib/libvulkan.so.1'));
  }
  copyInto(peers, path.join(ROOT, 'bench/peers'), /\.py$/);
  copyInto(peers, values.peers, /\.py$/);
  copyInto(path.join(folder, 'golden'), values.golden, /\.(json|safetensors)$/);
  copyFileSync(path.join(ROOT, 'LICENSE'), path.join(licences, 'slimfit'));
  copyFileSync(path.join(ROOT, 'node_modules/webgpu/LICENSE.md'), path.join(licences, 'dawn'));
  const nodeLicence = [path.join(path.dirname(process.execPath), '../LICENSE'), path.join(path.dirname(process.execPath), '../share/doc/nodejs/LICENSE'), path.join(path.dirname(process.execPath), '../share/doc/node/LICENSE')].find((f) => existsSync(f));
  if (nodeLicence) copyFileSync(nodeLicence, path.join(licences, 'node'));
  else writeFileSync(path.join(licences, 'node'), `Node.js ${process.version}: https://github.com/nodejs/node/blob/${process.version}/LICENSE\n`);

  const bytes = bytesIn(folder);
  const sizes = readdirSync(folder).map((f) => `${f} ${(1e-6 * (statSync(path.join(folder, f)).isDirectory() ? bytesIn(path.join(folder, f)) : statSync(path.join(folder, f)).size)).toFixed(2)}`);
  process.stdout.write(`${folder}: ${(bytes / 1e6).toFixed(1)} MB (${sizes.join(', ')})\n`);
  const has = (f: string) => existsSync(path.join(folder, f));
  if (!loader) process.stdout.write('no Vulkan loader found here (libvulkan1): the bundle runs only where there is one\n');
  if (!has('peers/bench_torch.py')) process.stdout.write(`no bench_torch.py in ${values.peers}: the bundle compares with nothing\n`);
  if (!has('golden')) process.stdout.write(`no ${values.golden}: the bundle has no golden values\n`);
  if (bytes > LIMIT) throw new Error(`the bundle has ${bytes} bytes, more than ${LIMIT}`);
}

main().catch((error: Error) => {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
});
