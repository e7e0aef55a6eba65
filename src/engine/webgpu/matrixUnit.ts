/**
 * The matrix units of a GPU (tensor cores), as WGSL reaches them: a subgroup holds matrices of a fixed size between its threads, and multiplies two of float16 onto a sum of float32. Dawn's extension
 * `chromium_experimental_subgroup_matrix` (docs/dawn/features/subgroup_matrix.md); on the device VK_KHR_cooperative_matrix.
 */

/** What a matrix unit computes: [M, K]·[K, N], float16 onto float32, by `lanes` threads. */
export interface MatrixShape {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  /** Threads of a subgroup. */
  readonly lanes: number;
  /** The number of threads of a workgroup must be a multiple of this. */
  readonly mostLanes: number;
}

/** A function of WGSL by which a matrix comes from an array, or goes into one: `name(at)` gives the matrix whose first element lies there, `name(at, sum)` puts a sum there. */
export interface MatrixAccess {
  readonly name: string;
  /** What it gives; `put` puts a `Sum`. */
  readonly of: 'Left' | 'Right' | 'Sum' | 'put';
  /** The array: of Halves for operands; for sums of f32, or of vec4f. `at` and `step` are in its elements. */
  readonly array: string;
  readonly vectors: boolean;
  /** From a row of the matrix to the next, or from a column: `rows` says which of them lie together. */
  readonly step: number | string;
  readonly rows: boolean;
}

/** A matrix unit, and the WGSL that uses it. */
export interface MatrixUnit extends MatrixShape {
  readonly enables: readonly string[];
  readonly attributes: string;
  /** How `main` gets `sg`, the number of the subgroup in its workgroup: an argument, or statements. */
  readonly builtins: readonly string[];
  readonly prologue: string;
  /** Types and functions: `Halves`, four float16, and `halves(vec4f)` that rounds to them; `Left`, `Right` and `Sum`; `multiply(left, right, sum)`; and the accesses. The operands `Right` of a kernel all come from one array. */
  functions(accesses: readonly MatrixAccess[]): string;
}

/** A device's matrix unit. @param pinned whether the number of lanes must be asked for, since the device has several */
export function subgroupMatrices(shape: MatrixShape, pinned: boolean): MatrixUnit {
  const { M, N, K, lanes } = shape;
  const access = ({ name, of, array, step, rows }: MatrixAccess): string => {
    const order = rows ? 'row_major' : 'col_major';
    const by = typeof step === 'number' ? `${step}u` : step;
    if (of === 'put') return `fn ${name}(at: u32, s: Sum) { subgroupMatrixStore<${order}>(&${array}, at, s, ${by}); }`;
    return `fn ${name}(at: u32) -> ${of} { return subgroupMatrixLoad<${of}, ${order}>(&${array}, at, ${by}); }`;
  };
  return {
    ...shape,
    enables: ['f16', 'subgroups', 'chromium_experimental_subgroup_matrix', ...(pinned ? ['subgroup_size_control'] : [])],
    attributes: pinned ? `@subgroup_size(${lanes})` : '',
    builtins: ['@builtin(subgroup_id) sg: u32'],
    prologue: '',
    functions: (accesses) => `
alias Halves = vec4h;
alias Left = subgroup_matrix_left<f16, ${K}, ${M}>;
alias Right = subgroup_matrix_right<f16, ${N}, ${K}>;
alias Sum = subgroup_matrix_result<f32, ${N}, ${M}>;
fn halves(v: vec4f) -> Halves { return vec4h(v); }
fn multiply(l: Left, r: Right, s: Sum) -> Sum { return subgroupMatrixMultiplyAccumulate(l, r, s); }
${accesses.map(access).join('\n')}`,
  };
}

/** What mixed precision asks of Dawn: the extension is not yet a standard, and float16 on NVIDIA's Vulkan driver is held back for faults that conversions and matrix units do not touch (crbug.com/42251215). */
export const MIXED_TOGGLES = ['allow_unsafe_apis', 'vulkan_enable_f16_on_nvidia'] as const;

/** Features without which there are no matrix units. */
const NEEDED = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'] as const;
const SIZE_CONTROL = 'subgroup-size-control';

/** Dawn's description of what one matrix instruction takes. */
interface SubgroupMatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** What is looked at of an adapter. */
export interface MatrixAdapter {
  readonly features: { has(name: string): boolean };
  readonly limits: Pick<GPUSupportedLimits, 'maxComputeWorkgroupStorageSize' | 'maxComputeInvocationsPerWorkgroup'>;
  readonly info: { readonly subgroupMinSize: number; readonly subgroupMaxSize: number; readonly subgroupMatrixConfigs?: readonly SubgroupMatrixConfig[] };
}

/** Matrix units of an adapter that was asked for with the toggles above: what they are and which features open them, or why there are none. */
export function matrixUnitOf({ features, limits, info }: MatrixAdapter): { readonly unit: MatrixUnit; readonly features: readonly string[] } | { readonly why: string } {
  const missing = NEEDED.filter((f) => !features.has(f));
  if (missing.length > 0) return { why: `it has no ${missing.join(', ')}` };
  const configs = [...(info.subgroupMatrixConfigs ?? [])];
  // 16·16·16 before smaller ones: fewest loads for a product. Of equal ones the driver's first.
  const fits = configs.filter((c) => c.componentType === 'f16' && c.resultComponentType === 'f32' && [8, 16, 32].includes(c.M) && [8, 16, 32].includes(c.N) && [8, 16, 32].includes(c.K) && c.M * c.N * c.K <= 16 ** 3);
  const best = fits.reduce<SubgroupMatrixConfig | undefined>((a, b) => (a && a.M * a.N * a.K >= b.M * b.N * b.K ? a : b), undefined);
  if (!best) return { why: `its matrix units do not add products of float16 up in float32 (${configs.map((c) => `${c.M}×${c.N}×${c.K} ${c.componentType}→${c.resultComponentType}`).join(', ') || 'it names no sizes'})` };
  const { subgroupMinSize: lanes, subgroupMaxSize: mostLanes } = info;
  const pinned = lanes !== mostLanes;
  if (pinned && !features.has(SIZE_CONTROL)) return { why: `its subgroups have ${lanes} to ${mostLanes} threads, and it has no ${SIZE_CONTROL}` };
  if (limits.maxComputeWorkgroupStorageSize < 32_768 || limits.maxComputeInvocationsPerWorkgroup < 256 || 128 % mostLanes !== 0)
    return { why: `workgroups of 256 threads in subgroups of at most 128 and 32 KiB are needed, it has ${limits.maxComputeInvocationsPerWorkgroup}, ${mostLanes} and ${limits.maxComputeWorkgroupStorageSize / 1024} KiB` };
  const { M, N, K } = best;
  return { unit: subgroupMatrices({ M, N, K, lanes, mostLanes }, pinned), features: [...NEEDED, ...(pinned ? [SIZE_CONTROL] : [])] };
}
