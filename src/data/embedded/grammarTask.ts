/** A task without files: is a sentence of the embedded grammar well formed? Sentences are generated; the classes are CoLA's. */
import { type Example, type GlueTask, glueTask } from '../glue';
import { generateAcceptability } from './grammar';

export const GRAMMAR_TASK: GlueTask = { ...glueTask('cola'), name: 'grammar', folder: '', submissions: [] };

/** 8,000 sentences to train on and 1,000 others. */
export function grammarExamples(): { train: Example[]; dev: Example[] } {
  const all = generateAcceptability(9000, 1);
  return { train: all.slice(0, 8000), dev: all.slice(8000) };
}
