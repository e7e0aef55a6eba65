/**
 * What `npm run …` and `npm test` call: makes the clone ready, then does what was asked. Runs on bare Node.
 *
 *   node src/cli/bootstrap.mjs setup | quickstart | notebooks | test [FILES…] | run FILE [ARGS…] | screens FILE | benchKernel | interop
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import * as setup from './setup/steps.mjs';

const { ROOT, say } = setup;

/** Runs a command on this terminal. @returns its exit code */
function foreground(command, args, env = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, ...env } });
    child.on('error', (error) => {
      say(error.message);
      resolve(1);
    });
    child.on('close', (code, signal) => resolve(code ?? (signal ? 130 : 1)));
  });
}

/** Everything that the library, the kernel and the notebooks need. */
async function ready(options = {}) {
  await setup.npmPackages();
  await setup.tensorflow(options);
  await setup.build();
}

async function readyForNotebooks(options = {}) {
  await ready(options);
  await setup.jupyter();
  await setup.kernelspec();
}

function testFiles(folder = path.join(ROOT, 'test')) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((e) => {
    const p = path.join(folder, e.name);
    return e.isDirectory() ? testFiles(p) : e.name.endsWith('.test.ts') ? [p] : [];
  });
}

const commands = {
  async setup(args) {
    const at = args.indexOf('--libtensorflow');
    await readyForNotebooks({ gpu: args.includes('--gpu'), libtensorflow: at >= 0 ? args[at + 1] : undefined });
    say('ready: `npx slimfit doctor` tells what this machine trains on, `npx slimfit lab` opens JupyterLab');
    return 0;
  },
  /** Runs every notebook and writes it back with static pictures, as it is committed. */
  async notebooks() {
    await readyForNotebooks();
    const executed = path.join(setup.STATE, 'notebooks');
    for (const name of readdirSync(path.join(ROOT, 'notebooks')).filter((f) => f.endsWith('.ipynb')).sort()) {
      const source = path.join(ROOT, 'notebooks', name);
      const code =
        (await foreground(setup.PYTHON, [path.join(ROOT, 'src/cli/setup/execute_notebook.py'), source, executed])) ||
        (await foreground(setup.PYTHON, [path.join(ROOT, 'src/cli/setup/static_notebook.py'), path.join(executed, name), source]));
      if (code !== 0) return code;
    }
    return 0;
  },
  async quickstart() {
    await readyForNotebooks();
    return foreground(setup.PYTHON, [path.join(ROOT, 'src/cli/setup/execute_notebook.py'), path.join(ROOT, 'notebooks/01-quickstart.ipynb'), path.join(setup.STATE, 'notebooks')]);
  },
  async test(files) {
    await readyForNotebooks();
    say('type check …');
    const types = await foreground(process.execPath, [path.join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', path.join(ROOT, 'tsconfig.json')]);
    if (types !== 0) return types;
    const chosen = files.length > 0 ? files : testFiles().sort();
    // What tests leave behind goes with them.
    const temporary = mkdtempSync(path.join(tmpdir(), 'slimfit-test-'));
    try {
      // The limit is also that of a whole file, and the notebooks of one take minutes on a small machine.
      return await foreground(process.execPath, ['--import', 'tsx', '--test', '--test-concurrency=2', '--test-timeout=900000', '--test-reporter=spec', ...chosen], { TMPDIR: temporary });
    } finally {
      rmSync(temporary, { recursive: true, force: true });
    }
  },
  async run([file, ...args]) {
    await ready();
    return foreground(process.execPath, ['--import', 'tsx', path.join(ROOT, file), ...args]);
  },
  /** Times the kernel beside plain tslab. */
  async benchKernel() {
    await readyForNotebooks();
    return foreground(setup.PYTHON, [path.join(ROOT, 'bench/kernel.py'), ROOT], { JUPYTER_PREFER_ENV_PATH: '1' });
  },
  /** Runs a script that looks at the notebooks in JupyterLab. */
  async screens([file]) {
    await readyForNotebooks();
    return foreground(process.execPath, ['--import', 'tsx', path.join(ROOT, file)]);
  },
  async interop() {
    await ready();
    await setup.interop();
    return foreground(process.execPath, ['--import', 'tsx', path.join(ROOT, 'test/interop/main.ts'), setup.PYTHON]);
  },
};

const [name, ...args] = process.argv.slice(2);
const command = Object.hasOwn(commands, name ?? '') ? commands[name] : undefined;
if (!command) {
  say(`usage: bootstrap.mjs ${Object.keys(commands).join(' | ')}`);
  process.exit(2);
}
try {
  process.exitCode = await command(args);
} catch (error) {
  if (!(error instanceof setup.SetupError)) throw error;
  say(error.message);
  process.exitCode = 1;
}
