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
const PAIRS = Number(process.env.PAIRS ?? 10);

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
/** Pairs of stretches with and without the display, in turn first; milliseconds a step. */
const COST = `
const stretch = async (live: boolean) => {
  if (live) trainer.live();
  const began = performance.now();
  let n = 0;
  for await (const r of trainer.steps(120)) n++;
  return (performance.now() - began) / n;
};
const pairs: [number, number][] = [];
for (let i = 0; i < ${PAIRS}; i++) {
  const first = await stretch(i % 2 === 1);
  const second = await stretch(i % 2 === 0);
  pairs.push(i % 2 === 1 ? [second, first] : [first, second]);
}
JSON.stringify(pairs)`;

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
  await watch();
  cost();
}

async function watch(): Promise<void> {
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
}

/** Without a browser, whose drawing would take time from the training on a machine of few cores. */
function cost(): void {
  const folder = mkdtempSync(path.join(tmpdir(), 'slimfit-cost-'));
  const file = path.join(folder, 'cost.ipynb');
  writeFileSync(file, notebookOf([{ name: 'setup', code: SETUP }, { name: 'cost', code: COST }]));
  execFileSync(PYTHON, ['-m', 'jupyter', 'execute', '--inplace', file], { stdio: 'ignore' });
  const { cells } = JSON.parse(readFileSync(file, 'utf8')) as { cells: { outputs: { data?: Record<string, string[]> }[] }[] };
  const pairs = JSON.parse(cells[1].outputs.at(-1)!.data!['text/plain'].join('').replace(/^'|'$/g, '')) as [number, number][];
  rmSync(folder, { recursive: true, force: true });
  const mean = (v: readonly number[]) => v.reduce((a, b) => a + b, 0) / v.length;
  const shares = pairs.map(([without, live]) => 100 * (live / without - 1));
  const error = Math.sqrt(mean(shares.map((s) => (s - mean(shares)) ** 2)) / (shares.length - 1));
  process.stdout.write(
    `a step takes ${mean(pairs.map((p) => p[0])).toFixed(2)} ms without the display, ${mean(pairs.map((p) => p[1])).toFixed(2)} ms with it: ${mean(shares).toFixed(1)} % more, standard error of ${pairs.length} pairs ${error.toFixed(1)} %\n`,
  );
}

main().catch((error: Error) => {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
});
