/** How a cell stops training: the SlimFit kernel is asked at every step boundary; without a kernel there is nothing to ask. */
import { runningKernel } from '../inspect/kernelApi';

/** Lets the event loop turn, so that signals and messages get through; throws when a notebook's stop button was pressed. */
export async function kernelCheckpoint(): Promise<void> {
  const kernel = runningKernel();
  if (kernel) await kernel.checkpoint();
  else await new Promise<void>((resolve) => setImmediate(resolve));
}
