/** Freezable layers of a small BERT, and what tests of every policy ask. */
import assert from 'node:assert/strict';
import type { FreezableLayer } from '../../src/freezing/layer';
import type { FreezePolicy } from '../../src/freezing/policy';
import { freezableLayersOf } from '../../src/models/model';
import { sequenceClassificationSpecs } from '../../src/models/sequenceClassification';
import { tinyConfig } from '../models/fixtures';

/** 4 layers of the embeddings, 8 of each block, pooler, classifier. */
export const bertLayers = (blocks: number): FreezableLayer[] => freezableLayersOf(sequenceClassificationSpecs(tinyConfig({ num_hidden_layers: blocks })));

/** Which parts have a layer that trains: E embeddings, a block's number, H head. Fails where a part trains in part. */
export function trainingParts(layers: readonly FreezableLayer[], frozen: readonly number[]): string {
  const parts = new Map<string, boolean[]>();
  for (const { index, name } of layers) {
    const part = /layer\.(\d+)/.exec(name)?.[1] ?? (name.includes('embeddings') ? 'E' : 'H');
    parts.set(part, [...(parts.get(part) ?? []), !frozen.includes(index)]);
  }
  for (const [part, trains] of parts) assert.equal(new Set(trains).size, 1, `${part} trains in part`);
  return [...parts].filter(([, trains]) => trains[0]).map(([part]) => part).join('');
}

/** Frozen sets of the next steps, each layer that trains being told to have moved. */
export function frozenSets(policy: FreezePolicy, layers: readonly FreezableLayer[], from: number, to: number, keeps?: Parameters<FreezePolicy['select']>[1]): number[][] {
  const out: number[][] = [];
  for (let step = from; step < to; step++) {
    const frozen = [...policy.select(step, keeps)];
    assert.deepEqual([...policy.select(step, keeps)], frozen, 'asked twice, it answers the same');
    assert.deepEqual(frozen, [...new Set(frozen)].sort((a, b) => a - b), 'ascending, none twice');
    const active = layers.filter((l) => !frozen.includes(l.index));
    const norm = (l: FreezableLayer) => 1 + Math.sin(step * 0.7 + l.index);
    policy.observe(step, new Map(active.map((l) => [l.index, 0.01 / (1 + step)])), { gradientNorms: new Map(active.map((l) => [l.index, norm(l)])) });
    out.push(frozen);
  }
  return out;
}
