/** The `slimfit` command. */
import { version } from '../../package.json';
import { SlimFitError } from '../errors';

const USAGE = `slimfit ${version}: fine-tune transformers with layer freezing

  slimfit setup [--gpu] [--libtensorflow DIR]   install what is missing, inside the project
  slimfit doctor                                what this machine trains on, and why
  slimfit lab [ARGS…]                           open JupyterLab with the SlimFit kernel
  slimfit train --model DIR --task NAME …       fine-tune without a notebook (slimfit train --help)
  slimfit study init|run|list|status|table|figure FOLDER …   policies, freeze rates and seeds beside each other (slimfit study --help)
  slimfit plan --recipe NAME [--budget BYTES]   the memory of a training step, and what fits (slimfit plan --help)
  slimfit licences                              what is installed with SlimFit, and under which licence
  slimfit kernel install|uninstall|list [--user | --prefix DIR | --sys-prefix]
`;

/** Runs a command. @returns the exit code: 0 well, 1 failed, 2 used wrongly */
async function main(argv: readonly string[]): Promise<number> {
  const [command, ...args] = argv;
  switch (command) {
    case 'setup':
      return (await import('./project')).bootstrap('setup', args);
    case 'doctor':
      return (await import('./doctor')).doctor();
    case 'lab':
      return (await import('./project')).lab(args);
    case 'train':
      return (await import('./train')).train(args);
    case 'study':
      return (await import('./study')).study(args);
    case 'plan':
      return (await import('./plan')).plan(args);
    case 'kernel':
      return (await import('./kernel')).kernel(args);
    case 'licences':
      return (await import('./licences')).licences();
    case '--version':
      process.stdout.write(`${version}\n`);
      return 0;
    case undefined:
    case 'help':
    case '--help':
      process.stdout.write(USAGE);
      return command === undefined ? 2 : 0;
    default:
      process.stderr.write(`slimfit: no command '${command}'\n\n${USAGE}`);
      return 2;
  }
}

main(process.argv.slice(2)).then(
  (code) => (process.exitCode = code),
  (error: Error & { code?: string }) => {
    const usage = error.code?.startsWith('ERR_PARSE_ARGS');
    process.stderr.write(`slimfit: ${error instanceof SlimFitError || usage ? error.message : (error.stack ?? error.message)}\n`);
    process.exitCode = usage ? 2 : 1;
  },
);

