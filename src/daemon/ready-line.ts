/**
 * What is said, once, where `layerdisk daemon start` waits: at a descriptor, or in this process.
 */
import type { EventEmitter } from 'node:events';
import { closeSync, writeSync } from 'node:fs';
import type { DiskErrorJson } from '../common/errors.js';
import { READY_EVENT } from '../common/ready-event.js';

export type ReadyLine = { readonly ready: true } | { readonly error: DiskErrorJson };

/** @param fd undefined: whoever waits does so in this process. */
export function announce(fd: number | undefined, message: ReadyLine): void {
  const line = `${JSON.stringify(message)}\n`;
  const here: EventEmitter = process;
  if (fd === undefined) {
    here.emit(READY_EVENT, line);
    return;
  }
  try {
    writeSync(fd, line);
    closeSync(fd);
  } catch {
    // Whoever waited has gone; the log says the same.
  }
}
