/** Builds `dist`: the library (CommonJS and ES module), the command line, the kernel, and type declarations. Dependencies stay outside. */
import { chmodSync, rmSync } from 'node:fs';
import path from 'node:path';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const at = (p) => path.join(root, p);
rmSync(at('dist'), { recursive: true, force: true });

const common = { bundle: true, platform: 'node', target: 'node20', packages: 'external', sourcemap: true, logLevel: 'warning', absWorkingDir: root };
await Promise.all([
  build({ ...common, entryPoints: ['src/index.ts'], format: 'cjs', outfile: 'dist/index.cjs' }),
  // `require` finds package folders in both forms, `__dirname` the files beside the bundle.
  build({ ...common, entryPoints: ['src/index.ts'], format: 'esm', outfile: 'dist/index.mjs', banner: { js: "import { createRequire as slimfitRequire } from 'node:module'; const require = slimfitRequire(import.meta.url); const __dirname = import.meta.dirname;" } }),
  // The thread that makes image batches; the library finds it beside itself.
  build({ ...common, entryPoints: ['src/data/imageWorker.ts'], format: 'cjs', outfile: 'dist/imageWorker.cjs' }),
  build({ ...common, entryPoints: ['src/cli/main.ts'], format: 'cjs', outfile: 'dist/cli.cjs', banner: { js: '#!/usr/bin/env node' } }),
  build({ ...common, entryPoints: { main: 'kernel/main.ts', ioThread: 'kernel/ioThread.ts' }, format: 'cjs', outdir: 'dist/kernel', outExtension: { '.js': '.cjs' } }),
]);
// `npx slimfit` inside this folder runs the file itself.
chmodSync(at('dist/cli.cjs'), 0o755);
const tsc = spawnSync(process.execPath, [at('node_modules/typescript/bin/tsc'), '-p', at('tsconfig.build.json')], { stdio: 'inherit' });
process.exitCode = tsc.status ?? 1;
