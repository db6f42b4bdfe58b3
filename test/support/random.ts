/** Random numbers that a printed seed replays. */

export interface Random {
  readonly seed: number;
  /** An integer from 0 to `limit - 1`. */
  below(limit: number): number;
  pick<T>(items: readonly T[]): T;
  bytes(length: number): Buffer;
}

/** Seed from LAYERDISK_SEED, else from the clock; print it where a test can fail by chance. */
export function newSeed(): number {
  const given = process.env.LAYERDISK_SEED;
  return given === undefined ? Date.now() % 0x7fffffff : Number(given);
}

/** Mulberry32, by Tommy Ettinger (public domain): 32 bits of state are plenty for tests. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  function next(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }
  const below = (limit: number) => Math.floor((next() / 0x1_0000_0000) * limit);
  return {
    seed,
    below,
    pick: (items) => items[below(items.length)]!,
    bytes(length) {
      const words = new Uint32Array(Math.ceil(length / 4));
      for (let at = 0; at < words.length; at += 1) words[at] = next();
      return Buffer.from(words.buffer, 0, length);
    },
  };
}
