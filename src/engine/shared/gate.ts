/**
 * The gate of a volume: requests pass through it; a head switch closes it, waits until nobody is
 * inside, and opens it again.
 *
 * Each thread announces in a word of its own which volume it is in, then looks at the gate; the
 * closer closes the gate, then looks at the words. Both orders are sequentially consistent
 * (Atomics), so one of the two always sees the other.
 */
import { MAX_THREADS, THREAD, THREAD_WORDS, VOLUME, VOLUME_WORDS } from './shared-memory.js';

const OPEN = 0;
const CLOSED = 1;
/** How long the closer sleeps between two looks at the threads, milliseconds. */
const DRAIN_POLL_MS = 0.05;

export function enterGate(
  volumeWords: Int32Array,
  threads: Int32Array,
  place: { readonly volume: number; readonly thread: number },
): void {
  const mine = place.thread * THREAD_WORDS + THREAD.inside;
  const gate = place.volume * VOLUME_WORDS + VOLUME.gate;
  for (;;) {
    Atomics.store(threads, mine, place.volume + 1);
    if (Atomics.load(volumeWords, gate) === OPEN) return;
    Atomics.store(threads, mine, 0);
    Atomics.wait(volumeWords, gate, CLOSED);
  }
}

export function leaveGate(threads: Int32Array, thread: number): void {
  Atomics.store(threads, thread * THREAD_WORDS + THREAD.inside, 0);
}

/** Closes the gates of volumes: no further request enters. Follow with `drain`. */
export function closeGates(volumeWords: Int32Array, volumes: readonly number[]): void {
  for (const volume of volumes) {
    Atomics.store(volumeWords, volume * VOLUME_WORDS + VOLUME.gate, CLOSED);
  }
}

/**
 * Blocks until no thread is inside any of the volumes. Requests are short; flushes wait outside the
 * gate.
 */
export function drain(threads: Int32Array, volumes: readonly number[]): void {
  const inside = new Set(volumes.map((volume) => volume + 1));
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let thread = 0; thread < MAX_THREADS; thread += 1) {
    const word = thread * THREAD_WORDS + THREAD.inside;
    while (inside.has(Atomics.load(threads, word))) Atomics.wait(pause, 0, 0, DRAIN_POLL_MS);
  }
}

function openGates(volumeWords: Int32Array, volumes: readonly number[]): void {
  for (const volume of volumes) {
    const gate = volume * VOLUME_WORDS + VOLUME.gate;
    Atomics.store(volumeWords, gate, OPEN);
    Atomics.notify(volumeWords, gate);
  }
}

/** Runs `task` while nobody is inside any of the volumes: requests wait, so it must be short. */
export function whileShut(
  { volumeWords, threads }: { readonly volumeWords: Int32Array; readonly threads: Int32Array },
  volumes: readonly number[],
  task: () => void,
): void {
  closeGates(volumeWords, volumes);
  try {
    drain(threads, volumes);
    task();
  } finally {
    openGates(volumeWords, volumes);
  }
}
