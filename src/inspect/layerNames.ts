/** Short names of layers for axes: 'L3 query', 'L3 MLP down', 'word embeddings'. */

const PARTS: readonly [RegExp, string][] = [
  [/attention\.(?:self|attention)\.(query|key|value)$/, '$1'],
  [/attention\.output\.dense$/, 'attention output'],
  [/attention\.output\.LayerNorm$/, 'attention norm'],
  [/attention\.(?:self|attention)$/, 'attention'],
  [/layernorm_before$/, 'attention norm'],
  [/layernorm_after$/, 'MLP norm'],
  [/intermediate\.dense$/, 'MLP up'],
  [/intermediate$/, 'GELU'],
  [/output\.dense$/, 'MLP down'],
  [/output\.LayerNorm$/, 'MLP norm'],
  // DistilBERT.
  [/^attention\.q_lin$/, 'query'],
  [/^attention\.k_lin$/, 'key'],
  [/^attention\.v_lin$/, 'value'],
  [/^attention\.out_lin$/, 'attention output'],
  [/^attention$/, 'attention'],
  [/^sa_layer_norm$/, 'attention norm'],
  [/^ffn\.lin1$/, 'MLP up'],
  [/^ffn$/, 'GELU'],
  [/^ffn\.lin2$/, 'MLP down'],
  [/^output_layer_norm$/, 'MLP norm'],
];

/** Heads that have more than one part, or no word for a name. */
const HEADS: Readonly<Record<string, string>> = { 'classifier.dense': 'classifier dense', 'classifier.out_proj': 'classifier output', qa_outputs: 'answer span' };

/** Short name of a weight or module by its Hugging Face name. Encoder layers count from 0, as on the hub. */
export function shortLayerName(name: string): string {
  const module = name.replace(/\.weight$/, '');
  const layer = /(?:encoder|transformer)\.layer\.(\d+)(?:\.(.*))?$/.exec(module);
  if (layer) {
    // The layer as a whole.
    if (layer[2] === undefined) return `L${layer[1]}`;
    const part = PARTS.find(([re]) => re.test(layer[2]));
    return `L${layer[1]} ${part ? (part[0].exec(layer[2])?.[1] ?? part[1]) : layer[2]}`;
  }
  if (HEADS[module]) return HEADS[module];
  if (module.endsWith('embeddings.LayerNorm')) return 'embeddings norm';
  if (module.endsWith('patch_embeddings.projection')) return 'patch projection';
  if (/^(vit|deit)\.layernorm$/.test(module)) return 'final norm';
  return module.replace(/^(bert|distilbert|roberta|vit|deit)\./, '').replace(/^embeddings\./, '').replace(/^cls\.predictions\./, 'LM ').replace(/\.dense$/, '').replaceAll('_', ' ');
}

// The policies go by the same parts.
export { modelPart } from '../freezing/blocks';
