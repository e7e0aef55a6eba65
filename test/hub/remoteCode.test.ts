/** No code of a checkpoint is run: configs that name some are refused, wherever they are read. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { readImageProcessor } from '../../src/data/imageProcessor';
import { embeddedModel } from '../../src/data/embedded/embedded';
import { Tokenizer } from '../../src/data/tokenizer';
import { UnsupportedModelError } from '../../src/errors';
import { AutoModelForImageClassification, AutoModelForQuestionAnswering, AutoModelForSequenceClassification } from '../../src/models/auto';
import { BertForSequenceClassification } from '../../src/models/bert';
import { cpuEngine } from '../models/fixtures';

const root = mkdtempSync(path.join(tmpdir(), 'slimfit-code-'));
after(() => rmSync(root, { recursive: true, force: true }));
const write = (name: string, value: object) => writeFileSync(path.join(root, name), JSON.stringify(value));
const refuses = (file: string, field: string) => (e: Error) => e instanceof UnsupportedModelError && e.message.includes(file) && e.message.includes(field) && /runs no code/.test(e.message);

const TEXT = { model_type: 'bert', vocab_size: 9, hidden_size: 4, num_hidden_layers: 1, num_attention_heads: 1, intermediate_size: 4, max_position_embeddings: 8 };
const MAP = { auto_map: { AutoModelForSequenceClassification: 'modeling_evil.EvilModel' } };

test('a model whose config names code of its repository is refused by the field, in every class, and nothing is on the device', async () => {
  const engine = await cpuEngine();
  for (const [config, field] of [[{ ...TEXT, ...MAP }, 'auto_map'], [{ ...TEXT, auto_map: 'modeling_evil.EvilModel' }, 'auto_map'], [{ ...TEXT, trust_remote_code: true }, 'trust_remote_code']] as const) {
    write('config.json', config);
    const loads = [AutoModelForSequenceClassification, AutoModelForQuestionAnswering, AutoModelForImageClassification].flatMap((m) => [() => m.fromPretrained(root, { engine }), () => m.fromConfigFolder(root, { engine })]);
    for (const load of [...loads, () => BertForSequenceClassification.fromPretrained(root, { engine })]) await assert.rejects(load, refuses('config.json', field));
  }
  assert.equal(engine.memory().tensors, 0);
  // Empty fields name nothing.
  write('config.json', { ...TEXT, auto_map: {}, trust_remote_code: false });
  const model = await AutoModelForSequenceClassification.fromConfigFolder(root, { engine });
  model.dispose();
  engine.dispose();
});

test('a tokenizer and an image processor of their repository’s code are refused', () => {
  writeFileSync(path.join(root, 'vocab.txt'), readFileSync(path.join(embeddedModel(), 'vocab.txt')));
  write('tokenizer_config.json', { auto_map: { AutoTokenizer: ['tokenization_evil.EvilTokenizer', null] } });
  assert.throws(() => Tokenizer.fromFolder(root), refuses('tokenizer_config.json', 'auto_map'));
  write('preprocessor_config.json', { image_processor_type: 'ViTImageProcessor', auto_map: { AutoImageProcessor: 'evil.EvilProcessor' } });
  assert.throws(() => readImageProcessor(root), refuses('preprocessor_config.json', 'auto_map'));
});

test('no source evaluates text: no eval, no Function, no vm, and no module whose name comes from data', () => {
  const sources = ['src', 'kernel'].flatMap((folder) => {
    const at = path.resolve(__dirname, '../..', folder);
    return (readdirSync(at, { recursive: true, encoding: 'utf8' }) as string[]).filter((f) => /\.(ts|mjs)$/.test(f)).map((f) => path.join(at, f));
  });
  assert.ok(sources.length > 150);
  // What is asked for by a name that is no literal, and whose name that is.
  const allowed: Readonly<Record<string, readonly string[]>> = {
    'src/data/imageWorkers.ts': ['eval: true'], // a text of our own, for the sources under tsx
    'kernel/languageService.ts': ['vm'], // cells of the user
  };
  for (const file of sources) {
    const text = readFileSync(file, 'utf8').replace(/\/\*[^]*?\*\/|\/\/.*$/gm, '');
    const name = path.relative(path.resolve(__dirname, '../..'), file).split(path.sep).join('/');
    const found = [...text.matchAll(/\beval\(|\beval: true|new Function\b|['"](?:node:)?vm['"]|\bimport\((?!['"`])|\bdlopen\b/g)].map((m) => m[0]).filter((m) => !allowed[name]?.some((a) => m.includes(a)));
    assert.deepEqual(found, [], name);
  }
});
