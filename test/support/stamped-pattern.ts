/** Test data in which every sector says where it belongs and which write put it there. */

export const STAMP_BYTES = 512;

/**
 * `length` bytes for the disk's bytes at `offset`: each 512-byte sector of the disk holds its own
 * number and the generation, repeated, so that a wrong place, a wrong generation and a torn sector
 * all show. Depends on nothing but the arguments; any range may be asked for.
 */
export function stampedPattern(generation: number, offset: number, length: number): Buffer {
  const first = Math.floor(offset / STAMP_BYTES);
  const last = Math.ceil((offset + length) / STAMP_BYTES);
  const sectors = Buffer.allocUnsafe((last - first) * STAMP_BYTES);
  for (let sector = first; sector < last; sector += 1) {
    fillStamp(sectors, (sector - first) * STAMP_BYTES, generation, sector);
  }
  const start = offset - first * STAMP_BYTES;
  return sectors.subarray(start, start + length);
}

/** 16 bytes, 32 times: a mark that is never zero, the generation, the sector's number. */
function fillStamp(target: Buffer, at: number, generation: number, sector: number): void {
  target.writeUInt32LE(0x444c5453, at);
  target.writeUInt32LE(generation >>> 0, at + 4);
  target.writeBigUInt64LE(BigInt(sector), at + 8);
  for (let filled = 16; filled < STAMP_BYTES; filled *= 2) {
    target.copy(target, at + filled, at, at + filled);
  }
}
