import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { runInNewContext } from 'node:vm';
import { test } from 'node:test';
import { Figure } from '../../src/inspect/figure';

const displayed = (f: Figure) => (f as unknown as Record<symbol, () => Record<string, string>>)[Symbol.for('Jupyter.display')]();
const numbers = (svg: string, pattern: RegExp) => [...svg.matchAll(pattern)].map((m) => m.slice(1).map(Number));

test('a figure gives HTML with its picture inside, the picture itself, and a text', () => {
  const bundle = displayed(new Figure({ data: [{ y: [3, 2, 1] }], layout: { title: { text: 'Loss' } } }));
  assert.deepEqual(Object.keys(bundle), ['text/html', 'image/svg+xml', 'text/plain']);
  assert.equal(bundle['text/plain'], 'Figure: Loss');
  const inside = /src="data:image\/svg\+xml;base64,([^"]+)"/.exec(bundle['text/html'])![1];
  assert.equal(Buffer.from(inside, 'base64').toString(), bundle['image/svg+xml']);
});

/** Runs the script of a figure in a page of our own. @returns the scripts that it loads, and what it draws */
async function runScript(html: string, options: { baseUrl?: string; unreachable?: (url: string) => boolean }) {
  const source = /<script type="text\/javascript">([^]*)<\/script>/.exec(html)![1];
  const urls: string[] = [];
  const hashes: (string | undefined)[] = [];
  const drawn: unknown[][] = [];
  const element = { replaceChildren() {} };
  const window: Record<string, unknown> = {};
  const document = {
    getElementById: (id: string) => (id !== 'jupyter-config-data' ? element : options.baseUrl ? { textContent: JSON.stringify({ baseUrl: options.baseUrl }) } : null),
    createElement: () => ({}),
    head: {
      appendChild(s: { src: string; integrity?: string; crossOrigin?: string; onload(): void; onerror(): void }) {
        urls.push(s.src);
        hashes.push(s.crossOrigin === 'anonymous' ? s.integrity : undefined);
        if (options.unreachable?.(s.src)) return queueMicrotask(() => s.onerror());
        window.Plotly = { newPlot: async (...a: unknown[]) => void drawn.push(a) };
        queueMicrotask(() => s.onload());
      },
    },
  };
  runInNewContext(source, { window, document });
  await new Promise((resolve) => setTimeout(resolve, 10));
  return { urls, hashes, drawn };
}

test('its script loads plotly from the Jupyter server, then from the CDN, and leaves the picture when neither answers', async () => {
  const html = new Figure({ data: [{ type: 'scatter', y: new Float32Array([0.1, NaN]) }] }).toHtml();
  const server = await runScript(html, { baseUrl: '/lab/' });
  assert.deepEqual(server.urls, ['/lab/kernelspecs/slimfit/plotly.min.js']);
  assert.equal(JSON.stringify((server.drawn[0][1] as unknown[])[0]), '{"type":"scatter","y":[0.1,null]}');
  const cdn = await runScript(html, { baseUrl: '/', unreachable: (u) => u.startsWith('/') });
  assert.deepEqual(cdn.urls, ['/kernelspecs/slimfit/plotly.min.js', 'https://cdn.jsdelivr.net/npm/plotly.js-dist-min@3.1.0/plotly.min.js']);
  // The same version as the Jupyter server's, and only with the hash of that file.
  assert.equal((JSON.parse(readFileSync(path.resolve(__dirname, '../../package.json'), 'utf8')) as { dependencies: Record<string, string> }).dependencies['plotly.js-dist'], '3.1.0');
  assert.match(cdn.hashes[1]!, /^sha384-[A-Za-z0-9+/]{64}$/);
  assert.equal(cdn.drawn.length, 1);
  const nothing = await runScript(html, { unreachable: () => true });
  assert.deepEqual(nothing.drawn, []);
});

test('text of the data cannot leave the script or the picture', () => {
  const html = new Figure({ data: [{ y: [1], name: '</script><b>' }], layout: { title: { text: '"><img onerror=x>' } } }).toHtml();
  assert.equal(html.match(/<\/script>/g)!.length, 1);
  assert.ok(!html.includes('<b>'));
  assert.ok(!html.includes('<img onerror'));
});

test('a figure without a layout has no background and mid-grey text; what the user says comes first', () => {
  const plain = new Figure({ data: [] });
  assert.equal(plain.layout.paper_bgcolor, 'rgba(0,0,0,0)');
  assert.equal((plain.layout.font as { color: string }).color, '#7f7f7f');
  const own = new Figure({ data: [], layout: { paper_bgcolor: 'white', font: { size: 20 }, xaxis: { type: 'log' } } });
  assert.equal(own.layout.paper_bgcolor, 'white');
  assert.deepEqual(own.layout.font, { color: '#7f7f7f', size: 20 });
  assert.equal((own.layout.xaxis as { type: string }).type, 'log');
});

test('a line goes through its points: higher values stand higher, gaps stay gaps', () => {
  const svg = new Figure({ data: [{ type: 'scatter', mode: 'lines', x: [0, 1, 2, 3, 4, 5], y: [0, 10, 5, NaN, 0, 10] }] }).toSvg();
  const lines = [...svg.matchAll(/points="([^"]+)"/g)].map((m) => m[1].split(' ').map((p) => p.split(',').map(Number)));
  assert.deepEqual(lines.map((l) => l.length), [3, 2]);
  const [[x0, y0], [x1, y1], [x2, y2]] = lines[0];
  assert.ok(Math.abs(x1 - x0 - (x2 - x1)) < 0.2, 'equal steps');
  assert.ok(y1 < y2 && y2 < y0);
  assert.ok(Math.abs(y2 - (y0 + y1) / 2) < 0.2, 'a linear axis');
});

test('a logarithmic axis has equal room for equal factors and leaves out what it cannot show', () => {
  const svg = new Figure({ data: [{ mode: 'lines', y: [1, 10, 100, 0] }], layout: { yaxis: { type: 'log' } } }).toSvg();
  const [[, a], [, b], [, c]] = /points="([^"]+)"/.exec(svg)![1].split(' ').map((p) => p.split(',').map(Number));
  assert.ok(Math.abs(a - b - (b - c)) < 0.2);
  assert.ok(!svg.includes('NaN'));
});

test('bars begin at zero and are as long as their values; stacked ones stand on each other', () => {
  const rect = /<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" fill="#0072b2"/g;
  const [one, two] = numbers(new Figure({ data: [{ type: 'bar', x: ['a', 'b'], y: [1, 2] }] }).toSvg(), rect);
  assert.ok(Math.abs(two[3] - 2 * one[3]) < 0.3);
  assert.ok(Math.abs(one[1] + one[3] - (two[1] + two[3])) < 0.2, 'one ground line');
  const svg = new Figure({ data: [{ type: 'bar', x: ['a'], y: [1] }, { type: 'bar', x: ['a'], y: [3] }], layout: { barmode: 'stack' } }).toSvg();
  const [lower] = numbers(svg, rect);
  const [upper] = numbers(svg, /<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" fill="#e69f00"/g);
  assert.ok(Math.abs(upper[1] + upper[3] - lower[1]) < 0.2 && Math.abs(upper[3] - 3 * lower[3]) < 0.5);
});

test('a heatmap without coordinates or colours is drawn: one cell for each number inside the frame, blank ones left out', () => {
  const svg = new Figure({ data: [{ type: 'heatmap', z: [[0, 1], [null, 0.5]] }] }).toSvg();
  const cells = [...svg.matchAll(/<rect x="([\d.-]+)" y="([\d.-]+)" width="([\d.]+)" height="([\d.]+)" fill="(#\w+)"/g)];
  assert.deepEqual(cells.map((c) => c[5]), ['#00224e', '#fee838', '#7d7c78']);
  for (const [, x, y, w, h] of cells) assert.ok(+x >= 63.9 && +x + +w <= 736.5 && +y >= 63.9 && +y + +h <= 312.5);
});

test('neighbouring cells of one colour are one rectangle, as wide as all of them', () => {
  const rects = numbers(new Figure({ data: [{ type: 'heatmap', z: [[1, 1, 0, 0, 0, 1]] }] }).toSvg(), /<rect x="([\d.-]+)" y="[\d.-]+" width="([\d.]+)" height="[\d.]+" fill="#(?:00224e|fee838)"/g);
  assert.equal(rects.length, 3);
  const one = rects[2][1] - 0.2;
  assert.ok(Math.abs(rects[0][1] - 0.2 - 2 * one) < 0.2 && Math.abs(rects[1][1] - 0.2 - 3 * one) < 0.3, String(rects));
});

test('bars of a group stand beside each other, a quarter of a band around its middle', () => {
  const rect = (fill: string) => numbers(new Figure({ data: [{ type: 'bar', x: ['a', 'b'], y: [1, 2] }, { type: 'bar', x: ['a', 'b'], y: [2, 1] }], layout: { barmode: 'group' } }).toSvg(), new RegExp(`<rect x="([\\d.]+)" y="[\\d.]+" width="([\\d.]+)" height="[\\d.]+" fill="${fill}"`, 'g'));
  const [first, second] = [rect('#0072b2')[0], rect('#e69f00')[0]];
  assert.ok(Math.abs(first[0] + first[1] - second[0]) < 0.2 && Math.abs(first[1] - second[1]) < 0.2, `${first} ${second}`);
});

test('categories stand in the order that the layout asks for, not in that of the traces', () => {
  const svg = new Figure({ data: [{ type: 'scatter', mode: 'markers', x: [1], y: ['late'] }, { type: 'scatter', mode: 'markers', x: [1], y: ['early'] }], layout: { yaxis: { autorange: 'reversed', categoryarray: ['early', 'late', 'absent'] } } }).toSvg();
  const at = (text: string) => Number(new RegExp(`y="([\\d.]+)"[^>]*>${text}<`).exec(svg)![1]);
  assert.ok(at('early') < at('late'));
  assert.ok(!svg.includes('absent'));
});

test('a legend that is wider than the picture goes on in the next line, inside the picture', () => {
  const svg = new Figure({ data: Array.from({ length: 9 }, (_, i) => ({ y: [i, 1], name: `a rather long name ${i}` })) }).toSvg();
  const places = numbers(svg, /<text x="([\d.-]+)" y="([\d.]+)" text-anchor="start">a rather long name/g);
  assert.equal(places.length, 9);
  assert.ok(new Set(places.map((p) => p[1])).size >= 2);
  for (const [x] of places) assert.ok(x >= 24 && x + 6.2 * 20 <= 760);
});

test('numbers and title of a second axis stand beside the plot, inside the picture', () => {
  const svg = new Figure({ data: [{ y: [1, 2], name: 'loss' }, { y: [0.0002, 0.0008], name: 'rate', yaxis: 'y2' }], layout: { yaxis2: { title: { text: 'learning rate' } } } }).toSvg();
  const [[right]] = numbers(svg, /<line x1="[\d.]+" x2="([\d.]+)"/g);
  const ticks = [...svg.matchAll(/<text x="([\d.]+)" y="[\d.]+" text-anchor="start">(0\.000\d+)</g)];
  const [[title]] = numbers(svg, /<text transform="translate\(([\d.]+) [\d.]+\) rotate\(-90\)" text-anchor="middle">learning rate</g);
  assert.ok(ticks.length >= 3);
  for (const [, x, text] of ticks) assert.ok(Number(x) > right && Number(x) + 6.2 * text.length <= title - 6);
  assert.ok(title <= 756);
});

test('a kind of trace that has no static picture is named in it, and a hundred thousand points are drawn', () => {
  assert.match(new Figure({ data: [{ type: 'pie', values: [1, 2] }] }).toSvg(), /no static picture of: pie/);
  const many = Array.from({ length: 200_000 }, (_, i) => i % 7);
  assert.match(new Figure({ data: [{ y: many }, { type: 'heatmap', z: [many] }] }).toSvg(), /polyline/);
});

test('the still picture draws a line marker as a line of its length and width, and a short one in the legend', () => {
  const trace = { name: 'full', x: ['a', 'b'], y: [1, 2], mode: 'markers', marker: { symbol: 'line-ew-open', size: 22, line: { width: 3 } } };
  const svg = displayed(new Figure({ data: [trace], layout: { showlegend: true } }))['image/svg+xml'];
  // Plotly draws them 1.4 times the size: https://github.com/plotly/plotly.js, src/components/drawing/symbol_defs.js.
  const lines = numbers(svg, /<path d="M([\d.]+) [\d.]+H([\d.]+)" stroke="[^"]+" stroke-width="3.0"/g);
  assert.deepEqual(lines.map(([from, to]) => Math.round(10 * (to - from)) / 10), [30.8, 30.8, 14]);
  assert.doesNotMatch(svg, /<circle/);
});
