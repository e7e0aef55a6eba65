/** Schemes: by name, and made of options. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidArgumentError } from '../../src/errors';
import { type ActivationMode, type ActivationScheme, SCHEMES, schemeOf } from '../../src/tape/scheme';

test('a scheme is found by its name, and a scheme of one’s own is itself', () => {
  for (const mode of Object.keys(SCHEMES) as ActivationMode[]) {
    assert.equal(schemeOf(mode), SCHEMES[mode]);
    assert.equal(schemeOf(SCHEMES[mode]), SCHEMES[mode]);
    assert.equal(SCHEMES[mode].name, mode);
  }
  const own: ActivationScheme = { ...SCHEMES.paper, name: 'own', attentionProbs: 'recompute' };
  assert.equal(schemeOf(own), own);
});

test('the paper’s scheme is the paper’s: Q3.4 operands, Q0.8 probabilities, Q2.1 GELU inputs, a tenth of a frozen LayerNorm, epsilon 1e-12, dropout on values', () => {
  const { name: _, ...paper } = SCHEMES.paper;
  assert.deepEqual(paper, {
    attentionOperands: 'q3.4',
    attentionProbs: 'q0.8',
    geluInput: 'q2.1',
    downProjectionInput: 'q3.4',
    linearInput: 'float32',
    normalizedValues: undefined,
    frozenLayerNormShare: 0.1,
    layerNormStatistics: 'recompute',
    layerNormBackwardEps: 1e-12,
    attentionDropout: 'values',
  });
});

test('an unknown name, and an option that no scheme has, are refused by name and value', () => {
  assert.throws(() => schemeOf('fast' as 'paper'), (e: Error) => e instanceof InvalidArgumentError && /'fast'.*exact, paper, tuned/.test(e.message));
  assert.throws(() => schemeOf('toString' as 'paper'), InvalidArgumentError);
  for (const [option, value] of [
    ['attentionOperands', 'recompute'],
    ['attentionOperands', 'int8'],
    ['attentionProbs', undefined],
    ['geluInput', 'top10'],
    ['downProjectionInput', 8],
    ['layerNormStatistics', 'float32'],
    ['attentionDropout', 'none'],
    ['frozenLayerNormShare', 1.1],
    ['frozenLayerNormShare', NaN],
    ['layerNormBackwardEps', 0],
  ] as const)
    assert.throws(() => schemeOf({ ...SCHEMES.paper, name: 'own', [option]: value } as ActivationScheme), (e: Error) => e instanceof InvalidArgumentError && e.message.includes(`${option} of the scheme 'own' is`) && e.message.includes(String(value)));
});
