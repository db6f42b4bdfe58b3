/** What is said, once, on the descriptor that `layerdisk daemon start` waits at. */
import { closeSync, writeSync } from 'node:fs';
import type { DiskErrorJson } from '../common/errors.js';

export type ReadyLine = { readonly ready: true } | { readonly error: DiskErrorJson };

/** @param fd undefined: nobody waits. */
export function announce(fd: number | undefined, message: ReadyLine): void {
  if (fd === undefined) return;
  try {
    writeSync(fd, `${JSON.stringify(message)}\n`);
    closeSync(fd);
  } catch {
    // Whoever waited has gone; the log says the same.
  }
}
