/** JupyterLab of the project in a headless Chromium: what the screenshots and the flicker count are taken from. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Browser, chromium, type Page } from 'playwright-core';

export const ROOT = path.resolve(__dirname, '../..');
export const PYTHON = path.join(ROOT, '.slimfit/python/bin/python');

/** A cell of a notebook made for looking at. */
export interface View {
  readonly name: string;
  readonly code: string;
}

/** A running JupyterLab with one notebook open. */
export interface Lab {
  readonly page: Page;
  readonly browser: Browser;
  readonly folder: string;
  readonly notebook: string;
  command(id: string, args?: object): Promise<void>;
  /** Runs a command until a cell has begun: just after its start a kernel lets requests fall. */
  begin(command: string, cell: number): Promise<void>;
  /** Waits until a cell was run to its end. */
  ran(cell: number, timeoutMs: number): Promise<void>;
  close(): Promise<void>;
}

/** The browser to drive. @throws Error that says what to install */
function browserPath(): string {
  const places = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome', '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'];
  const found = places.find((p) => p && existsSync(p));
  if (!found) throw new Error('no Chromium was found: install it (Debian: chromium) or name it in CHROMIUM');
  return found;
}

/** A notebook of code cells, as JSON. */
export function notebookOf(views: readonly View[]): string {
  return JSON.stringify({
    cells: views.map((v, i) => ({ cell_type: 'code', id: `view-${i}`, metadata: {}, source: v.code, outputs: [], execution_count: null })),
    metadata: { kernelspec: { name: 'slimfit', display_name: 'TypeScript (SlimFit)', language: 'typescript' } },
    nbformat: 4,
    nbformat_minor: 5,
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function startServer(folder: string, port: number): Promise<ChildProcess> {
  const settings = path.join(folder, '.settings');
  const setting = (plugin: string, value: object) => {
    const file = path.join(settings, `${plugin}.jupyterlab-settings`);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, JSON.stringify(value));
  };
  // Every cell is in the page, whether it is in sight or not; nothing pops up.
  setting('@jupyterlab/notebook-extension/tracker', { windowingMode: 'none' });
  setting('@jupyterlab/apputils-extension/notification', { fetchNews: 'false', checkForUpdates: false });
  const options = ['--no-browser', '--allow-root', `--port=${port}`, '--ServerApp.ip=127.0.0.1', `--ServerApp.root_dir=${folder}`, '--IdentityProvider.token=', '--ServerApp.password=', '--LabApp.expose_app_in_browser=True'];
  const server = spawn(PYTHON, ['-m', 'jupyterlab', ...options], {
    cwd: folder,
    stdio: 'ignore',
    env: { ...process.env, JUPYTERLAB_SETTINGS_DIR: settings, JUPYTERLAB_WORKSPACES_DIR: path.join(folder, '.workspaces'), JUPYTER_CONFIG_DIR: path.join(folder, '.config'), JUPYTER_PREFER_ENV_PATH: '1' },
  });
  for (let i = 0; i < 120; i++) {
    if ((await fetch(`http://127.0.0.1:${port}/api/status`).catch(() => undefined))?.ok) return server;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  server.kill();
  throw new Error('JupyterLab did not start within 30 s');
}

/** Opens a notebook of views in JupyterLab; nothing runs yet. */
export async function openLab(views: readonly View[]): Promise<Lab> {
  const executablePath = browserPath();
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-screens-'));
  const notebook = path.join(folder, 'views.ipynb');
  writeFileSync(notebook, notebookOf(views));
  const port = await freePort();
  const server = await startServer(folder, port);
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
  const page = await browser.newPage({ viewport: { width: 1280, height: 1700 } });
  // `--LabApp.expose_app_in_browser` gives the page a handle on JupyterLab.
  const command = async (id: string, args: object = {}) => {
    await page.evaluate(`jupyterapp.commands.execute(${JSON.stringify(id)}, ${JSON.stringify(args)}).then(() => undefined)`);
  };
  const open = async () => {
    await page.goto(`http://127.0.0.1:${port}/lab/tree/views.ipynb`);
    await page.waitForFunction("'jupyterapp' in window");
    await page.evaluate('jupyterapp.restored.then(() => undefined)');
    // The cells appear one after the other.
    await page.waitForFunction(`document.querySelectorAll('.jp-Notebook .jp-CodeCell').length === ${views.length}`);
    await page.waitForSelector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', { timeout: 60_000 });
  };
  await open();
  return {
    page,
    browser,
    folder,
    notebook,
    command,
    async begin(id, cell) {
      const begun = `/[\\d*]/.test(document.querySelectorAll('.jp-CodeCell')[${cell}].querySelector('.jp-InputArea-prompt').textContent)`;
      for (let i = 0; i < 20 && !(await page.evaluate(begun)); i++) {
        // Ends when its cells have, or never when the page closes before.
        command(id).catch(() => {});
        await page.waitForTimeout(1500);
      }
    },
    async ran(cell, timeout) {
      await page.waitForFunction(`/\\d/.test(document.querySelectorAll('.jp-CodeCell')[${cell}].querySelector('.jp-InputArea-prompt').textContent)`, undefined, { timeout, polling: 200 });
    },
    async close() {
      await browser.close();
      // The server ends its kernels.
      server.kill('SIGINT');
      server.kill('SIGTERM');
      await new Promise((resolve) => (server.exitCode !== null ? resolve(undefined) : server.once('exit', resolve)));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
