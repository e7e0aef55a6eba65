import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDuration, ProgressLine } from '../src/progress';
import { formatBytes } from '../src/units';

/** A clock that stands still until it is told otherwise, and an output that remembers. */
function fake(isTTY: boolean) {
  const written: string[] = [];
  const clock = { ms: 1_000_000 };
  return { clock, written, output: { isTTY, write: (text: string) => written.push(text) }, now: () => clock.ms };
}

function lineOf(total: number, isTTY = false) {
  const f = fake(isTTY);
  return { ...f, line: new ProgressLine('training', total, f.output, f.now) };
}

test('a duration reads as minutes and seconds, and with hours from one hour on', () => {
  assert.equal(formatDuration(0), '0:00');
  assert.equal(formatDuration(65), '1:05');
  assert.equal(formatDuration(59.6), '1:00');
  assert.equal(formatDuration(3599), '59:59');
  assert.equal(formatDuration(3600), '1:00:00');
  assert.equal(formatDuration(3723), '1:02:03');
  assert.equal(formatDuration(-3), '0:00');
});

test('rate and time left follow from the turns done and the time since the start', () => {
  const { clock, line } = lineOf(120);
  clock.ms += 10_000;
  line.update(30, 'loss 0.5000');
  // 30 turns in 10 s: 3 a second, 90 left, 30 s.
  assert.equal(line.text, `training ${'█'.repeat(6)}${'░'.repeat(18)} 30/120  3.0/s  0:30 left  loss 0.5000`);
  clock.ms += 20_000;
  line.update(40);
  // 40 turns in 30 s, the other 80 in 60 s.
  assert.match(line.text, / 40\/120 {2}1\.3\/s {2}1:00 left$/);
});

test('turns slower than one a second are given in seconds each', () => {
  const { clock, line } = lineOf(10);
  clock.ms += 10_000;
  line.update(4);
  assert.match(line.text, / 4\/10 {2}2\.5 s each {2}0:15 left$/);
});

test('before the first turn neither a rate nor a time left is made up', () => {
  const { clock, line } = lineOf(10);
  assert.equal(line.text, `training ${'░'.repeat(24)} 0/10`);
  clock.ms += 60_000;
  assert.equal(line.text, `training ${'░'.repeat(24)} 0/10`);
});

test('when all is done it tells how long it took', () => {
  const { clock, line } = lineOf(8);
  clock.ms += 64_000;
  line.update(8);
  assert.equal(line.text, `training ${'█'.repeat(24)} 8/8  8.0 s each  in 1:04`);
});

test('turns can be bytes: amount and rate are written as such', () => {
  const f = fake(false);
  const line = new ProgressLine('model.safetensors', 40 * 2 ** 20, f.output, f.now, formatBytes);
  f.clock.ms += 4_000;
  line.update(10 * 2 ** 20);
  assert.equal(line.text, `model.safetensors ${'█'.repeat(6)}${'░'.repeat(18)} 10.0 MiB/40.0 MiB  2.5 MiB/s  0:12 left`);
});

test('no work at all is finished work', () => {
  assert.equal(lineOf(0).line.text, `training ${'█'.repeat(24)} 0/0  in 0:00`);
});

test('a log gets whole lines, at most one in five seconds, and the last state at the end', () => {
  const { clock, line, written } = lineOf(4);
  line.update(1);
  assert.equal(written.length, 1, 'the first at once');
  clock.ms += 4_999;
  line.update(2);
  assert.equal(written.length, 1);
  clock.ms += 1;
  line.update(3);
  assert.equal(written.length, 2);
  line.update(4);
  assert.equal(written.length, 2);
  line.end();
  assert.equal(written.length, 3);
  assert.match(written[2], / 4\/4 {2}.*in 0:05\n$/);
  for (const text of written) assert.match(text, /^training [^\r\n\x1b]*\n$/);
});

test('a terminal’s one line is redrawn in place, at most ten times a second, and left at the end', () => {
  const { clock, line, written } = lineOf(4, true);
  line.update(1);
  clock.ms += 99;
  line.update(2);
  assert.equal(written.length, 1);
  clock.ms += 1;
  line.update(3);
  assert.equal(written.length, 2);
  line.end();
  assert.equal(written.at(-1), '\n');
  for (const text of written.slice(0, -1)) {
    assert.ok(text.startsWith('\r\x1b[2Ktraining '));
    assert.ok(!text.includes('\n'));
  }
});
