/**
 * The file of checksums beside a sealed delta, byte for byte; DELTA-FORMAT.md is the prose of it.
 * All fields little endian.
 */
import { crc32cOf } from '../../common/checksum.js';
import { DiskError } from '../../common/errors.js';
import { bytes, struct, u32le, u64le } from '../../common/struct.js';
import { BLOCK_SIZE, safeNumber } from '../../common/units.js';
import type { DeltaId } from '../delta-id.js';

const SUMS_VERSION = 1;
const MAGIC = Buffer.from('LDSUMS\0\0', 'latin1');

/** Header and pages alike. */
export const SUMS_PAGE = 4096;
/** Checksums in one page; its own checksum follows them. */
export const SUMS_PER_PAGE = SUMS_PAGE / 4 - 1;
/** In the place of a slot's checksum: this slot is not covered. */
export const NOT_COVERED = 0;

const HEADER = struct('header of a sums file', SUMS_PAGE, {
  magic: bytes(8),
  version: u32le,
  pageSize: u32le,
  deltaId: bytes(16),
  dataGeneration: u32le,
  blockSize: u32le,
  slots: u64le,
  zero: bytes(SUMS_PAGE - 52),
  checksum: u32le,
});
const PAGE = struct('page of a sums file', SUMS_PAGE, {
  sums: bytes(SUMS_PER_PAGE * 4),
  checksum: u32le,
});
const SEED = struct('seed of a page of a sums file', 20, { deltaId: bytes(16), page: u32le });

/** What a sums file is about. */
export interface SumsHeader {
  readonly id: DeltaId;
  /** Of the data file whose slots are summed. */
  readonly dataGeneration: number;
  /** Slots that the pages have a place for. */
  readonly slots: number;
}

export function encodeSumsHeader({ id, dataGeneration, slots }: SumsHeader): Buffer {
  const page = HEADER.encode({
    magic: MAGIC,
    version: SUMS_VERSION,
    pageSize: SUMS_PAGE,
    deltaId: Buffer.from(id, 'hex'),
    dataGeneration,
    blockSize: BLOCK_SIZE,
    slots: BigInt(slots),
  });
  page.writeUInt32LE(crc32cOf(page.subarray(0, HEADER.offsetOf.checksum)), SUMS_PAGE - 4);
  return page;
}

/**
 * @returns undefined when the page is no intact header.
 * @throws DiskError `not-supported` for an intact one of another version.
 */
export function decodeSumsHeader(page: Buffer, path: string): SumsHeader | undefined {
  const header = HEADER.decode(page);
  if (!header.magic.equals(MAGIC)) return undefined;
  if (crc32cOf(page.subarray(0, HEADER.offsetOf.checksum)) !== header.checksum) return undefined;
  const { version, pageSize, blockSize } = header;
  if (version !== SUMS_VERSION || pageSize !== SUMS_PAGE || blockSize !== BLOCK_SIZE) {
    throw new DiskError('not-supported', `${path}: checksums of version ${version} are not known`, {
      hint: 'upgrade layerdisk to check this store',
    });
  }
  return {
    id: header.deltaId.toString('hex'),
    dataGeneration: header.dataGeneration,
    slots: safeNumber(header.slots, `${path}: slots`),
  };
}

/** The checksum of one slot as it is stored: the one value with a meaning of its own is avoided. */
export function slotSum(slot: Uint8Array): number {
  return crc32cOf(slot) || 1;
}

/** Puts a page's own checksum into it; one that belongs elsewhere does not verify here. */
export function sealSumsPage(page: Buffer, id: DeltaId, index: number): void {
  page.writeUInt32LE(pageChecksum(page, id, index), PAGE.offsetOf.checksum);
}

export function isSumsPage(page: Buffer, id: DeltaId, index: number): boolean {
  return page.readUInt32LE(PAGE.offsetOf.checksum) === pageChecksum(page, id, index);
}

function pageChecksum(page: Buffer, id: DeltaId, index: number): number {
  const seed = SEED.encode({ deltaId: Buffer.from(id, 'hex'), page: index });
  return crc32cOf(page.subarray(0, PAGE.offsetOf.checksum), crc32cOf(seed));
}
