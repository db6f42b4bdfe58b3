/** Makes footers for new VHDs. */
import { randomUUID } from 'node:crypto';
import { onesComplementSum } from '../../common/checksum.js';
import { SECTOR_SIZE } from '../../common/units.js';
import {
  DISK_TYPE_FIXED,
  EPOCH_SECONDS,
  FEATURES_RESERVED,
  FOOTER,
  FOOTER_COOKIE,
  NO_OFFSET,
  VERSION,
} from './vhd-layout.js';

/**
 * Hyper-V's name. Readers decide by it whether the disk is as large as the footer says or as the
 * geometry gives; QEMU goes by the geometry, which is smaller, for every name that it does not
 * know.
 */
const CREATOR = 'win ';
const CREATOR_VERSION = 0x000a0000;
const CREATOR_HOST_OS = 'Wi2k';

const MAX_CYLINDERS = 65535;
const MAX_HEADS = 16;

type DiskType = 2 | 3 | 4;

/**
 * The footer's bytes, checksum included; the dynamic disk header of others lies at `dataOffset`.
 */
export function encodeFooter(diskType: DiskType, virtualSize: number, dataOffset: number): Buffer {
  const [cylinders, heads, sectorsPerTrack] = geometryOf(virtualSize);
  const footer = FOOTER.encode({
    cookie: Buffer.from(FOOTER_COOKIE),
    features: FEATURES_RESERVED,
    version: VERSION,
    dataOffset: diskType === DISK_TYPE_FIXED ? NO_OFFSET : BigInt(dataOffset),
    timeStamp: timeStampOf(Date.now()),
    creatorApplication: Buffer.from(CREATOR),
    creatorVersion: CREATOR_VERSION,
    creatorHostOs: Buffer.from(CREATOR_HOST_OS),
    originalSize: BigInt(virtualSize),
    currentSize: BigInt(virtualSize),
    cylinders,
    heads,
    sectorsPerTrack,
    diskType,
    uuid: randomUUID(),
  });
  return seal(footer, FOOTER.offsetOf.checksum);
}

/** Enters the checksum of a structure into it. */
export function seal(structure: Buffer, fieldOffset: number): Buffer {
  structure.writeUInt32BE(onesComplementSum(structure, fieldOffset), fieldOffset);
  return structure;
}

/** Milliseconds since 1970 in the format's time: the field has 32 bits and no sign. */
export function timeStampOf(milliseconds: number): number {
  const seconds = Math.floor(milliseconds / 1000) - EPOCH_SECONDS;
  return Math.min(Math.max(0, seconds), 0xffffffff);
}

/**
 * Cylinders, heads and sectors of a track by the specification's appendix ("CHS Calculation"): the
 * largest disk not above the size that old BIOSes can address.
 */
function geometryOf(virtualSize: number): [number, number, number] {
  const sectors = Math.min(virtualSize / SECTOR_SIZE, MAX_CYLINDERS * MAX_HEADS * 255);
  let heads = MAX_HEADS;
  let perTrack = 255;
  if (sectors < MAX_CYLINDERS * MAX_HEADS * 63) {
    perTrack = 17;
    heads = Math.max(4, Math.ceil(Math.floor(sectors / perTrack) / 1024));
    for (const larger of [31, 63]) {
      if (heads <= MAX_HEADS && Math.floor(sectors / perTrack) < heads * 1024) break;
      perTrack = larger;
      heads = MAX_HEADS;
    }
  }
  return [Math.floor(Math.floor(sectors / perTrack) / heads), heads, perTrack];
}
