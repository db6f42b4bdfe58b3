/** Which sector a number of the numbering writer goes to, for the writer and for its judge. */

/**
 * Scattered, so that neighbours in the sequence lie in different blocks; several numbers share a
 * sector.
 * @param {number} number from 1
 * @param {number} sectors how many there are
 * @returns {number}
 */
export function sectorOf(number, sectors) {
  const mixed = Math.imul(number, 0x9e3779b1) ^ (number >>> 3);
  return (mixed >>> 0) % sectors;
}
