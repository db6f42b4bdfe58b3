/**
 * What requests of clients have in common: absolute paths, and long work that is told and
 * cancelled.
 */
import { isAbsolute } from 'node:path';
import { DiskError } from '../../common/errors.js';
import type { CallContext } from '../../control/protocol.js';
import type { Work } from '../../vm/context.js';

/** @throws DiskError `usage`. */
export function requireAbsolute(path: string): void {
  if (isAbsolute(path)) return;
  throw new DiskError('usage', `${path} is no absolute path`, {
    hint: 'the daemon does not know the folder you are in',
  });
}

export function workOf(what: string, { signal, progress }: CallContext): Work {
  return { signal, onProgress: (done, total) => progress(what, done, total) };
}
