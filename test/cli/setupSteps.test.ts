import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';

const STEPS = path.resolve(__dirname, '../../src/cli/setup/steps.mjs');
const base = mkdtempSync(path.join(tmpdir(), 'slimfit-setup-'));
after(() => rmSync(base, { recursive: true, force: true }));

/** These tests put small shell scripts in the place of npm, Python and the compiler. */
const skip = process.platform === 'win32' ? 'needs a POSIX shell' : false;

let number = 0;

/** A project folder of its own with the real steps in it, and on its path only the programs that the test puts there: nothing is downloaded or compiled. */
class Project {
  readonly root = path.join(base, `project-${number++}`);
  readonly programs = path.join(this.root, 'programs');
  private readonly log = path.join(this.root, 'log');

  constructor() {
    mkdirSync(this.programs, { recursive: true });
    this.file('src/cli/setup/steps.mjs');
    copyFileSync(STEPS, path.join(this.root, 'src/cli/setup/steps.mjs'));
    this.file('package.json', '{}');
    this.file('package-lock.json', '{"lockfileVersion": 3}');
    this.file('tsconfig.json', '{}');
    this.file('kernel/main.ts');
    this.file('src/engine/tfjs/native/kernels.cc');
    this.file('src/engine/tfjs/native/signals.cc');
  }

  file(name: string, text = ''): void {
    mkdirSync(path.dirname(path.join(this.root, name)), { recursive: true });
    writeFileSync(path.join(this.root, name), text);
  }

  /** Puts a program on the path; each call is noted. */
  program(name: string, script: string, at = path.join(this.programs, name)): void {
    writeFileSync(at, `#!/bin/sh\necho "${name} $*" >> '${this.log}'\n${script}\n`);
    chmodSync(at, 0o755);
  }

  /** Programs that were called since the last look. */
  calls(): string[] {
    if (!existsSync(this.log)) return [];
    const lines = readFileSync(this.log, 'utf8').trimEnd().split('\n');
    rmSync(this.log);
    return lines;
  }

  /** Runs code with the steps as `s`, in a process of its own. */
  run(code: string) {
    const script = `const s = await import(${JSON.stringify(path.join(this.root, 'src/cli/setup/steps.mjs'))});
try { console.log(JSON.stringify((await (${code})) ?? null)); } catch (e) { if (!(e instanceof s.SetupError)) throw e; console.log(JSON.stringify({ setupError: e.message })); }`;
    const r = spawnSync(process.execPath, ['--input-type=module', '-e', script], { cwd: this.root, encoding: 'utf8', env: { PATH: this.programs } });
    return { killed: r.signal !== null, value: r.stdout ? (JSON.parse(r.stdout) as unknown) : undefined, said: r.stderr };
  }

  stamps(): string[] {
    const at = path.join(this.root, '.slimfit/stamps');
    return existsSync(at) ? readdirSync(at).sort() : [];
  }
}

/** npm that makes node_modules. */
const NPM = '/bin/mkdir -p node_modules';

/** A Python whose `-m venv DIR` makes DIR/bin/python, which takes note of its calls. */
function withPython(p: Project): void {
  const inside = path.join(p.root, 'inside-python');
  p.program('venv-python', '', inside);
  p.program('python3', `if [ "$2" = venv ]; then /bin/mkdir -p "$3/bin" && /bin/cp '${inside}' "$3/bin/python"; fi`);
}

test('a stamp holds for exactly the inputs it was made with', { skip }, () => {
  const p = new Project();
  assert.equal(p.run(`s.isStamped('x', 'one')`).value, false);
  p.run(`s.stamp('x', 'one')`);
  assert.equal(p.run(`s.isStamped('x', 'one')`).value, true);
  assert.equal(p.run(`s.isStamped('x', 'two')`).value, false);
  assert.equal(p.run(`s.isStamped('y', 'one')`).value, false);
  assert.deepEqual(p.stamps(), ['x'], 'no temporary file stays');
});

test('npm packages are installed once, by the lockfile and without install scripts; again when it changes or they are gone', { skip }, () => {
  const p = new Project();
  p.program('npm', NPM);
  const first = p.run('s.npmPackages()');
  assert.match(first.said, /npm packages …[^]*npm packages: done/);
  const calls = p.calls();
  assert.equal(calls.length, 1);
  assert.match(calls[0], /^npm ci .*--ignore-scripts/);
  assert.equal(p.run('s.npmPackages()').said, '', 'a finished step says nothing');
  assert.deepEqual(p.calls(), []);
  p.file('package-lock.json', '{"lockfileVersion": 3, "packages": {}}');
  p.run('s.npmPackages()');
  assert.equal(p.calls().length, 1, 'another lockfile');
  rmSync(path.join(p.root, 'node_modules'), { recursive: true });
  p.run('s.npmPackages()');
  assert.equal(p.calls().length, 1, 'no packages');
});

test('a step that fails is tried again, then told with the program’s own words, and not taken for done', { skip }, () => {
  const p = new Project();
  p.program('npm', `${NPM}; echo 'the network is gone' >&2; exit 7`);
  const { setupError } = p.run('s.npmPackages()').value as { setupError: string };
  assert.match(setupError, /npm ci[^]*the network is gone/);
  assert.equal(p.calls().length, 3, 'once, and two more times');
  assert.deepEqual(p.stamps(), []);
  p.program('npm', NPM);
  p.run('s.npmPackages()');
  assert.equal(p.calls().length, 1);
  assert.deepEqual(p.stamps(), ['npm']);
});

test('a step whose process is killed in the middle is done again the next time', { skip }, () => {
  const p = new Project();
  // The work is half done when the set-up dies.
  p.program('npm', `${NPM}; kill -9 $PPID`);
  assert.ok(p.run('s.npmPackages()').killed);
  assert.equal(p.calls().length, 1);
  assert.ok(existsSync(path.join(p.root, 'node_modules')));
  p.program('npm', NPM);
  p.run('s.npmPackages()');
  assert.equal(p.calls().length, 1);
  p.run('s.npmPackages()');
  assert.deepEqual(p.calls(), []);
});

test('the Python environment is made once, inside the project; when it is gone all that was in it is installed again', { skip }, () => {
  const p = new Project();
  withPython(p);
  p.run('s.jupyter()');
  const calls = p.calls();
  assert.ok(calls.some((c) => c === `python3 -m venv ${path.join(p.root, '.slimfit/python')}`), calls.join('\n'));
  assert.ok(calls.some((c) => /^venv-python -m pip install .*jupyterlab==\d\S* nbclient==\d/.test(c)), calls.join('\n'));
  assert.deepEqual(p.stamps(), ['jupyter', 'venv']);
  p.run('s.jupyter()');
  assert.deepEqual(p.calls(), []);
  rmSync(path.join(p.root, '.slimfit/python'), { recursive: true });
  p.run('s.jupyter()');
  assert.deepEqual(p.calls(), calls);
});

test('without Python the set-up goes on with the wasm engine, and one line says so, what it costs and what is missing', { skip }, () => {
  const p = new Project();
  const { value, said } = p.run('s.tensorflow()');
  assert.equal(value, false);
  const lines = said.trimEnd().split('\n').filter((l) => !l.endsWith('…'));
  assert.equal(lines.length, 1, said);
  assert.match(lines[0], /^slimfit: TensorFlow is not available.*wasm.*6 times slower.*no Python 3\.10/);
  assert.deepEqual(p.stamps(), []);
  assert.match((p.run('s.jupyter()').value as { setupError: string }).setupError, /no Python 3\.10.*install it/, 'notebooks do need it');
});

test('a Python that is too old is no Python', { skip }, () => {
  const p = new Project();
  p.program('python3', 'exit 1');
  p.program('python', 'exit 1');
  assert.match((p.run('s.jupyter()').value as { setupError: string }).setupError, /no Python 3\.10/);
  assert.ok(!existsSync(path.join(p.root, '.slimfit/python')));
});

/** A project with the addon's sources and a TensorFlow to link it with, both empty. */
function withTensorflow(): Project {
  const p = new Project();
  for (const name of ['node_modules/@tensorflow/tfjs-node-gpu/package.json', 'node_modules/@tensorflow/tfjs-node-gpu/binding/tfjs_backend.cc', 'tf/include/c_api.h', 'tf/lib/libtensorflow.so.2', 'tf/lib/libtensorflow_framework.so.2']) p.file(name);
  return p;
}

test('without a C++ compiler the set-up goes on with the wasm engine, and one line says what to install', { skip }, () => {
  const p = withTensorflow();
  const { value, said } = p.run(`s.tensorflow({ libtensorflow: 'tf' })`);
  assert.equal(value, false);
  const lines = said.trimEnd().split('\n').filter((l) => !l.endsWith('…'));
  assert.equal(lines.length, 1, said);
  assert.match(lines[0], /^slimfit: TensorFlow is not available.*wasm.*6 times slower.*C\+\+ compiler.*g\+\+/);
  assert.deepEqual(p.stamps(), []);
});

test('an addon that compiles but does not load is not taken for done', { skip }, () => {
  const p = withTensorflow();
  // Writes what follows -o, which is no library.
  p.program('g++', 'while [ "$1" != -o ]; do shift; done; echo nothing > "$2"');
  const { value, said } = p.run(`s.tensorflow({ libtensorflow: 'tf' })`);
  assert.equal(value, false);
  assert.match(said, /TensorFlow is not available/);
  assert.equal(p.calls().length, 1);
  assert.deepEqual(p.stamps(), []);
  p.run(`s.tensorflow({ libtensorflow: 'tf' })`);
  assert.equal(p.calls().length, 1, 'the compiler is asked again');
});

test('a TensorFlow folder without the library is told by the name of what is missing', { skip }, () => {
  const p = withTensorflow();
  rmSync(path.join(p.root, 'tf/lib/libtensorflow_framework.so.2'));
  const { value, said } = p.run(`s.tensorflow({ libtensorflow: 'tf' })`);
  assert.equal(value, false);
  assert.match(said, /no libtensorflow_framework\.so in .*tf/);
});

test('the library is built once, again when a source changes, and the project can import itself', { skip }, () => {
  const p = new Project();
  mkdirSync(path.join(p.root, 'node_modules'));
  p.file(
    'src/cli/build.mjs',
    `import { mkdirSync, writeFileSync, appendFileSync } from 'node:fs';
mkdirSync('dist', { recursive: true });
writeFileSync('dist/index.cjs', '');
appendFileSync('log', 'build\\n');`,
  );
  p.run('s.build()');
  assert.deepEqual(p.calls(), ['build']);
  p.run('s.build()');
  assert.deepEqual(p.calls(), []);
  // A link to somewhere else, as after a move of the folder.
  rmSync(path.join(p.root, 'node_modules/slimfit'));
  symlinkSync(p.programs, path.join(p.root, 'node_modules/slimfit'));
  p.run('s.build()');
  assert.equal(readFileSync(path.join(p.root, 'node_modules/slimfit/package.json'), 'utf8'), '{}');
  assert.deepEqual(p.calls(), [], 'a link is no reason to build');
  rmSync(path.join(p.root, 'dist'), { recursive: true });
  p.run('s.build()');
  assert.deepEqual(p.calls(), ['build'], 'dist is gone');
  const later = new Date(Date.now() + 60_000);
  utimesSync(path.join(p.root, 'kernel/main.ts'), later, later);
  p.run('s.build()');
  assert.deepEqual(p.calls(), ['build'], 'a source is newer');
});

test('a program’s lines are told as they come, and its output is the result', { skip }, () => {
  const p = new Project();
  p.program('greet', 'echo one; echo two');
  assert.deepEqual(p.run(`(async () => { const lines = []; const out = await s.run('greet', [], { onLine: (l) => lines.push(l) }); return { lines, out }; })()`).value, { lines: ['one', 'two'], out: 'one\ntwo\n' });
});
