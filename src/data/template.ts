/** How a text or a pair of texts becomes a sequence: what tokenizer.json's `post_processor` puts around them (tokenizers: processors/{template,bert,roberta}.rs). */
import { CheckpointError } from '../errors';
import { cut, shown } from '../shown';
import { isId, isObject } from './tokenizerJson';

/** Special tokens, or the place of a text; each with the token type of what stands there. */
export type TemplatePart = { readonly ids: readonly number[]; readonly type: number } | { readonly text: 'A' | 'B'; readonly type: number };

/** What a text alone and what a pair becomes. */
export interface Templates {
  readonly single: readonly TemplatePart[];
  readonly pair: readonly TemplatePart[];
}

interface Processor {
  readonly type?: string;
  readonly processors?: readonly Processor[];
  readonly single?: readonly Piece[];
  readonly pair?: readonly Piece[];
  readonly special_tokens?: Readonly<Record<string, { readonly ids?: readonly number[] }>>;
  readonly cls?: readonly [string, number];
  readonly sep?: readonly [string, number];
}

interface Piece {
  readonly SpecialToken?: { readonly id: string; readonly type_id: number };
  readonly Sequence?: { readonly id: 'A' | 'B'; readonly type_id: number };
}

/**
 * Reads a `post_processor`. Without one, texts are put together as BERT's.
 * @throws CheckpointError when it is of a kind that is not known, or names tokens without ids
 */
export function templatesOf(postProcessor: unknown, cls: number, sep: number): Templates {
  const steps = flatten(postProcessor as Processor | null | undefined);
  // ByteLevel only changes offsets.
  const [processor, ...others] = steps.filter((p) => p.type !== 'ByteLevel');
  if (others.length > 0) throw new CheckpointError(`tokenizer.json has the post_processors ${cut(steps.map((p) => (typeof p.type === 'string' ? p.type : shown(p.type))).join(', '))}; only one that adds special tokens is supported`);
  switch (processor?.type) {
    case undefined:
      return bert(cls, sep);
    case 'BertProcessing':
      return bert(idOf(processor.cls) ?? cls, idOf(processor.sep) ?? sep);
    case 'RobertaProcessing':
      return roberta(idOf(processor.cls) ?? cls, idOf(processor.sep) ?? sep);
    case 'TemplateProcessing':
      return { single: partsOf(processor, processor.single), pair: partsOf(processor, processor.pair) };
    default:
      throw new CheckpointError(`tokenizer.json has post_processor ${typeof processor.type === 'string' ? cut(processor.type) : shown(processor.type)}; supported: TemplateProcessing, BertProcessing, RobertaProcessing`);
  }
}

/** The id in a pair of token and id. */
function idOf(pair: Processor['cls']): number | undefined {
  if (pair === undefined) return undefined;
  if (!Array.isArray(pair) || !isId(pair[1])) throw new CheckpointError(`tokenizer.json's post_processor has ${shown(pair)} where a token and its id belong`);
  return pair[1];
}

function flatten(p: Processor | null | undefined): readonly Processor[] {
  if (p === null || p === undefined) return [];
  if (!isObject(p) || (p.type === 'Sequence' && p.processors !== undefined && !Array.isArray(p.processors))) throw new CheckpointError(`tokenizer.json's post_processor is ${shown(p)}`);
  const processor: Processor = p;
  return processor.type === 'Sequence' ? (processor.processors ?? []).flatMap(flatten) : [processor];
}

/** [CLS] a [SEP], [CLS] a [SEP] b [SEP]: types 0, then 1. */
const bert = (cls: number, sep: number): Templates => {
  const single: TemplatePart[] = [{ ids: [cls], type: 0 }, { text: 'A', type: 0 }, { ids: [sep], type: 0 }];
  return { single, pair: [...single, { text: 'B', type: 1 }, { ids: [sep], type: 1 }] };
};

/** <s> a </s>, <s> a </s></s> b </s>: all of type 0. */
const roberta = (cls: number, sep: number): Templates => {
  const single: TemplatePart[] = [{ ids: [cls], type: 0 }, { text: 'A', type: 0 }, { ids: [sep], type: 0 }];
  return { single, pair: [...single, { ids: [sep], type: 0 }, { text: 'B', type: 0 }, { ids: [sep], type: 0 }] };
};

function partsOf({ special_tokens = {} }: Processor, pieces: readonly Piece[] = []): TemplatePart[] {
  if (!Array.isArray(pieces) || !isObject(special_tokens)) throw new CheckpointError(`tokenizer.json's TemplateProcessing is ${shown({ pieces, special_tokens })}`);
  return pieces.map((piece: Piece) => {
    const { SpecialToken: token, Sequence: sequence } = isObject(piece) ? piece : ({} as Piece);
    if (isObject(sequence) && (sequence.id === 'A' || sequence.id === 'B') && isId(sequence.type_id)) return { text: sequence.id, type: sequence.type_id };
    if (!isObject(token) || typeof token.id !== 'string' || !isId(token.type_id)) throw new CheckpointError(`tokenizer.json's TemplateProcessing has ${shown(piece)}, neither a special token nor a text`);
    const ids = Object.hasOwn(special_tokens, token.id) ? special_tokens[token.id]?.ids : undefined;
    if (!Array.isArray(ids) || !ids.every(isId)) throw new CheckpointError(`tokenizer.json's TemplateProcessing has no ids of ${cut(token.id)}`);
    return { ids: ids as readonly number[], type: token.type_id };
  });
}
