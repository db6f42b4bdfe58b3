/**
 * Lines of the daemon's log without a logger: for the supervisor, which loads next to nothing, and
 * for the last words of a process that ends at once.
 */
import { writeSync } from 'node:fs';
import { harmlessJson } from '../common/harmless-json.js';

const STDERR = 2;

/** The same lines as `logger.ts` writes. */
export function logPlainly(
  level: 'error' | 'warn' | 'info',
  message: string,
  fields: object = {},
): void {
  const line = JSON.stringify({ time: new Date().toISOString(), level, message, ...fields });
  try {
    writeSync(STDERR, `${harmlessJson(line)}\n`);
  } catch {
    // A log that nobody can read any more ends nothing.
  }
}
