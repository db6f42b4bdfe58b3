/** Closing chains before their time: for who must have them closed, and for lack of room. */
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoName } from '../../common/errors.js';
import { inUse, type OpenEntry } from './head-switch.js';
import { CLOSING } from './volumes-options.js';

/** What is missing that a chain which is open has: descriptors, memory of the block index. */
const SHORTAGES: ReadonlySet<string | undefined> = new Set(['EMFILE', 'ENOMEM']);

/**
 * Closes what `next` finds until it finds nothing.
 * @throws DiskError `busy` when somebody goes on using it.
 */
export async function closeEach(
  next: () => OpenEntry | undefined,
  retire: (entry: OpenEntry) => Promise<void>,
): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    const entry = next();
    if (entry === undefined) return;
    if (entry.users === 0) await retire(entry);
    // What flushes in the background uses it for a moment.
    else if (tries < CLOSING.tries) await sleep(CLOSING.everyMs);
    else throw inUse();
  }
}

/**
 * Opens something; where there is no room for it, once more after others were closed.
 * @param closeResting closes those that nobody uses; answers how many.
 */
export async function withRoom<T>(
  open: () => Promise<T>,
  closeResting: () => Promise<number>,
): Promise<T> {
  try {
    return await open();
  } catch (error) {
    if (!SHORTAGES.has(errnoName(error)) || (await closeResting()) === 0) throw error;
  }
  return await open();
}
