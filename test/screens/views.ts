/** What the screenshots show: one cell each, in this order. Every figure and table that the library offers belongs here. */
import type { View } from './lab';

/** Makes the runs that the views show. */
const SETUP = `
const { BertForSequenceClassification, SlimFitTrainer, TextDataset, Tokenizer } = slimfit;
const task = slimfit.glueTask('cola');
const tokenizer = Tokenizer.fromFolder(slimfit.embeddedModel());
const examples = slimfit.generateAcceptability(3000, 1);
const train = new TextDataset(examples.slice(0, 2560), tokenizer, { maxLength: 24 });
const evaluation = new TextDataset(examples.slice(2560), tokenizer, { maxLength: 24 });
const start = async (freezeRate: number) => {
  const model = await BertForSequenceClassification.fromPretrained(slimfit.embeddedModel(), { labels: task.labels, onNotice: () => {} });
  return new SlimFitTrainer({ model, train, evaluation, metrics: task.metrics, freezeRate, batchSize: 32, totalSteps: 400, learningRate: 1e-3, measureEncodingsEvery: 20 });
};
const trainer = await start(0.9), full = await start(0);
for (const t of [trainer, full]) for (let i = 0; i < 3; i++) { for await (const r of t.steps(20)); await t.evaluate(); }
const runs = slimfit.compare(trainer, full);
const gradients = await trainer.compareGradients({ encodings: 'each' });
const bertBase = slimfit.parseBertConfig({ model_type: 'bert' });
const plan = slimfit.planMemory({ config: bertBase, batchSize: 32, length: 128 });
`;

const figures: Readonly<Record<string, string>> = {
  loss: 'slimfit.lossFigure(trainer)',
  metrics: 'slimfit.metricsFigure(trainer)',
  throughput: 'slimfit.throughputFigure(trainer)',
  'update-magnitude': 'slimfit.updateMagnitudeFigure(trainer)',
  'update-magnitude-by-kind': 'slimfit.updateMagnitudeByKindFigure(trainer)',
  'update-magnitude-distribution': 'slimfit.updateMagnitudeDistributionFigure(trainer)',
  'freeze-map': 'slimfit.freezeMapFigure(trainer)',
  'times-trained': 'slimfit.timesTrainedFigure(trainer)',
  'freezing-saves': 'slimfit.freezingSavesFigure(trainer)',
  'activation-memory': 'slimfit.activationMemoryFigure(trainer)',
  'activation-memory-over-steps': 'slimfit.activationMemoryOverStepsFigure(trainer)',
  'step-memory': 'slimfit.stepMemoryFigure(trainer)',
  'planned-activations': 'slimfit.activationMemoryFigure(plan)',
  'planned-course': 'slimfit.stepMemoryFigure(plan)',
  'device-memory': 'slimfit.deviceMemoryFigure(trainer)',
  'encoding-errors': 'slimfit.encodingErrorFigure(trainer)',
  'gradient-errors': 'slimfit.gradientErrorFigure(gradients)',
  'compare-loss': 'runs.loss()',
  'compare-learning-rate': 'runs.learningRate()',
  'compare-activation-memory': 'runs.activationMemory()',
  'compare-by-part': 'runs.activationMemoryByPart()',
  'compare-device-memory': 'runs.deviceMemory()',
  'compare-throughput': 'runs.throughput()',
  'compare-metric': "runs.metric('accuracy')",
  'compare-times-trained': 'runs.timesTrained()',
  'compare-update-magnitudes': 'runs.updateMagnitudes()',
};

const tables: Readonly<Record<string, string>> = {
  'table-layers': 'trainer.layers()',
  'table-steps': 'trainer.history.steps()',
  'table-activations': 'slimfit.activationsTable(trainer)',
  'table-device-memory': 'slimfit.deviceMemoryTable(trainer)',
  'table-health': 'slimfit.healthTable(trainer)',
  'table-encoding-errors': 'slimfit.encodingErrorsTable(trainer)',
  'table-gradients': 'gradients.overall()',
  'table-compare': 'runs',
  'card-preview': 'trainer.peek()',
  'card-record': 'await trainer.step()',
  'card-plan': 'plan',
  'card-fit': "slimfit.fitMemory({ config: bertBase, length: 128, batchSize: 128, budget: '3GB' })",
  'card-engines': 'await slimfit.engineChoice()',
};

const named = (o: Readonly<Record<string, string>>): View[] => Object.entries(o).map(([name, code]) => ({ name, code }));

export const VIEWS: readonly View[] = [{ name: 'setup', code: SETUP }, ...named(figures), ...named(tables)];

/** Run one by one after the others: they take time, fail or are interrupted. */
export const LIVE: readonly View[] = [
  { name: 'live', code: 'trainer.live({ memory: true });\nfor await (const r of trainer.steps(80));' },
  { name: 'live-interrupted', code: 'trainer.live();\nfor await (const r of trainer.steps(200));' },
  { name: 'live-again', code: 'trainer.live()' },
  { name: 'type-error', code: 'const rate: number = trainer.history.name;\nmissing(rate);' },
  { name: 'thrown-error', code: "function pick(names: string[]) {\n  return names.find((n) => n === 'x')!.length;\n}\npick(['a']);" },
  { name: 'inspection', code: 'trainer.compareGradients' },
];
