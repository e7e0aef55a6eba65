/** `npm run parity -- FOLDER [ENGINE …]`: replays golden values on every engine of this machine, or on those named, one line of JSON per case; exit code 1 if any is not ok. */
import { replayFolder } from './replay';

const [folder, ...only] = process.argv.slice(2);
if (!folder) {
  process.stderr.write('usage: npm run --silent parity -- FOLDER [ENGINE …]\n');
  process.exit(2);
}

async function main(): Promise<void> {
  let bad = 0;
  for await (const line of replayFolder(folder, (text) => process.stderr.write(`${text}\n`), only)) {
    process.stdout.write(`${JSON.stringify(line)}\n`);
    if (!line.ok) bad++;
  }
  process.exitCode = bad > 0 ? 1 : 0;
}

main().catch((error: Error) => {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
});
