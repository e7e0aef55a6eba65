/** The small BERT that SlimFit brings along, pre-trained by `pretrain.ts` on sentences of its own grammar. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { FileMissingError } from '../../errors';

/** Folder of the embedded model, in the Hugging Face layout. */
export function embeddedModel(): string {
  // From the sources, or from the bundle in dist.
  const places = [path.join(__dirname, 'bert-grammar'), path.join(__dirname, '../src/data/embedded/bert-grammar')];
  const found = places.find((p) => existsSync(path.join(p, 'config.json')));
  if (!found) throw new FileMissingError('the embedded model is not there: run `npm run pretrain`');
  return found;
}
