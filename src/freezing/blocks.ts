/** Layers in groups, in model order: the embeddings, each block of the encoder, the head; or each weight for itself. What the policies freeze together. */
import type { FreezableLayer } from './layer';

/** What is frozen together: single weights, or whole parts of the model (embeddings, one encoder block, head). */
export type Granularity = 'weight' | 'block';

/** Layers that are frozen together. */
export interface LayerGroup {
  /** Part of the model, or name of the weight. */
  readonly name: string;
  readonly part: 'embeddings' | 'encoder' | 'head';
  /** Indices of its layers, ascending. */
  readonly layers: readonly number[];
}

/** Part of the model that a module belongs to: 'embeddings', 'layer 3', 'head'. */
export function modelPart(name: string): string {
  const layer = /(?:encoder|transformer)\.layer\.(\d+)(?:\.|$)/.exec(name);
  if (layer) return `layer ${layer[1]}`;
  return name.includes('embeddings.') ? 'embeddings' : 'head';
}

/** Groups in the order of their first layers. */
export function groupsOf(layers: readonly FreezableLayer[], granularity: Granularity): LayerGroup[] {
  const groups = new Map<string, { part: LayerGroup['part']; layers: number[] }>();
  for (const { index, name } of layers) {
    const of = modelPart(name);
    const key = granularity === 'block' ? of : name;
    const group = groups.get(key) ?? { part: of === 'embeddings' || of === 'head' ? of : 'encoder', layers: [] };
    group.layers.push(index);
    groups.set(key, group);
  }
  return [...groups].map(([name, g]) => ({ name, ...g }));
}

/** Whether a weight belongs to the head that the task brings: not a pooler, which is pre-trained. */
export function isTaskHead(name: string): boolean {
  return modelPart(name) === 'head' && !/(^|\.)pooler\./.test(name);
}

/** The layers of all groups but some, ascending. */
export function layersOutside(groups: readonly LayerGroup[], trains: (group: LayerGroup, i: number) => boolean): number[] {
  return groups.flatMap((g, i) => (trains(g, i) ? [] : g.layers)).sort((a, b) => a - b);
}
