import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Summary } from '../../src/inspect/summary';

type Bundle = { [mime: string]: unknown; 'text/html': string; 'text/plain': string };

/** What Jupyter is given to show. */
function bundleOf(lines: Record<string, string>): Bundle {
  const summary = new Summary(lines) as unknown as Record<symbol, () => Bundle>;
  return summary[Symbol.for('Jupyter.display')]();
}

const MIME = 'application/vnd.slimfit.summary+json';

test('whoever runs the notebook from outside reads a summary as a flat object of texts, in order', () => {
  const lines = { engine: 'cpu', accuracy: '0.71 → 0.93', 'memory saved': '68 %' };
  // As a message carries it.
  const sent = JSON.parse(JSON.stringify(bundleOf(lines))) as Bundle;
  assert.deepEqual(sent[MIME], lines);
  assert.deepEqual(Object.keys(sent[MIME] as object), ['engine', 'accuracy', 'memory saved']);
});

test('as text it is one line per name', () => {
  assert.equal(bundleOf({ engine: 'cpu', accuracy: '0.93' })['text/plain'], 'engine: cpu\naccuracy: 0.93');
});

test('as a table it has one row per name, and nothing in it is taken for markup', () => {
  const html = bundleOf({ 'a<b': '<script>alert(1)</script> & "more"', engine: 'cpu' })['text/html'];
  assert.equal(html.match(/<tr>/g)?.length, 2);
  assert.ok(!html.includes('<script'), html);
  // As a browser reads it; `<` may be written &lt; or &#60;.
  const read = html.replaceAll('&lt;', '&#60;').replaceAll('&gt;', '&#62;').replaceAll('&amp;', '&#38;').replaceAll('&quot;', '&#34;');
  assert.ok(read.includes('>a&#60;b<') && read.includes('>&#60;script&#62;alert(1)&#60;/script&#62; &#38; '), html);
  assert.match(html, /<th[^>]*>engine<\/th><td[^>]*>cpu<\/td>/);
});
