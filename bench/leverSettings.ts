/** What makes a step smaller, as settings of the trainer: each lever by itself on the paper's scheme, then together. */
import { SCHEMES } from '../src/tape/scheme';
import type { StudySettings } from '../src/training/studyDefinition';

const { paper } = SCHEMES;

/** Label and settings. */
export const LEVERS: readonly (readonly [string, StudySettings])[] = [
  ['exact', { mode: 'exact' }],
  ['paper', {}],
  ['probabilities recomputed', { mode: { ...paper, name: 'recompute', attentionProbs: 'recompute' } }],
  ['q8-row and u8-row codes', { mode: { ...paper, name: 'rows', attentionOperands: 'q8-row', attentionProbs: 'u8-row', downProjectionInput: 'q8-row' } }],
  ['GELU input in q4-row', { mode: { ...paper, name: 'gelu 4', geluInput: 'q4-row' } }],
  ['GELU input in q8-row', { mode: { ...paper, name: 'gelu', geluInput: 'q8-row' } }],
  ['LayerNorms whole', { mode: { ...paper, name: 'norms', frozenLayerNormShare: undefined } }],
  ['LayerNorms in q8-row', { mode: { ...paper, name: 'coded norms', normalizedValues: 'q8-row' } }],
  ['… with linear inputs in q8-row', { mode: { ...paper, name: 'coded inputs', normalizedValues: 'q8-row', linearInput: 'q8-row' } }],
  ['… and the MLP computed again', { mode: { ...paper, name: 'MLP again', normalizedValues: 'q8-row', linearInput: 'q8-row', geluInput: 'recompute' } }],
  ['frozen biases', { frozenBiases: true }],
  ['magnitude relative-l2', { magnitude: 'relative-l2' }],
  ['magnitude loss-change', { magnitude: 'loss-change' }],
  ['8-bit moments', { optimizer: { moments: '8-bit' } }],
  ['word embeddings by rows', { sparseEmbeddings: true }],
  ['idle moments released', { optimizer: { idleMoments: 'release' } }],
  ['blocks of 256 KiB', { blockBytes: 2 ** 18 }],
  ['4 micro-batches', { gradientAccumulationSteps: 4 }],
  ['layers run again', { gradientCheckpointing: true }],
  ['tuned', { mode: 'tuned' }],
  ['tuned, 8-bit moments', { mode: 'tuned', optimizer: { moments: '8-bit' } }],
  ['tuned, 8-bit moments, word embeddings by rows', { mode: 'tuned', optimizer: { moments: '8-bit' }, sparseEmbeddings: true }],
];
