/** Long operations on behalf of a client: cancelled by it, and told to it. */
import type { CallContext } from '../../control/protocol.js';
import type { Work } from '../../vm/context.js';

export function workOf(what: string, { signal, progress }: CallContext): Work {
  return { signal, onProgress: (done, total) => progress(what, done, total) };
}
