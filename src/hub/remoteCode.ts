/** Folders that want code of their own run: Hugging Face's `auto_map` names Python classes in the repository, which transformers runs under `trust_remote_code`. SlimFit runs no code of a checkpoint. */
import { UnsupportedModelError } from '../errors';

/**
 * Refuses a config whose model, tokenizer or image processor is code of the repository: what SlimFit would compute instead may be something else.
 * @param file name for the error
 * @throws UnsupportedModelError naming the field
 */
export function refuseRemoteCode(json: Readonly<Record<string, unknown>>, file: string): void {
  const { auto_map: map, trust_remote_code: trusted } = json;
  const wants = map !== undefined && map !== null && !(typeof map === 'object' && Object.keys(map).length === 0);
  if (!wants && (trusted === undefined || trusted === null || trusted === false)) return;
  const field = wants ? `auto_map ${JSON.stringify(map)}` : `trust_remote_code ${JSON.stringify(trusted)}`;
  throw new UnsupportedModelError(`${file} has ${field.slice(0, 200)}: it is built by code of its repository, and SlimFit runs no code of a checkpoint. If it is of a plain architecture all the same, save it without that field`);
}
