/** `slimfit licences`: name, version and licence of every production dependency, from the lockfile. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { HOME } from './project';

/**
 * Licences (SPDX) that go with Apache-2.0. LGPL is there for libvips, MPL for libzmq: libraries of their own, which sharp and zeromq bring along and SlimFit neither holds nor changes.
 */
export const ALLOWED_LICENCES: readonly string[] = ['0BSD', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'ISC', 'LGPL-3.0-or-later', 'MIT', 'MPL-2.0'];

/** An installed package. */
export interface LockedPackage {
  readonly name: string;
  readonly version: string;
  /** SPDX expression; undefined where the package names none. */
  readonly licence: string | undefined;
}

interface Lockfile {
  readonly packages: Readonly<Record<string, { readonly version?: string; readonly license?: string; readonly dev?: boolean; readonly link?: boolean }>>;
}

/** Production dependencies of a lockfile (version 3), those of other systems included, sorted by name. */
export function productionPackages(lockfile: unknown): LockedPackage[] {
  return Object.entries((lockfile as Lockfile).packages)
    .filter(([place, p]) => place !== '' && !p.dev && !p.link)
    .map(([place, p]) => ({ name: place.slice(place.lastIndexOf('node_modules/') + 'node_modules/'.length), version: String(p.version), licence: p.license }))
    .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.version < b.version ? -1 : 1));
}

/** Packages whose licence is unknown or has a part that is not allowed: of a choice (`OR`) every part counts. */
export function notAllowed(packages: readonly LockedPackage[], allowed: readonly string[] = ALLOWED_LICENCES): LockedPackage[] {
  return packages.filter(({ licence }) => !licence || !licence.replace(/[()]/g, ' ').trim().split(/\s+(?:AND|OR)\s+/).every((part) => allowed.includes(part.trim())));
}

/** @returns the exit code: 1 when a licence is not allowed */
export function licences(): number {
  const packages = productionPackages(JSON.parse(readFileSync(path.join(HOME, 'package-lock.json'), 'utf8')));
  const width = Math.max(...packages.map((p) => p.name.length));
  for (const { name, version, licence } of packages) process.stdout.write(`${name.padEnd(width)}  ${version.padEnd(12)}  ${licence ?? 'unknown'}\n`);
  const bad = notAllowed(packages);
  for (const { name, licence } of bad) process.stderr.write(`${name}: ${licence ?? 'no licence'} does not go with Apache-2.0\n`);
  return bad.length > 0 ? 1 : 0;
}
