/**
 * A mutex in one word of shared memory, between threads.
 *
 * States: 0 free, 1 held, 2 held and somebody may be waiting (the classic three-state futex mutex).
 */

const FREE = 0;
const HELD = 1;
const CONTENDED = 2;

/** Blocks the calling thread until it holds the mutex. */
export function lockMutex(words: Int32Array, index: number): void {
  if (Atomics.compareExchange(words, index, FREE, HELD) === FREE) return;
  while (Atomics.exchange(words, index, CONTENDED) !== FREE) {
    Atomics.wait(words, index, CONTENDED);
  }
}

export function unlockMutex(words: Int32Array, index: number): void {
  if (Atomics.exchange(words, index, FREE) === CONTENDED) Atomics.notify(words, index, 1);
}

/** For the main thread, which must not block for as long as a flush takes. */
export async function lockMutexAsync(words: Int32Array, index: number): Promise<void> {
  if (Atomics.compareExchange(words, index, FREE, HELD) === FREE) return;
  while (Atomics.exchange(words, index, CONTENDED) !== FREE) {
    const outcome = Atomics.waitAsync(words, index, CONTENDED);
    if (outcome.async) await outcome.value;
  }
}
