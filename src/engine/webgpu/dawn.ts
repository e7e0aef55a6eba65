/**
 * WebGPU in Node: Dawn (the npm package `webgpu`), which computes on Vulkan, Metal or D3D12. It is loaded when an engine is asked for, not before, so that machines without it, or without a GPU, lose
 * nothing. A GPU is taken by itself; a software driver (SwiftShader, llvmpipe), which is slower than the CPU engines, only when it is asked for.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { EngineUnavailableError, InvalidArgumentError } from '../../errors';
import type { Precision } from '../engine';
import type { AdapterKind, AdapterSummary } from './adapters';
import { type MatrixAdapter, type MatrixUnit, matrixUnitOf, MIXED_TOGGLES } from './matrixUnit';

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|software|microsoft basic render/i;

/** The limits that the engine raises to the adapter's own. */
const RAISED = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupSizeY',
  'maxComputeWorkgroupsPerDimension',
  'maxStorageBuffersPerShaderStage',
] as const;

/**
 * What Linux lacks for Vulkan, or undefined. Dawn itself finds out too, but writes several lines to stderr about it.
 */
function missingVulkan(): string | undefined {
  if (process.platform !== 'linux') return undefined;
  const split = (name: string) => (process.env[name] ?? '').split(':').filter(Boolean);
  const loader = 'libvulkan.so.1';
  const cached = () => existsSync('/etc/ld.so.cache') && readFileSync('/etc/ld.so.cache').includes(loader);
  const folders = [...split('LD_LIBRARY_PATH'), '/usr/lib', '/usr/lib64', '/usr/local/lib', '/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu'];
  if (!folders.some((f) => existsSync(path.join(f, loader))) && !cached()) return "Vulkan's loader is not installed: install libvulkan1 (Debian, Ubuntu) or vulkan-loader (Fedora), and the GPU's driver";
  const named = [...split('VK_DRIVER_FILES'), ...split('VK_ICD_FILENAMES')];
  if (named.some((f) => existsSync(f))) return undefined;
  if (named.length > 0) return `there is no Vulkan driver at ${named.join(', ')}: correct or unset VK_DRIVER_FILES and VK_ICD_FILENAMES`;
  const data = [process.env.XDG_DATA_HOME ?? path.join(homedir(), '.local/share'), ...split('XDG_DATA_DIRS'), '/etc', '/usr/local/etc', '/usr/share', '/usr/local/share'];
  const drivers = data.map((d) => path.join(d, 'vulkan/icd.d')).filter((d) => existsSync(d));
  if (drivers.some((d) => readdirSync(d).some((f) => f.endsWith('.json')))) return undefined;
  return "no Vulkan driver is installed: install the GPU's driver, which brings its own (NVIDIA), or mesa-vulkan-drivers (Intel, AMD)";
}

const instances = new Map<string, Promise<GPU>>();

/** Dawn itself. @throws EngineUnavailableError when the package or its native part does not load */
export function loadDawn(flags: readonly string[] = []): Promise<GPU> {
  const key = flags.join(' ');
  let gpu = instances.get(key);
  if (!gpu) instances.set(key, (gpu = load(flags)));
  return gpu;
}

async function load(flags: readonly string[]): Promise<GPU> {
  // A back end that is named may be another than Vulkan.
  const missing = flags.some((f) => f.startsWith('backend=')) ? undefined : missingVulkan();
  if (missing) throw new EngineUnavailableError(missing);
  try {
    const { create } = await import('webgpu');
    return create([...flags]);
  } catch (cause) {
    throw new EngineUnavailableError(`WebGPU does not load (${(cause as Error).message}): run \`npm ci\`, or choose another engine`, { cause });
  }
}

function kindOf({ info }: GPUAdapter): AdapterKind {
  return info.isFallbackAdapter || SOFTWARE.test(`${info.architecture} ${info.device} ${info.description}`) ? 'software' : 'hardware';
}

/** A name for people. */
export function nameOf({ info }: GPUAdapter): string {
  return info.device && !info.description.includes(info.device) && !/^(0x)?[0-9a-f]+$/i.test(info.device) ? `${info.device} (${info.description || info.vendor})` : info.description || info.device || info.vendor || 'unknown adapter';
}

/** Every adapter that Dawn gives: fast ones first. */
async function adapters(gpu: GPU): Promise<GPUAdapter[]> {
  const found: GPUAdapter[] = [];
  for (const options of [{ powerPreference: 'high-performance' }, { powerPreference: 'low-power' }, { forceFallbackAdapter: true }] as GPURequestAdapterOptions[]) {
    const adapter = await gpu.requestAdapter(options);
    if (adapter && !found.some((a) => nameOf(a) === nameOf(adapter))) found.push(adapter);
  }
  return found;
}

/**
 * What WebGPU could compute on, GPUs first: the fastest adapter, the most frugal one and a software driver, as far as they are there (WebGPU names no more).
 * @throws EngineUnavailableError when WebGPU does not load
 */
export async function listAdapters(): Promise<AdapterSummary[]> {
  return (await adapters(await loadDawn(withMixed([])))).map((a) => ({
    kind: kindOf(a),
    name: nameOf(a),
    maxBuffer: a.limits.maxBufferSize,
    maxBinding: a.limits.maxStorageBufferBindingSize,
    workgroupThreads: a.limits.maxComputeInvocationsPerWorkgroup,
    workgroupBytes: a.limits.maxComputeWorkgroupStorageSize,
    features: [...a.features].sort(),
    mixed: mixedText(a),
  }));
}

/** What mixed precision would be on an adapter. */
function mixedText(adapter: GPUAdapter): string {
  const found = matrixUnitOf(adapter as MatrixAdapter);
  return 'unit' in found ? unitText(found.unit) : `float32, since ${found.why}`;
}

const unitText = ({ M, N, K }: MatrixUnit): string => `matrix units of ${M}×${N}×${K}`;

/** Dawn's options with those that mixed precision needs. */
function withMixed(flags: readonly string[]): readonly string[] {
  const enable = 'enable-dawn-features=';
  const given = flags.filter((f) => f.startsWith(enable)).flatMap((f) => f.slice(enable.length).split(','));
  return [...flags.filter((f) => !f.startsWith(enable)), enable + [...new Set([...given, ...MIXED_TOGGLES])].join(',')];
}

/** The kind of adapter that SLIMFIT_WEBGPU_ADAPTER asks for, else hardware. */
function askedKind(): AdapterKind {
  const asked = process.env.SLIMFIT_WEBGPU_ADAPTER || 'hardware';
  if (asked !== 'hardware' && asked !== 'software') throw new InvalidArgumentError(`SLIMFIT_WEBGPU_ADAPTER is '${asked}': it must be hardware or software`);
  return asked;
}

/** A device that computes, and what it is. */
export interface OpenedDevice {
  readonly device: GPUDevice;
  readonly name: string;
  readonly kind: AdapterKind;
  /** What mixed precision computes products on; undefined: products are float32. */
  readonly matrix?: MatrixUnit;
}

/** Devices about which it was said that they have no mixed precision. */
const saidOf = new Set<string>();

/**
 * Opens the machine's fastest adapter of a kind, with its own limits.
 * @param kind by default what SLIMFIT_WEBGPU_ADAPTER says, else hardware
 * @param flags Dawn's own options (`backend=null` computes nothing)
 * @param precision `mixed` opens the device's matrix units; where there are none, that is said once on stderr
 * @throws EngineUnavailableError when there is none, or it does not open
 */
export async function openDevice(kind: AdapterKind = askedKind(), flags: readonly string[] = [], precision: Precision = 'float32'): Promise<OpenedDevice> {
  const gpu = await loadDawn(precision === 'mixed' ? withMixed(flags) : flags);
  const all = await adapters(gpu);
  const adapter = all.find((a) => kindOf(a) === kind);
  if (!adapter) {
    const others = all.map((a) => `${nameOf(a)} (${kindOf(a)})`).join(', ');
    const what = all.length === 0 ? 'WebGPU finds no adapter' : `WebGPU finds no ${kind} adapter, only ${others}`;
    throw new EngineUnavailableError(`${what}: ${kind === 'hardware' ? "install the GPU's driver, or set SLIMFIT_WEBGPU_ADAPTER=software to compute on the CPU, slowly" : 'install a software driver (Mesa llvmpipe, SwiftShader)'}`);
  }
  if (!gpu.wgslLanguageFeatures.has('immediate_address_space')) throw new EngineUnavailableError('this WebGPU has no immediate data: run `npm ci` to install the version that SlimFit was made for');
  const requiredLimits = Object.fromEntries(RAISED.map((limit) => [limit, adapter.limits[limit]]));
  const found = precision === 'mixed' ? matrixUnitOf(adapter as MatrixAdapter) : undefined;
  const matrix = found && 'unit' in found ? found.unit : undefined;
  if (found && 'why' in found && !saidOf.has(nameOf(adapter))) {
    saidOf.add(nameOf(adapter));
    process.stderr.write(`slimfit: ${nameOf(adapter)} computes in float32, not in mixed precision, since ${found.why}\n`);
  }
  try {
    const requiredFeatures = (found && 'unit' in found ? found.features : []) as GPUFeatureName[];
    return { device: await adapter.requestDevice({ requiredLimits, requiredFeatures }), name: nameOf(adapter), kind, ...(matrix && { matrix }) };
  } catch (cause) {
    throw new EngineUnavailableError(`${nameOf(adapter)} does not open (${(cause as Error).message}): update its driver, or choose another engine`, { cause });
  }
}
