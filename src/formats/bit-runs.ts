/** Runs of equal bits in sector bitmaps. Bit 0 of word 0 comes first. */

/** Whether the bit is set. */
export function bitAt(words: Uint32Array, bit: number): boolean {
  return ((words[bit >>> 5]! >>> (bit & 31)) & 1) === 1;
}

/**
 * Length of the run of bits equal to the one at `from`, that one included, at most up to `to`.
 * Requires from < to <= 32 * words.length.
 */
export function runLength(words: Uint32Array, from: number, to: number): number {
  const inverted = bitAt(words, from) ? 0xffffffff : 0;
  let at = from;
  while (at < to) {
    // The first set bit of `rest` is the first that differs.
    const rest = ((words[at >>> 5]! ^ inverted) >>> (at & 31)) >>> 0;
    if (rest !== 0) {
      const equal = 31 - Math.clz32(rest & -rest);
      return Math.min(at + equal, to) - from;
    }
    at = (at | 31) + 1;
  }
  return to - from;
}

/** Sets `count` bits from `from` on. Bit 0 of byte 0 comes first. */
export function setBits(bytes: Uint8Array, from: number, count: number): void {
  const end = from + count;
  const firstByte = Math.ceil(from / 8);
  const lastByte = Math.max(firstByte, Math.floor(end / 8));
  for (let bit = from; bit < Math.min(end, firstByte * 8); bit += 1) {
    bytes[bit >>> 3]! |= 1 << (bit & 7);
  }
  bytes.fill(0xff, firstByte, lastByte);
  for (let bit = lastByte * 8; bit < end; bit += 1) bytes[bit >>> 3]! |= 1 << (bit & 7);
}

/** Turns the bits of every byte round, for bitmaps whose most significant bit comes first. */
export function reverseBits(bytes: Uint8Array): void {
  for (let index = 0; index < bytes.length; index += 1) {
    let byte = bytes[index]!;
    byte = ((byte & 0xf0) >>> 4) | ((byte & 0x0f) << 4);
    byte = ((byte & 0xcc) >>> 2) | ((byte & 0x33) << 2);
    bytes[index] = ((byte & 0xaa) >>> 1) | ((byte & 0x55) << 1);
  }
}
