/**
 * How many new blocks the host's file system has room for, above what is kept in reserve: one
 * number for all threads, so that a write that needs new room is refused before it changes anything
 * and without a question to the host.
 *
 * Two counters that only grow (and wrap): blocks *taken*, before they are written, and blocks
 * *settled*, after that. Who looks at the host reads `settled` first, then asks how much is free,
 * and publishes the *limit* that `taken` may reach: settled + free - reserve. What was under way
 * at that moment lies between the two counters and counts against the limit, whether the host
 * had seen it or not. So between two looks the threads never take more than there was, however fast
 * they are; near the end a look may allow too little, and the next one puts that right.
 *
 * Not counted: tuples, and what the host itself needs to note where the blocks are. The reserve
 * is there for these.
 */
import { DiskError } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import { FULL_HINT } from '../../storage/exact-io.js';
import type { SharedViews } from './shared-memory.js';

const TAKEN = 0;
const SETTLED = 1;
const LIMIT = 2;
/** 0 until somebody has looked. */
const KNOWN = 3;
/** Whether `take` refuses what goes past the limit. */
const ENFORCED = 4;
const REFUSED = 5;
/** What was free beyond the limit at the last look, in units of MORE_BLOCKS. */
const MORE = 6;

/** 4 TiB a look: the counters wrap at twice that. */
const MOST_BLOCKS = 2 ** 30;
/** 4 MiB: so the word lasts for 8 PiB. */
const MORE_BLOCKS = 2 ** 10;
const MOST_MORE = 2 ** 31 - 1;

export class Allowance {
  readonly #words: Int32Array;

  constructor({ allowance }: Pick<SharedViews, 'allowance'>) {
    this.#words = allowance;
  }

  /**
   * Takes room for blocks about to be written; `settle` follows, however that ends.
   * @throws DiskError ENOSPC, passing: only the reserve is left.
   */
  take(blocks: number): void {
    const words = this.#words;
    const before = Atomics.add(words, TAKEN, blocks);
    if (Atomics.load(words, ENFORCED) === 0) return;
    if (((Atomics.load(words, LIMIT) - before) | 0) >= blocks) return;
    Atomics.sub(words, TAKEN, blocks);
    Atomics.add(words, REFUSED, 1);
    throw new DiskError('failed', "the store's file system is down to its reserve", {
      errno: 'ENOSPC',
      hint: FULL_HINT,
      passing: true,
    });
  }

  /** The blocks are written, or never will be. */
  settle(blocks: number): void {
    Atomics.add(this.#words, SETTLED, blocks);
  }

  /**
   * Looks at the host and publishes what may be taken from now on. One thread only.
   * @param free asks for the bytes that are free.
   * @param reserve bytes to keep; 0: nothing is refused here, the host says when it is full.
   */
  publish(free: () => number, reserve: number): void {
    const words = this.#words;
    const settled = Atomics.load(words, SETTLED);
    const blocks = Math.floor(Math.max(0, free() - reserve) / BLOCK_SIZE);
    const allowed = Math.min(blocks, MOST_BLOCKS);
    Atomics.store(words, LIMIT, (settled + allowed) | 0);
    Atomics.store(words, MORE, Math.min(Math.floor((blocks - allowed) / MORE_BLOCKS), MOST_MORE));
    Atomics.store(words, ENFORCED, reserve > 0 ? 1 : 0);
    Atomics.store(words, KNOWN, 1);
  }

  /**
   * Bytes that there is room for, as of the last look; Infinity before the first one. Of more than
   * 4 TiB the next look allows the rest.
   */
  get left(): number {
    const words = this.#words;
    if (Atomics.load(words, KNOWN) === 0) return Number.POSITIVE_INFINITY;
    const blocks = (Atomics.load(words, LIMIT) - Atomics.load(words, TAKEN)) | 0;
    const more = Atomics.load(words, MORE) * MORE_BLOCKS;
    return (Math.max(0, blocks) + more) * BLOCK_SIZE;
  }

  /** Writes that were refused so far. */
  get refused(): number {
    return Atomics.load(this.#words, REFUSED) >>> 0;
  }
}
