/** A task of a few steps on the plain JavaScript engine, for tests of studies. */
import { appendFileSync } from 'node:fs';
import { accuracy, argmaxRows } from '../../src/data/metrics';
import type { BatchSource, TextBatch } from '../../src/models/model';
import type { OwnStudyTask, StudySettings } from '../../src/training/studyDefinition';
import { tinyBatch, tinyConfig, tinyModel } from '../models/fixtures';

const config = tinyConfig();

/** Twelve examples, and a batch's shape beforehand. */
export function tinyData(seed = 1): BatchSource<TextBatch> {
  const all = tinyBatch(config, 12, 6, seed);
  return {
    size: 12,
    shape: (indices) => ({ batchSize: indices.length, length: 6 }),
    batch(indices) {
      const rows = Array.from(indices);
      const take = (a: Int32Array) => Int32Array.from(rows.flatMap((r) => [...a.slice(r * 6, r * 6 + 6)]));
      return { inputIds: take(all.inputIds), tokenTypeIds: take(all.tokenTypeIds), attentionMask: take(all.attentionMask), labels: Int32Array.from(rows, (r) => (all.labels as Int32Array)[r]), batchSize: rows.length, length: 6 };
    },
  };
}

export const TINY_SETTINGS: StudySettings = { batchSize: 4, totalSteps: 6, learningRate: 0.01 };

/** @param log a line is added for each run that begins */
export function tinyTask(log?: string): OwnStudyTask {
  return {
    name: 'tiny',
    prepare({ seed, engine }) {
      if (log !== undefined) appendFileSync(log, `${seed} ${process.pid}\n`);
      return { model: tinyModel(engine, config, seed), train: tinyData(), evaluation: tinyData(2), metrics: (p) => ({ accuracy: accuracy(argmaxRows(p.logits, p.numLabels), p.labels) }) };
    },
  };
}
