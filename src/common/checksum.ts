/** Checksums of on-disk structures: CRC-32C (VHDX) and the ones' complement byte sum (VHD). */
import { crc32c } from '@node-rs/crc32';

const ZERO_FIELD = Buffer.alloc(4);

/** CRC-32C (Castagnoli) of `data`, or of what `previous` was the checksum of followed by `data`. */
export function crc32cOf(data: Uint8Array, previous = 0): number {
  return crc32c(data, previous);
}

/** CRC-32C of a structure whose own 4-byte checksum field, at `fieldOffset`, counts as zeroes. */
export function crc32cWithoutField(data: Uint8Array, fieldOffset: number): number {
  const head = crc32c(data.subarray(0, fieldOffset));
  return crc32c(data.subarray(fieldOffset + 4), crc32c(ZERO_FIELD, head));
}

/**
 * Ones' complement of the sum of all bytes, the 4-byte field at `fieldOffset` counted as zeroes.
 */
export function onesComplementSum(data: Uint8Array, fieldOffset: number): number {
  let sum = 0;
  for (let index = 0; index < data.length; index += 1) {
    if (index < fieldOffset || index >= fieldOffset + 4) sum += data[index]!;
  }
  return ~sum >>> 0;
}
