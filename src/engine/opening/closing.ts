/**
 * Closing chains: a while after the last user left, at once for who must have them closed, and for
 * lack of room.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoName } from '../../common/errors.js';
import { inUse, type OpenEntry } from './head-switch.js';
import { CLOSING, REST_MS, type VolumesOptions } from './volumes-options.js';

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

/** Volumes that nobody uses: they stay open for a while, in case somebody comes back. */
export class RestingVolumes {
  readonly #parts: RestingParts;

  constructor(parts: RestingParts) {
    this.#parts = parts;
  }

  /** From when the last user left: what looks after volumes in the background is none. */
  begin(entry: OpenEntry): void {
    clearTimeout(entry.rest);
    const left = entry.leftAt + REST_MS - performance.now();
    entry.rest = setTimeout(() => void this.#retire(entry), Math.max(0, left));
    entry.rest.unref();
  }

  async #retire(entry: OpenEntry): Promise<void> {
    const { retire, onError } = this.#parts;
    await retire(entry).catch((error: unknown) => onError('cannot close a disk cleanly', error));
  }

  /** @returns how many were closed. */
  async closeAll(): Promise<number> {
    const resting = this.#parts.entries().filter(({ users }) => users === 0);
    await Promise.all(resting.map((entry) => this.#retire(entry)));
    return resting.length;
  }
}

interface RestingParts extends Pick<VolumesOptions, 'onError'> {
  readonly entries: () => OpenEntry[];
  /** Flushes and closes one. */
  readonly retire: (entry: OpenEntry) => Promise<void>;
}
