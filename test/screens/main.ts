/**
 * `npm run screenshots`: every figure, every table, the live display, errors and an inspection, in JupyterLab (light and dark) and in nbconvert's HTML, as PNG files in
 * `.slimfit/screens`, to be looked at.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Locator, Page } from 'playwright-core';
import { type Lab, openLab, PYTHON, ROOT } from './lab';
import { LIVE, VIEWS } from './views';

const OUT = path.join(ROOT, '.slimfit/screens');
const THEMES = { light: 'JupyterLab Light', dark: 'JupyterLab Dark' } as const;
const all = [...VIEWS, ...LIVE];
const place = (name: string) => all.findIndex((v) => v.name === name);
const outputOf = (page: Page, i: number): Locator => page.locator('.jp-CodeCell').nth(i).locator('.jp-Cell-outputWrapper, .jp-OutputArea').first();

async function shoot(of: Locator, folder: string, name: string): Promise<void> {
  mkdirSync(path.join(OUT, folder), { recursive: true });
  await of.scrollIntoViewIfNeeded();
  await of.screenshot({ path: path.join(OUT, folder, `${name}.png`) });
}

/** Makes one cell the active one. */
async function activate(lab: Lab, i: number): Promise<void> {
  await lab.page.locator('.jp-CodeCell').nth(i).locator('.jp-InputArea-editor').click();
}

async function runCell(lab: Lab, name: string): Promise<void> {
  await activate(lab, place(name));
  await lab.command('notebook:run-cell');
}

async function liveViews(lab: Lab): Promise<void> {
  const { page } = lab;
  const running = runCell(lab, 'live');
  await page.waitForTimeout(3000);
  for (const [folder, theme] of Object.entries(THEMES)) {
    await lab.command('apputils:change-theme', { theme });
    await shoot(outputOf(page, place('live')), folder, 'live-running');
  }
  await running;
  await lab.ran(place('live'), 60_000);
  const interrupted = runCell(lab, 'live-interrupted');
  await page.waitForTimeout(2000);
  await lab.command('notebook:interrupt-kernel');
  await interrupted;
  await lab.ran(place('live-interrupted'), 20_000);
  for (const name of ['live-again', 'type-error', 'thrown-error']) {
    await runCell(lab, name);
    await lab.ran(place(name), 20_000);
  }
}

async function labViews(lab: Lab): Promise<void> {
  const { page } = lab;
  for (const [folder, theme] of Object.entries(THEMES)) {
    await lab.command('apputils:change-theme', { theme });
    await page.waitForTimeout(1500);
    for (const [i, { name }] of all.entries()) if (!['setup', 'inspection'].includes(name)) await shoot(outputOf(page, i), folder, name);
    await activate(lab, place('inspection'));
    await page.keyboard.press('End');
    await lab.command('tooltip:launch-notebook');
    const tooltip = page.locator('.jp-Tooltip');
    await tooltip.waitFor({ timeout: 10_000 });
    await page.waitForTimeout(500);
    await shoot(tooltip, folder, 'inspection');
    await page.keyboard.press('Escape');
  }
}

/** What the freeze map tells of a layer that was frozen, where it draws nothing. */
async function hoverViews(lab: Lab): Promise<void> {
  const map = outputOf(lab.page, place('freeze-map'));
  await map.scrollIntoViewIfNeeded();
  const { x, y, width, height } = (await map.locator('.nsewdrag').first().boundingBox())!;
  const label = map.locator('.hoverlayer .hovertext');
  for (let i = 1; i < 20; i++) {
    await lab.page.mouse.move(x + width * 0.6, y + (height * i) / 20);
    await label.waitFor({ timeout: 3000 });
    if (/frozen, saves/.test((await label.textContent()) ?? '')) return shoot(map, 'dark', 'freeze-map-hover');
  }
  throw new Error('no frozen layer of the freeze map tells what freezing saves');
}

/** Pictures that stand in the page of nbconvert, with scripts (which find no plotly.js without a network) and without. */
async function htmlViews(lab: Lab): Promise<void> {
  await lab.command('docmanager:save');
  execFileSync(PYTHON, ['-m', 'nbconvert', '--to', 'html', '--log-level=ERROR', lab.notebook]);
  const page = await (await lab.browser.newContext({ javaScriptEnabled: false, viewport: { width: 1280, height: 1000 } })).newPage();
  await page.goto(`file://${lab.notebook.replace(/ipynb$/, 'html')}`);
  for (const [i, { name }] of VIEWS.entries()) if (name !== 'setup') await shoot(page.locator('.jp-CodeCell').nth(i).locator('.jp-Cell-outputWrapper'), 'html', name);
}

/** All pictures of a folder on one page. */
async function contactSheet(lab: Lab, folder: string): Promise<void> {
  const page = await lab.browser.newPage({ viewport: { width: 1800, height: 1000 } });
  const names = readdirSync(path.join(OUT, folder)).filter((f) => f.endsWith('.png') && !f.startsWith('sheet')).sort();
  const file = path.join(OUT, folder, 'sheet.html');
  writeFileSync(file, `<body style="margin:8px;display:grid;grid-template-columns:repeat(3,1fr);gap:10px;align-items:start;font:12px sans-serif;background:#888">${names.map((n) => `<figure style="margin:0">${n}<img style="width:100%" src="${n}"></figure>`).join('')}`);
  await page.goto(`file://${file}`);
  await page.screenshot({ path: path.join(OUT, folder, 'sheet.png'), fullPage: true });
  process.stdout.write(`${folder}: ${names.length} pictures, all of them in ${path.relative(process.cwd(), path.join(OUT, folder, 'sheet.png'))}\n`);
}

async function main(): Promise<void> {
  rmSync(OUT, { recursive: true, force: true });
  const lab = await openLab(all);
  try {
    await activate(lab, place('live'));
    await lab.begin('notebook:run-all-above', 0);
    await lab.ran(place('live') - 1, 180_000);
    await lab.page.waitForFunction("document.querySelectorAll('.js-plotly-plot').length >= 20", undefined, { timeout: 60_000 });
    await liveViews(lab);
    await labViews(lab);
    await hoverViews(lab);
    await htmlViews(lab);
    for (const folder of ['light', 'dark', 'html']) await contactSheet(lab, folder);
  } catch (error) {
    mkdirSync(OUT, { recursive: true });
    await lab.page.screenshot({ path: path.join(OUT, 'failed.png') });
    throw error;
  } finally {
    await lab.close();
  }
}

main().catch((error: Error) => {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
});
