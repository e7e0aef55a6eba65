/**
 * How a cell stops training: the SlimFit kernel puts an object under a well-known symbol; without a kernel there is nothing to ask.
 */
interface KernelCheckpoint {
  /** Lets the event loop turn; throws when this cell was interrupted. */
  checkpoint?: () => Promise<void>;
}

/** Lets the event loop turn, so that signals and messages get through; throws when a notebook's stop button was pressed. */
export async function kernelCheckpoint(): Promise<void> {
  const kernel = (globalThis as { [key: symbol]: KernelCheckpoint | undefined })[Symbol.for('slimfit.kernel')];
  if (kernel?.checkpoint) await kernel.checkpoint();
  else await new Promise<void>((resolve) => setImmediate(resolve));
}
