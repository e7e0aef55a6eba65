import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { ALLOWED_LICENCES, licences, notAllowed, productionPackages } from '../../src/cli/licences';

const read = (name: string): unknown => JSON.parse(readFileSync(path.resolve(__dirname, '../..', name), 'utf8'));

test('every production dependency has a licence that goes with Apache-2.0', () => {
  const packages = productionPackages(read('package-lock.json'));
  assert.ok(packages.length > 100);
  for (const name of Object.keys((read('package.json') as { dependencies: object }).dependencies)) assert.ok(packages.some((p) => p.name === name), name);
  assert.deepEqual(notAllowed(packages), []);
});

test('slimfit licences prints a line for each, and ends well', (t) => {
  const lines: string[] = [];
  t.mock.method(process.stdout, 'write', (text: string) => (lines.push(text), true));
  const code = licences();
  t.mock.restoreAll();
  assert.equal(code, 0);
  assert.equal(lines.length, productionPackages(read('package-lock.json')).length);
  assert.ok(lines.some((l) => /^sharp +0\.35\.5 +Apache-2\.0\n$/.test(l)));
});

test('every package is pinned to a version and a hash by the lockfile, direct dependencies to one version by package.json', () => {
  const { packages } = read('package-lock.json') as { packages: Record<string, { version?: string; integrity?: string; resolved?: string }> };
  for (const [place, p] of Object.entries(packages)) {
    if (place === '') continue;
    assert.match(p.version!, /^\d+\.\d+\.\d+/, place);
    assert.match(p.integrity!, /^sha512-[A-Za-z0-9+/]{86}==$/, place);
    // Packages come from whichever registry npm is set to: no address is written down that a clone could not reach.
    assert.ok(p.resolved === undefined || p.resolved.startsWith('https://registry.npmjs.org/'), place);
  }
  for (const [name, version] of Object.entries((read('package.json') as { dependencies: Record<string, string> }).dependencies)) assert.match(version, /^\d+\.\d+\.\d+$/, name);
});

test('a licence that is unknown, or has a part that is not allowed, is found', () => {
  const of = (licence: string | undefined) => ({ name: String(licence), version: '1.0.0', licence });
  const bad = [undefined, '', 'GPL-3.0-only', 'MIT AND GPL-2.0-or-later', '(MIT OR AGPL-3.0-only)', 'SEE LICENSE IN x', 'MIT AND', 'UNLICENSED'].map(of);
  const good = ['MIT', '(BSD-3-Clause AND Apache-2.0)', 'Apache-2.0 AND LGPL-3.0-or-later AND MIT', '(MIT OR (ISC AND 0BSD))'].map(of);
  assert.deepEqual(notAllowed([...bad, ...good]), bad);
  assert.ok(ALLOWED_LICENCES.every((l) => !/^A?GPL/.test(l)));
});

test('packages of the lockfile are told once each, nested ones and those of other systems too, development ones not', () => {
  const lock = { packages: { '': { version: '1.0.0' }, 'node_modules/b': { version: '2.0.0', license: 'MIT', integrity: 'sha512-x' }, 'node_modules/b/node_modules/@s/a': { version: '1.0.0', license: 'ISC' }, 'node_modules/d': { version: '1.0.0', dev: true }, 'node_modules/self': { link: true } } };
  assert.deepEqual(productionPackages(lock), [
    { name: '@s/a', version: '1.0.0', licence: 'ISC' },
    { name: 'b', version: '2.0.0', licence: 'MIT' },
  ]);
});
