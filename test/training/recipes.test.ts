import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnknownTaskError, UnsupportedModelError } from '../../src/errors';
import { bertActivationBytes } from '../../src/memory/activationBytes';
import { parseBertConfig } from '../../src/hub/config';
import { recipeNamed, RECIPES, recipes } from '../../src/training/recipes';
import { planRecipe } from '../../src/training/recipePlan';

/** The paper's table: name, checkpoint, learning rate, freeze rate, frozen and training layers, batch, seed, length or image size. */
const PAPER: readonly (readonly [string, string, number, number, number, number, number, number, number])[] = [
  ['mnli', 'bert-base-cased', 4e-5, 0.8, 81, 21, 32, 43, 128],
  ['qqp', 'bert-base-cased', 5e-5, 0.8, 81, 21, 32, 43, 128],
  ['qnli', 'bert-base-cased', 5e-5, 0.95, 96, 6, 32, 43, 128],
  ['sst2', 'bert-base-cased', 8e-5, 0.95, 96, 6, 32, 44, 128],
  ['cola', 'bert-base-cased', 8e-5, 0.9, 91, 11, 32, 43, 128],
  ['mrpc', 'bert-base-cased', 1.25e-4, 0.9, 91, 11, 32, 43, 128],
  ['rte', 'bert-base-cased', 1.2e-4, 0.9, 91, 11, 16, 47, 128],
  ['stsb', 'bert-base-cased', 8e-5, 0.85, 85, 16, 32, 43, 128],
  ['squad-v2', 'bert-base-uncased', 1.8e-4, 0.8, 80, 21, 128, 23, 384],
  ['cifar10', 'google/vit-base-patch16-224-in21k', 7.5e-5, 0.9, 89, 10, 32, 43, 224],
  // floor(0.75·99) = 74 frozen; the classifier trains outside the count.
  ['cifar100', 'google/vit-base-patch16-224-in21k', 5.5e-5, 0.75, 74, 25, 32, 43, 224],
  ['imagenet', 'google/vit-base-patch16-384', 5e-5, 0.95, 95, 5, 128, 43, 384],
];

test('the twelve recipes have the paper’s numbers, three epochs each, and its counts of frozen and training layers', () => {
  assert.deepEqual(
    RECIPES.map((r) => r.name),
    PAPER.map(([name]) => name),
  );
  for (const [name, checkpoint, learningRate, freezeRate, frozen, trains, batchSize, seed, length] of PAPER) {
    const r = recipeNamed(name);
    assert.deepEqual([r.checkpoint, r.learningRate, r.freezeRate, r.batchSize, r.seed, r.epochs, r.kind === 'image' ? r.imageSize : r.maxLength], [checkpoint, learningRate, freezeRate, batchSize, seed, 3, length], name);
    const plan = planRecipe(r);
    assert.deepEqual([plan.frozenLayers, plan.layers - plan.frozenLayers], [frozen, trains], name);
  }
  assert.equal(recipes.squadV2.docStride, 128);
});

test('schedule, decay and initial distances follow the published scripts', () => {
  const of = (field: 'schedule' | 'initialMagnitudeScale') => RECIPES.map((r) => r[field]);
  assert.deepEqual(of('schedule'), ['glue', 'glue', 'glue', 'glue', 'warm', 'glue', 'glue', 'stsb', 'warm', 'vit', 'vit', 'vit']);
  assert.deepEqual(of('initialMagnitudeScale'), [1e10, 1e10, 1e10, 1e10, 1e10, 1e10, 1e10, 1e10, 1e10, 1e7, 1e7, 1e20]);
  assert.deepEqual(RECIPES.map((r) => r.optimizer.weightDecay), [0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0, 0, 0.01]);
  assert.deepEqual(RECIPES.filter((r) => r.optimizer.noDecay!.includes('LayerNorm.weight')).map((r) => r.name), ['mnli', 'qqp', 'stsb']);
  assert.deepEqual(RECIPES.filter((r) => r.alwaysTrain.length > 0).map((r) => r.name), ['stsb', 'cifar10', 'cifar100']);
});

test('a recipe goes by any usual spelling; an unknown one is answered with the list', () => {
  assert.equal(recipeNamed('SQuAD_v2'), recipes.squadV2);
  assert.equal(recipeNamed('CIFAR-10'), recipes.cifar10);
  assert.throws(() => recipeNamed('colla'), (e: Error) => e instanceof UnknownTaskError && /cola, mrpc/.test(e.message));
});

test('a plan counts steps, parameters and bytes of the checkpoint’s shapes, and of another one’s', () => {
  const plan = planRecipe(recipes.glue.cola);
  assert.deepEqual([plan.stepsPerEpoch, plan.totalSteps], [268, 804]);
  // bert-base-cased: 108,310,272 weights of the bare model (Hugging Face), and the classifier's 2·768 + 2.
  assert.equal(plan.parameters, 108_310_272 + 2 * 768 + 2);
  assert.deepEqual([plan.weightBytes, plan.momentBytes], [4 * plan.parameters, 8 * plan.parameters]);
  const coded = planRecipe({ ...plan.recipe, optimizer: { moments: '8-bit' } }).momentBytes;
  assert.ok(coded > plan.momentBytes / 4 && coded < 0.2516 * plan.momentBytes, `${coded}`);
  const config = parseBertConfig({ model_type: 'bert', vocab_size: 28_996 });
  const full = bertActivationBytes({ config, batchSize: 32, length: 128, mode: 'exact', trains: () => true, dropout: true });
  assert.equal(plan.fullActivationBytes, full.total);
  assert.ok(plan.activationBytes < full.total / 5);
  // google/vit-base-patch16-224: 86,567,656 weights with its head of 1000 classes.
  assert.equal(planRecipe({ ...recipes.cifar10, numLabels: 1000 }).parameters, 86_567_656);
  const small = planRecipe({ ...recipes.cifar10, imageSize: 32 }, { architecture: { model_type: 'vit', image_size: 32, patch_size: 4, hidden_size: 128, num_hidden_layers: 4, num_attention_heads: 4, intermediate_size: 256 }, trainExamples: 100 });
  assert.deepEqual([small.totalSteps, small.parameters, small.layers], [12, 546_186, 35]);
  assert.throws(() => planRecipe(recipes.cifar10, { architecture: { model_type: 'bert' } }), UnsupportedModelError);
});
