/** Real tasks for benchmarks: a checkpoint folder and a data folder become what a run of a study needs. */
import path from 'node:path';
import { readCifar100 } from '../src/data/cifar';
import { glueTask, loadGlue } from '../src/data/glue';
import { ImageDataset } from '../src/data/imageDataset';
import { readImageProcessor } from '../src/data/imageProcessor';
import { accuracy, argmaxRows } from '../src/data/metrics';
import { cifarAugmentation } from '../src/data/pixels/augmentation';
import { TextDataset } from '../src/data/textDataset';
import { Tokenizer } from '../src/data/tokenizer';
import { BertForSequenceClassification } from '../src/models/bert';
import type { ImageBatch, Predictions } from '../src/models/model';
import { ViTForImageClassification } from '../src/models/vit';
import type { OwnStudyTask, StudySeed } from '../src/training/studyDefinition';

/** A GLUE task from its TSV files. */
export function glue(name: string, model: string, data: string, maxLength: number): OwnStudyTask {
  const task = glueTask(name);
  const { train, dev } = loadGlue(task, data);
  const tokenizer = Tokenizer.fromFolder(model);
  const of = (rows: typeof train) => new TextDataset(rows, tokenizer, { maxLength });
  return {
    name,
    settings: { model, data, maxLength },
    prepare: async ({ seed, engine }: StudySeed) => ({
      model: await BertForSequenceClassification.fromPretrained(model, { engine, labels: task.labels, seed, onNotice: () => {} }),
      train: of(train),
      evaluation: of(dev),
      metrics: task.metrics,
      options: { schedule: 'glue' },
    }),
  };
}

/** CIFAR-100 from its binary files, for a vision transformer whose head is drawn afresh and always trains, as in the paper. Training images are cut and mirrored. */
export function cifar100(model: string, data: string): OwnStudyTask<ImageBatch> {
  const transform = readImageProcessor(model);
  const [train, test] = ['train.bin', 'test.bin'].map((f) => readCifar100(path.join(data, f)));
  return {
    name: 'cifar100',
    settings: { model, data },
    prepare: async ({ seed, engine }: StudySeed) => ({
      model: await ViTForImageClassification.fromPretrained(model, { engine, labels: train.labelNames, seed, onNotice: () => {} }),
      train: new ImageDataset(train, transform, { augmentation: cifarAugmentation(), seed }),
      evaluation: new ImageDataset(test, transform),
      metrics: (p: Predictions) => ({ accuracy: accuracy(argmaxRows(p.logits, p.numLabels), p.labels) }),
      options: { schedule: 'vit', optimizer: { weightDecay: 0 }, initialMagnitudeScale: 1e7, alwaysTrain: ['classifier.weight'] },
    }),
  };
}
