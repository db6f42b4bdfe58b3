/** The pace of long jobs on the background thread: they rest, so that disks in use are not hurt. */
import { setTimeout as delay } from 'node:timers/promises';
import { DiskError } from '../common/errors.js';

/** Rests come at most this often, milliseconds. */
const STRETCH_MS = 5;

/** How a job is ended early, and who hears of it. */
export interface JobWork {
  readonly signal?: { readonly aborted: boolean } | undefined;
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

export class Pace {
  readonly #work: JobWork;
  readonly #share: number;
  #since = performance.now();

  /**
   * @param share the part of the time that the job may take: what it measures includes waiting for
   * a busy host disk, so it steps back when others need that.
   */
  constructor(work: JobWork, share: number) {
    this.#work = work;
    this.#share = share;
  }

  /** Called between small pieces of work. @throws DiskError `interrupted` when cancelled. */
  async rest(): Promise<void> {
    if (this.#work.signal?.aborted === true) {
      throw new DiskError('interrupted', 'the work was cancelled');
    }
    const busy = performance.now() - this.#since;
    if (busy < STRETCH_MS) return;
    await delay(busy * (1 / this.#share - 1));
    this.#since = performance.now();
  }
}
