/** Random numbers and bytes that a seed repeats. */

export interface RandomSource {
  /** An integer from 0 to `limit` - 1. */
  below(limit: number): number;
  bytes(length: number): Buffer;
}

/** xorshift32; `seed` is any integer. */
export function randomSource(seed: number): RandomSource {
  let state = seed >>> 0 || 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  return {
    below: (limit) => next() % limit,
    bytes: (length) => {
      const words = new Uint32Array(Math.ceil(length / 4));
      for (let index = 0; index < words.length; index += 1) words[index] = next();
      return Buffer.from(words.buffer, 0, length);
    },
  };
}
