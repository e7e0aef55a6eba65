/** `slimfit kernel`: shows Jupyter where the kernel is. */
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { findKernelspec, installKernelspec, type KernelPlace, uninstallKernelspec } from '../../kernel/install';
import { InvalidArgumentError } from '../errors';
import { HOME } from './project';

/** @returns the exit code */
export function kernel(argv: readonly string[]): number {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: { user: { type: 'boolean' }, prefix: { type: 'string' }, 'sys-prefix': { type: 'boolean' } },
  });
  if ([values.user, values.prefix, values['sys-prefix']].filter(Boolean).length > 1) throw new InvalidArgumentError('give one of --user, --prefix DIR, --sys-prefix');
  const place: KernelPlace = { prefix: values['sys-prefix'] ? sysPrefix() : values.prefix };
  const [action] = positionals;
  switch (action) {
    case 'install':
      process.stdout.write(`installed the SlimFit kernel in ${installKernelspec(HOME, place)}\n`);
      return 0;
    case 'uninstall':
      process.stdout.write(uninstallKernelspec(place) ? 'removed the SlimFit kernel\n' : 'there was no SlimFit kernel\n');
      return 0;
    case 'list': {
      const found = findKernelspec(place);
      process.stdout.write(found ? `slimfit  ${found.folder}\n         ${found.argv.join(' ')}\n` : 'no SlimFit kernel is installed there: slimfit kernel install\n');
      return 0;
    }
    default:
      throw new InvalidArgumentError(`slimfit kernel ${action ?? ''}: say install, uninstall or list`);
  }
}

/** Prefix of the Python that is first on the path, as Jupyter's --sys-prefix means it. */
function sysPrefix(): string {
  for (const python of ['python3', 'python']) {
    const r = spawnSync(python, ['-c', 'import sys; print(sys.prefix)'], { encoding: 'utf8' });
    if (r.status === 0) return r.stdout.trim();
  }
  throw new InvalidArgumentError('--sys-prefix needs a Python on the path: activate an environment, or use --prefix DIR');
}
