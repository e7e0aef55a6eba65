import { createTfjsEngine } from '../../src/engine/tfjs/tfjsEngine';
import { conformance } from './conformance';

conformance('cpu', () => createTfjsEngine('cpu'));
