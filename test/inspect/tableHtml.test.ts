import assert from 'node:assert/strict';
import { test } from 'node:test';
import { table } from 'arquero';
import { columnFormat, escapeHtml, formatNumber, tableBundle } from '../../src/inspect/tableHtml';

test('whole numbers get separators, others four digits, very large and small ones an exponent', () => {
  assert.deepEqual([0, 7, 1234567, -1200, 0.123456, 12.3456, 2e-7, 1.5e9 + 0.5, NaN, -Infinity].map(formatNumber), ['0', '7', '1,234,567', '-1,200', '0.1235', '12.35', '2.000e-7', '1.500e+9', 'NaN', '-Infinity']);
});

test('a column of numbers of like size has the same decimals, one of many sizes has four digits each', () => {
  const loss = [0.69, 0.5, 1.123456];
  assert.deepEqual(loss.map(columnFormat(loss)), ['0.690', '0.500', '1.123']);
  const seconds = [123.456, 99.5];
  assert.deepEqual(seconds.map(columnFormat(seconds)), ['123.5', '99.5']);
  const magnitudes = [1e-7, 0.002, 0.5];
  assert.deepEqual(magnitudes.map(columnFormat(magnitudes)), ['1.000e-7', '0.002', '0.5']);
  assert.equal(columnFormat([1, 2])(1), '1');
  assert.equal(columnFormat([0.5, NaN])(NaN), 'NaN');
});

test('text from the data cannot become markup', () => {
  assert.equal(escapeHtml(`<a href="x">'&`), '&#60;a href=&#34;x&#34;&#62;&#39;&#38;');
  const html = tableBundle(table({ '<script>': ['<img src=x onerror=alert(1)>'] }))['text/html'];
  assert.ok(!/<script|<img/.test(html));
});

test('numbers stand to the right, and the caption counts rows and columns', () => {
  const { 'text/html': html, 'text/plain': text } = tableBundle(table({ n: [1, 20], s: ['a', 'bb'] }));
  assert.match(html, /<th style="text-align:right[^"]*">n<\/th><th style="text-align:left[^"]*">s<\/th>/);
  assert.match(html, /<small>2 rows × 2 columns<\/small>/);
  assert.equal(text, ' n  s\n 1  a\n20  bb\n2 rows × 2 columns');
});

test('a long table shows its first rows in its own order, and says so', () => {
  const long = table({ i: Array.from({ length: 1200 }, (_, i) => i) }).filter((d: { i: number }) => d.i >= 100).orderby('i');
  const { 'text/html': html } = tableBundle(long);
  assert.equal(html.match(/<tr>/g)!.length, 51);
  assert.match(html, /first 50 of 1,100 rows × 1 column</);
  assert.match(html, /<tbody><tr><td[^>]*>100</);
});

test('dates, lists, big integers and missing values have a short text', () => {
  const { 'text/plain': text } = tableBundle(table({ when: [new Date('2024-05-06'), null], list: [new Float32Array([1, 2.5]), Array(100).fill(7)], big: [2n ** 60n, undefined] }));
  const [, first, second] = text.split('\n');
  assert.match(first, /^2024-05-06 +\[1,2\.5\] +1,152,921,504,606,846,976$/);
  assert.match(second, /^ +\[7,7,.*…$/);
  assert.ok(second.length < 120);
});

test('an empty table is shown', () => {
  assert.equal(tableBundle(table({ a: [] }))['text/plain'], 'a\n0 rows × 1 column');
});
