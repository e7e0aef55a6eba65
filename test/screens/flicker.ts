/**
 * `npm run bench:flicker`: watches the live display of a run in JupyterLab for a minute, frame by frame, and counts frames in which it is blank and frames in which its height jumps;
 * then how much slower the same steps are with the display than without.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { notebookOf, openLab, PYTHON } from './lab';

const SECONDS = Number(process.env.SECONDS ?? 60);

const SETUP = `
const { BertForSequenceClassification, SlimFitTrainer, TextDataset, Tokenizer } = slimfit;
const tokenizer = Tokenizer.fromFolder(slimfit.embeddedModel());
const train = new TextDataset(slimfit.generateAcceptability(3200, 1), tokenizer, { maxLength: 24 });
const model = await BertForSequenceClassification.fromPretrained(slimfit.embeddedModel(), { labels: slimfit.glueTask('cola').labels, onNotice: () => {} });
const trainer = new SlimFitTrainer({ model, train, batchSize: 32, totalSteps: 100_000, learningRate: 1e-4, measureEncodingsEvery: 0 });
for await (const r of trainer.steps(50));`;
const LIVE = `trainer.live();
const until = Date.now() + ${1000 * SECONDS};
for await (const r of trainer.steps(100_000)) if (Date.now() > until) break;`;
/** Short stretches with and without the display in turn; the median of each. */
const COST = `
const median = (v: number[]) => v.sort((a, b) => a - b)[v.length >> 1];
const stretch = async (live: boolean) => {
  if (live) trainer.live();
  const began = performance.now();
  let n = 0;
  for await (const r of trainer.steps(120)) n++;
  times[live ? 1 : 0].push((performance.now() - began) / n);
};
const times: number[][] = [[], []];
for (let i = 0; i < 8; i++) for (const live of i % 2 ? [true, false] : [false, true]) await stretch(live);
JSON.stringify({ without: median(times[0]), with: median(times[1]) })`;

/** Runs in the page: looks at the output in every frame. */
const WATCH = `(() => {
  const output = document.querySelectorAll('.jp-CodeCell')[1].querySelector('.jp-OutputArea');
  const seen = { frames: 0, blank: 0, jumps: 0, redraws: 0, began: 0, ended: 0, where: [] };
  let height, html;
  const look = (now) => {
    const drawing = output.querySelector('svg');
    const final = output.querySelector('script, .js-plotly-plot');
    if (seen.began && final) { seen.ended = now; window.slimfitSeen = seen; return; }
    if (!seen.began && drawing) seen.began = now;
    if (seen.began) {
      seen.frames++;
      const h = output.getBoundingClientRect().height;
      if (!drawing || drawing.getBoundingClientRect().height === 0) seen.blank++;
      if (height !== undefined && Math.abs(h - height) > 1) { seen.jumps++; seen.where.push([Math.round(now - seen.began), height, h]); }
      height = h;
      const text = output.textContent;
      if (text !== html) seen.redraws++;
      html = text;
    }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})()`;

interface Seen {
  readonly frames: number;
  readonly blank: number;
  readonly jumps: number;
  readonly redraws: number;
  /** Milliseconds since the beginning, height before and after. */
  readonly where: readonly (readonly [number, number, number])[];
  readonly began: number;
  readonly ended: number;
}

async function main(): Promise<void> {
  const lab = await openLab([{ name: 'setup', code: SETUP }, { name: 'live', code: LIVE }]);
  try {
    await lab.page.evaluate(WATCH);
    await lab.begin('notebook:run-all-cells', 0);
    await lab.ran(1, 1000 * SECONDS + 240_000);
    const seen = (await lab.page.evaluate('window.slimfitSeen')) as Seen;
    const seconds = (seen.ended - seen.began) / 1000;
    process.stdout.write(`${seconds.toFixed(0)} s, ${seen.frames} frames, ${(seen.redraws / seconds).toFixed(1)} redraws a second: ${seen.blank} blank, ${seen.jumps} jumps of height ${JSON.stringify(seen.where)}\n`);
  } finally {
    await lab.close();
  }
  cost();
}

/** Without a browser, whose drawing would take time from the training on a machine of few cores. */
function cost(): void {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-cost-'));
  const file = path.join(folder, 'cost.ipynb');
  writeFileSync(file, notebookOf([{ name: 'setup', code: SETUP }, { name: 'cost', code: COST }]));
  execFileSync(PYTHON, ['-m', 'jupyter', 'execute', '--inplace', file], { stdio: 'ignore' });
  const { cells } = JSON.parse(readFileSync(file, 'utf8')) as { cells: { outputs: { data?: Record<string, string[]> }[] }[] };
  const result = JSON.parse(cells[1].outputs.at(-1)!.data!['text/plain'].join('').replace(/^'|'$/g, '')) as { without: number; with: number };
  rmSync(folder, { recursive: true, force: true });
  process.stdout.write(`a step takes ${result.without.toFixed(2)} ms without the display, ${result.with.toFixed(2)} ms with it: ${(100 * (result.with / result.without - 1)).toFixed(1)} %\n`);
}

main().catch((error: Error) => {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
});
