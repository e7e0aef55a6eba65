/**
 * The steps that make a clean clone ready: npm packages, a Python environment of the project's own, TensorFlow's native addon, the built library, the kernelspec. Plain
 * JavaScript on bare Node, because it runs before any package is there.
 *
 * Each step has a stamp under `.slimfit/stamps` that holds a hash of all it depends on, written last: an interrupted step is done again, a finished one is
 * skipped. Everything lives inside the project folder.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
export const STATE = path.join(ROOT, '.slimfit');
const WINDOWS = process.platform === 'win32';
const VENV = path.join(STATE, 'python');
const BIN = path.join(VENV, WINDOWS ? 'Scripts' : 'bin');
/** The project's own Python. */
export const PYTHON = path.join(BIN, WINDOWS ? 'python.exe' : 'python');
const ADDON_PACKAGE = path.join(ROOT, 'node_modules/@tensorflow/tfjs-node-gpu');

/** Python packages of the notebook side, pinned; the last teaches papermill to write TypeScript. */
const JUPYTER = ['jupyterlab==4.6.6', 'nbclient==0.11.0', 'nbconvert==7.17.2', 'jupyter_client==8.10.0', 'papermill==2.7.0', 'jupyter-console==6.6.3', 'jupyter_kernel_test==0.7.0', path.join(ROOT, 'kernel/papermill')];
/** TensorFlow's wheel, which carries the libraries that the addon is linked with. */
const TENSORFLOW = { cpu: 'tensorflow-cpu==2.21.0', gpu: 'tensorflow[and-cuda]==2.21.0' };
/** What the interop test needs beside the rest. */
const INTEROP = ['torch==2.13.0', 'transformers', 'safetensors', 'numpy'];

/** Says what happens; on standard error, so that a command's own output stays clean. */
export function say(text) {
  process.stderr.write(`slimfit: ${text}\n`);
}

/** A failed step, with what to do. */
export class SetupError extends Error {}

function hash(...parts) {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}

function stampFile(name) {
  return path.join(STATE, 'stamps', name);
}

/** Whether a step was finished for exactly these inputs. */
export function isStamped(name, key) {
  return existsSync(stampFile(name)) && readFileSync(stampFile(name), 'utf8') === key;
}

/** Notes that a step is finished. */
export function stamp(name, key) {
  mkdirSync(path.dirname(stampFile(name)), { recursive: true });
  writeFileSync(`${stampFile(name)}.tmp`, key);
  renameSync(`${stampFile(name)}.tmp`, stampFile(name));
}

/** Runs a command; its output is shown only when it fails, or line by line through `onLine`. Tries again `retries` times (a download that broke off goes on from the cache). */
export async function run(command, args, { retries = 0, onLine, cwd = ROOT, env } = {}) {
  for (let attempt = 0; ; attempt++) {
    const output = [];
    const code = await new Promise((resolve) => {
      const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
      for (const stream of [child.stdout, child.stderr]) {
        let rest = '';
        stream.setEncoding('utf8');
        stream.on('data', (text) => {
          output.push(text);
          const lines = (rest + text).split('\n');
          rest = lines.pop() ?? '';
          for (const line of lines) onLine?.(line);
        });
      }
      child.on('error', (error) => {
        output.push(error.message);
        resolve(-1);
      });
      child.on('close', resolve);
    });
    if (code === 0) return output.join('');
    if (attempt >= retries) throw new SetupError(`\`${path.basename(command)} ${args.slice(0, 3).join(' ')} …\` failed:\n${output.join('').trimEnd().split('\n').slice(-15).join('\n')}`);
    say(`that failed; trying again (${attempt + 1} of ${retries})`);
  }
}

/** Does a step unless its stamp says that it is done. */
async function step(name, what, key, action) {
  if (isStamped(name, key)) return;
  say(`${what} …`);
  const started = Date.now();
  await action();
  stamp(name, key);
  say(`${what}: done in ${((Date.now() - started) / 1000).toFixed(0)} s`);
}

/** npm packages, exactly as the lockfile names them. Install scripts are not needed. */
export async function npmPackages() {
  const key = hash(readFileSync(path.join(ROOT, 'package-lock.json'), 'utf8'), process.version);
  if (!existsSync(path.join(ROOT, 'node_modules'))) rmSync(stampFile('npm'), { force: true });
  await step('npm', 'npm packages', key, () => run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { retries: 2 }));
}

/** A Python environment inside the project with some packages. @throws SetupError when there is no usable Python 3 */
async function pythonWith(name, what, packages) {
  if (!existsSync(PYTHON)) for (const s of ['venv', 'jupyter', 'tensorflow', 'interop', 'kernelspec']) rmSync(stampFile(s), { force: true });
  await step('venv', 'Python environment', hash('venv', 1), async () => {
    const found = ['python3', 'python'].find((p) => spawnSync(p, ['-c', 'import sys, venv; sys.exit(sys.version_info < (3, 10))']).status === 0);
    if (!found) throw new SetupError('no Python 3.10 or newer with the venv module was found: install it (Debian: python3-venv)');
    rmSync(VENV, { recursive: true, force: true });
    await run(found, ['-m', 'venv', VENV]);
  });
  await step(name, what, hash(packages), () => {
    let last = 0;
    return run(PYTHON, ['-m', 'pip', 'install', '--disable-pip-version-check', '--progress-bar', 'off', ...packages], {
      retries: 3,
      onLine: (line) => {
        const m = /^\s*Downloading (\S+).*\(([\d.]+ [kMG]B)\)/.exec(line);
        if (m && (/[MG]B/.test(m[2]) || Date.now() - last > 5000)) {
          last = Date.now();
          say(`  downloading ${path.basename(m[1])} (${m[2]})`);
        }
      },
    });
  });
}

/** JupyterLab, nbclient, nbconvert, and the front ends and the conformance suite that the kernel is tested with. */
export async function jupyter() {
  await pythonWith('jupyter', 'JupyterLab and nbclient', JUPYTER);
}

/** torch and transformers, for `npm run test:interop` alone. */
export async function interop() {
  await pythonWith('interop', 'torch and transformers', INTEROP);
}

/** Folder of a TensorFlow installation inside the project's Python: holds `include` and the shared libraries. */
function tensorflowFolder() {
  const lib = path.join(VENV, WINDOWS ? 'Lib' : 'lib');
  const sites = WINDOWS ? [path.join(lib, 'site-packages')] : readdirSync(lib).map((d) => path.join(lib, d, 'site-packages'));
  const folder = sites.map((s) => path.join(s, 'tensorflow')).find((d) => existsSync(path.join(d, 'include')));
  if (!folder) throw new SetupError('the TensorFlow wheel has no include folder');
  return folder;
}

/**
 * TensorFlow's native addon: one C++ compilation of tfjs-node-gpu's binding against a TensorFlow wheel (or a folder that the user names). The same for
 * CPU and GPU; only the wheel differs. @returns whether TensorFlow can be used
 */
export async function tensorflow({ gpu = false, libtensorflow } = {}) {
  const wanted = libtensorflow ?? (gpu ? TENSORFLOW.gpu : TENSORFLOW.cpu);
  // A set-up for the GPU stays one: `npm test` after `slimfit setup --gpu` must not take it back.
  const key = (what) => hash('addon', 4, process.version, what, readFileSync(KERNELS, 'utf8'), readFileSync(SIGNALS, 'utf8'), processorFeatures(), existsSync(ADDON_PACKAGE) && readFileSync(path.join(ADDON_PACKAGE, 'package.json'), 'utf8'));
  const built = existsSync(path.join(ADDON_PACKAGE, 'lib/napi-v8/tfjs_binding.node'));
  if (!built) rmSync(stampFile('addon'), { force: true });
  if (!gpu && !libtensorflow && [TENSORFLOW.cpu, TENSORFLOW.gpu].some((w) => isStamped('addon', key(w)))) return true;
  try {
    if (!libtensorflow) await pythonWith('tensorflow', `TensorFlow (${wanted})`, [wanted]);
    await step('addon', "TensorFlow's native addon", key(wanted), () => buildAddon(libtensorflow ? path.resolve(libtensorflow) : tensorflowFolder()));
    return true;
  } catch (error) {
    say(`TensorFlow is not available, so training runs on the wasm engine, about 6 times slower on a CPU. Reason: ${error.message}`);
    return false;
  }
}

/** Runs the C++ compiler. @throws SetupError, which says what to install when there is none */
async function compile(args) {
  const program = process.env.CXX || 'g++';
  try {
    await run(program, args);
  } catch (error) {
    if (!/ENOENT/.test(error.message)) throw error;
    throw new SetupError(`no C++ compiler: \`${program}\` was not found; install one (Debian: g++; macOS: xcode-select --install) or name it in CXX`);
  }
}

/** Compiles the addon and links the libraries beside it. */
async function buildAddon(tensorflowDir) {
  const libDir = existsSync(path.join(tensorflowDir, 'lib')) ? path.join(tensorflowDir, 'lib') : tensorflowDir;
  const library = (stem) => {
    const names = readdirSync(libDir).sort((a, b) => a.length - b.length);
    const file = names.find((f) => new RegExp(`^lib${stem}\\.so(\\.2)?$`).test(f)) ?? names.find((f) => f.startsWith(`lib${stem}.so`));
    if (!file) throw new SetupError(`no lib${stem}.so in ${libDir}`);
    return path.join(libDir, file);
  };
  const framework = library('tensorflow_framework');
  let main;
  try {
    main = library('tensorflow_cc');
  } catch {
    main = library('tensorflow');
  }
  const depsLib = path.join(ADDON_PACKAGE, 'deps/lib');
  rmSync(path.join(ADDON_PACKAGE, 'deps'), { recursive: true, force: true });
  mkdirSync(depsLib, { recursive: true });
  for (const [name, target] of [
    ['libtensorflow.so', main],
    ['libtensorflow_cc.so.2', main],
    ['libtensorflow.so.2', main],
    ['libtensorflow_framework.so', framework],
    ['libtensorflow_framework.so.2', framework],
  ])
    symlinkSync(target, path.join(depsLib, name));
  const binding = path.join(ADDON_PACKAGE, 'binding');
  const nodeHeaders = path.join(ROOT, 'node_modules/node-api-headers/include');
  const out = path.join(ADDON_PACKAGE, 'lib/napi-v8');
  mkdirSync(out, { recursive: true });
  const temporary = path.join(out, `tfjs_binding.${process.pid}.tmp`);
  const sources = readdirSync(binding).filter((f) => f.endsWith('.cc')).map((f) => path.join(binding, f));
  await compile([
    '-std=c++17', '-O2', '-shared', '-fPIC', '-DNAPI_VERSION=8',
    `-I${nodeHeaders}`, `-I${path.join(tensorflowDir, 'include')}`, `-I${binding}`,
    ...sources,
    `-L${depsLib}`, '-ltensorflow', '-ltensorflow_framework', '-Wl,-rpath,$ORIGIN/../../deps/lib',
    '-o', temporary,
  ]);
  renameSync(temporary, path.join(out, 'tfjs_binding.node'));
  // It must load, or the next thing that needs it fails with less to say.
  await run(process.execPath, ['-e', `require(${JSON.stringify(path.join(out, 'tfjs_binding.node'))})`]);
  await compile(['-std=c++17', '-O2', '-shared', '-fPIC', '-fvisibility=hidden', '-pthread', '-DNAPI_VERSION=8', `-I${nodeHeaders}`, SIGNALS, '-o', path.join(out, 'slimfit_signals.node')]);
  await buildKernels(tensorflowDir, depsLib, out);
}

/** Keeps signals away from the thread that computes. */
const SIGNALS = path.join(ROOT, 'src/engine/tfjs/native/signals.cc');
const KERNELS = path.join(ROOT, 'src/engine/tfjs/native/kernels.cc');

/** Our fused CPU kernels, compiled for this very processor; beside them the features it has, so that no other tries to run them. Training works without them. */
async function buildKernels(tensorflowDir, depsLib, out) {
  const target = path.join(out, 'slimfit_kernels.node');
  for (const f of [target, `${target}.processor`]) rmSync(f, { force: true });
  try {
    await compile([
      '-std=c++17', '-O3', '-march=native', '-fopenmp-simd', '-fno-math-errno', '-fno-trapping-math', '-shared', '-fPIC', '-fvisibility=hidden', '-pthread', '-DNAPI_VERSION=8',
      `-I${path.join(ROOT, 'node_modules/node-api-headers/include')}`, `-I${path.join(tensorflowDir, 'include')}`,
      KERNELS,
      `-L${depsLib}`, '-ltensorflow_framework', '-Wl,-rpath,$ORIGIN/../../deps/lib',
      '-o', target,
    ]);
    await run(process.execPath, ['-e', `require(${JSON.stringify(path.join(out, 'tfjs_binding.node'))}); require(${JSON.stringify(target)})`]);
    writeFileSync(`${target}.processor`, processorFeatures());
  } catch (error) {
    rmSync(target, { force: true });
    say(`the fused CPU kernels could not be built; TensorFlow's own operations take their place, about 1.5 times slower. Reason: ${error.message}`);
  }
}

/** As in src/engine/tfjs/tensorflowBinding.ts, which reads what is written here. */
function processorFeatures() {
  return existsSync('/proc/cpuinfo') ? (/^(flags|Features)\s*:.*$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[0] ?? '') : '';
}

/** Newest change of any file under some folders. */
function newest(...places) {
  let time = 0;
  const visit = (p) => {
    const s = statSync(p);
    if (s.isDirectory()) for (const f of readdirSync(p)) visit(path.join(p, f));
    else time = Math.max(time, s.mtimeMs);
  };
  for (const p of places) visit(path.join(ROOT, p));
  return time;
}

/** The library, command line and kernel as JavaScript with types, under `dist`; and `import 'slimfit'` from inside the project. */
export async function build() {
  if (!existsSync(path.join(ROOT, 'dist/index.cjs'))) rmSync(stampFile('build'), { force: true });
  await step('build', 'building the library and the kernel', hash(newest('src', 'kernel', 'package.json', 'tsconfig.json')), async () => {
    await run(process.execPath, [path.join(ROOT, 'src/cli/build.mjs')]);
  });
  const link = path.join(ROOT, 'node_modules/slimfit');
  if (!existsSync(link) || realpathSync(link) !== realpathSync(ROOT)) {
    rmSync(link, { force: true });
    symlinkSync(ROOT, link, 'junction');
  }
}

/** The kernel, where the project's own Jupyter finds it. */
export async function kernelspec() {
  await step('kernelspec', 'the SlimFit kernel for Jupyter', hash(ROOT, process.execPath, newest('kernel')), async () => {
    await run(process.execPath, [path.join(ROOT, 'dist/cli.cjs'), 'kernel', 'install', '--prefix', VENV]);
  });
}
