import { createTfjsEngine } from '../../src/engine/tfjs/tfjsEngine';
import { conformance } from './conformance';

conformance('wasm', () => createTfjsEngine('wasm'));
