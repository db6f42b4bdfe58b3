/**
 * Sectors that say which write put them there: generation and number, repeated to the end. Those of
 * generation 0 are zeroes, as a discarded or never written sector is.
 */
export const SECTOR = 512;
/** In the place of a generation: no whole stamp, or that of another sector. */
const TORN = 0xffff_ffff;

const PAIR = 8;

/** @returns {Buffer} `count` sectors of a generation, from number `first` on */
export function fillSectors(generation, first, count) {
  const bytes = Buffer.alloc(count * SECTOR);
  if (generation === 0) return bytes;
  for (let at = 0; at < bytes.length; at += PAIR) {
    bytes.writeUInt32LE(generation, at);
    bytes.writeUInt32LE(first + Math.floor(at / SECTOR), at + 4);
  }
  return bytes;
}

/** @returns {Uint32Array} the generation of each sector of a disk, from its start on */
export function generationsOf(bytes) {
  const generations = new Uint32Array(bytes.length / SECTOR);
  for (let sector = 0; sector < generations.length; sector += 1) {
    const at = sector * SECTOR;
    const generation = bytes.readUInt32LE(at);
    const whole = fillSectors(generation, sector, 1);
    const isWhole = whole.equals(bytes.subarray(at, at + SECTOR));
    generations[sector] = isWhole ? generation : TORN;
  }
  return generations;
}
