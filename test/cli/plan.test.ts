/** `slimfit plan`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planText } from '../../src/cli/plan';
import { parseTrain } from '../../src/cli/trainOptions';
import { embeddedModel } from '../../src/data/embedded/embedded';
import { InvalidArgumentError, MemoryBudgetError, UnknownTaskError } from '../../src/errors';
import { readConfig } from '../../src/hub/folder';
import { memoryLevers } from '../../src/memory/fit';
import { planMemory } from '../../src/memory/planner';
import { memoryQuery } from '../../src/training/recipePlan';
import { recipeNamed } from '../../src/training/recipes';
import { formatBytes } from '../../src/units';

const value = (text: string, name: string): string => new RegExp(`^${name} {2,}(.*)$`, 'm').exec(text)?.[1] ?? assert.fail(`no line ${name} in ${text}`);

test('the plan of a recipe is that of the planner: weights, moments, what is kept, the peak, and both sums of what is kept', () => {
  const text = planText(['--recipe', 'rte', '--mode', 'tuned', '--freeze-rate', '0', '--batch-size', '4', '--kernels', 'tensorflow']);
  const recipe = { ...recipeNamed('rte'), batchSize: 4, freezeRate: 0 };
  const plan = planMemory({ ...memoryQuery(recipe, { mode: 'tuned' }), kernels: 'tensorflow' });
  assert.equal(value(text, 'batch'), '4 × 128 tokens');
  assert.equal(value(text, 'mode'), 'tuned, biases freeze with their layer');
  assert.equal(value(text, 'weights'), formatBytes(plan.weightBytes));
  assert.match(value(text, 'freeze rate'), /^0: 0 of 102 layers frozen/);
  assert.ok(value(text, 'optimizer moments').startsWith(`${formatBytes(plan.momentBytes)} `));
  assert.equal(value(text, 'kept for backward'), formatBytes(plan.activationBytes));
  assert.ok(value(text, 'peak').startsWith(`${formatBytes(plan.peakBytes)}, `));
  const sum = (of: (a: (typeof plan.activations)[number]) => boolean) => formatBytes(plan.activations.filter(of).reduce((s, a) => s + a.bytes, 0));
  assert.equal(value(text, '  static, q8-row'), sum((a) => a.role === 'static' && a.encoding === 'q8-row'));
  assert.equal(value(text, '  layer 7'), sum((a) => a.part === 'layer 7'));
});

test('blocks are planned as they are asked for: the peak is smaller, what is kept is not', () => {
  const of = (...more: string[]) => planText(['--recipe', 'squad-v2', '--batch-size', '16', ...more]);
  const [whole, blocks] = [of(), of('--block-bytes', '16MiB')];
  const recipe = { ...recipeNamed('squad-v2'), batchSize: 16 };
  const plan = planMemory(memoryQuery(recipe, { blockBytes: 16 * 2 ** 20 }));
  assert.equal(value(blocks, 'temporaries'), 'of attention and MLP in blocks of 16.0 MiB');
  assert.doesNotMatch(whole, /^temporaries/m);
  assert.match(of('--mode', 'tuned'), /^temporaries +of attention and MLP in blocks of 64\.0 MiB$/m);
  assert.ok(value(blocks, 'peak').startsWith(`${formatBytes(plan.peakBytes)}, `));
  assert.ok(plan.peakBytes < planMemory(memoryQuery(recipe)).peakBytes);
  assert.equal(value(blocks, 'kept for backward'), value(whole, 'kept for backward'));
  assert.throws(() => of('--block-bytes', 'few'), (e: Error) => e instanceof InvalidArgumentError && /'few'/.test(e.message));
  assert.throws(() => of('--block-bytes', '0'), (e: Error) => e instanceof InvalidArgumentError && /blockBytes is 0/.test(e.message));
});

test('another policy than inter-layer scheduling is refused', () => {
  assert.throws(() => planText(['--recipe', 'rte', '--policy', 'bitfit']), /inter-layer scheduling only/);
});

test('a recipe’s step in the planner’s words is of its kind, shape and rate', () => {
  const { config: _, ...squad } = memoryQuery(recipeNamed('squad-v2'));
  assert.deepEqual([squad.kind, squad.length, squad.batchSize, squad.freezeRate, squad.mode, squad.frozenBiases], ['question-answering', 384, 128, 0.8, 'paper', false]);
  const images = memoryQuery(recipeNamed('cifar100'), { mode: 'tuned' });
  assert.deepEqual([images.kind, images.imageSize, images.config.numLabels, images.alwaysTrain, images.frozenBiases], ['image-classification', 224, 100, ['classifier.weight'], true]);
});

test('with a budget the plan is of the largest batch that fits; with a batch size, of the smallest change', () => {
  const largest = planText(['--recipe', 'rte', '--freeze-rate', '0', '--budget', '2.5GiB']);
  assert.equal(value(largest, 'budget'), '2.5 GiB');
  const batch = Number(value(largest, 'batch').split(' ')[0]);
  assert.ok(batch > 1);
  const peak = (batchSize: number) => planMemory(memoryQuery({ ...recipeNamed('rte'), freezeRate: 0, batchSize })).peakBytes;
  assert.ok(peak(batch) <= 2.5 * 2 ** 30 && peak(batch + 1) > 2.5 * 2 ** 30);
  const changed = (budget: number) => planText(['--recipe', 'rte', '--freeze-rate', '0', `--budget=${budget}`, '--batch-size=64']);
  const blocks = changed(peak(64) - 1);
  assert.match(value(blocks, 'budget'), /changed to fit/);
  assert.equal(value(blocks, 'temporaries'), 'of attention and MLP in blocks of 64.0 MiB');
  assert.equal(value(blocks, 'mode'), 'paper');
  const { peakBytes } = planMemory({ ...memoryQuery({ ...recipeNamed('rte'), freezeRate: 0, batchSize: 64 }), blockBytes: 64 * 2 ** 20 });
  const parts = changed(peakBytes - 1);
  assert.equal(value(parts, 'batch'), '64 × 128 tokens, in 2 micro-batches of up to 32');
  assert.equal(value(parts, 'mode'), 'paper');
});

test('micro-batches and layers run again are planned as the planner plans them, and say so', () => {
  const text = planText(['--recipe', 'rte', '--batch-size', '10', '--gradient-accumulation-steps', '4', '--gradient-checkpointing']);
  const levers = { gradientAccumulationSteps: 4, gradientCheckpointing: true };
  const plan = planMemory({ ...memoryQuery({ ...recipeNamed('rte'), batchSize: 10 }, levers), kernels: 'fused' });
  assert.equal(value(text, 'batch'), '10 × 128 tokens, in 4 micro-batches of up to 3');
  assert.equal(value(text, 'mode'), 'paper, layers run again in backward');
  assert.equal(value(text, 'kept for backward'), formatBytes(plan.activationBytes));
  assert.ok(value(text, 'peak').startsWith(`${formatBytes(plan.peakBytes)}, `));
  assert.equal(value(text, '  layer 7'), formatBytes(4 * 3 * 128 * 768));
});

test('8-bit moments and moments of frozen layers off the device are planned as they are asked for, and proposed where they make a batch fit', () => {
  const words = ['--recipe', 'rte', '--freeze-rate', '0.95', '--batch-size', '4'];
  const recipe = { ...recipeNamed('rte'), batchSize: 4, freezeRate: 0.95 };
  for (const [more, optimizer, said] of [
    [['--moments', '8-bit'], { moments: '8-bit' }, /once every layer has trained: 8-bit moments$/],
    [['--idle-moments', 'host'], { idleMoments: 'host' }, /at most: float32 moments, those of frozen layers on the host$/],
    [['--moments', '8-bit', '--idle-moments', 'release'], { moments: '8-bit', idleMoments: 'release' }, /at most: 8-bit moments, those of frozen layers released$/],
  ] as const) {
    const text = planText([...words, ...more]);
    const plan = planMemory(memoryQuery({ ...recipe, optimizer: { ...recipe.optimizer, ...optimizer } }));
    assert.ok(value(text, 'optimizer moments').startsWith(`${formatBytes(plan.momentBytes)} `));
    assert.ok(value(text, 'peak').startsWith(`${formatBytes(plan.peakBytes)}, `));
    assert.match(value(text, 'optimizer moments'), said);
    assert.ok(plan.peakBytes < planMemory(memoryQuery(recipe)).peakBytes);
  }
  const { peakBytes } = planMemory(memoryQuery(recipe, { mode: 'tuned' }));
  const fits = planText([...words, '--mode', 'tuned', `--budget=${peakBytes - 1}`]);
  assert.match(value(fits, 'budget'), /changed to fit/);
  assert.match(value(fits, 'optimizer moments'), /8-bit moments$/);
});

test('a budget, or --levers, brings what each lever makes of the peak', () => {
  const words = ['--recipe', 'rte', '--model', embeddedModel(), '--batch-size', '8', '--max-length', '32'];
  const levers = memoryLevers(memoryQuery(parseTrain([...words, '--dry-run'])!.recipe, { architecture: readConfig(embeddedModel()) }));
  const checkpointing = levers.find((l) => l.changes.gradientCheckpointing)!;
  assert.ok(checkpointing.savesBytes > 0);
  for (const asked of [['--levers'], ['--budget', '1GiB']]) {
    const text = planText([...words, ...asked]);
    assert.ok(value(text, '  gradient checkpointing').startsWith(`${formatBytes(checkpointing.peakBytes)} (−${formatBytes(checkpointing.savesBytes)})`), text);
    assert.ok(value(text, '  gradient checkpointing').endsWith(checkpointing.costs));
  }
  assert.doesNotMatch(planText(words), /gradient checkpointing/);
});

test('what cannot be planned is said, and --help tells how', () => {
  assert.match(planText(['--help']), /--budget BYTES/);
  assert.throws(() => planText(['--recipe', 'cola2']), UnknownTaskError);
  assert.throws(() => planText(['--recipe', 'rte', '--budget', 'much']), (e: Error) => e instanceof InvalidArgumentError && /'much'/.test(e.message));
  assert.throws(() => planText(['--recipe', 'rte', '--budget']), (e: Error) => e instanceof InvalidArgumentError && /--budget needs a value/.test(e.message));
  assert.throws(() => planText(['--recipe', 'rte', '--kernels', 'cuda']), /'cuda'/);
  assert.throws(() => planText(['--recipe', 'rte', '--moments', '4-bit']), (e: Error) => e instanceof InvalidArgumentError && /--moments is '4-bit'.*float32, 8-bit/.test(e.message));
  assert.throws(() => planText(['--recipe', 'rte', '--idle-moments', 'disk']), (e: Error) => e instanceof InvalidArgumentError && /'disk'.*keep, host, release/.test(e.message));
  assert.throws(() => planText(['--recipe', 'rte', '--budget', '100MB']), (e: Error) => e instanceof MemoryBudgetError && /95\.4 MiB/.test(e.message));
});
