/** Ctrl-C: the first one asks for an orderly end, the second one ends at once. */
import { EXIT_CODES } from './exit-codes.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Calls `cancel` on the first signal that asks the program to end, and exits on the second.
 * @returns a function that gives the signals back.
 */
export function onInterrupt(cancel: () => void): () => void {
  let asked = false;
  const handle = () => {
    if (asked) process.exit(EXIT_CODES.interrupted);
    asked = true;
    cancel();
  };
  for (const signal of SIGNALS) process.on(signal, handle);
  return () => {
    for (const signal of SIGNALS) process.off(signal, handle);
  };
}
