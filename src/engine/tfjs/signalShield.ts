/** Keeps signals (the stop button's SIGINT) away from the thread that computes, because they would destroy the heap there: see native/signals.cc. */
import { existsSync } from 'node:fs';
import path from 'node:path';

/** File of the small addon, beside TensorFlow's. */
const FILE = 'slimfit_signals.node';

let shielded: boolean | undefined;

/**
 * From now on this thread, and those that it starts, get no signals from outside; the process does, on other threads, so handlers in JavaScript work as before. Call it before TensorFlow
 * starts threads.
 * @param folder where TensorFlow's addon lies
 * @returns whether it could be done: not where the addon was not built
 */
export function shieldFromSignals(folder: string): boolean {
  if (shielded) return true;
  const file = path.join(folder, FILE);
  if (!existsSync(file)) return (shielded = false);
  require(file);
  return (shielded = true);
}
