/** Replays a golden folder on every engine that runs here. */
import { chooseEngine, engineChoice } from '../../src/engine/choose';
import { type GoldenModel, readGolden } from './golden';
import { isImplemented, type ParityLine, replayModel } from './model';
import { replayOps } from './ops';

/** One line per file, case and engine. `note` is told what is left out and why. @param only names of engines, all by default */
export async function* replayFolder(folder: string, note: (text: string) => void, only: readonly string[] = []): AsyncGenerator<ParityLine> {
  const files = await readGolden(folder);
  for (const { name, available, why } of (await engineChoice()).reasons) {
    if (only.length > 0 && !only.includes(name)) continue;
    if (!available) {
      note(`engine ${name} left out: ${why}`);
      continue;
    }
    const engine = await chooseEngine(name);
    for (const file of files) {
      if (!('cases' in file.json)) yield* replayOps(engine, file);
      else if (isImplemented(file.json as GoldenModel)) yield* replayModel(engine, file);
      else note(`${file.name} left out: no model of type '${(file.json as GoldenModel).config.model_type}' here`);
    }
    engine.dispose();
  }
}
