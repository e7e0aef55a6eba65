import assert from 'node:assert/strict';
import { test } from 'node:test';
import { baseLayout, CIVIDIS, COLOURS } from '../../src/inspect/palette';

const channels = (hex: string): number[] => {
  assert.match(hex, /^#[0-9a-f]{6}$/);
  return [1, 3, 5].map((i) => Number.parseInt(hex.slice(i, i + 2), 16));
};

/** Relative luminance of an sRGB colour, WCAG 2.1. */
function luminance(hex: string): number {
  const [r, g, b] = channels(hex).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Contrast ratio of two luminances, WCAG 2.1. */
const contrast = (a: number, b: number): number => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);

test('the named colours are those that Okabe and Ito published', () => {
  // Color Universal Design, table of the eight colours, in RGB 0–255.
  const published: Record<string, number[]> = { orange: [230, 159, 0], sky: [86, 180, 233], green: [0, 158, 115], blue: [0, 114, 178], vermilion: [213, 94, 0], purple: [204, 121, 167] };
  for (const [name, rgb] of Object.entries(published)) assert.deepEqual(channels(COLOURS[name as keyof typeof COLOURS]), rgb, name);
  const [r, g, b] = channels(COLOURS.grey);
  assert.ok(r === g && g === b, 'grey is grey');
});

test('no two colours are the same, and each can be seen on white and on black', () => {
  const all = Object.values(COLOURS);
  assert.equal(new Set(all).size, all.length);
  for (const c of all) {
    assert.ok(contrast(luminance(c), 1) >= 1.9, `${c} on white`);
    assert.ok(contrast(luminance(c), 0) >= 3, `${c} on black`);
  }
});

test('the scale runs from 0 to 1 and grows brighter by even steps', () => {
  assert.equal(CIVIDIS[0][0], 0);
  assert.equal(CIVIDIS.at(-1)![0], 1);
  // CIE lightness of each stop: even steps are what cividis is made for.
  const lightness = CIVIDIS.map(([, c]) => 116 * Math.cbrt(luminance(c)) - 16);
  const steps = lightness.slice(1).map((l, i) => (l - lightness[i]) / (CIVIDIS[i + 1][0] - CIVIDIS[i][0]));
  const mean = lightness.at(-1)! - lightness[0];
  for (const s of steps) assert.ok(Math.abs(s / mean - 1) < 0.1, `slopes ${steps}`);
});

test('a layout carries its titles and height, and nothing that would hide on a light or dark page', () => {
  const layout = baseLayout('Loss', 'step', 'nats', 340) as {
    title: { text: string };
    height: number;
    paper_bgcolor: string;
    plot_bgcolor: string;
    font: { color: string };
    xaxis: { title: { text: string }; automargin: boolean };
    yaxis: { title: { text: string }; automargin: boolean };
  };
  assert.equal(layout.title.text, 'Loss');
  assert.equal(layout.height, 340);
  assert.equal(layout.xaxis.title.text, 'step');
  assert.equal(layout.yaxis.title.text, 'nats');
  // The page shines through: an alpha of 0.
  for (const c of [layout.paper_bgcolor, layout.plot_bgcolor]) assert.match(c, /^rgba\(.*, ?0\)$/);
  // Large text needs 3 : 1 (WCAG 2.1, 1.4.3).
  assert.ok(contrast(luminance(layout.font.color), 1) >= 3);
  assert.ok(contrast(luminance(layout.font.color), 0) >= 3);
  assert.ok(layout.xaxis.automargin && layout.yaxis.automargin, 'long layer names are not cut off');
});

test('each figure gets a layout of its own', () => {
  const one = baseLayout('a', '', '', 1) as { xaxis: { tickvals?: unknown }; yaxis: unknown };
  one.xaxis.tickvals = [1];
  const other = baseLayout('b', '', '', 1) as typeof one;
  assert.equal(other.xaxis.tickvals, undefined);
  assert.notEqual(one.xaxis, one.yaxis);
});
