/** The contract's conformance suite on WebGPU: run by webgpu.test.ts in a process that knows a software driver. Nothing of it is left out. */
import { createWebgpuEngine } from '../../../src/engine/webgpu/createWebgpuEngine';
import { conformance } from '../conformance';

conformance('webgpu', () => createWebgpuEngine());
