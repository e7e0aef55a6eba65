/** Text of strangers in every display: names of a run that was loaded from a folder, metrics, layers, cells of a table, policies of a study. It is shown as it is written, and is never markup or script. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { table } from 'arquero';
import type { FreezableLayer } from '../../src/freezing/layer';
import { recordBundle } from '../../src/inspect/cards';
import { compare } from '../../src/inspect/compare';
import { Figure } from '../../src/inspect/figure';
import { freezeMapFigure, freezingSavesFigure, timesTrainedFigure } from '../../src/inspect/freezeFigures';
import { encodingErrorFigure, gradientErrorFigure } from '../../src/inspect/healthFigures';
import { LiveView } from '../../src/inspect/live';
import { updateMagnitudeByKindFigure, updateMagnitudeDistributionFigure, updateMagnitudeFigure } from '../../src/inspect/magnitudeFigures';
import { asText, withoutMarkup } from '../../src/inspect/markup';
import { activationMemoryFigure, activationMemoryOverStepsFigure, deviceMemoryFigure, stepMemoryFigure } from '../../src/inspect/memoryFigures';
import { lossFigure, metricsFigure, throughputFigure } from '../../src/inspect/runFigures';
import { studyFigure } from '../../src/inspect/studyFigure';
import { StudyResults } from '../../src/inspect/studyResults';
import { Summary } from '../../src/inspect/summary';
import { activationsTable, encodingErrorsTable, healthTable, layersTable } from '../../src/inspect/tables';
import { tableBundle } from '../../src/inspect/tableHtml';
import { GradientComparison } from '../../src/training/gradients';
import { History } from '../../src/training/history';
import type { StepRecord } from '../../src/training/stepRecord';
import type { StudyJob } from '../../src/training/studyDefinition';
import type { StudyResult } from '../../src/training/studyFolder';

const ATTACKS = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', ']]><svg onload=alert(1)>', '<a href="javascript:alert(1)">x</a>', '<b>bold</b>', '&lt;i&gt;', '%{customdata}<extra></extra>', "' onmouseover='alert(1)", '\u2028</script>', '\u0000\u001b[2J'] as const;
const displayed = (value: object) => (value as Record<symbol, () => Record<string, string>>)[Symbol.for('Jupyter.display')]();
const CATEGORIES = { weights: 1, optimizer: 1, gradients: 1, activations: 1, workspace: 1 };

function historyOf(attack: string): History {
  const layers = [`a.${attack}`, `b.${attack}`].map((name, index): FreezableLayer => ({ index, name, kind: 'linear', shape: [2, 2], parameters: 4 }));
  const history = new History(layers, attack);
  const record = {
    step: 0, epoch: 0, loss: 1, learningRate: 1e-3, frozen: [1], active: [0], overruled: [], updateMagnitudes: Float64Array.of(0.1, 0.2),
    activations: [{ layer: attack, what: attack, role: attack, encoding: attack, shape: [1], bytes: 8, padding: 0 }],
    activationBytes: 8, fullActivations: { total: 16, parts: { [attack]: 16 } }, freezingSaves: Float64Array.of(1, 2), course: [{ phase: 'forward', layer: attack, activationBytes: 8, deviceBytes: 9 }],
    encodingErrors: [{ layer: attack, what: attack, encoding: attack, clipped: 0.1, zeroed: 0.1, relativeError: 0.1 }],
    memory: { live: CATEGORIES, peak: CATEGORIES, totalLive: 5, totalPeak: 5, tensors: 1 }, milliseconds: 1, dataMilliseconds: 0, examples: 1, tokens: 1,
  } as unknown as StepRecord;
  history.append(record);
  history.addEvaluation(1, { loss: 0.5, [attack]: 0.5 });
  return history;
}

function studyOf(attack: string): StudyResults {
  const job = { id: 'r', policy: attack, variant: attack, freezeRate: 0.5, seed: 1 } as unknown as StudyJob;
  const result = { id: 'r', metrics: { [attack]: 0.5 }, loss: 1, activationBytes: 1, fullActivationBytes: 2, peakBytes: 3, secondsPerStep: 1, frozenShare: 0.5, seconds: 1, steps: 1, engine: attack, finished: attack } as unknown as StudyResult;
  return new StudyResults(attack, [job], new Map([['r', result]]));
}

/** Every string in a value, whatever its depth. */
function strings(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return value && typeof value === 'object' && !ArrayBuffer.isView(value) ? Object.values(value).flatMap(strings) : [];
}

/** What a browser makes of the text between tags. */
const read = (html: string): string => html.replace(/&#(\d+);/g, (_, code: string) => String.fromCodePoint(Number(code)));

for (const attack of ATTACKS) {
  const history = historyOf(attack);
  const comparison = new GradientComparison(0, [{ encodings: attack, parameter: `a.${attack}`, exactNorm: 1, norm: 1, relativeError: 0.1, cosine: 1 }]);
  const both = compare(history, history);
  const figures: Readonly<Record<string, () => Figure>> = {
    loss: () => lossFigure(history), metrics: () => metricsFigure(history), throughput: () => throughputFigure(history), magnitude: () => updateMagnitudeFigure(history), byKind: () => updateMagnitudeByKindFigure(history),
    distribution: () => updateMagnitudeDistributionFigure(history), map: () => freezeMapFigure(history), times: () => timesTrainedFigure(history), saves: () => freezingSavesFigure(history), activation: () => activationMemoryFigure(history),
    overSteps: () => activationMemoryOverStepsFigure(history), course: () => stepMemoryFigure(history), device: () => deviceMemoryFigure(history), encodings: () => encodingErrorFigure(history), gradients: () => gradientErrorFigure(comparison),
    compareLoss: () => both.loss(), compareParts: () => both.activationMemoryByPart(), compareMetric: () => both.metric(attack), compareTimes: () => both.timesTrained(), compareMagnitudes: () => both.updateMagnitudes(), study: () => studyFigure(studyOf(attack)),
  };

  test(`in every figure ${JSON.stringify(attack)} is text: to Plotly, in the static picture and in the page`, () => {
    let told = 0;
    for (const [name, make] of Object.entries(figures)) {
      const figure = make();
      // What Plotly's markup has of its own in our figures; all other text must be escaped.
      for (const s of strings([figure.data, figure.layout])) assert.doesNotMatch(s.replace(/<br>|<extra><\/extra>$|<\/?b>(?![^]*<\/b>[^]*<b>)/g, ''), /[<>]/, `${name}: ${s}`);
      for (const t of figure.data) assert.ok(!String(t.hovertemplate).includes('%{customdata}'), name);
      const svg = figure.toSvg();
      assert.doesNotMatch(svg, /<(?!\/?(?:svg|text|rect|line|path|circle|polyline|polygon)[ >])/, name);
      assert.doesNotMatch(svg, /<[^>]* on\w+=/i, name);
      // XML 1.0, §2.2.
      assert.doesNotMatch(svg, /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/, name);
      const html = figure.toHtml();
      assert.equal(html.match(/<\/script/gi)!.length, 1, name);
      assert.equal(html.match(/<(?!\/)/g)!.length, 3, `${name}: one div, one image, one script`);
      if (read(svg).includes(attack.slice(0, 20).replace(/[\u0000\u001b]/g, '\ufffd'))) told++;
    }
    assert.ok(told >= 8, `shown as written in ${told} static pictures`);
  });

  test(`in every table, card and live display ${JSON.stringify(attack)} is text`, () => {
    const bundles: Record<string, Record<string, unknown>> = {
      table: tableBundle(table({ [attack]: [attack, { a: attack }] })),
      layers: tableBundle(layersTable(history.freezableLayers, history, Float64Array.of(1, 2), [0])),
      activations: tableBundle(activationsTable(history)),
      encodings: tableBundle(encodingErrorsTable(history)),
      health: tableBundle(healthTable(history)),
      comparison: displayed(both),
      study: displayed(studyOf(attack)),
      summary: displayed(new Summary({ [attack]: attack })),
      card: recordBundle({ step: 0, epoch: 0, loss: 1, learningRate: 1, milliseconds: 1, tokens: 1, active: [0, 1], activationBytes: 1, memory: { totalPeak: 1 }, activations: [{ role: attack, encoding: attack, bytes: 1 }] } as unknown as StepRecord, history.freezableLayers),
    };
    const shown: Record<string, unknown>[] = [];
    const view = new LiveView({ history, fullActivationBytes: 16 }, { display: (data: Record<string, unknown>) => void shown.push(data) } as never);
    view.follow({ first: 0, total: 2, began: 0, state: 'running', ended: undefined });
    bundles.live = shown[0];
    for (const [name, bundle] of Object.entries(bundles)) {
      const html = String(bundle['text/html']);
      assert.doesNotMatch(html, /<(?!\/?(?:div|table|thead|tbody|tr|th|td|small|strong|svg|text|rect|path|polyline)[ >])/, name);
      assert.doesNotMatch(html, /<[^>]* on\w+=/i, name);
      if (name !== 'card' && name !== 'summary') assert.doesNotMatch(String(bundle['text/plain']), /[\u0000-\u0009\u000b-\u001f]/, `${name}: nothing that a terminal obeys`);
    }
    assert.ok(read(String(bundles.table['text/html'])).includes(attack.replace('\u0000', '␀').replace('\u001b', '␛')));
  });
}

test('escaped text reads as it was written, also in a template, and markup reads without its tags', () => {
  for (const attack of ATTACKS) assert.equal(withoutMarkup(asText(attack)), attack);
  assert.equal(withoutMarkup('<b>a</b><br>x<sup>2</sup> &lt;b&gt; &amp;lt; &#8364; &nope; 1 < 2 <script>'), 'a x2 <b> &lt; € &nope; 1 < 2 <script>');
});

test('a height or a width that is no number does not get into the page', () => {
  const figure = new Figure({ data: [{ y: [1, 2], mode: 'lines+markers', marker: { symbol: 'constructor' }, line: { width: '1"><script>', dash: 'constructor' } }], layout: { height: '9"><script>' } });
  assert.doesNotMatch(figure.toSvg(), /<script|function/);
  assert.equal(figure.toHtml().match(/<script/g)!.length, 1);
});
