/**
 * How many writes may be held at a time, and how many bytes of them: shared by the I/O threads,
 * which take, and the main thread, which gives back. Bounded because held data is kept in memory,
 * and because the kernel has at most `maxBackground` requests under way: others must find a place.
 */
const WRITES = 0;
const BYTES = 1;

export const MOST_HELD_WRITES = 256;
export const MOST_HELD_BYTES = 128 * 1024 * 1024;

/** Two words of shared memory; all zero: no write is held. */
export type HoldWords = Int32Array;

/** @param hold whether writes are held at all. */
export function makeHoldWords(hold: boolean): HoldWords {
  const words = new Int32Array(new SharedArrayBuffer(8));
  if (hold) words.set([MOST_HELD_WRITES, MOST_HELD_BYTES]);
  return words;
}

/** @returns whether one more write of so many bytes may be held. */
export function takeHold(words: HoldWords, bytes: number): boolean {
  const writes = Atomics.sub(words, WRITES, 1);
  const room = Atomics.sub(words, BYTES, bytes);
  if (writes >= 1 && room >= bytes) return true;
  giveHold(words, bytes);
  return false;
}

export function giveHold(words: HoldWords, bytes: number): void {
  Atomics.add(words, WRITES, 1);
  Atomics.add(words, BYTES, bytes);
}
