/**
 * Locks on block ranges of a volume, one range a thread at a time.
 *
 * Each thread writes the range it holds into words of its own; taking one means looking at the
 * other threads' words under the volume's range mutex. There are few threads, so that is cheaper
 * than any tree, and exact: only requests that really overlap wait for each other.
 */
import { type SharedViews, THREAD, THREAD_WORDS, VOLUME, VOLUME_WORDS } from './shared-memory.js';
import { lockMutex, unlockMutex } from './shared-mutex.js';

const WORD = 2 ** 32;

export class RangeLock {
  readonly #views: SharedViews;
  readonly #thread: number;
  readonly #mine: number;

  constructor(views: SharedViews, thread: number) {
    this.#views = views;
    this.#thread = thread;
    this.#mine = thread * THREAD_WORDS;
  }

  /** Waits until no other thread holds a block of [start, end) of the volume, then holds them. */
  acquire(volume: number, start: number, end: number): void {
    const { threads, volumeWords } = this.#views;
    const mutex = volume * VOLUME_WORDS + VOLUME.rangeLock;
    for (;;) {
      lockMutex(volumeWords, mutex);
      const holder = this.#conflict(volume, start, end);
      if (holder < 0) {
        threads[this.#mine + THREAD.rangeStartLow] = (start % WORD) | 0;
        threads[this.#mine + THREAD.rangeStartHigh] = Math.floor(start / WORD);
        threads[this.#mine + THREAD.rangeEndLow] = (end % WORD) | 0;
        threads[this.#mine + THREAD.rangeEndHigh] = Math.floor(end / WORD);
        Atomics.store(threads, this.#mine + THREAD.rangeVolume, volume + 1);
        unlockMutex(volumeWords, mutex);
        return;
      }
      unlockMutex(volumeWords, mutex);
      Atomics.wait(threads, holder * THREAD_WORDS + THREAD.rangeVolume, volume + 1);
    }
  }

  release(): void {
    const { threads } = this.#views;
    Atomics.store(threads, this.#mine + THREAD.rangeVolume, 0);
    Atomics.notify(threads, this.#mine + THREAD.rangeVolume);
  }

  /** A thread that holds a block of the range, -1 when there is none. */
  #conflict(volume: number, start: number, end: number): number {
    const { threads, threadCount } = this.#views;
    for (let thread = 0; thread < threadCount; thread += 1) {
      if (thread === this.#thread) continue;
      const at = thread * THREAD_WORDS;
      if (Atomics.load(threads, at + THREAD.rangeVolume) !== volume + 1) continue;
      const otherStart = join(threads, at + THREAD.rangeStartLow);
      const otherEnd = join(threads, at + THREAD.rangeEndLow);
      if (start < otherEnd && otherStart < end) return thread;
    }
    return -1;
  }
}

/** Two words, low first, as one number below 2^53. */
function join(words: Int32Array, at: number): number {
  return (words[at]! >>> 0) + words[at + 1]! * WORD;
}
