/**
 * What the SlimFit kernel offers to code that runs in it. The kernel puts it under `Symbol.for('slimfit.kernel')` of the global object and nothing imports the kernel, so the
 * library works the same without one.
 */

/** Data by mime type, as Jupyter shows it. Bytes are sent as base64. */
export type MimeBundle = Record<string, unknown>;

/** Shows values of a class that has no `Symbol.for('Jupyter.display')` method. */
export interface Formatter {
  test(value: unknown): boolean;
  format(value: unknown): MimeBundle;
}

/** How an output is shown. */
export interface DisplayOptions {
  readonly metadata?: object;
  /** Name under which the output can be changed later. */
  readonly displayId?: string;
  /** Changes the output of that name instead of adding one. */
  readonly update?: boolean;
}

/** The running kernel. */
export interface KernelApi {
  readonly version: 1;
  /** Shows data now, below the cell that the calling code belongs to. */
  display(data: MimeBundle, options?: DisplayOptions): void;
  /** Shows a value now as the last expression of a cell would be shown. */
  show(value: unknown, options?: DisplayOptions): Promise<void>;
  /** Removes what the calling cell has shown so far. @param wait until its next output comes, so that nothing flickers (default false) */
  clearOutput(wait?: boolean): void;
  /** Shows text or a bundle in the front end's pager when the calling cell ends. @param start line to begin at (default 0) */
  page(data: string | MimeBundle, start?: number): void;
  /** Formatters registered last are asked first. */
  registerFormatter(formatter: Formatter): void;
  /** Aborted when the stop button of the calling cell is pressed. */
  readonly signal: AbortSignal | undefined;
  /** A turn of the event loop; throws when the calling cell was interrupted. Every training step calls it. */
  checkpoint(): Promise<void>;
  /** Throws when the calling cell was interrupted; needs no turn of the event loop. */
  throwIfInterrupted(): void;
  /** A module of the project that is loaded when it is first touched; of several names the first that loads. */
  lazyModule(names: readonly string[]): object;
}

/** The kernel that this code runs in, if any. */
export function runningKernel(): KernelApi | undefined {
  return (globalThis as { [key: symbol]: KernelApi | undefined })[Symbol.for('slimfit.kernel')];
}

/**
 * Shows a value below the running cell, at once, as the last expression of a cell would be shown: a figure, a table, anything. Outside a notebook it is printed.
 * @param options `displayId` names the output, so that a later call with `update` changes it in place
 */
export async function display(value: unknown, options?: DisplayOptions): Promise<void> {
  const kernel = runningKernel();
  if (kernel) await kernel.show(value, options);
  else console.log(value);
}
