/** A seeded generator, so that a failing run can be replayed. */

/** mulberry32: 32 bits of state, good enough to drive tests. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number in [0, limit). */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  fill(bytes: Buffer): Buffer {
    for (let i = 0; i < bytes.length; i += 1) bytes[i] = this.below(256);
    return bytes;
  }
}

/** The seed of this run: LAYERDISK_SEED, else fresh. */
export function seedOfRun(): number {
  const given = process.env['LAYERDISK_SEED'];
  return given === undefined ? Date.now() % 2 ** 32 : Number(given);
}
